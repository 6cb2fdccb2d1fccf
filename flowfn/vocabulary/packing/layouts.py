"""What is in a row of packed sequences, and what arrays that makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from flowfn.datapoints import promotion, subclasses
from flowfn.datapoints.collating import Ragged, as_array
from flowfn.datapoints.padding import check_fits
from flowfn.showing import brief
from flowfn.vocabulary.packing.packers import Size


@dataclass(slots=True, eq=False)
class Item:
    """A datapoint to be packed: the number of the input it was, how much of that was gone,
    its columns, what is given."""

    number: int
    offset: int
    form: type | None
    columns: dict[Any, np.ndarray]
    size: Size
    progress: Size


@dataclass(slots=True)
class ItemPart:
    """A part of an item, from `start` to `stop`."""

    item: Item
    start: Size
    stop: Size


class Layout:
    """How long rows are, in each component, and what they are filled up with."""

    def __init__(self, length: int | Mapping[Any, int], value: Any) -> None:
        self.value = value
        self.lengths = {name: int(one) for name, one in length.items()} if isinstance(length, Mapping) else None
        self.capacity: Size = tuple(self.lengths.values()) if self.lengths else length

    def item(self, datapoint: Any, number: int, offset: int) -> Item | None:
        """A datapoint, without the `offset` elements that are gone of it; None if it is empty."""
        form, columns = _columns(datapoint)
        size: Size
        if form is None and self.lengths is None:
            size = len(columns[0]) - offset
            return Item(number, offset, None, {0: columns[0][offset:]}, size, 0) if size else None
        sizes = {name: len(column) for name, column in columns.items()}
        if not any(sizes.values()):
            return None
        if self.lengths is not None:
            if form is not dict or sizes.keys() != self.lengths.keys():
                have = list(sizes) if form is dict else brief(datapoint)
                raise ValueError(
                    f"pack(): length names the components {list(self.lengths)}, but a datapoint has {have}; select "
                    "takes some"
                )
            size = tuple(sizes[name] for name in self.lengths)
            return Item(number, 0, form, columns, size, (0,) * len(size))
        if len(set(sizes.values())) > 1:
            told = sizes if form is dict else list(sizes.values())
            raise ValueError(
                f"pack(): the sequences of a datapoint must be equally long, got lengths {told}; "
                "a dict of lengths, length={...}, is for dicts of sequences with lengths of their own"
            )
        size = next(iter(sizes.values())) - offset
        return Item(number, offset, form, {name: column[offset:] for name, column in columns.items()}, size, 0)

    def is_full(self, pieces: list[ItemPart]) -> bool:
        """Whether a row needs no filling."""
        return self._used(pieces) == self._capacities()

    def holds(self, pieces: list[ItemPart]) -> bool:
        """Whether there is room for a row."""
        return all(used <= room for used, room in zip(self._used(pieces), self._capacities()))

    def _used(self, pieces: list[ItemPart]) -> tuple[int, ...]:
        return tuple(map(sum, zip(*(_lengths(piece) for piece in pieces))))

    def _capacities(self) -> tuple[int, ...]:
        return self.capacity if isinstance(self.capacity, tuple) else (self.capacity,)

    def row(self, pieces: list[ItemPart]) -> Any:
        """The arrays of a row."""
        first = pieces[0].item
        for piece in pieces:
            if piece.item.form is not first.form or piece.item.columns.keys() != first.columns.keys():
                raise ValueError(
                    f"pack(): datapoints must have the same components, got {_item_words(first)} and "
                    f"{_item_words(piece.item)}"
                )
        if self.lengths is not None:
            return self._row_of_many(pieces)
        lengths = [piece.stop - piece.start for piece in pieces]
        cuts = [slice(piece.start, piece.stop) for piece in pieces]
        rows = {name: self._filled(name, pieces, cuts, self.capacity) for name in first.columns}
        if first.form is dict:
            return self._joined(
                rows, dict(zip(("segment_ids", "positions"), _segments_in_a_row(lengths, self.capacity)))
            )
        return (first.form or list)([*rows.values(), *_segments_in_a_row(lengths, self.capacity)])

    def _row_of_many(self, pieces: list[ItemPart]) -> dict[Any, Any]:
        """The arrays of a row whose components have lengths of their own."""
        rows: dict[Any, np.ndarray] = {}
        beside: dict[Any, np.ndarray] = {}
        for number, (name, capacity) in enumerate((self.lengths or {}).items()):
            cuts = [slice(piece.start[number], piece.stop[number]) for piece in pieces]
            rows[name] = self._filled(name, pieces, cuts, capacity)
            ids, positions = _segments_in_a_row([cut.stop - cut.start for cut in cuts], capacity)
            beside |= {f"{name}_segment_ids": ids, f"{name}_positions": positions}
        return self._joined({name: rows[name] for name in pieces[0].item.columns}, beside)

    def _joined(self, rows: dict[Any, Any], beside: dict[Any, Any]) -> dict[Any, Any]:
        twice = rows.keys() & beside.keys()
        if twice:
            raise ValueError(f"pack(): datapoints have the key {sorted(twice)[0]!r} already; map or select it away")
        return rows | beside

    def _filled(self, name: Any, pieces: list[ItemPart], cuts: list[slice], capacity: int) -> np.ndarray:
        parts = [piece.item.columns[name][cut] for piece, cut in zip(pieces, cuts)]
        telling = [part for part in parts if len(part)] or parts
        value = self._value(name, pieces[0].item)
        if any(map(subclasses.carries, set(map(type, telling)))):
            return subclasses.joined_arrays(
                telling, partial(_filled, capacity, value), partial(_filled, capacity, False), "pack"
            )
        return _filled(capacity, value, telling)

    def _value(self, name: Any, item: Item) -> Any:
        if isinstance(self.value, Mapping):
            unknown = self.value.keys() - item.columns.keys() if item.form else self.value.keys()
            if unknown:
                have = list(item.columns) if item.form else "only one"
                raise ValueError(
                    f"pack(): value names {', '.join(sorted(map(repr, unknown)))}, but of components datapoints have "
                    f"{have}"
                )
            return self.value.get(name, 0)
        if not isinstance(self.value, (list, tuple)):
            return self.value
        if len(self.value) != len(item.columns):
            raise ValueError(
                f"pack(): value has {len(self.value)} values, but datapoints have {len(item.columns)} components"
            )
        return self.value[list(item.columns).index(name)]


def _columns(datapoint: Any) -> tuple[type | None, dict[Any, np.ndarray]]:
    """The form of a datapoint (None for a single sequence) and its sequences as arrays."""
    if type(datapoint) is np.ndarray and datapoint.ndim == 1:
        return None, {0: datapoint}
    if hasattr(datapoint, "_make") or (dataclasses.is_dataclass(datapoint) and not isinstance(datapoint, type)):
        raise TypeError(
            f"pack(): there is no place for segment ids and positions in {brief(datapoint)}; map it to a dict before"
        )
    if isinstance(datapoint, Mapping):
        return dict, {name: _sequence(value, datapoint) for name, value in datapoint.items()}
    if isinstance(datapoint, (list, tuple)) and any(
        isinstance(part, (list, tuple)) or np.ndim(part) for part in datapoint[:1]
    ):
        form = list if isinstance(datapoint, list) else tuple
        return form, {place: _sequence(value, datapoint) for place, value in enumerate(datapoint)}
    return None, {0: _sequence(datapoint, datapoint)}


def _filled(capacity: int, value: Any, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Some arrays in a row, filled up with a value."""
    joined = np.concatenate(parts, dtype=promotion.common(parts, "pack"), casting="unsafe")
    check_fits("pack", value, joined.dtype)
    row = np.full(capacity, value, joined.dtype)
    row[: len(joined)] = joined
    return row


