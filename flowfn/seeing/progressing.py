"""A bar that shows how far a pass has come, at a cost per datapoint that cannot be felt."""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from more_itertools import peekable

from flowfn import rules
from flowfn.blocks import Block
from flowfn.flows.stages import stage
from flowfn.kinds.nodes import Each, Trail
from flowfn.kinds.runs import Length, Outputs, Run

MOST_UNSEEN = 64
"""Up to how many fast datapoints the bar stands still."""


def paced(step: int, seconds: float) -> int:
    """How many datapoints to take before the next look at the clock, after `step` of them took so many seconds.

    >>> paced(1, 0.001), paced(MOST_UNSEEN, 0.001), paced(8, 0.02), paced(8, 0.2)
    (2, 64, 8, 4)
    """
    if seconds < 0.01:
        return min(2 * step, MOST_UNSEEN)
    return max(step // 2, 1) if seconds > 0.05 else step


class Clock:
    """How long whoever reads was waiting for datapoints, and how long datapoints were with them; of some of them."""

    def __init__(self) -> None:
        self.waited = self.used = 0.0

    def timed(self, datapoint: Any, asked: float) -> Iterator[Any]:
        """Give a datapoint that was asked for at some time, and note when it came and when the next is asked for."""
        came = time.perf_counter()
        yield datapoint
        self.waited, self.used = self.waited + came - asked, self.used + time.perf_counter() - came

    @property
    def words(self) -> str:
        """The share of waiting.

        >>> clock = Clock()
        >>> clock.waited, clock.used = 1.0, 3.0
        >>> clock.words
        'waiting 25%'
        """
        whole = self.waited + self.used
        return f"waiting {self.waited / whole:.0%}" if whole else ""


@functools.cache
def bars() -> Any:
    """tqdm's class of bars, in the notebook's form where there is one, without the thread that it starts.

    Raises:
        ImportError: tqdm is not installed; the message says how to install it.
    """
    try:
        tqdm = importlib.import_module("tqdm.auto").tqdm
    except ImportError as error:
        raise ImportError(
            'a progress bar needs tqdm, which is not installed: pip install "flowfn[progress]"'
        ) from error
    return type("Bar", (tqdm,), {"monitor_interval": 0})


def bar(total: Length, initial: int = 0, **options: Any) -> Any:
    """A new bar; `total` may be unknown."""
    known = None if total is None or total == math.inf else int(total)
    # tqdm would guess from fast datapoints how seldom to look at the clock, and stand still when slow ones come
    return bars()(total=known, initial=initial, miniters=1, dynamic_ncols=True, **options)


class ProgressNode(Each):
    """Shows a bar where a pass goes through it, and is not there at all where single datapoints are looked at.

    It stays in the process that iterates, which is the one that has a screen.
    """

    here = True

    @property
    def gathers(self) -> bool:  # type: ignore[override]
        """Whole blocks of rows can be had where the source has them."""
        return self.sources[0].gathers

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The datapoints as they come; the bar starts at the first index of the series."""
        if run.engine == "none":
            return self.sources[0].read(run, series)
        blocks = peekable(series)
        trail = Trail(blocks)
        inputs = self.sources[0].read(run, trail)
        return Outputs(self._shown(run, inputs, blocks), self, (inputs,), trail=trail)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """The datapoints as they come; the bar starts where the pass does."""
        inputs = self.sources[0].stream(run, start, lineage)
        if run.engine == "none":
            return inputs
        return Outputs(self._shown(run, inputs, start), self, (inputs,), start)

    def gather(self, run: Run, series: Iterator[Block], sizes: Iterable[int]) -> Iterator[Any]:
        """Blocks of rows as they come."""
        blocks = peekable(series)
        groups = self.sources[0].gather(run, blocks, sizes)
        return self._shown_in_groups(run, groups, blocks) if run.engine != "none" else groups

    def _shown(self, run: Run, source: Outputs, start: int | peekable[Block]) -> Iterator[Any]:
        with self._bar(run, start) as shown:
            step, first, clock = 1, shown.n, Clock()
            try:
                while True:
                    began = time.perf_counter()
                    for datapoint in islice(source, 1):
                        yield from clock.timed(datapoint, began)
                    for datapoint in islice(source, step - 1):
                        yield datapoint
                    fresh = first + source.count - shown.n
                    shown.set_postfix_str(clock.words, refresh=False)
                    shown.update(fresh)
                    if fresh < step:
                        return
                    step = paced(step, time.perf_counter() - began)
            finally:
                shown.n = first + source.count

    def _shown_in_groups(self, run: Run, groups: Iterator[Any], start: peekable[Block]) -> Iterator[Any]:
        with self._bar(run, start) as shown:
            clock = Clock()
            began = time.perf_counter()
            for rows in groups:
                yield from clock.timed(rows, began)
                shown.set_postfix_str(clock.words, refresh=False)
                shown.update(len(rows))
                began = time.perf_counter()

    def _bar(self, run: Run, start: int | peekable[Block]) -> Any:
        description, unit, leave, file = (
            self.part.arguments[name] for name in ("description", "unit", "leave", "file")
        )
        if description is None:
            description = f"epoch {run.epoch[0]}" + "".join(f", round {number}" for number in run.epoch[1:])
        initial = start if isinstance(start, int) else _first_number(start.peek(range(0)))
        return bar(self.length(run), initial, desc=description, unit=f" {unit}", leave=leave, file=file and file.file)


def _first_number(block: Block) -> int:
    """Where a series that begins with `block` starts; nowhere if it jumps about."""
    return block.start if isinstance(block, range) and block.step == 1 else 0


class _Shown(rules.Rule):
    """What is shown with a bar, which there can only be where tqdm is installed."""

    __slots__ = ()

    def check(self, function: str, name: str, value: Any, others: Mapping[str, Any]) -> Any:
        """The value, or an error."""
        bars()
        return super().check(function, name, value, others)


class _Here(rules.Rule):
    """What stays in this process."""

    __slots__ = ()

    def check(self, function: str, name: str, value: Any, others: Mapping[str, Any]) -> Any:
        """The value in a wrapping, or an error."""
        return Screen(super().check(function, name, value, others)) if value is not None else None


@dataclass(frozen=True, slots=True, repr=False)
class Screen:
    """Where bars are shown in this process. It goes along to other processes, where it is None,
    which is their stderr."""

    file: IO[str] | None = None

    def __reduce__(self) -> Any:
        return Screen, ()

    def __repr__(self) -> str:
        return repr(self.file)


@stage.of_node(
    ProgressNode,
    where={
        "description": rules.optional(rules.string),
        "unit": _Shown(rules.string.requirement, rules.string.fits_type),
        "leave": rules.boolean,
        "file": _Here("a text file or None", lambda value: value is None or hasattr(value, "write")),
    },
    transparent=True,
)
def progress(
    source: Any,
    *,
    description: str | None = None,
    unit: str = "datapoint",
    leave: bool = True,
    file: IO[str] | None = None,
) -> Any:
    """Show a bar of every pass, on stderr or in `file`: how many datapoints came through, how fast, how many are left.

    "waiting 37%" says for which share of the time whoever reads waited for datapoints. Of fast ones some are timed.

    Datapoints pass unchanged, and what is behind it stays as it was: seekable, gathered in batches, with the same
    random numbers and the same state. The bar counts from where a pass resumes, is described by its epoch unless a
    `description` is given, and disappears in the end with `leave=False`. Looking at single datapoints (`flow[i]`,
    `describe`) shows none.

    It stays in the process that iterates; best put it last, or behind the `prefetch`: in front of one with workers,
    what goes through it comes back to this process on its way.

    Raises:
        ImportError: tqdm is not installed: `pip install "flowfn[progress]"`.

    >>> import io
    >>> import flowfn as ff
    >>> screen = io.StringIO()
    >>> list(ff.pipe("a b c".split(), progress(file=screen, description="letters")))
    ['a', 'b', 'c']
    >>> "letters: 100%" in screen.getvalue(), "3/3" in screen.getvalue()
    (True, True)
    """
