"""Where a dataset's files are: found under the names they were published with,
or missed in words that say where to get them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowfn import rules
from flowfn.storage.damage import reading

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")


@dataclass(frozen=True)
class Published:
    """A dataset as it was published: the function that reads it, the official page,
    the MD5 sums of its files (by path)."""

    who: str
    page: str = ""
    sums: Mapping[str, str] = field(default_factory=dict)

    def folder(self, dir: Any, name: str = "dir") -> str:
        """The folder that a user names, absolute.

        Raises:
            TypeError, ValueError: it is no path.
            FileNotFoundError, NotADirectoryError: there is no such folder.
        """
        rules.folder.check(self.who, name, dir, {})
        path = os.path.abspath(os.path.expanduser(os.fsdecode(dir)))
        if os.path.isfile(path):
            raise NotADirectoryError(
                f"{self.who}(): {name} must be the folder of the data, but {path!r} is a file"
                + "; unpack it" * path.endswith(_ARCHIVES)
            )
        if not os.path.isdir(path):
            raise FileNotFoundError(
                f"{self.who}(): {name} must be the folder of the data, but there is no folder {path!r}"
                + f"; nothing is downloaded: get the files from {self.page}" * bool(self.page)
            )
        return path

    def file(self, folder: str, *names: str, verify: bool = False) -> str:
        """The path of the first of these files that is there; the names are what one file may be called.

        Raises:
            FileNotFoundError: none is there; the message says which file, from where, and where to put it.
            ValueError: it is to be verified, and is not the file that was published.
        """
        for name in names:
            path = os.path.join(folder, *name.split("/"))
            if os.path.isfile(path):
                if verify:
                    self.verify(path, name)
                return path
        raise self.missing(folder, *names)

    def missing(self, folder: str, *names: str) -> FileNotFoundError:
        """The error that says which file is missing, where it is officially found and where it belongs."""
        first, *others = (os.path.join(*name.split("/")) for name in names)
        instead = f" (or {', '.join(map(repr, others))})" if others else ""
        packed = (
            sorted(name for name in os.listdir(folder) if name.endswith(_ARCHIVES))[:3] if os.path.isdir(folder) else []
        )
        hint = f" (or unpack {', '.join(map(repr, packed))}, if it is in that)" if packed else ""
        return FileNotFoundError(
            f"{self.who}(): {first!r}{instead} is not in {folder!r}; get it from {self.page} and put it there{hint}"
        )

    def verify(self, path: str, name: str) -> None:
        """Compare a file with the MD5 sum that was published.

        Raises:
            ValueError: they differ, or no sum was published.
        """
        expected = self.sums.get(os.path.basename(name))
        if expected is None:
            raise ValueError(f"{self.who}(): no checksum of {path!r} was published; leave verify=True out")
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != expected:
            raise ValueError(
                f"{self.who}(): {path!r} has the MD5 sum {found}, but {expected} was published; get it again from "
                f"{self.page}"
            )


def lines_of(path: str, who: str) -> Iterator[str]:
    """The lines of a text file, stripped, without those that are empty.

    Raises:
        ValueError: it is not text.
    """
    with reading(path, f"{who}(): {path!r} is not a text file in UTF-8"), open(path, encoding="utf-8") as file:
        yield from filter(None, map(str.strip, file))
