"""Hugging Face's datasets: flows as a Dataset or an IterableDataset. (Its datasets as flows: `flow(dataset)`.)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow as as_flow
from flowfn.flows.translating import speaks
from flowfn.functions import around_a_pipe
from flowfn.showing import brief

EXAMPLES_LOOKED_AT = 64
"""So many datapoints are looked at to find features, as long as something is None or empty in all of them."""

_FEATURES_RULE = rules.optional(
    rules.Rule("a datasets.Features, or a dict of features", lambda v: isinstance(v, Mapping))
)
_DATES = {"date": "date32", "time": "time64[us]", "timedelta": "duration[us]"}


@around_a_pipe
@speaks
@rules.checked(streaming=rules.boolean, features=_FEATURES_RULE)
def to_hf(flow: Any, *, streaming: bool = False, features: Any = None) -> Any:
    """A flow of dicts as a Dataset of Hugging Face, all of it in memory; with `streaming=True` as an IterableDataset.

    Features are found from the datapoints: numbers and arrays keep their dtype (arrays of one axis are a List of any
    length, of two to five axes an Array2D to Array5D of their shape), texts, bytes, truth values, dates, lists, dicts
    and pictures of PIL are what `datasets` has for them. `features` says it instead, where arrays differ in shape, say.

    A Dataset holds the flow's present epoch. An IterableDataset makes datapoints as it is read, arrays as they are: its
    `set_epoch` is the flow's, its `state_dict` goes on exactly, and nodes and workers of torch share the datapoints (if
    the flow cannot be indexed, it is one shard, which one of them reads).

    Raises:
        ImportError: datasets is not installed.
        TypeError: a datapoint is no dict with texts as keys, or a value has no feature.
        ValueError: the flow is empty or endless.

    >>> import flowfn as ff
    >>> flow = ff.pipe(range(3), ff.map(lambda x: {"x": x, "square": [x, x * x]}))
    >>> to_hf(flow)[2]  # doctest: +SKIP
    {'x': 2, 'square': [2, 4]}
    """
    needed("datasets", "to_hf()", extra="hf")
    from flowfn.interop.huggingface_examples import dataset_in_memory, streamed

    source = as_flow(flow, "to_hf")
    if streaming:
        return streamed(source, _features_told(features or _found(source, 0)))
    if source.node.length_or_none() == float("inf"):
        raise ValueError(f"to_hf(): {source} is endless; write take(n), or streaming=True")
    return dataset_in_memory(_example_rows(source), _features_told(features or _found(source, source.epoch)))


def _example_rows(flow: Flow[Any]) -> Iterator[dict[str, Any]]:
    return map(_row, flow.run(seed=flow.seed, epoch=flow.epoch))


def _row(datapoint: Any) -> dict[str, Any]:
    if not isinstance(datapoint, Mapping) or not all(isinstance(name, str) for name in datapoint):
        raise TypeError(
            f"to_hf(): datapoints must be dicts {{column: value}}, got {brief(datapoint)}; "
            'write map(lambda x: {"x": x}) before'
        )
    return dict(datapoint)


def _features_told(found: Mapping[str, Any]) -> Any:
    datasets: Any = needed("datasets", "to_hf()", extra="hf")
    return found if isinstance(found, datasets.Features) else datasets.Features(found)


def _found(flow: Flow[Any], epoch: int) -> dict[str, Any]:
    """The features of the first datapoints."""
    found: dict[str, Any] = {}
    for row in map(_row, islice(flow.run(seed=flow.seed, epoch=epoch), EXAMPLES_LOOKED_AT)):
        found = {name: _joined_features(found.get(name), _feature(name, value)) for name, value in row.items()}
        if all(map(_is_certain, found.values())):
            break
    if not found:
        raise ValueError(f"to_hf(): features cannot be found: {flow} is empty; say them by features=")
    return found


def _joined_features(one: Any, other: Any) -> Any:
    """What is known of a feature from two values; the first is None if there is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: _joined_features(one.get(name), other.get(name, one.get(name))) for name in {**one, **other}}
    return other if one is None or not _is_certain(one) else one


def _is_certain(feature: Any) -> bool:
    if isinstance(feature, dict):
        return all(map(_is_certain, feature.values()))
    inner = getattr(feature, "feature", None)
    return _is_certain(inner) if inner is not None else getattr(feature, "dtype", "") != "null"


def _feature(name: str, value: Any) -> Any:
    """The feature of a value."""
    datasets: Any = needed("datasets", "to_hf()", extra="hf")
    if isinstance(value, Mapping):
        return {key: _feature(name, one) for key, one in value.items()}
    if isinstance(value, np.ndarray) and value.ndim:
        return _feature_of_array(name, value)
    if isinstance(value, (np.generic, np.ndarray)):
        return datasets.Value(_feature_dtype(name, value.dtype))
    if isinstance(value, (list, tuple)):
        inner = [one for one in (_feature(name, one) for one in value[:EXAMPLES_LOOKED_AT]) if _is_certain(one)]
        return datasets.List(inner[0] if inner else _feature(name, value[0]) if value else datasets.Value("null"))
    for kind, dtype in ((bool, "bool"), (int, "int64"), (float, "float64"), (str, "string"), (bytes, "binary")):
        if isinstance(value, kind):
            return datasets.Value(dtype)
    if value is None:
        return datasets.Value("null")
    if any(kind.__module__ == "PIL.Image" for kind in type(value).__mro__):
        return datasets.Image()
    if type(value).__name__ == "datetime":
        return datasets.Value("timestamp[us]" if value.tzinfo is None else f"timestamp[us, tz={value.tzinfo}]")
    if type(value).__name__ in _DATES:
        return datasets.Value(_DATES[type(value).__name__])
    raise TypeError(f"to_hf(): {name!r} is {brief(value)}, for which no feature is known; say it by features=")


def _feature_of_array(name: str, array: np.ndarray) -> Any:
    datasets: Any = needed("datasets", "to_hf()", extra="hf")
    dtype = _feature_dtype(name, array.dtype)
    if array.ndim == 1:
        return datasets.List(datasets.Value(dtype))
    if array.ndim > 5:
        raise TypeError(f"to_hf(): {name!r} has {array.ndim} axes, and datasets knows up to 5; reshape it before (map)")
    return getattr(datasets, f"Array{array.ndim}D")(shape=array.shape, dtype=dtype)


def _feature_dtype(name: str, dtype: np.dtype) -> str:
    if dtype.kind in "biuf" and dtype.itemsize <= 8:
        return dtype.name
    if dtype.kind in "US":
        return "string" if dtype.kind == "U" else "binary"
    unit = np.datetime_data(dtype)[0] if dtype.kind in "mM" else ""
    if unit in ("s", "ms", "us", "ns"):
        return f"timestamp[{unit}]" if dtype.kind == "M" else f"duration[{unit}]"
    if unit == "D" and dtype.kind == "M":
        return "date32"
    raise TypeError(f"to_hf(): {name!r} has the dtype {dtype}, which datasets does not have; change it before (map)")
