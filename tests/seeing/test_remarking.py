"""What `explain` remarks on: prefetches with nothing to do, what is large on its way to workers, what never comes,
ranks that differ."""

import functools
import io
import re
import threading

import numpy as np
import pytest

import flowfn as ff
from flowfn.interop import to_torch
from flowfn.seeing.remarking import sent

LARGE = np.zeros(1_000_000)
LOCK = threading.Lock()


def remarks(flow):
    """The remarks below the table, but for those on what resuming costs."""
    text = io.StringIO()
    ff.explain(flow, text)
    found = [line for line in text.getvalue().splitlines() if line.startswith("* ")]
    return [remark for remark in found if "has no anchor" not in remark]


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_the_table_fits_onto_a_screen(monkeypatch):
    flow = ff.pipe(range(10_000), ff.map(functools.partial(pow, exp=3, mod=10_007)), ff.prefetch(2, processes=2))
    for columns, widest in ((200, 120), (72, 72)):
        monkeypatch.setenv("COLUMNS", str(columns))
        screen = Screen()
        ff.explain(flow, screen)
        table = screen.getvalue().splitlines()[:4]
        assert max(map(len, table)) <= widest
        assert ("2 processes of prefetch" in table[2]) == (columns == 200)
        assert table[3].startswith("prefetch(2, processes=2)  ")


def large():
    held = LARGE + 0
    return lambda x: x + held[0]


def stream():
    return iter(range(20))


NOTHING = "has nothing upstream"
IDLE = {
    "before the map": (
        lambda: ff.pipe(range(20), ff.prefetch(4, processes=2), ff.map(str), ff.batch(4)),
        "its 2 processes",
    ),
    "threads": (lambda: ff.pipe(range(20), ff.shuffle(), ff.prefetch(4, threads=3), ff.map(str)), "its 3 threads"),
    "behind a stream stage": (
        lambda: ff.pipe(range(20), ff.shuffle_buffer(4), ff.prefetch(4, processes=2)),
        "its 2 processes",
    ),
    "a stream": (lambda: ff.pipe(stream, ff.prefetch(4, processes=2), ff.map(str)), "its 2 processes"),
    "one thread over a list": (
        lambda: ff.pipe([1, 2], ff.shuffle(), ff.prefetch(4), ff.map(str)),
        "to do ahead of time",
    ),
    "twice in a row": (
        lambda: ff.pipe(range(20), ff.map(str), ff.prefetch(4, processes=2), ff.prefetch(2)),
        "to do ahead of time",
    ),
    "workers twice": (
        lambda: ff.pipe(range(20), ff.map(str), ff.prefetch(4), ff.take(9), ff.prefetch(2, threads=2)),
        "its 2 threads",
    ),
}
BUSY = {
    "map": lambda: ff.pipe(range(20), ff.map(str), ff.prefetch(4, processes=2)),
    "map and more": lambda: ff.pipe(range(20), ff.map(str), ff.prefetch(4, processes=2), ff.batch(2)),
    "batch": lambda: ff.pipe(range(20), ff.batch(4), ff.prefetch(4, processes=2)),
    "filter of a stream": lambda: ff.pipe(stream, ff.filter(bool), ff.prefetch(4, threads=2)),
    "map before a stream stage": lambda: ff.pipe(
        range(20), ff.map(str), ff.shuffle_buffer(4), ff.prefetch(4, processes=2)
    ),
    "all in one": lambda: ff.pipe(range(20), ff.shuffle_buffer(4), ff.prefetch(4, processes=1)),
    "one thread over a stream": lambda: ff.pipe(stream, ff.prefetch(4)),
    "inner and outer": lambda: ff.pipe(
        range(20), ff.map(str), ff.prefetch(4, processes=2), ff.shuffle_buffer(4), ff.prefetch(2)
    ),
    "rows of arrays": lambda: ff.pipe(ff.from_arrays(LARGE), ff.shuffle(), ff.batch(4), ff.prefetch(4, processes=2)),
    "ahead of less than workers": lambda: ff.pipe(range(20), ff.map(str), ff.prefetch(1, processes=2)),
}


