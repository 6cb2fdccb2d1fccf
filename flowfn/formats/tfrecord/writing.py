"""Writing TFRecord files: datapoints one after the other, in the format of `flowfn.formats.tfrecord.framing`."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from flowfn import rules
from flowfn.digests.pipelines import pipeline_identity
from flowfn.extras import needed
from flowfn.formats.encoding.payloads import packed_datapoint, payload_of
from flowfn.formats.tfrecord import framing
from flowfn.formats.tfrecord.reading import COMPRESSION
from flowfn.storage.endless import finite
from flowfn.storage.unpacking import packed_by
from flowfn.storage.writing import resumable, resumed, shown

JOURNAL_SECONDS = 10.0
"""Seconds after which what has been written is made sure of."""


@rules.checked(
    encode=rules.optional(rules.function), compression=COMPRESSION, overwrite=rules.boolean, resume=rules.boolean
)
def write_tfrecord(
    path: Any,
    flow: Any,
    *,
    encode: Callable[[Any], bytes] | None = None,
    compression: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> None:
    """Write the datapoints of a flow to a TFRecord file, and show a bar.

    `encode=as_example` makes of dicts what TensorFlow's programs expect. Without it, datapoints may hold None, numbers,
    strings, bytes, lists, tuples, dicts, sets and arrays, and are written as msgpack (arrays as msgpack-numpy does it:
    tensorpack reads them with TENSORPACK_SERIALIZE=msgpack). `encode` can be any function from datapoints to bytes:
    `pickle.dumps`, or `bytes` for what is bytes already. `compression` is "gzip" or "zlib".

    The file is at `path` when it is whole. With `resume=True` an unfinished one stays there as `path` + ".part", with
    how far it has come in `path` + ".part.json", and the next call with the same flow goes on from there, as exactly as
    any state of a flow; what is compressed cannot be resumed.

    Raises:
        FileExistsError: there is a file, and `overwrite` is False.
        TypeError: a datapoint holds something else.
        ValueError: with `resume`, what is there is of another flow, or of functions that have changed since;
            or it is to be compressed.

    >>> import tempfile
    >>> from flowfn.formats import as_example, read_tfrecord
    >>> path = tempfile.mkdtemp() + "/train.tfrecord.gz"
    >>> write_tfrecord(path, [{"name": "cat", "label": 3}], encode=as_example, compression="gzip")
    >>> list(read_tfrecord(path, compression="gzip"))
    [{'label': array([3]), 'name': [b'cat']}]
    """
    if resume and compression is not None:
        raise ValueError(
            f"write_tfrecord(): what is compressed cannot be resumed, got resume=True and compression={compression!r}"
        )
    crc = framing.checksums("write_tfrecord()")
    if encode is None:
        needed("msgpack", "write_tfrecord()", extra="tfrecord")
    source = finite(flow, "write_tfrecord")
    with (
        shown(source, "write_tfrecord") as datapoints,
        resumable(path, overwrite, "write_tfrecord", resume=resume) as beside,
    ):
        journal = Journal(beside, pipeline_identity(source, encode)) if resume else None
        count = journal.begin(datapoints) if journal else 0
        with open(beside, "r+b" if count else "wb") as raw, _packing(raw, compression) as file:
            raw.seek(0, os.SEEK_END)
            for number, datapoint in enumerate(datapoints, count):
                file.write(
                    framing.framed(payload_of(encode or packed_datapoint, datapoint, number, "write_tfrecord"), crc)
                )
                if journal and journal.due():
                    journal.note(number + 1, raw, datapoints.state_dict())
    if journal:
        journal.end()


def _packing(raw: Any, compression: str | None) -> Any:
    """A file that compresses what is written to it; the same datapoints give the same bytes."""
    if compression is None:
        return contextlib.nullcontext(raw)
    return packed_by(compression, raw, 9 if compression == "gzip" else 6)


def _digest(note: dict[str, Any]) -> str:
    """A short digest of what is noted, so that what was damaged is not believed."""
    return blake2b(json.dumps(note, sort_keys=True).encode(), digest_size=8).hexdigest()


class Journal:
    """How far an unfinished file has come, kept beside it."""

    def __init__(self, beside: str, origin: str) -> None:
        self.beside, self.path, self.origin, self.since = beside, f"{beside}.json", origin, time.monotonic()

    def begin(self, datapoints: Any) -> int:
        """Go on where a file of the same flow was left: how many records are in it,
        with what came after them cut off."""
        note = self._last_note()
        if note is None:
            self.end()  # what is there is of another file
            return 0
        count = resumed(datapoints, note, self.origin, self.beside, "write_tfrecord")
        os.truncate(self.beside, note["bytes"])
        return count

    def _last_note(self) -> Any:
        """What is noted, unless the file is shorter than that."""
        try:
            with open(self.path, encoding="utf-8") as file:
                note = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(note, dict) or note.pop("digest", None) != _digest(note):
            return None
        return note if os.path.getsize(self.beside) >= note["bytes"] else None

    def due(self) -> bool:
        """Whether it is time to make sure of what has been written."""
        return time.monotonic() - self.since > JOURNAL_SECONDS

    def note(self, count: int, file: Any, state: Any) -> None:
        """So many records are in the file for sure."""
        file.flush()
        os.fsync(file.fileno())
        with open(f"{self.path}.new", "w", encoding="utf-8") as journal:
            note = {"count": count, "bytes": file.tell(), "state": state, "origin": self.origin}
            json.dump({**note, "digest": _digest(note)}, journal)
        os.replace(f"{self.path}.new", self.path)
        self.since = time.monotonic()

    def end(self) -> None:
        """The file is whole."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path)
