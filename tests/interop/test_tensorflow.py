"""Flows as tf.data.Dataset."""

from collections import namedtuple

import numpy as np
import pytest

import flowfn as ff
from flowfn.interop import as_tf_dataset

tf = pytest.importorskip("tensorflow")

Pair = namedtuple("Pair", "x y")


def specs(dataset):
    return tf.nest.map_structure(lambda spec: (spec.dtype.name, tuple(spec.shape)), dataset.element_spec)


def batches(n=5, *stages):
    return ff.pipe(ff.from_arrays(np.arange(3.0 * n).reshape(n, 3), np.arange(n)), ff.shuffle(), *stages, ff.batch(2))


def labels(passes):
    return [[int(label) for _, y in one for label in y] for one in passes]


def test_batches_are_tuples_of_tensors_and_the_last_one_may_be_smaller():
    dataset = as_tf_dataset(batches())
    assert specs(dataset) == (("float64", (None, 3)), ("int64", (None,)))
    for (x, y), (right_x, right_y) in zip(dataset, batches(), strict=True):
        np.testing.assert_array_equal(x, right_x, strict=True)
        np.testing.assert_array_equal(y, right_y, strict=True)


def test_shapes_that_are_always_the_same_are_known():
    assert specs(as_tf_dataset(batches(6))) == (("float64", (2, 3)), ("int64", (2,)))
    assert specs(as_tf_dataset(ff.flow([np.zeros((2, n, 4)) for n in (1, 2, 3)]))) == ("float64", (2, None, 4))


def test_each_iteration_is_the_next_epoch():
    dataset = as_tf_dataset(batches())
    right = labels(batches().run(epoch=epoch) for epoch in range(4))
    assert labels([dataset, dataset]) == right[:2]
    assert labels([dataset.repeat(2)]) == [right[2] + right[3]]


def test_what_is_only_made_or_begun_uses_no_epoch_up():
    """TensorFlow 2.21 (`from_generator_op.py`): the generator is called when the first element is asked for, and not when
    a Dataset or an iterator is made; the flow takes its epoch even later, when it is read."""
    flow = batches()
    dataset = as_tf_dataset(flow)
    iterators = [iter(dataset), iter(dataset), iter(dataset.take(0))]
    assert flow.epoch == 0
    assert labels([iterators[1], iterators[0]]) == labels(batches().run(epoch=epoch) for epoch in (0, 1))


def test_an_iteration_that_is_broken_off_lets_go_of_the_pass():
    closed = []

    def source():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    iterator = iter(as_tf_dataset(ff.flow(source)))
    assert int(next(iterator)) == 0
    closed.clear()
    del iterator
    assert closed == [True]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (2.5, "float64"),
        (3, "int64"),
        (True, "bool"),
        ("text", "string"),
        (b"a\0b\0", "string"),
        (1j, "complex128"),
        (np.float16(2), "float16"),
        (np.uint64(2**64 - 1), "uint64"),
        (np.array([True, False]), "bool"),
        (np.arange(3, dtype=">i2"), "int16"),
        (np.array(["a", "longer"]), "string"),
        (tf.constant([1, 2.5], tf.bfloat16).numpy(), "bfloat16"),
        (tf.constant([1, 2.5], tf.bfloat16), "bfloat16"),
    ],
    ids=str,
)
def test_dtypes_are_those_of_the_values(value, dtype):
    (out,) = as_tf_dataset([value])
    assert out.dtype.name == dtype
    assert out.shape == np.shape(value)
    told = out.numpy()
    if dtype == "string":
        told = np.array(told, object)
        told = told if isinstance(value, bytes) else np.vectorize(bytes.decode, otypes=[object])(told)
    assert np.array_equal(told, np.array(value, object) if dtype == "string" else np.asarray(value))


def test_forms_are_kept_but_for_lists():
    datapoint = {"pair": Pair(1, [2, 3.5]), "names": ["a", "b"], "deep": {"x": (np.zeros(2),)}}
    (out,) = as_tf_dataset([datapoint])
    assert isinstance(out["pair"], Pair)
    assert [int(out["pair"].x), [float(one) for one in out["pair"].y]] == [1, [2, 3.5]]
    assert out["names"].numpy().tolist() == [b"a", b"b"]
    assert out["deep"]["x"][0].shape == (2,)


