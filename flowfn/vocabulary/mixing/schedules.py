"""Weights that change on the way, or with a temperature."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from flowfn import rules


def _is_weight(value: Any) -> bool:
    return rules.is_number(value) and 0 <= value < math.inf


def _are_weights(value: Any) -> bool:
    listed = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return all(map(_is_weight, listed)) and any(listed)


def _are_mixtures(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(rules.is_number, value)) and all(map(_are_weights, value.values()))


_MIXTURES = rules.Rule(
    "a dict of weights (a dict by name or a list, of numbers >= 0 that are not all zero) by where they begin, "
    "the first at 0, in rising order",
    _are_mixtures,
    lambda value, others: next(iter(value), None) == 0 and all(a < b < math.inf for a, b in pairwise(value)),
)
_RAMP = rules.Rule(
    "a number >= 0, or a dict of one by where the phase begins",
    lambda value: all(map(rules.is_number, value.values() if isinstance(value, Mapping) else [value])),
    lambda value, others: all(map(_is_weight, value.values() if isinstance(value, Mapping) else [value])),
)


@dataclass(frozen=True)
class phases:
    """Weights of a mix that change on the way: `mixtures` by where they begin, for `mix(..., weights=phases(...))`.

    Mixtures are weights, by name in a dict (who is not named has none) or in a list; zeros are allowed, and their sums
    do not matter. Where they begin is counted in outputs of the mix, or in units given where the mix has `unit=`; the
    first begins at 0. `ramp`: over so many of them before a phase begins, the shares change linearly from the mixture
    before to the new one; a number, or a dict of one by where the phase begins (the others begin at once). So
    `phases({0: easy, 1000: all}, ramp=1000)` warms up from the start, and `phases({0: web, 10**9: good}, ramp=10**8)`
    anneals over the last tenth before 10**9.

    What comes behind the mix may have read ahead of what it gives, as `pack(ranks=)` has by a window: phases come so
    much earlier there, and those that meet in a window are mixed. `balanced_fit(window=)` has smaller windows.

    A call gives the shares at some place, which add up to 1. It is a value: it pickles, and counts by what it says.

    Raises:
        TypeError, ValueError: what is given are no such mixtures, or a ramp is longer than the phase before it.

    >>> schedule = phases({0: {"web": 9, "code": 1}, 100: {"web": 1, "code": 1}}, ramp=50)
    >>> schedule(0), schedule(75), schedule(1000)
    ({'web': 0.9, 'code': 0.1}, {'web': 0.7, 'code': 0.3}, {'web': 0.5, 'code': 0.5})
    >>> import flowfn as ff
    >>> "".join(ff.mix(["a"] * 6, ["b"] * 6, weights=phases({0: [1, 0], 3: [1, 1]}), until="all"))
    'aaaabababbbb'
    """

    mixtures: Mapping[float, Any]
    ramp: Any = 0

    def __post_init__(self) -> None:
        """Refuse what is no schedule."""
        rules.check_fields(self, mixtures=_MIXTURES, ramp=_RAMP)
        if isinstance(self.ramp, Mapping) and not set(self.ramp) <= set(self.mixtures):
            raise ValueError(f"phases(): ramp must be for phases that begin at {[*self.mixtures]}, got {self.ramp}")
        for before, start in pairwise(self.mixtures):
            if self._ramp(start) > start - before:
                raise ValueError(
                    f"phases(): ramp must be at most as long as the phase before it ({start - before} before {start}), "
                    f"got {self._ramp(start)}"
                )
        if len({None if isinstance(mixture, Mapping) else len(mixture) for mixture in self.mixtures.values()}) > 1:
            raise ValueError("phases(): mixtures must all be dicts, or all be lists of one length")

    def __call__(self, at: float) -> Any:
        """The shares at a place, in the form of the mixtures."""
        starts = list(self.mixtures)
        number = max(bisect_right(starts, at) - 1, 0)
        shares = _shares(self.mixtures[starts[number]])
        following = starts[number + 1] if number + 1 < len(starts) else None
        ramp = self._ramp(following) if following is not None else 0
        if following is not None and ramp and at > following - ramp:
            done = (at - following + ramp) / ramp
            shares = _blended(shares, _shares(self.mixtures[following]), done)
        return shares if isinstance(self.mixtures[0], Mapping) else [shares[place] for place in sorted(shares)]

    def steady_before(self, at: float) -> float:
        """Up to where the shares stay what they are there; on a ramp, nowhere."""
        following = next((start for start in self.mixtures if start > at), math.inf)
        begin = following - self._ramp(following) if following < math.inf else following
        return begin if at < begin else at

    def settled(self, at: float) -> bool:
        """Whether nothing changes from there on."""
        return at >= max(self.mixtures)

    def _ramp(self, start: float) -> float:
        ramp: float = self.ramp.get(start, 0) if isinstance(self.ramp, Mapping) else self.ramp
        return ramp if start else 0


def _shares(mixture: Any) -> dict[Any, float]:
    """Weights as shares of 1, by name or by place."""
    named = dict(mixture) if isinstance(mixture, Mapping) else dict(enumerate(mixture))
    total = math.fsum(named.values())
    return {name: weight / total for name, weight in named.items()}


def _blended(before: Mapping[Any, float], after: Mapping[Any, float], done: float) -> dict[Any, float]:
    """Shares on their way from one mixture to another, to twelve digits: 0.7 and not 0.7000000000000001."""
    names = [*before, *(name for name in after if name not in before)]
    return {name: round((1 - done) * before.get(name, 0) + done * after.get(name, 0), 12) for name in names}


def tempered(weights: Sequence[float], temperature: float) -> list[float]:
    """Weights to the power of 1 / temperature, as shares with six digits, the same on every machine.

    >>> tempered([900, 100], 1), tempered([900, 100], 2), tempered([900, 100, 0], 1e9)
    ([900, 100], [0.75, 0.25], [0.5, 0.5, 0.0])
    """
    if temperature == 1:
        return list(weights)
    largest = max(weights)
    powers = [(weight / largest) ** (1 / temperature) if weight else 0.0 for weight in weights]
    total = math.fsum(powers)
    return [float(f"{power / total:.6g}") for power in powers]
