"""What a worker process does with a task: it finds the tree, opens the slot, works, and packs what came of it."""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple, cast

from flowfn.datapoints import buffers
from flowfn.kinds.failures import failure_place, locate, mark, uneven
from flowfn.kinds.nodes import Node
from flowfn.kinds.notes import trace
from flowfn.kinds.runs import Anchor, Outputs, Run
from flowfn.kinds.tallies import Tallies, anchors, let_go
from flowfn.parallel.crossing.bundles import bundled
from flowfn.parallel.crossing.errors import Portable, Record
from flowfn.parallel.crossing.slots import Denied, Desk, SlotName, open_slot
from flowfn.parallel.crossing.transport import Parcel, pack_value, unpack_value
from flowfn.parallel.tasks.asides import said
from flowfn.parallel.tasks.task import REMEMBERED, Feed, Reply, UnfinishedTask, perform, stop_task, weight
from flowfn.parallel.workers.program import Outdated, SetupFailed, load, surround
from flowfn.showing import brief

TREES = 4
"""How many trees a worker keeps: large arrays of their sources go with them."""


STOPPED = 1024
"""How many works a worker remembers of which nobody wants any more."""


class Answer(NamedTuple):
    """What a worker sends back: a parcel, or what it lacks: the "tree", the "arrays" of its sources, its "memory", or
    sense, since a "stage" or the task cannot be made again (`why`), its "setup" failed (the parcel holds the error and
    its traceback), or its "code" is another: of what is `outdated`, and whether the worker is `fresh`.

    `watched`: somebody here still looks into the slot, so it may not be written again. `denied`: why it was not used.
    """

    parcel: Parcel
    lacks: str = ""
    why: str = ""
    watched: bool = False
    denied: str = ""
    outdated: tuple[tuple[str, str], ...] = ()
    fresh: bool = False

    @property
    def refused(self) -> bool:
        """Whether nothing that the worker could be given would help it."""
        return self.lacks in ("setup", "stage", "sense")


_trees: OrderedDict[bytes, Any] = OrderedDict()
_failed: dict[bytes, BaseException] = {}  # why a tree could not be learned, until somebody asks for it
_memos: OrderedDict[str, dict[Any, Any]] = (
    OrderedDict()
)  # keys and routes of the last passes that this worker had a part in
_unfinished_tasks: dict[Any, UnfinishedTask] = {}
_unfinished_passes: OrderedDict[str, None] = OrderedDict()  # whose
_stopped: OrderedDict[str, None] = OrderedDict()  # what nobody wants any more
_pass_states: OrderedDict[str, tuple[Outputs, Tallies] | int] = (
    OrderedDict()
)  # an int: it has ended, after so many outputs


def perform_here(top: Node, feed: Feed) -> Reply:
    """`perform` in a worker process, which remembers what its last pass found out."""
    trunk = feed.pass_id.partition("/")[0]  # branches of a pass count as one
    memo = _memos.setdefault(trunk, {})
    while len(_memos) > REMEMBERED:
        _memos.popitem(last=False)
    reply = perform(top, feed, memo, _unfinished_tasks)
    if reply.more and feed.pass_id in _stopped:  # nobody wanted any more while this was done
        stop_task(_unfinished_tasks, feed.pass_id)
    elif reply.more:
        _unfinished_passes[trunk] = None
        _unfinished_passes.move_to_end(trunk)
        while len(_unfinished_passes) > REMEMBERED:
            stop_task(_unfinished_tasks, _unfinished_passes.popitem(last=False)[0])
    return reply


