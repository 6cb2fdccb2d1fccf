"""What datapoints look like: type, dtype, shape and range of every component, in aligned lines."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import IO, Any, TypeAlias

import numpy as np

from flowfn import rules
from flowfn.flows import sources
from flowfn.kinds.runs import Checkpoint
from flowfn.seeing.resuming import in_words, is_state
from flowfn.showing import brief

COMPONENTS = 20
"""How many components of a datapoint are shown, and of what is nested in it `NESTED`, down to `DEPTH`."""
NESTED = 6
DEPTH = 4

TableLine: TypeAlias = tuple[str, str, str, str]
"""Name, type, size and value."""

_cell_repr = reprlib.Repr()
_cell_repr.maxstring = _cell_repr.maxother = 60
_cell_repr.maxlist = _cell_repr.maxtuple = _cell_repr.maxset = _cell_repr.maxfrozenset = _cell_repr.maxdict = (
    _cell_repr.maxdeque
) = 4


@rules.checked(n=rules.positive)
def describe(flow: Any, n: int = 2, *, of: Any = None, file: IO[str] | None = None) -> None:
    """Print what the first `n` datapoints of the next epoch consist of: type, size and range of every component.

    `flow` is a flow, or anything that `flow` takes. It is read serially, in this process, and does not advance: what
    was looked at is still there afterwards (an iterator or a queue, which gives each datapoint once, has lost it).
    Arrays are shown by dtype, shape and range, NaN counted apart; strings and bytes by length and beginning; dicts,
    lists, tuples and dataclasses by what is in them.

    >>> import numpy as np
    >>> describe([[np.arange(6).reshape(2, 3), "img/7.jpg", {"boxes": [[0.5, 2.5]], "label": 7}]])
    datapoint 0 of 1: list, length 3
      0          int64 array  (2, 3)    0 to 5
      1          str          length 9  'img/7.jpg'
      2          dict         length 2
        'boxes'  list         length 1
          0      list         length 2  [0.5, 2.5]
        'label'  int                    7
    that is all: there is one datapoint

    A state (from `state_dict`) is described in words: of which pipeline it is, where it stands, whether it is as it was
    saved; with `of=flow`, also at which stages its anchors are, and whether it can be loaded there.

    >>> import flowfn as ff
    >>> flow = ff.pipe(range(9), ff.filter(bool), ff.batch(2))
    >>> iterator = flow.run(seed=7)
    >>> next(iterator), describe(iterator.state_dict(), of=flow)
    state of source[9] > filter(predicate=builtins.bool, rng=False) > batch(size=2, ...
      seed 7, epoch 0: 1 output given, 2 datapoints used
      filter(bool): starts again after 1 output
      as it was saved: its digest is right
      it can be loaded here
    (array([1, 2]), None)
    """
    if is_state(flow):
        print(*in_words(flow, None if of is None else sources.flow(of, "describe")), sep="\n", file=file, flush=True)
        return
    if of is not None:
        raise TypeError(f"describe(): of= is the flow of a state, but the first argument is no state: {brief(flow)}")
    source = sources.flow(flow, "describe")
    length = source.node.length(source._look())
    total = f" of {length}" if isinstance(length, int) else ""
    number = 0
    with source._serially(source.seed, source.epoch, Checkpoint()) as datapoints:
        for number, datapoint in enumerate(islice(datapoints, n), 1):
            print(described(datapoint, f"datapoint {number - 1}{total}"), file=file, flush=True)
    if number == 0:
        print("the flow is empty: there is no datapoint", file=file, flush=True)
    elif number < n:
        print(
            f"that is all: there {'is one datapoint' if number == 1 else f'are {number} datapoints'}",
            file=file,
            flush=True,
        )


def print_datapoint(datapoint: Any) -> None:
    """Print what one datapoint consists of, as `describe` does; made for `tap(print_datapoint, first=2)`.

    >>> print_datapoint({"x": 1.5, "name": "seven"})
    datapoint: dict, length 2
      'x'     float            1.5
      'name'  str    length 5  'seven'
    """
    print(described(datapoint, "datapoint") + "\n", end="", flush=True)


def described(datapoint: Any, title: str) -> str:
    """The lines on a datapoint; the first begins with `title`."""
    heading = f"{title}: {', '.join(cell for cell in cells_of(datapoint, 0) if cell)}"
    parts = list(shown_parts(datapoint, 0))
    if not parts:
        return heading
    rows = list(_table_lines(parts, 1, COMPONENTS))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths) if width).rstrip() for row in rows]
    return "\n".join([heading, *lines])


def _table_lines(parts: list[tuple[str, Any]], depth: int, most: int) -> Iterator[TableLine]:
    """A line for each part, and below it the lines for its own parts."""
    indent = "  " * depth
    for name, value in parts[:most]:
        yield (indent + name, *cells_of(value, depth))
        yield from _table_lines(list(shown_parts(value, depth)), depth + 1, NESTED)
    if len(parts) > most:
        yield f"{indent}... and {len(parts) - most} more", "", "", ""


def shown_parts(value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """The named parts of a value that is shown by its parts."""
    if depth >= DEPTH or (depth and is_row_of_numbers(value)):
        return
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield one_line(key), part
    elif isinstance(value, (list, tuple)):
        yield from zip(getattr(value, "_fields", map(str, range(len(value)))), value)
    elif _is_record(value):
        for one in fields(value):
            yield one.name, getattr(value, one.name, None)


def cells_of(value: Any, depth: int) -> tuple[str, str, str]:
    """(type, size, value) of a value; what is shown by its parts has no third."""
    kind = type(value).__name__
    if isinstance(value, np.generic):
        return kind, "", number_word(value)
    if hasattr(value, "dtype") and isinstance(getattr(value, "shape", None), tuple):
        dtype = str(value.dtype).removeprefix("torch.")
        kind = "array" if isinstance(value, np.ndarray) else kind
        return f"{dtype if len(dtype) <= 20 else 'structured'} {kind}", str(tuple(value.shape)), range_of(value)
    if _is_record(value):
        count = len(fields(value))
        return kind, f"{count} field{'s' * (count != 1)}", "" if depth < DEPTH else one_line(value)
    if isinstance(value, (str, bytes, bytearray)):
        return kind, f"length {len(value)}", one_line(value)
    if isinstance(value, (list, tuple, Mapping)):
        return kind, f"length {len(value)}", _inside(value, depth)
    if isinstance(value, (set, frozenset)):
        return kind, f"length {len(value)}", one_line(value)
    return ("None", "", "") if value is None else (kind, "", one_line(value))


def _inside(value: Any, depth: int) -> str:
    """What is in a list or dict, where it is not shown by its parts."""
    if depth and is_row_of_numbers(value):
        return one_line(value) if len(value) <= 4 else range_of(np.asarray(value))
    return "" if depth < DEPTH else one_line(value, brief)


def range_of(array: Any) -> str:
    """From the least to the greatest of an array, and how many are not numbers."""
    try:
        array = np.asarray(array)
    except Exception:  # an array of some library that numpy cannot look into, on a device perhaps
        return ""
    if array.size == 0:
        return "empty"
    if array.dtype.kind in "OUS":
        return one_line(array.ravel()[:5].tolist() if array.ndim else array.item())
    if array.dtype.kind == "b":
        return f"{np.count_nonzero(array)} of {array.size} true"
    try:
        missing = array != array
        known = array[~missing]
        low, high = (known.min(), known.max()) if known.size else (None, None)
    except (TypeError, ValueError):  # structured dtypes have no order
        return ""
    word = "NaT" if array.dtype.kind in "mM" else "NaN"
    if low is None:
        return f"all {word}"
    span = "" if array.dtype.kind == "c" else number_word(low) if array.ndim == 0 else _span(low, high, array.size > 1)
    gaps = int(np.count_nonzero(missing))
    return ", ".join(text for text in (span, f"{gaps} {word}" if gaps else "") if text)


def _span(low: Any, high: Any, several: bool) -> str:
    if low == high:
        return f"all {number_word(low)}" if several else number_word(low)
    return f"{number_word(low)} to {number_word(high)}"


def number_word(value: Any) -> str:
    return f"{float(value):.5g}" if getattr(value, "dtype", np.dtype(int)).kind == "f" else one_line(value, str)


def is_row_of_numbers(value: Any) -> bool:
    """Whether a value is a list or tuple of plain numbers."""
    return isinstance(value, (list, tuple)) and bool(value) and set(map(type, value)) <= {int, float}


def _is_record(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def one_line(value: Any, form: Any = _cell_repr.repr) -> str:
    """A value in one short line, whatever its repr does."""
    try:
        text = " ".join(form(value).split()) if not isinstance(value, str) else form(value)
    except Exception:  # a user's __repr__, or an integer of too many digits
        return f"<{type(value).__name__}>"
    return text if len(text) <= 72 else f"{text[:69]}..."
