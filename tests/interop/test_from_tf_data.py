"""What tf.data does where a row of examples/from_others.md tells of a difference, beside what is done here."""

import json

import numpy as np
import pytest
from beside import SEQUENCES, listed, odd, untupled

import flowfn as ff

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


def test_slices_of_pythons_numbers_have_32_bits_in_tf_data(tf):
    theirs = tf.data.Dataset.from_tensor_slices(([1, 2], [0.5, 1.0]))
    ours = ff.from_arrays([1, 2], [0.5, 1.0])
    assert untupled(listed(theirs)) == listed(ours)
    assert [one.dtype.name for one in theirs.element_spec] == ["int32", "float32"]
    assert [one.dtype.name for one in ours[0]] == ["int64", "float64"]


def test_files_are_shuffled_by_tf_data_unless_it_is_told_and_then_in_the_order_of_letters(tf, tmp_path):
    for i in range(11):
        (tmp_path / f"part-{i}").write_text(f"line {i} \n")
    pattern = str(tmp_path / "part-*")
    names = lambda paths: [int(path.rpartition("-")[2]) for path in paths]
    theirs = tf.data.Dataset.list_files(pattern)
    assert len({tuple(names(listed(theirs))) for _ in range(3)}) > 1
    ordered = tf.data.Dataset.list_files(pattern, shuffle=False)
    assert names(listed(ordered)) == [0, 1, 10, *range(2, 10)]
    assert names(ff.files(pattern)) == [*range(11)]
    lines = tf.data.TextLineDataset(sorted(ff.files(pattern)))
    ours = ff.pipe(sorted(ff.files(pattern)), ff.flat_map(open), ff.map(lambda line: line.rstrip("\n")))
    assert listed(lines) == [*ours] == [f"line {name} " for name in sorted(map(str, range(11)))]


def test_a_function_is_traced_once_by_tf_data(tf):
    calls = []
    count = lambda x: (calls.append(1), x)[1]
    assert (listed(tf.data.Dataset.range(5).map(count)), len(calls)) == ([*range(5)], 1)
    assert ([*ff.map(count, range(5))], len(calls)) == ([*range(5)], 6)


def test_random_numbers_of_tf_data_belong_to_the_turn(tf):
    def drawn(numbers):
        tf.random.set_seed(0)
        return listed(numbers.map(lambda _: tf.random.uniform([])))

    numbers = tf.data.Dataset.range(4)
    assert drawn(numbers)[:2] == drawn(numbers.skip(2))
    ours = ff.map(lambda _, rng: rng.random(), range(4), rng=True)
    assert [*ours.run()][2:] == [*ff.skip(2, ours).run()]


def test_ragged_batches_of_tf_data_are_lists(tf):
    theirs = tf.data.Dataset.from_generator(
        lambda: SEQUENCES, output_signature=tf.TensorSpec((None,), tf.int64)
    ).ragged_batch(4)
    assert [batch.to_list() for batch in theirs] == listed(ff.batch(4, SEQUENCES, collate=ff.as_list))


def test_take_and_skip_of_what_tf_data_shuffles_overlap(tf):
    """Each of them is a pass of its own over the shuffled data set, which is shuffled anew in each (TensorFlow 2.21:
    reshuffle_each_iteration is True, and a seed does not change that)."""
    shuffled = tf.data.Dataset.range(100).shuffle(100, seed=1)
    assert {*listed(shuffled.take(90))} & {*listed(shuffled.skip(90))}
    train, test = ff.split(range(100), 0.9, 0.1)
    assert sorted([*train, *test]) == [*range(100)]


def test_tf_data_makes_again_what_an_unfinished_pass_has_cached(tf):
    def made_by(cached, first):
        made.clear()
        return [len(made) for read in (first, cached, cached) if listed(read)]

    made = []
    make = lambda: (made.append(i) or i for i in range(4))
    theirs = tf.data.Dataset.from_generator(make, output_signature=tf.TensorSpec((), tf.int64)).cache()
    assert made_by(theirs, theirs.take(2)) == [2, 6, 6]
    ours = ff.pipe(range(4), ff.tap(made.append), ff.cache())
    assert made_by(ours, ff.take(2, ours)) == [2, 4, 4]


def test_what_tf_data_keeps_and_leaves_out_is_the_same(tf):
    numbers = tf.data.Dataset.range(7)
    theirs = numbers.filter(odd).flat_map(tf.data.Dataset.range).skip(1).take(6)
    assert listed(theirs) == [*ff.pipe(range(7), ff.filter(odd), ff.flat_map(range), ff.skip(1), ff.take(6))]
    assert listed(numbers.take(-1)) == [*range(7)]
    with pytest.raises(ValueError, match="count must be an integer >= 0"):
        ff.take(-1)
    for rank in range(3):
        assert listed(numbers.shard(3, rank)) == [*ff.shard(rank, 3, range(7))]