def _sequence(value: Any, datapoint: Any) -> np.ndarray:
    """One sequence as an array of one axis; a list of no numbers is one of integers, as the others will be."""
    try:
        array = np.zeros(0, np.int64) if isinstance(value, (list, tuple)) and not value else _component_array(value)
    except Ragged:
        array = np.zeros(())
    if array.ndim != 1:
        raise ValueError(
            f"pack(): a sequence has one axis, an array (n,) or a list of numbers, got {brief(value)} in "
            f"{brief(datapoint)}"
        )
    return array


def _component_array(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) and subclasses.carries(type(value)) else as_array(value, "pack")


def _segments_in_a_row(lengths: list[int], capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """The segment ids and positions of a row of segments of those lengths."""
    ids, positions = np.zeros(capacity, np.int32), np.zeros(capacity, np.int32)
    start = 0
    for number, length in enumerate(lengths, 1):
        ids[start : start + length] = number
        positions[start : start + length] = np.arange(length, dtype=np.int32)
        start += length
    return ids, positions


def _lengths(piece: ItemPart) -> tuple[int, ...]:
    if isinstance(piece.stop, tuple):
        return tuple(stop - start for start, stop in zip(piece.start, piece.stop))
    return (piece.stop - piece.start,)


def _item_words(item: Item) -> str:
    return brief(item.columns if item.form is dict else list(item.columns.values()))
