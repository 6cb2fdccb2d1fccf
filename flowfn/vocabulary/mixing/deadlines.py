"""Whose turn it is where shares are of units: tokens, seconds, pixels, of which a datapoint has any number.

How large a datapoint is, is not known before it is read. So the next one comes from a source that has not had more
than its share, and of those from the one that would be the first to be a whole datapoint behind (the largest so far)
if it had to wait. No source is then ever further from its share than by one datapoint, whatever their sizes and
however many sources there are:

- It is not ahead by more, because it had at most its share before its last datapoint.
- It is not behind by more. Call D the moment (in units given) at which it would be, and look at what the sources that
  have to be served before D may be given until then. When one was served whose own moment is later, all others with
  one before D had their shares already, so that they may be given no more than what comes until D; all that this
  datapoint took was one datapoint, and since then every unit went to those who have to be served before D.

(Two tests hold this against sizes that want to break it. Where shares change on the way, it holds for each source as
long as they stay; a change may leave one further behind for a while.)

As earliest deadline first for packets that are sent whole (Bennett and Zhang, "WF2Q: worst-case fair weighted fair
queueing", 1996) and, for datapoints of one size, Tijdeman, "The chairman assignment problem", 1980.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


class Deadlines:
    """Whose turn it is while these sources share by these weights (integers)."""

    def __init__(self, sources: Sequence[int], weights: Sequence[int]) -> None:
        self.sources, self.all_share = sources, len(sources) == len(weights)
        self.total = sum(weights[source] for source in sources)
        common = math.lcm(*(weights[source] for source in sources))
        self.shares = [(source, weights[source], common // weights[source]) for source in sources]

    def next(self, units: Sequence[Any], datapoints: Sequence[int], largest: Any) -> int:
        """The source that is next where each has given so many units, and so many datapoints.

        >>> Deadlines([0, 1], [2, 1]).next([4, 1], [1, 1], 4), Deadlines([0, 1], [2, 1]).next([4, 3], [1, 2], 4)
        (1, 0)
        """
        spent = sum(units) if self.all_share else sum([units[source] for source in self.sources])
        exact, total = type(spent + largest) is int, self.total
        first, by, turn = -1, 0, 0
        for source, weight, factor in self.shares:
            given = units[source]
            if given * total <= weight * spent:
                deadline = (given + largest) * factor if exact else (given + largest) / weight
                if first < 0 or deadline <= by:
                    number = (datapoints[source] + 1) * factor  # where units do not tell, datapoints do
                    if first < 0 or deadline < by or number < turn:
                        first, by, turn = source, deadline, number
        return first if first >= 0 else self.sources[0]  # by rounding alone, all may have had their shares


def most_urgent(behind: Sequence[float], shares: Sequence[float], largest: float) -> int:
    """The source that is next where each is so far behind, and has these shares of what comes (not all of them zero).

    >>> most_urgent([-3.0, 2.0, 1.0], [0.5, 0.25, 0.25], 4.0), most_urgent([0.0, 1.0, -1.0], [0.5, 0, 0.5], 4.0)
    (1, 0)
    """
    wanted = [source for source, share in enumerate(shares) if share]
    waiting = [source for source in wanted if behind[source] >= 0]
    if not waiting:  # somebody is owed who gets nothing now
        return max(wanted, key=lambda source: (behind[source], -source))
    return min(waiting, key=lambda source: ((largest - behind[source]) / shares[source], -shares[source], source))
