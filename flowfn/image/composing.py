"""Augmentors made of augmentors: one after the other, sometimes, one of several, in any order;
and any function as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.functions import mistaken
from flowfn.image import arguments
from flowfn.image.adapting import adapted
from flowfn.image.transforms import Augmentor, Identity, Shape, Transform, composed
from flowfn.showing import as_written, brief

_CHOICE_WEIGHTS = rules.Rule(
    "a list of numbers >= 0, one for each augmentor, not all 0",
    lambda value: isinstance(value, (list, tuple)) and all(map(rules.is_number, value)),
    lambda value, others: len(value) == len(others["augmentors"]) and min(value) >= 0 and 0 < sum(value) < float("inf"),
)


def as_augmentor(value: Any, who: str) -> Augmentor:
    """An augmentor as it is, a list of them as their sequence, another library's adapted,
    a function as `map_image(function)`."""
    if isinstance(value, Augmentor):
        return value
    foreign = adapted(value)
    if foreign is not None:
        return foreign
    if isinstance(value, (list, tuple)):
        return sequence(value)
    if isinstance(value, type) and issubclass(value, Augmentor):
        raise TypeError(f"{who}(): {value.__name__} is an augmentor without its arguments: write {value.__name__}(...)")
    slip = mistaken(value, {}, gets="an image") if callable(value) else brief(value)
    if slip or hasattr(value, "instead"):
        got = slip or getattr(value, "__name__", value)
        raise TypeError(f"{who}(): augmentors must be augmentors, lists of them, or functions of an image, got {got}")
    return map_image(value)


def _as_augmentors(values: Any, who: str, least: int = 0) -> tuple[Augmentor, ...]:
    if isinstance(values, Augmentor) or not isinstance(values, (list, tuple)):
        raise TypeError(f"{who}(): augmentors must be a list of augmentors, got {brief(values)}; write {who}([...])")
    if len(values) < least:
        raise ValueError(f"{who}(): augmentors must be a list of at least one augmentor, got {brief(values)}")
    return tuple(as_augmentor(value, who) for value in values)


@dataclass(frozen=True, repr=False)
class identity(Augmentor):
    """Do nothing: what is given comes out itself.

    >>> identity()((2, 3), np.random.default_rng(0))
    Identity()
    """

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Nothing is drawn."""
        return Identity()


@dataclass(frozen=True)
class Mapped(Transform):
    """A function of the image; masks and coordinates stay, so it should leave every pixel where it is."""

    function: Callable[[np.ndarray], np.ndarray]

    def image(self, image: np.ndarray) -> np.ndarray:
        """What the function returns."""
        return self.function(image)

    def __repr__(self) -> str:
        return f"Mapped({as_written(self.function)})"


@dataclass(frozen=True, repr=False)
class map_image(Augmentor):
    """Apply `function(image)`, which returns an image of the same height and width with every pixel where it was.

    It is given the image itself and not a copy, so it must not write into it.

    >>> invert = map_image(np.invert)
    >>> invert((1, 2), np.random.default_rng(0)).image(np.array([[0, 255]], np.uint8))
    array([[255,   0]], dtype=uint8)
    >>> invert
    map_image(invert)
    """

    function: Callable[[np.ndarray], np.ndarray]

    def __post_init__(self) -> None:
        self.check(function=rules.function)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Nothing is drawn."""
        return Mapped(self.function)

    def __repr__(self) -> str:
        return f"map_image({as_written(self.function)})"


@dataclass(frozen=True, repr=False)
class sequence(Augmentor):
    """Augmentors, one after the other: each sees the shape that comes out of those before it.

    Each is an augmentor, a list of them, a transform of albumentations or torchvision,
    or a function of an image (`map_image`).

    >>> from flowfn.image import flip, random_crop
    >>> sequence([random_crop(2), flip(horizontal=True)])((4, 4, 3), np.random.default_rng(0)).shape((4, 4, 3))
    (2, 2, 3)
    """

    augmentors: Sequence[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentors", _as_augmentors(self.augmentors, "sequence"))

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw from one after the other."""
        return _one_after_another(self.augmentors, image_shape, rng)


@dataclass(frozen=True, repr=False)
class apply_randomly(Augmentor):
    """Apply an augmentor with a probability; the augmentor draws either way.

    >>> from flowfn.image import resize
    >>> sometimes = apply_randomly(resize(2), 0.5)
    >>> rng = np.random.default_rng(0)
    >>> [sometimes((4, 4), rng).shape((4, 4)) for _ in range(3)]
    [(4, 4), (2, 2), (2, 2)]
    """

    augmentor: Any
    probability: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentor", as_augmentor(self.augmentor, "apply_randomly"))
        self.check(probability=arguments.probability)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Decide, and draw from the augmentor."""
        chosen = rng.random() < self.probability
        transform = self.augmentor(image_shape, rng)
        return transform if chosen else Identity()


@dataclass(frozen=True, repr=False)
class choose(Augmentor):
    """Apply one of the augmentors: all alike, or as often as `weights` (one for each, relative to their sum) say.

    The one that is chosen draws from a generator of its own, so that what comes after draws the same whichever it is.

    >>> from flowfn.image import flip, resize
    >>> choose([resize(2), resize(3)], weights=[0, 1])((4, 4), np.random.default_rng(0)).shape((4, 4))
    (3, 3)
    >>> choose([flip(horizontal=True), resize(3)])
    choose([flip(horizontal=True), resize(3)])
    """

    augmentors: Sequence[Any]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentors", _as_augmentors(self.augmentors, "choose", 1))
        if self.weights is not None:
            value = _CHOICE_WEIGHTS.check("choose", "weights", self.weights, {"augmentors": self.augmentors})
            object.__setattr__(self, "weights", tuple(value))

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Choose, and let the chosen one draw."""
        share, seed = rng.random(), int(rng.integers(1 << 62))
        if self.weights is None:
            index = int(share * len(self.augmentors))
        else:
            bounds = np.cumsum(self.weights)
            index = int(np.searchsorted(bounds, share * bounds[-1], side="right"))
        return self.augmentors[index](image_shape, np.random.default_rng(seed))


@dataclass(frozen=True, repr=False)
class shuffled(Augmentor):
    """Apply all of the augmentors, in an order that is drawn.

    >>> from flowfn.image import random_crop, resize
    >>> shuffled([resize(8), random_crop(2)])((4, 4), np.random.default_rng(0)).shape((4, 4))
    (8, 8)
    """

    augmentors: Sequence[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentors", _as_augmentors(self.augmentors, "shuffled"))

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw the order, then from one after the other."""
        order = np.argsort(rng.random(len(self.augmentors)), kind="stable").tolist()
        return _one_after_another([self.augmentors[index] for index in order], image_shape, rng)


def _one_after_another(augmentors: Sequence[Augmentor], image_shape: Shape, rng: np.random.Generator) -> Transform:
    transforms: list[Transform] = []
    for augmentor in augmentors:
        if transforms:
            image_shape = transforms[-1].shape(image_shape)
        transforms.append(augmentor(image_shape, rng))
    return composed(transforms)
