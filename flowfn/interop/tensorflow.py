"""TensorFlow: a flow as a tf.data.Dataset, whose signature is found from the flow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from flowfn.datapoints.components import as_tuple_like
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow as as_flow
from flowfn.flows.translating import speaks
from flowfn.functions import around_a_pipe
from flowfn.interop.epochs import loaded_within
from flowfn.interop.forms import with_tuples
from flowfn.kinds.runs import Checkpoint
from flowfn.showing import brief


@around_a_pipe
@speaks
def as_tf_dataset(flow: Any, *, signature: Any = None) -> Any:
    """A flow as a `tf.data.Dataset`, each iteration of which is the flow's next epoch.

    Lists of components become tuples, as tf.data has them; dicts and tuples stay; lists of strings are tensors of
    strings. Dtypes are those of the arrays (float64 stays float64); numbers of Python are int64, float64 and bool.

    The signature is found from the datapoints of the epoch to come, without advancing it: the first two and, where the
    flow can be indexed, the last. Where their shapes differ they are None. Of a flow that cannot be indexed the first
    dimension is None too, since the last batch may be smaller. Give `signature` (tf.TypeSpec in tuples and dicts) where
    other datapoints differ in more, or where a datapoint can be had only once (an iterator, a queue). A list of arrays
    is a RaggedTensor where the signature says `tf.RaggedTensorSpec`. A datapoint of another form, shape or dtype is an
    error, and is never cast.

    The cardinality is that of the flow, where it is known. A state that was loaded into the flow counts: the first
    iteration goes on from there, and the cardinality is unknown. TensorFlow reports errors as
    `tf.errors.UnknownError` and the like, with the error of the flow, its traceback and its notes as their text.

    Raises:
        ImportError: tensorflow is not installed.
        TypeError: tf.data cannot hold such a value, or the datapoints differ in form.
        ValueError: the flow gives no datapoint, so there is no signature to find.

    >>> import flowfn as ff
    >>> import numpy as np
    >>> flow = ff.pipe(ff.from_arrays(np.ones((5, 3)), np.arange(5)), ff.shuffle(), ff.batch(2))
    >>> as_tf_dataset(flow).element_spec  # doctest: +SKIP
    (TensorSpec(shape=(None, 3), dtype=tf.float64, name=None), TensorSpec(shape=(None,), dtype=tf.int64, name=None))
    """
    tf = needed("tensorflow", "as_tf_dataset()", extra="tensorflow")
    source: Flow[Any] = as_flow(flow, "as_tf_dataset")
    length = source.node.length_or_none()
    if signature is None:
        signature = _output_signature(tf, source, length)
    dataset = tf.data.Dataset.from_generator(partial(_pass, tf, source, signature), output_signature=signature)
    if length is None or loaded_within(source) or source._coming.skip:
        return dataset
    most = tf.data.INFINITE_CARDINALITY if length == math.inf else int(length)
    return dataset.apply(tf.data.experimental.assert_cardinality(most))


def _pass(tf: Any, flow: Flow[Any], signature: Any) -> Iterator[Any]:
    """The datapoints of the next epoch, as the signature has them."""
    with iter(flow) as datapoints:
        for datapoint in datapoints:
            yield _fitted_to_spec(tf, signature, with_tuples(datapoint), "")


def _output_signature(tf: Any, flow: Flow[Any], length: Any) -> Any:
    if flow.seekable and length:
        indices = {0, 1, length - 1} if length != math.inf else {0, 1}
        seen = [flow[int(index)] for index in sorted(indices) if index < length]
    else:
        with flow._serially(flow.seed, flow.epoch, Checkpoint()) as datapoints:
            seen = list(islice(datapoints, 2))
    if not seen:
        raise ValueError(f"as_tf_dataset(): {flow!r} gives no datapoint to find a signature from; write signature=...")
    return _spec(tf, [with_tuples(datapoint) for datapoint in seen], not flow.seekable, "")


def _spec(tf: Any, values: list[Any], unsure: bool, path: str) -> Any:
    """What all of some values have in common; `path` says where in a datapoint they stand."""
    first = values[0]
    if isinstance(first, (tuple, dict)):
        keys = list(first) if isinstance(first, dict) else range(len(first))
        for value in values:
            _check_form(first, value, path)
        made = [_spec(tf, [value[key] for value in values], unsure, f"{path}[{key!r}]") for key in keys]
        return dict(zip(keys, made)) if isinstance(first, dict) else as_tuple_like(first, made)
    arrays = [_tensor_array(value, path) for value in values]
    dtypes = {_spec_dtype(tf, array.dtype, path) for array in arrays}
    if len(dtypes) > 1 or len({array.ndim for array in arrays}) > 1:
        told = ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)
        raise TypeError(f"as_tf_dataset(): {_place(path)} must have one dtype and rank in all datapoints, got {told}")
    shape = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*(array.shape for array in arrays))]
    if unsure and shape:
        shape[0] = None
    return tf.TensorSpec(shape, dtypes.pop())


def _fitted_to_spec(tf: Any, spec: Any, value: Any, path: str) -> Any:
    """A value as its spec has it, or an error that says why it cannot be."""
    if isinstance(spec, (tuple, Mapping)):
        _check_form(spec, value, path)
        keys = list(spec) if isinstance(spec, Mapping) else range(len(spec))
        made = [_fitted_to_spec(tf, spec[key], value[key], f"{path}[{key!r}]") for key in keys]
        return dict(zip(keys, made)) if isinstance(spec, Mapping) else as_tuple_like(spec, made)
    if isinstance(spec, tf.RaggedTensorSpec):
        return tf.ragged.constant(value, spec.dtype, spec.ragged_rank, row_splits_dtype=spec.row_splits_dtype)
    if not isinstance(spec, tf.TensorSpec):
        return value
    array = _tensor_array(value, path)
    if _spec_dtype(tf, array.dtype, path) != spec.dtype:
        cast = array.astype(spec.dtype.as_numpy_dtype) if isinstance(value, (int, float)) else None
        if cast is None or cast != array:
            raise TypeError(
                f"as_tf_dataset(): {_place(path)} must be {spec.dtype.name}, as in the signature, got {array.dtype}"
            )
        array = cast
    if not spec.shape.is_compatible_with(array.shape):
        raise TypeError(
            f"as_tf_dataset(): {_place(path)} must have shape {spec.shape}, as in the signature, got {array.shape}; "
            "write signature= with None where sizes differ"
        )
    return array


def _check_form(form: Any, value: Any, path: str) -> None:
    """Make sure that a value has the components that another has."""
    if isinstance(form, Mapping):
        fits = isinstance(value, dict) and value.keys() == form.keys()
    else:
        fits = isinstance(value, tuple) and len(value) == len(form)
    if not fits:
        have = f"keys {list(form)}" if isinstance(form, Mapping) else f"{len(form)} components"
        raise TypeError(f"as_tf_dataset(): {_place(path)} must have {have} in every datapoint, got {brief(value)}")


def _tensor_array(value: Any, path: str) -> np.ndarray:
    if value is None:
        raise TypeError(f"as_tf_dataset(): {_place(path)} is None, which no tensor can be; leave it out before")
    if isinstance(value, (str, bytes)):
        return np.array(value, object)
    if isinstance(value, (tuple, dict)):
        raise TypeError(f"as_tf_dataset(): {_place(path)} must be an array in every datapoint, got {brief(value)}")
    array = np.asarray(value)
    if array.dtype.kind in "UST":
        return array.astype(object)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _spec_dtype(tf: Any, dtype: np.dtype, path: str) -> Any:
    try:
        return tf.string if dtype.kind == "O" else tf.as_dtype(dtype)
    except TypeError:
        raise TypeError(
            f"as_tf_dataset(): {_place(path)}: TensorFlow has no dtype for {dtype}; map it to one that it has before"
        ) from None


def _place(path: str) -> str:
    return f"datapoint{path}" if path else "a datapoint"
