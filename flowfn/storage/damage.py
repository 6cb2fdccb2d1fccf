"""What goes wrong with a file, in one form: a ValueError where its content is wrong,
an OSError where the system fails; both name it.

Libraries raise whatever they like when a file is not what it says, often without a word of which file that was. All
that reads with their help does so in `reading`, or hands what they raise to `raise_clearly`; theirs is then the
`__cause__`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import NoReturn

from flowfn.pickling.homes import is_ours
from flowfn.storage.signatures import other_kind

_NUMBERED = re.compile(r"\berrno(?: = |=|: | )(\d+)", re.IGNORECASE)
_ERROR_NAMES = ("ENOSPC", "EFBIG", "EIO", "EROFS", "EDQUOT")
_IN_WORDS = {os.strerror(getattr(errno, name)): getattr(errno, name) for name in _ERROR_NAMES if hasattr(errno, name)}
_LINES = ("aiohttp", "botocore", "http", "requests", "urllib", "urllib3")
"""Whose errors are those of the line to a server, whatever their types."""


class Unreadable(ValueError):
    """Bytes that cannot be made into what they are to be; the text says what is wrong with them, who reads them where
    they lie."""


@contextlib.contextmanager
def reading(path: str, failed: str, hint: str = "") -> Iterator[None]:
    """Whatever is raised in here is told as `raise_clearly` does it.

    >>> with reading("/data/a.json", "read_x(): /data/a.json cannot be read"):
    ...     {}["shape"]
    Traceback (most recent call last):
    ValueError: read_x(): /data/a.json cannot be read: KeyError: 'shape'
    """
    try:
        yield
    except Exception as error:
        raise_clearly(error, path, failed, hint)


def raise_clearly(error: Exception, path: str, failed: str, hint: str = "") -> NoReturn:
    """Raise what is to be said of an error that came while `path` was read; `failed`,
    which begins the message, names it too.

    An error that names the file already is raised as it is, as is one of the same function,
    and that a library is missing.

    Raises:
        OSError: the system, or the line to a server, failed.
        ValueError: anything else.
    """
    ours = type(error).__module__ == "builtins" or is_ours(type(error).__module__)
    plain = isinstance(error, (ValueError, OSError)) and ours and not isinstance(error, UnicodeError)
    asked = ours and str(error).startswith(failed.partition("(): ")[0] + "(): ")  # of an argument, perhaps
    if isinstance(error, ImportError) or (plain and path in str(error)) or asked:
        raise error
    number = errno_of(error)
    if number is not None:
        raise OSError(number, os.strerror(number), path) from error
    if type(error).__module__.partition(".")[0] in _LINES or (
        isinstance(error, OSError) and ours and type(error) is not OSError
    ):
        raise OSError(f"{failed}: {error_words(error)}") from error
    other = other_kind(path, failed.partition("(")[0])  # then what the library makes of it is no help
    raise ValueError(f"{failed}: {other or error_words(error) + hint}") from error


def error_words(error: BaseException) -> str:
    """What an error says, with its type where the text alone would say nothing.

    >>> error_words(ValueError("too short")), error_words(KeyError("x")), error_words(EOFError())
    ('too short', "KeyError: 'x'", 'EOFError')
    """
    text = str(error).strip()
    return (
        text
        if text and isinstance(error, (ValueError, OSError, EOFError))
        else ": ".join(filter(None, (type(error).__name__, text)))
    )


def errno_of(error: BaseException) -> int | None:
    """The system's number for what went wrong, if it was the system: an error's own,
    or one that a library has put into words.

    >>> errno_of(RuntimeError("Can't decrement id ref count (file write failed: errno = 28, ...)"))
    28
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _NUMBERED.search(str(error))
    return int(found[1]) if found else next((number for text, number in _IN_WORDS.items() if text in str(error)), None)


def warn_of_end(path: str, who: str) -> None:
    """Warn of a file whose last line has no end: it may be whole, and it may have been cut off within that line."""
    warn_caller(
        f"{who}(): the last line of {path} has no line break at its end; if the file was cut off there, its last "
        "datapoint is only a part of what was written, and if it is whole, end it with a line break"
    )


def warn_caller(text: str) -> None:
    """Warn at the line of a user's code that called this library, however deep in it this is."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_between(frame.f_globals.get("__name__")):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def _is_between(module: str | None) -> bool:
    return is_ours(module) or module in ("contextlib", "functools")
