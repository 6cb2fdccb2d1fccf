"""Padding: arrays of different sizes made equal, so that they stack."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from flowfn import rules
from flowfn.datapoints import buffers, collating, promotion, subclasses
from flowfn.datapoints.collating import NUMBERS, WithBeside, collated_dicts, shapes_of, stack
from flowfn.showing import as_called

_AXIS = rules.Rule(
    "an integer, a tuple of integers, or None",
    lambda value: (
        value is None
        or (all(map(rules.is_integer, value)) if isinstance(value, tuple) and value else rules.is_integer(value))
    ),
)
BESIDE = rules.Rule(
    "True, False or a name",
    lambda value: isinstance(value, (bool, str)),
    lambda value, others: value != "",
)
VALUE = rules.Rule(
    "one value, or a dict, list or tuple of one for each component", lambda value: getattr(value, "ndim", 0) == 0
)


@dataclass(frozen=True, repr=False)
class pad:
    """Collate arrays (or lists of numbers) of different sizes: they are padded at the end with `value`, and stacked.

    Every axis in which they differ is padded to the longest; with `axis` (an integer, or a tuple of them; axis 0 is
    the first of a single datapoint) only that one is, and a difference elsewhere is an error. `length` makes `axis`
    exactly so long, `multiple` rounds its padded size up; both concern the first axis if `axis` is left out. The dtype
    is what `stack` would give. Numbers are stacked, dicts keep their nesting, strings and other objects stay a list;
    tensors become arrays. Masked arrays keep their masks; what they are padded with is not masked.

    `value` has to fit the dtype exactly (a float may be rounded). Components with values of their own are named in a
    dict (by key, or by position; those not named get 0), or all listed: `pad({"ids": 0, "labels": -100})`.

    `mask=True` says which elements are real: a bool array beside each component that is padded (numbers, strings and
    other objects have none), True where there is an element and False where there is padding, also in a batch in which
    nothing is padded. In a dict it has the key "ids_mask" for "ids", or that which is given as a string,
    `mask="attention_mask"`; lists and tuples have it at their end; a bare array becomes a tuple (array, mask). It has
    the axes of the array, or with `axis` the first and those that `axis` names: with `axis=0` it is (batch, time) for
    datapoints (time, features). `lengths=True` says how many are real, int64 of shape (batch,), or (batch, axes) where
    there are several axes, by the key "ids_length" or one that is given, and behind the mask where there is one. Of
    lists that are ragged themselves the mask leaves out what is filled up inside; lengths are those of the whole.

    Raises:
        ValueError: the value does not fit the dtype; arrays have different numbers of axes, differ where they may not,
            or are longer than `length`, or no dtype holds their values together as they are; a dict has a key already
            that a mask or lengths would have.
        TypeError: what `stack` raises; datapoints with a mask or lengths are namedtuples or dataclasses, which have no
            place for them.

    >>> pad(0)([[1, 2, 3], [4]])
    array([[1, 2, 3],
           [4, 0, 0]])
    >>> pad(-1, length=3)([np.ones(2), np.ones(1)])
    array([[ 1.,  1., -1.],
           [ 1., -1., -1.]])
    >>> import flowfn as ff
    >>> list(ff.batch(2, [{"ids": [1, 2], "label": 7}, {"ids": [3], "label": 8}], collate=pad({"ids": -1})))
    [{'ids': array([[ 1,  2],
           [ 3, -1]]), 'label': array([7, 8])}]
    >>> list(ff.batch(2, [{"ids": [1, 2]}, {"ids": [3]}], collate=pad(0, mask=True, lengths=True)))
    [{'ids': array([[1, 2],
           [3, 0]]), 'ids_mask': array([[ True,  True],
           [ True, False]]), 'ids_length': array([2, 1])}]
    """

    value: Any = 0
    _: KW_ONLY
    axis: int | tuple[int, ...] | None = None
    length: int | None = None
    multiple: int = 1
    mask: bool | str = False
    lengths: bool | str = False
    by_rows: ClassVar[bool] = True

    @property
    def instead(self) -> str:
        """What to write where this stands in the place of a stage."""
        return f"batch(size, collate={self})"

    def __post_init__(self) -> None:
        rules.check_fields(
            self,
            value=VALUE,
            axis=_AXIS,
            length=rules.optional(rules.positive),
            multiple=rules.positive,
            mask=BESIDE,
            lengths=BESIDE,
        )
        if self.length is not None and self.multiple != 1:
            raise ValueError(
                f"pad(): give length or multiple, not both, got length={self.length} and multiple={self.multiple}"
            )

    def __call__(self, values: Sequence[Any]) -> Any:
        """The values of one component, padded and stacked; with a mask or lengths a tuple of all of them."""
        first = values[0]
        if isinstance(first, Mapping):
            return collated_dicts(values, self)
        if isinstance(self.value, (Mapping, list, tuple)):
            raise TypeError(f"pad(): value is {self.value!r}, one for each component, but there are no components")
        if (
            type(first) in NUMBERS
            or isinstance(first, np.generic)
            or not (isinstance(first, (list, tuple)) or hasattr(first, "__array__"))
        ):
            return stack(values)
        made, arrays = self._padded(values)
        if not (self.mask or self.lengths) or arrays is None or made.ndim < 2:
            return made
        return self._with_what_is_real(made, values, arrays)

    def for_components(self, names: Sequence[Any]) -> list[pad]:
        """The collation of each component, by its name."""
        if isinstance(self.value, Mapping):
            unknown = self.value.keys() - set(names)
            if unknown:
                raise ValueError(
                    f"pad(): value names {', '.join(sorted(map(repr, unknown)))}, but datapoints have {list(names)}"
                )
            return [replace(self, value=self.value.get(name, 0)) for name in names]
        if isinstance(self.value, (list, tuple)):
            if len(self.value) != len(names):
                raise ValueError(
                    f"pad(): value has {len(self.value)} values, but datapoints have {len(names)} components"
                )
            return [replace(self, value=value) for value in self.value]
        return [self] * len(names)

    def __repr__(self) -> str:
        options = {name: repr(given) for name in ("axis", "length") if (given := getattr(self, name)) is not None}
        options |= {"multiple": str(self.multiple)} if self.multiple != 1 else {}
        options |= {name: repr(given) for name in ("mask", "lengths") if (given := getattr(self, name))}
        return as_called("pad", repr(self.value), **options)

    def _padded(self, values: Sequence[Any]) -> tuple[Any, Sequence[Any] | None]:
        """The values padded and stacked, and the array that each is by itself; None if they stay a list."""
        if all(type(value) is np.ndarray for value in values):
            return self._stacked(values, promotion.common(values, "pad")), values
        if any(map(subclasses.carries, collating.kinds_of(values))):
            arrays = [stack(value) if isinstance(value, (list, tuple)) and value else value for value in values]
            like = next((array for array in arrays if hasattr(array, "dtype")), np.empty(0))
            none = np.empty((0, *np.shape(like)[1:]), like.dtype)
            arrays = [none if _is_empty_list(array) else array for array in arrays]
            plain = replace(self, mask=False, lengths=False)
            return subclasses.joined_arrays(arrays, plain, replace(plain, value=False), "pad"), arrays
        arrays = []
        for value in values:
            array = padded_array(value, self.value)
            if array is None:
                return list(values), None
            arrays.append(array)
        arrays = _with_axes(values, arrays)
        return self._stacked(arrays, _dtype_of_all(values, arrays)), arrays

    def _with_what_is_real(self, made: np.ndarray, values: Sequence[Any], arrays: Sequence[Any]) -> WithBeside:
        """What was padded, and beside it what tells elements from padding."""
        axes = [*range(made.ndim - 1)] if self.axis is None else sorted({*self._axes(made.ndim - 1, arrays)})
        shapes = [(0,) * made.ndim if _is_empty_list(one) else np.shape(array) for one, array in zip(values, arrays)]
        sizes = np.array([[shape[axis] for axis in axes] for shape in shapes], np.int64)
        beside: list[tuple[str, bool | str, np.ndarray]] = []
        if self.mask:
            mask = _below_sizes(sizes, [made.shape[1 + axis] for axis in axes])
            _leave_out_holes(mask, values, arrays, axes)
            beside.append(("mask", self.mask, mask))
        if self.lengths:
            beside.append(("length", self.lengths, sizes[:, 0].copy() if len(axes) == 1 else sizes))
        return WithBeside(made, beside)

    def _stacked(self, arrays: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
        shapes = {array.shape for array in arrays}
        shape = self._shape(shapes, arrays)
        padded = shapes != {shape}
        if shape and (padded or dtype.kind in "biufc"):  # said at the first batch, and not at the first that is padded
            check_fits("pad", self.value, dtype)
        if not padded:
            return np.stack(arrays, out=buffers.empty((len(arrays), *shape), dtype), casting="unsafe")
        made = buffers.empty((len(arrays), *shape), dtype)
        if len(shape) == 1:
            for row, array in zip(made, arrays):
                row[: len(array)] = array
                row[len(array) :] = self.value
        else:
            made[...] = self.value
            for row, array in zip(made, arrays):
                row[tuple(map(slice, array.shape))] = array
        return made

    def _shape(self, shapes: set[tuple[int, ...]], arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
        """The shape that all are padded to."""
        if len(set(map(len, shapes))) > 1:
            raise ValueError(f"pad(): arrays must have the same number of axes, got shapes {shapes_of(arrays)}")
        longest = list(map(max, zip(*shapes)))
        if not longest or (self.axis is None and self.length is None and self.multiple == 1):
            return tuple(longest)
        chosen = self._axes(len(longest), arrays)
        if self.axis is not None:
            for axis, sizes in enumerate(zip(*shapes)):
                if axis not in chosen and len(set(sizes)) > 1:
                    raise ValueError(
                        f"pad(): arrays differ in axis {axis}, but only axis={self.axis} is to be padded, got shapes "
                        f"{shapes_of(arrays)}"
                    )
        for axis in chosen:
            if self.length is not None and longest[axis] > self.length:
                raise ValueError(
                    f"pad(): length={self.length}, but arrays are longer, got shapes {shapes_of(arrays)}; "
                    "cut them before (map), or leave them out (filter)"
                )
            longest[axis] = self.length or -(-longest[axis] // self.multiple) * self.multiple
        return tuple(longest)

    def _axes(self, count: int, arrays: Sequence[np.ndarray]) -> list[int]:
        """The axes that `length` and `multiple` concern, counted from the front."""
        axes: tuple[int, ...] = (
            (0,) if self.axis is None else self.axis if isinstance(self.axis, tuple) else (self.axis,)
        )
        for axis in axes:
            if not -count <= axis < count:
                raise ValueError(
                    f"pad(): there is no axis {axis} in arrays of shapes {shapes_of(arrays)}; give one pad for each "
                    "component"
                )
        return [axis % count for axis in axes]


def padded_array(value: Any, fill: Any) -> np.ndarray | None:
    """An array, or a list of numbers as one (what is ragged in it filled up), or None for a list of anything else."""
    if not isinstance(value, (list, tuple)):
        return collating.as_array(value)
    try:
        array = collating.as_array(value)
    except collating.Ragged:
        parts = [padded_array(part, fill) for part in value]
        arrays = [part for part in parts if part is not None]
        return pad(fill)._stacked(arrays, _dtype_of_all(value, arrays)) if len(arrays) == len(parts) else None
    return None if array.dtype.kind in "OUS" else array


def _below_sizes(sizes: np.ndarray, longest: Sequence[int]) -> np.ndarray:
    """Where indices are below the sizes (n, axes) along every axis: bool (n, *longest)."""
    mask = np.ones(len(sizes), bool)
    for axis, length in enumerate(longest):
        below = np.arange(length) < sizes[:, axis, None]
        beside = below.reshape(len(sizes), *[1] * axis, length)
        mask = np.logical_and(mask[..., None], beside, out=buffers.empty((*mask.shape, length), bool))
    return mask


def _leave_out_holes(mask: np.ndarray, values: Sequence[Any], arrays: Sequence[Any], axes: Sequence[int]) -> None:
    """Take out of a mask what was filled up in lists that are ragged themselves."""
    for row, value, array in zip(mask, values, arrays):
        if isinstance(value, (list, tuple)) and array.ndim > 1:
            real = padded_array(_trues(value), False)
            if real is not None and not real.all():
                there = real.any(tuple(axis for axis in range(real.ndim) if axis not in axes))
                row[tuple(map(slice, there.shape))] &= there


def _is_empty_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and not value


def _trues(value: Any) -> Any:
    """True for each element of lists and arrays, in their form."""
    if isinstance(value, (list, tuple)):
        return [*map(_trues, value)]
    return np.ones(np.shape(value), bool) if getattr(value, "ndim", 0) else True


def _with_axes(values: Sequence[Any], arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The arrays, in which a list of no rows has as many axes as the others."""
    shape = max((array.shape for array in arrays), key=len)
    return [
        np.empty((0, *shape[1:]), array.dtype)
        if len(array.shape) < len(shape) and not array.size and isinstance(value, (list, tuple))
        else array
        for value, array in zip(values, arrays)
    ]


