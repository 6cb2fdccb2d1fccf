"""What is in a row of packed sequences, and what arrays that makes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain, repeat
from operator import attrgetter, countOf
from typing import Any, TypeAlias

import numpy as np

from flowfn.datapoints import buffers, promotion, subclasses
from flowfn.datapoints.padding import check_fits
from flowfn.datapoints.unmade import Unmade
from flowfn.vocabulary.packing.forms import Form, Forms, Items, in_order
from flowfn.vocabulary.packing.packers import Size

FIELDS_BESIDE = ("segment_ids", "positions")
MOST_KEPT = 1024
"""Of small arrays that many rows are made of."""
MOST_FILLINGS = 16
"""Of such that are as large as rows."""


RowRecipe: TypeAlias = "tuple[Form, Sequence[int], Sequence[Sequence[np.ndarray]], np.ndarray, Sequence[Any]]"
"""A row of plain sequences of one form: the form; what each takes of the row, and its components; the ids of the
segments, and the positions in each. What is left of a row is filled up with one more, which has the id 0."""


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
        self.fillings_of: dict[Form, list[np.ndarray]] = {}
        self.numbers = np.arange(max(capacities), dtype=np.int32).data  # bytes are laid together faster than arrays
        self.zeros = np.zeros(max(capacities), np.int32).data
        self.ids_in_row = lru_cache(MOST_KEPT)(_ids_in_row)
        self.ids_in_turn = lru_cache(MOST_KEPT)(partial(_ids_in_turn, step=1 if multiple == 1 else 2))

    def room(self, spans: Sequence[Size]) -> Size:
        """How much room is left where so much is taken; below 0 where it is too much."""
        if self.lengths is None:
            return self.capacity - sum(spans)
        return tuple(map(operator.sub, self.capacity, map(sum, zip(*spans))))

    def too_much(self, room: Size) -> bool:
        """Whether a row that leaves so much room holds too much."""
        return bool((room if self.lengths is None else min(room)) < 0)

    def row(self, items: Items, room: Size, unmade: bool = False) -> Any:
        """The arrays of a row that leaves so much room; or, `unmade`, what makes them, if it certainly will."""
        spans, forms, values = items
        form = forms[0]
        if form.dtypes is None or countOf(forms, form) != len(forms):
            return self._row_with_care(items, room)
        fillings = self.fillings_of.get(form) or self._fillings_of(form)
        numbers, ids = self.numbers, self.ids_in_row(len(spans), room > 0)
        positions = [numbers[:span] for span in spans]
        if room:
            positions.append(self.zeros[:room])
            spans, values = (*spans, room), (*values, [filling[:room] for filling in fillings])
        recipe = form, spans, values, ids, positions
        return Unmade(self, recipe) if unmade else _laid(recipe)

    def _row_with_care(self, items: Items, room: Size) -> Any:
        """The arrays of any row."""
        spans, forms, values = items
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
            return _with_fields(dict(zip(form.names, made)), dict(zip(FIELDS_BESIDE, beside)))
        return form.kind([*made, *beside])

    def made(self, recipe: RowRecipe) -> Any:
        """The arrays of a row of plain sequences."""
        return _laid(recipe)

    def stacked(self, recipes: Sequence[RowRecipe]) -> Any | None:
        """The arrays of several rows of plain sequences, each (rows, length), if it pays to make them at once."""
        form, shape = recipes[0][0], (len(recipes), self.capacity)
        widest = max(_SEGMENT_DTYPE.itemsize, *(dtype.itemsize for dtype in form.dtypes or ()))
        if any(recipe[0] is not form for recipe in recipes) or shape[0] * shape[1] * widest >= buffers.WORTH:
            return None
        _, spans, values, ids, positions = zip(*recipes)
        laid = form, _all(spans), _all(values), np.concatenate(ids), _all(positions)
        return _laid(laid, lambda array: array.reshape(shape))

    def _fillings_of(self, form: Form) -> list[np.ndarray]:
        """What rows of plain sequences are filled up with, if nothing is amiss with these."""
        if form.kind is dict:
            _with_fields(dict.fromkeys(form.names), dict.fromkeys(FIELDS_BESIDE))
        if len(self.fillings_of) >= MOST_FILLINGS:
            self.fillings_of.clear()
        like, named = np.empty(0), zip(form.names, form.dtypes or ())
        made = self.fillings_of[form] = [self._filling(form, *one, like, self.capacity) for one in named]
        return made

    def _row_of_many(
        self, form: Form, columns: dict[Any, Any], spans: Iterable[tuple[int, ...]], rooms: Sequence[int]
    ) -> dict[Any, Any]:
        """The arrays of a row whose components have lengths of their own."""
        rows: dict[Any, Any] = {name: list(parts) for name, parts in columns.items()}
        beside: dict[Any, Any] = {}
        for (name, capacity), ours, room in zip((self.lengths or {}).items(), zip(*spans), rooms):
            rows[name] = self._filled(form, name, columns[name], ours, room, capacity)
            segments = self._segments(columns[name], ours, room)
            beside |= {f"{name}_{word}": array for word, array in zip(FIELDS_BESIDE, segments)}
        return _with_fields(rows, beside)

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
        counting = self._spaced([self.numbers[:length] for length in lengths], spans, room, self.zeros)
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
_SEGMENT_DTYPE = np.dtype(np.int32)


def _laid(recipe: RowRecipe, shaped: Callable[[np.ndarray], np.ndarray] | None = None) -> Any:
    """What a recipe makes, its arrays perhaps in another shape."""
    form, spans, values, ids, positions = recipe
    dtypes = form.dtypes or ()
    made = [
        *map(_end_to_end, zip(*values), dtypes),
        ids.repeat(spans),
        np.frombuffer(bytearray().join(positions), _SEGMENT_DTYPE),
    ]
    if shaped is not None:
        made = [*map(shaped, made)]
    if form.kind is dict:
        return dict(zip((*form.names, *FIELDS_BESIDE), made))
    return tuple(made) if form.kind is tuple else made


def _end_to_end(parts: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Rows of numbers as one."""
    try:
        return np.frombuffer(bytearray().join(parts), dtype)  # type: ignore[arg-type]
    except TypeError:  # what some are in does not lie in a row
        return np.concatenate(parts)


def _all(lists: Iterable[Iterable[Any]]) -> list[Any]:
    return [*chain.from_iterable(lists)]


def _ids_in_row(count: int, filled: bool) -> np.ndarray:
    """The ids of so many segments, and 0 for what fills up the row behind them."""
    return np.array([*range(1, count + 1), *([0] if filled else ())], np.int32)


def _ids_in_turn(count: int, step: int) -> np.ndarray:
    """The ids of so many segments, and 0 behind each of them, or behind the last one."""
    ids = np.zeros(step * count + 1, np.int32)
    ids[:-1:step] = np.arange(1, count + 1)
    return ids


def _with_fields(rows: dict[Any, Any], beside: dict[Any, Any]) -> dict[Any, Any]:
    twice = rows.keys() & beside.keys()
    if twice:
        raise ValueError(f"pack(): datapoints have the key {sorted(twice)[0]!r} already; map or select it away")
    return rows | beside
