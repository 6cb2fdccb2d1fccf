"""`cache_to`: datapoints kept in files, each made once by whoever wants it first, in whatever process that is."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from more_itertools import consume

from flowfn import rules
from flowfn.blocks import BLOCK, Block, blocks, ints
from flowfn.digests.pipelines import pipeline_key
from flowfn.flows.flow import Flow
from flowfn.flows.stages import stage
from flowfn.flows.states import fingerprint
from flowfn.functions import renamed
from flowfn.kinds.nodes import MISSING, Each, fault
from flowfn.kinds.runs import Outputs, Run
from flowfn.shelves.encoding import datapoint_bytes, datapoint_of
from flowfn.shelves.records import RecordSpot
from flowfn.shelves.shelf import Shelf, Visit, refuse_foreign, shelf
from flowfn.showing import brief
from flowfn.vocabulary.keeping.caching import FrozenNode

LENGTH_KEY = -1
"""The number under which a stream's length is kept, once it has been read to its end."""
MADE_AT_FIRST, BRISK, SLOW = 64, 1.0, 4.0
"""How many datapoints are made at first before looking for what others have made,
and how many seconds that should take."""


class StoredNode(FrozenNode):
    """Reads a datapoint from the files, or makes it and writes it there; in any process, and in many at once."""

    aligned = False  # it reads less than it gives
    gathers = False

    def frozen(self, run: Run) -> Run:
        """The one run of what is upstream, from its very beginning: what is kept must not hang on a saved state."""
        return replace(super().frozen(run), base=0, anchors={})

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """Known datapoints from the files, the others from the source."""
        reading = Reading(self, self.frozen(run))
        return Outputs(reading.by_index(series), self, reading.making, trail=reading)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """Of a stream, what is known first; then the stream goes on from there."""
        if self.seekable:
            return Each.stream(self, run, start, lineage)
        reading = Reading(self, self.frozen(run))
        outputs = Outputs(reading.in_order(start), self, reading.making, start, trail=reading)
        return outputs.labelled(self.numbers(start), start) if lineage else outputs


