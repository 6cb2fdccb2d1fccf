"""Writing tar shards in WebDataset's layout: all of them appear when the last one is whole."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from flowfn import rules
from flowfn.extras import needed
from flowfn.formats.shards.naming import PATTERN, counts_shards, shard_name
from flowfn.formats.tar.extensions import component_bytes
from flowfn.formats.tar.headers import BLOCK_SIZE, leads_out
from flowfn.formats.tar.index import INDEX_SUFFIX, save_index, scanned, split_name
from flowfn.showing import brief
from flowfn.storage.files import ReadablePieces, file_path, is_url
from flowfn.storage.unpacking import COMPRESSORS, PACKED, packed_by
from flowfn.storage.writing import refuse_existing, shown, written_whole

USUAL = 1 << 30
"""How many bytes a shard has at most, if nobody says anything."""

_WRITER = "write_webdataset"
_GZIPPED = COMPRESSORS["gzip"].suffixes


@rules.checked(
    pattern=PATTERN,
    shard_size=rules.optional(rules.positive),
    shard_bytes=rules.optional(rules.positive),
    overwrite=rules.boolean,
    save_index=rules.boolean,
)
def write_webdataset(
    pattern: Any,
    flow: Any,
    *,
    shard_size: int | None = None,
    shard_bytes: int | None = None,
    overwrite: bool = False,
    save_index: bool = False,
) -> None:
    """Write a flow of dicts as tar files of WebDataset's layout: one file for each component, named key.extension.

    Keys of a datapoint are extensions (`jpg`, `cls`, `seg.png`), which say how a component is written: strings as txt,
    integers as cls, anything of JSON as json, arrays as npy, dicts of arrays as npz, images (RGB, height x width x 3,
    of uint8) as png or jpg (as png also of uint16 and with alpha; as tif of floats, too), any object as pyd, each of
    them and `.gz` compressed; bytes are written as they are. `__key__` is the name of the sample, by default its number
    in this call with nine digits; other keys that begin with `__` are left out.

    `pattern` is the path of one file, or one with the number of the shard, as in "train-{shard:05d}.tar": a shard then
    has at most `shard_size` samples and (unless a single sample is larger) `shard_bytes` bytes, one gigabyte if neither
    is given. With ".tar.gz" it is compressed. The same datapoints give the same bytes. Nothing is at its final place
    before all is written. `save_index=True` writes what `read_webdataset` needs to know beside each shard.

    Raises:
        FileExistsError: there are files of this pattern already; with `overwrite=True` they are all replaced.
        TypeError: a datapoint is no dict, or a component cannot be written under its extension.
        ValueError: a key cannot be told from its extension when it is read (a dot in it), leads out of a folder, or is
            that of another datapoint in the same file.

    >>> import tempfile, os
    >>> folder = tempfile.mkdtemp()
    >>> write_webdataset(folder + "/{shard}.tar", [{"txt": text} for text in "abc"], shard_size=2)
    >>> sorted(os.listdir(folder))
    ['0.tar', '1.tar']
    """
    several = counts_shards(os.fspath(pattern), _WRITER)
    if save_index and (is_url(pattern) or os.fspath(pattern).endswith(_GZIPPED)):
        raise ValueError(
            f"{_WRITER}(): save_index=True needs local files that are not compressed, got {pattern!r}; leave one out"
        )
    if os.fspath(pattern).endswith(PACKED) and not os.fspath(pattern).endswith(_GZIPPED):
        raise ValueError(f"{_WRITER}(): pattern must end with .tar or .tar.gz, got {pattern!r}")
    if not several and (shard_size or shard_bytes):
        raise ValueError(
            f"{_WRITER}(): pattern must say where the number of the shard goes, as in 'train-{{shard:05d}}.tar', got "
            f"{pattern!r}"
        )
    if several and not (shard_size or shard_bytes):
        shard_bytes = USUAL
    target = Target(file_path(pattern, _WRITER), several, overwrite, save_index)
    target.refuse()
    with contextlib.closing(shown(flow, _WRITER)) as source, target:
        for number, datapoint in enumerate(source):
            key, files = _tar_members(datapoint, number)
            size = sum(map(len, files))
            shard = target.shard
            if shard.samples and (
                (shard_size and shard.samples >= shard_size) or (shard_bytes and shard.bytes + size > shard_bytes)
            ):
                shard = target.next()
            shard.add(key, files, size)


class Shard:
    """A tar file that is being written."""

    def __init__(self, beside: str) -> None:
        self.raw: BinaryIO = open(beside, "wb")  # noqa: SIM115
        self.packed = packed_by("gzip", self.raw) if beside.endswith(_GZIPPED) else None
        self.file: Any = self.packed or self.raw
        self.samples = self.bytes = 0
        self.keys: set[str] = set()

    def add(self, key: str, files: list[bytes], size: int) -> None:
        """Write a sample.

        Raises:
            ValueError: there is one of this key.
        """
        if key in self.keys:
            raise ValueError(
                f"{_WRITER}(): two datapoints of a file have the key {key!r}, and could not be told apart; make keys "
                "differ"
            )
        self.keys.add(key)
        self.file.writelines(files)
        self.samples += 1
        self.bytes += size

    def finish(self) -> None:
        """Mark the end, up to a whole record as other programs do."""
        try:
            self.file.write(bytes(2 * BLOCK_SIZE + -(self.bytes + 2 * BLOCK_SIZE) % tarfile.RECORDSIZE))
        finally:
            self.close()

    def close(self) -> None:
        """Close the files."""
        try:
            if self.packed is not None:
                self.packed.close()
        finally:
            self.raw.close()


class Target:
    """Where shards go: beside their final places, and there all at once; behind a URL each when it is whole."""

    def __init__(self, pattern: str, several: bool, overwrite: bool, index: bool) -> None:
        self.pattern, self.several, self.overwrite, self.index = pattern, several, overwrite, index
        self.paths: list[str] = []
        self.there: list[str] = []
        self._all, self._each = contextlib.ExitStack(), list[contextlib.ExitStack]()

    def refuse(self) -> None:
        """Raise an error if there are files of this pattern that are not to be replaced."""
        for path in self._there():
            refuse_existing(path, self.overwrite, _WRITER)

    def __enter__(self) -> Target:
        self.shard = self._opened()
        return self

    def next(self) -> Shard:
        """A new shard; the one before is whole."""
        self._finish()
        self.shard = self._opened()
        return self.shard

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                self._finish()
                self._place()
            else:
                self.shard.close()
        except BaseException:
            self._undo(*sys.exc_info())
            raise
        if error[0] is not None:
            self._undo(*error)

    def _opened(self) -> Shard:
        path = shard_name(self.pattern, shard=len(self.paths)) if self.several else self.pattern
        one = contextlib.ExitStack()
        beside = one.enter_context(written_whole(path, self.overwrite, _WRITER))
        self._each.append(one)
        self._all.push(one)
        self.paths.append(path)
        return Shard(beside)

    def _finish(self) -> None:
        self.shard.finish()
        if is_url(self.paths[-1]):
            self._each[-1].close()
            self.there.append(self.paths[-1])

    def _place(self) -> None:
        """Move all to their final places."""
        for path, one in list(zip(self.paths, self._each))[len(self.there) :]:
            one.close()
            self.there.append(path)
        if self.overwrite:
            self._remove_others()
        for path in self.paths if self.index else ():
            with contextlib.closing(ReadablePieces(path, _WRITER)) as pieces:
                save_index(scanned(pieces, path), path)

    def _undo(self, *error: Any) -> None:
        """Nothing is left, but for local files that are in the place of others: those are gone."""
        try:
            self._all.__exit__(*error)
        finally:
            for path in self.there:
                if is_url(path):
                    with contextlib.suppress(Exception):
                        system, inside = needed("fsspec.core", f"{_WRITER}()", extra="files").url_to_fs(path)
                        system.rm(inside)
                elif not self.overwrite:
                    _remove(path)

    def _there(self) -> Iterator[str]:
        """Files of this pattern, whatever their numbers."""
        if is_url(self.pattern):
            return
        if not self.several:
            yield self.pattern
            return
        folder = os.path.dirname(shard_name(self.pattern, shard=0))
        if os.path.isdir(folder):
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                if any(shard_name(self.pattern, shard=int(digits)) == path for digits in set(re.findall(r"\d+", path))):
                    yield path

    def _remove_others(self) -> None:
        """Remove the files of this pattern that were there before, and are not written now."""
        for path in set(self._there()) - set(self.paths):
            _remove(path)


def _remove(path: str) -> None:
    """Remove a shard, and what stands beside it."""
    for name in (path, path + INDEX_SUFFIX):
        with contextlib.suppress(FileNotFoundError):
            os.remove(name)


def _tar_members(datapoint: Any, number: int) -> tuple[str, list[bytes]]:
    """The key of a datapoint, and what stands for its components in a tar file."""
    if not isinstance(datapoint, Mapping):
        raise TypeError(
            f"{_WRITER}(): datapoints must be dicts of components by extension, got {brief(datapoint)}; "
            "write map(lambda pair: {'jpg': pair[0], 'cls': pair[1]}) before"
        )
    key = datapoint.get("__key__", f"{number:09d}")
    if not isinstance(key, str):
        raise TypeError(f"{_WRITER}(): __key__ must be a string, got {brief(key)}")
    files: list[bytes] = []
    for extension, value in datapoint.items():
        if not isinstance(extension, str) or not extension.startswith("__"):
            _check_name(key, extension)
            data = component_bytes(extension, value, f"{_WRITER}(), datapoint {key!r}")
            files += (_header(f"{key}.{extension}", len(data)), data, bytes(-len(data) % BLOCK_SIZE))
    if not files:
        raise ValueError(f"{_WRITER}(): datapoint {key!r} has no components")
    return key, files


def _check_name(key: str, extension: Any) -> None:
    """Make sure that the name of a file can be taken apart again."""
    if not isinstance(extension, str):
        raise TypeError(
            f"{_WRITER}(): the keys of a datapoint must be extensions, as in {{'jpg': ..., 'cls': ...}}, got "
            f"{extension!r}"
        )
    name = f"{key}.{extension}"
    if split_name(name) != (key, extension) or "\0" in name or leads_out(name):
        raise ValueError(
            f"{_WRITER}(): {name!r} must be a key and an extension that can be told apart again, got the key {key!r} "
            f"and the extension {extension!r}; a key has no dot in its last part, no '..' and no slash in front, "
            "an extension is in lower case"
        )


def _header(name: str, size: int) -> bytes:
    """The header of a file; the same whoever writes it, and whenever."""
    about = tarfile.TarInfo(name)
    about.size, about.mode = size, 0o644
    return about.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
