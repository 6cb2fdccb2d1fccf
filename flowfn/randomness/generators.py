"""Random numbers that depend on what is computed, never on who computes it.

A key is a hash of (seed, stage name, ordinal, epoch). Below it, Philox (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011) is a function from (key, counter) to bits; the counter's words are (draws, sub-index, index,
0), so datapoints never share numbers, and any of them can be had without the others.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np

Label: TypeAlias = "int | tuple[int, int]"
"""A datapoint's own index: an int, or below an expand stage (index, sub-index)."""

ORDER_VERSION = 1
"""Moves when the library's own orders change; it is part of every fingerprint."""

UNIFORM_BELOW = 1 << 16
ROUNDS = 6
_WORD = (1 << 64) - 1
_HALF = np.array(32, np.uint64)


def hashed(*parts: Any) -> int:
    """128 bits that depend on nothing but the value of `parts` (ints, strings and tuples of them).

    >>> hashed(0, "shuffle", 0, (0,)) == hashed(0, "shuffle", 0, (0,))
    True
    """
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=16).digest(), "little")


def deepen(label: Label, ordinal: int) -> tuple[int, int]:
    """The label of output `ordinal` of the datapoint labelled `label`; deeper lineages are hashed into two words."""
    if isinstance(label, int):
        return label, ordinal
    words = hashed(*label, ordinal)
    return words & _WORD, words >> 64


def generator(key: int) -> np.random.Generator:
    """A generator at the start of the stream of `key`."""
    return np.random.Generator(np.random.Philox(key=key))


def rekey(rng: np.random.Generator, label: Label) -> None:
    """Move a generator to the start of the numbers of `label`."""
    state: Any = rng.bit_generator.state
    index, sub = label if isinstance(label, tuple) else (label, 0)
    state["state"]["counter"][:] = (0, sub, index, 0)
    state["buffer_pos"], state["has_uint32"] = 4, 0
    rng.bit_generator.state = state


def generators(key: int, labels: Iterable[Label]) -> Iterator[np.random.Generator]:
    """One generator for each label; it is valid until the next is taken."""
    bits = np.random.Philox(key=key)
    state = bits.state
    counter = state["state"]["counter"]
    rng = np.random.Generator(bits)
    for label in labels:
        if type(label) is tuple:
            counter[2], counter[1] = label
        else:
            counter[2], counter[1] = label, 0
        bits.state = state
        yield rng


def bounded(rng: np.random.Generator) -> Generator[int, int, None]:
    """A coroutine of uniform integers: send n, get one of 0 to n - 1 (from raw bits: the same in every numpy)."""
    value = 0
    while True:
        for bits in rng.bit_generator.random_raw(256).tolist():
            bound = yield value
            value = bits * bound >> 64