class Reading:
    """One pass over what is kept: which datapoint is wanted, and the outputs of the source that are being kept."""

    def __init__(self, node: StoredNode, run: Run) -> None:
        self.source, self.run = node.sources[0], run
        self.shelf: Shelf = node.part.arguments["shelf"]
        self.making: list[Outputs] = []
        self.at = 0

    def index(self, k: int) -> int:
        """The index of the datapoint in work, for the note on an error."""
        return self.at

    def by_index(self, series: Iterator[Block]) -> Iterator[Any]:
        """The datapoints of a series. What nobody has made yet is made a few at a time, as others may be at it too."""
        few, began = MADE_AT_FIRST, 0.0
        coming: deque[int] = deque()
        fresh: Iterator[Any] = iter(())
        with self._visit() as visit:
            for block in series:
                numbers = list(ints(block))
                for nth, (number, place) in enumerate(zip(numbers, self.shelf.table.find(block))):
                    self.at = number
                    if not coming or coming[0] != number:
                        datapoint = self._known(visit, place)
                        if datapoint is not MISSING:
                            yield datapoint
                            continue
                        if coming:  # it was known when they were chosen, but cannot be read
                            yield from self._made((number,))
                            continue
                        coming.extend(self._lacking(numbers[nth:], few))
                        fresh, began = self._made(tuple(coming)), time.monotonic()
                    datapoint = next(fresh)
                    coming.popleft()
                    if not coming:
                        consume(fresh)
                        took = time.monotonic() - began
                        few = min(few * 2, BLOCK) if took < BRISK else max(few // 2, 1) if took > SLOW else few
                    yield datapoint

    def in_order(self, start: int) -> Iterator[Any]:
        """The datapoints from `start` on, from the files as far as they go, and then from the source to its end."""
        with self._visit() as visit:
            position = yield from self._replayed(visit, start)
            self.at = LENGTH_KEY
            length = self._known(visit)
            if length is not MISSING and position >= length:
                return
            first = self._first_unknown(position)
            source = self.source.stream(self.run, first)
            self.making.append(source)
            for self.at, datapoint in enumerate(source, first):
                kept = self._keep(datapoint)
                if self.at >= position:
                    yield kept
            self.at = LENGTH_KEY
            self._keep(first + source.count)

    @contextmanager
    def _visit(self) -> Iterator[Visit]:
        with Visit(self.shelf) as visit:
            try:
                yield visit
            finally:
                for source in self.making:
                    source.close()

    def _replayed(self, visit: Visit, start: int) -> Generator[Any, None, int]:
        """What is known from `start` on; returns the first number that is not."""
        for block in blocks(start, float("inf")):
            for number, place in zip(block, self.shelf.table.find(block)):
                self.at = number
                datapoint = self._known(visit, place)
                if datapoint is MISSING:
                    return number
                yield datapoint
        return start

    def _known(self, visit: Visit, place: RecordSpot | None = None) -> Any:
        """The wanted datapoint from the files, or MISSING."""
        payload = None if place is None else visit.read(self.at, place)
        if payload is None:
            visit.look()
            payload = visit.read(self.at)
        if payload is not None:
            try:
                return datapoint_of(payload)
            except Exception:  # of a class that has changed, perhaps
                pass
        return MISSING

    def _lacking(self, numbers: list[int], few: int) -> list[int]:
        """The first number, which is to be made, and the next few that are not known."""
        places = self.shelf.table.find(np.array(numbers, np.int64))
        lacking = dict.fromkeys(number for number, place in zip(numbers, places) if place is None)
        return list({numbers[0]: None} | lacking)[:few]

    def _made(self, numbers: tuple[int, ...]) -> Iterator[Any]:
        """Make datapoints, and keep them."""
        source = self.source.read(self.run, iter((np.array(numbers, np.int64),)))
        self.making.append(source)
        for self.at in numbers:
            datapoint = next(source, MISSING)
            if datapoint is MISSING:
                raise fault(source, len(numbers))
            yield self._keep(datapoint)
        if next(source, MISSING) is not MISSING:
            raise fault(source, len(numbers))
        self.making.remove(source)

    def _keep(self, datapoint: Any) -> Any:
        """Write a datapoint down, and give it back as it will be read."""
        try:
            payload = datapoint_bytes(datapoint)
            kept = datapoint_of(payload)
        except Exception as error:
            raise TypeError(
                f"cache_to(): datapoints must be what pickle can keep, and {brief(datapoint)} is not: {error}; "
                "put cache_to before the stage that makes it, or make it of lists, dicts and arrays"
            ) from error
        self.shelf.add(self.at, payload)
        return kept

    def _first_unknown(self, stop: int) -> int:
        """The first number before `stop` that is not known, or `stop`."""
        for block in blocks(0, stop):
            places = self.shelf.table.find(block)
            if None in places:
                return block[places.index(None)]
        return stop


@stage.of_node(StoredNode)
@renamed("cache_to")
def _on_shelf(shelf: Shelf, source: Any, *, seed: int = 0) -> Any:
    """What `cache_to` makes once it knows the key of the source; it pickles, so workers need not find the key again."""


@stage.composite(where={"path": rules.folder, "version": rules.string, "seed": rules.integer})
def cache_to(path: Any, source: Any, *, version: str = "", seed: int = 0) -> Flow[Any]:
    """Keep datapoints in files in the folder `path`: each is made once, by whoever wants it first.

    What is upstream is frozen (see `freeze`). Threads, worker processes and other programs may use one folder at once,
    for any number of pipelines. An unfinished pass is useful and is never taken for a whole one. Arrays that come out
    are read-only; containers are new each time. `None`, numbers, strings, bytes, lists, tuples, dicts, sets and arrays
    of them are kept as such, anything else as `pickle` does it. A killed program or a full disk loses at most the
    datapoints of the last moment.

    Only what the same pipeline has kept comes out. A pipeline is told apart by its stages and their arguments, by
    `seed` and `version`, by the content of its sources (lists, arrays, memory maps; they are read through once in this
    call) and by the code of its functions with all that they refer to (defaults, closures, globals, other functions and
    classes, the versions of Python and of installed modules), as they are at this call. What functions find out for
    themselves (the content of files, the environment, the time) cannot count: when it changes, give another `version`.
    What `guard` puts in the place of a failure is kept like anything else.

    The folder is to be trusted as code is: whoever can write to it can run code here. It may be deleted at any time.

    Raises:
        ValueError: there are other things than kept datapoints in the folder.
        TypeError: the content of something upstream (an iterator, an object of one's own with `__getitem__`) cannot be
            told from outside, so that `version` has to; or a datapoint cannot be pickled.
        OSError: a datapoint cannot be written. Those that are there can still be read.

    >>> import tempfile
    >>> import flowfn as ff
    >>> folder = tempfile.mkdtemp()
    >>> squares = ff.pipe([1, 2], ff.map(lambda x: print("made") or x * x), ff.cache_to(folder))
    >>> list(squares), list(squares)
    made
    made
    ([1, 4], [1, 4])
    """
    folder = os.path.abspath(path)
    refuse_foreign(folder)
    key = pipeline_key(source, seed, version)
    about = f"{fingerprint(source)}, seed {seed}" + f", version {version!r}" * bool(version)
    return _on_shelf(shelf(folder, key, about), source, seed=seed)
