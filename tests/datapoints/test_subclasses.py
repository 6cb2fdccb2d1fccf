"""Arrays that are more than their numbers keep what they carry, wherever they are put together, or are refused."""

import numpy as np
import pytest

import flowfn as ff
from flowfn.digests.pipelines import pipeline_key

MASK = [[False, True, False], [True, False, False], [False, False, True], [False, False, False]]
SHOWN = [[0, None, 2], [None, 4, 5], [6, 7, None], [9, 10, 11]]


class Quantity(np.ndarray):
    """Numbers with a unit, as libraries of units make them."""

    def __new__(cls, numbers, unit):
        made = np.asarray(numbers).view(cls)
        made.unit = unit
        return made

    def __array_finalize__(self, other):
        self.unit = getattr(other, "unit", None)


class Calibrated(np.ndarray):
    """Numbers with something beside them that views do not take over."""


class Slotted(np.ndarray):
    """Numbers with a unit that stands in a slot."""

    __slots__ = ("unit",)

    def __array_finalize__(self, other):
        self.unit = getattr(other, "unit", None)


def masked(at, fill=None):
    return np.ma.array(np.arange(3 * at, 3 * at + 3), mask=MASK[at], fill_value=fill)


def metres(at):
    return Quantity(np.arange(3.0 * at, 3 * at + 3), "m")


def rows(of):
    """Four datapoints, made where they are needed."""
    return ff.pipe(range(4), ff.map(of))


def shown(made):
    return type(made), made.tolist()


