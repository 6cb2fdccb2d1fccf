"""`tf.train.Example` and `SequenceExample`: datapoints as TensorFlow's programs write them,
dicts of lists of bytes or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from flowfn.formats.encoding.messages import example, parsed, sequence_example
from flowfn.showing import brief
from flowfn.storage.damage import Unreadable

_LIST_OF: dict[Any, str] = {int: "int64_list", float: "float_list", bytes: "bytes_list", str: "bytes_list"}
_EXAMPLE, _EXTRA = "tf.train.Example", "tfrecord"
_EITHER = "tf.train.Example or SequenceExample"


def as_example(datapoint: Mapping[str, Any]) -> bytes:
    """A dict as a serialized `tf.train.Example`: what TensorFlow's programs expect in a TFRecord file.

    Strings and bytes, or lists of them, become a bytes list; integers and bools, or lists and arrays of them, an int64
    list; floats a float list, in 32 bits. The format knows no shapes: arrays are written in a row.

    Raises:
        TypeError: the datapoint is no dict with strings as keys, or holds something else.
        ValueError: an integer has more than 64 bits.

    >>> from_example(as_example({"name": "cat", "size": [3, 4], "score": 0.5}))
    {'name': [b'cat'], 'score': array([0.5], dtype=float32), 'size': array([3, 4])}
    """
    if not isinstance(datapoint, Mapping) or not all(isinstance(key, str) for key in datapoint):
        raise TypeError(f"as_example(): a datapoint must be a dict with strings as keys, got {brief(datapoint)}")
    message = example(_EXAMPLE, _EXTRA)()
    for name, value in datapoint.items():
        kind, values = _feature_list(name, value)
        feature = getattr(message.features.feature[name], kind)
        try:
            feature.value.extend(values)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"as_example(): {name!r} does not fit into 64-bit integers: {brief(value)}") from error
        feature.SetInParent()
    serialized: bytes = message.SerializeToString(deterministic=True)
    return serialized


def from_example(payload: Any, features: Any = None) -> dict[str, Any]:
    """A serialized `tf.train.Example` or `SequenceExample` as a dict, in the order of its names:
    lists of bytes, and arrays.

    Lists of a bytes feature are of bytes, arrays are int64 or float32 of shape (values,); a feature without a kind is
    an empty array. In a SequenceExample those are the features of its context, and beside them, under their own names,
    stand its feature lists: each a list with the bytes or array of every step. (Without such lists it is an Example, to
    the byte.)

    `features` chooses some, by a list of their names or by a dict of how each is to be: `bytes`, `str`, `int` or
    `float` for exactly one value, (dtype, shape) for an array (one side of the shape may be -1; a single string of
    bytes is taken for an array's content), or a function of the list. Of a feature list each step is formed so: they
    come as a list, and where (dtype, shape) has no -1 as one array of shape (steps, *shape).

    Raises:
        ValueError: it is neither, but another message or none; a feature is missing, or is not as it is to be; a name
            is both in the context and among the lists.

    >>> payload = as_example({"image": np.arange(4, dtype="uint8").tobytes(), "label": 7})
    >>> from_example(payload, {"image": ("uint8", (2, 2)), "label": int})
    {'image': array([[0, 1],
           [2, 3]], dtype=uint8), 'label': 7}
    """
    content = _features_of(payload)
    if features is None:
        return {name: _values(content[name]) for name in sorted(content)}
    wanted = features.items() if isinstance(features, Mapping) else ((name, None) for name in features)
    chosen = {}
    for name, how in wanted:
        if name not in content:
            raise Unreadable(
                f"its Example has no feature {name!r}; it has {', '.join(map(repr, sorted(content))) or 'none'}"
            )
        chosen[name] = _as(how, name, content[name])
    return chosen


def is_form(value: Any) -> bool:
    """Whether a value says which features are wanted."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and (callable(how) or _is_array_form(how)) for name, how in value.items())
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and all(isinstance(name, str) for name in value)
    )


