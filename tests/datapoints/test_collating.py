"""Padding: what is padded, to what, with what, and what is refused; and how collations are given for components."""

import pickle
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sources import Stream

import flowfn as ff
from flowfn.datapoints.padding import pad
from flowfn.testing import check, same

Pair = namedtuple("Pair", "x y")


@dataclass(frozen=True)
class Record:
    ids: list
    label: int


def both(data):
    return [ff.flow(data), ff.flow(Stream(data))]


# Against tf.data: what Dataset.padded_batch gives (its documented examples, run with TensorFlow 2.21).

RISING = [np.full(n, n) for n in range(1, 5)]


def test_batches_are_those_of_padded_batch():
    for source in both(RISING):
        assert [b.tolist() for b in ff.batch(2, source, collate=pad(0))] == [
            [[1, 0], [2, 2]],
            [[3, 3, 3, 0], [4, 4, 4, 4]],
        ]
        assert [b.tolist() for b in ff.batch(2, source, collate=pad(0, length=5))] == [
            [[1, 0, 0, 0, 0], [2, 2, 0, 0, 0]],
            [[3, 3, 3, 0, 0], [4, 4, 4, 4, 0]],
        ]
        assert [b.tolist() for b in ff.batch(2, source, collate=pad(-1, length=5))] == [
            [[1, -1, -1, -1, -1], [2, 2, -1, -1, -1]],
            [[3, 3, 3, -1, -1], [4, 4, 4, 4, -1]],
        ]


def test_components_are_padded_as_padded_batch_pads_them():
    data = [([1, 2, 3], [10]), ([4, 5], [11, 12])]
    for source in both(data):
        (batch,) = ff.batch(2, source, collate=(pad(-1, length=4), pad(100)))
        assert same(batch, (np.array([[1, 2, 3, -1], [4, 5, -1, -1]]), np.array([[10, 100], [11, 12]])))
    (batch,) = ff.batch(2, [np.array([[1, 2]]), np.array([[3], [4]])], collate=pad(0))
    assert batch.tolist() == [[[1, 2], [0, 0]], [[3, 0], [4, 0]]]


# What is padded


@settings(deadline=None, derandomize=True)
@given(
    st.integers(1, 3).flatmap(
        lambda axes: st.lists(
            hnp.arrays(
                st.sampled_from([np.int64, np.float32, np.uint8]),
                st.tuples(*[st.integers(0, 4)] * axes),
                elements=st.integers(1, 9),
            ),
            min_size=1,
            max_size=4,
        )
    )
)
def test_every_array_is_in_the_front_corner_and_the_rest_is_the_value(arrays):
    made = pad(0)(arrays)
    assert made.dtype == np.result_type(*arrays)
    assert made.shape == (len(arrays), *np.max([array.shape for array in arrays], axis=0))
    for row, array in zip(made, arrays):
        np.testing.assert_array_equal(row[tuple(map(slice, array.shape))], array)
    assert np.count_nonzero(made) == sum(array.size for array in arrays)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 2], [3]], np.array([[1, 2], [3, 0]])),
        ([(1, 2), [3]], np.array([[1, 2], [3, 0]])),
        ([[1, 2], []], np.array([[1, 2], [0, 0]])),
        ([[], []], np.zeros((2, 0))),
        ([[1.5], [2, 3]], np.array([[1.5, 0], [2, 3]])),
        ([[True], [False, True]], np.array([[True, False], [False, True]])),
        ([[True], [2, 3]], np.array([[1, 0], [2, 3]])),
        ([[[1, 2], [3]], [[4]]], np.array([[[1, 2], [3, 0]], [[4, 0], [0, 0]]])),
        ([[[1, 2], [3]], []], np.array([[[1, 2], [3, 0]], [[0, 0], [0, 0]]])),
        ([[], [[1, 2]]], np.array([[[0, 0]], [[1, 2]]])),
        ([np.zeros(0, np.int8), [1, 2]], np.array([[0, 0], [1, 2]])),
        ([[], np.ones(1, np.int8)], np.array([[0], [1]], np.int8)),
        ([np.ones(2, np.int8), np.ones(1, np.float32)], np.array([[1, 1], [1, 0]], np.float32)),
        ([[np.ones(1)], [np.ones(1), np.ones(2)]], np.array([[[1.0, 0], [0, 0]], [[1, 0], [1, 1]]])),
        ([np.ones((1, 2)), np.ones((1, 2))], np.ones((2, 1, 2))),
        ([np.ones((0, 2)), np.ones((0, 2))], np.ones((2, 0, 2))),
        ([1, 2], np.array([1, 2])),
        ([1.0, 2], np.array([1.0, 2.0])),
        ([np.float32(1), np.float32(2)], np.array([1, 2], np.float32)),
        ([np.array(1, np.int8), np.array(2, np.int8)], np.array([1, 2], np.int8)),
        (["a", "bc"], ["a", "bc"]),
        ([np.str_("a"), np.str_("bc")], [np.str_("a"), np.str_("bc")]),
        ([None, None], [None, None]),
        ([["a", "b"], ["c"]], [["a", "b"], ["c"]]),
        ([[1, None], [2]], [[1, None], [2]]),
        ([[["a"], []], [[]]], [[["a"], []], [[]]]),
        ([{"a": [1]}, {"a": [2, 3]}], {"a": np.array([[1, 0], [2, 3]])}),
        ([{"a": {"b": [1]}}, {"a": {"b": [2, 3]}}], {"a": {"b": np.array([[1, 0], [2, 3]])}}),
        ([np.array([None, "x"], object), np.array([1], object)], np.array([[None, "x"], [1, 0]], object)),
    ],
    ids=str,
)
def test_values_of_any_kind(values, expected):
    before = pickle.dumps(values)
    assert same(pad(0)(values), expected)
    assert pickle.dumps(values) == before


