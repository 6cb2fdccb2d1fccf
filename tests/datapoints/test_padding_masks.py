"""What is real of what was padded: masks and lengths beside the components, in every form and from any workers."""

import itertools
import pickle
import time
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import Stream

import flowfn as ff
from flowfn.testing import check, same
from flowfn.vocabulary.batching import _rows_joined

Pair = namedtuple("Pair", "x y")


@dataclass(frozen=True)
class Record:
    ids: list


IDS, MASK, LENGTHS = np.array([[5, 6, 7], [8, 0, 0]]), np.array([[1, 1, 1], [1, 0, 0]], bool), np.array([3, 1])


def one(data, collate):
    (batch,) = ff.batch(len(data), data, collate=collate)
    return batch


# Where they stand


def test_in_a_dict_they_have_keys_of_their_own():
    data = [{"ids": [5, 6, 7], "label": 1, "text": "abc"}, {"ids": [8], "label": 2, "text": "d"}]
    rest = {"label": np.array([1, 2]), "text": ["abc", "d"]}
    assert same(one(data, ff.pad(0, mask=True)), {"ids": IDS, **rest, "ids_mask": MASK})
    assert same(one(data, ff.pad(0, lengths=True)), {"ids": IDS, **rest, "ids_length": LENGTHS})
    both = {"ids": IDS, **rest, "ids_mask": MASK, "ids_length": LENGTHS}
    assert same(one(data, ff.pad(0, mask=True, lengths=True)), both)
    assert same(one(data, {"ids": ff.pad(0, mask=True, lengths=True)}), both)
    named = one(data, {"ids": ff.pad(0, mask="attention_mask", lengths="n")})
    assert same(named, {"ids": IDS, **rest, "attention_mask": MASK, "n": LENGTHS})


@pytest.mark.parametrize("form", [list, tuple])
def test_lists_and_tuples_have_them_at_their_end_in_the_order_of_the_components(form):
    data = [form([[5, 6, 7], "abc", [1.0]]), form([[8], "d", [2.0, 3.0]])]
    other = np.array([[1.0, 0.0], [2.0, 3.0]])
    made = one(data, ff.pad(0, mask=True, lengths=True))
    assert same(made, form([IDS, ["abc", "d"], other, MASK, LENGTHS, other > 0, np.array([1, 2])]))
    assert same(one(data, [ff.pad(0, mask=True), ff.as_list, ff.pad(0)]), form([IDS, ["abc", "d"], other, MASK]))
    assert same(one(data, {2: ff.pad(0, mask="m"), 0: ff.as_list})[3], other > 0)


def test_a_bare_array_becomes_a_tuple():
    data = [np.array([5, 6, 7]), np.array([8])]
    assert same(one(data, ff.pad(0, mask=True)), (IDS, MASK))
    assert same(one(data, ff.pad(0, mask=True, lengths=True)), (IDS, MASK, LENGTHS))
    assert type(one(data, ff.pad(0, mask=True))) is tuple
    made = ff.pad(0, mask=True, lengths=True)([[5, 6, 7], [8]])
    assert same(tuple(made), (IDS, MASK, LENGTHS))
    assert same(tuple(pickle.loads(pickle.dumps(made))), (IDS, MASK, LENGTHS))


def test_in_nested_dicts_they_stand_beside_their_component():
    data = [{"text": {"ids": [5, 6, 7], "kind": 1}, "n": 1}, {"text": {"ids": [8], "kind": 2}, "n": 2}]
    expected = {"text": {"ids": IDS, "kind": np.array([1, 2]), "ids_mask": MASK}, "n": np.array([1, 2])}
    assert same(one(data, ff.pad(0, mask=True)), expected)
    assert same(one(data, {"text": ff.pad({"ids": 0}, mask=True)}), expected)


def test_values_of_their_own_are_for_components_with_masks_too():
    data = [{"ids": [5, 6, 7], "labels": [1, 2, 3]}, {"ids": [8], "labels": [4]}]
    made = one(data, ff.pad({"labels": -100}, mask=True))
    assert list(made) == ["ids", "labels", "ids_mask", "labels_mask"]
    assert made["labels"].tolist() == [[1, 2, 3], [4, -100, -100]]
    assert same(made["labels_mask"], MASK)


