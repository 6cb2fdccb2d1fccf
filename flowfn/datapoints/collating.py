"""How the values of a component become one: stacked, padded, kept as a list, or by a function of one's own.

A collation is a function of the list of values of one component. One that has a method `for_components(names)` is asked
there for the collation of each. One that says `by_rows` makes of a batch what it makes of its parts, one behind the
other, wherever these are lists, or arrays of one dtype and shape: several workers may make the parts.
"""

from __future__ import annotations

import dataclasses
from array import array as array_of
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter, countOf, itemgetter, methodcaller
from types import NoneType
from typing import Any, TypeVar

import numpy as np

from flowfn import rules
from flowfn.datapoints import buffers, promotion, subclasses
from flowfn.datapoints.columns import Rows
from flowfn.datapoints.components import Datapoints, as_tuple_like, with_fields
from flowfn.datapoints.unmade import Together
from flowfn.functions import mistaken
from flowfn.showing import brief

Collation = TypeVar("Collation", bound=Callable[..., Any])

_STACKS = {"torch": "torch.stack", "tensorflow": "tf.stack", "jaxlib": "jax.numpy.stack", "jax": "jax.numpy.stack"}
_dtype, _shape_of = attrgetter("dtype"), attrgetter("shape")
NUMBERS = frozenset({int, float, bool, complex})
_OF_ONE_DTYPE = frozenset({float, bool, complex, np.bool_, *(np.dtype(one).type for one in "bBhHiIlLqQefdgFDG")})
COLLATION = rules.Rule(
    "a collation (stack, as_list, pad(0), a function of a list) or a list, tuple or dict of one for each component",
    lambda value: all(
        map(
            callable,
            value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else [value],
        )
    ),
    slip=lambda value, others: _no_collation(value),
)
BATCHING = {"drop_remainder": rules.boolean, "collate": rules.optional(COLLATION)}
"""The rules for what words that make batches have in common."""


def _no_collation(value: Any) -> str:
    """What is no collation among those given, in words."""
    for one in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else [value]:
        slip = mistaken(one, {}, gets="the list of values of a component")
        if slip:
            return slip
    return ""


def collation(function: Collation) -> Collation:
    """Have a function that collates by rows say so, and where it belongs, should it stand where a stage does."""
    function.by_rows = True  # type: ignore[attr-defined]
    function.instead = f"batch(size, collate={function.__name__})"  # type: ignore[attr-defined]
    return function


@collation
def stack(values: Sequence[Any]) -> Any:
    """Collate the values of one component into an array with a new first axis.

    Numbers, arrays of one shape, and (nested) lists of numbers become an array; dicts keep their nesting; strings,
    bytes, None and other objects stay a list, but None among what would be an array is an error, so that a component
    has one form in every batch. Tensors (of torch, TensorFlow, JAX) become NumPy arrays; `collate=torch.stack` keeps
    them tensors, and so those that NumPy cannot hold: bfloat16, sparse ones, with gradients, on a GPU.

    Values keep what they are: integers of which some need it are uint64 (a list where no dtype holds them all), masked
    arrays keep their masks, and arrays of classes with units and the like what they carry, if all carry the same.

    Raises:
        ValueError: arrays or lists of different shapes (the message lists them); None among numbers or arrays. Values
            that no dtype holds together as they are: floats and integers beyond 2**53, texts and numbers in arrays,
            dates that a unit does not reach.
        TypeError: tensors that cannot become arrays; arrays that carry different units,
            or what one for all cannot carry.

    >>> stack([1, 2]), stack([[1, 2], [3, 4]]).shape, stack(["a", "b"]), stack([{"x": 1}, {"x": 2}])
    (array([1, 2]), (2, 2), ['a', 'b'], {'x': array([1, 2])})
    """
    first = values[0]
    if type(first) is int:
        try:
            return np.frombuffer(array_of("q", values), promotion.INT64)  # faster than numpy's own look at every value
        except (TypeError, OverflowError):  # not all of them integers of 64 bits: numpy knows
            return _numbers(values)
    if type(first) in NUMBERS or isinstance(first, np.generic):
        return _numbers(values)
    if isinstance(first, np.ndarray):
        return _arrays(values)
    if isinstance(first, Mapping):
        return collated_dicts(values, stack)
    if isinstance(first, (list, tuple)):
        return _nested(values)
    if hasattr(first, "__array__") and not isinstance(first, (str, bytes)):
        return _arrays(values)
    return _as_plain_list(values, [value for value in values if value is not None])


