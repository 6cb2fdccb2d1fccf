"""The two kinds that are read in order: expand and stream. What lets them start in the middle are anchors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, repeat, tee
from operator import itemgetter
from typing import Any

import numpy as np

from flowfn.kinds import Node
from flowfn.randomness import Label, deepen, generator, hashed, rekey
from flowfn.runs import Anchor, Length, Outputs, Run


class Expand(Node):
    """Each input gives 0 to k outputs, whatever the others give. It has an anchor before every input."""

    def setup(self) -> None:
        """Never seekable: where an output comes from is not known before it is made."""
        (self.source,) = self.sources

    def unknown(self) -> str:
        """It is to blame itself."""
        return f"how many outputs {self.part} gives is only known once it has run"

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """From the last anchor before `start`; outputs are labelled (label of the input, ordinal)."""
        known = run.anchor(self, start)
        asks = lineage or self.part.wants_labels
        source = self.source.stream(run, known.inputs[0], asks)
        pairs, labelled = tee(source) if asks else (source, ())
        intake = _Intake(self, source, pairs, run, known, asks)
        inputs = Outputs(iter(intake), None, [source], known.inputs[0])
        made = self.begin(run, [inputs], map(itemgetter(1), labelled))
        if lineage:
            outputs = Outputs(intake.labelled(made), self, [made], known.outputs, intake.tell, intake.ticks)
        else:
            outputs = Outputs(made.source, self, [inputs], known.outputs, intake.tell, intake.ticks)
        return outputs.drop(start - known.outputs)


class _Intake:
    """The inputs of an expand stage as they are taken, one by one: which one is in work, and what came before it."""

    def __init__(self, node: Expand, outputs: Outputs, source: Iterator[Any], run: Run, known: Anchor, pairs: bool) -> None:
        self.node, self.outputs, self.source, self.run, self.known, self.pairs = node, outputs, source, run, known, pairs
        self.ticks = repeat(True, sys.maxsize)
        self.taken, self.left = known.inputs[0], sys.maxsize
        self.label: Label = 0

    def __iter__(self) -> Iterator[Any]:
        hint = self.ticks.__length_hint__
        if self.pairs:
            for self.taken, (datapoint, self.label) in enumerate(self.source, self.taken):  # noqa: B020
                self.left = hint()
                yield datapoint
        else:
            for self.taken, datapoint in enumerate(self.source, self.taken):  # noqa: B020
                self.left = hint()
                yield datapoint

    def labelled(self, outputs: Iterable[Any]) -> Iterator[tuple[Any, Label]]:
        """The outputs with their lineage: the label of the input in work, and which of its outputs this is."""
        before, ordinal = -1, 0
        for output in outputs:
            ordinal = ordinal + 1 if self.taken == before else 0
            before = self.taken
            yield output, deepen(self.label, ordinal)

    def tell(self) -> dict[int, Anchor]:
        """The anchor before the input in work."""
        here = Anchor(self.run.epoch, self.known.outputs + sys.maxsize - self.left, (self.taken,))
        return {**self.outputs.facts(before_last=True), self.node.place: here}


class Stream(Node):
    """Anything else: the stage sees the whole stream. It has an anchor wherever it calls `mark`."""

    def unknown(self) -> str:
        """It is to blame itself."""
        return f"{self.part} sees its source as one stream"

    def length(self, run: Run) -> Length:
        """That of the source, for stages that say so."""
        return self.sources[0].length(run) if self.part.keeps_length else None

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """From the last mark before `start`, or else from the beginning."""
        known = run.anchor(self, start, len(self.sources))
        inputs = [source.stream(run, position) for source, position in zip(self.sources, known.inputs)]
        mark = _Mark(self, run, known, inputs)
        injected: dict[str, Any] = {}
        if self.part.random:
            injected["rng"] = mark.rng = generator(hashed(self.key(run), self.rank, self.world))
            rekey(mark.rng, known.outputs)
        if "mark" in self.part.asks:
            injected["mark"] = mark
        outputs = mark.outputs = Outputs(self.part.open(inputs, **injected), self, inputs, known.outputs, mark.tell)
        outputs.drop(start - known.outputs)
        labels = count(self.rank + self.world * start, self.world)
        return Outputs(zip(outputs, labels), None, [outputs], start) if lineage else outputs


class _Mark:
    """What a stream stage calls when nothing that it has read remains unused: it can be started again from there."""

    outputs: Outputs
    rng: np.random.Generator | None = None

    def __init__(self, node: Stream, run: Run, known: Anchor, inputs: Sequence[Outputs]) -> None:
        self.node, self.run, self.newest, self.inputs = node, run, known, inputs
        self.upstream = dict(run.anchors)

    def __call__(self) -> None:
        at = self.outputs.position
        self.newest = Anchor(self.run.epoch, at, tuple(source.position for source in self.inputs))
        self.upstream = {place: anchor for source in self.inputs for place, anchor in source.facts().items()}
        if self.rng is not None:
            rekey(self.rng, at)

    def tell(self) -> dict[int, Anchor]:
        """The anchor of the last call."""
        return {**self.upstream, self.node.place: self.newest}