@pytest.mark.parametrize(
    "component", [1, 2.5, True, "ab", b"ab", None, ["a", "b"], np.float32(1), np.array(3), {1}], ids=repr
)
def test_what_is_not_padded_has_none(component):
    collate = ff.pad(0, mask=True, lengths=True)
    assert list(one([{"x": component}] * 2, collate)) == ["x"]
    assert same(one([{"x": component}] * 2, collate), one([{"x": component}] * 2, ff.pad(0)))


def test_every_batch_has_the_same_components_whether_or_not_something_is_padded():
    data = [{"ids": [0] * n} for n in (2, 2, 1, 3, 0, 0, 4)]
    batches = list(ff.batch(2, data, collate=ff.pad(0, mask=True, lengths=True)))
    assert [list(batch) for batch in batches] == [["ids", "ids_mask", "ids_length"]] * 4
    assert [batch["ids_mask"].tolist() for batch in batches] == [
        [[True, True]] * 2,
        [[True, False, False], [True] * 3],
        [[], []],
        [[True] * 4],
    ]
    assert [batch["ids_length"].tolist() for batch in batches] == [[2, 2], [1, 3], [0, 0], [4]]


# Which elements are real


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_mask_is_true_where_an_element_came_from_a_datapoint(data):
    axes = data.draw(st.integers(1, 3))
    chosen = data.draw(
        st.none()
        | st.integers(-axes, axes - 1)
        | st.lists(st.integers(-axes, axes - 1), min_size=1, max_size=axes).map(tuple)
    )
    masked = set(range(axes)) if chosen is None else {a % axes for a in (chosen if type(chosen) is tuple else [chosen])}
    common = data.draw(st.lists(st.integers(0, 3), min_size=axes, max_size=axes))
    sizes = data.draw(
        st.lists(
            st.tuples(*(st.integers(0, 4) if a in masked else st.just(common[a]) for a in range(axes))),
            min_size=1,
            max_size=4,
        )
    )
    multiple = data.draw(st.sampled_from([1, 3]))
    pad = ff.pad(-1, axis=chosen, multiple=multiple, mask=True, lengths=True)
    made, mask, lengths = pad([np.ones(size) for size in sizes])
    assert mask.dtype == bool
    assert mask.shape == (len(sizes), *(made.shape[1 + axis] for axis in sorted(masked)))
    for row, size in enumerate(sizes):
        for place in itertools.product(*(range(mask.shape[1 + number]) for number in range(len(masked)))):
            real = all(index < size[axis] for index, axis in zip(place, sorted(masked)))
            assert mask[(row, *place)] == real
    if len(masked) == axes:
        assert np.array_equal(mask, made == 1)
    expected = np.array([[size[axis] for axis in sorted(masked)] for size in sizes])
    assert same(lengths, expected[:, 0] if len(masked) == 1 else expected)


def test_with_one_axis_named_the_mask_is_of_that_axis_alone():
    frames = [np.ones((3, 2)), np.ones((1, 2))]
    made, mask, lengths = ff.pad(0, axis=0, mask=True, lengths=True)(frames)
    assert made.shape == (2, 3, 2)
    assert same((mask, lengths), (MASK, LENGTHS))
    assert ff.pad(0, axis=-1, mask=True)([frame.T for frame in frames])[1].tolist() == MASK.tolist()
    assert ff.pad(0, mask=True)(frames)[1].shape == (2, 3, 2)


def test_a_fixed_length_and_a_multiple_have_masks_of_that_width():
    assert ff.pad(0, length=5, mask=True)([[1, 2], [3]])[1].tolist() == [[True] * 2 + [False] * 3, [True] + [False] * 4]
    assert ff.pad(0, multiple=4, mask=True)([[1, 2], [3]])[1].sum(1).tolist() == [2, 1]
    assert ff.pad(0, length=2, mask=True)([[1, 2], [3, 4]])[1].all()