def test_tf_data_zips_as_far_as_the_shortest(tf):
    theirs = tf.data.Dataset.zip((tf.data.Dataset.range(2), tf.data.Dataset.range(5)))
    assert listed(theirs) == [*ff.zip(range(2), range(5), strict=False)]
    with pytest.raises(ValueError, match="length"):
        ff.zip(range(2), range(5))


@pytest.mark.parametrize(("stop", "until"), [(False, "all"), (True, "first")])
def test_tf_data_samples_by_chance_and_stops_where_it_is_told(tf, stop, until):
    parts = range(4000), range(4000, 8000)
    tf.random.set_seed(0)
    theirs = tf.data.Dataset.sample_from_datasets(
        [tf.data.Dataset.range(part.start, part.stop) for part in parts], [0.5, 0.5], 1, stop_on_empty_dataset=stop
    )
    ours = ff.mix(*parts, weights=[0.5, 0.5], random=True, until=until)
    from_the_first = [sum(x < 4000 for x in listed(one)[:4096]) for one in (theirs, ours)]
    assert from_the_first[0] != 2048 == from_the_first[1]
    assert (len(listed(theirs)) == 8000) == (len(ours) == 8000) == (until == "all")


def test_a_choice_of_tf_data_is_a_schedule(tf):
    choice, parts = [0, 1, 1, 0, 0, 1], (range(9), range(100, 109))
    theirs = tf.data.Dataset.choose_from_datasets(
        [tf.data.Dataset.range(part.start, part.stop) for part in parts],
        tf.data.Dataset.from_tensor_slices(np.int64(choice)),
    )
    ours = ff.pipe(ff.mix(*parts, weights=lambda step: np.eye(2)[choice[step]]), ff.take(len(choice)))
    assert listed(theirs) == [*ours]


def test_windows_of_tf_data_are_data_sets(tf):
    def theirs(size, **options):
        return [listed(window) for window in tf.data.Dataset.range(7).window(size, **options)]

    for shift in (1, 2, 3, 5):
        whole = theirs(3, shift=shift, drop_remainder=True)
        assert whole == listed(ff.window(3, range(7), step=shift, drop_remainder=True))
    assert theirs(3, shift=2) == [*listed(ff.window(3, range(7), step=2)), [6]]
    assert theirs(3) == listed(ff.window(3, range(7), step=3))


def test_groups_and_buckets_of_tf_data_are_batches(tf):
    theirs = tf.data.Dataset.range(7).group_by_window(lambda x: x % 2, lambda _, group: group.batch(2), 2)
    assert listed(theirs) == listed(ff.batch_by_key(lambda x: x % 2, 2, range(7)))
    ragged = tf.data.Dataset.from_generator(lambda: SEQUENCES, output_signature=tf.TensorSpec((None,), tf.int64))
    theirs = ragged.bucket_by_sequence_length(tf.size, [3, 5], [2, 2, 1])
    assert listed(theirs) == listed(ff.batch_by_length(len, SEQUENCES, boundaries=[2, 4], sizes=[2, 2, 1]))


def test_errors_that_tf_data_ignores_are_dropped(tf):
    numbers, inverse = [1.0, 0.0, 2.0], lambda x: 1 / x
    theirs = tf.data.Dataset.from_tensor_slices(numbers).map(lambda x: tf.debugging.check_numerics(1 / x, ""))
    with iter(ff.pipe(numbers, ff.guard(ff.map(inverse), then="drop"))) as ours:
        assert listed(theirs.ignore_errors()) == [*ours]
        assert [one.datapoint for one in ours.dropped] == [0.0]


def test_a_length_that_is_not_known_is_a_number_in_tf_data(tf):
    numbers = tf.data.Dataset.range(4)
    theirs = [one.cardinality().numpy() for one in (numbers, numbers.repeat(), numbers.filter(odd))]
    assert theirs == [len(ff.flow(range(4))), -1, -2]
    for flow in (ff.cycle(range(4)), ff.filter(odd, range(4))):
        with pytest.raises(TypeError, match="length"):
            len(flow)


def test_a_checkpoint_of_tf_data_holds_its_buffer(tf, tmp_path):
    iterator = iter(tf.data.Dataset.range(10000).shuffle(5000))
    next(iterator)
    tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "state"))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 40_000
    with iter(ff.pipe(range(10000), ff.shuffle())) as ours:
        next(ours)
        assert len(json.dumps(ours.state_dict())) < 1000
