"""Batching and gathering: forms, dtypes, what stacks, what stays a list, and what is refused."""

import pickle
import tracemalloc
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import more_itertools
import numpy as np
import pytest
from sources import Stream

import flowfn as ff
from flowfn.datapoints.components import Datapoints
from flowfn.datapoints.padding import pad
from flowfn.testing import check
from flowfn.vocabulary.batching import collate, window

Pair = namedtuple("Pair", "x y")


@dataclass
class Record:
    x: int
    name: str


@dataclass(frozen=True)
class Frozen:
    x: float


def flows(data):
    return [ff.flow(data), ff.flow(lambda: iter(data))]


def equal(got, wanted):
    """Equal in value, type and dtype, all the way down."""
    assert type(got) is type(wanted) or (type(got) is Datapoints and type(wanted) is list), (got, wanted)
    if isinstance(wanted, np.ndarray):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted, strict=True)
    elif isinstance(wanted, dict):
        assert list(got) == list(wanted)
        for key in wanted:
            equal(got[key], wanted[key])
    elif isinstance(wanted, (list, tuple)):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted):
            equal(one, other)
    elif hasattr(wanted, "__dataclass_fields__"):
        equal(vars(got), vars(wanted))
    else:
        assert got == wanted
    return True


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 9, 5000])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100, 4097, 10_000])
@pytest.mark.parametrize("drop", [False, True])
def test_batches_are_chunks(n, size, drop):
    expected = [chunk for chunk in more_itertools.chunked(range(n), size) if len(chunk) == size or not drop]
    for source in flows(range(n)):
        flow = ff.batch(size, source, drop_remainder=drop)
        assert [batch.tolist() for batch in flow] == expected
    seekable = ff.batch(size, range(n), drop_remainder=drop)
    assert len(seekable) == len(expected)
    assert [seekable[i].tolist() for i in {0, len(expected) // 2, len(expected) - 1} if expected] == [
        expected[i] for i in {0, len(expected) // 2, len(expected) - 1} if expected
    ]


def test_batch_works_in_isolation():
    equal(list(ff.batch(2, [[1], [2], [3]])), [[np.array([1, 2])], [np.array([3])]])


ARRAY = np.arange(4, dtype=np.uint8).reshape(2, 2)
FORMS = [
    ([1, 2], np.array([1, 2])),
    ([1.0, 2.0], np.array([1.0, 2.0])),
    ([1, 2.5], np.array([1.0, 2.5])),
    ([True, False], np.array([True, False])),
    ([1j, 2], np.array([1j, 2])),
    ([np.float32(1), np.float32(2)], np.array([1, 2], np.float32)),
    ([np.int8(1), np.int8(2)], np.array([1, 2], np.int8)),
    ([np.bool_(True)], np.array([True])),
    ([np.array(1, np.int16), np.array(2, np.int16)], np.array([1, 2], np.int16)),
    ([ARRAY, ARRAY], np.stack([ARRAY, ARRAY])),
    ([np.zeros(0), np.zeros(0)], np.zeros((2, 0))),
    ([np.zeros((0, 3), np.int32)], np.zeros((1, 0, 3), np.int32)),
    ([np.array(["a"]), np.array(["bc"])], np.array([["a"], ["bc"]])),
    ([np.array([None, "x"], object)], np.array([[None, "x"]], object)),
    (["a", "bc"], ["a", "bc"]),
    ([b"a", b"bc"], [b"a", b"bc"]),
    (["", ""], ["", ""]),
    ([None, None], [None, None]),
    ([{1}, {2}], [{1}, {2}]),
    ([[1, "a"], [2, "b"]], [np.array([1, 2]), ["a", "b"]]),
    ([(1, "a"), (2, "b")], (np.array([1, 2]), ["a", "b"])),
    ([Pair(1, "a"), Pair(2, "b")], Pair(np.array([1, 2]), ["a", "b"])),
    ([{"x": 1, "s": "a"}, {"x": 2, "s": "b"}], {"x": np.array([1, 2]), "s": ["a", "b"]}),
    ([{"x": 1, "y": 2}, {"y": 3, "x": 4}], {"x": np.array([1, 4]), "y": np.array([2, 3])}),
    ([{"a": {"b": 1}}, {"a": {"b": 2}}], {"a": {"b": np.array([1, 2])}}),
    ([{"a": {"b": {"c": ARRAY}}}], {"a": {"b": {"c": ARRAY[None]}}}),
    ([[{"b": 1}], [{"b": 2}]], [{"b": np.array([1, 2])}]),
    ([[[1, 2]], [[3, 4]]], [np.array([[1, 2], [3, 4]])]),
    ([[(1, 2)], [(3, 4)]], [np.array([[1, 2], [3, 4]])]),
    ([[[[1], [2]]]], [np.array([[[1], [2]]])]),
    ([[[np.zeros(2)]], [[np.ones(2)]]], [np.array([[[0.0, 0]], [[1.0, 1]]])]),
    ([[["a", "b"]], [["c"]]], [[["a", "b"], ["c"]]]),
    ([[["a", 1]], [["b", 2]]], [[["a", 1], ["b", 2]]]),
    ([[[None, 1]], [[None, 2]]], [[[None, 1], [None, 2]]]),
    ([[[]], [[]]], [np.zeros((2, 0))]),
    ([[], []], []),
    ([{}, {}], {}),
    ([Record(1, "a"), Record(2, "b")], Record(np.array([1, 2]), ["a", "b"])),
    ([Frozen(1.5)], Frozen(np.array([1.5]))),
    ([[None], [None]], [[None, None]]),
    ([[2**70], [1]], [[2**70, 1]]),
    ([["a"], [None]], [["a", None]]),
    ([[1], ["a"]], [[1, "a"]]),
]


@pytest.mark.parametrize(("datapoints", "expected"), FORMS, ids=str)
def test_a_batch_has_the_form_of_its_datapoints(datapoints, expected):
    before = pickle.dumps(datapoints)
    for source in flows(datapoints):
        equal(list(ff.batch(len(datapoints), source)), [expected])
    assert pickle.dumps(datapoints) == before


def test_arrays_keep_their_dtype_and_byte_content():
    for dtype in ["bool", "int8", "uint16", "int64", "float16", "float32", "complex64", "datetime64[s]", "U3", "S2"]:
        values = [np.zeros(2, dtype), np.ones(2, dtype) if dtype[0] not in "US" else np.array(["a", "b"], dtype)]
        equal(list(ff.batch(2, values)), [np.stack(values)])


def test_a_batch_is_new_memory_even_of_read_only_arrays():
    array = np.arange(6).reshape(3, 2)
    array.flags.writeable = False
    for source in (list(array), ff.flow(array), ff.from_arrays(array)):
        (batch,) = ff.batch(3, source)
        batch = batch[0] if isinstance(batch, list) else batch
        batch += 1  # writable
        assert array.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_fortran_and_strided_arrays_stack():
    values = [np.asfortranarray(ARRAY), ARRAY.T, ARRAY[::-1, ::-1]]
    np.testing.assert_equal(list(ff.batch(3, values)), [np.stack(values)])


def test_objects_with_an_array_interface_stack():
    class Tensor:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return np.array(self.values, dtype)

    equal(list(ff.batch(2, [Tensor([1, 2]), Tensor([3, 4])])), [np.array([[1, 2], [3, 4]])])


ONE_SEQUENCE = "; a datapoint that is one sequence of numbers should be an array: map(np.array)"


@pytest.mark.parametrize(
    ("datapoints", "message"),
    [
        ([[1, 2], [1]], f"batch(): datapoints must have the same components, got [1, 2] and [1]{ONE_SEQUENCE}"),
        ([(1,), (1, 2)], f"batch(): datapoints must have the same components, got (1,) and (1, 2){ONE_SEQUENCE}"),
        ([[1, "a"], [1]], "batch(): datapoints must have the same components, got [1, 'a'] and [1]"),
        ([[1], 3], "batch(): datapoints must have the same components, got [1] and 3"),
        ([{"a": 1}, {"b": 1}], "batch(): datapoints must have the same components, got {'a': 1} and {'b': 1}"),
        (
            [{"a": 1}, {"a": 1, "b": 1}],
            "batch(): datapoints must have the same components, got {'a': 1} and {'a': 1, 'b': 1}",
        ),
        ([{"a": 1}, [1]], "batch(): datapoints must have the same components, got {'a': 1} and [1]"),
        ([[1], {"a": 1}], "batch(): datapoints must have the same components, got [1] and {'a': 1}"),
        ([[1, 2], "ab"], "batch(): datapoints must have the same components, got [1, 2] and 'ab'"),
        ([Pair(1, 2), Record(1, "a")], None),
        ([Record(1, "a"), Pair(1, 2)], None),
        ([Record(1, "a"), 3], None),
    ],
)
def test_datapoints_of_different_forms_are_refused_and_shown(datapoints, message):
    for source in flows(datapoints):
        with pytest.raises(ValueError, match=r"^batch\(\): datapoints must have the same components, got ") as caught:
            list(ff.batch(2, source))
        assert message is None or str(caught.value) == message


@pytest.mark.parametrize(
    ("datapoints", "shapes"),
    [
        ([np.zeros(2), np.zeros(3)], "(2,), (3,)"),
        ([[np.zeros((2, 2))], [np.zeros((2, 3))]], "(2, 2), (2, 3)"),
        ([np.zeros(1), np.zeros(())], "(1,), ()"),
        ([np.zeros(1), 5], "(1,), ()"),
        ([[[1, 2]], [[3]]], "(2,), (1,)"),
        ([[[1, [2]]], [[3, 4]]], None),
        ([{"x": np.zeros(2)}, {"x": np.zeros(3)}], "(2,), (3,)"),
        ([1, np.zeros(2)], None),
    ],
)
def test_unequal_shapes_are_refused_and_shown_with_the_mend(datapoints, shapes):
    for source in flows(datapoints):
        with pytest.raises(ValueError, match=r"^batch\(\): cannot stack shapes .*collate=as_list") as caught:
            list(ff.batch(2, source))
        assert shapes is None or f"cannot stack shapes {shapes};" in str(caught.value)


@pytest.mark.parametrize(
    "value", [1, 1.5, True, np.float32(1), ARRAY, np.array(1), [1, 2], [[1.5]], [ARRAY], {"a": 1}], ids=str
)
def test_a_component_has_one_form_in_every_batch_or_is_refused(value):
    for column in ([value, None], [None, value], [value, None, value], [None, None, value]):
        for make in (lambda x: [x, "a"], lambda x: (0, x), lambda x: {"x": x}, lambda x: [{"x": x}]):
            for source in flows(list(map(make, column))):
                with pytest.raises(ValueError, match="None"):
                    list(ff.batch(len(column), source))
                (batch,) = ff.batch(len(column), source, collate=ff.as_list)
                assert len(ff.as_list(batch)) in (1, 2)
    for holes in ([[1, None], [2, 3]], [[2, 3], [None, 1]], [[[1]], [[None]]]):
        with pytest.raises(
            ValueError, match=r"batch\(\): None is among values that are stacked elsewhere, got .*collate=as_list"
        ):
            list(ff.batch(2, [{"x": hole} for hole in holes]))
    for listed in (
        [None, None],
        ["a", None],
        [None, "a"],
        [[None], [None]],
        [["a"], [None]],
        [None, ["a"]],
        [[1, None], [2, None]],
    ):
        equal(list(ff.batch(2, [{"x": one} for one in listed])), [{"x": listed}])


# Collations


def test_as_list_keeps_whatever_it_is_given():
    ragged = [[np.zeros(2), [1]], [np.zeros(3), [1, 2]]]
    (batch,) = ff.batch(2, ragged, collate=ff.as_list)
    assert batch[0][0] is ragged[0][0]
    assert batch[1] == [[1], [1, 2]]
    assert list(ff.batch(2, [1, 2, 3], collate=ff.as_list)) == [[1, 2], [3]]
    assert ff.as_list((1, 2)) == [1, 2]


@pytest.mark.parametrize("collate", [[ff.stack, ff.as_list], (ff.stack, ff.as_list)])
@pytest.mark.parametrize("form", [list, tuple, Pair._make])
def test_collate_may_be_given_for_each_component_by_place(collate, form):
    (batch,) = ff.batch(2, [form([1, [1]]), form([2, [2, 3]])], collate=collate)
    equal(batch, form([np.array([1, 2]), [[1], [2, 3]]]))


def test_collate_may_be_given_by_key_and_the_rest_is_stacked():
    data = [{"image": ARRAY, "boxes": [1]}, {"image": ARRAY, "boxes": [1, 2]}]
    (batch,) = ff.batch(2, data, collate={"boxes": ff.as_list})
    equal(batch, {"image": np.stack([ARRAY, ARRAY]), "boxes": [[1], [1, 2]]})
    (batch,) = ff.batch(2, [Record(1, "a"), Record(2, "b")], collate={"x": ff.as_list})
    equal(batch, Record([1, 2], ["a", "b"]))


def test_collate_by_place_may_be_a_dict_of_places():
    (batch,) = ff.batch(2, [[1, 2], [3, 4]], collate={1: ff.as_list})
    equal(batch, [np.array([1, 3]), [2, 4]])


def test_collate_may_be_any_function_of_the_values_of_a_component():
    assert list(ff.batch(2, [[1, 2], [3, 4]], collate=sum)) == [[4, 6]]
    assert list(ff.batch(2, [{"a": 1}, {"a": 5}], collate=max)) == [{"a": 5}]
    assert list(ff.batch(2, [1, 2, 3], collate=sum)) == [3, 3]


@pytest.mark.parametrize(
    ("collate", "message"),
    [
        (
            {"c": ff.stack},
            r"^batch\(\): collate names 'c', but datapoints have \['a', 'b'\]",
        ),
        ([ff.stack], r"^batch\(\): collate has 1 collations?, but datapoints have 2 components"),
    ],
)
def test_a_collation_for_what_is_not_there_is_refused(collate, message):
    with pytest.raises(ValueError, match=message):
        list(ff.batch(2, [{"a": 1, "b": 2}], collate=collate))


def test_collations_by_component_need_components():
    with pytest.raises(TypeError, match=r"^batch\(\): collate names components, but datapoints have none: 1"):
        list(ff.batch(2, [1, 2], collate=[ff.stack]))


def test_what_is_no_collation_is_refused_at_once():
    with pytest.raises(TypeError, match=r"^batch\(\): collate must be a collation .*, got 3$"):
        ff.batch(2, collate=3)


@pytest.mark.parametrize("collate", [{"x": 3}, [3], {"x": "stack"}])
def test_what_is_no_collation_inside_is_refused_at_once_too(collate):
    with pytest.raises(TypeError, match=r"^batch\(\): collate must be "):
        ff.batch(2, collate=collate)


# Gathering


def gathered(*stages, **arrays):
    return list(ff.pipe(ff.from_arrays(**arrays), *stages))


def of_objects(*items):
    """An array of just these objects."""
    array = np.empty(len(items), object)
    for at, item in enumerate(items):
        array[at] = item
    return array


ARRAYS = {"image": np.arange(40, dtype=np.uint8).reshape(10, 2, 2), "label": np.arange(10, dtype=np.int32)}
ROUTES = {
    "plain": [],
    "shuffle": [ff.shuffle()],
    "shard": [ff.shard(1, 3)],
    "take, skip": [ff.skip(1), ff.take(7)],
    "backwards": [ff.slice(None, None, -1)],
    "strided": [ff.slice(1, None, 3)],
    "subset": [ff.subset([9, 0, 0, -1])],
    "repeat": [ff.shuffle(), ff.repeat(2)],
    "freeze": [ff.shuffle(), ff.freeze(seed=2)],
    "all": [ff.shuffle(), ff.shard(0, 2), ff.slice(None, None, -1), ff.select(["label", "image"])],
    "cache": [ff.shuffle(), ff.cache()],
    "nothing": [ff.take(0)],
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("size", [1, 3, 10, 64])
@pytest.mark.parametrize("drop", [False, True])
def test_gathered_batches_are_what_row_by_row_ones_are(route, size, drop):
    batch = ff.batch(size, drop_remainder=drop)
    fast = gathered(*ROUTES[route], batch, **ARRAYS)
    slow = gathered(*ROUTES[route], ff.map(lambda x: x), batch, **ARRAYS)
    equal(fast, slow)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "bc", "d"], object),
        np.array([None, "x", "y"], object),
        np.array(["a", "bc", "d"]),
        np.array([b"a", b"bc"]),
        np.array([1.5, 2]),
        np.zeros((3, 0)),
        np.zeros((3, 2, 0), np.int8),
        np.array([True, False]),
        np.array(["2020-01-01", "2021-01-01"], "datetime64[D]"),
        np.array([(1, 2.0), (3, 4.0)], [("a", int), ("b", float)]),
        np.array([(1, 2.0), (3, 4.0)], np.dtype([("a", np.int8), ("b", float)], align=True)),
        np.array([[1.5], [2]], ">f4"),
        np.array([["a", "b"], ["c", "d"]]),
        np.array([["a", 1], [None, [2]]], object),
        of_objects([1, 2], [3, 4]),
        of_objects({"a": 1}, {"a": 2}, {"a": 3}),
        of_objects(np.zeros(2), np.ones(2)),
        of_objects(np.array([(1, None)], [("a", int), ("b", object)])[0]),
        np.zeros((0, 2)),
    ],
    ids=lambda a: f"{a.dtype} {a.shape}",
)
@pytest.mark.parametrize("form", ["bare", "list", "dict"])
@pytest.mark.parametrize(
    "order", [None, ff.subset([-1, 0, 0]), ff.slice(None, None, -1)], ids=["in order", "subset", "backwards"]
)
def test_arrays_of_any_dtype_gather_as_they_stack(array, form, order):
    beside = np.arange(len(array)), np.arange(len(array), dtype=">f4")
    flows = {"bare": lambda: ff.flow(array), "list": lambda: ff.from_arrays(array, *beside)}
    source = flows.get(form, lambda: ff.from_arrays(n=beside[0], array=array, m=beside[1]))()
    order = order if len(array) else None
    for how in (ff.stack, ff.as_list, None):
        whole, alone = (ff.pipe(source, order, same, ff.batch(2, collate=how)) for same in (None, ff.map(lambda x: x)))
        made, expected = list(whole), list(alone)
        equal(made, expected)
        assert list(map(type, made)) == list(map(type, expected))