@pytest.mark.parametrize("name", IDLE)
def test_a_prefetch_that_has_nothing_to_do_is_remarked_on(name):
    make, words = IDLE[name]
    (remark,) = remarks(make())
    assert re.match(rf"\* prefetch\(.*\) {NOTHING} ", remark)
    assert words in remark


@pytest.mark.parametrize("name", BUSY)
def test_one_that_works_is_not(name):
    assert remarks(BUSY[name]()) == []


def test_what_interleave_opens_is_work():
    (remark,) = remarks(ff.pipe(range(20), ff.interleave(range), ff.prefetch(4, processes=2)))
    assert "several at once" in remark


def test_more_workers_than_outputs_are_remarked_on():
    assert remarks(ff.pipe(range(9), ff.map(str), ff.batch(8), ff.prefetch(4, processes=3))) == [
        "* prefetch(4, processes=3) has more workers than there are outputs, 2"
    ]


@pytest.mark.parametrize(
    "stages",
    [[], [ff.shuffle_buffer(3)], [ff.batch(2)], [ff.filter(bool)], [ff.shuffle(), ff.map(str)]],
    ids=str,
)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_large_closure_is_named_with_its_size(stages, processes):
    (remark,) = remarks(ff.pipe(range(20), ff.map(large()), *stages, ff.prefetch(4, processes=processes)))
    assert re.match(
        r"\* map\(<lambda>\) holds 8\.0 MB, which every pass pickles \(\d\.\d\d s\) and each worker of prefetch\(4, ",
        remark,
    )


def test_large_closures_elsewhere_and_small_ones_are_not():
    assert remarks(ff.pipe(range(20), ff.map(large()), ff.prefetch(4, threads=2))) == []
    assert remarks(ff.pipe(range(20), ff.map(str), ff.prefetch(4, processes=2), ff.map(large()))) == []
    assert sent(large())[0] > 8_000_000 > 10_000 > sent(ff.map(str))[0]


def test_what_cannot_be_sent_is_said_before_it_fails():
    (remark,) = remarks(ff.pipe(range(20), ff.map(lambda x: LOCK), ff.prefetch(4, processes=2)))
    assert remark.startswith("* map(<lambda>) cannot be sent to a worker process (cannot pickle '_thread.lock' object)")


NEVER = {
    "concat": (
        lambda: ff.concat([1], ff.cycle([2]), [3], [4]),
        "concat() never comes to what follows its endless source cycle(): ",
    ),
    "concat of streams": (lambda: ff.concat(ff.pipe(stream, ff.cycle()), [3]), "concat() never comes to what follows"),
    "repeat": (lambda: ff.repeat(3, ff.cycle([2])), "repeat(3) never comes to its second round"),
    "batch": (
        lambda: ff.batch(64, range(10), drop_remainder=True),
        "batch(64, drop_remainder=True) gives nothing of the 10 datapoints",
    ),
    "window": (
        lambda: ff.window(20, range(9), drop_remainder=True),
        "window(20, drop_remainder=True) gives nothing of the 9 datapoints",
    ),
    "shard": (
        lambda: ff.shard(2, 4, range(1), remainder="drop"),
        "shard(2, 4, remainder='drop') gives nothing of the 1 datapoint of its source",
    ),
    "skip": (lambda: ff.skip(10, range(9)), "skip(10) gives nothing of the 9 datapoints"),
    "sample": (lambda: ff.sample(0, range(9)), "sample(0) gives nothing"),
    "subset": (lambda: ff.subset([], range(9)), "subset([]) gives nothing"),
    "take": (lambda: ff.take(0, ff.cycle([1])), "take(0) gives nothing of the endless datapoints"),
}


@pytest.mark.parametrize("name", NEVER)
def test_what_never_comes_is_remarked_on(name):
    make, begins = NEVER[name]
    assert [remark.startswith(f"* {begins}") for remark in remarks(make())] == [True]


def test_endless_sources_where_they_are_fine_are_not():
    for flow in (
        ff.concat([1], ff.cycle([2])),
        ff.zip([1], ff.cycle([2])),
        ff.mix([1], ff.cycle([2])),
        ff.take(3, ff.cycle([2])),
        ff.batch(3, []),
    ):
        assert remarks(flow) == []