class Permutation:
    """A permutation of range(n), computed index by index in memory that does not grow with n.

    Up to 65 536 it is a table, uniform among all permutations (random keys are sorted, equal ones by their index).
    Above, it is a six-round Feistel network on a grid of about sqrt(n) by sqrt(n) cells, adding modulo the sides, so
    it is a bijection for every n: the few results that fall outside n (far fewer than one in sqrt(n)) are sent through
    again until they fall inside (cycle-walking; Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA
    2002).

    >>> sorted(Permutation(10, key=1)[np.arange(10)].tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(self, n: int, key: int) -> None:
        self.n, self.key = n, key
        self._table: np.ndarray | None = None
        self._network: Network | None = None

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> np.ndarray:
        """Where the indices (a slice or an int64 array) go."""
        if self.n <= UNIFORM_BELOW:
            if self._table is None:
                self._table = _sorted_keys(self.n, self.key)
            return self._table[index]
        if self._network is None:
            self._network = Network(self.n, self.key)
        if isinstance(index, slice):
            index = np.arange(*index.indices(self.n))
        return self._network(np.asarray(index, np.int64).astype(np.uint64)).astype(np.int64)


def _sorted_keys(n: int, key: int) -> np.ndarray:
    """The indices in the order of random keys. Two radix passes sort by the upper half of these, in which few are
    alike: they are put in their places one by one."""
    low = max(n - 1, 1).bit_length()
    keys = np.random.Philox(key=key).random_raw(n) >> np.uint64(low)
    upper, lower = ((keys >> np.uint64(bits - low)).astype(np.uint16) for bits in (48, 32))
    table = np.argsort(lower, kind="stable")
    table = table[np.argsort(upper[table], kind="stable")]
    upper, lower = upper[table], lower[table]
    alike = np.flatnonzero((upper[1:] == upper[:-1]) & (lower[1:] == lower[:-1]))
    while len(wrong := alike[keys[table[alike]] > keys[table[alike + 1]]]):
        for at in wrong.tolist():
            table[[at, at + 1]] = table[[at + 1, at]]
    return table


class Network:
    """A keyed bijection of range(n) by a Feistel network; `tweak` (one for each index) gives another bijection each."""

    def __init__(self, n: int, key: int) -> None:
        root = math.isqrt(n - 1) + 1
        side = min(
            range(root, root + 1 + min(root // 4, 64)), key=lambda width: -n % width
        )  # the fewer cells outside n, the fewer walks
        self.n, self.sides = n, (side, -(-n // side))
        constants = np.random.Philox(key=key).random_raw(3 * ROUNDS).reshape(ROUNDS, 3) | np.uint64(1)
        # 0-d arrays: with scalars made anew, numpy's calls would take longer than their work
        self.constants = [[np.array(constant) for constant in round] for round in constants]
        self.width, self.height = (np.array(side, np.uint64) for side in self.sides)

    def __call__(self, x: np.ndarray, tweak: np.ndarray | None = None) -> np.ndarray:
        y = self._once(x, tweak)
        outside = np.flatnonzero(y >= self.n)
        while len(outside):
            y[outside] = self._once(y[outside], None if tweak is None else tweak[outside])
            outside = outside[y[outside] >= self.n]
        return y

    def _once(self, x: np.ndarray, tweak: np.ndarray | None) -> np.ndarray:
        high = x // self.width
        low = x - high * self.width
        mixed, shifted = np.empty_like(x), np.empty_like(x)
        for number, (add, first, second) in enumerate(self.constants):
            moved, fixed, side = (low, high, self.width) if number % 2 else (high, low, self.height)
            np.add(fixed, add, mixed)
            if tweak is not None:
                np.add(mixed, tweak, mixed)
            np.multiply(mixed, first, mixed)
            np.right_shift(mixed, _HALF, shifted)
            np.bitwise_xor(mixed, shifted, mixed)
            np.multiply(mixed, second, mixed)
            np.right_shift(mixed, _HALF, mixed)  # 32 good bits, scaled to [0, side)
            np.multiply(mixed, side, mixed)
            np.right_shift(mixed, _HALF, mixed)
            np.add(moved, mixed, moved)
            np.subtract(moved, side, shifted)
            np.minimum(moved, shifted, out=moved)  # modulo: below zero wraps to huge
        np.multiply(high, self.width, high)
        return np.add(high, low, high)


class WindowPermutation:
    """A permutation of range(n) that moves nothing by `window` or more: two layers of small ones, half a tile apart.

    >>> order = WindowPermutation(100, 8, key=1)[np.arange(100)]
    >>> sorted(order.tolist()) == list(range(100)), int(abs(order - np.arange(100)).max()) < 8
    (True, True)
    """

    def __init__(self, n: int, window: int, key: int) -> None:
        self.n, self.tile, self.key = n, min((window + 1) // 2, max(n, 1)), key
        self._networks: dict[tuple[int, int], Network] = {}

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> np.ndarray:
        """Where the indices (a slice or an int64 array) go."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(self.n))
        x = np.asarray(index, np.int64)
        return self._layer(self._layer(x, 0, 0), 1, self.tile // 2)

    def _layer(self, x: np.ndarray, layer: int, offset: int) -> np.ndarray:
        tile = (x + offset) // self.tile
        start = np.maximum(tile * self.tile - offset, 0)
        size = np.minimum((tile + 1) * self.tile - offset, self.n) - start
        y = np.empty_like(x)
        for length in np.unique(size).tolist():
            here = size == length
            within = (x[here] - start[here]).astype(np.uint64)
            y[here] = start[here] + self._network(layer, length)(within, _tile_keys(tile[here])).astype(np.int64)
        return y

    def _network(self, layer: int, length: int) -> Network:
        if (layer, length) not in self._networks:
            self._networks[layer, length] = Network(length, hashed(self.key, layer, length))
        return self._networks[layer, length]


def _tile_keys(numbers: np.ndarray) -> np.ndarray:
    """Tile numbers spread over 64 bits, so that a small tile's few inputs meet unrelated keys."""
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)


def drawn_key(rng: np.random.Generator) -> int:
    """128 bits, drawn from a generator."""
    low, high = rng.bit_generator.random_raw(2).tolist()
    return int(low | high << 64)


def permutation(n: int, rng: np.random.Generator, window: int | None = None) -> Permutation | WindowPermutation:
    """A random permutation of range(n), to be indexed by slices and int64 arrays."""
    key = drawn_key(rng)
    return Permutation(n, key) if window is None else WindowPermutation(n, window, key)
