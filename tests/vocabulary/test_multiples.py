"""Datapoints given again so that their number comes out even: the mask, the forms, and the ranks."""

import pickle
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from sources import Stream

import flowfn as ff
from flowfn.testing import check
from flowfn.vocabulary.multiples import pad_to_multiple

Pair = namedtuple("Pair", "x y")


@dataclass
class Record:
    x: int


def both(data):
    return [ff.flow(data), ff.flow(Stream(data))]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 20])
def test_the_number_comes_out_even_and_the_rest_is_from_the_beginning(n, multiple):
    length = -(-n // multiple) * multiple
    expected = [(i % n, i < n) for i in range(length)]
    for source in both(range(n)):
        assert list(pad_to_multiple(multiple, source)) == expected
    seekable = pad_to_multiple(multiple, range(n))
    assert len(seekable) == length
    assert [seekable[i] for i in range(length)] == expected


@pytest.mark.parametrize(
    ("datapoint", "expected"),
    [
        ({"x": 1}, {"x": 1, "valid": True}),
        ([1, "a"], [1, "a", True]),
        ((1, "a"), (1, "a", True)),
        ((), (True,)),
        ("text", ("text", True)),
        (None, (None, True)),
        (5, (5, True)),
    ],
)
def test_a_datapoint_keeps_its_form(datapoint, expected):
    for source in both([datapoint]):
        (made,) = pad_to_multiple(1, source)
        assert type(made) is type(expected)
        assert made == expected


def test_the_mask_may_have_another_name():
    assert list(pad_to_multiple(2, [{"x": 1}], mask="real")) == [{"x": 1, "real": True}, {"x": 1, "real": False}]


def test_what_came_in_is_not_changed():
    data = [[1], {"x": 1}]
    list(pad_to_multiple(3, data))
    assert data == [[1], {"x": 1}]


@pytest.mark.parametrize(
    ("datapoint", "error", "message"),
    [
        ({"valid": 1}, ValueError, "datapoints have the key 'valid' already; give another name: mask="),
        (
            Pair(1, 2),
            TypeError,
            r"there is no place for the mask in Pair\(x=1, y=2\)|there is no place for the mask in \(1, 2\); map it "
            r"to a dict",
        ),
        (Record(1), TypeError, r"there is no place for the mask in Record\(x=1\); map it to a dict before"),
    ],
)
def test_where_the_mask_has_no_place(datapoint, error, message):
    for source in both([datapoint]):
        with pytest.raises(error, match=rf"^pad_to_multiple\(\): ({message})"):
            list(pad_to_multiple(2, source))


@pytest.mark.parametrize("n", [1, 5, 8, 17])
def test_every_rank_has_as_many_full_batches_and_counts_every_datapoint_once(n):
    for source in both(range(n)):
        shares = [list(ff.pipe(source, pad_to_multiple(8), ff.shard(rank, 4), ff.batch(2))) for rank in range(4)]
        assert len({len(share) for share in shares}) == 1
        assert all(len(numbers) == 2 for share in shares for numbers, _ in share)
        counted = [int(i) for share in shares for numbers, valid in share for i in numbers[valid]]
        assert sorted(counted) == list(range(n))


def test_the_added_ones_are_those_of_this_pass():
    flow = ff.pipe(range(5), ff.shuffle(), ff.map(lambda x, rng: (x, rng.random()), rng=True), pad_to_multiple(4))
    for epoch in (0, 1):
        whole = list(flow.run(epoch=epoch))
        assert [d[:2] for d in whole[5:]] == [d[:2] for d in whole[:3]]
        assert sorted(d[0] for d in whole[:5]) == list(range(5))


def test_an_endless_source_stays_endless():
    flow = pad_to_multiple(4, ff.cycle(range(3)))
    assert [flow[i] for i in (0, 3, 100)] == [(0, True), (0, True), (1, True)]
    with pytest.raises(TypeError, match="endless"):
        len(flow)


def test_what_cannot_be_read_again_is_named():
    with pytest.raises(ValueError, match="is an iterator, which can be read once"):
        list(pad_to_multiple(2, iter([1])))
    opened = []

    def once():
        opened.append(1)
        return iter([1] if len(opened) == 1 else [])

    with pytest.raises(
        ValueError, match=r"^pad_to_multiple\(\): the source gave datapoints, but none when it was read again"
    ):
        list(pad_to_multiple(2, once))


def test_bad_arguments_fail_at_once():
    with pytest.raises(ValueError, match=r"^pad_to_multiple\(\): n must be a positive integer, got 0$"):
        pad_to_multiple(0)
    with pytest.raises(TypeError, match=r"^pad_to_multiple\(\): mask must be a string, got 3$"):
        pad_to_multiple(2, mask=3)


def test_how_it_looks():
    assert repr(pad_to_multiple(4)) == "pad_to_multiple(4)"
    assert repr(pad_to_multiple(4, mask="real")) == "pad_to_multiple(4, mask='real')"
    assert repr(pad_to_multiple(4, [1, 2])) == "pipe(flow([1, 2]), pad_to_multiple(4))"
    assert repr(ff.pipe([1, 2], pad_to_multiple(4), ff.batch(2))) == "pipe(flow([1, 2]), pad_to_multiple(4), batch(2))"
    assert pickle.loads(pickle.dumps(pad_to_multiple(4))) == pad_to_multiple(4) != pad_to_multiple(3)


def grown(datapoint, rng):
    return [datapoint, int(rng.integers(99))]


@pytest.mark.parametrize("n", [0, 1, 7, 8])
def test_the_laws_hold(n):
    for source in (range(n), Stream(range(n))):
        check(lambda: ff.pipe(source, ff.map(grown, rng=True), pad_to_multiple(4), ff.map(grown, rng=True)))
    check(lambda: ff.pipe(range(n), ff.shuffle(), pad_to_multiple(5), ff.shard(1, 5), ff.batch(2, collate=None)))
    check(lambda: ff.pipe(Stream(range(n)), ff.filter(bool), pad_to_multiple(5), ff.batch(2)))


def test_the_laws_hold_in_threads_and_processes():
    for source in (range(7), Stream(range(7))):
        check(
            lambda: ff.pipe(source, ff.map(grown, rng=True), pad_to_multiple(4), ff.map(len)),
            workers=({}, {"threads": 2}, {"processes": 2}),
            epochs=(0,),
            stops=4,
        )


def test_arrays_keep_their_dtypes():
    (batch,) = ff.pipe(ff.from_arrays(x=np.arange(3, dtype=np.int8)), pad_to_multiple(4), ff.batch(4))
    assert (batch["x"].dtype, batch["valid"].tolist()) == (np.int8, [True, True, True, False])
