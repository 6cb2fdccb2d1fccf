"""JAX: datapoints as its arrays, on a device or spread over a mesh of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.datapoints.components import component, replaced, with_leaves
from flowfn.extras import needed
from flowfn.flows.stages import pipe, stage
from flowfn.kinds.nodes import Each
from flowfn.parallel import prefetch
from flowfn.showing import brief


@stage.composite(where={"ahead": rules.positive, "narrow": rules.boolean})
def to_jax(source: Any, *, sharding: Any = None, ahead: int = 2, narrow: bool = False) -> Any:
    """Arrays and NumPy's numbers become arrays of JAX, on their way while those before them are computed with.

    `ahead` datapoints of any form are on the device or on their way to it, by a thread in the background; the state of
    a pass is that of what was delivered. It stays in the process that iterates, wherever it stands; put it last, behind
    `prefetch(processes=n)`, since worker processes that get arrays of JAX start a JAX of their own. Strings, None,
    Python's numbers, and arrays of strings or objects stay as they are.

    Values and shapes stay what they are, and dtypes too where JAX has them (bfloat16 and float8 of ml_dtypes are
    JAX's). Unless `jax_enable_x64` is set, it has none of 64 bits: integers then have 32, and one that does not fit is
    an error; float64 and complex128 are errors, since they would be rounded, or with `narrow=True` float32 and
    complex64. `with jax.enable_x64(True)` and `with jax.default_device(...)` hold for one thread, and not for the one
    in the background: write `jax.config.update("jax_enable_x64", True)`, and `sharding=device`.

    On the CPU, JAX looks into an array as it lies there if its memory begins at a multiple of 64 bytes, and copies it
    otherwise. Memory is not used again as long as JAX looks into it; do not write to an array that you gave a flow.

    `sharding` is a device, a `jax.sharding.Sharding`, or a dict, list or tuple of them for the components of these
    names or places; components that it does not name stay as they are, and None is the default device. Each axis must
    divide into the parts that a mesh cuts it into. With several processes, each gives its share of a global array, and
    all have to come to batches of one size equally often. So write, with `rank = jax.process_index()` and
    `world = jax.process_count()`:

        pipe(data, shuffle(), pad_to_multiple(world * n), shard(rank, world), batch(n), to_jax(sharding=sharding))

    Its global batches are of `world * n` datapoints, the last one too, and a mask says which of them count. (Processes
    whose devices hold the same rows are one rank.) Without `pad_to_multiple`, `shard(..., remainder="drop")` and
    `batch(n, drop_remainder=True)` leave out what is short.

    The state of a flow is JSON, so Orbax saves it beside a model (and `json.dumps` does without Orbax):

        manager.save(step, args=ocp.args.Composite(
            model=ocp.args.StandardSave(params), batches=ocp.args.JsonSave(batches.state_dict())))
        saved = manager.restore(step, args=ocp.args.Composite(
            model=ocp.args.StandardRestore(params), batches=ocp.args.JsonRestore()))
        params, batches = saved["model"], batches.load_state_dict(saved["batches"])

    Raises:
        ImportError: JAX is not installed.
        TypeError: JAX has no such dtype, or would round numbers.
        ValueError: an integer does not fit; an axis does not divide into the parts that a mesh cuts it into.

    >>> import flowfn as ff
    >>> flow = ff.pipe([[1, "a"], [3, "b"]], ff.batch(2), to_jax())  # doctest: +SKIP
    >>> next(iter(flow))  # doctest: +SKIP
    [Array([1, 3], dtype=int32), ['a', 'b']]
    """
    jax = needed("jax", "to_jax()", extra="jax")
    _check_sharding(jax, sharding)
    return pipe(source, _fitted_to_jax(narrow), _put(sharding), prefetch(ahead))


def _check_sharding(jax: Any, sharding: Any) -> None:
    if isinstance(sharding, (Mapping, list, tuple)) and not isinstance(sharding, jax.sharding.PartitionSpec):
        for one in sharding.values() if isinstance(sharding, Mapping) else sharding:
            _check_sharding(jax, one)
    elif sharding is not None and not isinstance(sharding, (jax.sharding.Sharding, jax.Device)):
        raise TypeError(
            "to_jax(): sharding must be a jax.sharding.Sharding, a device, None, or a dict, list or tuple of them, got "
            f"{brief(sharding)}; write NamedSharding(mesh, PartitionSpec(...))"
        )


# Dtypes


class HereNode(Each):
    """Stays in the process that iterates, whose JAX it is that has settings and devices."""

    here = True


@stage.each(reads=HereNode, said="to_jax(narrow={narrow})")
def _fitted_to_jax(narrow: bool, source: Any) -> Iterator[Any]:
    """Arrays as JAX can take them: of dtypes that it has, with all values as they were."""
    fit = partial(_narrowed, needed("jax", "to_jax()", extra="jax"), narrow)
    for datapoint in source:
        yield with_leaves(fit, datapoint)


def _narrowed(jax: Any, narrow: bool, value: Any) -> Any:
    if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind in "USOT":
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("to_jax(): JAX has no masked arrays; write map(...) with x.filled(value) before")
    array = np.asarray(value)
    native = array.dtype.newbyteorder("=")
    wanted = jax.dtypes.canonicalize_dtype(native)
    if wanted == native:
        return array.astype(native, copy=False)
    return _narrowed_integers(array, wanted) if array.dtype.kind in "iu" else _narrowed_floats(array, wanted, narrow)


def _narrowed_integers(array: np.ndarray, wanted: np.dtype) -> np.ndarray:
    info = np.iinfo(wanted)
    for extreme in (array.min(), array.max()) if array.size else ():
        if not info.min <= int(extreme) <= info.max:
            raise ValueError(
                f"to_jax(): {extreme} of an array of {array.dtype} is no {wanted}, which is what JAX has unless it is "
                'told otherwise: write jax.config.update("jax_enable_x64", True), or map(...) to what fits before'
            )
    return array.astype(wanted)


def _narrowed_floats(array: np.ndarray, wanted: np.dtype, narrow: bool) -> np.ndarray:
    if not narrow:
        raise TypeError(
            f"to_jax(): JAX would round {array.dtype} to {wanted}; write to_jax(narrow=True) if it may, map(...) with "
            f'x.astype(np.{wanted}) before, or jax.config.update("jax_enable_x64", True)'
        )
    try:
        with np.errstate(over="raise"):
            return array.astype(wanted)
    except FloatingPointError:
        raise ValueError(f"to_jax(): a number of an array of {array.dtype} is beyond what {wanted} can hold") from None


# Places


@stage.each(transparent=True, said="to_jax(sharding={sharding})")
def _put(sharding: Any, source: Any) -> Iterator[Any]:
    """Begin to copy arrays to where they belong."""
    jax = needed("jax", "to_jax()", extra="jax")
    first: list[tuple[int, ...]] | None = None
    for datapoint in source:
        shares: list[tuple[int, ...]] = []
        placed = _over_components(partial(_placed_array, jax, shares), sharding, datapoint)
        first = shares if first is None else first
        if shares != first:
            raise ValueError(
                "to_jax(): what processes share must be of the same size in every batch, since they do not see one "
                f"another's, got shares of {brief(shares)} after {brief(first)}; write batch(n, drop_remainder=True) "
                'behind shard(..., remainder="drop"), or pad_to_multiple(world * n) before shard'
            )
        yield placed


def _over_components(put: Any, sharding: Any, datapoint: Any) -> Any:
    """A datapoint with what `put` makes of each value and the sharding that is meant for it."""
    if not isinstance(sharding, (Mapping, list, tuple)):
        return with_leaves(partial(put, sharding), datapoint)
    for name, one in sharding.items() if isinstance(sharding, Mapping) else enumerate(sharding):
        datapoint = replaced(datapoint, name, _over_components(put, one, component(datapoint, name)))
    return datapoint


def _placed_array(jax: Any, shares: list[tuple[int, ...]], sharding: Any, value: Any) -> Any:
    """An array where it belongs; `shares` gets the sizes of what other processes have their part of."""
    if not isinstance(value, jax.Array) and (not isinstance(value, np.ndarray) or value.dtype.kind in "USOT"):
        return value
    try:
        if not isinstance(sharding, jax.sharding.Sharding):
            return jax.device_put(value, sharding)
        _check_divides(sharding, value.shape)
        made = jax.make_array_from_process_local_data(sharding, value)
    except TypeError:
        raise TypeError(f"to_jax(): JAX has no dtype for {value.dtype}; write map(...) to one that it has") from None
    if made.shape != value.shape:
        shares.append(tuple(here for here, whole in zip(value.shape, made.shape) if here != whole))
    return made


def _check_divides(sharding: Any, shape: tuple[int, ...]) -> None:
    try:
        parts = _parts_of_axes(sharding, len(shape))
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"to_jax(): an array of shape {shape} has fewer axes than {sharding} cuts; give each component its own, as "
            'in sharding={"image": NamedSharding(...)}'
        ) from error
    for axis, (size, count) in enumerate(zip(shape, parts)):
        if size % count:
            raise ValueError(
                f"to_jax(): axis {axis} of an array of shape {shape} is cut into {count} parts here, so its size must "
                f"be a multiple of {count}, got {size}; write batch(n, drop_remainder=True) with such an n, or "
                "pad_to_multiple(n) before it, which fills the last batch up and masks what it adds"
            )


@functools.lru_cache(maxsize=256)
def _parts_of_axes(sharding: Any, axes: int) -> list[int]:
    """Into how many parts a sharding cuts each axis of what this process has."""
    indices = sharding.addressable_devices_indices_map((sharding.num_devices,) * axes).values()
    return [len({(part.start, part.stop) for part in along}) for along in zip(*indices)]
