"""The two kinds that are read in order: expand and stream. What lets them start in the middle are anchors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, repeat, tee
from operator import itemgetter
from typing import Any

import numpy as np

from flowfn.kinds.bypass import count_given
from flowfn.kinds.losses import note_passed
from flowfn.kinds.nodes import StageNode, known_length, within
from flowfn.kinds.routes import product
from flowfn.kinds.runs import Anchor, Length, Outputs, Run, naturals
from flowfn.kinds.traces import Trace, Use
from flowfn.randomness.generators import Label, deepen, generator, hashed, rekey


class Expand(StageNode):
    """Each input gives 0 to k outputs, whatever the others give. It has an anchor before every input."""

    leaves_out = True
    retold = True

    def setup(self) -> None:
        """Never seekable: where an output comes from is not known before it is made."""
        (self.source,) = self.sources

    def unknown(self) -> str:
        """It is to blame itself."""
        return f"how many outputs {self.part} gives is only known once it has run"

    def misfit(self, run: Run, anchor: Anchor) -> str:
        """How many inputs came before the one in work."""
        fits = naturals(anchor.inputs, 1) and within(run, self.source, anchor.inputs[0])
        return "" if fits else "[epoch, outputs, [inputs taken, at most as many as there are]]"

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """From the last anchor before `start`; outputs are labelled (label of the input, ordinal)."""
        anchor = run.anchor(self.place, start)
        asks = lineage or self.part.wants_labels
        source = self.source.stream(run, anchor.inputs[0], asks)
        pairs, labelled = tee(source) if asks else (source, ())
        intake = _Intake(self, source, pairs, run, anchor, asks)
        inputs = Outputs(iter(intake), None, [source], anchor.inputs[0])
        made = self.begin(run, [inputs], map(itemgetter(1), labelled))
        if (trace := run.traced(self.place)) is not None:
            trace.used, trace.parts = lambda: [Use(0, run, [intake.at])], not self.part.traits.newest
        if lineage:
            outputs = Outputs(intake.labelled(made), self, [made], anchor.outputs, intake.tell, intake.ticks)
        else:
            outputs = Outputs(made.source, self, [inputs], anchor.outputs, intake.tell, intake.ticks)
        return outputs.drop(start - anchor.outputs)


class _Intake:
    """The inputs of an expand stage as they are taken, one by one: which one is in work, and what came before it."""

    def __init__(
        self, node: Expand, outputs: Outputs, source: Iterator[Any], run: Run, anchor: Anchor, pairs: bool
    ) -> None:
        self.node, self.outputs, self.source, self.run, self.anchor, self.pairs = (
            node,
            outputs,
            source,
            run,
            anchor,
            pairs,
        )
        self.ticks = repeat(True, sys.maxsize)
        self.number, self.left = anchor.inputs[0], sys.maxsize
        self.label: Label = 0

    def __iter__(self) -> Iterator[Any]:
        hint = self.ticks.__length_hint__
        if self.pairs:
            for self.number, (datapoint, self.label) in enumerate(self.source, self.number):  # noqa: B020
                self.left = hint()
                yield datapoint
        else:
            for datapoint in self.source:
                self.left = hint()
                yield datapoint
        if self.run.feed is None:  # whoever hands out tasks knows what all of them gave
            note_passed(self.run, self.node, self.anchor.outputs + sys.maxsize - hint(), self.outputs.position)

    def labelled(self, outputs: Iterable[Any]) -> Iterator[tuple[Any, Label]]:
        """The outputs with their lineage: the label of the input in work, and which of its outputs this is."""
        before, ordinal = -1, 0
        for output in outputs:
            ordinal = ordinal + 1 if self.number == before else 0
            before = self.number
            yield output, deepen(self.label, ordinal)

    @property
    def at(self) -> int:
        """The number of the input in work."""
        return self.number if self.pairs else max(self.outputs.position - 1, self.number)

    def tell(self) -> dict[int, Anchor]:
        """The anchor before the input in work."""
        here = Anchor(self.run.epoch, self.anchor.outputs + sys.maxsize - self.left, (self.at,))
        return {**self.outputs.facts(before_last=True), self.node.place: here}


class Stream(StageNode):
    """Anything else: the stage sees the whole stream. It has an anchor wherever it calls `mark`."""

    retold = True

    def setup(self) -> None:
        """Some need not make their outputs before these are put together."""
        self.defers = "unmade" in self.part.asks

    def unknown(self) -> str:
        """It is to blame itself."""
        return f"{self.part} sees its source as one stream"

    def misfit(self, run: Run, anchor: Anchor) -> str:
        """Where in its sources it can be started again, and what its function noted there; without marks,
        at its very beginning."""
        many = len(self.sources)
        starts, note = anchor.inputs[:many], anchor.inputs[many:]
        rule = self.part.traits.note
        if (anchor.outputs, *anchor.inputs) == (0,) * (many + 1):
            return ""
        if naturals(starts, many) and all(within(run, source, start) for source, start in zip(self.sources, starts)):
            facts = {
                **self.part.arguments,
                "outputs": anchor.outputs,
                "start": starts[0],
                "length": known_length(run, self.sources[0]),
            }
            if rule.fits_type(note) and rule.fits(note, facts):
                return ""
        return f"[epoch, outputs, [start in each source, {rule.requirement}]]"

    def length(self, run: Run) -> Length:
        """From that of the source, for stages that say how many outputs an input gives."""
        times = self.part.traits.times
        length = count_given(self.sources[0], run) if times is not None else None
        return None if length is None or times is None else product(length, times)

    def injections(self, run: Run) -> dict[str, Any]:
        """What its function is given beyond what its kind gives."""
        return {}

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """From the last mark before `start`, or else from the beginning."""
        anchor = run.anchor(self.place, start, len(self.sources))
        inputs = [source.stream(run, position) for source, position in zip(self.sources, anchor.inputs)]
        mark = Mark(self, run, anchor, inputs)
        injected = self.injections(run)
        if self.part.random:
            injected["rng"] = mark.rng = generator(hashed(self.key(run), self.rank, self.world))
            rekey(mark.rng, anchor.outputs)
        if "mark" in self.part.asks:
            injected["mark"] = mark
        if self.defers:
            injected["unmade"] = run.unmade == self.place
        trace = run.traced(self.place)
        made = self.part.open(inputs, **injected) if trace is None else self._traced(trace, mark, injected)
        outputs = mark.outputs = Outputs(made, self, inputs, anchor.outputs, mark.tell)
        outputs.drop(start - anchor.outputs)
        return outputs.labelled(self.numbers(start), start) if lineage else outputs

    def _traced(self, trace: Trace, mark: Mark, injected: dict[str, Any]) -> Iterator[Any]:
        """The outputs of the stage, of which is told what they are made of."""
        inputs, traits = mark.inputs, self.part.traits
        if "trace" in self.part.asks:
            injected = {**injected, "trace": trace}
        held = mark.bounds()

        def used() -> list[Use]:
            nonlocal held
            before, held, told, trace.numbers = held, mark.bounds(), trace.numbers, None
            if traits.newest:
                told = [inputs[0].position - 1]
            if told is not None:
                return [Use(0, mark.run, told)]
            trace.exact = False
            starts = zip(before if mark.noting is not None else held, inputs)
            return [Use(one, mark.run, range(at, source.position)) for one, (at, source) in enumerate(starts)]

        trace.used = used
        if traits.moves:
            return trace.moved(self.part.open([zip(inputs[0], count(inputs[0].position))], **injected))
        return self.part.open(inputs, **injected)


class Mark:
    """What a stream stage calls to say where it can be started again.

    `mark()` between outputs, when nothing that it has read remains unused; `mark(unused=n)`, when all that remains are
    the last n inputs, to be read again. A stage that can be started again anywhere says so once, before its first
    output: `mark.anywhere(note)`, where `note()` tells, whenever somebody wants to know, how many inputs remain unused
    and then any numbers that it will find in `mark.note` when it is started there. A stage that goes far back sets
    `mark.upstream` in `note` to the `source.facts(before_last=True)` of when it read the oldest of these inputs, so
    that what is upstream can be started there too.
    """

    outputs: Outputs
    rng: np.random.Generator | None = None
    noting: Callable[[], tuple[Any, ...]] | None = None

    def __init__(self, node: Stream, run: Run, anchor: Anchor, inputs: Sequence[Outputs]) -> None:
        self.node, self.run, self.newest, self.inputs = node, run, anchor, inputs
        self.upstream = dict(run.anchors)
        if node.followed:  # so that these can be started here again
            self.upstream |= {place: one for source in inputs for place, one in source.facts().items()}
        self.note: tuple[Any, ...] = tuple(anchor.inputs[len(inputs) :])

    def __call__(self, unused: int = 0) -> None:
        self.newest = self._here(unused)
        if unused < 2 or not self.node.followed:  # further back, what was told before may still be of use
            self.upstream = {
                place: one for source in self.inputs for place, one in source.facts(before_last=unused > 0).items()
            }
        if self.rng is not None:
            rekey(self.rng, self.newest.outputs)

    def anywhere(self, note: Callable[[], tuple[Any, ...]] = lambda: (0,)) -> None:
        """Say that the stage can be started again after any of its outputs."""
        self.noting, self.upstream = note, {}

    def tell(self) -> dict[int, Anchor]:
        """The newest anchor, and those upstream that go with it."""
        if self.noting is not None:
            self.newest = self._here(*self.noting())
        newest = self.newest._replace(read=self._read()) if self.node.followed else self.newest
        return {**self.upstream, self.node.place: newest}

    def _read(self) -> int:
        """How many inputs have been read; where a pass went on from a state, at least as many as had been by then."""
        known = self.run.anchors.get(self.node.place)
        return max(self.inputs[0].position, known.read or 0 if known is not None else 0)

    def bounds(self) -> tuple[int, ...]:
        """The first input of each source of which anything may be held."""
        place, many = self.node.place, len(self.inputs)
        return tuple(self.tell()[place].inputs[:many])

    def _here(self, unused: int, *note: Any) -> Anchor:
        return Anchor(
            self.run.epoch, self.outputs.position, (*(source.position - unused for source in self.inputs), *note)
        )
