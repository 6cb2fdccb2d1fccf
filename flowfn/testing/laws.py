"""The laws of flows, for the library's own stages and for yours.

`check(make_flow)` runs them all and says which broke, where, and with which two values. `pipelines()` is a hypothesis
strategy of random compositions of the built-in stages (it needs `pip install hypothesis`).

1. again        the same run gives the same datapoints
2. length       `len` is the number of outputs
3. index        reading any indices gives those outputs
4. resume       for every k, the state after k outputs gives the rest, in this epoch and the next
5. workers      any prefetch is the identity, and its state is the same
6. shards       with the remainder kept they are disjoint and together the whole, and augmented alike in every world
7. purity       inputs are not changed (but what was made for a stage is its own), no global random state moves
8. cleanliness  nothing is left behind, wherever one stopped
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import json
import math
import multiprocessing.resource_tracker
import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import loky.backend.resource_tracker
import numpy as np

from flowfn import rules
from flowfn.datapoints.components import Datapoints
from flowfn.flows.flow import Flow
from flowfn.flows.stages import pipe
from flowfn.kinds.losses import NothingLeft
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Run
from flowfn.parallel import prefetch, shut_down
from flowfn.seeing.watching import InputChanged, check_inputs
from flowfn.showing import brief
from flowfn.vocabulary.ordering import shard
from flowfn.vocabulary.transform import map as mapped

ENDLESS = 60
"""How many outputs of an endless flow are looked at."""

SETTLING = 5.0
"""Seconds within which threads, processes and descriptors have to be gone."""

_MAKE_FLOW = rules.Rule("a function that returns a flow", callable, hint="; write check(lambda: flow)")


class LawBroken(AssertionError):
    """A law does not hold; the message says which, where, and shows the two values."""


@rules.checked(make_flow=_MAKE_FLOW)
def check(
    make_flow: Callable[[], Flow[Any]],
    *,
    seed: int = 0,
    epochs: Sequence[int] = (0, 1),
    workers: Sequence[Mapping[str, Any]] = ({}, {"threads": 2}),
    stops: int = 12,
) -> None:
    """Check all laws on the flow that `make_flow()` returns, a new one at each call.

    Args:
        make_flow: returns the same pipeline at each call, over sources of its own.
        seed: the seed of the passes.
        epochs: the epochs that are looked at.
        workers: keyword arguments of `prefetch` for the law of workers; add {"processes": 2} for processes.
        stops: in how many places, spread over a pass, to stop and resume.

    Raises:
        LawBroken: with the name of the law and the two values.

    >>> import flowfn as ff
    >>> check(lambda: ff.pipe(range(10), ff.shuffle(), ff.map(float), ff.batch(3)))
    """
    if any("processes" in keywords for keywords in workers):
        for tracker in (multiprocessing.resource_tracker, loky.backend.resource_tracker):
            tracker.ensure_running()  # one each for the life of this process
    shut_down()
    gc.collect()
    before = left_behind()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingLeft)  # that is no matter of laws, and is told in a pass of one's own
        _check_purity(
            make_flow, seed
        )  # first: a stage that changes its inputs breaks other laws too, which do not name it
        for epoch in epochs:
            whole = outputs(make_flow(), seed, epoch)
            _check_again(make_flow, seed, epoch, whole)
            _check_length(make_flow, seed, epoch, whole)
            _check_index(make_flow, seed, epoch, whole)
            _check_resume(make_flow, seed, epoch, whole, stops)
            _check_workers(make_flow, seed, epoch, whole, workers, stops)
            _check_shards(make_flow, seed, epoch, whole)
        _check_cleanliness(make_flow, seed, workers, before)


def outputs(flow: Flow[Any], seed: int = 0, epoch: int = 0, start: int = 0) -> list[Any]:
    """What a pass gives: all of it, or the first few datapoints of an endless one.

    >>> import flowfn as ff
    >>> outputs(ff.flow([1, 2]))
    [1, 2]
    """
    endless = flow.node.length_or_none() == math.inf
    with flow.run(seed=seed, epoch=epoch, start=start) as iterator:
        return list(islice(iterator, max(ENDLESS - start, 0))) if endless else list(iterator)


def same(a: Any, b: Any) -> bool:
    """Whether two datapoints are equal in type, form and value; arrays and tensors in dtype and shape too, NaN equals
    NaN.

    >>> import numpy as np
    >>> same([np.arange(2), "x"], [np.arange(2), "x"]), same([1], [1.0]), same((1,), [1])
    (True, False, False)
    """
    if _compared_type(a) is not _compared_type(b):
        return False
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype == object:
            return all(same(x, y) for x, y in zip(a.ravel().tolist(), b.ravel().tolist()))
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fcmM"))
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    if hasattr(a, "__array__"):  # a tensor, a frame
        alike = (getattr(a, name, None) == getattr(b, name, None) for name in ("dtype", "shape"))
        return all(alike) and bool(np.all(np.asarray((a == b) | ((a != a) & (b != b)))))
    return bool(a == b) or bool(a != a and b != b)


def _compared_type(value: Any) -> type:
    return list if type(value) is Datapoints else type(value)


def pipelines(max_stages: int = 5) -> Any:
    """A hypothesis strategy of random pipelines: zero-argument functions that make a flow, their repr the recipe.

    >>> import flowfn as ff
    >>> from hypothesis import given
    >>> @given(pipelines())
    ... def test_laws(make_flow):
    ...     ff.testing.check(make_flow)
    """
    from flowfn.testing.strategies import recipes  # hypothesis is needed here only

    return recipes(max_stages)


# The laws


def _check_again(make_flow: Callable[[], Flow[Any]], seed: int, epoch: int, whole: list[Any]) -> None:
    flow = make_flow()
    for again in ("once", "twice"):
        _compare("again", make_flow, epoch, f"read {again} more", whole, outputs(flow, seed, epoch))


def _check_length(make_flow: Callable[[], Flow[Any]], seed: int, epoch: int, whole: list[Any]) -> None:
    length = make_flow().node.length(Run(seed, (epoch,)))
    if length not in (None, math.inf) and length != len(whole):
        raise LawBroken(_message("length", make_flow, epoch, "len says", length, "there are", len(whole)))


def _check_index(make_flow: Callable[[], Flow[Any]], seed: int, epoch: int, whole: list[Any]) -> None:
    flow = make_flow().reset_state(seed).set_epoch(epoch)
    if not flow.seekable or not whole:
        return
    for index in _spread_indices(len(whole), 8):
        if not same(whole[index], flow[index]):
            raise LawBroken(
                _message(
                    "index", make_flow, epoch, f"output {index} is", whole[index], f"but flow[{index}] is", flow[index]
                )
            )
    some = np.random.Generator(np.random.Philox(key=len(whole))).integers(0, len(whole), 2 * len(whole))
    _compare(
        "index", make_flow, epoch, f"reading {brief(some)}", [whole[i] for i in some], flow.__getitems__(some.tolist())
    )


def _check_resume(make_flow: Callable[[], Flow[Any]], seed: int, epoch: int, whole: list[Any], stops: int) -> None:
    after = outputs(make_flow(), seed, epoch + 1)[:5]
    beyond = int(make_flow().node.length_or_none() != math.inf)  # one more is asked for, to see that it ends
    for k in _spread_indices(len(whole) + 1, stops):
        with make_flow().run(seed=seed, epoch=epoch) as iterator:
            for _ in islice(iterator, k):
                pass
            state = json.loads(json.dumps(iterator.state_dict()))
        flow = make_flow().load_state_dict(state)
        with iter(flow) as iterator:
            _compare(
                "resume",
                make_flow,
                epoch,
                f"after {k} outputs",
                whole[k:],
                list(islice(iterator, len(whole) - k + beyond)),
            )
        _compare("resume", make_flow, epoch, f"the epoch after resuming at {k}", after, list(islice(flow, 5)))


def _check_workers(
    make_flow: Callable[[], Flow[Any]],
    seed: int,
    epoch: int,
    whole: list[Any],
    workers: Sequence[Mapping[str, Any]],
    stops: int,
) -> None:
    for keywords in workers:
        fetched = pipe(make_flow(), prefetch(2, **keywords))
        _compare(
            "workers", make_flow, epoch, f"under prefetch(2, **{dict(keywords)})", whole, outputs(fetched, seed, epoch)
        )
        endless = fetched.node.length_or_none() == math.inf
        for k in _spread_indices(len(whole) + (not endless), min(stops, 3)):
            left, beyond = max(len(whole) - k - 1, 0), int(not endless)
            with fetched.run(seed=seed, epoch=epoch) as iterator:
                for _ in islice(iterator, k):
                    pass
                state = json.loads(json.dumps(iterator.state_dict()))
            for resumed, how in (
                (make_flow(), "loaded without"),
                (pipe(make_flow(), prefetch(2, **keywords)), "and loaded so"),
            ):
                with iter(resumed.load_state_dict(state)) as iterator:
                    rest = list(islice(iterator, 1))
                    again = json.loads(json.dumps(iterator.state_dict()))
                    rest += islice(iterator, left + beyond)
                _compare("workers", make_flow, epoch, f"saved after {k} with {dict(keywords)}, {how}", whole[k:], rest)
                with iter(make_flow().load_state_dict(again)) as iterator:
                    rest = list(islice(iterator, left + beyond if k < len(whole) else 0))  # else it is the next epoch
                _compare(
                    "workers",
                    make_flow,
                    epoch,
                    f"saved after {k} with {dict(keywords)}, {how}, and again",
                    whole[k + 1 :],
                    rest,
                )


def _check_shards(make_flow: Callable[[], Flow[Any]], seed: int, epoch: int, whole: list[Any]) -> None:
    tagged = outputs(pipe(make_flow(), mapped(_tag, rng=True, name="shards")), seed, epoch)
    for world in (2, 3):
        for rank in range(world):
            share = outputs(pipe(make_flow(), shard(rank, world)), seed, epoch)
            expected = whole[rank::world]
            _compare("shards", make_flow, epoch, f"rank {rank} of {world}", expected, share[: len(expected)])
            ours = outputs(pipe(make_flow(), shard(rank, world), mapped(_tag, rng=True, name="shards")), seed, epoch)
            _compare(
                "shards",
                make_flow,
                epoch,
                f"draws of rank {rank} of {world}",
                tagged[rank::world],
                ours[: len(expected)],
            )


def _check_purity(make_flow: Callable[[], Flow[Any]], seed: int) -> None:
    try:
        outputs(check_inputs(make_flow()), seed)
    except InputChanged as error:
        raise LawBroken(f"purity: {make_flow()!r}: {error}") from error
    flow = make_flow()
    sources = [one.part.object for one in top_down(flow) if not one.sources]
    held = [source for source in sources if isinstance(source, (list, tuple))]
    before = copy.deepcopy(held), random.getstate(), np.random.get_state()
    outputs(flow, seed)
    if not all(map(same, before[0], held)):
        raise LawBroken(_message("purity", make_flow, 0, "the source was", before[0], "it is now", held))
    if random.getstate() != before[1] or not same(list(np.random.get_state()), list(before[2])):
        raise LawBroken(f"purity: {make_flow()!r} moves global random state; ask for rng=True, or for rngs in a stage")


def _check_cleanliness(
    make_flow: Callable[[], Flow[Any]], seed: int, workers: Sequence[Mapping[str, Any]], before: Mapping[str, int]
) -> None:
    """What is opened once for the life of a process (by loky, or an import) may stay,
    so growth has to be seen twice."""
    for _ in range(2):
        _abandon(make_flow, seed, workers)
        if _settled(before):
            return
        before, earlier = left_behind(), before
    raise LawBroken(_message("cleanliness", make_flow, 0, "there were", earlier, "there are", before))


def _abandon(make_flow: Callable[[], Flow[Any]], seed: int, workers: Sequence[Mapping[str, Any]]) -> None:
    """Leave passes in the middle, in every setting."""
    for keywords in workers:
        for k in (0, 1, 3):
            iterator = pipe(make_flow(), prefetch(2, **keywords)).run(seed=seed)
            for _ in islice(iterator, k):
                pass
            del iterator
    shut_down()
    gc.collect()


def _settled(before: Mapping[str, int]) -> bool:
    """Whether soon there is no more of anything than there was."""
    deadline = time.monotonic() + SETTLING
    while any(after > before[kind] for kind, after in left_behind().items()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def left_behind() -> dict[str, int]:
    """How many threads, child processes and (on Linux) open descriptors this process has.

    >>> left_behind()["threads"] >= 1
    True
    """
    found = {"threads": threading.active_count(), "processes": len(multiprocessing.active_children())}
    if os.path.isdir("/proc/self/fd"):
        found["descriptors"] = len(os.listdir("/proc/self/fd"))
        found["processes"] = len(_children())
    return found


def _children() -> list[str]:
    found: list[str] = []
    for children in Path("/proc/self/task").glob("*/children"):  # a child belongs to the thread that started it
        with contextlib.suppress(OSError):  # a thread that has ended, or a kernel without this list
            found += [child for child in children.read_text().split() if not _is_tracker(child)]
    return found


def _is_tracker(child: str) -> bool:
    """Whether a process is a resource tracker, which Python and loky keep, one each, until this process ends."""
    with contextlib.suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{child}/cmdline").read_bytes()
    return True


def _compare(
    law: str, make_flow: Callable[[], Flow[Any]], epoch: int, where: str, expected: list[Any], got: list[Any]
) -> None:
    if len(expected) != len(got):
        raise LawBroken(
            _message(law, make_flow, epoch, f"{where}: expected a count of", len(expected), "got", len(got))
        )
    for index, (a, b) in enumerate(zip(expected, got)):
        if not same(a, b):
            raise LawBroken(_message(law, make_flow, epoch, f"{where}: number {index} should be", a, "it is", b))


def _message(law: str, make_flow: Callable[[], Flow[Any]], epoch: int, says: str, a: Any, but: str, b: Any) -> str:
    shown = (brief(a), brief(b)) if brief(a) != brief(b) else (repr(a), repr(b))
    return f"{law}: {make_flow()!r}, epoch {epoch}, {says} {shown[0]}, {but} {shown[1]}"


def _spread_indices(n: int, count: int) -> list[int]:
    """At most `count` different numbers below n, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(count, n))}) if n else []


def _tag(datapoint: Any, rng: np.random.Generator) -> Any:
    return int(rng.integers(1 << 30))