def test_concat_with_an_endless_source_gives_the_first():
    for endless in (ff.cycle([1, 2]), ff.pipe(stream, ff.cycle())):
        for flow in (ff.concat(endless, [-9]), ff.concat([7], endless, [-9])):
            assert -9 not in list(ff.take(50, flow))
            assert len(list(ff.take(50, flow))) == 50
    assert ff.concat([7], ff.cycle([1, 2]), [9])[10**9] == 2


ELASTIC = "a saved state holds rank and world"

DIFFERING = {
    "a remainder": (
        lambda: ff.pipe(range(17), ff.shuffle(), ff.shard(1, 4), ff.batch(2)),
        'ranks differ in steps: rank 0 has 3, rank 3 has 2; remainder="drop" ',
    ),
    "shards of shards": (
        lambda: ff.pipe(range(9), ff.shard(1, 2), ff.shard(0, 2)),
        "ranks differ in steps: rank 0 has 3, rank 3 has 2; ",
    ),
    "a stream": (
        lambda: ff.pipe(stream, ff.shard(1, 4), ff.batch(2)),
        "ranks may differ in steps: shard(1, 4) keeps a remainder of what has no known length; remainder=",
    ),
    "a filter before": (
        lambda: ff.pipe(range(8), ff.filter(bool), ff.shard(1, 4)),
        "ranks may differ in steps: shard(",
    ),
    "a filter behind": (
        lambda: ff.pipe(range(8), ff.shard(1, 4, remainder="drop"), ff.filter(bool), ff.batch(2)),
        "ranks may differ in steps: how many datapoints filter(bool) gives depends on the share of each; put it ",
    ),
    "flat_map": (lambda: ff.pipe(range(8), ff.shard(1, 4), ff.flat_map(range)), "ranks may differ in steps: how many"),
    "guard that drops": (
        lambda: ff.pipe(range(8), ff.shard(1, 4), ff.guard(ff.map(str), then="drop")),
        "ranks may differ in steps: how many datapoints guard(map(",
    ),
    "batch_by_key": (
        lambda: ff.pipe(range(8), ff.shard(1, 4), ff.batch_by_key(bool, 2)),
        "ranks may differ in steps: how many datapoints batch_by_key(",
    ),
}
ALIKE = {
    "no shard": lambda: ff.pipe(range(17), ff.filter(bool), ff.batch(2)),
    "one rank": lambda: ff.pipe(range(17), ff.shard(0, 1), ff.filter(bool)),
    "no remainder": lambda: ff.pipe(range(16), ff.shard(1, 4), ff.batch(2)),
    "one in a batch": lambda: ff.pipe(range(17), ff.shard(1, 2), ff.batch(8, drop_remainder=True)),
    "drop": lambda: ff.pipe(range(17), ff.shard(1, 4, remainder="drop"), ff.batch(2)),
    "pad": lambda: ff.pipe(range(17), ff.shard(1, 4, remainder="pad"), ff.batch(2)),
    "a stream, drop": lambda: ff.pipe(stream, ff.filter(bool), ff.shard(1, 4, remainder="drop"), ff.batch(2)),
    "a stream, pad": lambda: ff.pipe(stream, ff.shard(1, 4, remainder="pad"), ff.prefetch(2)),
    "cycle": lambda: ff.pipe(range(17), ff.shard(1, 4), ff.cycle()),
    "endless, packed": lambda: ff.pipe(
        ff.mix([[1]] * 9, until="forever"), ff.pack(4, ranks=4), ff.shard(1, 4), ff.batch(2), ff.prefetch(1)
    ),
    "take": lambda: ff.pipe(stream, ff.shard(1, 4), ff.filter(bool), ff.batch(2), ff.take(3)),
    "epoch_of": lambda: ff.pipe(range(17), ff.shard(1, 4), ff.filter(bool), ff.epoch_of(6)),
    "shuffle_buffer": lambda: ff.pipe(range(16), ff.shard(1, 4), ff.shuffle_buffer(3)),
}