def test_batches_of_strings_are_tensors():
    (batch,) = as_tf_dataset(ff.pipe(["a", "b"], ff.batch(2)))
    assert batch.numpy().tolist() == [b"a", b"b"]
    ((names, numbers),) = as_tf_dataset(ff.pipe([["a", 1], ["b", 2]], ff.batch(2)))
    assert (names.numpy().tolist(), numbers.numpy().tolist()) == ([b"a", b"b"], [1, 2])


def test_the_cardinality_is_the_length_where_it_is_known():
    assert int(as_tf_dataset(batches()).cardinality()) == 3
    assert int(as_tf_dataset(ff.cycle(batches())).cardinality()) == tf.data.INFINITE_CARDINALITY
    assert int(as_tf_dataset(batches(9, ff.filter(bool))).cardinality()) == tf.data.UNKNOWN_CARDINALITY


def test_of_a_flow_that_cannot_be_indexed_the_last_batch_may_be_smaller():
    dataset = as_tf_dataset(ff.pipe(range(9), ff.filter(lambda n: n % 2), ff.batch(3)))
    assert specs(dataset) == ("int64", (None,))
    assert [batch.numpy().tolist() for batch in dataset] == [[1, 3, 5], [7]]


def test_a_loaded_state_goes_on_where_it_stood():
    iterator = batches().run(epoch=2)
    next(iterator)
    dataset = as_tf_dataset(batches().load_state_dict(iterator.state_dict()))
    assert int(dataset.cardinality()) == tf.data.UNKNOWN_CARDINALITY
    assert labels([dataset, dataset]) == labels([batches().run(epoch=2, start=1), batches().run(epoch=3)])


def test_ragged_tensors_come_where_they_are_told():
    told = (tf.RaggedTensorSpec((None, None), tf.float64), tf.TensorSpec((2,), tf.int64))
    flow = ff.flow([[[np.ones(2), np.zeros(3)], np.arange(2)], [[np.ones(1), np.zeros(0)], np.arange(2)]])
    (first, _), (second, labels) = as_tf_dataset(flow, signature=told)
    assert first.to_list() == [[1, 1], [0, 0, 0]]
    assert second.to_list() == [[1], []]
    assert labels.numpy().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("datapoints", "error", "message"),
    [
        ([], ValueError, "gives no datapoint"),
        ([[1, None]], TypeError, r"datapoint\[1\] is None"),
        ([[1, 2], [1, 2.5]], TypeError, r"datapoint\[1\] must have one dtype and rank .* int64\[\], float64\[\]"),
        ([[1, 2], [1, 2, 3]], TypeError, "a datapoint must have 2 components"),
        ([{"x": 1}, {"y": 1}], TypeError, r"a datapoint must have keys \['x'\]"),
        ([np.datetime64("2026-01-01")], TypeError, "no dtype for datetime64"),
    ],
)
def test_what_no_dataset_can_hold_is_said_at_once(datapoints, error, message):
    with pytest.raises(error, match=message):
        as_tf_dataset(datapoints)


@pytest.mark.parametrize(
    ("third", "message"),
    [
        (np.ones(3), "must have shape (2,), as in the signature, got (3,)"),
        (np.ones(2, "f4"), "must be float64, as in the signature, got float32"),
        ([np.ones(2)], "must be an array in every datapoint"),
    ],
    ids=["shape", "dtype", "form"],
)
def test_what_is_not_as_the_signature_says_is_an_error_and_is_not_cast(third, message):
    """TensorFlow 2.21 (`script_ops.py`): from_generator casts what has another dtype without a word."""
    dataset = as_tf_dataset(ff.flow([np.ones(2), np.ones(2), third, np.ones(2)]))
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        list(dataset)
    assert message in str(raised.value)


def test_errors_of_the_flow_are_named_in_tensorflows():
    """TensorFlow 2.21 (`py_func.cc`): what Python raises becomes an error of TensorFlow's own, whose text has the
    traceback and the message."""

    def broken(n):
        if n == 2:
            raise LookupError("no such file")
        return n

    dataset = as_tf_dataset(ff.pipe(range(9), ff.filter(lambda n: True), ff.map(broken)))
    iterator = iter(dataset)
    next(iterator), next(iterator)
    with pytest.raises(tf.errors.UnknownError) as raised:
        next(iterator)
    assert "LookupError: no such file" in str(raised.value)
    assert "in map(" in str(raised.value)


def test_keras_trains_on_it_on_tensorflow():
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("another backend was chosen")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert len(model.fit(as_tf_dataset(batches()), epochs=2, verbose=0, shuffle=False).epoch) == 2
