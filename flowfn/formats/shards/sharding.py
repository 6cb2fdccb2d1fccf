"""One flow in many files: datapoint i is in file i % shards, whoever writes it, and however many there are at work."""

from __future__ import annotations

import contextlib
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.flows.stages import pipe
from flowfn.formats.shards.dealing import AHEAD, Dealer
from flowfn.formats.shards.naming import PATTERN, counts_shards, shard_name
from flowfn.formats.shards.provenance import note_beside, origin_of
from flowfn.kinds.notes import add_note
from flowfn.parallel import prefetch
from flowfn.parallel.crossing.errors import Portable
from flowfn.parallel.workers.processes import inside_worker
from flowfn.showing import as_written as named
from flowfn.storage.bars import hushed
from flowfn.storage.endless import finite
from flowfn.storage.files import file_path, is_url
from flowfn.storage.unfinished import sweep
from flowfn.storage.writing import shown
from flowfn.vocabulary.transform import map as mapped

_WHO = "write_shards"
_WRITING_PROCESSES = rules.optional(
    rules.Rule(
        "a positive integer or 'auto'",
        lambda value: value == "auto" or rules.is_integer(value),
        lambda value, others: value == "auto" or value > 0,
    )
)


@rules.checked(
    write=rules.function,
    pattern=PATTERN,
    shards=rules.positive,
    processes=_WRITING_PROCESSES,
    overwrite=rules.boolean,
    resume=rules.boolean,
)
def write_shards(
    write: Callable[..., Any],
    pattern: Any,
    flow: Any,
    *,
    shards: int,
    processes: int | str | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> None:
    """Write one pass over a flow to `shards` files: datapoint i goes to file i % shards, as in `ff.shard(k, shards)`.

    `write(path, flow)` is called once for each file: `write_tfrecord`, `write_webdataset`, or any function that leaves
    a whole file at `path` or none (options: `functools.partial`). `pattern` has the number of the file, and perhaps how
    many there are: "train-{shard:05d}-of-{shards:05d}.tfrecord". Read in turns, the files give the order of the flow
    back: `ff.interleave(read_tfrecord, paths, cycle=shards)`.

    With `processes=n` (or "auto") as many worker processes write one file each, and make its datapoints themselves. Of
    a flow that cannot be indexed, the datapoints are made in one pass, by the workers if there are any, and dealt out
    to all files at once, which are written in threads of this process. What is in the files is the same in every case:
    the pass that iterating the flow would give. The flow's own state does not change.

    Files appear one by one, each when it is whole. When something goes wrong, no new ones are begun, and those that are
    whole remain: with `resume=True` and the same flow, only the missing ones are written. Of which flow they are is
    noted beside them, in a small file whose name begins with a dot and ends with ".flow": by digests of the flow and of
    `write`, which cover the code of their functions, with the number of files, the seed and the epoch.

    Raises:
        FileExistsError: one of the files exists, and neither `overwrite` nor `resume` is given.
        ValueError: the flow is endless; the pattern has no place for the number of the file; with `resume`, the files
            that are there are of another flow, function, number of files, seed or epoch.
        Exception: what the flow or `write` raises, as it is.

    >>> import tempfile
    >>> import flowfn as ff
    >>> from flowfn.formats import read_webdataset, write_webdataset
    >>> pattern = tempfile.mkdtemp() + "/{shard}-of-{shards}.tar"
    >>> write_shards(write_webdataset, pattern, [{"cls": number} for number in range(5)], shards=2)
    >>> paths = [pattern.format(shard=shard, shards=2) for shard in range(2)]
    >>> [[sample["cls"] for sample in read_webdataset(path)] for path in paths]
    [[0, 2, 4], [1, 3]]
    >>> [sample["cls"] for sample in ff.interleave(read_webdataset, paths, cycle=2)]
    [0, 1, 2, 3, 4]
    """
    if overwrite and resume:
        raise ValueError(
            f"{_WHO}(): give overwrite=True to write all files anew, or resume=True to write those that are missing, "
            "not both"
        )
    source = finite(flow, _WHO)
    paths = _paths(pattern, shards)
    origin, note = origin_of(source, write, shards), note_beside(os.fspath(pattern), shards, _WHO)
    there = [path for path in paths if _exists(path)]
    if there and not (overwrite or resume):
        raise FileExistsError(
            f"{_WHO}(): {there[0]!r} exists; pass overwrite=True to write all anew, or resume=True to write those "
            "that are missing"
        )
    stale = note.stale(origin, there) if resume and there else there
    missing = [number for number, path in enumerate(paths) if path not in there or path in stale]
    note.keep(origin, stale)
    writing = Writing(write, paths, bool(stale))
    try:
        _write_missing(writing, missing, source, processes)
    finally:
        if not any(map(_exists, paths)):
            note.remove()


def _write_missing(writing: Writing, missing: Sequence[int], source: Flow[Any], processes: int | str | None) -> None:
    if source.seekable:
        pieces = {number: _same_pass(source[number :: len(writing.paths)], source) for number in missing}
        _each_by_itself(writing, pieces, processes)
    elif missing:
        _write_dealt(writing, missing, _same_pass(source[:], source), processes)


@dataclass(frozen=True)
class Writing:
    """How files are written."""

    write: Callable[..., Any]
    paths: Sequence[str]
    overwrite: bool

    def __call__(self, number: int, piece: Flow[Any]) -> None:
        """Write one of them."""
        path = self.paths[number]
        with hushed():
            self.write(path, piece, **({"overwrite": True} if self.overwrite else {}))
        if not _exists(path):
            raise ValueError(
                f"{_WHO}(): write must leave a file at the path that it is given, but {named(self.write)} left none "
                f"at {path!r}"
            )


# Flows that can be indexed


def _each_by_itself(writing: Writing, pieces: Mapping[int, Flow[Any]], processes: int | str | None) -> None:
    """One file after the other, or several at once in worker processes. After a failure,
    those that are begun are finished."""
    with tempfile.TemporaryDirectory() as folder:
        _attempted(writing, pieces, processes, os.path.join(folder, "failed"))


def _attempted(writing: Writing, pieces: Mapping[int, Flow[Any]], processes: int | str | None, mark: str) -> None:
    failures: list[Failed] = []
    ahead = len(os.sched_getaffinity(0)) if processes == "auto" and hasattr(os, "sched_getaffinity") else 1
    written = pipe(
        Unwritten(list(pieces), failures),
        mapped(Attempt(writing, pieces, mark)),
        prefetch(ahead if isinstance(processes, str) else int(processes), processes=processes) if processes else None,
    )
    try:
        with contextlib.closing(shown(written, _WHO, "file")) as results:
            failures.extend(result for result in results if result is not None)
    except BaseException:  # a worker was killed, or somebody has had enough
        for folder in {os.path.dirname(path) for path in writing.paths if not is_url(path)}:
            sweep(folder)
        raise
    if failures:
        raise failures[0].error


@dataclass(frozen=True)
class Unwritten:
    """The numbers of the files that are to be written, as many as there are;
    none any more once something has gone wrong."""

    numbers: list[int]
    failures: list[Failed]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[int]:
        return (number for number in self.numbers if not self.failures)


@dataclass(frozen=True)
class Attempt:
    """Writes one file, and gives back what went wrong, so that others can be finished.

    A worker may have been given several by then: `mark` is a file that is there once something has gone wrong.
    """

    writing: Writing
    pieces: Mapping[int, Flow[Any]] = field(repr=False)
    mark: str = field(repr=False)

    def __call__(self, number: int) -> Failed | None:
        if os.path.exists(self.mark):
            return None
        try:
            self.writing(number, self.pieces[number])
        except Exception as error:
            with contextlib.suppress(OSError):
                open(self.mark, "w").close()
            if inside_worker():
                add_note(error, "in a worker process:\n" + "".join(traceback.format_tb(error.__traceback__)).rstrip())
                return Failed(Portable(error))
            return Failed(error)
        return None


@dataclass(frozen=True)
class Failed:
    """What went wrong."""

    error: Any  # it is one where it has arrived


# Streams


def _write_dealt(writing: Writing, missing: Sequence[int], source: Flow[Any], processes: int | str | None) -> None:
    """All files at once, from one pass."""
    made = prefetch(AHEAD, source, processes=processes) if processes else source
    with contextlib.closing(shown(_same_pass(made[:], source), _WHO)) as datapoints:
        Dealer(writing, missing).deal(datapoints, len(writing.paths))


def _same_pass(piece: Flow[Any], source: Flow[Any]) -> Flow[Any]:
    """A part of a flow under the seed and epoch of the whole, whatever it is wrapped in."""
    return piece.reset_state(source.seed).set_epoch(source.epoch)


# Paths


def _paths(pattern: Any, shards: int) -> list[str]:
    text = os.fspath(pattern)
    if not counts_shards(text, _WHO, "shards") and shards > 1:
        raise ValueError(
            f"{_WHO}(): pattern must say where the number of the file goes, as in "
            f"'train-{{shard:05d}}-of-{{shards:05d}}.tar', got {text!r}"
        )
    return [file_path(shard_name(text, shard=number, shards=shards), _WHO) for number in range(shards)]


def _exists(path: str) -> bool:
    if not is_url(path):
        return os.path.lexists(path)
    system, inside = needed("fsspec.core", f"{_WHO}()", extra="files").url_to_fs(path)
    return bool(system.exists(inside))