def continue_pass(top: Node, feed: Feed) -> Reply:
    """The next `limit` outputs of a pass that this worker keeps, or makes anew from the feed's anchors."""
    began = time.perf_counter()
    made: list[Any] = []
    facts: list[dict[int, Anchor]] = []
    error: BaseException | None = None
    outputs: Outputs | None = None
    tallies = Tallies(feed.anchors, portable=Record.of)
    state = _pass_states.get(feed.pass_id)
    try:
        if isinstance(state, int) and feed.first_output >= state:
            return Reply([], {}, 0.0, 0, facts=[], ended=True)
        if isinstance(state, tuple) and state[0].position == feed.first_output:
            outputs, tallies = state
        else:
            facts_known = anchors(feed.anchors)
            run = Run(feed.seed, feed.epoch, "threads", feed.base, facts_known, tallies=tallies, gaps=feed.gaps)
            outputs = top.stream(run, feed.first_output, feed.lineage)
            buffers.begin_pass(feed.pass_id)
        _remember(feed.pass_id, (outputs, tallies))
        for output in islice(outputs, feed.limit):
            made.append(output)
            facts.append({} if top.seekable and not top.guarded else {**outputs.facts(), **tallies.news()})
        ended = feed.limit is None or len(made) < feed.limit
        error = uneven(outputs, None, top.seekable) if ended else None
    except BaseException as raised:  # as in `perform`
        error, ended = raised, True
    if error is not None:
        locate(error, outputs)
    last = tallies.news() if ended else {}
    if ended:
        close_pass(feed.pass_id, feed.first_output + len(made))
    text = trace(error) if error is not None else ""
    return Reply(
        made,
        {},
        time.perf_counter() - began,
        weight(made[0]) if made else 0,
        error,
        text,
        facts,
        ended,
        last=last,
        asides=said(),
    )


def stop_here(pass_id: str) -> None:
    """Nobody wants any more of a pass; what was sent before this may come after it."""
    _stopped[pass_id] = None
    while len(_stopped) > STOPPED:
        _stopped.popitem(last=False)
    if "/" not in pass_id:  # a branch is no pass that a worker keeps
        close_pass(pass_id)
    stop_task(_unfinished_tasks, pass_id)


def close_pass(name: str, position: int = 0) -> None:
    """Let go of a pass, and remember after how many outputs it ended (0: nobody wants any more)."""
    _release_pass(name, _pass_states.pop(name, None))
    _remember(name, position)


def _remember(name: str, state: tuple[Outputs, Tallies] | int) -> None:
    """Keep what is known of a pass, as the newest of a few."""
    _pass_states[name] = state
    _pass_states.move_to_end(name)
    while len(_pass_states) > REMEMBERED:
        _release_pass(*_pass_states.popitem(last=False))


def _release_pass(name: str, state: tuple[Outputs, Tallies] | int | None) -> None:
    if isinstance(state, tuple):
        state[0].close()
        buffers.end_pass(name)


def learn_tree(digest: bytes, pickled: bytes) -> None:
    """Find out what a tree is. If that fails, the first task of it says so."""
    _failed.pop(digest, None)
    try:
        known_tree(digest, pickled)
    except BaseException as error:
        _failed[digest] = error


def answer_learned(digest: bytes, call: Callable[[Node, Feed], Reply], name: SlotName | None, parcel: Parcel) -> Answer:
    """`answer_task` where the tree was told before."""
    return answer_task(digest, None, call, name, parcel)


