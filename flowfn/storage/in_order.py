"""Files that are read from their beginning to their end, and only so:
also from servers that give nothing but whole files."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from flowfn.extras import needed
from flowfn.storage.files import is_url, open_file

REQUEST_SIZE = 1 << 20
"""How many bytes of what is behind a URL are asked for at once: each time costs."""


def open_in_order(path: str, who: str) -> BinaryIO:
    """Open a file, or what is behind a URL, to be read in order; `who` is the function that reads, as in "read_x()".

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file, open_in_order(file.name, "read_x()") as opened:
    ...     opened.read()
    b''
    """
    if not is_url(path):
        file: BinaryIO = open_file(path, "rb", who=who)
        return file
    whole = path.startswith(("http://", "https://"))  # asked for as one stream, they need not give pieces
    options = {"block_size": 0} if whole else {}
    opened = needed("fsspec", who, extra="files").open(path, "rb", **options).open()
    return io.BufferedReader(_Raw(opened), REQUEST_SIZE)


class _Raw(io.RawIOBase):
    """What fsspec has opened, as Python's buffers want it."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: Any) -> int:
        """Read as much as there is room for, or what comes at once."""
        found = self.file.read(len(target))
        target[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Close it too."""
        if not self.closed:
            self.file.close()
        super().close()