def test_gathered_batches_are_plain_numpy_indexing():
    flow = ff.pipe(ff.from_arrays(**ARRAYS), ff.shuffle(), ff.batch(4))
    order = np.array([row["label"] for row in ff.pipe(ff.from_arrays(**ARRAYS), ff.shuffle()).run(epoch=0)])
    for i, batch in enumerate(flow.run(epoch=0)):
        equal(
            batch,
            {"image": ARRAYS["image"][order[4 * i : 4 * i + 4]], "label": ARRAYS["label"][order[4 * i : 4 * i + 4]]},
        )
    equal(flow[2], {"image": ARRAYS["image"][order[8:]], "label": ARRAYS["label"][order[8:]]})
    equal(flow[-3], {"image": ARRAYS["image"][order[:4]], "label": ARRAYS["label"][order[:4]]})


def test_gathering_a_batch_takes_no_more_memory_than_the_batch():
    array = np.zeros((1_000_000, 8), np.float32)
    flow = ff.pipe(ff.from_arrays(array), ff.shuffle(), ff.batch(128))
    next(iter(flow))
    tracemalloc.start()
    try:
        batches = sum(1 for batch in ff.pipe(flow, ff.take(50)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert batches == 50
    assert peak < 2**20


# unbatch


INVERSE = {
    **{
        f"form {number}": (data, {})
        for number, (data, _) in enumerate(FORMS)
        if str(data) not in ("[[], []]", "[{}, {}]")
    },
    "strings": (["ab", "cd", "ef"], {}),
    "bytes": ([b"ab", b"cd", b"ef"], {}),
    "strings of an array": (np.array(["ab", "c", "def"]), {}),
    "objects of an array": (np.array([None, "c", 1], object), {}),
    "None": ([None, None, None], {}),
    "None and others": ([None, "a", None], {}),
    "sets": ([{1}, {2}, {3}], {}),
    "large integers": ([2**70, 2**71, -(2**72)], {}),
    "large integers in lists": ([[2**70, 1], [2**71, 2], [3, 3]], {}),
    "arrays, as_list": ([np.array([1, 2]), np.array([3, 4]), np.array([5, 6])], {"collate": ff.as_list}),
    "arrays of several sizes, as_list": ([np.array([1, 2]), np.array([3]), np.zeros(0)], {"collate": ff.as_list}),
    "as many arrays as they have rows, as_list": ([np.eye(2), np.eye(2)], {"collate": ff.as_list}),
    "strings, padded": (["ab", "cd", "ef"], {"collate": pad(0)}),
    "components, as_list": ([[np.zeros(2), "a"], [np.ones(2), "b"], [np.ones(1), "c"]], {"collate": ff.as_list}),
    "dicts, as_list": ([{"x": [1]}, {"x": [2, 3]}], {"collate": ff.as_list}),
    "one for each": ([{"x": np.zeros(2), "y": [1]}, {"x": np.ones(2), "y": [2, 3]}], {"collate": {"y": ff.as_list}}),
    "tuples of strings": ([("a", "b"), ("c", "d"), ("e", "f")], {}),
    "namedtuples of strings": ([Pair("a", None), Pair("c", None)], {}),
    "nested": ([{"a": {"b": 1, "c": "x"}, "d": [1, 2]}, {"a": {"b": 2, "c": "y"}, "d": [3, 4]}], {}),
    "empty dicts inside": ([{"a": {}, "b": {"c": {}, "d": 1}}, {"a": {}, "b": {"c": {}, "d": 2}}], {}),
    "lists of strings inside": ([[1, ["a", "b"]], [2, ["c"]]], {}),
    "tuples inside": ([[(1, "a"), 1], [(2, "b"), 2]], {}),
    "objects": ([np.array([None, "a"], object)] * 2, {}),
    "dates": ([np.datetime64("2020-01-01"), np.datetime64("2021-01-01")], {}),
    "durations": ([np.timedelta64(3, "s")] * 2, {}),
    "structured": (list(np.array([(1, 2.5), (3, 4.5)], [("a", int), ("b", float)])), {}),
    "booleans": ([True, False, True], {}),
    "0-d": ([np.array(1), np.array(2)], {}),
    "empty arrays": ([np.zeros((0, 3))] * 3, {}),
    "lists of datapoints": ([[1, "a"], [2, "b"], [3, "c"]], {"collate": None}),
    "lists of anything": ([[1, "a"], None, {"x": 2}, "b", (3,), np.zeros(2)], {"collate": None}),
    "rows of arrays": (np.arange(6).reshape(3, 2), {"collate": None}),
}


def plain(value):
    """What a datapoint is, but for what stacking makes of numbers and lists of them."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if not hasattr(value, "_make") else value._make(map(plain, value))
    return (type(value), plain(vars(value))) if hasattr(value, "__dataclass_fields__") else value


def listed(value):
    """Tuples inside as lists, since that is what stacking may make of them."""
    if isinstance(value, dict):
        return {key: listed(one) for key, one in value.items()}
    return [listed(one) for one in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("name", INVERSE)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_unbatch_is_the_inverse_of_batch(name, size):
    data, options = INVERSE[name]
    if size > len(data) and name.startswith("form"):
        return
    for source in flows(data):
        flow = ff.pipe(source, ff.batch(size, **options))
        back = list(ff.unbatch(flow))
        assert listed(list(map(plain, back))) == listed(list(map(plain, data)))
        assert [type(one) for one in back if isinstance(one, (dict, tuple))] == [
            type(one) for one in data if isinstance(one, (dict, tuple))
        ]
        for between in (ff.prefetch(2, threads=2), ff.cache(), ff.map(pickle.dumps), ff.batch(2, collate=None)):
            after = {ff.batch: ff.unbatch(), ff.map: ff.map(pickle.loads)}.get(getattr(ff, between.name))
            assert len(list(ff.pipe(flow, between, after, ff.unbatch()))) == len(data)


@pytest.mark.parametrize("collate", [ff.stack, ff.as_list, None])
def test_unbatch_is_the_inverse_in_other_processes_and_from_disk(collate, tmp_path):
    data = ["ab", "cd", "ef"]
    for between in (ff.prefetch(2, processes=1), ff.cache_to(str(tmp_path / "cache"))):
        assert list(ff.pipe(data, ff.batch(2, collate=collate), between, ff.unbatch())) == data
        assert list(ff.pipe(data, ff.batch(2, collate=collate), ff.map(lambda x: x), between, ff.unbatch())) == data


def test_windows_groups_and_rebatched_batches_of_strings_come_apart_too():
    data = ["ab", "cd", "ef", "gh", "ij"]
    assert list(ff.pipe(data, window(2, step=2), ff.unbatch())) == data
    assert sorted(ff.pipe(data, ff.batch_by_key(len, 2), ff.unbatch())) == data
    assert list(ff.pipe(data, ff.batch(2), ff.rebatch(3))) == [["ab", "cd", "ef"], ["gh", "ij"]]
    assert list(ff.pipe(data, ff.batch(2), ff.rebatch(3), ff.unbatch())) == data
    assert list(ff.pipe(data, ff.batch(3, collate=None), ff.inside(ff.map(str.upper)), ff.unbatch())) == [
        x.upper() for x in data
    ]
    assert list(ff.pipe(data, ff.batch(2, collate=None), collate(), ff.unbatch())) == data
    assert list(ff.mix(ff.batch(2, data), tag="from")) == [(["ab", "cd"], 0), (["ef", "gh"], 0), (["ij"], 0)]


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (
            ["ab", "cd"],
            TypeError,
            r"a component of a batch must be an array or a list, .* but component 0 is 'ab'; flat_map\(iter\)",
        ),
        ([np.zeros(2), b"cd"], TypeError, "component 1 is b'cd'"),
        ([[1, 2], None], TypeError, "component 1 is None"),
        ([np.zeros(2), 3], TypeError, "component 1 is 3"),
        ({"x": np.array(3)}, TypeError, "component 'x' is "),
        ({"x": {"y": "abc"}}, TypeError, "component 'y' is 'abc'"),
        (("abc", "def"), TypeError, "component 0 is 'abc'"),
        (Record([1, 2], "ab"), TypeError, "component 'name' is 'ab'"),
        ("abc", TypeError, r"a batch must be an array, or a list, .* got 'abc'; is there a batch\(\) before it\?"),
        (5, TypeError, "a batch must be an array, .* got 5"),
        (None, TypeError, "a batch must be an array, .* got None"),
        (np.array(5), TypeError, "a batch must be an array"),
        (np.float32(5), TypeError, "a batch must be an array"),
        ([], ValueError, r"a batch without components does not tell how many datapoints it was made of, got \[\]"),
        ({}, ValueError, r"a batch without components .* got \{\}"),
        ((), ValueError, "a batch without components"),
        ({"a": {}, "b": {"c": {}}}, ValueError, "a batch without components"),
    ],
    ids=str,
)
def test_unbatch_says_what_is_no_batch(batch, error, message):
    with pytest.raises(error, match=rf"^unbatch\(\): (a component of .* but )?{message}"):
        list(ff.unbatch([batch]))


@pytest.mark.parametrize("form", [list, tuple, Pair._make, lambda v: dict(zip("xy", v)), lambda v: Record(*v)])
def test_unbatched_datapoints_have_the_form_of_the_batch(form):
    rows = list(ff.unbatch([form([np.array([1, 2]), ["a", "b"]])]))
    equal(rows, [form([np.int64(1), "a"]), form([np.int64(2), "b"])])


def test_unbatch_takes_nested_dicts_apart():
    (one, two) = ff.unbatch([{"a": {"b": np.array([1, 2])}, "c": [3, 4]}])
    assert (one, two) == ({"a": {"b": 1}, "c": 3}, {"a": {"b": 2}, "c": 4})


def test_unbatched_rows_are_views():
    array = np.zeros((2, 3))
    row = next(iter(ff.unbatch([[array]])))[0]
    assert np.shares_memory(row, array)


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([], []),
        ([np.zeros(0)], []),
        ([[np.zeros((0, 2))]], []),
        ([[[]], [[1]]], [[1]]),
        ([np.arange(2), np.arange(1)], [0, 1, 0]),
    ],
)
def test_unbatch_of_empty_and_bare_batches(batches, expected):
    for source in flows(batches):
        assert list(ff.unbatch(source)) == expected


@pytest.mark.parametrize(
    "batch",
    [
        [np.zeros(2), np.zeros(3)],
        {"a": [1], "b": [1, 2]},
        (np.zeros(2), [1]),
        Record([1], ["a", "b"]),
        {"a": {"b": [1]}, "c": [1, 2]},
    ],
)
def test_unbatch_refuses_components_of_different_lengths(batch):
    with pytest.raises(ValueError, match=r"^unbatch\(\): the components of a batch have different lengths: "):
        list(ff.unbatch([batch]))


def test_batches_of_batches():
    flow = ff.pipe(range(12), ff.batch(2), ff.batch(3))
    np.testing.assert_equal(list(flow), list(np.arange(12).reshape(2, 3, 2)))
    assert len(flow) == 2
    np.testing.assert_equal(list(ff.pipe(flow, ff.unbatch(), ff.unbatch())), list(range(12)))


def test_a_mapping_batch_is_a_dict():
    equal(list(ff.batch(1, [OrderedDict(a=1)])), [{"a": np.array([1])}])


# Lists of datapoints, and back


def test_without_a_collation_a_batch_is_the_list_of_its_datapoints():
    first, *_ = data = [[1, "a"], None, {"x": 2}, "b", (3,)]
    for source in flows(data):
        batches = list(ff.batch(2, source, collate=None))
        assert batches == [[first, None], [{"x": 2}, "b"], [(3,)]]
        assert batches[0][0] is first
    assert list(ff.batch(2, [], collate=None)) == []
    assert repr(ff.batch(2, collate=None)) == "batch(2, collate=None)"


def test_rows_of_arrays_make_lists_too():
    (batch,) = ff.pipe(ff.from_arrays(np.arange(2), np.arange(2)), ff.batch(2, collate=None))
    equal(batch, [[np.int64(0), np.int64(0)], [np.int64(1), np.int64(1)]])


def test_a_list_of_datapoints_is_no_part_of_the_source():
    for source in flows(list(range(6))):
        for batches in (ff.batch(3, source, collate=None), window(3, source, step=1, collate=None)):
            for batch in batches:
                batch.clear()
            assert [len(batch) for batch in batches][:2] == [3, 3]


@pytest.mark.parametrize("collation", [ff.stack, ff.as_list, pad(0), [ff.as_list, pad(-1)]])
def test_collate_ends_what_batch_began(collation):
    data = [[n, [0] * (n % 3 if collation is not ff.stack else 2)] for n in range(7)]
    for source in flows(data):
        whole = list(ff.batch(3, source, collate=collation))
        assert len(whole) == 3
        equal(list(ff.pipe(source, ff.batch(3, collate=None), collate(collation))), whole)


def test_collate_stacks_if_nothing_is_said():
    for stage in (collate(), collate(ff.stack), collate(how=ff.stack)):
        equal(
            list(ff.pipe([[[1, "a"], [2, "b"]], ([3, "c"],)], stage)),
            [[np.array([1, 2]), ["a", "b"]], [np.array([3]), ["c"]]],
        )
    equal(list(collate(ff.stack, [[1]])), [np.array([1])])
    equal(list(collate(source=[[1]])), [np.array([1])])


def test_collate_looks_like_its_call():
    assert repr(collate()) == "collate()"
    assert repr(collate(ff.as_list)) == "collate(as_list)"
    assert repr(collate(pad(0))) == "collate(pad(0))"
    assert collate() == pickle.loads(pickle.dumps(collate())) != collate(pad(0))


@pytest.mark.parametrize(
    ("datapoint", "error", "message"),
    [
        (
            3,
            TypeError,
            r"collate\(\): a datapoint must be a list of datapoints, got 3; batch\(n, collate=None\) makes them",
        ),
        ({"x": 1}, TypeError, r"collate\(\): a datapoint must be a list of datapoints, got \{'x': 1\}"),
        ("text", TypeError, r"collate\(\): a datapoint must be a list of datapoints, got 'text'"),
        ([], ValueError, r"collate\(\): a list of datapoints must not be empty"),
        ((), ValueError, r"collate\(\): a list of datapoints must not be empty"),
    ],
)
def test_collate_wants_lists_of_datapoints(datapoint, error, message):
    for source in flows([datapoint]):
        with pytest.raises(error, match=f"^{message}"):
            list(collate(source=source))


@pytest.mark.parametrize("how", [None, 3, {"x": 3}])
def test_collate_refuses_what_is_no_collation(how):
    with pytest.raises(TypeError, match=r"^collate\(\): how must be a collation"):
        collate(how)


# Windows


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 50])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 7])
def test_windows_are_those_of_more_itertools_without_its_filling(n, size, step):
    fill = object()
    expected = [[x for x in w if x is not fill] for w in more_itertools.windowed(range(n), size, fill, step)]
    expected = [w for w in expected if w]  # of nothing, it makes a window of nothing but filling
    for source in flows(range(n)):
        assert list(window(size, source, step=step, collate=None)) == expected
        assert [w.tolist() for w in window(size, source, step=step, drop_remainder=True)] == [
            w for w in expected if len(w) == size
        ]
    seekable = window(size, range(n), step=step)
    assert len(seekable) == len(expected)
    assert [seekable[i].tolist() for i in range(len(expected))] == expected


def test_windows_are_those_of_tf_data_but_for_its_tail():
    """What Dataset.range(7).window(size, shift) gives, run with TensorFlow 2.21."""
    whole = {(3, 1): [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6]], (3, 3): [[0, 1, 2], [3, 4, 5]]}
    tails = {(3, 1): [[5, 6], [6]], (3, 2): [[6]], (3, 3): [[6]], (2, 3): [[6]]}
    for (size, shift), windows in whole.items():
        assert [w.tolist() for w in window(size, range(7), step=shift, drop_remainder=True)] == windows
    for (size, shift), tail in tails.items():
        ours = [w.tolist() for w in window(size, range(7), step=shift)]
        assert ours[-1] == (tail[-1] if shift >= size else [7 - size + i for i in range(size)])
        assert not any(w in ours for w in tail if shift < size)


def test_windows_of_arrays_are_gathered():
    arrays = {"x": np.arange(10), "y": np.arange(20).reshape(10, 2)}
    for stages in ([], [ff.shuffle()], [ff.skip(3)]):
        fast = list(ff.pipe(ff.from_arrays(**arrays), *stages, window(4, step=3)))
        slow = list(ff.pipe(ff.from_arrays(**arrays), *stages, ff.map(lambda x: x), window(4, step=3)))
        equal(fast, slow)
    assert list(fast[0]) == ["x", "y"]


def test_windows_look_like_their_call_and_refuse_bad_arguments():
    assert repr(window(3)) == "window(3)"
    assert repr(window(3, step=2, collate=None)) == "window(3, step=2, collate=None)"
    with pytest.raises(ValueError, match=r"^window\(\): size must be a positive integer, got 0$"):
        window(0)
    with pytest.raises(ValueError, match=r"^window\(\): step must be a positive integer, got 0$"):
        window(2, step=0)
    with pytest.raises(TypeError, match=r"^window\(\): collate must be a collation .* or None, got 3$"):
        window(2, collate=3)


# The laws


@pytest.mark.parametrize(
    "stage",
    [
        ff.batch(3),
        ff.batch(3, drop_remainder=True, collate=None),
        window(3),
        window(3, step=2, drop_remainder=True),
        window(2, step=3, collate=None),
        ff.compose(ff.batch(4, collate=None), collate()),
        ff.compose(ff.batch(4), ff.unbatch()),
    ],
    ids=str,
)
def test_the_laws_hold(stage):
    for source in (range(11), Stream(range(11))):
        check(lambda: ff.pipe(source, ff.map(float), stage))
    for n in (0, 1):
        check(lambda: ff.pipe(Stream(range(n)), stage), epochs=(0,))


def test_the_laws_hold_in_threads_and_processes():
    for source in (range(11), Stream(range(11))):
        for stage in (
            ff.batch(3, collate=None),
            window(3, step=2),
            ff.compose(ff.batch(4, collate=None), collate(pad(0))),
        ):
            check(
                lambda: ff.pipe(source, ff.map(float), stage),
                workers=({}, {"threads": 2}, {"processes": 2}),
                epochs=(0,),
                stops=4,
            )


def test_batches_of_endless_sources():
    endless = ff.cycle(range(5))
    assert ff.pipe(endless, ff.batch(3, collate=None))[2] == [1, 2, 3]
    assert ff.pipe(endless, window(3, collate=None))[4] == [4, 0, 1]


def test_rows_of_an_array_in_another_order_are_taken_without_copying_all_of_it():
    array = np.asfortranarray(np.arange(8_000_000.0).reshape(20_000, 400))
    batches = ff.pipe(ff.from_arrays(array), ff.shuffle(), ff.batch(8))
    assert [rows.shape for (rows,) in ff.take(2, batches)] == [(8, 400)] * 2
    tracemalloc.start()
    batches[0]
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 1_000_000