def test_what_is_filled_up_inside_a_ragged_list_is_not_real():
    values = [[[1, 2, 3], [4]], [[5]], []]
    made, mask, lengths = ff.pad(0, mask=True, lengths=True)(values)
    assert made.tolist() == [[[1, 2, 3], [4, 0, 0]], [[5, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
    assert np.array_equal(mask, made > 0)
    assert lengths.tolist() == [[2, 3], [1, 1], [0, 0]]
    arrays = [[np.array([1, 2, 3]), np.array([4])], [np.array([5])]]
    assert np.array_equal(ff.pad(0, mask=True)(arrays)[1], mask[:2])
    whole = [[[1, 2], [3, 0]], [[5, 6]]]
    assert ff.pad(0, mask=True)(whole)[1].tolist() == [[[True, True], [True, True]], [[True, True], [False, False]]]


def test_a_mask_of_real_elements_is_not_the_mask_of_a_masked_array():
    values = [np.ma.array([1, 2, 3], mask=[0, 1, 0]), np.ma.array([4])]
    made, mask = ff.pad(0, mask=True)(values)
    assert made.tolist() == [[1, None, 3], [4, 0, 0]]
    assert same(np.asarray(mask), MASK)
    assert type(mask) is np.ndarray
    assert ff.pad(0, lengths=True)([[1, np.ma.masked], [2]])[1].tolist() == [2, 1]


def test_masks_and_lengths_are_new_arrays_in_every_batch():
    first, second = ff.batch(1, [np.ones(1 << 21, np.uint8)] * 2, collate=ff.pad(0, mask=True))
    first[1][:] = False
    assert second[1].all()


# After it, and around it


def test_batches_with_masks_are_taken_apart_and_made_anew():
    data = [{"ids": [1] * n, "n": n} for n in (2, 1, 3, 2)]
    flow = ff.pipe(data, ff.batch(3, collate=ff.pad(0, length=3, mask=True)))
    apart = list(ff.pipe(flow, ff.unbatch()))
    assert [row["ids_mask"].sum() for row in apart] == [row["n"] for row in apart] == [2, 1, 3, 2]
    anew = list(ff.pipe(flow, ff.rebatch(2)))
    assert [batch["ids_mask"].sum(1).tolist() for batch in anew] == [[2, 1], [3, 2]]
    bare = ff.pipe([np.ones(n) for n in (2, 1, 3)], ff.batch(3, collate=ff.pad(0, mask=True)), ff.unbatch())
    assert [(int(x.sum()), int(mask.sum())) for x, mask in bare] == [(2, 2), (1, 1), (3, 3)]


def test_every_word_that_makes_batches_has_masks():
    data = [{"ids": [1] * n} for n in (2, 1, 3, 2)]
    collate = ff.pad(0, mask=True)
    made = {
        "window": ff.window(2, data, step=2, collate=collate),
        "collate": ff.pipe(data, ff.batch(2, collate=None), ff.collate(collate)),
        "batch_by_key": ff.batch_by_key(lambda d: 0, 2, data, collate=collate),
        "batch_by_length": ff.batch_by_length("ids", data, boundaries=[3], sizes=[2], collate=collate),
    }
    expected = list(ff.batch(2, data, collate=collate))
    assert all(same(list(flow), expected) for flow in made.values())
    (batch, *_) = ff.batch_by_length("ids", data, boundaries=[8], sizes=[4], pad_to="bucket", collate=collate)
    assert batch["ids_mask"].shape == (4, 8)
    assert batch["ids_mask"].sum(1).tolist() == [2, 1, 3, 2]


def ragged(number):
    return {"x": np.arange(number % 4), "y": [number] * (number % 3), "n": number}


def test_the_laws_hold():
    for source in (range(10), Stream(range(10))):
        check(lambda: ff.pipe(source, ff.map(ragged), ff.batch(3, collate=ff.pad({"x": -1}, mask=True, lengths=True))))


def slow(number):
    time.sleep(0.01)
    return np.full(20_000 + 100 * (number % 7), number, np.int64)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}], ids=str)
def test_large_batches_that_workers_might_make_in_parts_are_the_serial_ones(workers):
    flow = ff.pipe(range(96), ff.map(slow), ff.batch(48, collate=ff.pad(-1, mask=True, lengths=True)))
    got, expected = list(ff.pipe(flow, ff.prefetch(2, **workers))), list(flow)
    assert all(map(same, got, expected))
    assert [batch[1].sum() for batch in got] == [batch[2].sum() for batch in expected]
    ff.shut_down()


sequences = st.lists(
    st.one_of(
        st.lists(st.integers(-3, 3), max_size=2),
        st.lists(st.floats(-3, 3), max_size=2),
        st.lists(st.lists(st.integers(0, 3), max_size=2), max_size=2),
        st.lists(st.booleans(), max_size=2),
        st.integers(0, 2).map(lambda n: np.ones(n, np.float32)),
        st.integers(0, 2).map(lambda n: np.full(n, 2**63, np.uint64)),
        st.integers(0, 2).map(lambda n: np.ma.array(np.ones(n), mask=True)),
        st.sampled_from(["a", ["b"], 1, 2.5]),
    ),
    min_size=2,
    max_size=4,
)


