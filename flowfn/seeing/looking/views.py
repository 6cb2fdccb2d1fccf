"""What is seen of a datapoint: a tree of bounded views, one for each component, made before the next stage goes on."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from flowfn.parallel.tasks.task import weight
from flowfn.rules import is_number
from flowfn.seeing import pictures
from flowfn.seeing.cells import COMPONENTS, NESTED, cells_of, is_row_of_numbers, one_line, range_of, shown_parts
from flowfn.seeing.looking.overlays import overlays_of
from flowfn.showing import brief

SAMPLED = 1 << 22
"""Of arrays with more numbers than this, evenly spaced ones are looked at."""
TEXT = 400
"""So many characters of a text are shown, and of the words that tokens stand for."""
TOKENS, NUMBER, ROWS = 128, 32, 200
"""So many tokens of a row are decoded, so many boxes of a list drawn; a number of Python has about so many bytes."""
RATES = ("rate", "sample_rate", "sampling_rate", "sr")


@dataclass(frozen=True, slots=True)
class View:
    """What is seen of a value: its name in what it is a part of, (type, size, range) in words, a checksum of what is in
    it, how it is drawn (`form`) and with what (`drawn`); its parts, and how many more it has.

    `mark` is how it differs from the one before: "new", "type", "size", "values", "" or, where nothing stood, None.
    """

    name: str
    words: tuple[str, str, str]
    sum: int
    bytes: int = 0
    form: str = ""
    drawn: Any = None
    parts: tuple[View, ...] = ()
    more: int = 0
    mark: str | None = None
    gone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sight:
    """How to look: what makes words of token ids, and how many samples of sound make a second."""

    decode: Callable[[Any], Any] | Mapping[Any, Any] | None = None
    rate: float | None = None
    known: dict[Any, tuple[str, Any]] = field(default_factory=dict, compare=False)

    def whatever(self, value: Any) -> View:
        """A view of a datapoint, whatever it is: one that cannot be looked into is shown by its type."""
        try:
            return self.of(value)
        except Exception as error:
            return View("", (type(value).__name__, "", f"{type(error).__name__}: {error}"), 0)

    def of(self, value: Any, name: str = "", depth: int = 0) -> View:
        """A view of a value and of all that is in it."""
        array = _axes_of(value)
        if array is not None:
            return self._array(value, array, name)
        if (depth or (isinstance(value, list) and len(value) > COMPONENTS)) and is_row_of_numbers(value):
            return self._row(value, np.asarray(value), name)
        named = list(shown_parts(value, depth))
        most = NESTED if depth else COMPONENTS
        sight, over = self._hearing(value), overlays_of([(key, _as_table(part)) for key, part in named[:most]])
        views = tuple(
            replace(sight._within(key).of(part, key, depth + 1), **over.get(number, {}))
            for number, (key, part) in enumerate(named[:most])
        )
        drawn = {} if named else dict(zip(("form", "drawn"), self._plain(value)))
        summed = zlib.crc32(repr([type(value).__name__, len(named), *((one.name, one.sum) for one in views)]).encode())
        whole = summed if named and len(views) == len(named) else zlib.crc32(_said_of(value), summed)
        more = len(named) - len(views)
        size = _view_bytes(value, views, more)
        return View(name, cells_of(value, depth), whole, size, parts=views, more=more, **drawn)

    def _within(self, name: str) -> Sight:
        """The same for a component, where each may have its own words."""
        if not isinstance(self.decode, Mapping):
            return self
        own = (decode for key, decode in self.decode.items() if name in (str(key), repr(key)))
        return replace(self, decode=next(own, self.decode))

    def _hearing(self, value: Any) -> Sight:
        """The same, where what is in a value is sound of the rate that stands beside it."""
        if self.rate is None and isinstance(value, Mapping):
            known: list[Any] = [value.get(key) for key in RATES]
            rates = [rate for rate in known if is_number(rate) and 1 <= rate < 1e7]
            return replace(self, rate=rates[0]) if rates else self
        return self

    def _array(self, value: Any, array: np.ndarray, name: str) -> View:
        few = sampled(array)
        kind, size, words = cells_of(value if few is array else few, 0)
        if few is not array:
            kind, size, words = *cells_of(value[:0], 0)[:1], str(tuple(array.shape)), f"about {words}"
        summed = _sum_of(few)
        form, drawn = self._drawn(array, few, (kind, size, summed))
        return View(name, (kind, size, words), summed, int(array.nbytes), form, drawn)

    def _row(self, value: Any, array: np.ndarray, name: str) -> View:
        """A list of plain numbers."""
        range_shown = one_line(value) if len(value) <= 4 else range_of(sampled(array))
        words = type(value).__name__, f"length {len(value)}", range_shown
        summed = zlib.crc32(array.tobytes())
        plain = array.dtype.kind == "O"  # numbers too large for any array
        form, drawn = ("", None) if plain else self._drawn(array, array, (*words[:2], summed))
        return View(name, words, summed, NUMBER * len(value), form, drawn)

    def _drawn(self, array: np.ndarray, few: np.ndarray, content: tuple[str, str, int]) -> tuple[str, Any]:
        """How an array is drawn; what has passed a stage as it was is not drawn again."""
        key = (*content, id(self.decode), self.rate)
        if key not in self.known:
            self.known[key] = self._drawn_anew(array, few)
        return self.known[key]

    def _drawn_anew(self, array: np.ndarray, few: np.ndarray) -> tuple[str, Any]:
        if callable(self.decode) and array.dtype.kind in "iu" and 1 <= array.ndim <= 2 and array.size:
            return "tokens", self._tokens(array)
        return pictures.drawn(array, few, self.rate)

    def _tokens(self, array: np.ndarray) -> list[str]:
        """The words of the first tokens of the first rows."""
        return [self._decoded(row[:TOKENS]) + " …" * (len(row) > TOKENS) for row in np.atleast_2d(array)[:4]]

    def _decoded(self, ids: Any) -> str:
        try:
            decode: Any = self.decode
            return str(decode(ids.tolist()))[:TEXT]
        except Exception as error:  # padding, perhaps, that stands for no word
            return f"decode: {type(error).__name__}: {error}"[:TEXT]

    def _plain(self, value: Any) -> tuple[str, Any]:
        """How something is drawn that is no array and has no parts."""
        if isinstance(value, str):
            return "text", value[:TEXT] + "…" * (len(value) > TEXT)
        if isinstance(value, (bytes, bytearray)):
            return pictures.of_file(bytes(value))
        return "", None


def compared(view: View, before: View) -> View:
    """A view with marks for what is not as it was before."""
    known = {part.name: part for part in before.parts}
    parts = (
        view.parts
        if not known
        else tuple(
            compared(part, known[part.name]) if part.name in known else replace(part, mark="new") for part in view.parts
        )
    )
    gone = tuple(name for name in known if name not in {part.name for part in view.parts}) if not before.more else ()
    return replace(view, parts=parts, gone=gone, mark=_difference(view, before))


def _difference(view: View, before: View) -> str:
    if view.sum == before.sum and view.words == before.words:
        return ""
    return next((word for word, a, b in zip(("type", "size"), view.words, before.words) if a != b), "values")


def sampled(array: np.ndarray) -> np.ndarray:
    """An array, or so much of a large one that it can be looked at in no time."""
    while array.size > SAMPLED:
        longest = int(np.argmax(array.shape))
        array = array[(slice(None),) * longest + (slice(None, None, max(2, min(array.size // SAMPLED, 16))),)]
    return array


def _axes_of(value: Any) -> np.ndarray | None:
    """A value as an array, if it is one with axes, of whatever library."""
    if not hasattr(value, "dtype") or not getattr(value, "shape", ()):
        return None
    try:
        detached = value.detach().cpu() if hasattr(value, "detach") else value
        array = np.asarray(detached.float() if str(value.dtype) == "torch.bfloat16" else detached)
    except Exception:  # of some library that numpy cannot look into
        return None
    return array if array.dtype.kind in "biufc" else None


def _as_table(value: Any) -> np.ndarray | None:
    """The same, and of a short list of rows of numbers."""
    array = _axes_of(value)
    rows = value if isinstance(value, (list, tuple)) and len(value) <= ROWS else ()
    if array is None and rows and all(map(is_row_of_numbers, rows)) and len(set(map(len, rows))) == 1:
        return np.array(rows, np.float64)
    return array


def _sum_of(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"", len(array.shape))


def _view_bytes(value: Any, parts: Sequence[View], others: int) -> int:
    """About how many bytes a value has: of many parts, the others are taken to be like the first."""
    if parts:
        return sum(part.bytes for part in parts) * (len(parts) + others) // len(parts)
    if isinstance(value, (list, tuple)):
        return NUMBER * len(value)
    try:
        return weight(value)
    except Exception:  # of a tensor that has no memory of its own
        return 0


_short = partial(brief, depth=2)


def _said_of(value: Any) -> bytes:
    """What is looked at of a value that is shown by no parts, to tell whether it is another."""
    if isinstance(value, str):
        return value.encode("utf8", "surrogatepass")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return one_line(value, _short).encode("utf8", "surrogatepass")
