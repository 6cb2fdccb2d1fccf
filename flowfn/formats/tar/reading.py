"""Tar shards in WebDataset's layout, read by index where they can be, and shard after shard where they cannot.

The layout: https://github.com/webdataset/webdataset. Nothing in a tar file is extracted, and none of its names are used
as a path.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.formats.tar.extensions import Decoding
from flowfn.formats.tar.index import Index, Shards, lacks, sample_index, sample_parts
from flowfn.formats.tar.tapes import Tape, payload
from flowfn.storage.damage import warn_caller
from flowfn.storage.files import Opened, ReadablePieces, call, file_path, flow_of, is_url, stamp
from flowfn.storage.finding import paths_of
from flowfn.storage.unpacking import PACKED
from flowfn.vocabulary.transform import flat_map

SCANNING = 8
"""How many threads look for samples: most of the time goes into waiting for the disk."""
REMEMBERED_KEYS = 1 << 16
"""How many keys of a stream are remembered at least, so that one that comes again is noticed."""
SAID = 8
"""How many remarks about files come as warnings of their own."""

_READER = "read_webdataset"
_EXTENSION_LIST = rules.optional(
    rules.Rule(
        "a list of extensions, as in ['jpg', 'cls']",
        lambda value: isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value),
        lambda value, others: len(value) > 0 and all(one and not one.startswith(".") for one in value),
    )
)
_DECODE = rules.Rule(
    "True, False, or a dict of functions of bytes by extension",
    lambda value: isinstance(value, (bool, Mapping)),
    lambda value, others: (
        isinstance(value, bool) or all(isinstance(name, str) and callable(one) for name, one in value.items())
    ),
)
_PATHS = rules.Rule(
    "a path, a pattern, a URL, a list of them, or a flow of paths",
    lambda value: (
        isinstance(value, (str, os.PathLike, Flow)) or (isinstance(value, (list, tuple)) and all(map(_is_path, value)))
    ),
    lambda value, others: isinstance(value, Flow) or (os.fspath(value) != "" if _is_path(value) else len(value) > 0),
)


@rules.checked(
    paths=_PATHS,
    components=_EXTENSION_LIST,
    decode=_DECODE,
    index=rules.optional(rules.boolean),
    images=rules.boolean,
    allow_pickle=rules.boolean,
    save_index=rules.boolean,
)
def read_webdataset(
    paths: Any,
    *,
    components: Sequence[str] | None = None,
    decode: bool | Mapping[str, Callable[[bytes], Any]] = True,
    images: bool = False,
    allow_pickle: bool = False,
    index: bool | None = None,
    save_index: bool = False,
) -> Flow[dict[str, Any]]:
    """A flow of the samples in tar files of WebDataset's layout: dicts with the key as `__key__`, then the components.

    `paths` is a path, a URL, a glob pattern, a range in braces (`"train-{0000..0007}.tar"`, `"{train,val}.tar"`), or a
    list of them; the samples of one file come after those of the other. `components` are the extensions to read, which
    each sample must have; the others are passed over. Text, numbers (cls), JSON and arrays (npy, npz) are decoded by
    their extensions, images (RGB) with `images=True`, pickles with `allow_pickle=True`, and others stay bytes;
    `decode=False` leaves all as they are, and a dict (`{"mp4": function_of_bytes}`) comes before these rules.

    Local files are indexed in this call, by reading their headers alone; the flow then knows its length, `flow[i]`
    reads one sample, and `shuffle()` reads none in vain. `save_index=True` keeps what was found in a file `.index`
    beside each, which is used from then on as long as the tar file is the same. What is compressed (.tar.gz, .tar.bz2,
    .tar.xz, and .tar.zst with the extra `zstd`) or behind a URL is read as a stream, one tar file after the other;
    worker processes then share out the files. `index=True` indexes what is behind a URL too (the server must give
    pieces of files), `index=False` streams local files. A flow of paths, for example `ff.pipe(paths, ff.shuffle(),
    ff.shard(rank, world))`, is streamed in its order.

    A sample is files that follow one another. If its key comes again behind others, that is an error (a stream
    remembers the last 65 536 keys). Of a file whose name begins with a dot ("._0001.jpg") or has no extension, which is
    in no sample, a warning tells; `__name__` at the beginning of a name is for what is said of the whole file, which is
    passed over. A tar file ends with zeros, where tar and webdataset stop reading: what stands behind them, as in two
    files joined by `cat`, is an error, and more zeros than mark an end are warned of, as in a download that was broken
    off.

    Raises:
        FileNotFoundError: there is no such file, or none that matches.
        ValueError: a file is damaged, cut off or no tar file; there are links, devices, sparse files, names with ".."
            in it; a key comes again, or a sample lacks one of the components; a component is not what its extension
            says, or is a pickle.
        ImportError: a file is compressed by zstd, and zstandard is not installed.

    >>> import tempfile
    >>> from flowfn.formats import write_webdataset
    >>> folder = tempfile.mkdtemp()
    >>> samples = [{"txt": "one", "cls": 1}, {"txt": "two", "cls": 2}]
    >>> write_webdataset(folder + "/{shard:02d}.tar", samples, shard_size=1)
    >>> flow = read_webdataset(folder + "/{00..01}.tar")
    >>> len(flow), flow[1]
    (2, {'__key__': '000000001', 'txt': 'two', 'cls': 2})
    """
    chosen = None if components is None else tuple(one.lower() for one in components)
    reading = SampleReader(chosen, Decoding(decode, images, allow_pickle))
    words = call(
        _READER,
        *[
            paths
            if isinstance(paths, Flow)
            else [*map(os.fspath, paths)]
            if isinstance(paths, (list, tuple))
            else os.fspath(paths)
        ],
        components=(components, None),
        decode=(decode, True),
        images=(images, False),
        allow_pickle=(allow_pickle, False),
        index=(index, None),
        save_index=(save_index, False),
    )
    if isinstance(paths, Flow):
        if index or save_index:
            raise ValueError(
                f"{_READER}(): a flow of paths is streamed, so there is no index; give a list of paths for one"
            )
        return _streamed(paths, reading, words)
    files = paths_of(paths, _READER)
    if save_index and any(map(is_url, files)):
        raise ValueError(
            f"{_READER}(): save_index=True needs local files, but there are URLs among them; pass index=True for an "
            "index that is not kept"
        )
    if index is None:
        index = save_index or not any(is_url(path) or path.lower().endswith(PACKED) for path in files)
    if not index:
        if save_index:
            raise ValueError(f"{_READER}(): save_index=True needs an index, and index=False is for none; leave one out")
        return _streamed(files, reading, words)
    samples = Samples(files, reading, save_index)
    _warn(samples.remarks)
    return flow_of(samples, _READER, words)


@dataclass(frozen=True)
class SampleReader:
    """Which components of samples are read, and how they are decoded. Called with a path, it reads a whole tar file."""

    components: tuple[str, ...] | None
    decoding: Decoding

    def wants(self, extension: str) -> bool:
        """Whether a component is read."""
        return self.components is None or extension in self.components

    def decoded(self, key: str, extension: str, data: bytes, path: str) -> Any:
        """A component."""
        return self.decoding(extension, data, lambda: f"{_READER}(): {path}: {key}.{extension}")

    def __call__(self, path: Any) -> Iterator[dict[str, Any]]:
        """The samples of a tar file from its beginning to its end."""
        path = file_path(path, _READER)
        called = f"{_READER}(): {path}"
        sample: dict[str, Any] = {}
        extensions, first = list[str](), 0
        with Tape(path, f"{_READER}()", called) as tape:
            for key, extension, member, begins in sample_parts(
                tape, lambda remark: warnings.warn(f"{called} {remark}", stacklevel=2), REMEMBERED_KEYS
            ):
                if begins:
                    if extensions:
                        yield self._whole(sample, extensions, first, called)
                    sample, extensions, first = {"__key__": key}, [], member.offset
                extensions.append(extension)
                if self.wants(extension):
                    sample[extension] = self.decoded(key, extension, payload(tape, member), path)
        if extensions:
            yield self._whole(sample, extensions, first, called)

    def _whole(self, sample: dict[str, Any], extensions: Sequence[str], at: int, called: str) -> dict[str, Any]:
        """The sample, if it has what is to be read of it."""
        for missing in filter(lambda one: one not in extensions, self.components or ()):
            raise lacks(called, sample["__key__"], at, missing, extensions)
        return sample


class Samples(Opened):
    """The samples of tar files, by index."""

    def __init__(self, paths: Sequence[str], reading: SampleReader, save: bool) -> None:
        self.paths, self.reading, self.who = list(paths), reading, _READER
        self.path = paths[0] if len(paths) == 1 else f"{paths[0]}, ... ({len(paths)} files)"
        self.stamp: Any = tuple(stamp(path, f"{_READER}()") for path in paths)
        self._handles: dict[tuple[int, int], Any] = {}

        def look(path: str) -> Index:
            with contextlib.closing(ReadablePieces(path, f"{_READER}()")) as pieces:
                return sample_index(pieces, path, f"{_READER}(): {path}", save=save)

        with ThreadPoolExecutor(min(SCANNING, len(paths))) as threads:
            self._indexes = dict(enumerate(threads.map(look, paths)))
        for path, index in zip(paths, self._indexes.values()):
            if reading.components is not None:
                index.demand(reading.components, f"{_READER}(): {path}")
        self.ends = list(itertools.accumulate(map(len, self._indexes.values())))

    @property
    def remarks(self) -> list[str]:
        """What is odd about the files that were looked at, but no error."""
        return [
            f"{_READER}(): {self.paths[number]} {remark}"
            for number, index in self._indexes.items()
            for remark in index.remarks
        ]

    def open(self) -> Shards:
        """Nothing is opened before it is wanted."""
        return Shards(self.paths, self.stamp, self._indexes, _READER)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_indexes": {}}  # each process looks for itself, when it comes to a file

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, number: int) -> dict[str, Any]:
        self.within(number)
        shard = bisect.bisect_right(self.ends, number)
        if shard:
            number -= self.ends[shard - 1]
        pieces, index = self.handle[shard]
        return self._sample(pieces, index, number, self.paths[shard])

    def _sample(self, pieces: ReadablePieces, index: Index, number: int, path: str) -> dict[str, Any]:
        key, extensions, offsets, sizes = index.sample(number)
        sample: dict[str, Any] = {"__key__": key}
        reading = self.reading
        for extension, offset, size in zip(extensions, offsets, sizes):
            if reading.wants(extension):
                data = pieces.read(offset, size)
                if len(data) < size:
                    raise ValueError(f"{_READER}(): {path} has become shorter: {key}.{extension} is not there any more")
                sample[extension] = reading.decoded(key, extension, data, path)
        return sample


def _streamed(paths: Any, reading: SampleReader, words: str) -> Flow[dict[str, Any]]:
    """The samples of one tar file after the other: an expand stage, so that workers share out the files."""
    streamed = flat_map(reading, paths)
    return Flow(streamed.part, streamed.sources, made=_CallText(words))


def _warn(remarks: Sequence[str]) -> None:
    """Warn of what is odd about some files, of many in one."""
    for remark in remarks[:SAID]:
        warn_caller(remark)
    if remarks[SAID:]:
        warn_caller(f"{_READER}(): there are {len(remarks) - SAID} more such remarks, the last of them: {remarks[-1]}")


@dataclass(frozen=True)
class _CallText:
    """A call, as a `repr`."""

    words: str

    def __repr__(self) -> str:
        return self.words


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str)