def test_objects_with_an_array_interface_are_padded():
    class Tensor:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return np.array(self.values, dtype)

    assert same(pad(0)([Tensor([1, 2]), Tensor([3])]), np.array([[1, 2], [3, 0]]))


def test_texts_and_dates_are_padded_with_their_like():
    texts = [np.array(["ab"]), np.array(["c", "d"])]
    assert same(pad("")(texts), np.array([["ab", ""], ["c", "d"]]))
    dates = [np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-02", "2020-01-03"], "M8[D]")]
    assert np.isnat(pad(np.datetime64("NaT", "D"))(dates)[0, 1])
    assert same(pad(0)([texts[0], texts[0]]), np.array([["ab"], ["ab"]]))  # nothing is padded


# axis, length, multiple


def shapes(*sizes):
    return [np.ones(size) for size in sizes]


@pytest.mark.parametrize(
    ("collation", "sizes", "expected"),
    [
        (pad(0, axis=0), [(1, 2), (3, 2)], (3, 2)),
        (pad(0, axis=1), [(2, 1), (2, 3)], (2, 3)),
        (pad(0, axis=-1), [(2, 1), (2, 3)], (2, 3)),
        (pad(0, axis=(0, 1)), [(1, 3), (2, 1)], (2, 3)),
        (pad(0, length=4), [(1, 3), (2, 1)], (4, 3)),
        (pad(0, length=4), [(4,), (4,)], (4,)),
        (pad(0, length=4), [(2,), (2,)], (4,)),
        (pad(0, axis=1, length=4), [(2, 3), (2, 1)], (2, 4)),
        (pad(0, axis=(0, 1), length=4), [(1, 3), (2, 1)], (4, 4)),
        (pad(0, multiple=4), [(1,), (3,)], (4,)),
        (pad(0, multiple=4), [(4,), (3,)], (4,)),
        (pad(0, multiple=4), [(5,), (3,)], (8,)),
        (pad(0, multiple=4), [(0,), (0,)], (0,)),
        (pad(0, multiple=4), [(3, 3), (1, 2)], (4, 3)),
        (pad(0, axis=(0, 1), multiple=32), [(30, 40, 3), (50, 20, 3)], (64, 64, 3)),
        (pad(0, axis=-2, multiple=2), [(3, 3), (1, 3)], (4, 3)),
    ],
    ids=str,
)
def test_axes_lengths_and_multiples(collation, sizes, expected):
    made = collation(shapes(*sizes))
    assert made.shape == (len(sizes), *expected)
    assert made.sum() == sum(np.prod(size) for size in sizes)


def test_length_does_not_concern_numbers():
    (batch,) = ff.batch(2, [[[1, 2], 5], [[3], 6]], collate=pad(0, length=3))
    assert same(batch, [np.array([[1, 2, 0], [3, 0, 0]]), np.array([5, 6])])


@pytest.mark.parametrize(
    ("collation", "values", "message"),
    [
        (pad(0), shapes((1,), (1, 1)), r"arrays must have the same number of axes, got shapes \(1,\), \(1, 1\)"),
        (pad(0), [[1], 2], r"arrays must have the same number of axes, got shapes \(1,\), \(\)"),
        (pad(0), [[[1], 2]], "arrays must have the same number of axes"),
        (
            pad(0, axis=0),
            shapes((1, 2), (1, 3)),
            r"arrays differ in axis 1, but only axis=0 is to be padded, got shapes \(1, 2\), \(1, 3\)",
        ),
        (pad(0, axis=(1, 2)), shapes((1, 2, 2), (2, 2, 2)), r"arrays differ in axis 0, but only axis=\(1, 2\)"),
        (pad(0, axis=1), shapes((1,), (2,)), r"there is no axis 1 in arrays of shapes \(1,\), \(2,\)"),
        (pad(0, axis=-2), shapes((1,), (2,)), "there is no axis -2 in arrays"),
        (
            pad(0, length=2),
            shapes((1,), (3,)),
            r"length=2, but arrays are longer, got shapes \(1,\), \(3,\); cut them before",
        ),
        (pad(0, length=2), shapes((3,), (3,)), "length=2, but arrays are longer"),
    ],
)
def test_what_cannot_be_padded_is_refused_with_the_shapes(collation, values, message):
    with pytest.raises(ValueError, match=rf"^pad\(\): {message}"):
        collation(values)
    for source in both([[value] for value in values]):
        with pytest.raises(ValueError, match=rf"^pad\(\): {message}"):
            list(ff.batch(len(values), source, collate=collation))


# The value


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (0.5, np.int64),
        (-1, np.uint8),
        (300, np.uint8),
        (2**63, np.int64),
        (2**70, np.int64),
        (np.nan, np.int64),
        (np.inf, np.int32),
        (2, np.bool_),
        (1j, np.float64),
        (1e300, np.float32),
        ("a", np.int64),
        (None, np.float64),
        (0, "U3"),
        ("abcd", "U3"),
        (b"a", "U3"),
        ("a", "S3"),
        (0, "M8[s]"),
        (np.datetime64("2020"), np.int64),
    ],
)
def test_a_value_that_does_not_fit_is_refused(value, dtype):
    with pytest.raises(ValueError, match=r"^pad\(\): value must fit the dtype of what it pads, but .* is no "):
        pad(value)([np.zeros(1, dtype), np.zeros(2, dtype)])


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (0, np.int64),
        (-100, np.int64),
        (255, np.uint8),
        (0.0, np.int64),
        (np.int8(-1), np.int64),
        (2**63, np.uint64),
        (0.1, np.float32),
        (np.nan, np.float16),
        (-np.inf, np.float32),
        (2**53 + 1, np.float64),
        (1j, np.complex64),
        (0, np.bool_),
        (True, np.bool_),
        (1, np.bool_),
        (None, object),
        ("x", object),
        ("abc", "U3"),
        (b"a", "S1"),
        (np.datetime64("2020"), "M8[D]"),
        (np.timedelta64("NaT", "s"), "m8[s]"),
    ],
)
def test_a_value_that_fits_is_what_pads(value, dtype):
    made = pad(value)([np.zeros(1, dtype), np.zeros(2, dtype)])
    assert made.dtype == dtype
    np.testing.assert_array_equal(made[0, 1], np.array(value).astype(dtype))


