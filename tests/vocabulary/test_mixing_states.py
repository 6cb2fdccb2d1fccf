"""Mixes as they are looked at and go on: tags, names, what has been given, and other sources than before."""

import itertools
import json
import pickle
from collections import Counter, namedtuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixes import NAMED, UNTIL, begin, calm, mixed, noisy, of, proportions, rising, rows
from sources import streamed

import flowfn as ff

WORKERS = [None, {}, {"threads": 2}, {"processes": 1}, {"processes": 2}]


Pair = namedtuple("Pair", "x y")


# Both forms


def by_name(step):
    return {0: 3, 2: 1} if step > 6 else {1: 1}


# Tags, names, looks


@pytest.mark.parametrize(
    ("datapoint", "expected"),
    [
        ({"x": 1}, {"x": 1, "from": "web"}),
        ([1, 2], [1, 2, "web"]),
        ((1, 2), (1, 2, "web")),
        ([], ["web"]),
        (7, (7, "web")),
        ("text", ("text", "web")),
        (None, (None, "web")),
        (Pair(1, 2), (Pair(1, 2), "web")),
    ],
)
@pytest.mark.parametrize("form", [list, streamed])
def test_tags_say_where_a_datapoint_comes_from(datapoint, expected, form):
    (made,) = ff.mix({"web": form([datapoint])}, tag="from")
    assert (made, type(made)) == (expected, type(expected))


def test_tags_are_numbers_where_sources_have_no_names():
    assert list(ff.mix(["a"], ["b"], tag="from")) == [("a", 0), ("b", 1)]


def test_a_tag_changes_no_input_and_overwrites_no_key():
    given = [{"x": 1}]
    assert list(ff.mix({"a": given}, tag="from")) == [{"x": 1, "from": "a"}]
    assert given == [{"x": 1}]
    with pytest.raises(ValueError, match=r"^mix\(\): datapoints of source 'a' already have the key 'x'"):
        list(ff.mix({"a": given}, tag="x"))


def test_names_may_be_anything_that_a_dict_takes():
    names = {"a": 1, 2: 2, (3, "x"): 3, None: 1, 4.5: 1}
    flow = ff.mix({name: [weight] * 9 for name, weight in names.items()}, weights=names, tag="from")
    with iter(flow) as iterator:
        assert {name for _, name in itertools.islice(iterator, 16)} == set(names)
        assert {name: quota.delivered for name, quota in ff.quotas(iterator).items()} == {
            name: 2 * n for name, n in names.items()
        }
        state = json.loads(json.dumps(iterator.state_dict()))
        rest = list(iterator)
    other = ff.mix({name: [weight] * 9 for name, weight in reversed(names.items())}, weights=names, tag="from")
    with iter(other.load_state_dict(state, strict=False)) as iterator:
        assert Counter(iterator) == Counter(rest)


def test_its_repr_is_the_call_that_made_it():
    assert repr(ff.mix([1], [2])) == "mix(flow([1]), flow([2]))"
    assert repr(
        ff.mix({"a": [1], "b": ff.shuffle([2])}, weights={"a": 2, "b": 1}, until="all", random=True, tag="from")
    ) == (
        "mix({'a': flow([1]), 'b': pipe(flow([2]), shuffle())}, weights={'a': 2, 'b': 1}, until='all', random=True, "
        "tag='from')"
    )
    assert repr(ff.mix([1], weights=rising, name="mine")) == "mix(flow([1]), weights=rising, name='mine')"
    assert repr(ff.mix([1], tag="first")) == "mix(flow([1]), tag='first')"
    assert repr(ff.mix([1], tag=0)) == "mix(flow([1]), tag=0)"
    assert repr(ff.pipe(ff.mix([1], [2]), ff.batch(2))) == "pipe(mix(flow([1]), flow([2])), batch(2))"


def test_it_pickles():
    for flow in (
        ff.mix(*rows(3, 4), random=True, tag="from"),
        ff.mix({"a": ff.shuffle(range(9)), "b": range(4)}, weights=by_name, until="all"),
    ):
        again = pickle.loads(pickle.dumps(flow))
        assert repr(again) == repr(flow)
        assert again.state_dict() == flow.state_dict()
    assert list(pickle.loads(pickle.dumps(nested_lists()))) == list(nested_lists())


