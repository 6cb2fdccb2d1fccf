"""What an HDF5 file needs beside itself: targets of links, external storage, sources of virtual datasets, filters.

HDF5 reads its fill value, or zeros, where a source or the end of an external file is not there: a file that was moved,
that is locked, damaged, or one too many to be open. Here they are looked for before anything is read.

Where they are looked for: https://support.hdfgroup.org/documentation/hdf5/latest/group___d_c_p_l.html
(`H5Pset_virtual`, `H5Pset_external`)
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from flowfn.extras import needed
from flowfn.storage.damage import error_words
from flowfn.storage.files import is_url

SAME = "."
"""What stands for the file itself, as the file of a source."""
PLACE = "%b"
"""What stands for the number of a source."""
ALL = 3
"""HDF5's number for the selection of all elements (`H5S_SEL_ALL`)."""
SOURCES, OUTSIDE = (os.environ.get(f"HDF5_{name}_PREFIX", "") for name in ("VDS", "EXTFILE"))
"""Where else to look for sources, and for external storage: HDF5 also asks once, when it starts."""


class VirtualSource(NamedTuple):
    """A dataset in another file, or in the same, that is a part of a virtual one: the shape,
    or the size, that it has to have."""

    file: str
    name: str
    least: tuple[int, ...] | None
    size: int | None

    @classmethod
    def of(cls, part: Any, number: int) -> VirtualSource:
        """The source with a number, in what HDF5 tells of a part of a virtual dataset."""
        file, name = (
            re.sub("%([%b])", lambda match: "%" if match[1] == "%" else str(number), text)
            for text in (part.file_name, part.dset_name)
        )
        with contextlib.suppress(Exception):  # a selection without end
            if part.src_space.get_select_type() == ALL:
                return cls(file, name, None, part.vspace.get_select_npoints())
            return cls(file, name, tuple(int(last) + 1 for last in part.src_space.get_select_bounds()[1]), None)
        return cls(file, name, None, None)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether there is all that is wanted of it."""
        if self.least is not None:
            return len(shape) == len(self.least) and all(there >= wanted for there, wanted in zip(shape, self.least))
        return self.size is None or math.prod(shape) == self.size

    @property
    def requirement(self) -> str:
        """What it has to have, in error_words."""
        return f"at least {self.least}" if self.least is not None else f"one of {self.size} elements"


class Beside:
    """The files beside an HDF5 file that its datasets are made of; they stay open,
    so HDF5 needs no further ones to read from them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._open = contextlib.ExitStack()
        self._files: dict[str, Any] = {}
        self._seen: set[tuple[str, str]] = set()

    def check(self, dataset: Any, said: str, own: str | None = None) -> None:
        """Make sure that all is there of which a dataset, of the file `own`, is made; `said` begins the message.

        Raises:
            ValueError: something is not, or cannot be opened.
        """
        own = own or self.path
        if (own, dataset.name) in self._seen:
            return
        self._seen.add((own, dataset.name))
        _check_filters(dataset, said)
        _check_external(dataset, said, own)
        for part in _virtual_sources(dataset):
            for number in self._numbers(dataset, part, said, own):
                self._check_source(dataset, VirtualSource.of(part, number), said, own)

    def _numbers(self, dataset: Any, part: Any, said: str, own: str) -> Iterable[int]:
        """The numbers that "%b" stands for in the names of a source: all up to the last that there is,
        or the first, if there is none.

        HDF5 takes a virtual dataset to end where one is missing.
        """
        pattern, within = part.file_name, PLACE in part.file_name
        if not within and PLACE not in part.dset_name:
            return (0,)
        folders = [os.path.dirname(place) for place in _places_looked_at(pattern, own)] if within else []
        names = [name for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]
        if not within:
            said = f"{said} is made of {part.dset_name!r} of {pattern}"
            file = (
                dataset.file
                if pattern == SAME
                else self._file(self._path_of(VirtualSource.of(part, 0).file, own, said), said)
            )
            pattern, names = part.dset_name, list(file.get(os.path.dirname(part.dset_name) or "/", ()))
        matches = re.compile("(0|[1-9][0-9]*)".join(map(re.escape, os.path.basename(pattern).split(PLACE, 1))))
        return range(max((int(match[1]) for match in map(matches.fullmatch, names) if match), default=0) + 1)

    def _check_source(self, dataset: Any, source: VirtualSource, said: str, own: str) -> None:
        here, said = source.file == SAME, f"{said} is made of {source.name!r} of {source.file}"
        at = own if here else self._path_of(source.file, own, said)
        target = (dataset.file if here else self._file(at, said)).get(source.name)
        if not hasattr(target, "virtual_sources"):
            raise ValueError(f"{said}, and there is no such dataset in {at}; put it back, or write anew what is left")
        if not source.fits(target.shape or ()):
            raise ValueError(
                f"{said}, which has the shape {target.shape}, and not {source.requirement}; write it anew, or "
                "what is made of it"
            )
        self.check(target, f"{said}, which", at)

    def _path_of(self, name: str, own: str, said: str) -> str:
        """Where HDF5 finds the file of a source."""
        if is_url(own):
            raise ValueError(
                f"{said}, and what is behind a URL is read alone; copy both files to one folder, and read them there"
            )
        places = _places_looked_at(name, own)
        found = next(filter(os.path.exists, places), None)
        if found is None:
            raise ValueError(f"{said}, which is not there: there is no {' and no '.join(places)}; put it back")
        return found

    def _file(self, path: str, said: str) -> Any:
        """A file, open."""
        at = os.path.realpath(path)
        if at not in self._files:
            try:
                self._files[at] = self._open.enter_context(open_hdf5(path, f"{said}, and {path}"))
            except BlockingIOError:
                raise
            except Exception as error:
                raise ValueError(f"{said}, and {path} cannot be opened: {error_words(error)}") from error
        return self._files[at]

    def close(self) -> None:
        """Close them."""
        self._open.close()
        self._files.clear()


