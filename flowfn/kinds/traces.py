"""Which inputs an output is made of, where only making it again tells: what a node in a pass tells of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple


class Use(NamedTuple):
    """What an output is made of: inputs by number, of one source, in the run in which that is read."""

    source: int
    run: Any
    inputs: Sequence[int]


class Trace:
    """What one node in a pass tells of the output that it gave last.

    A stream stage that asks for `trace` gets this in a pass that is read for it, and None in any other. It calls
    `trace(numbers)` before it yields: the numbers of the inputs of which the output is made; `parts=True`: of parts of
    them, where an input may be a batch.
    """

    used: Callable[[], list[Use]]  # what the last output is made of; to be asked after each

    def __init__(self, place: int) -> None:
        self.place, self.exact, self.parts = place, True, False
        self.numbers: list[int] | None = None

    def __call__(self, numbers: Iterable[int], *, parts: bool = False) -> None:
        self.numbers, self.parts = list(numbers), parts

    def moved(self, pairs: Iterable[tuple[Any, int]]) -> Any:
        """The datapoints that a stage moves, each given to it with the number that it has."""
        for datapoint, number in pairs:
            self.numbers = [number]
            yield datapoint