def nested_lists():
    return ff.mix(ff.mix(*rows(3, 4), random=True), rows(5)[0], until="all")


def test_the_seed_is_that_of_the_first_source_that_was_reset():
    flow = ff.mix(range(9), ff.shuffle(range(9)).reset_state(5), random=True)
    assert flow.seed == 5


# What has been given


def as_it_is(x):
    return x


TAILS = [
    (),
    (ff.map(as_it_is),),
    (ff.map(as_it_is), ff.batch(4, collate=None)),
    (ff.batch(4, collate=None), ff.map(as_it_is)),
]


@pytest.mark.parametrize("workers", WORKERS, ids=str)
@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("tail", TAILS, ids=["", "map", "batch", "map behind batch"])
def test_quotas_tell_what_was_given_of_what_was_due(workers, form, tail):
    lists, weights = rows(5, 21), [1, 2]
    expected = [0.0, 0.0]
    flow = ff.pipe(
        ff.mix(*map(form, lists), weights=weights, until="all"),
        *tail,
        None if workers is None else ff.prefetch(3, **workers),
    )
    with iter(flow) as iterator:
        given: Counter[int] = Counter()
        assert ff.quotas(iterator) == {0: (0.0, 0), 1: (0.0, 0)}
        for made in iterator:
            for source, _ in made if len(tail) > 1 else [made]:
                given[source] += 1
            k = given.total()
            expected = [k / 3, k * 2 / 3] if k <= 16 else [5, k - 5]  # source 0 is wanted again at output 16
            quotas = ff.quotas(iterator)
            assert {name: quota.delivered for name, quota in quotas.items()} == {0: given[0], 1: given[1]}
            assert [quota.expected for quota in quotas.values()] == pytest.approx(expected)
        assert ff.quotas(iterator) == quotas
    assert given == {0: 5, 1: 21}


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("weights", [[3, 1], rising], ids=["numbers", "steps"])
def test_quotas_go_on_after_a_resume(form, weights):
    def make():
        sources = rows(40, 40, 40)[: 3 if weights is rising else 2]
        return ff.pipe(ff.mix(*map(form, sources), weights=weights, until="cycle_all"), ff.batch(2, collate=None))

    with iter(make()) as iterator, iter(make()) as other:
        for k in range(30):
            state = json.loads(json.dumps(iterator.state_dict()))
            assert ff.quotas(other.load_state_dict(state)) == ff.quotas(iterator), k
            assert next(other) == next(iterator)
            assert ff.quotas(other) == ff.quotas(iterator)


def test_quotas_elsewhere_are_refused():
    mixed = ff.mix(range(9), range(9))
    for flow in (
        ff.flow([1]),
        ff.filter(bool, mixed),
        ff.shuffle(mixed),
        ff.shard(0, 2, ff.take(8, mixed)),
        ff.zip(mixed, mixed),
        ff.repeat(2, mixed),
    ):
        with (
            iter(flow) as iterator,
            pytest.raises(ValueError, match=r"^quotas\(\): there must be a mix, and behind it nothing but map-like"),
        ):
            ff.quotas(iterator)
    filtered = ff.pipe(mixed, ff.filter(bool), ff.batch(2))
    with iter(filtered) as iterator, pytest.raises(ValueError, match=r"one; filter\(bool\) is none of these$"):
        ff.quotas(iterator)
    for wrong in (mixed, iter([1]), None):
        with pytest.raises(TypeError, match=r"^quotas\(\): iterator must be iter\(flow\) or flow.run\(\), got "):
            ff.quotas(wrong)


# Going on with other sources


def flat(outputs):
    return [x for output in outputs for x in (output if isinstance(output, list) else [output])]


