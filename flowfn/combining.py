"""Stages of several sources. Flows come first, and are not left out: `concat(a, b)`."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from typing import Any

from flowfn import rules
from flowfn.routes import Joined
from flowfn.stages import stage
from flowfn.stretches import Stretch


def _in_turn(sources: int) -> Iterator[Stretch]:
    for source in range(sources):
        yield Stretch(source)


@stage.order(stream=_in_turn)
def concat(*sources: Any) -> Joined:
    """All datapoints of the first source, then all of the second, and so on.

    >>> import flowfn as ff
    >>> list(ff.concat([1, 2], [3]))
    [1, 2, 3]
    """
    return Joined(sources)


@stage.each(where={"strict": rules.boolean}, strict="strict")
def zip(*sources: Any, strict: bool = True) -> Iterator[Any]:
    """Tuples of one datapoint of each source.

    Raises:
        ValueError: the sources have different lengths (endless ones are exempt); `strict=False` stops at the shortest.

    >>> import flowfn as ff
    >>> list(ff.zip([1, 2], ["a", "b"]))
    [(1, 'a'), (2, 'b')]
    """
    yield from builtins.zip(*sources)


@stage.each(where={"strict": rules.boolean}, strict="strict")
def zip_components(*sources: Any, strict: bool = True) -> Iterator[Any]:
    """Join the components of one datapoint of each source: lists (or tuples) end to end, dicts with all their keys.

    Raises:
        ValueError: the sources have different lengths (endless ones are exempt; `strict=False` stops at the shortest),
            or two dicts share a key.
        TypeError: datapoints of different forms.

    >>> import flowfn as ff
    >>> list(ff.zip_components([[1], [2]], [["a", "b"], ["c", "d"]]))
    [[1, 'a', 'b'], [2, 'c', 'd']]
    """
    for datapoint in builtins.zip(*sources):
        yield _joined_components(datapoint)


def _joined_components(datapoints: tuple[Any, ...]) -> Any:
    first = datapoints[0]
    if all(isinstance(d, Mapping) for d in datapoints):
        joined: dict[Any, Any] = {}
        for datapoint in datapoints:
            twice = joined.keys() & datapoint.keys()
            if twice:
                raise ValueError(f"zip_components(): more than one source has the key {sorted(map(repr, twice))[0]}")
            joined.update(datapoint)
        return joined
    for form in (list, tuple):
        if all(isinstance(d, form) for d in datapoints):
            return form(component for datapoint in datapoints for component in datapoint)
    raise TypeError(
        "zip_components(): datapoints must be all lists, all tuples or all dicts, got "
        f"{', '.join(type(d).__name__ for d in datapoints)} (the first is {first!r:.60})"
    )