def collated_or_none(data, collate):
    try:
        return one(data, collate)
    except (ValueError, TypeError):
        return None


@settings(deadline=None, max_examples=300)
@given(sequences, st.integers(1, 3), st.sampled_from([{}, {"mask": True}, {"lengths": True}, {"length": 2}]))
def test_parts_of_a_batch_are_joined_to_the_whole_or_not_at_all(values, at, options):
    data = [{"x": value, "n": number} for number, value in enumerate(values)]
    collate = {"x": ff.pad(0, **options)}
    parts = [collated_or_none(part, collate) for part in (data[:at], data[at:]) if part]
    if None not in parts:
        joined = _rows_joined(parts, collate)
        assert joined is None or same(joined, collated_or_none(data, collate))


def test_parts_of_one_width_are_joined():
    data = [{"ids": [1] * n, "text": "a"} for n in (1, 3, 3, 2)]
    collate = {"ids": ff.pad(0, mask=True, lengths=True), "text": ff.as_list}
    parts = [one(part, collate) for part in (data[:2], data[2:])]
    assert same(_rows_joined(parts, collate), one(data, collate))
    parts = [one(part, collate) for part in (data[:1], data[1:])]
    assert _rows_joined(parts, collate) is None


# What is refused, and how it looks


@pytest.mark.parametrize(
    ("data", "collate", "error", "message"),
    [
        (
            [{"ids": [1], "ids_mask": [1]}],
            {"ids": ff.pad(0, mask=True)},
            ValueError,
            "there is a component 'ids_mask' already, so that 'ids' cannot have it beside it; give another name",
        ),
        ([{"a": [1], "b": [2]}], ff.pad(0, mask="m"), ValueError, "there is a component 'm' already, so that 'b' "),
        (
            [{"a": [1]}],
            ff.pad(0, mask="m", lengths="m"),
            ValueError,
            "there is a component 'm' already, so that 'a' ",
        ),
        ([Pair([1], 2)], ff.pad(0, mask=True), TypeError, r"there is no place for a mask or lengths .* Pair\(x="),
        (
            [Record([1])],
            ff.pad(0, lengths=True),
            TypeError,
            r"there is no place .* Record\(.*; map it to a dict before",
        ),
    ],
)
def test_what_has_no_place_for_them_is_refused(data, collate, error, message):
    with pytest.raises(error, match=rf"^batch\(\): {message}"):
        list(ff.batch(1, data, collate=collate))


def test_namedtuples_and_dataclasses_of_what_is_not_padded_are_no_error():
    assert same(one([Pair(1, "a")] * 2, ff.pad(0, mask=True)), Pair(np.array([1, 1]), ["a", "a"]))


@pytest.mark.parametrize("word", ["mask", "lengths"])
@pytest.mark.parametrize(("value", "error"), [(1, TypeError), (None, TypeError), ("", ValueError)])
def test_bad_arguments_fail_at_once(word, value, error):
    with pytest.raises(error, match=rf"^pad\(\): {word} must be True, False or a name, got {value!r}"):
        ff.pad(0, **{word: value})


def test_a_collation_with_a_mask_is_a_value():
    assert repr(ff.pad(0, mask=True)) == "pad(0, mask=True)"
    assert repr(ff.pad(0, length=8, mask="real", lengths=True)) == "pad(0, length=8, mask='real', lengths=True)"
    assert ff.pad(0, mask=True) == pickle.loads(pickle.dumps(ff.pad(0, mask=True))) != ff.pad(0)
    assert hash(ff.pad(0, mask="a")) == hash(ff.pad(0, mask="a"))


def test_tensors_have_masks_as_arrays_do():
    torch = pytest.importorskip("torch")
    data = [{"ids": torch.tensor([5, 6, 7])}, {"ids": torch.tensor([8])}]
    assert same(one(data, ff.pad(0, mask=True)), {"ids": IDS, "ids_mask": MASK})
    ragged = [{"ids": [torch.tensor([5, 6]), torch.tensor([7])]}, {"ids": [torch.tensor([8])]}]
    made = one(ragged, ff.pad(0, mask=True))
    assert np.array_equal(made["ids_mask"], made["ids"] > 0)