CHANGES = [
    (("web", "code"), after)
    for after in (("web", "code", "books"), ("code",), ("code", "web"), ("maths", "web"), ("books",))
]


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize(("before", "after"), CHANGES, ids=lambda names: "+".join(names))
@pytest.mark.parametrize("until", ["first", "all", "cycle_all", "forever"])
def test_those_that_stay_go_on_where_they_were_and_new_ones_begin(form, before, after, until):
    old = begin(mixed(before, form, until=until), 60)
    places = (0, 7, 25) if until == "forever" else {*range(0, len(old), 3), len(old)}
    for k in places:
        with mixed(before, form, until=until).run(epoch=2) as iterator:
            given = list(itertools.islice(iterator, k))
            assert given == old[:k]
            state = json.loads(json.dumps(iterator.state_dict()))
        flow = mixed(after, form, until=until, weights=[2, 1, 1][: len(after)])
        with pytest.raises(ValueError, match="the state was saved by another pipeline"):
            flow.load_state_dict(state)
        with iter(flow.load_state_dict(state, strict=False)) as iterator:
            assert (iterator.epoch, iterator.position) == (2, 0)
            rest = list(itertools.islice(iterator, 60))
        for name in after:
            whole = of(name, given) + of(name, rest)
            assert whole == list(itertools.islice(itertools.cycle(NAMED[name]), len(whole)))
            if until == "all":
                assert len(whole) == len(NAMED[name])
            if until == "first":
                assert len(whole) <= len(NAMED[name])
            if until == "cycle_all":
                assert len(whole) >= len(NAMED[name])
        if until == "first":
            assert any(len(of(name, given + rest)) == len(NAMED[name]) for name in after)
        assert begin(flow.set_epoch(3), 60) == begin(
            mixed(after, form, until=until, weights=[2, 1, 1][: len(after)]), 60
        )


@pytest.mark.parametrize("workers", WORKERS, ids=str)
@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("tail", TAILS, ids=["", "map", "batch", "map behind batch"])
def test_it_goes_on_so_behind_batch_and_prefetch(workers, form, tail):
    for k in (1, 2, 4):
        with mixed(["web", "code"], form, tail, workers, until="all").run(epoch=1) as iterator:
            given = flat(itertools.islice(iterator, k))
            state = json.loads(json.dumps(iterator.state_dict()))
        with iter(
            mixed(["code", "books", "web"], form, tail, workers, until="all").load_state_dict(state, strict=False)
        ) as iterator:
            rest = list(itertools.islice(iterator, 2))
            again = json.loads(json.dumps(iterator.state_dict()))
            rest += iterator
        with iter(mixed(["code", "books", "web"], form, tail, workers, until="all").load_state_dict(again)) as iterator:
            assert list(iterator) == rest[2:]
        with iter(
            mixed(["code", "books", "web"], form, tail, until="all").load_state_dict(state, strict=False)
        ) as iterator:
            assert list(iterator) == rest
        assert of("books", flat(rest)) == NAMED["books"]
        assert of("web", given + flat(rest)) == NAMED["web"]
        assert of("code", given + flat(rest)) == NAMED["code"]


changes = st.tuples(
    st.permutations(list(NAMED)).flatmap(lambda names: st.integers(1, 4).map(lambda n: names[:n])),
    st.permutations(list(NAMED)).flatmap(lambda names: st.integers(1, 4).map(lambda n: names[:n])),
)