def test_a_number_that_does_not_fit_is_refused_at_the_first_batch_padded_or_not():
    with pytest.raises(ValueError, match=r"0\.5 is no int64"):
        pad(0.5)([np.zeros(2, int), np.zeros(2, int)])


@pytest.mark.parametrize("form", [list, tuple, Pair._make])
@pytest.mark.parametrize("value", [[0, -100], (0, -100), {1: -100}])
def test_components_may_have_values_of_their_own_by_place(form, value):
    (batch,) = ff.batch(2, [form([[1], [1]]), form([[2, 3], [2, 3]])], collate=pad(value))
    assert same(batch, form([np.array([[1, 0], [2, 3]]), np.array([[1, -100], [2, 3]])]))


def test_components_may_have_values_of_their_own_by_key():
    data = [{"ids": [1], "labels": [1], "name": "a"}, {"ids": [2, 3], "labels": [2, 3], "name": "b"}]
    for source in both(data):
        (batch,) = ff.batch(2, source, collate=pad({"labels": -100}))
        assert same(
            batch, {"ids": np.array([[1, 0], [2, 3]]), "labels": np.array([[1, -100], [2, 3]]), "name": ["a", "b"]}
        )
    (batch,) = ff.batch(2, [Record([1], 5), Record([2, 3], 6)], collate=pad({"ids": -1}))
    assert same(batch, Record(np.array([[1, -1], [2, 3]]), np.array([5, 6])))


