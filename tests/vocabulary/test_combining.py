"""Stages of several sources, against itertools; and sources of any mixture of sequences and streams."""

import builtins
import itertools
from collections import namedtuple

import numpy as np
import pytest

import flowfn as ff

Pair = namedtuple("Pair", "x y")


def mixtures(*lists):
    """Every way to have each list as a sequence or as a stream."""
    for kinds in itertools.product([False, True], repeat=len(lists)):
        yield [ff.flow(lambda data=data: iter(data)) if stream else ff.flow(data) for data, stream in zip(lists, kinds)]


LISTS = [
    [[]],
    [[1]],
    [[1, 2], [3]],
    [[], [1], []],
    [[1], [], [2, 3, 4], [5]],
    [list(range(5000)), list(range(4000, 9500))],
]


@pytest.mark.parametrize("lists", LISTS, ids=lambda lists: str([len(one) for one in lists]))
def test_concat_is_chain(lists):
    expected = list(itertools.chain(*lists))
    for sources in mixtures(*lists):
        flow = ff.concat(*sources)
        assert list(flow) == expected
        assert list(flow.run(start=2)) == expected[2:]
    flow = ff.concat(*lists)
    assert len(flow) == len(expected)
    assert [flow[i] for i in range(len(expected))][::97] == expected[::97]
    assert list(flow[::-1]) == expected[::-1]


def test_concat_read_in_any_order():
    flow = ff.concat(ff.shuffle(range(10)), ff.map(str, range(10)), ff.shuffle(range(5)))
    whole = list(flow.run(epoch=0))
    indices = np.random.default_rng(0).integers(0, 25, 200).tolist()
    assert list(ff.subset(indices, flow).run(epoch=0)) == [whole[i] for i in indices]
    assert list(ff.batch(4, ff.subset(indices, flow), collate=ff.as_list).run(epoch=0)) == [
        [whole[i] for i in indices[at : at + 4]] for at in range(0, 200, 4)
    ]


def test_concat_opens_a_stream_when_its_turn_comes():
    opened = []
    sources = [ff.flow(lambda number=number: opened.append(number) or iter([number])) for number in range(3)]
    iterator = iter(ff.concat(*sources))
    next(iterator)
    assert opened == [0]
    assert list(iterator) == [1, 2]


def test_concat_with_an_endless_source():
    flow = ff.concat([1, 2], ff.cycle([3]))
    assert list(itertools.islice(flow, 4)) == [1, 2, 3, 3]
    assert flow[10**12] == 3
    with pytest.raises(TypeError, match="endless"):
        len(flow)


def test_concat_of_one_flow_with_itself():
    shared = ff.shuffle(range(20))
    whole = list(ff.concat(shared, shared))
    assert whole[:20] == whole[20:]


@pytest.mark.parametrize("zipped", [ff.zip, ff.zip_components])
@pytest.mark.parametrize("n", [0, 1, 5, 5000])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_zips_are_pythons_zip(zipped, n, count):
    lists = [[[k, i] for i in range(n)] for k in range(count)]
    if zipped is ff.zip:
        expected = list(builtins.zip(*lists))
    else:
        expected = [[x for datapoint in row for x in datapoint] for row in builtins.zip(*lists)]
    for sources in mixtures(*lists):
        flow = zipped(*sources)
        assert list(flow) == expected
        assert list(flow.run(start=3)) == expected[3:]
    flow = zipped(*lists)
    assert len(flow) == n
    assert n == 0 or (flow[0], flow[n - 1], flow[-1]) == (expected[0], expected[-1], expected[-1])


@pytest.mark.parametrize("zipped", [ff.zip, ff.zip_components])
@pytest.mark.parametrize("lengths", [(2, 3), (3, 2), (0, 1), (1, 0), (3, 3, 4), (4, 3, 3), (4, 3, 4)])
def test_unequal_lengths_are_refused_unless_they_are_asked_for(zipped, lengths):
    lists = [[[i] for i in range(n)] for n in lengths]
    message = rf"^{zipped.__name__}\(\): sources must have equal lengths, got .*strict=False stops at the shortest"
    with pytest.raises(ValueError, match=message):
        zipped(*lists)
    for sources in list(mixtures(*lists))[1:]:
        with pytest.raises(ValueError, match=message):
            list(zipped(*sources))
    for sources in mixtures(*lists):
        assert len(list(zipped(*sources, strict=False))) == min(lengths)
    assert len(zipped(*lists, strict=False)) == min(lengths)


def test_streams_of_unequal_lengths_give_what_they_have_and_then_say_so():
    for a, b in ((2, 3), (3, 2)):
        iterator = iter(ff.zip(lambda n=a: iter(range(n)), lambda n=b: iter(range(n))))
        assert [next(iterator), next(iterator)] == [(0, 0), (1, 1)]
        with pytest.raises(
            ValueError, match=r"^zip\(\): sources must have equal lengths, got .*; strict=False stops at the shortest"
        ):
            next(iterator)


def test_endless_sources_are_exempt():
    for source in mixtures([1, 2]):
        assert list(ff.zip(*source, ff.cycle(["ab"]), ff.enumerate(ff.cycle([0])))) == [
            (1, "ab", (0, 0)),
            (2, "ab", (1, 0)),
        ]
    assert len(ff.zip([1, 2], ff.cycle([0]))) == 2
    assert ff.zip(ff.cycle([1, 2]), ff.cycle([1, 2, 3]))[7] == (2, 2)


def test_zip_of_unequal_shuffles_reads_as_many_of_each():
    flow = ff.zip(ff.shuffle(range(10)), ff.shuffle(range(20)), strict=False)
    assert list(flow.run(epoch=0)) == list(
        builtins.zip(ff.shuffle(range(10)).run(epoch=0), [b for _, b in flow.run(epoch=0)])
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (([1, 2], [3]), [1, 2, 3]),
        (((1,), (2, 3)), (1, 2, 3)),
        ((Pair(1, 2), (3,)), (1, 2, 3)),
        (({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        (([], [1]), [1]),
        (({}, {}), {}),
    ],
)
def test_zip_components_joins_components_in_their_form(rows, expected):
    flow = ff.zip_components(*[[row] for row in rows])
    assert list(flow) == [expected]
    assert type(flow[0]) is type(expected)


def test_zip_components_changes_no_input():
    a, b = [[1]], [[2]]
    list(ff.zip_components(a, b))
    assert (a, b) == ([[1]], [[2]])


@pytest.mark.parametrize(
    "rows", [([1], (2,)), ([1], {"a": 1}), (1, 2), ("a", "b"), (np.zeros(2), np.zeros(2)), ([1], 2)]
)
def test_zip_components_of_different_forms_is_refused(rows):
    with pytest.raises(
        TypeError, match=r"^zip_components\(\): datapoints must be all lists, all tuples or all dicts, got "
    ):
        list(ff.zip_components(*[[row] for row in rows]))


def test_zip_components_refuses_a_key_that_comes_twice():
    with pytest.raises(ValueError, match=r"^zip_components\(\): more than one source has the key 'a'"):
        list(ff.zip_components([{"a": 1}], [{"a": 2}]))


def test_combinations_of_combinations():
    flow = ff.pipe(
        ff.zip(ff.concat(range(5), range(5, 8)), ff.pipe(range(16), ff.batch(2), ff.map(lambda b: int(b.sum())))),
        ff.skip(2),
        ff.repeat(2),
    )
    expected = [(i, 4 * i + 1) for i in range(2, 8)] * 2  # 2i + (2i + 1)
    assert list(flow) == expected
    assert [flow[i] for i in range(12)] == expected
