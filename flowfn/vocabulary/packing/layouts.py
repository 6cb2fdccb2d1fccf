"""What is in a row of packed sequences, and what arrays that makes."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, repeat
from operator import attrgetter, countOf
from typing import Any, TypeAlias

import numpy as np

from flowfn.datapoints import promotion, subclasses
from flowfn.datapoints.collating import Ragged, as_array
from flowfn.datapoints.padding import check_fits
from flowfn.showing import brief
from flowfn.vocabulary.packing.packers import PackedRow, Size


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """How datapoints are put together: the kind of container (None: they are one sequence each), the names of their
    components, and which of these are kept as they are."""

    kind: type | None
    names: tuple[Any, ...]
    kept: frozenset[Any] = frozenset()
    places: tuple[int, ...] = (0,)

    @property
    def sequences(self) -> list[Any]:
        """The names of what is packed, which is at these places."""
        return [self.names[place] for place in self.places]


Item: TypeAlias = "tuple[Size, Form, Sequence[Any]]"
"""A datapoint to be packed, or a part of one: what it takes of a row, its form, and its components."""

SINGLE = Form(None, (0,))
BESIDE = ("segment_ids", "positions")
MOST_KEPT = 1024
"""Of small arrays that many rows are made of."""
MOST_FILLINGS = 16
"""Of such that are as large as rows."""


class Layout:
    """How long rows are, in each component, what they are filled up with, which components are no sequences, and of
    what number segments begin at multiples."""

    def __init__(self, length: int | Mapping[Any, int], value: Any, keep: Iterable[Any], multiple: int) -> None:
        self.value, self.keep, self.multiple = value, frozenset(keep), multiple
        capacities = [*map(int, length.values())] if isinstance(length, Mapping) else [length]
        self.lengths = dict(zip(length, capacities)) if isinstance(length, Mapping) else None
        self.capacity: Size = tuple(capacities) if self.lengths else capacities[0]
        self.nothing: Size = (0,) * len(self.lengths) if self.lengths else 0
        self.forms: dict[Any, Form] = {}
        self.fillings: dict[Any, np.ndarray] = {}
        self.plain = self.lengths is None and not self.keep and multiple == 1
        numbers = np.arange(max(capacities), dtype=np.int32)
        self.zeros = np.zeros_like(numbers)
        self.first_numbers = lru_cache(MOST_KEPT)(lambda count: numbers[:count])
        self.ids_in_turn = lru_cache(MOST_KEPT)(partial(_ids_in_turn, step=1 if multiple == 1 else 2))

    # Datapoints

    def item(self, datapoint: Any) -> Item:
        """A datapoint, to be packed."""
        form, components = self._taken_apart(datapoint)
        values = [*components]
        for place in form.places:
            if type(values[place]) is not np.ndarray or not values[place].ndim:
                values[place] = _sequence(values[place], datapoint)
        sizes = [len(values[place]) for place in form.places]
        if self.lengths is not None:
            return self._sizes_in_order(datapoint, form, sizes), form, values
        if not sizes:
            raise ValueError(f"pack(): keep leaves nothing to be packed of {brief(datapoint)}")
        if countOf(sizes, sizes[0]) != len(sizes):
            told = dict(zip(form.sequences, sizes)) if form.kind is dict else sizes
            raise ValueError(
                f"pack(): the sequences of a datapoint must be equally long, got lengths {told}; "
                "a dict of lengths, length={...}, is for dicts of sequences with lengths of their own, keep= for "
                "what is no sequence"
            )
        return self._aligned(sizes[0]), form, values

    def part(self, item: Item, start: Size, stop: Size) -> Item:
        """A part of a datapoint."""
        _, form, values = item
        parts = [*values]
        if self.lengths is None:
            for place in form.places:
                parts[place] = parts[place][start:stop]
            return stop - start, form, parts
        for name, begin, end in zip(self.lengths, start, stop):
            place = form.names.index(name)
            parts[place] = parts[place][begin:end]
        return tuple(map(operator.sub, stop, start)), form, parts

    def _taken_apart(self, datapoint: Any) -> tuple[Form, Iterable[Any]]:
        """The form of a datapoint, and its components."""
        if isinstance(datapoint, Mapping):
            return self._form(dict, tuple(datapoint), datapoint), datapoint.values()
        if hasattr(datapoint, "_make") or (dataclasses.is_dataclass(datapoint) and not isinstance(datapoint, type)):
            raise TypeError(
                f"pack(): there is no place for segment ids and positions in {brief(datapoint)}; map it to a dict "
                "before"
            )
        if isinstance(datapoint, (list, tuple)) and (self.keep or _holds_sequences(datapoint)):
            kind = list if isinstance(datapoint, list) else tuple
            return self._form(kind, tuple(range(len(datapoint))), datapoint), datapoint
        return self._form(None, (0,), datapoint), (datapoint,)

    def _form(self, kind: type | None, names: tuple[Any, ...], datapoint: Any) -> Form:
        form = self.forms.get((kind, names))
        if form is None:
            missing = self.keep - {*names} if kind else self.keep
            if missing:
                raise ValueError(
                    f"pack(): keep names {', '.join(sorted(map(repr, missing)))}, but a datapoint has "
                    f"{list(names) if kind else 'no components'}: {brief(datapoint)}"
                )
            places = tuple(place for place, name in enumerate(names) if name not in self.keep)
            form = self.forms[kind, names] = Form(kind, names, self.keep, places)
        return form

    def _sizes_in_order(self, datapoint: Any, form: Form, sizes: list[int]) -> tuple[int, ...]:
        """How much a datapoint takes of each of several lengths."""
        named = dict(zip(form.sequences, sizes))
        if form.kind is not dict or named.keys() != (self.lengths or {}).keys():
            have = list(named) if form.kind is dict else brief(datapoint)
            raise ValueError(
                f"pack(): length names the components {list(self.lengths or ())}, but a datapoint has {have}; select "
                "takes some, keep= is for what is no sequence"
            )
        return tuple(self._aligned(named[name]) for name in self.lengths or ())

    def _aligned(self, size: int) -> int:
        return -(-size // self.multiple) * self.multiple

    # Rows

    def used(self, row: PackedRow) -> Size:
        """How much a row holds."""
        if self.lengths is None:
            return sum([stop - start for _, start, stop in row])
        return tuple(map(sum, zip(*(map(operator.sub, stop, start) for _, start, stop in row))))

    def holds(self, row: PackedRow) -> bool:
        """Whether there is something in a row, and room for it."""
        used = self.used(row)
        if self.lengths is None:
            return bool(0 < used <= self.capacity)
        return bool(used) and all(map(operator.le, used, self.capacity))

    def row(self, items: Sequence[Item]) -> Any:
        """The arrays of a row."""
        spans, forms, values = zip(*items)
        form = forms[0]
        if countOf(forms, form) != len(forms):
            values = tuple(map(_in_order, repeat(form), forms, values))
        if self.lengths is not None:
            return self._row_of_many(form, dict(zip(form.names, zip(*values))), spans)
        made: list[Any] = []
        beside: tuple[np.ndarray, ...] = ()
        for name, parts in zip(form.names, zip(*values)):
            if name in form.kept:
                made.append(list(parts))
            else:
                made.append(self._filled(form, name, parts, spans, self.capacity))
                beside = beside or self._segments(parts, spans, self.capacity)
        if form.kind is not dict:
            return (form.kind or list)([*made, *beside])
        return _joined(dict(zip(form.names, made)), dict(zip(BESIDE, beside)))

    def _row_of_many(self, form: Form, columns: dict[Any, Any], spans: Iterable[tuple[int, ...]]) -> dict[Any, Any]:
        """The arrays of a row whose components have lengths of their own."""
        rows: dict[Any, Any] = {name: list(parts) for name, parts in columns.items()}
        beside: dict[Any, Any] = {}
        for (name, capacity), ours in zip((self.lengths or {}).items(), zip(*spans)):
            rows[name] = self._filled(form, name, columns[name], ours, capacity)
            segments = self._segments(columns[name], ours, capacity)
            beside |= {f"{name}_{word}": array for word, array in zip(BESIDE, segments)}
        return _joined(rows, beside)

    def _filled(
        self, form: Form, name: Any, parts: Sequence[np.ndarray], spans: Sequence[int], capacity: int
    ) -> np.ndarray:
        """Some arrays in a row, filled up with a value."""
        dtype = parts[0].dtype
        if countOf(map(type, parts), np.ndarray) != len(parts) or countOf(map(_dtype, parts), dtype) != len(parts):
            return self._filled_with_care(form, name, parts, spans, capacity)
        return self._concatenated(parts, spans, self._filling(form, name, dtype, parts[0], capacity))

    def _filled_with_care(
        self, form: Form, name: Any, parts: Sequence[np.ndarray], spans: Sequence[int], capacity: int
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
            return self._concatenated(arrays, lengths, filling)

        if any(map(subclasses.carries, set(map(type, telling)))):
            return subclasses.joined_arrays(telling, join, partial(join, value=False), "pack")
        return join(plain)

    def _concatenated(self, parts: Sequence[np.ndarray], spans: Sequence[int], filling: np.ndarray) -> np.ndarray:
        try:
            return np.concatenate(self._spaced(parts, spans, filling), dtype=filling.dtype, casting="unsafe")
        except ValueError:
            shapes = list(dict.fromkeys(part.shape for part in parts))
            raise ValueError(
                f"pack(): sequences of a row must be alike but for their first axis, got shapes {shapes}"
            ) from None

    def _spaced(self, parts: Sequence[np.ndarray], spans: Sequence[int], filling: np.ndarray) -> list[np.ndarray]:
        """The parts of a row, and what fills the room that is behind each of them (if it may be) and at its end."""
        rest = filling[: len(filling) - sum(spans)]
        if self.multiple == 1:
            return [*parts, rest]
        gaps = [filling[: span - len(part)] for part, span in zip(parts, spans)]
        return [*chain.from_iterable(zip(parts, gaps)), rest]

    def _segments(
        self, parts: Sequence[np.ndarray], spans: Sequence[int], capacity: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The segment ids and positions of a row."""
        lengths = spans if self.multiple == 1 else list(map(len, parts))
        counting = self._spaced([*map(self.first_numbers, lengths)], spans, self.zeros[:capacity])
        counts = [*spans, len(counting[-1])] if self.multiple == 1 else [*map(len, counting)]
        return self.ids_in_turn(len(parts)).repeat(counts), np.concatenate(counting)

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