@collation
def as_list(values: Sequence[Any]) -> list[Any]:
    """Collate the values of one component into a list, whatever they are.

    >>> as_list(([1], [2, 3]))
    [[1], [2, 3]]
    """
    return list(values)


class WithBeside(tuple[Any, ...]):
    """What a collation has made of one component, and what is to stand beside it in a batch.

    Each of what is beside has a word, and True or a name of its own: in a dict it has the key "component_word",
    or that name; lists and tuples have it at their end.
    """

    words: tuple[tuple[str, bool | str], ...]

    def __new__(cls, made: Any, beside: Sequence[tuple[str, bool | str, Any]] = ()) -> WithBeside:
        """The component first."""
        several = super().__new__(cls, (made, *(part for _, _, part in beside)))
        several.words = tuple((word, name) for word, name, _ in beside)
        return several

    def __reduce__(self) -> Any:
        return WithBeside, (self[0], [(*words, part) for words, part in zip(self.words, self[1:])])

    def named(self, component: Any) -> list[tuple[str, Any]]:
        """What stands beside it, each with its key."""
        keys = [f"{component}_{word}" if name is True else str(name) for word, name in self.words]
        return list(zip(keys, self[1:]))


def batched(datapoints: Sequence[Any], how: Any) -> Any:
    """A batch of datapoints: those that can be had together are, None leaves the list as it is."""
    if isinstance(datapoints, (Rows, Together)):
        made = datapoints.stacked(stack) if how is stack else None
        if made is not None:
            return made
        datapoints = list(datapoints)
    return Datapoints(datapoints) if how is None else collated(datapoints, how)


def collated(datapoints: Sequence[Any], how: Any) -> Any:
    """Datapoints put together, in their own form; `how` is one collation or one for each component."""
    first = datapoints[0]
    if isinstance(first, (list, tuple)):
        try:
            columns = list(zip(*datapoints, strict=True))
        except (ValueError, TypeError):
            raise _different(datapoints) from None
        if callable(how) and not hasattr(how, "for_components"):
            components = [how(column) for column in columns]
        else:
            components = [one(column) for one, column in zip(_hows(how, range(len(columns))), columns)]
        if how is not stack or list in map(
            type, components
        ):  # all numbers: they cannot be the letters or keys of something else
            _check_forms(datapoints)
        if how is not stack and WithBeside in map(type, components):
            components = _side_by_side(components, first)
        return components if isinstance(first, list) else as_tuple_like(first, components)
    _check_forms(datapoints)
    if isinstance(first, Mapping):
        return collated_dicts(datapoints, how)
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        values = [one([getattr(d, name) for d in datapoints]) for one, name in zip(_hows(how, names), names)]
        if WithBeside in map(type, values):
            raise _no_place(first)
        return with_fields(first, dict(zip(names, values)))
    if not callable(how):
        raise TypeError(f"batch(): collate names components, but datapoints have none: {brief(first)}")
    made = how(datapoints)
    if type(made) is WithBeside:
        return tuple(made)
    return Datapoints(made) if type(made) is list and hasattr(how, "instead") else made  # ours have left it a list


def collated_dicts(datapoints: Sequence[Any], how: Any) -> dict[Any, Any]:
    """Dicts with the same keys put together, key by key."""
    keys = list(datapoints[0])
    try:
        same = countOf(map(methodcaller("keys"), datapoints), datapoints[0].keys()) == len(datapoints)
    except AttributeError:  # not all of them are mappings
        same = False
    if not same:
        raise _different(datapoints)
    made = {key: one([*map(itemgetter(key), datapoints)]) for key, one in zip(keys, _hows(how, keys))}
    return _by_key(made) if how is not stack and WithBeside in map(type, made.values()) else made


def _side_by_side(components: Sequence[Any], form: Any) -> list[Any]:
    """Components, and at their end what stands beside them."""
    if hasattr(form, "_make"):
        raise _no_place(form)
    several = [one if type(one) is WithBeside else WithBeside(one) for one in components]
    return [*(one[0] for one in several), *(part for one in several for part in one[1:])]


def _by_key(components: Mapping[Any, Any]) -> dict[Any, Any]:
    """Components, and at their end what stands beside them, by keys that are not there yet."""
    made = {key: one[0] if type(one) is WithBeside else one for key, one in components.items()}
    for key, one in components.items():
        for name, part in one.named(key) if type(one) is WithBeside else ():
            if name in made:
                raise ValueError(
                    f"batch(): there is a component {name!r} already, so that {key!r} cannot have it beside it; give "
                    f"another name, as in pad(0, mask={str(name) + '_of_' + str(key)!r})"
                )
            made[name] = part
    return made