STAGES = {
    "batch": [ff.batch(4)],
    "pad": [ff.batch(4, collate=ff.pad(0))],
    "a pad for each": [ff.map(lambda x: [x]), ff.batch(4, collate=ff.pad([0])), ff.map(lambda x: x[0])],
    "in a dict": [ff.map(lambda x: {"x": {"y": x}}), ff.batch(4), ff.map(lambda x: x["x"]["y"])],
    "in a list": [ff.map(lambda x: {"x": [x]}), ff.batch(4), ff.map(lambda x: x["x"][:, 0])],
    "as_list": [ff.batch(4, collate=ff.as_list), ff.map(ff.stack)],
    "window": [ff.window(4, drop_remainder=True)],
    "collate": [ff.batch(4, collate=None), ff.collate()],
    "inside": [ff.batch(4, collate=None), ff.inside(ff.map(lambda x: x)), ff.collate()],
    "by length": [ff.batch_by_length(len, boundaries=[8], sizes=[4, 4])],
    "by key": [ff.batch_by_key(len, 4)],
    "rebatched": [ff.batch(3), ff.rebatch(4)],
    "rebatched, all of one": [ff.batch(4), ff.rebatch(4)],
    "unbatched": [ff.batch(4), ff.unbatch(), ff.batch(4)],
    "in a thread": [ff.batch(4), ff.prefetch(1)],
    "in threads": [ff.batch(4), ff.prefetch(1, threads=2)],
    "in a worker": [ff.batch(4), ff.prefetch(1, processes=1)],
    "in workers": [ff.batch(4), ff.prefetch(1, processes=2)],
    "into a worker": [ff.shuffle_buffer(1), ff.map(lambda x: x), ff.batch(4), ff.prefetch(1, processes=2)],
    "rows in a worker": [ff.prefetch(4, processes=1), ff.batch(4)],
    "in a cache": [ff.cache(), ff.batch(4)],
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", STAGES)
def test_masks_stay(name):
    (made,) = ff.pipe(rows(masked), *STAGES[name])
    assert shown(made) == (np.ma.MaskedArray, SHOWN)
    assert made.dtype == np.int64


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", STAGES)
def test_units_stay(name):
    (made,) = ff.pipe(rows(metres), *STAGES[name])
    assert (*shown(made), made.unit) == (Quantity, np.arange(12.0).reshape(4, 3).tolist(), "m")


@pytest.mark.parametrize("of", [masked, metres])
def test_what_is_kept_on_disk_is_whole(of, tmp_path):
    for _ in range(2):
        made = list(ff.pipe(range(4), ff.map(of), ff.cache_to(tmp_path / of.__name__, version="1")))
        assert [shown(one) for one in made] == [shown(of(at)) for at in range(4)]
        assert [getattr(one, "unit", None) for one in made] == [getattr(of(at), "unit", None) for at in range(4)]


def test_what_arrays_carry_counts_for_what_is_kept():
    def key(array):
        return pipeline_key(ff.pipe([array], ff.map(np.sum)), 0, "")

    numbers = np.arange(3.0)
    keys = [
        key(Quantity(numbers, "m")),
        key(Quantity(numbers, "km")),
        key(numbers),
        key(np.ma.array(numbers)),
        key(np.ma.array(numbers, mask=[0, 1, 0])),
    ]
    assert len(set(keys)) == 5
    assert key(Quantity(numbers, "m")) == keys[0]


def test_large_masked_arrays_keep_their_masks():
    rows = [np.ma.array(np.arange(300_000.0) + at, mask=np.arange(300_000) % 7 == at) for at in range(3)]
    for stages in ([ff.batch(3)], [ff.batch(3), ff.prefetch(1, processes=1)], [ff.batch(2), ff.rebatch(3)]):
        (made,) = ff.pipe(rows, *stages)
        assert np.array_equal(made.data, np.stack([row.data for row in rows]))
        assert np.array_equal(made.mask, np.stack([row.mask for row in rows]))


def test_padding_is_not_masked_and_masks_are_padded():
    (made,) = ff.batch(2, [masked(0), masked(1)[:2]], collate=ff.pad(-1))
    assert made.tolist() == [[0, None, 2], [None, 4, -1]]


def test_masked_values_and_others_make_a_masked_array():
    assert ff.stack([np.int64(1), np.ma.masked, np.int64(3)]).tolist() == [1, None, 3]
    assert ff.stack([1, np.ma.masked]).dtype == ff.stack([np.ma.masked, 1]).dtype == np.int64
    assert ff.stack([0.5, np.ma.masked]).tolist() == [0.5, None]
    assert ff.stack([np.array([1, 2]), np.ma.array([3, 4], mask=[1, 0])]).tolist() == [[1, 2], [None, 4]]
    assert ff.stack([[1, np.ma.masked], [2, 3]]).tolist() == [[1, None], [2, 3]]
    assert ff.stack([np.ma.masked] * 2).tolist() == [None, None]
    assert ff.pad(0)([[1, np.ma.masked], [2]]).tolist() == [[1, None], [2, 0]]


def test_large_ids_in_masked_arrays_are_whole():
    rows = [np.ma.array([2**63 + 1], np.uint64, mask=[False]), np.ma.array([1], mask=[True])]
    assert (ff.stack(rows).dtype, ff.stack(rows).tolist()) == (np.uint64, [[2**63 + 1], [None]])
    with pytest.raises(ValueError, match="make all of them of one dtype before"):
        ff.stack([np.ma.array([2**53 + 1]), np.array([0.5])])


def test_fill_values_and_hard_masks_stay():
    made = ff.stack([np.ma.array([1, 2], mask=[0, 1], fill_value=-7, hard_mask=True)] * 2)
    assert (made.fill_value, made.hardmask) == (-7, True)


def test_packed_sequences_keep_masks_and_units():
    ((row, segments, _),) = ff.pack(8, [masked(0), masked(1)], value=-1)
    assert (row.tolist(), segments.tolist()) == ([0, None, 2, None, 4, 5, -1, -1], [1, 1, 1, 2, 2, 2, 0, 0])
    ((row, _, _),) = ff.pack(4, [metres(0)])
    assert (*shown(row), row.unit) == (Quantity, [0, 1, 2, 0], "m")


@pytest.mark.parametrize("stages", [[], [ff.prefetch(1, processes=1)]], ids=["here", "in a worker"])
def test_columns_keep_masks_and_units(stages):
    x, q = np.ma.array(np.arange(12).reshape(4, 3), mask=MASK), Quantity(np.arange(4.0), "s")
    flow = ff.from_arrays(x=x, q=q)
    (made,) = ff.pipe(flow, ff.shuffle(), ff.batch(4), *stages)
    order = list(ff.pipe(range(4), ff.shuffle()))
    assert shown(made["x"]) == (np.ma.MaskedArray, [SHOWN[at] for at in order])
    assert flow[1]["x"].tolist() == [None, 4, 5]
    (made,) = ff.pipe(ff.from_arrays(np.stack([q, q]).view(np.ndarray).view(Quantity)), ff.batch(2), *stages)
    assert type(made[0]) is Quantity


def test_rows_of_masked_columns_cannot_be_written_to():
    x = np.ma.array(np.arange(12).reshape(4, 3), mask=MASK)
    (row,) = ff.from_arrays(x)[0]
    for value in (5, np.ma.masked):
        with pytest.raises(ValueError, match="read-only"):
            row[0] = value
    assert x.tolist() == SHOWN


def test_bare_masked_arrays_are_sources():
    assert [one.tolist() for one in ff.flow(np.ma.array(np.arange(12).reshape(4, 3), mask=MASK))] == SHOWN
    (made,) = ff.batch(3, np.ma.array([1, 2, 3], mask=[0, 1, 0]))
    assert made.tolist() == [1, None, 3]


@pytest.mark.parametrize(
    "stages", [[ff.batch(2)], [ff.batch(2, collate=ff.pad(0))], [ff.map(lambda x: [x, x]), ff.batch(2)]]
)
@pytest.mark.parametrize(
    "values",
    {
        "two units": [Quantity([1.0], "m"), Quantity([1.0], "km")],
        "a unit and none": [Quantity([1.0], "m"), np.ones(1)],
        "none and a unit": [np.ones(1), Quantity([1.0], "m")],
        "a unit and a mask": [Quantity([1.0], "m"), np.ma.array([1.0])],
        "units in slots": [Slotted((1,)), None],
        "what views do not take over": [Calibrated((1,)), None],
        "arrays among it": [Calibrated((1,)), Calibrated((1,))],
    }.items(),
    ids=lambda item: item[0],
)
def test_what_cannot_be_carried_is_refused(values, stages):
    _, (one, other) = values
    if other is None:
        other = type(one)((1,))
        one.unit = other.unit = "m"
        if type(one) is Slotted:
            other.unit = "km"
    elif type(one) is Calibrated:
        one.table, other.table = np.arange(2), np.arange(2) + 1
    with pytest.raises(
        TypeError, match=r"(batch|pad)\(\): arrays of type .* carry more than numbers, .*map\(np.asarray\)"
    ):
        list(ff.pipe([one, other], *stages))


def test_a_batch_of_two_units_is_refused_by_rebatch_and_pack():
    for run in (
        lambda: list(ff.rebatch(2, [metres(0)[:1], Quantity([1.0], "s")])),
        lambda: list(ff.pack(4, [metres(0), Quantity([1.0], "s")])),
    ):
        with pytest.raises(TypeError, match=r"(rebatch|pack)\(\): arrays of type Quantity carry more than numbers"):
            run()


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore:The chararray class:DeprecationWarning")
@pytest.mark.parametrize("stages", [[], [ff.prefetch(1, processes=1)]], ids=["here", "in a worker"])
def test_classes_of_numpy_without_more_than_numbers_become_arrays(stages, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6).reshape(2, 3))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    records = np.rec.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")])
    texts = np.char.array(["a", "bc"])
    for values, wanted in [
        ([np.matrix([[1, 2]]), np.matrix([[3, 4]])], [[[1, 2]], [[3, 4]]]),
        ([mapped[0], mapped[1]], [[0, 1, 2], [3, 4, 5]]),
        ([texts, texts], [["a", "bc"]] * 2),
    ]:
        (made,) = ff.pipe(values, ff.batch(2), *stages)
        assert shown(made) == (np.ndarray, wanted)
    (made,) = ff.pipe([records, records], ff.batch(2), *stages)
    assert made["a"].tolist() == [[1, 3], [1, 3]]
    assert made["b"].dtype == np.float64


def test_an_empty_list_beside_masked_arrays_is_padded_or_the_shapes_are_told():
    values = [[], np.ma.array([1, 2], mask=[False, True])]
    made = ff.pad(0)(values)
    assert made.tolist() == [[0, 0], [1, None]]
    assert made.dtype == np.int64
    assert ff.pad(0)(values[::-1]).tolist() == [[1, None], [0, 0]]
    for some in (values, values[::-1]):
        with pytest.raises(ValueError, match=r"^batch\(\): cannot stack shapes "):
            ff.stack(some)
