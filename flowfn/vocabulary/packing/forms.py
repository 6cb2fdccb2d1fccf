"""How datapoints are put together that are to be packed, and what they take of a row."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import countOf
from typing import Any, TypeAlias

import numpy as np

from flowfn.datapoints import subclasses
from flowfn.datapoints.collating import Ragged, as_array
from flowfn.showing import brief
from flowfn.vocabulary.packing.packers import Size


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """How datapoints are put together: the kind of container (None: they are one sequence each), the names of their
    components, and which of these are kept as they are; and the dtypes of the others, where all of these are plain rows
    of numbers."""

    kind: type | None
    names: tuple[Any, ...]
    kept: frozenset[Any] = frozenset()
    places: tuple[int, ...] = (0,)
    dtypes: tuple[np.dtype, ...] | None = None

    @property
    def sequences(self) -> list[Any]:
        """The names of what is packed, which is at these places."""
        return [self.names[place] for place in self.places]


PackInput: TypeAlias = "tuple[Size, Form, Sequence[Any]]"
"""A datapoint to be packed, or a part of one: what it takes of a row, its form, and its components."""

Items: TypeAlias = "tuple[Sequence[Size], Sequence[Form], Sequence[Sequence[Any]]]"
"""The same of several of them."""

SINGLE = Form(None, (0,))


class Forms:
    """Which components of datapoints are kept as they are, which have lengths of their own, and of what number segments
    begin at multiples."""

    def __init__(self, lengths: Mapping[Any, int] | None, keep: Iterable[Any], multiple: int) -> None:
        self.lengths, self.keep, self.multiple = lengths, frozenset(keep), multiple
        self.plain = lengths is None and not self.keep and multiple == 1  # so that an array is as long as what it takes
        self.known: dict[Any, Form] = {}

    def item(self, datapoint: Any) -> PackInput:
        """A datapoint, to be packed."""
        kind, names, components = self._taken_apart(datapoint)
        values, form = [*components], self._form(kind, names, datapoint)
        for place in form.places:
            if type(values[place]) is not np.ndarray or not values[place].ndim:
                values[place] = _sequence(values[place], datapoint)
        if self.plain:
            form = self._form(kind, names, datapoint, _dtypes_of(values))
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

    def part(self, item: PackInput, start: Size, stop: Size) -> PackInput:
        """A part of a datapoint."""
        _, form, values = item
        if form.kind is None:
            return stop - start, form, (values[0][start:stop],)
        parts = [*values]
        if self.lengths is None:
            for place in form.places:
                parts[place] = parts[place][start:stop]
            return stop - start, form, parts
        for name, begin, end in zip(self.lengths, start, stop):
            place = form.names.index(name)
            parts[place] = parts[place][begin:end]
        return tuple(map(operator.sub, stop, start)), form, parts

    def _taken_apart(self, datapoint: Any) -> tuple[type | None, tuple[Any, ...], Iterable[Any]]:
        """The kind of container that a datapoint is, the names of its components, and these."""
        if isinstance(datapoint, Mapping):
            return dict, tuple(datapoint), datapoint.values()
        if hasattr(datapoint, "_make") or (dataclasses.is_dataclass(datapoint) and not isinstance(datapoint, type)):
            raise TypeError(
                f"pack(): there is no place for segment ids and positions in {brief(datapoint)}; map it to a dict "
                "before"
            )
        if isinstance(datapoint, (list, tuple)) and (self.keep or _holds_sequences(datapoint)):
            kind = list if isinstance(datapoint, list) else tuple
            return kind, tuple(range(len(datapoint))), datapoint
        return None, (0,), (datapoint,)

    def _form(
        self, kind: type | None, names: tuple[Any, ...], datapoint: Any, dtypes: tuple[np.dtype, ...] | None = None
    ) -> Form:
        form = self.known.get((kind, names, dtypes))
        if form is None:
            missing = self.keep - {*names} if kind else self.keep
            if missing:
                raise ValueError(
                    f"pack(): keep names {', '.join(sorted(map(repr, missing)))}, but a datapoint has "
                    f"{list(names) if kind else 'no components'}: {brief(datapoint)}"
                )
            places = tuple(place for place, name in enumerate(names) if name not in self.keep)
            form = self.known[kind, names, dtypes] = Form(kind, names, self.keep, places, dtypes)
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


def _dtypes_of(values: Sequence[np.ndarray]) -> tuple[np.dtype, ...] | None:
    """The dtypes of plain rows of numbers; None if something is none."""
    for value in values:
        if type(value) is not np.ndarray or value.ndim != 1:
            return None
        if value.dtype.kind not in "biufc" or not value.dtype.isnative:
            return None
    return tuple([value.dtype for value in values])


def in_order(form: Form, other: Form, values: Sequence[Any]) -> Sequence[Any]:
    """The components of a datapoint of another form in the order of the first."""
    if other.kind is not form.kind or {*other.names} != {*form.names}:
        raise ValueError(
            f"pack(): datapoints must have the same components, got {_form_in_words(form)} and {_form_in_words(other)}"
        )
    named = dict(zip(other.names, values))
    return tuple(named[name] for name in form.names)


def _form_in_words(form: Form) -> str:
    return "one sequence" if form.kind is None else f"a {form.kind.__name__} of {', '.join(map(repr, form.names))}"


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
    if array.dtype.hasobject and any(one is None or isinstance(one, Mapping) for one in array.flat):
        raise ValueError(
            f"pack(): a sequence is an array (n, ...) or a list of numbers, got {brief(value)}; of a list of "
            "datapoints, as split_long gives, flat_map makes one after the other"
        )
    return array


def _component_array(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) and subclasses.carries(type(value)) else as_array(value, "pack")