def _no_place(datapoint: Any) -> TypeError:
    return TypeError(
        f"batch(): there is no place for a mask or lengths beside the components of {brief(datapoint)}; map it to a "
        "dict before"
    )


def _hows(how: Any, names: Sequence[Any]) -> Sequence[Callable[[Any], Any]]:
    """One collation for each component; those of a dict that are not named are stacked."""
    if hasattr(how, "for_components"):
        made: Sequence[Callable[[Any], Any]] = how.for_components(names)
        return made
    if callable(how):
        return [how] * len(names)
    if isinstance(how, Mapping):
        unknown = set(how) - set(names)
        if unknown:
            raise ValueError(
                f"batch(): collate names {', '.join(sorted(map(repr, unknown)))}, but datapoints have {list(names)}"
            )
        return [how.get(name, stack) for name in names]
    if len(how) != len(names):
        raise ValueError(f"batch(): collate has {len(how)} collations, but datapoints have {len(names)} components")
    return list(how)


def _check_forms(datapoints: Sequence[Any]) -> None:
    if countOf(map(type, datapoints), type(datapoints[0])) != len(datapoints) and any(map(_has_components, datapoints)):
        raise _different(datapoints)


def _has_components(datapoint: Any) -> bool:
    return isinstance(datapoint, (list, tuple, Mapping)) or dataclasses.is_dataclass(datapoint)


def _different(datapoints: Sequence[Any]) -> ValueError:
    first = datapoints[0]
    odd = next(
        (d for d in datapoints if type(d) is not type(first) or _component_form(d) != _component_form(first)),
        datapoints[-1],
    )
    mend = (
        "; a datapoint that is one sequence of numbers should be an array: map(np.array)"
        if _is_row(first) and _is_row(odd)
        else ""
    )
    return ValueError(f"batch(): datapoints must have the same components, got {brief(first)} and {brief(odd)}{mend}")


def _is_row(datapoint: Any) -> bool:
    return isinstance(datapoint, (list, tuple)) and all(type(value) in NUMBERS for value in datapoint)


def _component_form(datapoint: Any) -> Any:
    return (
        set(datapoint) if isinstance(datapoint, Mapping) else len(datapoint) if hasattr(datapoint, "__len__") else None
    )


def _numbers(values: Sequence[Any]) -> Any:
    kinds = set(map(type, values))
    if len(kinds) == 1 and kinds <= _OF_ONE_DTYPE:
        return np.asarray(values)
    if any(map(subclasses.carries, kinds)):
        return subclasses.joined_arrays(values, stack, stack)
    try:
        array = as_array(values)
    except Ragged:
        raise ValueError(_unequal(values)) from None
    if array.ndim != 1:
        raise ValueError(_unequal(values))
    return (
        _as_plain_list(values, [value for value in values if value is not None]) if array.dtype.kind in "OUS" else array
    )


def _as_plain_list(values: Sequence[Any], whole: Sequence[Any]) -> list[Any]:
    """Values as a list, unless those of them in which nothing is missing would be an array:
    a batch of these alone would be one."""
    if 0 < len(whole) < len(values) and not isinstance(stack(whole), list):
        raise ValueError(_missing(values))
    return list(values)


def _missing(values: Sequence[Any]) -> str:
    return (
        f"batch(): None is among values that are stacked elsewhere, got {brief(list(values))}, so batches would be "
        "lists or arrays, as it "
        "happens; put something in the place of None before (map, or missing= of read_parquet, read_arrow and "
        "from_table), or have lists in all "
        'batches: collate=as_list, or {"name": as_list} for one component'
    )


def _arrays(values: Sequence[Any]) -> Any:
    kinds = set(map(type, values))
    if kinds == {np.ndarray}:
        if len(set(map(_shape_of, values))) > 1:
            raise ValueError(_unequal(values))
        return _laid_together(values)
    if NoneType in kinds:
        raise ValueError(_missing(values))
    if any(map(subclasses.carries, kinds)):
        return subclasses.joined_arrays(values, _arrays, _arrays)
    values = [
        np.asarray(value)
        if isinstance(value, np.ndarray)
        else as_array(value)
        if hasattr(value, "__array__")
        else value
        for value in values
    ]
    if len({value.shape if type(value) is np.ndarray else np.shape(value) for value in values}) > 1:
        raise ValueError(_unequal(values))
    return _laid_together(
        [value if type(value) is np.ndarray else as_array([value]).reshape(np.shape(value)) for value in values]
    )


