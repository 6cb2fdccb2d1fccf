"""Which records made an output: found afterwards, and held against what the datapoints themselves say."""

import re
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowfn as ff
from flowfn.testing import strategies


class Iterable:
    """A source that can only be iterated."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def marked(n):
    return [[f"<{number}>"] for number in range(n)]


SOURCES = st.one_of(
    st.integers(1, 12).map(lambda n: lambda: marked(n)),
    st.integers(1, 12).map(lambda n: lambda: ff.flow(Iterable(marked(n)))),
    st.integers(1, 12).map(lambda n: lambda: ff.flow(lambda start: iter(marked(n)[start:]))),
)


def said(output):
    """The records that an output says it was made of."""
    return {int(number) for number in re.findall(r"<(\d+)>", repr(output))}


def found(origins):
    return {one.index for one in origins if one.shown.count("first") + one.shown.count("last") == 0}


@pytest.mark.filterwarnings("ignore::flowfn.kinds.losses.NothingLeft")
@settings(max_examples=100, deadline=None)
@given(strategies.recipes(4), SOURCES, st.data())
def test_origins_of_any_pipeline_are_what_its_outputs_say(recipe, make_source, data):
    pipeline = strategies.RandomPipeline(make_source, recipe.stages)
    try:
        flow = pipeline().reset_state(3).set_epoch(2)
    except (ValueError, TypeError):  # a stage that this source cannot have
        return
    outputs = list(islice(flow.run(), 40))
    if not outputs or "len, 0" in repr(flow):  # the latter forgets which record it was
        return
    k = data.draw(st.integers(0, len(outputs) - 1))
    origins = ff.origins(flow, k)
    assert ff.testing.same(ff.replay(flow, k), outputs[k])
    if origins.exact:
        assert found(origins) == said(outputs[k])
    else:
        assert found(origins) >= said(outputs[k])
    assert (origins.how == "index") >= flow.seekable


WORDS = {
    "pack": lambda: ff.pipe(tokens(), ff.pack(8)),
    "pack, cut": lambda: ff.pipe(tokens(), ff.pack(8, how=ff.concat_then_split)),
    "pack for ranks": lambda: ff.pipe(tokens(), ff.pack(8, ranks=2, cost=lambda n: n * n)),
    "batch_by_cost": lambda: ff.pipe(tokens(), ff.batch_by_cost(lambda n: n * n, ranks=2, tokens=12, window=10)),
    "batch_by_cost, size": lambda: ff.pipe(tokens(), ff.batch_by_cost(lambda n: n * n, ranks=2, size=8)),
    "batch_by_length": lambda: ff.pipe(tokens(), ff.batch_by_length(len, tokens=12)),
    "batch_by_key": lambda: ff.pipe(tokens(), ff.batch_by_key(len, 3, collate=None)),
    "shuffle_buffer": lambda: ff.pipe(tokens(), ff.shuffle_buffer(5, reuse=2)),
    "unique": lambda: ff.pipe(tokens(), ff.unique(key=len)),
    "scan": lambda: ff.pipe(tokens(), ff.scan(lambda total, x: (total + 1, x), 0)),
    "take_while": lambda: ff.pipe(tokens(), ff.take_while(lambda x: x[0] < 50)),
    "rebatch": lambda: ff.pipe(tokens(), ff.map(lambda x: [x]), ff.rebatch(4)),
    "interleave": lambda: ff.pipe(tokens(), ff.interleave(lambda x: [x] * (len(x) % 3), cycle=3)),
    "flat_map": lambda: ff.pipe(tokens(), ff.flat_map(lambda x: [x] * (len(x) % 3))),
    "filter, batch": lambda: ff.pipe(tokens(), ff.filter(lambda x: len(x) % 3), ff.batch(4, collate=None)),
    "mix of streams": lambda: ff.mix(ff.filter(len, tokens()), ff.filter(len, tokens()), weights=[3, 1], until="all"),
    "mix, by units": lambda: ff.mix(tokens(), tokens(), weights=[2, 1], unit=len, until="all"),
    "mix, scheduled": lambda: ff.mix(tokens(), tokens(), weights=lambda step: [1, step % 3], until="cycle_all"),
    "shard of a stream": lambda: ff.pipe(tokens(), ff.filter(len), ff.shard(1, 3, remainder="drop")),
    "shard of a stream, filled": lambda: ff.pipe(tokens(), ff.filter(len), ff.shard(2, 3, remainder="pad")),
    "rounds of a stream": lambda: ff.pipe(tokens(), ff.filter(lambda x: len(x) % 2), ff.repeat(3), ff.repeat_each(2)),
    "epochs of a stream": lambda: ff.epoch_of(7, ff.filter(lambda x: len(x) % 2, tokens())),
    "windows over a stream": lambda: ff.pipe(tokens(), ff.filter(len), ff.window(5, step=3, collate=None)),
    "planned": lambda: ff.pipe(tokens(), ff.batch_by_cost(lambda n: n * n, ranks=2, size=8)),
    "planned, microbatches": lambda: ff.pipe(tokens(), ff.batch_by_cost(lambda n: n, ranks=2, tokens=20, window=16)),
    "packed for ranks": lambda: ff.pipe(tokens(), ff.pack(16, ranks=2)),
    "mix by tokens": lambda: ff.mix(tokens(), tokens(), weights=[3, 1], unit=len, until="all"),
    "concat of streams": lambda: ff.concat(ff.filter(len, tokens()), tokens()),
}


def tokens():
    """Sequences, each of which holds its own number, shuffled."""
    lengths = np.random.Generator(np.random.Philox(key=7)).integers(1, 8, 40)
    return ff.pipe([np.full(length, number) for number, length in enumerate(lengths.tolist(), 1)], ff.shuffle())


def numbers(output):
    """The sequences in an output; 0 is padding."""
    if isinstance(output, (list, tuple)) and len(output) == 3 and getattr(output[1], "dtype", None) == np.int32:
        output = output[0]  # a packed row has segment ids and positions beside it
    parts = output if isinstance(output, (list, tuple)) else [output]
    return [*dict.fromkeys(int(x) for part in parts for x in np.ravel(part) if x)]


@pytest.mark.parametrize("word", WORDS)
def test_built_in_stages_tell_exactly_what_every_output_is_made_of(word):
    flow = WORDS[word]()
    for epoch in (0, 1):
        for k, output in enumerate(flow.run(epoch=epoch)):
            origins = ff.origins(flow, k, epoch=epoch)
            assert (origins.exact, origins.how) == (True, "replay")
            assert sorted({one.index + 1 for one in origins}) == sorted(numbers(output)), (epoch, k)


@pytest.mark.parametrize("word", WORDS)
def test_from_a_state_less_is_read_again_and_the_same_is_found(word):
    flow = WORDS[word]()
    total = len(list(flow.run()))
    for k in range(0, total - 2, 3):
        with flow.run() as iterator:
            list(islice(iterator, k))
            state = iterator.state_dict()
            assert ff.origins(flow, k + 2, state=iterator) == ff.origins(flow, k + 2)
        assert ff.origins(flow, k + 1, state=state) == ff.origins(flow, k + 1)
        assert ff.testing.same(ff.replay(flow, k + 1, state=state), ff.replay(flow, k + 1))


def test_origins_name_source_round_and_rank_in_the_order_of_use():
    text, code = ff.pipe(["a", "b", "c"], ff.cycle()), ff.pipe(["x", "y"], ff.cycle())
    mixed = ff.mix({"text": text, "code": code}, weights=[2, 1])
    flow = ff.pipe(mixed, ff.shard(1, 2), ff.batch(3))
    told = {("text", one): letter for one, letter in enumerate("abc")} | {("code", 0): "x", ("code", 1): "y"}
    for k, output in enumerate(islice(flow.run(epoch=4), 6)):
        origins = ff.origins(flow, k, epoch=4)
        assert [told[one.source, one.index] for one in origins] == output
        assert {one.rank for one in origins} == {1}
    assert [one.epoch for one in ff.origins(flow, 0)] == [(0, 0), (0, 0), (0, 1)]
    later = [one for one in ff.origins(flow, 2, epoch=4) if one.source == "code"]
    assert [(one.epoch, one.index) for one in later] == [((4, 2), 0)]


def test_a_step_of_all_ranks_is_the_records_of_each():
    def make(rank):
        return ff.pipe(range(100), ff.shuffle(), ff.map(abs), ff.shard(rank, 4), ff.batch(3))

    every = ff.origins(make(2), 5, ranks="all")
    assert [one.index for one in every] == [int(x) for rank in range(4) for x in make(rank)[5]]
    assert [one.rank for one in every] == [rank for rank in range(4) for _ in range(3)]
    assert len(ff.origins(make(0), 8, ranks="all")) == 4  # the last step is short
    with pytest.raises(ValueError, match="needs a flow with one shard, but this one has none"):
        ff.origins(ff.flow(range(3)), 0, ranks="all")


def test_sources_of_one_name_have_numbers_beside_it():
    flow = ff.mix({"web": ff.zip([1, 2], [3, 4]), "code": [(5, 6)]}, until="all")
    assert [one.source for one in ff.origins(flow, 0)] == ["web/0", "web/1"]
    assert [one.source for one in ff.origins(flow, 1)] == ["code"]
    nested = ff.mix({"text": ff.mix({"en": [1], "de": [2]}), "code": [3]})
    assert [ff.origins(nested, k)[0].source for k in range(3)] == ["text/en", "code", "text/de"]
    assert [one.source for one in ff.origins(ff.concat([1], [2]), 1)] == [1]


def test_a_stage_of_ones_own_that_does_not_tell_has_a_bound():
    @ff.stage
    def in_pairs(source, *, mark):
        for first in source:
            mark_at = [first, next(source)]
            yield mark_at
            mark()

    @ff.stage
    def telling(source, *, trace):
        for first in source:
            number = source.position - 1
            second = next(source)
            if trace is not None:
                trace([number])
            yield [first, second]

    bound = ff.origins(ff.pipe(range(10), in_pairs()), 2)
    assert ([one.index for one in bound], bound.exact, bound.how) == ([4, 5], False, "replay")
    exact = ff.origins(ff.pipe(range(10), telling()), 2)
    assert ([one.index for one in exact], exact.exact) == ([4], True)
    plain = ff.origins(ff.pipe(range(10), lambda items: (x for x in items)), 2)
    assert ([one.index for one in plain], plain.exact) == ([0, 1, 2], False)
    assert list(ff.pipe(range(2), telling())) == [[0, 1]]  # in an ordinary pass nobody asks


def test_what_is_not_there_has_no_origins():
    for flow in (ff.batch(2, range(5)), ff.pipe(range(5), ff.filter(lambda x: True), ff.batch(2))):
        assert [one.index for one in ff.origins(flow, 2)] == [4]
        with pytest.raises(IndexError, match=r"origins\(\): the pass has no output 3"):
            ff.origins(flow, 3)
        with pytest.raises(IndexError, match=r"replay\(\): the pass has no output 3"):
            ff.replay(flow, 3)
    with pytest.raises(ValueError, match="k must be an integer >= 0"):
        ff.origins(ff.flow([1]), -1)
    with pytest.raises(TypeError, match="state must be a state or an iterator over the flow, got 3"):
        ff.origins(ff.flow([1]), 0, state=3)
    for one in ([1], iter(ff.flow([1]))):
        for word in (ff.origins, ff.replay):
            with pytest.raises(TypeError, match=r"flow must be a flow, got .*; flow\(data\) makes one"):
                word(one, 0)
    with pytest.raises(TypeError, match="as they come"):
        ff.origins(ff.pipe([1], ff.prefetch(1, ordered=False)), 0)


def test_any_output_is_made_again_serially():
    flow = ff.pipe(range(30), ff.shuffle(), ff.filter(lambda x: x % 3), ff.map(strategies.noisy, rng=True))
    for epoch in (0, 3):
        outputs = list(flow.run(seed=5, epoch=epoch))
        assert [ff.replay(flow, k, seed=5, epoch=epoch) for k in range(20)] == outputs


def numbered(n=40):
    return [{"tokens": np.full(number % 5 + 1, number), "from": f"<{number}>"} for number in range(n)]


def length_of(datapoint):
    return len(datapoint["tokens"])


IN_ROWS = {
    "pack": [ff.pack(6, keep="from")],
    "planned": [ff.pack(6, ranks=2, keep="from")],
    "planned batches": [ff.batch_by_cost(lambda n: n, ranks=2, length="tokens", tokens=12, window=7, collate=None)],
    "filtered": [ff.filter(length_of), ff.batch(3, collate=None)],
    "batches": [ff.batch(3, collate=None)],
    "behind take": [ff.take(31), ff.shuffle_buffer(4), ff.shard(0, 2)],
}


@pytest.mark.parametrize("form", [list, Iterable], ids=["indexed", "streamed"])
@pytest.mark.parametrize("before", [(), (ff.shuffle(),)], ids=["in order", "shuffled"])
@pytest.mark.parametrize("name", IN_ROWS)
def test_where_records_are_left_out_outputs_are_of_the_others(name, before, form):
    if before and form is Iterable:
        return  # what is shuffled is indexed

    def make():
        return ff.pipe(ff.flow(form(numbered())), *before, *IN_ROWS[name])

    left_out = [("0", 0), ("0", 7), ("0", 8), ("0", 39)]
    start = make().load_state_dict(make().state_dict(), skip=left_out)
    for flow in (start, make().load_state_dict(start.state_dict())):
        iterator = flow.run()
        early = iterator.state_dict()
        for output in iterator:
            k = iterator.position - 1
            for origins in (ff.origins(flow, k), ff.origins(make(), k, state=early)):
                assert origins.exact
                assert found(origins) == said(output)
            assert ff.testing.same(ff.replay(flow, k), output)
            assert ff.testing.same(ff.replay(make(), k, state=iterator), output)
            early = iterator.state_dict() if k % 3 == 0 and k < 6 else early


def test_an_output_that_was_left_out_is_still_found_and_one_of_which_nothing_is_left_is_none():
    flow = ff.pipe(numbered(6), ff.batch(2, collate=None))
    left_out = flow.load_state_dict(flow.state_dict(), skip=[1, ("0", 4), ("0", 5)])
    state = left_out.state_dict()
    assert len(list(left_out)) == 1
    assert [one.index for one in ff.origins(flow, 1, state=state)] == [2, 3]
    assert said(ff.replay(flow, 1, state=state)) == {2, 3}
    assert ff.origins(flow, 2, state=state) == []
    with pytest.raises(IndexError, match="no output 2"):
        ff.replay(flow, 2, state=state)


@pytest.mark.parametrize("stream", [False, True])
def test_a_pass_that_began_within_a_step_is_counted_from_there(stream):
    def make(rank, world, size):
        kept = ff.filter(lambda x: x % 3) if stream else None
        return ff.pipe(range(400), ff.shuffle(), kept, ff.shard(rank, world), ff.batch(size))

    with make(1, 4, 2).run(seed=3, epoch=1) as iterator:
        list(islice(iterator, 5))
        state = iterator.state_dict()
    flow = make(2, 3, 7)
    for k, output in enumerate(islice(iter(flow.load_state_dict(state, strict=False)), 4)):
        with iter(flow.load_state_dict(state, strict=False)) as resumed:
            assert [one.index for one in ff.origins(flow, k, state=resumed)] == output.tolist()
            assert ff.replay(flow, k, state=resumed).tolist() == output.tolist()