def _is_array_form(how: Any) -> bool:
    if not isinstance(how, (tuple, list)) or len(how) != 2 or not isinstance(how[1], (tuple, list)):
        return False
    try:
        return (
            np.dtype(how[0]).kind in "biuf"
            and list(how[1]).count(-1) <= 1
            and all(isinstance(side, int) and side >= -1 for side in how[1])
        )
    except TypeError:
        return False


def _feature_list(name: str, value: Any) -> tuple[str, Any]:
    """The kind of list that a value is written as, and its values."""
    if isinstance(value, (str, bytes)):
        return "bytes_list", [_as_bytes(value)]
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, (str, bytes)) for one in value):
        return "bytes_list", list(map(_as_bytes, value))
    array = np.asarray(value)
    if array.dtype.kind in "biu":
        return "int64_list", map(int, array.ravel().tolist())
    if array.dtype.kind == "f":
        return "float_list", array.ravel().tolist()
    if array.dtype.kind in "SU":
        return "bytes_list", list(map(_as_bytes, array.ravel().tolist()))
    raise TypeError(
        f"as_example(): {name!r} must be strings, bytes, integers or floats, or a list or array of them, got "
        f"{brief(value)}"
    )


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


def _features_of(payload: Any) -> Mapping[str, Any]:
    """The features by name, and the lists of them."""
    message = parsed(sequence_example(_EXAMPLE, _EXTRA), bytes(payload), _EITHER)
    context: Mapping[str, Any] = message.context.feature
    if not message.HasField("feature_lists"):
        return context
    lists = {name: list(held.feature) for name, held in message.feature_lists.feature_list.items()}
    for name in sorted(lists.keys() & set(context)):
        raise Unreadable(f"its SequenceExample has {name!r} both in its context and among its feature lists")
    return {**context, **lists}


def _values(feature: Any) -> Any:
    """What is in a feature, or in each of a list of them."""
    if type(feature) is list:
        return list(map(_values, feature))
    kind = feature.WhichOneof("kind")
    if kind == "bytes_list":
        return list(feature.bytes_list.value)
    if kind == "int64_list":
        return np.array(feature.int64_list.value, np.int64)
    return np.array(feature.float_list.value, np.float32)


def _as(how: Any, name: str, feature: Any) -> Any:
    """A feature as it is to be, or each of a list of them."""
    if how is None:
        return _values(feature)
    if type(feature) is not list:
        values = _values(feature)
        return _one(name, values, how) if how in _LIST_OF else _as_array(name, values, how)
    steps = [_as(how, f"{name}[{step}]", one) for step, one in enumerate(feature)]
    if callable(how) or -1 in how[1]:
        return steps
    return np.stack(steps) if steps else np.empty((0, *how[1]), how[0])


def _one(name: str, values: Any, how: type) -> Any:
    """A single value."""
    texts = isinstance(values, list)
    if len(values) != 1 or texts != (_LIST_OF[how] == "bytes_list") or (how is int and values.dtype.kind == "f"):
        raise Unreadable(f"its feature {name!r} must be one value of {how.__name__}, and is {brief(values)}")
    try:
        return values[0].decode() if how is str else how(values[0])
    except UnicodeDecodeError as error:
        raise Unreadable(f"its feature {name!r} is no text: {error}") from error


def _as_array(name: str, values: Any, how: Any) -> Any:
    """An array of a dtype and a shape, or what a function makes of the list."""
    if callable(how):
        return how(values)
    dtype, shape = np.dtype(how[0]), tuple(how[1])
    if isinstance(values, list):
        if len(values) != 1 or len(values[0]) % dtype.itemsize:
            raise Unreadable(f"its feature {name!r} must be the bytes of one array of {dtype}, and is {brief(values)}")
        values = np.frombuffer(values[0], dtype)
    known = prod(side for side in shape if side >= 0)
    if (len(values) % known if known else len(values)) if -1 in shape else len(values) != known:
        raise Unreadable(f"its feature {name!r} must have the shape {shape}, and has {len(values)} values")
    if -1 in shape and not known:
        shape = tuple(max(side, 0) for side in shape)
    return values.astype(dtype, copy=False).reshape(shape)