def answer_task(
    digest: bytes,
    pickled: bytes | Callable[[], bytes] | None,
    call: Callable[[Node, Feed], Reply],
    name: SlotName | None,
    parcel: Parcel,
    apart: bool = False,
) -> Answer:
    """One task in a worker process. Where arrays may be put, in its slot, `call` puts them there itself if it can.
    Where there is none they may travel `apart`."""
    try:
        top = known_tree(digest, pickled)
    except Denied as error:
        return Answer(Parcel(b""), "arrays", denied=str(error))
    except Outdated as error:
        return Answer(Parcel(b""), "code", outdated=error.keys, fresh=not _trees)
    except SetupFailed as error:
        cause: Any = error.__cause__
        return Answer(pack_value((Portable(cause), trace(cause))), "setup")
    except Exception as error:
        return Answer(Parcel(b""), "stage", f"{type(error).__name__}: {error}")
    if top is None:
        return Answer(Parcel(b""), "tree")
    desk, denied = _desk(name, parcel.used)
    if desk is None and parcel.spans:
        return Answer(Parcel(b""), "memory", denied=denied)
    try:
        feed = unpack_value(parcel, desk.room(0, parcel.used).data if desk is not None else None)
    except Exception as error:
        why = f"what comes to this stage cannot be made again in a worker process: {type(error).__name__}: {error}"
        return Answer(Parcel(b""), "sense", why, watched=desk is not None)
    # of a task that goes on, suspended stages still look into what they gave last: that is copied into the slot
    with buffers.allocated_by(desk.allocate) if desk is not None and feed.limit is None else contextlib.nullcontext():
        reply = call(top, feed)
    del feed
    sent = _packed_reply(top, reply, desk, apart)
    del reply
    return Answer(
        sent, watched=desk is not None and _watched(desk), denied=denied or (desk.denied if desk is not None else "")
    )


def _watched(desk: Desk) -> bool:
    """Whether somebody looks into a desk for longer than the task."""
    if desk.watched and "jax" in sys.modules:
        gc.collect(
            0
            # JAX lets go of what its arrays looked into when garbage is collected:
            # https://github.com/jax-ml/jax/issues/14882
        )
    return desk.watched


def _desk(name: SlotName | None, used: int) -> tuple[Desk | None, str]:
    if name is None:
        return None, ""
    try:
        return Desk(open_slot(name), used), ""
    except (Denied, ValueError) as error:  # it cannot be opened, or not be mapped
        return None, str(error)


def _packed_reply(top: Node, reply: Reply, desk: Desk | None, apart: bool) -> Parcel:
    """A reply on its way. An output that cannot be sent is an error in its place, behind what was made before it."""
    if reply.error is not None:
        let_go(reply.error)
        reply.error = cast(Any, Portable(reply.error))
    for event in reply.events:
        let_go(event[3].error)
    reply.events = [
        (at, place, reached, Record.of(dropped), budget) for at, place, reached, dropped, budget in reply.events
    ]
    try:
        return pack_value(replace(reply, outputs=bundled(reply.outputs)), desk, apart=apart)
    except Exception:  # whatever it is, it is told with the output that is to blame
        for number, output in enumerate(reply.outputs):
            try:
                pack_value(output)
            except Exception as error:
                return pack_value(_cut_short(top, reply, number, error))
        raise


def _cut_short(top: Node, reply: Reply, number: int, error: Exception) -> Reply:
    """A reply up to an output that cannot be pickled."""
    refusal = TypeError(
        f"{top.part} gave {brief(reply.outputs[number])}, which cannot be sent back from its worker process: "
        f"{type(error).__name__}: "
        f"{error}; give something that pickles, or prefetch with threads="
    )
    mark(refusal, failure_place(f"in {top.part}"))
    cut = replace(reply, outputs=reply.outputs[:number], error=refusal, text="", more=False, ended=True)
    cut.facts = reply.facts and reply.facts[:number]
    if reply.reached:
        cut.reached = reply.reached[: number + 1]
        cut.events = [event for event in reply.events if event[0] <= number]
    return cut


def known_tree(digest: bytes, pickled: bytes | Callable[[], bytes] | None) -> Any:
    """The tree of a digest, from memory or from its bytes, which may have to be fetched; its settings are those of this
    process then."""
    if digest not in _trees:
        if digest in _failed:
            raise _failed.pop(digest)
        if pickled is None:
            return None
        _trees[digest] = load(pickled() if callable(pickled) else pickled)
        while len(_trees) > TREES:
            _trees.popitem(last=False)
    _trees.move_to_end(digest)
    settings, tree = _trees[digest]
    surround(settings)
    return tree