def _dtype_of_all(values: Sequence[Any], arrays: list[np.ndarray]) -> np.dtype:
    """The dtype of all of them together; empty lists have no say."""
    telling = [array for value, array in zip(values, arrays) if array.size or not isinstance(value, (list, tuple))]
    return promotion.common(telling or arrays, "pad")


def check_fits(function: str, value: Any, dtype: np.dtype) -> None:
    """Make sure that an array of `dtype` can hold a value as it is."""
    if not (_fill_fits if isinstance(value, Hashable) else _fill_fits.__wrapped__)(value, dtype):
        raise ValueError(
            f"{function}(): value must fit the dtype of what it pads, but {value!r} is no {dtype}; give another, or "
            "one for each component"
        )


@functools.lru_cache(typed=True)
def _fill_fits(value: Any, dtype: np.dtype) -> bool:
    if dtype.kind == "O":
        return True
    filling = np.asarray(value)
    for kinds in ("biufc", "U", "S", "m", "M"):
        if dtype.kind in kinds and (filling.ndim or filling.dtype.kind not in kinds):
            return False
    if filling.dtype.kind == "c" and dtype.kind != "c":
        return False
    try:
        with np.errstate(all="ignore"):
            cast = filling.astype(dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    if dtype.kind in "fc":
        return bool(np.isinf(filling) or not np.isinf(cast))
    return bool(cast.item() == filling.item()) or (dtype.kind in "mM" and bool(np.isnat(filling)))