@pytest.mark.parametrize("name", DIFFERING)
def test_where_ranks_may_differ_in_steps_it_is_remarked_on(name):
    make, begins = DIFFERING[name]
    found = [remark for remark in remarks(make()) if ELASTIC not in remark]
    assert [remark.startswith(f"* {begins}") for remark in found] == [True]


def test_an_error_of_another_rank_is_said_here():
    remark, _ = remarks(ff.pipe(range(3), ff.shard(0, 4), ff.cycle()))
    assert remark.startswith("* another rank cannot begin: cycle(): the source is empty")


@pytest.mark.parametrize("name", ALIKE)
def test_where_they_have_as_many_it_is_not(name):
    assert [remark for remark in remarks(ALIKE[name]()) if ELASTIC not in remark] == []


def planned(world, **options):
    made = ff.batch_by_cost(np.square, ranks=4, size=8, **options)
    return [
        remark for remark in remarks(ff.pipe([[1]] * 16, made, ff.shard(0, world))) if "ranks may differ" not in remark
    ]


def test_where_a_plan_goes_to_another_number_of_ranks_it_is_remarked_on():
    assert planned(4, collate=None) == []
    (remark,) = planned(2, collate=None)
    assert "is planned for 4 ranks, but 2 share it" in remark
    packed = ff.pipe([[1]] * 16, ff.pack(4, how=functools.partial(ff.balanced_fit, ranks=4)), ff.shard(0, 2))
    assert any("is planned for 4 ranks, but 2 share it" in remark for remark in remarks(packed))
    plain = ff.pipe([[1]] * 16, ff.pack(4), ff.shard(0, 2))
    assert not any("is planned for" in remark for remark in remarks(plain))


def test_where_each_rank_makes_the_batches_of_all_it_is_remarked_on():
    (remark,) = planned(4)
    assert remark.startswith("* each rank makes the batches of all that batch_by_cost(")


def test_stages_that_would_do_better_elsewhere_are_named():
    placed = {
        "moves whole batches": ff.pipe(range(20), ff.batch(4), ff.take(3), ff.shuffle()),
        "shuffle_buffer(9) moves whole batches": ff.pipe(range(20), ff.batch(4), ff.shuffle_buffer(9)),
        "draws once for each batch": ff.pipe(range(20), ff.batch(4), ff.map(lambda x, rng: x, rng=True)),
        "put it before map(str), where": ff.pipe(stream, ff.map(str), ff.select([0]), ff.shuffle_buffer(64)),
        "makes tensors in the worker processes": ff.pipe(range(20), to_torch(), ff.prefetch(2, processes=2)),
    }
    for said, flow in placed.items():
        assert [said in remark for remark in remarks(flow)] == [True], said
    assert not remarks(ff.pipe(range(20), ff.shuffle(), ff.map(lambda x, rng: x, rng=True), ff.batch(4, collate=None)))
    assert not remarks(ff.pipe(stream, ff.shuffle_buffer(64), ff.map(str), ff.prefetch(2), to_torch()))


def test_in_detail_it_says_what_is_held_why_it_stays_and_what_comes():
    text = io.StringIO()
    flow = ff.pipe(stream, ff.map(float), ff.shuffle_buffer(9), ff.batch(4), ff.prefetch(4, processes=3))
    ff.explain(flow, text, elements=True)
    lines = text.getvalue().splitlines()
    assert lines[-6:] == [
        "flow(stream): stays here, as it can only be read in order, by one; gives 0",
        "map(float): gives 0.0",
        "shuffle_buffer(9): holds 9 datapoints; is not spread over workers: a stream stage sees all datapoints, one "
        f"after the other; gives {next(iter(ff.pipe(stream, ff.map(float), ff.shuffle_buffer(9))))}",
        "batch(4): holds 4 datapoints; is not spread over workers: its source has no index, so what an output is made "
        "of shows when it comes; gives float64 array (4,)",
        "prefetch(4, processes=3): at most 7 outputs wait or are made; gives float64 array (4,)",
        "* about 0.00064 MB wait or are held at most, if all datapoints are as large as the first",
    ]
    text = io.StringIO()
    ff.explain(ff.pipe(iter("abc"), ff.shard(0, 3)), text, elements=True)
    assert "its first output is not read" in text.getvalue()
