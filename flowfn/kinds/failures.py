"""What an error says: which stage, which datapoint, which input, and how to see it happen again.

Nothing is caught on the way: one `try` at the root of a pass finds the failing stage from the frames of the traceback.
"""

from __future__ import annotations

import dis
from types import FrameType, GeneratorType, TracebackType
from typing import Any

from flowfn.kinds.notes import add_note, frames, written
from flowfn.kinds.runs import Outputs
from flowfn.showing import brief

_NONE = object()
"""No datapoint; a stage that had none left to take has such an object in its place, too."""

_NOTHING = object()


def failure_place(before: str, index: int | None = None, after: str = "", counted: int | None = -1) -> dict[str, Any]:
    """Where an error is, in words: a number between two pieces of text.

    `counted` is the place of the node whose outputs `index` counts, None if it counts from the first
    datapoint that a worker was handed, and -1 if it is an index already.
    """
    return {"before": before, "index": index, "after": after, "counted": counted}


def mark(error: BaseException, where: dict[str, Any]) -> None:
    """Write on an error where it is, for those further down."""
    written(error)["__flowfn__"] = where


def marked(error: BaseException) -> dict[str, Any] | None:
    """Where an error is, if that is written on it."""
    return written(error).get("__flowfn__")


def locate(error: BaseException, outputs: Outputs | None) -> dict[str, Any]:
    """Find out where an error came from, and write it on the error; what is there stays."""
    known = marked(error)
    if known is None:
        known = _find(frames(error), outputs)
        mark(error, known)
    return known


def annotate(error: BaseException, outputs: Outputs | None, seed: int, epoch: int) -> None:
    """Add the one note to an error that came through a pass, unless a pass nearer to the failure has."""
    if not isinstance(error, Exception):
        return
    where = locate(error, outputs)
    if not where.get("noted"):
        words = f"{where['before']}{'' if where['index'] is None else where['index']}{where['after']}"
        add_note(error, f"{words}, seed {seed}, epoch {epoch}\nto see it again, serially: flowfn.replay(flow, error)")
    where.update(noted=True, seed=seed, epoch=epoch)


def uneven(outputs: Outputs, expected: int | None, seekable: bool) -> ValueError | None:
    """The error for an `each` or `group` stage that did not give one output for one input, if there was one.

    Call it when a pass has ended: a stage that is to blame has given more than it took, or has ended although there
    was more to take, or, in a pass by index, has more to give.
    """
    for part in outputs.walk():
        if part.node is None or not part.node.aligned or not part.inputs or not isinstance(part.source, GeneratorType):
            continue
        count, inputs = part.count, min(source.count for source in part.inputs)
        ended = part.source.gi_frame is None
        if count > inputs or (ended and count < inputs):
            return _blame(part, f"{count} for {inputs}")
        if ended and len(part.inputs) == 1 and next(next(iter(part.inputs)), _NOTHING) is not _NOTHING:
            return _blame(part, f"{count}, and then ended, for more than {inputs}")
        if seekable and not ended and next(part, _NOTHING) is not _NOTHING:
            return _blame(part, f"more than {count} for {inputs}")
    if expected is not None and outputs.count != expected:
        return ValueError(f"the flow gave {outputs.count} outputs where its length says {expected}")
    return None


def _blame(part: Outputs, count: str) -> ValueError:
    return ValueError(
        f"{part.node.part} gave the wrong number of outputs ({count}): "  # type: ignore[union-attr]
        "a stage.each or stage.group function yields exactly one output for each input; "
        "use stage.expand for 0 to k outputs for each input, stage.stream for anything else"
    )


def _find(traceback: TracebackType | None, outputs: Outputs | None) -> dict[str, Any]:
    parts = list(outputs.walk()) if outputs is not None else []
    steps: list[TracebackType] = []
    while traceback is not None:
        steps.append(traceback)
        traceback = traceback.tb_next
    owned = [(step, *_owner(step.tb_frame, parts)) for step in reversed(steps)]
    for step, part, _ in sorted(owned, key=lambda one: not one[2]):  # those that are certain first
        if part is None or part.node is None or not part.inputs:
            continue
        waiting = _was_waiting(step)
        if getattr(part.trail, "passed", None) == 0:  # a trail of indices, of which none has gone up yet
            return failure_place(f"in {part.node.part}, before its first datapoint")
        index, counted = _input_number(part, waiting)
        what = f"what {part.node.part} reads" if waiting else str(part.node.part)
        datapoint = step.tb_frame.f_locals.get("datapoint", _NONE)
        shown_input = "" if waiting or type(datapoint) is object else f" (input {brief(datapoint)})"
        return failure_place(f"in {what}, its datapoint ", index, shown_input, counted)
    return failure_place(f"in {parts[0].node.part}" if parts and parts[0].node is not None else "in the flow")


def _owner(frame: FrameType, parts: list[Outputs]) -> tuple[Outputs | None, bool]:
    """The part of the pass whose generator ran in this frame, and whether that is certain:
    the same code, over the same inputs."""
    same = [part for part in parts if getattr(part.source, "gi_code", None) is frame.f_code]
    held = {id(value) for local in frame.f_locals.values() for value in (local if type(local) is tuple else (local,))}
    for part in same:
        if any(id(source) in held for source in part.inputs):
            return part, True
    return (same[0] if same else None), False


def _was_waiting(step: TracebackType) -> bool:
    """Whether the frame failed while it asked for its next input, not in its own code; a guarded stage knows."""
    known = getattr(step.tb_frame.f_locals.get("self"), "waiting", None)
    if known is not None:
        return bool(known)
    return dis.opname[step.tb_frame.f_code.co_code[step.tb_lasti]].startswith("FOR_ITER")


def _input_number(part: Outputs, ahead: int) -> tuple[int, int | None]:
    """The number of the input that a part has just taken (or, `ahead`, waits for), and whose outputs it counts."""
    source = next(iter(part.inputs))
    if part.trail is not None:
        return part.trail.index(max(source.count - 1 + ahead, 0)), -1
    number = max(source.position - 1 + ahead, 0)
    while source.tell is None and source.inputs:
        source = next(iter(source.inputs))
    return number, source.node.place if source.tell is not None and source.node is not None else None