def test_values_nest_as_components_do():
    data = [{"text": {"ids": [1], "mask": [1]}}, {"text": {"ids": [2, 3], "mask": [1, 1]}}]
    (batch,) = ff.batch(2, data, collate=pad({"text": {"ids": 9}}))
    assert same(batch, {"text": {"ids": np.array([[1, 9], [2, 3]]), "mask": np.array([[1, 0], [1, 1]])}})


def test_pad_may_be_one_of_the_collations():
    data = [{"image": np.zeros((2, 2)), "boxes": [[1, 2, 3, 4]]}, {"image": np.zeros((2, 2)), "boxes": []}]
    (batch,) = ff.batch(2, data, collate={"boxes": pad(-1)})
    assert same(batch["boxes"], np.array([[[1, 2, 3, 4]], [[-1, -1, -1, -1]]]))


@pytest.mark.parametrize(
    ("value", "data", "error", "message"),
    [
        ({"x": 1}, [{"y": 1}], ValueError, r"value names 'x', but datapoints have \['y'\]"),
        ([1], [[1, 2]], ValueError, "value has 1 values, but datapoints have 2 components"),
        ({0: 1}, [np.zeros(1)], TypeError, r"value is \{0: 1\}, one for each component, but there are no components"),
        ([0, [1]], [[[1], [2]]], TypeError, r"value is \[1\], one for each component, but there are no components"),
    ],
)
def test_values_for_components_that_are_not_there_are_refused(value, data, error, message):
    with pytest.raises(error, match=rf"^pad\(\): {message}"):
        list(ff.batch(1, data, collate=pad(value)))


# Arguments, and how it looks


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        (
            {"value": np.zeros(2)},
            TypeError,
            r"value must be one value, or a dict, list or tuple of one for each component, got float64 array \(2,\)",
        ),
        ({"axis": "x"}, TypeError, "axis must be an integer, a tuple of integers, or None, got 'x'"),
        ({"axis": [0]}, TypeError, r"axis must be an integer, a tuple of integers, or None, got \[0\]"),
        ({"axis": ()}, TypeError, r"axis must be an integer, a tuple of integers, or None, got \(\)"),
        ({"length": 0}, ValueError, "length must be a positive integer or None, got 0"),
        ({"length": 1.5}, TypeError, "length must be a positive integer or None, got 1.5"),
        ({"multiple": 0}, ValueError, "multiple must be a positive integer, got 0"),
        ({"length": 4, "multiple": 2}, ValueError, "give length or multiple, not both, got length=4 and multiple=2"),
    ],
)
def test_bad_arguments_fail_at_once(keywords, error, message):
    with pytest.raises(error, match=rf"^pad\(\): {message}$"):
        pad(**keywords)


def test_a_collation_is_a_value():
    assert pad() == pad(0) == pickle.loads(pickle.dumps(pad(0))) != pad(1)
    assert hash(pad(0)) == hash(pad(0))
    assert repr(pad()) == "pad(0)"
    assert repr(pad({"x": -1})) == "pad({'x': -1})"
    assert repr(pad(1.5, axis=(0, 1), multiple=8)) == "pad(1.5, axis=(0, 1), multiple=8)"
    assert repr(pad(0, length=8)) == "pad(0, length=8)"
    assert repr(ff.batch(2, collate={"x": pad(0)})) == "batch(2, collate={'x': pad(0)})"
    assert ff.batch(2, collate=pad(0)) == ff.batch(2, collate=pad(0)) != ff.batch(2, collate=pad(1))


class Named:
    """A collation that knows the names of the components."""

    def __call__(self, values):
        return "none"

    def for_components(self, names):
        return [lambda values, name=name: (name, list(values)) for name in names]


def test_a_collation_may_be_told_the_names_of_the_components():
    assert list(ff.batch(2, [[1, 2], [3, 4]], collate=Named())) == [[(0, [1, 3]), (1, [2, 4])]]
    assert list(ff.batch(2, [{"a": 1}, {"a": 2}], collate=Named())) == [{"a": ("a", [1, 2])}]
    assert list(ff.batch(2, [1, 2], collate=Named())) == ["none"]


def ragged(number):
    return {"x": np.arange(number % 4), "y": number}


