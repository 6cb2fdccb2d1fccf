"""What is in a row of packed sequences, and what arrays that makes."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain, repeat
from operator import attrgetter, countOf
from typing import Any

import numpy as np

from flowfn.datapoints import promotion, subclasses
from flowfn.datapoints.padding import check_fits
from flowfn.vocabulary.packing.forms import Form, Forms, Item, in_order
from flowfn.vocabulary.packing.packers import PackedRow, Size

BESIDE = ("segment_ids", "positions")
MOST_KEPT = 1024
"""Of small arrays that many rows are made of."""
MOST_FILLINGS = 16
"""Of such that are as large as rows."""


class Layout:
    """How long rows are, in each component, and what they are filled up with."""

    def __init__(self, length: int | Mapping[Any, int], value: Any, keep: Iterable[Any], multiple: int) -> None:
        self.value, self.multiple = value, multiple
        capacities = [*map(int, length.values())] if isinstance(length, Mapping) else [length]
        self.lengths = dict(zip(length, capacities)) if isinstance(length, Mapping) else None
        self.capacity: Size = tuple(capacities) if self.lengths else capacities[0]
        self.nothing: Size = (0,) * len(self.lengths) if self.lengths else 0
        self.forms = Forms(self.lengths, keep, multiple)
        self.fillings: dict[Any, np.ndarray] = {}
        numbers = np.arange(max(capacities), dtype=np.int32).data  # their bytes are laid together faster than arrays
        self.zeros = np.zeros(max(capacities), np.int32).data
        self.first_numbers = lru_cache(MOST_KEPT)(lambda count: numbers[:count])
        self.ids_in_turn = lru_cache(MOST_KEPT)(partial(_ids_in_turn, step=1 if multiple == 1 else 2))

    def room(self, row: PackedRow) -> Size:
        """How much room is left in a row; below 0 where it holds too much."""
        if self.lengths is None:
            return self.capacity - sum([stop - start for _, start, stop in row])
        spans = (map(operator.sub, stop, start) for _, start, stop in row)
        return tuple(map(operator.sub, self.capacity, map(sum, zip(*spans))))

    def holds(self, row: PackedRow, room: Size) -> bool:
        """Whether there is something in a row that leaves so much room, and not too much."""
        return bool(row) and (room >= 0 if self.lengths is None else min(room) >= 0)

    def row(self, items: Sequence[Item], room: Size) -> Any:
        """The arrays of a row that leaves so much room."""
        spans, forms, values = zip(*items)
        form = forms[0]
        if countOf(forms, form) != len(forms):
            values = tuple(map(in_order, repeat(form), forms, values))
        if self.lengths is not None:
            return self._row_of_many(form, dict(zip(form.names, zip(*values))), spans, room)
        columns = [*zip(*values)]
        beside = self._segments(columns[form.places[0]], spans, room)
        if form.kind is None:
            return [self._filled(form, 0, columns[0], spans, room, self.capacity), *beside]
        made = [
            list(parts) if name in form.kept else self._filled(form, name, parts, spans, room, self.capacity)
            for name, parts in zip(form.names, columns)
        ]
        if form.kind is dict:
            return _joined(dict(zip(form.names, made)), dict(zip(BESIDE, beside)))
        return form.kind([*made, *beside])

    def _row_of_many(
        self, form: Form, columns: dict[Any, Any], spans: Iterable[tuple[int, ...]], rooms: Sequence[int]
    ) -> dict[Any, Any]:
        """The arrays of a row whose components have lengths of their own."""
        rows: dict[Any, Any] = {name: list(parts) for name, parts in columns.items()}
        beside: dict[Any, Any] = {}
        for (name, capacity), ours, room in zip((self.lengths or {}).items(), zip(*spans), rooms):
            rows[name] = self._filled(form, name, columns[name], ours, room, capacity)
            segments = self._segments(columns[name], ours, room)
            beside |= {f"{name}_{word}": array for word, array in zip(BESIDE, segments)}
        return _joined(rows, beside)

    def _filled(
        self, form: Form, name: Any, parts: Sequence[np.ndarray], spans: Sequence[int], room: int, capacity: int
    ) -> np.ndarray:
        """Some arrays in a row, filled up with a value."""
        dtype = parts[0].dtype
        if countOf(map(type, parts), np.ndarray) != len(parts) or countOf(map(_dtype, parts), dtype) != len(parts):
            return self._filled_with_care(form, name, parts, spans, room, capacity)
        return self._concatenated(parts, spans, room, self._filling(form, name, dtype, parts[0], capacity))

    def _filled_with_care(
        self, form: Form, name: Any, parts: Sequence[np.ndarray], spans: Sequence[int], room: int, capacity: int
    ) -> np.ndarray:
        """The same where dtypes differ (those of nothing have no say), or arrays carry more than numbers."""
        telling, lengths = zip(*([(part, span) for part, span in zip(parts, spans) if len(part)] or zip(parts, spans)))
        plain = [part.view(np.ndarray) for part in telling]

        def join(arrays: Sequence[np.ndarray], value: Any = None) -> np.ndarray:
            dtype = promotion.common(arrays, "pack")
            if value is None:
                filling = self._filling(form, name, dtype, arrays[0], capacity)
            else:
                filling = np.full((capacity, *arrays[0].shape[1:]), value, dtype)
            return self._concatenated(arrays, lengths, room, filling)

        if any(map(subclasses.carries, set(map(type, telling)))):
            return subclasses.joined_arrays(telling, join, partial(join, value=False), "pack")
        return join(plain)

    def _concatenated(
        self, parts: Sequence[np.ndarray], spans: Sequence[int], room: int, filling: np.ndarray
    ) -> np.ndarray:
        try:
            return np.concatenate(self._spaced(parts, spans, room, filling), dtype=filling.dtype, casting="unsafe")
        except ValueError:
            shapes = list(dict.fromkeys(part.shape for part in parts))
            raise ValueError(
                f"pack(): sequences of a row must be alike but for their first axis, got shapes {shapes}"
            ) from None

    def _spaced(self, parts: Sequence[Any], spans: Sequence[int], room: int, filling: Any) -> Sequence[Any]:
        """The parts of a row, and what fills the room that is behind each of them (if it may be) and at its end."""
        if self.multiple == 1:
            return [*parts, filling[:room]] if room else parts
        gaps = [filling[: span - len(part)] for part, span in zip(parts, spans)]
        return [*chain.from_iterable(zip(parts, gaps)), filling[:room]]

    def _segments(self, parts: Sequence[np.ndarray], spans: Sequence[int], room: int) -> tuple[np.ndarray, np.ndarray]:
        """The segment ids and positions of a row."""
        lengths = spans if self.multiple == 1 else list(map(len, parts))
        counting = self._spaced([*map(self.first_numbers, lengths)], spans, room, self.zeros)
        counts = [*spans, room] if self.multiple == 1 else [*map(len, counting)]
        return self.ids_in_turn(len(parts)).repeat(counts), np.frombuffer(bytearray().join(counting), np.int32)

    def _filling(self, form: Form, name: Any, dtype: np.dtype, like: np.ndarray, capacity: int) -> np.ndarray:
        """A row of nothing but what rows are filled up with."""
        key = form, name, dtype, capacity, like.shape[1:]
        filling = self.fillings.get(key)
        if filling is None:
            value = self._value(name, form)
            check_fits("pack", value, dtype)
            if len(self.fillings) >= MOST_FILLINGS:
                self.fillings.clear()
            filling = self.fillings[key] = np.full((capacity, *like.shape[1:]), value, dtype.newbyteorder("="))
        return filling

    def _value(self, name: Any, form: Form) -> Any:
        names = form.sequences
        if isinstance(self.value, Mapping):
            unknown = self.value.keys() - {*names} if form.kind else self.value.keys()
            if unknown:
                have = names if form.kind else "only one"
                raise ValueError(
                    f"pack(): value names {', '.join(sorted(map(repr, unknown)))}, but of components datapoints have "
                    f"{have}"
                )
            return self.value.get(name, 0)
        if not isinstance(self.value, (list, tuple)):
            return self.value
        if len(self.value) != len(names):
            raise ValueError(f"pack(): value has {len(self.value)} values, but datapoints have {len(names)} components")
        return self.value[names.index(name)]


_dtype = attrgetter("dtype")


def _ids_in_turn(count: int, step: int) -> np.ndarray:
    """The ids of so many segments, and 0 behind each of them, or behind the last one."""
    ids = np.zeros(step * count + 1, np.int32)
    ids[:-1:step] = np.arange(1, count + 1)
    return ids


def _joined(rows: dict[Any, Any], beside: dict[Any, Any]) -> dict[Any, Any]:
    twice = rows.keys() & beside.keys()
    if twice:
        raise ValueError(f"pack(): datapoints have the key {sorted(twice)[0]!r} already; map or select it away")
    return rows | beside
