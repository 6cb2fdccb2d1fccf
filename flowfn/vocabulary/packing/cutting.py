"""Sequences before they are packed: cut where they are too long, and with what stands at their ends.

Both are values that are called with one datapoint: `flat_map(split_long(...))`, `map(with_ends(...))`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import repeat
from operator import countOf
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.datapoints.collating import as_array
from flowfn.datapoints.components import as_tuple_like
from flowfn.datapoints.padding import BESIDE, VALUE, check_fits
from flowfn.showing import as_called, brief


@dataclass(frozen=True, repr=False)
class split_long:
    """Split a datapoint into parts of at most `length` elements, each beginning with the last `overlap` of the former.

    For `flat_map`. A datapoint is a sequence (an array (n, ...), or a list of numbers), or a list, tuple or dict of
    components, of which the sequences (arrays and lists) are equally long and split alike; what is no sequence comes
    along with each part. One that is not too long stays whole. Parts of arrays are views.

    `mask` puts a bool array beside a part that is False where it overlaps the former, so that no element counts twice
    in a loss: in a dict by that key (True: "loss_mask"), where a mask that is there already is False besides; in lists
    and tuples at their end; a bare sequence becomes a tuple (part, mask).

    Raises:
        ValueError: sequences of a datapoint differ in length; it has none.

    >>> split_long(4, overlap=1)([0, 1, 2, 3, 4, 5])
    [[0, 1, 2, 3], [3, 4, 5]]
    >>> import flowfn as ff
    >>> split = split_long(2, overlap=1, mask="counts")
    >>> for part in ff.pipe([{"tokens": [7, 8, 9], "from": "a"}], ff.flat_map(split)):
    ...     print(part["tokens"], part["from"], part["counts"])
    [7, 8] a [ True  True]
    [8, 9] a [False  True]
    """

    length: int
    _: KW_ONLY
    overlap: int = 0
    mask: bool | str = False

    instead = "flat_map(split_long(length))"

    def __post_init__(self) -> None:
        rules.check_fields(self, length=rules.positive, overlap=rules.natural, mask=BESIDE)
        if self.overlap >= self.length:
            raise ValueError(
                f"split_long(): overlap must be less than length, got overlap={self.overlap} and length={self.length}"
            )

    def __repr__(self) -> str:
        options = {name: repr(given) for name in ("overlap", "mask") if (given := getattr(self, name))}
        return as_called("split_long", repr(self.length), **options)

    def __call__(self, datapoint: Any) -> list[Any]:
        """The parts of a datapoint."""
        sequences = _sequences(datapoint, "split_long")
        length, *others = map(len, sequences.values())
        if others and countOf(others, length) != len(others):
            told = dict(zip(sequences, (length, *others)))
            raise ValueError(
                f"split_long(): the sequences of a datapoint must be equally long, got lengths {told} in "
                f"{brief(datapoint)}"
            )
        if length <= self.length and self.mask is False:
            return [datapoint]
        step = self.length - self.overlap
        return [
            self._part(datapoint, sequences, start, min(start + self.length, length))
            for start in range(0, max(length - self.overlap, 1), step)
        ]

    def _part(self, datapoint: Any, sequences: Mapping[Any, Any], start: int, stop: int) -> Any:
        part = _with_sequences(datapoint, {name: value[start:stop] for name, value in sequences.items()})
        if self.mask is False:
            return part
        counts = np.arange(stop - start) >= (self.overlap if start else 0)
        if isinstance(part, dict):
            name = "loss_mask" if self.mask is True else self.mask
            before = part.get(name)
            return {**part, name: counts if before is None else np.where(counts, before, np.zeros_like(before))}
        if hasattr(part, "_make"):
            raise TypeError(
                f"split_long(): there is no place for a mask in {brief(datapoint)}; map it to a dict before"
            )
        return type(part)([*part, counts]) if None not in sequences else (part, counts)


@dataclass(frozen=True, repr=False)
class with_ends:
    """Put one element before each sequence of a datapoint and one behind it, such as the tokens where texts begin and
    end.

    For `map`. `first` and `last` are one value for all sequences, or a dict or list of one for each (those not named in
    a dict get 0); None puts nothing there. What is no sequence stays as it is. Lists stay lists, arrays (n, ...) keep
    their dtype, which has to hold the value.

    Raises:
        ValueError: a value does not fit the dtype.

    >>> with_ends(1, 2)([7, 8, 9]), with_ends(last=0)(np.array([7], np.uint16))
    ([1, 7, 8, 9, 2], array([7, 0], dtype=uint16))
    >>> import flowfn as ff
    >>> list(ff.map(with_ends({"tokens": 1}, {"tokens": 2, "mask": 1}), [{"tokens": [7, 8], "mask": [1, 1]}]))
    [{'tokens': [1, 7, 8, 2], 'mask': [0, 1, 1, 1]}]
    """

    first: Any = None
    last: Any = None

    instead = "map(with_ends(first, last))"

    def __post_init__(self) -> None:
        rules.check_fields(self, first=VALUE, last=VALUE)

    def __repr__(self) -> str:
        options = {name: repr(given) for name in ("first", "last") if (given := getattr(self, name)) is not None}
        return as_called("with_ends", **options)

    def __call__(self, datapoint: Any) -> Any:
        """A datapoint with longer sequences."""
        sequences = _sequences(datapoint, "with_ends")
        names = list(sequences)
        firsts, lasts = _one_for_each(self.first, names), _one_for_each(self.last, names)
        return _with_sequences(datapoint, dict(zip(names, map(_extended, sequences.values(), firsts, lasts))))


def _one_for_each(end: Any, names: Sequence[Any]) -> Iterable[Any]:
    """What stands at one end of each of the sequences."""
    if end is None or type(end) is int:  # most are
        return repeat(end)
    if isinstance(end, Mapping):
        unknown = end.keys() - {*names}
        if unknown:
            raise ValueError(
                f"with_ends(): it names {', '.join(sorted(map(repr, unknown)))}, but the sequences of a datapoint are "
                f"{names}"
            )
        return [end.get(name, 0) for name in names]
    if isinstance(end, (list, tuple)):
        if len(end) != len(names):
            raise ValueError(f"with_ends(): there are {len(end)} values, but a datapoint has {len(names)} sequences")
        return end
    return repeat(end)


def _extended(value: Any, first: Any, last: Any) -> Any:
    """A sequence with what stands at its ends."""
    if isinstance(value, (list, tuple)):
        return type(value)([*([] if first is None else [first]), *value, *([] if last is None else [last])])
    before = first is not None
    made = np.empty((before + len(value) + (last is not None), *value.shape[1:]), value.dtype)
    made[before : before + len(value)] = value
    if before:
        check_fits("with_ends", first, value.dtype)
        made[0] = first
    if last is not None:
        check_fits("with_ends", last, value.dtype)
        made[-1] = last
    return made


def _sequences(datapoint: Any, function: str) -> dict[Any, Any]:
    """The sequences of a datapoint, by name; one that is a sequence itself has the name None."""
    if isinstance(datapoint, np.ndarray) and datapoint.ndim:
        return {None: datapoint}
    if isinstance(datapoint, Mapping):
        sequences = {name: value for name, value in datapoint.items() if _is_sequence(value)}
    elif isinstance(datapoint, (list, tuple)):
        sequences = {place: value for place, value in enumerate(datapoint) if _is_sequence(value)}
        if not sequences:
            return {None: datapoint}
    else:
        array = as_array(datapoint, function)
        sequences = {None: array} if array.ndim else {}
    if not sequences:
        raise ValueError(
            f"{function}(): a sequence is an array (n, ...) or a list of numbers, and there is none in "
            f"{brief(datapoint)}"
        )
    return sequences


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) > 0


def _with_sequences(datapoint: Any, changed: Mapping[Any, Any]) -> Any:
    """A datapoint with other sequences."""
    if None in changed:
        return changed[None]
    if isinstance(datapoint, Mapping):
        return {**datapoint, **changed}
    items = [changed.get(place, value) for place, value in enumerate(datapoint)]
    return as_tuple_like(datapoint, items) if isinstance(datapoint, tuple) else items
