"""What Ray Data does where a row of examples/from_others.md tells of a difference, beside what is done here."""

import time

import numpy as np
import pytest
from beside import odd
from comparing import assert_same

import flowfn as ff
from flowfn.interop import from_ray, to_ray

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def theirs(ray):
    return ray.data.range(10)


def ids(rows):
    return [row["id"] for row in rows]


def test_rows_of_ray_are_dicts(ray, theirs):
    assert ray.data.from_items([1, 2]).take_all() == [{"item": 1}, {"item": 2}]
    with pytest.raises(Exception, match="Standalone Python objects are not allowed"):
        theirs.map(lambda row: 1).take_all()
    assert [*ff.map(lambda row: 1, [{"id": 0}])] == [1]
    with pytest.raises(TypeError, match="not subscriptable"):
        theirs[0]


def test_what_ray_maps_and_filters_is_the_same(theirs):
    ours = [{"id": i} for i in range(10)]
    keep, double = lambda row: odd(row["id"]), lambda row: [row, row]
    assert theirs.filter(keep).flat_map(double).take_all() == [*ff.pipe(ours, ff.filter(keep), ff.flat_map(double))]
    assert theirs.filter(keep).count() == 5
    with pytest.raises(TypeError, match="length"):
        len(ff.filter(keep, ours))


def test_a_seeded_shuffle_of_ray_is_one_order(theirs):
    shuffled = theirs.random_shuffle(seed=1)
    assert ids(shuffled.iter_rows()) == ids(shuffled.iter_rows())
    ours = ff.shuffle(range(10))
    assert [*ours] != [*ours]


def test_a_union_of_ray_takes_turns(ray):
    """A block of the one, a block of the other, also and above all where order is to be kept, though its documentation
    says that the order of the data sets is (Ray 2.60, findings/ray_union_takes_turns.sh)."""
    both = ray.data.range(6, override_num_blocks=3).union(ray.data.range(6, override_num_blocks=3))
    assert ids(both.iter_rows()) == [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5]
    assert [*ff.concat(range(6), range(6))] == [*range(6), *range(6)]


def test_a_column_that_both_have_gets_another_name_in_ray(ray, theirs):
    assert theirs.zip(ray.data.range(10)).take(1) == [{"id": 0, "id_1": 0}]
    with pytest.raises(ValueError, match="the key 'id'"):
        list(ff.zip_components([{"id": 0}], [{"id": 0}]))


def test_the_last_rows_are_the_test_set_of_ray(theirs):
    assert [ids(part.iter_rows()) for part in theirs.train_test_split(0.3)] == [[*range(7)], [7, 8, 9]]
    train, test = ff.split(range(10), 0.7, 0.3)
    assert sorted([*train, *test]) == [*range(10)]
    assert [*test] != [7, 8, 9]


@pytest.fixture
def pictured():
    """A function that travels whole: Ray's workers do not find the modules of tests."""
    return lambda number: {"id": int(number), "image": np.full((2, 3), number), "text": str(number)}


def test_rows_of_ray_are_read_by_index(ray, pictured):
    """In the order of their source, though tasks of Ray are done in any."""

    def slow_at_first(row):
        time.sleep(0.2 * (row["id"] == 0))
        return pictured(row["id"])

    ray.data.DataContext.get_current().execution_options.preserve_order = False
    theirs = ray.data.range(40, override_num_blocks=5).map(slow_at_first)
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    flow, ours = from_ray(theirs), [pictured(i) for i in range(40)]
    assert len(flow) == 40
    assert_same([*flow], ours)
    assert_same(flow[-1], ours[-1])
    stages = ff.shuffle(), ff.shard(1, 2), ff.batch(3), ff.prefetch(2, executor=ff.interop.ray.executor())
    with ff.pipe(flow, *stages).run(epoch=1) as iterator:
        first, state = [next(iterator) for _ in range(3)], iterator.state_dict()
    again = ff.pipe(from_ray(theirs.limit(40)), *stages)
    assert_same([*first, *again.load_state_dict(state)], [*ff.pipe(ours, *stages[:-1]).run(epoch=1)])
    assert [row["id"] for row in from_ray(theirs.filter(lambda row: row["id"] % 2).limit(3))] == [1, 3, 5]
    empty, made = ray.data.range(0), []
    empty.materialize = lambda: made.append(ray.data.range(0).materialize()) or made[-1]
    flow = from_ray(empty)
    assert (len(flow), [*flow], len(made)) == (0, [], 1)
    with pytest.raises(TypeError, match=r"dataset must be a ray\.data\.Dataset, got \[1\]"):
        from_ray([1])


def test_a_flow_is_a_data_set_of_ray(ray, pictured):
    noise = ff.map(lambda i, rng: {**pictured(i), "noise": rng.random()}, rng=True)
    seekable = ff.pipe(range(40), ff.shuffle(), noise).reset_state(3).set_epoch(2)
    for flow in (seekable, ff.filter(lambda x: x["id"] % 2, seekable)):
        theirs = to_ray(flow)
        for _ in range(2):
            assert_same(theirs.take_all(), [*flow.run(seed=3, epoch=2)])
    assert_same([*from_ray(to_ray(seekable))], [*seekable.run(seed=3, epoch=2)])
    assert to_ray(ff.take(0, seekable)).take_all() == []
    with pytest.raises(ValueError, match="endless"):
        to_ray(ff.cycle(seekable))
    with pytest.raises(Exception, match=r"to_ray\(\): datapoints must be dicts"):
        to_ray(range(3)).take_all()
