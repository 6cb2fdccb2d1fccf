"""What datapoints look like: type, dtype, shape and range of every component, in aligned lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any, TypeAlias

from flowfn import rules
from flowfn.flows import sources
from flowfn.kinds.runs import Checkpoint
from flowfn.seeing.cells import COMPONENTS, NESTED, cells_of, shown_parts
from flowfn.seeing.resuming import in_words, is_state
from flowfn.seeing.sheets import Sheet
from flowfn.seeing.summing import Sums
from flowfn.showing import brief

SHOWN = 4
"""So many datapoints are shown one by one, and of more the first two."""

TableLine: TypeAlias = tuple[str, str, str, str]
"""Name, type, size and value."""


@rules.checked(n=rules.positive)
def describe(
    flow: Any,
    n: int = 2,
    *,
    of: Any = None,
    file: IO[str] | None = None,
    sheet: str | os.PathLike[str] | None = None,
) -> None:
    """Print what the first `n` datapoints of the next epoch consist of: type, size and range of every component.

    `flow` is a flow, or anything that `flow` takes. It is read serially, in this process, and does not advance: what
    was looked at is still there afterwards (an iterator or a queue, which gives each datapoint once, has lost it).
    Arrays are shown by dtype, shape and range, NaN counted apart; strings and bytes by length and beginning; dicts,
    lists, tuples and dataclasses by what is in them. Of more than four datapoints two are shown, and then a table over
    all `n`: of every component the range, how many have NaN or lack it, whether it is the same in all of them
    ("constant"), and whether the last half differs from the first ("drifts": data that is sorted, by class or length).

    `sheet="sheet.png"` puts their images (the first of each datapoint, at most 64) into one picture.

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
    >>> describe([{"x": n / 8, "label": n // 20, "size": 3} for n in range(40)], 40)
    datapoint 0 of 40: dict, length 3
      'x'      float  0.0
      'label'  int    0
      'size'   int    3
    datapoint 1 of 40: dict, length 3
      'x'      float  0.125
      'label'  int    0
      'size'   int    3
    all 40 datapoints: dict, length 3
      'x'      float  0 to 4.875  drifts: 1.188 in the first half, 3.688 in the last
      'label'  int    0 to 1      drifts: 0 in the first half, 1 in the last
      'size'   int    3           constant

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
    number, sums, images = 0, Sums(), Sheet() if sheet is not None else None
    with source._serially(source.seed, source.epoch, Checkpoint()) as datapoints:
        for number, datapoint in enumerate(islice(datapoints, n), 1):
            if number <= (n if n <= SHOWN else 2):
                print(described(datapoint, f"datapoint {number - 1}{total}"), file=file, flush=True)
            if n > SHOWN:
                sums.add(datapoint)
            if images is not None:
                images.add(datapoint)
    if number > 2 and n > SHOWN:
        print(sums.table(), file=file, flush=True)
    if images is not None and sheet is not None:
        images.save(sheet)
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
