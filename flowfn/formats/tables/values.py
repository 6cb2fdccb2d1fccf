"""Arrow's columns as Python's values: how each type becomes objects, and which types become the same."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from itertools import chain
from operator import itemgetter
from typing import Any, NoReturn, TypeAlias

import numpy as np

from flowfn.extras import needed

Convert: TypeAlias = Callable[[Any], list[Any]]

DAMAGED = "; is the file damaged?"
FEW_VALUES = 4
"""Up to so many values are faster made one by one than through numpy."""
FORM = b"flowfn"
"""Under this name a schema says whether datapoints are dicts, lists or bare values,
and a field that it holds arrays."""

_LIKE = {
    **dict.fromkeys(("string", "large_string", "string_view"), "texts"),
    **dict.fromkeys(("binary", "large_binary", "binary_view"), "bytes"),
    **dict.fromkeys(("halffloat", "float", "double"), "floats"),
    **dict.fromkeys(("date32[day]", "date64[ms]"), "dates"),
    "bool": "truths",
    "null": None,
}

_LIST_TYPES = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")


def converter(kind: Any, arrays: bool) -> Convert:
    """What makes Python objects of a column: numbers, texts, bytes, None, lists, dicts; of tensors arrays."""
    pa: Any = needed("pyarrow", "read_parquet()", extra="parquet")
    types = pa.types
    if "month_day_nano" in str(kind):
        copyreg.pickle(
            pa.MonthDayNano, lambda value: (_months, tuple(value))
        )  # which pyarrow leaves out, and workers need
    if isinstance(kind, pa.FixedShapeTensorType):
        return _each_chunk(lambda chunk: _tensors(chunk, kind))
    if isinstance(kind, pa.BaseExtensionType):
        inner = converter(kind.storage_type, arrays)
        return (
            _pylist
            if _is_arrow_extension(kind)
            else _each_chunk(lambda chunk: inner(pa.chunked_array([chunk.storage])))
        )
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        return _each_chunk(
            lambda chunk: (
                chunk.to_numpy(zero_copy_only=False).tolist() if len(chunk) > FEW_VALUES else chunk.to_pylist()
            )
        )
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_float32(kind) or types.is_float64(kind):
        return _each_chunk(
            lambda chunk: (
                chunk.to_pylist()
                if len(chunk) <= FEW_VALUES or chunk.null_count
                else chunk.to_numpy(zero_copy_only=False).tolist()
            )
        )
    if str(kind) == "time64[ns]":
        return lambda column: _pylist(
            column.cast(pa.time64("us"))
        )  # raises where `to_pylist` would leave nanoseconds out
    if arrays and _is_list(kind) and _is_number(kind.value_type):
        return _each_chunk(_vectors)
    return _pylist


def with_missing(convert: Convert, value: Any, kind: Any) -> Convert:
    """As `convert`, with a value in the place of None; a float in a column of integers makes floats of all."""
    told = meaning(kind, False)
    if told == "floats" and value is not None:
        value = float(value)
    if told == "integers" and type(value) is float:
        return lambda column: [value if one is None else float(one) for one in convert(column)]
    return lambda column: [value if one is None else one for one in convert(column)]


def meaning(kind: Any, arrays: bool) -> Any:
    """What the values of a type are in Python, alike for types whose values are;
    None for a type that has nothing but None.

    >>> import pyarrow as pa
    >>> meaning(pa.large_string(), False) == meaning(pa.dictionary(pa.int8(), pa.string()), False)
    True
    """
    pa: Any = needed("pyarrow", "read_parquet()", extra="parquet")
    types, text = pa.types, str(kind)
    if types.is_dictionary(kind) or text.startswith("run_end_encoded"):
        return meaning(kind.value_type, arrays)
    if isinstance(kind, pa.BaseExtensionType):
        return text if _is_arrow_extension(kind) else meaning(kind.storage_type, arrays)
    if types.is_struct(kind):
        return "dicts", *sorted(
            ((f.name, meaning(f.type, arrays)) for f in map(kind.field, range(kind.num_fields))), key=itemgetter(0)
        )
    if types.is_map(kind):
        return "pairs", meaning(kind.key_type, arrays), meaning(kind.item_type, arrays)
    if _is_list(kind):
        inside = kind.value_type
        return ("arrays", str(inside)) if arrays and _is_number(inside) else ("lists", meaning(inside, arrays))
    if types.is_integer(kind):
        return "integers"
    if types.is_timestamp(kind):
        return "times with a zone" if kind.tz else "times"
    for prefix, word in (
        ("decimal", "decimals"),
        ("fixed_size_binary", "bytes"),
        ("time", "times of day"),
        ("duration", "durations"),
    ):
        if text.startswith(prefix):
            return word
    return _LIKE.get(text, text)


def joined(one: Any, other: Any) -> Any:
    """What two meanings are together, where those that say None fit all others.

    Raises:
        ValueError: they are different.

    >>> joined(("lists", None), ("lists", "texts"))
    ('lists', 'texts')
    """
    if one is None or other is None or one == other:
        return one if other is None else other
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return tuple(map(joined, one, other))
    raise ValueError(f"{one} and {other} are different")


class Agreed:
    """What the columns of several files hold: types may differ, as long as the values that they become are alike.

    With `whole`, there must be no other columns; `vectors` are those whose lists of numbers become arrays.
    """

    def __init__(self, names: list[str], vectors: list[str], whole: bool, who: str) -> None:
        self.names, self.vectors, self.whole, self.who = names, vectors, whole, who
        self.seen: dict[str, tuple[Any, Any, str]] = {}
        self.first = ""

    def add(self, schema: Any, path: str) -> None:
        """Take in what one more file has.

        Raises:
            ValueError: its columns are others.
        """
        self.first = self.first or path
        for name in dict.fromkeys([*self.names, *schema.names]) if self.whole else self.names:
            there = schema.names.count(name)
            if there != 1 or name not in self.names:
                here = schema.field(name).type if there == 1 else "there more than once" if there else "missing"
                self._refuse(name, here, path, self.seen[name][1] if name in self.seen else "missing", self.first)
            kind = schema.field(name).type
            now, before = meaning(kind, name in self.vectors), self.seen.get(name, (None, kind, path))
            try:
                both = joined(before[0], now)
            except ValueError:
                self._refuse(name, kind, path, *before[1:])
            self.seen[name] = (both, *before[1:]) if both == before[0] else (both, kind, path)

    def _refuse(self, name: str, here: Any, path: str, there: Any, first: str) -> NoReturn:
        raise ValueError(
            f"{self.who}(): files must have the same columns, but {name!r} is {here} in {path}, {there} in {first}"
        )


def fits(value: Any, kind: Any) -> bool:
    """Whether a value can stand among others of a type: a number among numbers, a text among texts; None always."""
    told = meaning(kind, False)
    if told in ("integers", "floats"):
        return value is None or type(value) in (int, float)
    return value is None or isinstance(value, {"truths": bool, "texts": str, "bytes": bytes}.get(told, object))


def stands_alone(kind: Any) -> bool:
    """Whether values of a type refer to no others, so that a slice of them can be checked without looking at all."""
    pa: Any = needed("pyarrow", "read_parquet()", extra="parquet")
    types = pa.types
    return bool(
        types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind) or str(kind) in _LIKE
    )


def maybe_whole(error: Exception) -> bool:
    """Whether an error says nothing against a file: the library does not know what is in it, or not its key."""
    return isinstance(error, (NotImplementedError, MemoryError)) or "decrypt" in str(error)


def _months(*parts: int) -> Any:
    pa: Any = needed("pyarrow", "read_arrow()", extra="parquet")
    return pa.MonthDayNano(parts)


def _is_arrow_extension(kind: Any) -> bool:
    """Whether Arrow itself knows an extension, and so what its values are;
    those of others may be registered here, or not."""
    return bool(kind.extension_name.startswith("arrow."))


def _is_list(kind: Any) -> bool:
    pa: Any = needed("pyarrow", "read_parquet()", extra="parquet")
    return any(
        is_such(kind) for name in _LIST_TYPES if (is_such := getattr(pa.types, f"is_{name}", None))
    )  # older ones know fewer


def _is_number(kind: Any) -> bool:
    pa: Any = needed("pyarrow", "read_parquet()", extra="parquet")
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _each_chunk(convert: Callable[[Any], list[Any]]) -> Convert:
    """What converts a column that may lie in several chunks."""

    def converted(column: Any) -> list[Any]:
        chunks = column.chunks
        return convert(chunks[0]) if len(chunks) == 1 else list(chain.from_iterable(map(convert, chunks)))

    return converted


def _pylist(column: Any) -> list[Any]:
    made: list[Any] = column.to_pylist()
    return made


def _vectors(chunk: Any) -> list[Any]:
    """Lists of numbers as arrays; one in which a number is missing stays a list."""
    flat = chunk.flatten()
    lengths = chunk.value_lengths().fill_null(0) if chunk.null_count else chunk.value_lengths()
    ends = np.cumsum(lengths.to_numpy(zero_copy_only=False)).tolist()
    held = (flat.fill_null(0) if flat.null_count else flat).to_numpy(zero_copy_only=False)
    rows: list[Any] = [held[start:end].copy() for start, end in zip([0, *ends], ends)]
    if chunk.null_count or flat.null_count:
        there, valid = flat.is_valid().to_numpy(zero_copy_only=False), chunk.is_valid().to_pylist()
        for at, (start, end) in enumerate(zip([0, *ends], ends)):
            if not valid[at] or not there[start:end].all():
                rows[at] = chunk[at].as_py()
    return rows


def _tensors(chunk: Any, kind: Any) -> list[Any]:
    storage = chunk.storage
    held = storage.flatten().to_numpy(zero_copy_only=False)
    shape, order = tuple(kind.shape), kind.permutation
    rows = iter(held.reshape(len(storage) - storage.null_count, *shape))
    arrays = (row.transpose(order) if order else row for row in rows)
    if not storage.null_count:
        return [array.copy() for array in arrays]
    return [next(arrays).copy() if is_there else None for is_there in storage.is_valid().to_pylist()]
