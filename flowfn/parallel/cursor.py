"""Where a pass over a stretch stands: how many datapoints each stage of it has given, of those that were delivered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from flowfn.kinds.failures import marked
from flowfn.kinds.losses import note_passed
from flowfn.kinds.runs import Anchor, Run
from flowfn.kinds.streams import Expand
from flowfn.kinds.tallies import anchors
from flowfn.parallel.tasks.plan import Stretch
from flowfn.parallel.tasks.task import Feed


class Cursor:
    """Where a pass stands, in the datapoints of the stretch's bottom and in each stage that gives any number of them.

    An anchor says how many outputs a stage had given when it had read so many inputs, which are the outputs of the
    stage before it. So a chain of expand stages has a chain of anchors:

        bottom ──▶ flat_map ──────────────────▶ filter ───────────────────────▶ outputs
                 │                            │                               │
              position             outputs[flat_map]                  outputs[filter]
                 └──── its anchor ────────────┴───────── its anchor ──────────┘
                   (inputs, outputs)                 (inputs, outputs)

    A worker that goes on from anchors makes again what the last input of a stage gave and was delivered: the stage
    owes that. It is dropped in the worker, so until none is owed each task has to know what came of the one before.
    """

    def __init__(self, stretch: Stretch, run: Run) -> None:
        self.stretch, self.run, self.counted = stretch, run, stretch.counted()
        self.first_output = self.first_input = self.position = 0
        self.outputs: dict[int, int] = {}  # how many each counted stage has given, by its place
        self.owed: dict[int, int] = {}  # and how many have to be made before one is new
        self.begins: dict[int, int] = {}  # the position at which the next task begins in each stage of the chain
        self.anchors: dict[int, Anchor] = {}  # at the last output delivered
        self.earlier: dict[int, Anchor] = {}  # and at the one before
        self._opening: dict[str, Any] = {}

    def seek(self, start: int) -> Cursor:
        """Stand before output `start`, or before output `first_output` where that is as close as anchors come."""
        self.first_output = position = start
        chain: dict[int, Anchor] = {}
        for node in self.stretch.chain():
            if isinstance(node, Expand):
                anchor = self.run.anchor(node.place, position)
                if not chain:  # what is too much of the last one is dropped here, so that it owes nothing
                    self.first_output = position = anchor.outputs
                    self.begins = dict.fromkeys(self.begins, position)
                chain[node.place], self.owed[node.place] = anchor, position
                position = anchor.inputs[0]
            self.begins[node.place] = position
        self.first_input = self.position = position
        self.outputs = {place: anchor.outputs for place, anchor in chain.items()}
        self.anchors = dict(self.run.anchors)
        self._opening = {"opening": True, "first_output": self.first_output, "anchors": chain}
        return self

    def tell(self) -> dict[int, Anchor]:
        """The anchors at the last output delivered."""
        return self.anchors

    def tell_before_last(self) -> dict[int, Anchor]:
        """Those before it, where they are known for each output."""
        return self.earlier

    @property
    def behind(self) -> bool:
        """Whether a stage inside the chain still owes outputs that were delivered before."""
        return any(self.outputs[place] < owed for place, owed in self.owed.items())

    def opened(self, feed: Feed) -> Feed:
        """A task that is sent now; if it has to go on from anchors, with them."""
        opening, self._opening = self._opening, {}
        return replace(feed, **opening)

    def learn(self, facts: Mapping[int, Anchor]) -> None:
        """Take over what became known of the source; counts go to the run."""
        self.anchors = {**self.anchors, **self._known(facts)}

    def arrive(self, feed: Feed, facts: Mapping[int, Anchor]) -> None:
        """The outputs of a task come next, before which this was known of the source."""
        self.anchors = {**self._known(facts), **self._chain({}), **feed.anchors}

    def each(self, outputs: list[Any], facts: list[dict[int, Anchor]]) -> Iterator[Any]:
        """The outputs of a task, each of one input, and before each what was known once its input had been read."""
        for output, known in zip(outputs, facts):
            self.earlier = self.anchors
            self.learn(known)
            yield output

    def advance(self, feed: Feed, positions: Mapping[int, int]) -> None:
        """Stand behind a task, in which stages came to these positions."""
        self.position += len(feed)
        for place, position in positions.items():
            if place in self.outputs:
                self.outputs[place] = position if feed.opening else self.outputs[place] + position
        if self.behind:
            self._opening = {"opening": True, "first_output": feed.first_output, "anchors": self._chain(self.owed)}

    def place_error(self, error: BaseException, feed: Feed, ordered: bool) -> None:
        """Count the place of an error in the whole pass, and no longer in its task."""
        where = marked(error)
        if where and where["counted"] != -1 and not feed.opening:
            before = self.position if ordered or feed.block is not None else feed.first_input
            where["index"] += before if where["counted"] is None else self.outputs.get(where["counted"], 0)
        if where:
            where["counted"] = -1

    def note_losses(self) -> None:
        """All is delivered: note what each stage made of how many datapoints."""
        inputs = self.position
        for node in self.counted:
            note_passed(self.run, node, self.outputs[node.place], inputs)
            inputs = self.outputs[node.place]

    def _chain(self, owed: Mapping[int, int]) -> dict[int, Anchor]:
        """The anchors of the counted stages, each behind as many inputs as the one before has given, or owes."""
        inputs, chain = self.position, {}
        for node in self.counted:
            outputs = self.outputs[node.place]
            chain[node.place] = Anchor(self.run.epoch, outputs, (inputs,))
            inputs = max(owed.get(node.place, 0), outputs)
        return chain

    def _known(self, facts: Mapping[int, Anchor]) -> dict[int, Anchor]:
        self.run.tallies.take(facts)
        return anchors(facts)
