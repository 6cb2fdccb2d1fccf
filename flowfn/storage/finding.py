"""The files that are meant: by paths, patterns, ranges in braces, here or behind URLs."""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from flowfn.extras import needed
from flowfn.storage.files import file_path, is_url
from flowfn.vocabulary.making import matching


def paths_of(paths: Any, who: str, folders: bool = False) -> list[str]:
    """The files that a path, a pattern, a URL or several of them stand for, as absolute paths or URLs.

    `*`, `?` and `[...]` stand for parts of a name (in URLs, `*` does), braces for ranges and lists, as in
    "train-{0000..0007}.tar" and "{train,val}.tar". A file of exactly that name is meant before any pattern is. What a
    pattern stands for comes in natural order; several are taken one after the other. `who` is the function that reads,
    `folders` says whether it reads folders too.

    Raises:
        FileNotFoundError: a path or a pattern stands for nothing.
        TypeError, ValueError: there is something else among them, or nothing at all.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for number in (10, 9):
    ...     open(f"{folder}/{number}.tar", "w").close()
    >>> [os.path.basename(path) for path in paths_of([folder + "/*.tar", folder + "/{9..9}.tar"], "read_x")]
    ['9.tar', '10.tar', '9.tar']
    """
    one = isinstance(paths, (str, bytes, os.PathLike)) or not hasattr(paths, "__iter__")
    several = [paths] if one else list(paths)
    if not several:
        raise ValueError(f"{who}(): paths must be a path, a pattern, a URL or a list of them, got an empty list")
    return [path for one in several for path in _expanded(one, who, folders)]


def _expanded(one: Any, who: str, folders: bool) -> Iterator[str]:
    path = file_path(one, who)
    if not is_url(path) and _is_there(path, folders):
        yield path
        return
    for pattern in braces(os.fsdecode(one)):
        if is_url(pattern):
            yield from _behind_url(pattern, who) if "*" in pattern else [pattern]
        else:
            try:
                yield from map(os.path.abspath, matching(pattern, folders))
            except OSError as error:
                raise type(error)(f"{who}(): {error}") from None


def _is_there(path: str, folders: bool) -> bool:
    """Whether there is a file, or perhaps a folder, of this name; the system is asked once, as there may be many."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return folders or not stat.S_ISDIR(mode)


def _behind_url(pattern: str, who: str) -> list[str]:
    system, inside = needed("fsspec.core", f"{who}()", extra="files").url_to_fs(pattern)
    found = sorted(system.glob(inside))
    if not found:
        raise FileNotFoundError(f"{who}(): no file matches {pattern!r}")
    return [system.unstrip_protocol(path) for path in found]


def braces(pattern: str) -> Iterator[str]:
    """All that a pattern with ranges and lists in braces stands for, as in bash; braces with neither stay as they are.

    >>> list(braces("{a,b}-{08..10}.tar")), list(braces("{a}.tar"))
    (['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar'], ['{a}.tar'])
    """
    parts = re.split(r"(\{[^{}]*\})", pattern)
    return map("".join, itertools.product(*map(_choices, parts)))


def _choices(part: str) -> Iterable[str]:
    span = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", part)
    if span:
        first, last = span.groups()
        width = (
            max(map(len, span.groups())) if any(one.startswith("0") and len(one) > 1 for one in span.groups()) else 0
        )
        numbers = range(int(first), int(last) + 1) if int(first) <= int(last) else range(int(first), int(last) - 1, -1)
        return (f"{number:0{width}d}" for number in numbers)
    if part.startswith("{") and "," in part:
        return part[1:-1].split(",")
    return [part]