def _virtual_sources(dataset: Any) -> Iterable[Any]:
    """What a dataset tells of its sources, if it is a virtual one."""
    try:
        sources: Iterable[Any] = dataset.virtual_sources() if dataset.is_virtual else ()
    except RuntimeError:
        if dataset.size:
            raise
        return ()  # h5py cannot tell those of which nothing is selected
    return sources


def open_hdf5(path: Any, said: str, **options: Any) -> Any:
    """Open an HDF5 file for reading, one that is still being written too if it is written to be read meanwhile (SWMR).

    Raises:
        OSError: it is locked, or marked as being written,
            which a message says that begins with `said`; HDF5 cannot read it.
    """
    h5py: Any = needed("h5py", "read_hdf5()", extra="hdf5")
    try:
        return h5py.File(path, "r", **options)
    except OSError as error:
        if "unable to lock file" in str(error):
            raise BlockingIOError(
                f"{said} is locked: it is open for writing, most likely in another process; read it when it has been "
                "closed there, "
                "or let it be written in SWMR mode, which others may read"
            ) from error
        if "already open for write" not in str(error):
            raise
    try:
        return h5py.File(path, "r", swmr=True, **options)
    except OSError as error:
        raise BlockingIOError(
            f"{said} is marked as open for writing: read it when its writer has closed it; if that was killed, HDF5's "
            "h5clear -s takes "
            "away the mark, and what was written last may be missing"
        ) from error


def broken_link(file: Any, name: str) -> str | None:
    """What is to be said of the link on the way to a name that leads nowhere; None if there is none."""
    for part in filter(None, name.split("/")):
        if not hasattr(file, "get"):
            return None
        link, file = file.get(part, getlink=True), _followed(file, part)
        if isinstance(file, str) and hasattr(link, "path"):
            beside = f" of {link.filename}" if hasattr(link, "filename") else ""
            return f"is a link to {link.path!r}{beside}, which leads nowhere: {file}"
    return None


def _followed(group: Any, name: str) -> Any:
    """What is under a name, or why nothing is."""
    try:
        return group[name]
    except Exception as error:
        return str(error).strip("'\"")


def _check_filters(dataset: Any, said: str) -> None:
    """Make sure that HDF5 has the filters that chunks went through;
    one that is optional may have been left out of all."""
    h5py: Any = needed("h5py", "read_hdf5()", extra="hdf5")
    told = dataset.id.get_create_plist()
    filters = [told.get_filter(number) for number in range(told.get_nfilters())]
    lacking = [number for number, (code, *_) in enumerate(filters) if not h5py.h5z.filter_avail(code)]
    needs = (
        dataset.id.chunk_iter(lambda chunk: next((n for n in lacking if not chunk.filter_mask >> n & 1), None))
        if lacking
        else None
    )
    if needs is not None:
        code, *_, name = filters[needs]
        raise ValueError(
            f"{said} is stored through filter {code}{_filter_name(name)}, which HDF5 does not have here; `pip install "
            "hdf5plugin` brings most, "
            "and they are used where it is installed"
        )


def _filter_name(name: bytes) -> str:
    text = name.decode(errors="replace").partition(";")[0].strip()
    return f" ({text})" * bool(text)


def _check_external(dataset: Any, said: str, own: str) -> None:
    """Make sure that the files are there in which a dataset keeps all that it holds, and that they are long enough."""
    kept = dataset.external or ()
    rest = dataset.id.get_type().get_size() * (dataset.size or 0) if kept else 0
    for name, offset, size in kept:
        if is_url(own):
            raise ValueError(
                f"{said} is kept in {name}, and what is behind a URL is read alone; copy both files to one folder, "
                "and read them there"
            )
        prefix = OUTSIDE.replace("${ORIGIN}", os.path.dirname(os.path.abspath(own)))
        path = os.path.abspath(os.path.join(prefix, name))
        if not os.path.exists(path):
            raise ValueError(f"{said} is kept in {name}, and there is no {path}; put it back")
        ends = offset + min(size, rest)
        if os.path.getsize(path) < ends:
            raise ValueError(
                f"{said} is kept in {path}, which must have {ends} bytes, and has {os.path.getsize(path)}; "
                "it is truncated, or was never written"
            )
        rest -= min(size, rest)


def _places_looked_at(name: str, own: str) -> list[str]:
    """Where HDF5 looks for the file of a source, in turn."""
    folder = os.path.dirname(os.path.abspath(own))
    prefixes = [prefix.replace("${ORIGIN}", folder) for prefix in SOURCES.split(":") if prefix]
    rest = os.path.basename(name) if os.path.isabs(name) else name
    folders = (*prefixes, folder, os.getcwd(), os.path.dirname(os.path.realpath(own)))
    return list(dict.fromkeys([name] * os.path.isabs(name) + [os.path.join(place, rest) for place in folders]))
