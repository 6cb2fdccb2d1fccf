"""Datapoints that are not made yet: whoever puts several together has them made at once, with one copy fewer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol


class Maker(Protocol):
    """Who makes datapoints of what is known of them."""

    def made(self, recipe: Any) -> Any:
        """One datapoint."""

    def stacked(self, recipes: Sequence[Any]) -> Any | None:
        """Several datapoints, as `stack` would put them together; None if they have to be made one by one."""


class Unmade(NamedTuple):
    """A datapoint that can certainly be made, whenever it is wanted."""

    maker: Maker
    recipe: Any


class Together(Sequence[Any]):
    """Datapoints some of which are not made yet, as a sequence of datapoints that can be had stacked at once."""

    __slots__ = ("datapoints",)

    def __init__(self, datapoints: list[Any]) -> None:
        self.datapoints = datapoints

    def __len__(self) -> int:
        return len(self.datapoints)

    def __getitem__(self, index: Any) -> Any:
        return Together(self.datapoints[index]) if isinstance(index, slice) else _made(self.datapoints[index])

    def __iter__(self) -> Iterator[Any]:
        return map(_made, self.datapoints)

    def stacked(self, stack: Callable[[list[Any]], Any]) -> Any | None:
        """All of them, stacked; None if they have to be made one by one."""
        makers = {id(one.maker) if type(one) is Unmade else None for one in self.datapoints}
        if len(makers) > 1 or None in makers:
            return None
        made: Any = self.datapoints[0].maker.stacked([one.recipe for one in self.datapoints])
        return made


def _made(datapoint: Any) -> Any:
    return datapoint.maker.made(datapoint.recipe) if type(datapoint) is Unmade else datapoint
