"""Sources that make their datapoints up: the files that match a pattern, arrays of random numbers."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from flowfn import rules
from flowfn.blocks import Block, each_index
from flowfn.datapoints.columns import readonly
from flowfn.flows.flow import Flow
from flowfn.flows.sources import SequenceNode, Source
from flowfn.flows.translating import speaks
from flowfn.kinds.runs import Length, Outputs, Run
from flowfn.randomness.generators import generator, generators, hashed
from flowfn.showing import as_called, brief

_PATTERN = rules.Rule(
    "a path, a glob pattern, or a list of them",
    lambda value: bool(_patterns(value)),
    lambda value, others: all(_patterns(value)),
)
_SHAPES = rules.Rule(
    "a shape (a tuple of integers >= 0), or a list or dict of shapes",
    lambda value: isinstance(value, (tuple, list, Mapping)),
    lambda value, others: _are_shapes(value),
)
_ONE = {"dtype": "a dtype of floats, integers or bools", "domain": "two numbers (low, high)"}


# Files


@speaks
@rules.checked(pattern=_PATTERN)
def files(pattern: Any) -> Flow[str]:
    """A flow of the paths of the files that match a glob pattern, as strings in natural order ("img2" before "img10").

    `pattern` is a string, an os.PathLike, or a list of them, each of which has to match something; `*`, `?` and `[...]`
    stand for parts of a name, `**` for any number of folders, a leading `~` for the home folder. Folders do not count
    as files; names that begin with a dot match only patterns that say so. The files are listed once, in this call; each
    path comes once, compared folder by folder.

    Raises:
        FileNotFoundError: no file matches; the message names the folder that does exist.
            Or one is a link to what is gone.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("img10.png", "img2.png", "notes.txt"):
    ...         open(os.path.join(folder, name), "w").close()
    ...     [os.path.basename(path) for path in files(folder + "/*.png")]
    ['img2.png', 'img10.png']
    """
    patterns = _patterns(pattern)
    try:
        found = dict.fromkeys(path for one in patterns for path in matching(one))
    except OSError as error:
        raise type(error)(f"files(): {error}") from None
    shown = repr(patterns if isinstance(pattern, (list, tuple)) else patterns[0])
    return Flow(Source(_in_natural_order(found), SequenceNode, name="files", shown=f"files({shown})"))


def _patterns(pattern: Any) -> list[str]:
    """The patterns in an argument, none if there is anything else in it."""
    several = list(pattern) if isinstance(pattern, (list, tuple)) else [pattern]
    given = [os.fspath(one) if isinstance(one, (str, os.PathLike)) else None for one in several]
    return given if all(isinstance(one, str) for one in given) else []  # type: ignore[return-value]


def matching(pattern: str, folders: bool = False) -> list[str]:
    """The files (and with `folders` the folders) that match a pattern, in natural order.

    Raises:
        FileNotFoundError: there are none, or one is a link whose target is gone.
        PermissionError: the folder in which they would lie cannot be listed.
    """
    expanded = os.path.expanduser(pattern)
    paths = glob.glob(expanded, recursive=True) or [expanded] * os.path.lexists(
        expanded
    )  # a name may have brackets in it
    for path in paths:
        if os.path.islink(path) and not os.path.exists(path):
            raise FileNotFoundError(
                f"{path!r} is a link to {os.readlink(path)!r}, which is not there; restore that, or remove the link"
            )
    wanted = [path for path in paths if folders or os.path.isfile(path)]
    if not wanted:
        _refuse(pattern, expanded)
    return _in_natural_order(dict.fromkeys(wanted))


def _refuse(pattern: str, expanded: str) -> NoReturn:
    folder = next((parent for parent in Path(expanded).parents if parent.is_dir()), None)
    if folder is not None and not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(
            f"no file can be looked for that matches {pattern!r}: the folder {str(folder)!r} may not be listed"
        )
    raise FileNotFoundError(f"no file matches {pattern!r}; {_what_there_is(expanded)}")


def _what_there_is(pattern: str) -> str:
    if os.path.isdir(pattern):
        inside, below = os.path.join(pattern, "*"), os.path.join(pattern, "**")
        return f"it is a folder: write {inside!r} for the files in it, {below!r} for those in its folders too"
    path = Path(pattern)
    folder = next((parent for parent in path.parents if parent.is_dir()), None)
    if folder is None:
        return "nor is there any folder on the way to it"
    missing = folder / path.relative_to(folder).parts[0] if path != folder else path
    exists = f"the folder {str(folder if folder.parts else folder.absolute())!r} exists"
    return exists if missing == path or glob.has_magic(missing.name) else f"{exists}, {str(missing)!r} does not"


def _in_natural_order(paths: Mapping[str, Any]) -> list[str]:
    """Paths folder by folder, numbers in names by their value; what is left equal, by its characters."""
    folders: dict[str, tuple[Any, ...]] = {}

    def key(path: str) -> tuple[Any, str]:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = tuple(map(_natural_order, folder.replace(os.altsep or os.sep, os.sep).split(os.sep)))
        return (*folders[folder], _natural_order(name)), path

    return sorted(paths, key=key)


def _natural_order(name: str) -> list[Any]:
    """A name as texts and numbers, by turns."""
    parts: list[Any] = re.split("([0-9]+)", name)
    parts[1::2] = map(int, parts[1::2])
    return parts


# Made-up arrays


@speaks
@rules.checked(size=rules.optional(rules.natural), random=rules.boolean, shapes=_SHAPES)
def fake(
    shapes: Any, size: int | None = 1000, *, random: bool = True, dtype: Any = "float32", domain: Any = (0, 1)
) -> Flow[Any]:
    """A flow of made-up arrays, to measure a pipeline or to try it out without data.

    One shape (a tuple) gives bare arrays, a list of shapes lists of arrays, a dict of shapes dicts. Numbers are uniform
    in `domain` = (low, high), `high` left out; bools are True half of the time, whatever the domain. `dtype` and
    `domain` are one for all components, or a list or dict with one for each. `size` is the number of datapoints, None
    for no end.

    With `random=True` every datapoint has its own numbers, fixed by seed, epoch and index. With `random=False` the same
    read-only arrays come again and again, made once in a pass.

    Raises:
        TypeError, ValueError: `shapes` are no shapes, or `dtype` and `domain` do not fit them or each other.

    >>> flow = fake([(2, 2), (3,)], 10, dtype=["uint8", "float32"], domain=[(0, 256), (-1, 1)])
    >>> [(array.dtype.name, array.shape) for array in flow[7]], len(flow)
    ([('uint8', (2, 2)), ('float32', (3,))], 10)
    >>> fake({"x": (3,)}, None, random=False)[10**9]["x"].shape
    (3,)
    """
    named: dict[Any, Any] | None = (
        None if _is_shape(shapes) else dict(shapes if isinstance(shapes, Mapping) else enumerate(shapes))
    )
    dtypes = _for_each("dtype", dtype, named, not isinstance(dtype, (list, tuple, Mapping)))
    domains = _for_each("domain", domain, named, _is_interval(domain))
    parts = map(_component, [shapes] if named is None else named.values(), dtypes, domains)
    spec = Fake(tuple(parts), tuple(shapes) if isinstance(shapes, Mapping) else None, named is None, size)
    options = {"random": (random, True), "dtype": (dtype, "float32"), "domain": (domain, (0, 1))}
    words = {name: repr(given) for name, (given, usual) in options.items() if given != usual}
    shown = as_called("fake", repr(shapes), *[repr(size)] * (size != 1000), **words)
    return Flow(Source(spec, FakeNode, random=random, name="fake", shown=shown))


@dataclass(frozen=True, slots=True)
class Component:
    """What one component of a made-up datapoint is like."""

    shape: tuple[int, ...]
    dtype: np.dtype
    low: Any
    high: Any

    def drawn(self, rng: np.random.Generator) -> np.ndarray:
        """An array of it."""
        if self.dtype.kind == "b":
            return np.asarray(rng.integers(0, 2, self.shape, np.bool_))
        if self.dtype.kind in "iu":
            native: Any = self.dtype.newbyteorder("=")
            return np.asarray(rng.integers(self.low, self.high, self.shape, native)).astype(self.dtype, copy=False)
        numbers: Any = np.asarray(rng.random(self.shape, np.float32 if self.dtype.itemsize <= 4 else np.float64))
        if (self.low, self.high) != (0, 1):
            numbers *= self.high - self.low
            numbers += self.low
        drawn = numbers.astype(self.dtype, copy=False)
        if (self.low, self.high) != (0, 1) or self.dtype.itemsize < 4:  # rounding may have reached `high`
            np.minimum(drawn, np.nextafter(self.dtype.type(self.high), self.dtype.type(self.low)), out=drawn)
        return drawn


@dataclass(frozen=True, slots=True)
class Fake:
    """What made-up datapoints are like, and how many there are."""

    components: tuple[Component, ...]
    keys: tuple[Any, ...] | None
    bare: bool
    size: int | None

    def datapoint(self, rng: np.random.Generator) -> Any:
        """A datapoint of new arrays."""
        return self.arranged([component.drawn(rng) for component in self.components])

    def arranged(self, arrays: list[np.ndarray]) -> Any:
        """Arrays in the form of a datapoint."""
        return arrays[0] if self.bare else list(arrays) if self.keys is None else dict(zip(self.keys, arrays))


class FakeNode(SequenceNode):
    """Makes a datapoint when it is asked for it; where they are all the same, the arrays once in a pass."""

    def length(self, run: Run) -> Length:
        """As many as were asked for."""
        size = self.part.object.size
        return math.inf if size is None else size

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """Each from its own generator."""
        spec: Fake = self.part.object
        if not self.part.random:
            arrays = run.once("fake", self.place, self._constant)
            return Outputs((spec.arranged(arrays) for _ in each_index(series)), self)
        return Outputs(map(spec.datapoint, generators(self.key(run), self.each_label(run, series))), self)

    def _constant(self) -> list[np.ndarray]:
        rng = generator(hashed("fake"))
        return [readonly(component.drawn(rng)) for component in self.part.object.components]


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(rules.is_integer(side) and side >= 0 for side in value)


def _are_shapes(value: Any) -> bool:
    several = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    return bool(several) and all(map(_is_shape, several))


def _is_interval(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(rules.is_number, value))


def _for_each(name: str, option: Any, named: Mapping[Any, Any] | None, one: bool) -> list[Any]:
    """The value of an option for each component."""
    if one:
        return [option] * (1 if named is None else len(named))
    if named is not None and isinstance(option, Mapping) and option.keys() == named.keys():
        return [option[key] for key in named]
    if named is not None and isinstance(option, (list, tuple)) and len(option) == len(named):
        return list(option)
    several = "" if named is None else f", or one for each of the components {list(named)}"
    raise ValueError(f"fake(): {name} must be {_ONE[name]}{several}, got {brief(option)}")


def _component(shape: tuple[int, ...], dtype: Any, domain: Any) -> Component:
    try:
        kind: Any = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if dtype is None or kind.kind not in "biuf":
        raise TypeError(f"fake(): dtype must be {_ONE['dtype']}, got {dtype!r}")
    if not _is_interval(domain):
        raise TypeError(f"fake(): domain must be {_ONE['domain']}, got {brief(domain)}")
    low, high = domain
    if kind.kind in "iu":
        least, most = np.iinfo(kind).min, np.iinfo(kind).max
        if not (float(low).is_integer() and float(high).is_integer() and least <= low < high <= most + 1):
            raise ValueError(
                f"fake(): domain must be two integers low < high within {least} and {most + 1} for {kind}, got "
                f"{domain!r}"
            )
        low, high = int(low), int(high)
    elif kind.kind == "f":
        limit = float(np.finfo(kind if kind.itemsize <= 8 else float).max)
        fits = all(abs(end) <= limit for end in domain)
        low, high = (float(kind.type(end)) for end in domain) if fits else (0.0, 0.0)
        if not 0 < high - low <= limit:
            raise ValueError(
                f"fake(): domain must be two finite numbers low < high that {kind} tells apart, got {domain!r}"
            )
    return Component(tuple(map(int, shape)), kind, low, high)