def test_the_laws_hold():
    for source in (range(10), Stream(range(10))):
        check(lambda: ff.pipe(source, ff.map(ragged), ff.batch(3, collate=pad({"x": -1}))))


# Tensors


def _tensors():
    torch = pytest.importorskip("torch")
    x = torch.arange(3.0)
    fine = {
        "float32": x,
        "float16": x.half(),
        "int64": x.long(),
        "bool": x > 1,
        "complex": x * 1j,
        "0-d": x[1],
        "2-d": x.reshape(3, 1),
    }
    odd = {
        "bfloat16": x.bfloat16(),
        "bfloat16, 0-d": x.bfloat16()[1],
        "gradients": x.clone().requires_grad_(),
        "sparse": x.to_sparse(),
        "meta": x.to("meta"),
        "conjugated": (x * 1j).conj(),
    }
    return torch, fine, odd


@pytest.mark.parametrize(
    "form",
    [lambda x: x, lambda x: [x, "a"], lambda x: {"x": x}, lambda x: {"a": {"x": x}}, lambda x: [[x, x]]],
    ids=range(5),
)
def test_tensors_become_arrays_or_the_error_names_collate(form):
    _torch, fine, odd = _tensors()
    for collate in (ff.stack, pad(0)):
        for name, tensor in fine.items():
            (whole,) = ff.batch(2, [form(tensor), form(tensor)], collate=collate)
            (as_arrays,) = ff.batch(2, [form(tensor.numpy()), form(tensor.numpy())], collate=collate)
            np.testing.assert_equal(whole, as_arrays, name)
        for name, tensor in odd.items():
            if collate is not ff.stack and form([0]) == [[[0], [0]]]:
                continue
            with pytest.raises(
                TypeError,
                match=r"^batch\(\): torch's Tensor of .* cannot become a NumPy array .* collate=torch.stack\)",
            ) as caught:
                list(ff.batch(2, [form(tensor), form(tensor)], collate=collate))
            assert caught.value.__cause__ is not None, name


def test_torch_stack_keeps_tensors():
    torch, _fine, odd = _tensors()
    for name in ("bfloat16", "gradients", "meta"):
        (whole,) = ff.batch(2, [odd[name]] * 2, collate=torch.stack)
        assert (whole.shape, whole.dtype) == ((2, 3), odd[name].dtype)
    (whole,) = ff.batch(2, [{"x": odd["bfloat16"], "y": 1}] * 2, collate={"x": torch.stack})
    assert whole["x"].dtype is torch.bfloat16
    assert whole["y"].tolist() == [1, 1]
    assert [row.tolist() for row in ff.pipe([odd["bfloat16"]] * 3, ff.batch(2, collate=torch.stack), ff.unbatch())] == [
        [0, 1, 2]
    ] * 3


def test_tensors_and_arrays_in_one_batch():
    _torch, fine, odd = _tensors()
    for pair in ([fine["float32"], np.arange(3, dtype=np.float32)], [np.arange(3, dtype=np.float32), fine["float32"]]):
        (whole,) = ff.batch(2, pair)
        assert (whole.dtype, whole.tolist()) == (np.float32, [[0, 1, 2]] * 2)
    for pair in ([odd["bfloat16"], np.arange(3)], [np.arange(3), odd["gradients"]]):
        with pytest.raises(TypeError, match=r"collate=torch\.stack"):
            list(ff.batch(2, pair))
    with pytest.raises(ValueError, match=r"^batch\(\): cannot stack shapes \(3,\), \(3, 1\)"):
        list(ff.batch(2, lambda: [fine["float32"], fine["2-d"]]))


def test_batches_of_tensors_are_joined_or_the_error_names_collate():
    torch, _fine, _odd = _tensors()
    batches = [torch.ones(2, 3), torch.ones(3, 3)]
    assert [batch.shape for batch in ff.rebatch(4, batches)] == [(4, 3), (1, 3)]
    with pytest.raises(TypeError, match=r"^rebatch\(\): torch's Tensor of torch.bfloat16 cannot become a NumPy array"):
        list(ff.rebatch(4, [batch.bfloat16() for batch in batches]))


def test_an_array_interface_that_fails_is_named():
    class Remote:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("it is far away")

    with pytest.raises(
        TypeError,
        match=(
            r"^batch\(\): .*Remote of no dtype cannot become a NumPy array \(it is far away\); .*=a function of a "
            r"list"
        ),
    ):
        list(ff.batch(2, [Remote(), Remote()]))
