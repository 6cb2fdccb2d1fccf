"""The iterator over a flow: one pass, its position, its state, and the one place where its errors are caught."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from flowfn.datapoints import buffers
from flowfn.flows.schema import of_epoch
from flowfn.flows.states import FlowTree, gaps, pack_state, unpack_state
from flowfn.kinds.bypass import count_given, outputs_of
from flowfn.kinds.failures import annotate, marked, uneven
from flowfn.kinds.losses import warn_of_losses
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Checkpoint, Outputs, Run
from flowfn.kinds.tallies import Dropped, Tallies, anchors
from flowfn.process.interrupts import Deferred

Datapoint_co = TypeVar("Datapoint_co", covariant=True)


class Recipe(FlowTree, Protocol):
    """A flow, as far as its iterators go: it goes on behind a pass that has become another."""

    def _follow(self, progress: Progress) -> None: ...


class Progress:
    """How far a pass has come: what an iterator shares with its flow, and what outlives it."""

    __slots__ = ("checkpoint", "epoch", "exhausted", "iterator", "seed")

    def __init__(self, seed: int, epoch: int, checkpoint: Checkpoint | None = None) -> None:
        self.seed, self.epoch, self.checkpoint = seed, epoch, checkpoint or Checkpoint()
        self.exhausted = False
        self.iterator: weakref.ref[FlowIterator[Any]] | None = None

    def state(self, flow: FlowTree) -> dict[str, Any]:
        """The state to go on from; of a finished pass, the start of the next."""
        iterator = self.iterator() if self.iterator else None
        if iterator is not None:
            iterator._note_checkpoint()
        if self.exhausted:
            return pack_state(flow, self.seed, self.epoch + 1, self.following(flow))
        return pack_state(flow, self.seed, self.epoch, self.checkpoint)

    def following(self, flow: FlowTree) -> Checkpoint:
        """Where the next pass starts: at its beginning, knowing the anchors of what goes on from epoch to epoch."""
        lasting = {node.place for last in top_down(flow.node) if last.lasting for node in top_down(*last.sources)}
        known = {place: anchor for place, anchor in anchors(self.checkpoint.anchors).items() if place in lasting}
        anchors_known = of_epoch(flow.node, self.epoch + 1, known) if known else {}
        return Checkpoint(anchors=anchors_known, skip=self.checkpoint.skip.following())


class FlowIterator(Iterator[Datapoint_co]):
    """One pass over a flow. It stands alone: any number may be alive. `close()` it, or use it in `with`.

    `epoch` is the pass's epoch, `position` the number of outputs delivered.
    """

    def __init__(self, flow: Recipe, progress: Progress, engine: str = "processes") -> None:
        self._flow, self._progress, self._engine = flow, progress, engine
        self._outputs: Outputs | None = None
        self._name = object()
        progress.iterator = weakref.ref(self)
        self._open()

    def _open(self) -> None:
        progress, checkpoint = self._progress, self._progress.checkpoint
        self._tallies = Tallies(checkpoint.anchors)
        self._run = Run(
            progress.seed,
            (progress.epoch,),
            self._engine,
            checkpoint.base,
            anchors(checkpoint.anchors),
            tallies=self._tallies,
            gaps=gaps(self._flow, checkpoint),
        )
        try:
            self._outputs = outputs_of(self._flow.node, self._run, checkpoint.position)
        except Exception as error:
            self._failed(error)
            raise
        buffers.begin_pass(self._name)

    def __iter__(self) -> FlowIterator[Datapoint_co]:
        return self

    def __next__(self) -> Datapoint_co:
        if self._outputs is None:
            raise StopIteration
        try:
            return next(self._outputs)
        except StopIteration:
            self._finish()
            raise
        except BaseException as error:
            if _is_being_read(error):
                raise RuntimeError(_BEING_READ) from None
            self._failed(error)
            raise

    def _finish(self) -> None:
        if self._outputs is None:
            return
        node, progress = self._flow.node, self._progress
        expected = None
        if node.seekable and not self._run.gaps:
            whole = node.length(
                Run(
                    progress.seed, (progress.epoch,), base=progress.checkpoint.base, anchors=progress.checkpoint.anchors
                )
            )
            expected = max(int(whole) - self._outputs.first, 0)  # type: ignore[arg-type]
        error = uneven(self._outputs, expected, node.seekable)
        if error is not None:
            self._failed(error)
            raise error
        self._note_checkpoint()
        self._progress.exhausted = True
        self.close()
        if self._engine == "processes":  # not for the elements of one datapoint
            warn_of_losses(node, self._run, stacklevel=3)

    def _failed(self, error: BaseException) -> None:
        annotate(error, self._outputs, self._progress.seed, self._progress.epoch)
        self._note_checkpoint()
        remember(error, self._progress.checkpoint)
        self.close()

    def _note_checkpoint(self) -> None:
        """Write down where the pass stands."""
        if self._outputs is not None:
            checkpoint = self._progress.checkpoint
            facts = {**self._outputs.facts(), **self._tallies.facts()}
            facts = {**kept_anchors(self._flow.node, checkpoint.anchors), **facts}
            self._progress.checkpoint = checkpoint._replace(position=self._outputs.position, anchors=facts)

    @property
    def epoch(self) -> int:
        """The epoch of this pass."""
        return self._progress.epoch

    @property
    def position(self) -> int:
        """How many outputs of this pass have been delivered, those before a resume included."""
        return self._outputs.position if self._outputs is not None else self._progress.checkpoint.position

    def progress(self) -> tuple[Recipe, int, int, Checkpoint]:
        """(flow, seed, epoch, checkpoint): which pass this is, and where it stands."""
        self._note_checkpoint()
        return self._flow, self._progress.seed, self._progress.epoch, self._progress.checkpoint

    @property
    def dropped(self) -> list[Dropped]:
        """The newest (at most 100) datapoints on which guarded stages failed and that were dropped or replaced."""
        self._note_checkpoint()
        # counts come last, the first stage's first
        facts = sorted(self._progress.checkpoint.anchors.items(), reverse=True)
        return [dropped for _, fact in facts for dropped in getattr(fact, "newest", ())]

    def state_dict(self) -> dict[str, Any]:
        """The state after the last output delivered, as plain JSON."""
        return self._progress.state(self._flow)

    def load_state_dict(
        self, state: Mapping[str, Any], *, strict: bool = True, skip: Any = None
    ) -> FlowIterator[Datapoint_co]:
        """Go on from `state` instead, and leave out what is in `skip` (see `Flow.load_state_dict`); returns the
        iterator."""
        seed, epoch, checkpoint = unpack_state(self._flow, state, strict, skip)
        self.close()
        progress = self._progress
        progress.seed, progress.epoch, progress.checkpoint, progress.exhausted = seed, epoch, checkpoint, False
        self._flow._follow(progress)
        self._open()
        return self

    def close(self) -> None:
        """End the pass and let go of all it holds; its state stays."""
        with Deferred():
            outputs = self._outputs
            if outputs is not None:
                self._note_checkpoint()
                self._outputs = None
                try:
                    outputs.close()
                finally:
                    buffers.end_pass(self._name)

    def __enter__(self) -> FlowIterator[Datapoint_co]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        if getattr(self, "_outputs", None) is not None and not ends():  # modules go before some objects do
            self.close()

    def __length_hint__(self) -> int:
        left = count_given(self._flow.node, self._run, self.position)
        return int(left) if left is not None and left != math.inf else 0


_BEING_READ = (
    "this iterator is being read already, by another thread or by a function of its own flow; "
    "give each thread an iterator of its own, or let them take turns with a lock"
)


def _is_being_read(error: BaseException) -> bool:
    """Whether Python refuses to go on with a pass since it is at work on it; the error comes from nowhere below."""
    if type(error) is not ValueError or str(error) != "generator already executing":
        return False
    return error.__traceback__ is None or error.__traceback__.tb_next is None


def kept_anchors(root: Node, anchors: Mapping[int, Any]) -> dict[int, Any]:
    """Those that hold for all of a pass, because their nodes tell no others."""
    if root.seekable or not anchors:
        return dict(anchors)
    known = {node.place for node in top_down(root) if node.seekable}
    return {place: anchor for place, anchor in anchors.items() if place in known}


def remember(error: BaseException, checkpoint: Checkpoint) -> None:
    """Write on an error where the pass stood when it was raised, for `replay`."""
    told = marked(error)
    if told is not None:
        told["checkpoint"] = checkpoint