def _in_order(form: Form, other: Form, values: Sequence[Any]) -> Sequence[Any]:
    """The components of a datapoint of another form in the order of the first."""
    if other.kind is not form.kind or {*other.names} != {*form.names}:
        raise ValueError(
            f"pack(): datapoints must have the same components, got {_form_in_words(form)} and {_form_in_words(other)}"
        )
    named = dict(zip(other.names, values))
    return tuple(named[name] for name in form.names)


def _form_in_words(form: Form) -> str:
    return "one sequence" if form.kind is None else f"a {form.kind.__name__} of {', '.join(map(repr, form.names))}"


def _joined(rows: dict[Any, Any], beside: dict[Any, Any]) -> dict[Any, Any]:
    twice = rows.keys() & beside.keys()
    if twice:
        raise ValueError(f"pack(): datapoints have the key {sorted(twice)[0]!r} already; map or select it away")
    return rows | beside


def _holds_sequences(datapoint: Sequence[Any]) -> bool:
    """Whether a list or tuple is one of sequences, and not of numbers."""
    return any(isinstance(part, (list, tuple)) or np.ndim(part) for part in datapoint[:1])


def _sequence(value: Any, datapoint: Any) -> np.ndarray:
    """A sequence as an array; a list of no numbers is one of integers, as the others will be."""
    try:
        array = np.zeros(0, np.int64) if isinstance(value, (list, tuple)) and not value else _component_array(value)
    except Ragged:
        array = np.zeros(())
    if not array.ndim:
        raise ValueError(
            f"pack(): a sequence has one axis or more, an array (n, ...) or a list of numbers, got {brief(value)} in "
            f"{brief(datapoint)}; keep= names components that are none"
        )
    return array


def _component_array(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) and subclasses.carries(type(value)) else as_array(value, "pack")