def _laid_together(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of one shape as one."""
    first, shape = arrays[0], (len(arrays), *arrays[0].shape)
    alike = countOf(map(_dtype, arrays), first.dtype) == len(arrays)
    plain = alike and first.dtype.kind in "biufc" and first.dtype.isnative
    dtype = first.dtype if plain else promotion.common(arrays)
    small = alike and first.nbytes * len(arrays) < buffers.SMALL
    made = np.empty(shape, dtype) if small else buffers.empty(shape, dtype)
    if first.ndim:  # end to end, which is faster by far than to give each an axis more
        np.concatenate(arrays, out=made.reshape(shape[0] * shape[1], *shape[2:]), casting="unsafe")
        return made
    return np.stack(arrays, out=made, casting="unsafe")


def _nested(values: Sequence[Any]) -> Any:
    """Lists (of lists) of numbers or arrays as one array; lists with anything else in them stay lists."""
    kinds = kinds_of(values)
    if any(issubclass(kind, (str, bytes, Mapping, NoneType)) for kind in kinds):
        return _as_plain_list(
            values, [value for value in values if all(leaf is not None for leaf in _list_leaves(value))]
        )
    if any(map(subclasses.carries, kinds)):
        arrays = [(stack(one) if one else np.empty(0)) if isinstance(one, (list, tuple)) else one for one in values]
        return stack(arrays)
    try:
        array = as_array(values)
    except Ragged:
        raise ValueError(_unequal(values)) from None
    return array if array.dtype != object else list(values)


class Ragged(ValueError):
    """Lists of different lengths, or arrays of different shapes in them, are no array."""


def as_array(value: Any, function: str = "batch") -> np.ndarray:
    """An array of what may be made of tensors, or of lists of numbers, each held as it is,
    or an error that says what to write.

    Integers that no dtype holds beside each other make an array of objects.

    Raises:
        Ragged: lists are.
        ValueError: numbers in them have no dtype in common that holds all of them as they are.
        TypeError: a tensor cannot become an array, or an array carries more than its numbers.
    """
    kinds = kinds_of(value) if isinstance(value, (list, tuple)) else {type(value)}
    subclasses.refuse_carrying(kinds, function)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise Ragged(*error.args) from error
    except (TypeError, RuntimeError) as error:
        raise _no_array(value, error, function) from error
    if (
        not isinstance(value, (list, tuple))
        or array.dtype.kind in "biuO"
        or (len(kinds) == 1 and kinds <= _OF_ONE_DTYPE)
    ):
        return array
    parts = promotion.parts([*_list_leaves(value)])
    dtype = np.dtype(object) if parts is None else promotion.common(parts, function) if parts else array.dtype
    return array if dtype == array.dtype else np.array(value, dtype)


def kinds_of(values: Sequence[Any]) -> set[type]:
    """The types of what is in lists, and in the lists in them."""
    kinds = set(map(type, values))
    if any(issubclass(kind, (list, tuple)) for kind in kinds):
        return set().union(
            *(kinds_of(value) if isinstance(value, (list, tuple)) else {type(value)} for value in values)
        )
    return kinds


def _no_array(value: Any, error: Exception, function: str) -> Exception:
    """The error for a tensor that cannot become an array; `error` itself if there is none."""
    tensor = next(
        (
            leaf
            for leaf in _list_leaves(value)
            if hasattr(leaf, "__array__") and not isinstance(leaf, (np.ndarray, np.generic))
        ),
        None,
    )
    if tensor is None:
        return error
    library = type(tensor).__module__.partition(".")[0]
    told = f"{type(tensor).__name__} of {getattr(tensor, 'dtype', 'no dtype')}"
    return TypeError(
        f"{function}(): {library}'s {told} cannot become a NumPy array ({error}); make an array or another tensor of "
        "it before (map), "
        f"or keep tensors as they are: batch(size, collate={_STACKS.get(library, 'a function of a list of them')})"
    )


def _list_leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _list_leaves(item)
    else:
        yield value


def _shape(value: Any) -> Any:
    try:
        return np.shape(value)
    except ValueError:
        return f"ragged, {len(value)} rows"


def _unequal(values: Sequence[Any]) -> str:
    return (
        f"batch(): cannot stack shapes {shapes_of(values)}; make them equal before (crop, resize), let collate=pad(0) "
        "pad them, "
        "or keep them apart with collate=as_list"
    )


def shapes_of(values: Sequence[Any]) -> str:
    """The shapes of some values, each once and the first few of them, for a message."""
    shapes = list(dict.fromkeys(map(_shape, values)))
    return f"{', '.join(map(str, shapes[:6]))}{', ...' if len(shapes) > 6 else ''}"