@settings(max_examples=40, **calm)
@given(
    changes,
    st.sampled_from(UNTIL),
    st.booleans(),
    st.lists(proportions, min_size=8, max_size=8),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_going_on_is_the_same_in_both_forms_and_can_itself_be_resumed(names, until, random, weights, first, second):
    ends = []
    for form in (list, streamed):
        options = {"until": until, "random": random}

        def make(form=form, options=options):
            return mixed(names[1], form, weights=weights[4 : 4 + len(names[1])], **options)

        with mixed(names[0], form, weights=weights[: len(names[0])], **options).run() as iterator:
            given = list(itertools.islice(iterator, first))
            if iterator.progress()[0].node.length_or_none() == len(given):
                return  # it may have ended
            state = json.loads(json.dumps(iterator.state_dict()))
        with iter(make().load_state_dict(state, strict=False)) as iterator:
            middle = list(itertools.islice(iterator, second))
            later = json.loads(json.dumps(iterator.state_dict()))
            quotas = ff.quotas(iterator)
            rest = list(itertools.islice(iterator, 50))
        if names[0] != names[1] or weights[: len(names[0])] != weights[4 : 4 + len(names[1])]:
            for source in names[1]:
                whole = of(source, given + middle + rest)
                assert whole == list(itertools.islice(itertools.cycle(NAMED[source]), len(whole)))
                if until == "all" and len(rest) < 50:
                    assert len(whole) == len(NAMED[source])
        if rest:
            with iter(make().load_state_dict(later)) as iterator:
                assert ff.quotas(iterator) == quotas
                assert list(itertools.islice(iterator, 50)) == rest
        ends.append((given, state["mix"], middle, rest, quotas))
    assert ends[0] == ends[1]


def test_a_source_that_has_ended_is_not_forgotten():
    def make(*names, until, form):
        return ff.mix({name: form(NAMED[name]) for name in names}, until=until)

    for form in (list, streamed):
        with iter(make("code", "web", until="first", form=form)) as iterator:
            given = list(itertools.islice(iterator, 12))  # all of code; it is wanted next
            state = iterator.state_dict()
        assert len(of("code", given)) == 6
        assert list(make("code", "web", "books", until="first", form=form).load_state_dict(state, strict=False)) == []
        assert (
            len(list(make("books", "web", "code", until="first", form=form).load_state_dict(state, strict=False))) == 2
        )
        rest = list(make("books", "web", "code", until="all", form=form).load_state_dict(state, strict=False))
        assert (of("code", rest), of("web", rest), of("books", rest)) == ([], NAMED["web"][6:], NAMED["books"])
        with iter(make("maths", "web", until="cycle_all", form=form)) as iterator:
            list(itertools.islice(iterator, 8))
            state = iterator.state_dict()
        assert list(make("maths", until="cycle_all", form=form).load_state_dict(state, strict=False)) == []
        with iter(make("maths", "web", until="all", form=form)) as iterator:
            list(itertools.islice(iterator, 8))
            state = iterator.state_dict()
        assert list(make("maths", until="all", form=form).load_state_dict(state, strict=False)) == []


@pytest.mark.parametrize("form", [list, streamed])
def test_the_last_batch_may_be_short_before_the_sources_change(form):
    def make(*names):
        return ff.pipe(mixed(names, form, until="all"), ff.batch(4, collate=None))

    flow = make("web", "code")
    with iter(flow) as iterator:
        assert len(flat(itertools.islice(iterator, 5))) == 19  # all of it, but nobody has asked for more
        state = json.loads(json.dumps(iterator.state_dict()))
    assert state["mix"]["steps"] == 19
    assert flat(make("web", "code", "books").load_state_dict(state, strict=False)) == NAMED["books"]


def test_sources_with_anchors_of_their_own_go_on_too():
    def make(*names):
        parts = {
            "web": ff.shuffle_buffer(4),
            "code": ff.filter(lambda x: x[1] % 2),
            "books": ff.flat_map(lambda x: [x, x]),
        }
        return ff.pipe(
            ff.mix({name: parts[name](NAMED[name]) for name in names}, until="all"), ff.batch(2, collate=None)
        )

    for k in range(8):
        with make("web", "code", "books").run() as iterator:
            given = flat(itertools.islice(iterator, k))
            state = json.loads(json.dumps(iterator.state_dict()))
        rest = flat(make("books", "code").load_state_dict(state, strict=False))
        assert of("code", given + rest) == [x for x in NAMED["code"] if x[1] % 2]
        assert of("books", given + rest) == [x for x in NAMED["books"] for _ in range(2)]
        alone = list(
            ff.pipe(ff.mix({"web": ff.shuffle_buffer(4)(NAMED["web"])}, until="all")).load_state_dict(
                state, strict=False
            )
        )
        assert sorted(of("web", given) + alone) == NAMED["web"]


def test_the_steps_of_a_schedule_go_on():
    def make(names, log):
        def weights(step):
            log.append(step)
            return dict.fromkeys(names, 1)

        return ff.mix({name: NAMED[name] for name in names}, weights=weights, until="cycle_all")

    for saved in ([3, 1], None):  # from a schedule, and from fixed weights
        with (
            iter(make(["web", "code"], []))
            if saved is None
            else iter(mixed(["web", "code"], weights=saved)) as iterator
        ):
            given = list(itertools.islice(iterator, 5))
            state = json.loads(json.dumps(iterator.state_dict()))
        steps = []
        with iter(make(["code", "books"], steps).load_state_dict(state, strict=False)) as iterator:
            rest = list(itertools.islice(iterator, 4))
            later = json.loads(json.dumps(iterator.state_dict()))
            rest += itertools.islice(iterator, 3)
        assert steps == [5, 6, 7, 8, 9, 10, 11]
        assert of("code", given + rest) == NAMED["code"][: len(of("code", given + rest))]
        resumed = []
        with iter(make(["code", "books"], resumed).load_state_dict(later)) as iterator:
            assert list(itertools.islice(iterator, 3)) == rest[4:]
        assert resumed == [9, 10, 11]


def test_an_error_in_a_source_can_be_tried_again():
    broken = [True]

    def read(x):
        if x == 3 and broken:
            broken.clear()
            raise OSError("away")
        return x

    for form in (list, streamed):
        broken[:] = [True]
        flow = ff.mix(ff.pipe(form(range(6)), ff.map(read)), form([10, 11, 12, 13]), until="all")
        expected = [0, 10, 1, 11, 2, 12, 3, 13, 4, 5]
        iterator = iter(flow)
        made = list(itertools.islice(iterator, 6))
        with pytest.raises(OSError, match="away"):
            next(iterator)
        with iter(flow.load_state_dict(json.loads(json.dumps(iterator.state_dict())))) as again:
            assert made + list(again) == expected


@pytest.mark.parametrize("tail", [(), (ff.batch(3, collate=None),)], ids=["", "batch"])
@pytest.mark.parametrize("form", [list, streamed])
def test_an_error_downstream_does_not_lose_where_the_others_were(form, tail):
    broken = set()

    def read(x):
        if x in broken:
            broken.clear()
            raise OSError("away")
        return x

    def make(*names):
        return mixed(names, form, (ff.map(read), *tail), until="all")

    with iter(make("web", "code")) as iterator:
        list(itertools.islice(iterator, 2))
        state = iterator.state_dict()
    whole = list(make("books", "web").load_state_dict(state, strict=False))
    iterator = iter(make("books", "web").load_state_dict(state, strict=False))
    made = list(itertools.islice(iterator, 2))
    broken.add(flat(whole)[len(flat(made)) + len(tail)])
    with pytest.raises(OSError, match="away"):
        next(iterator)
    assert made + list(make("books", "web").load_state_dict(json.loads(json.dumps(iterator.state_dict())))) == whole


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize(
    "after", [("code", "books"), ("books", "web", "code"), ("code",), ("web", "maths", "code", "books")], ids="+".join
)
def test_the_randomness_of_a_source_is_its_own(form, after):
    def make(*names):
        order = ff.shuffle if form is list else ff.shuffle_buffer(5)
        inner = {
            name: ff.pipe(
                form(NAMED[name]), order, ff.map(noisy, rng=True), ff.filter(bool) if form is streamed else None
            )
            for name in names
        }
        return ff.pipe(ff.mix(inner, until="forever", weights=[1, 2, 1, 2][: len(inner)]), ff.map(noisy, rng=True))

    def without_last_draw(name, datapoints):
        return [datapoint[:-1] for datapoint in of(name, datapoints)]

    alone = {name: without_last_draw(name, begin(make(name), 40)) for name in after}
    for k in (1, 20):
        with make("web", "code").run(epoch=0) as iterator:
            given = list(itertools.islice(iterator, k))
            state = json.loads(json.dumps(iterator.state_dict()))
        with iter(make(*after).load_state_dict(state, strict=False)) as iterator:
            rest = list(itertools.islice(iterator, 20))
        for name in after:
            whole = without_last_draw(name, given + rest)
            assert whole == alone[name][: len(whole)]
        assert len({datapoint[-1] for datapoint in given + rest}) == len(
            given + rest
        )  # no draw behind the mix is made twice


def test_one_flow_in_two_sources_is_read_alike_in_both():
    flow = ff.pipe(range(9), ff.shuffle())
    made = list(ff.mix({"a": flow, "b": flow}, tag="from"))
    assert [x for x, name in made if name == "a"] == [x for x, name in made if name == "b"]
