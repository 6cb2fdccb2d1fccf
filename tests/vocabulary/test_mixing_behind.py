"""Mixes whose sources and weights change while stages behind them hold some of what they gave: nothing is lost, and
nothing comes twice."""

import contextlib
import itertools
import json
from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixes import calm
from sources import streamed

import flowfn as ff
from flowfn.flows.picks import picks_of, picks_text
from flowfn.flows.schema import sealed
from flowfn.testing import check, same

SIZES = {
    "web": [3, 1, 4, 1, 5, 2, 6, 5, 3, 5] * 3,
    "code": [2, 7, 1, 8, 2, 8] * 2,
    "books": [9, 9, 6] * 3,
    "few": [1, 2],
}
SEQUENCES = {
    name: [np.full(size, 1000 * (place + 1) + number) for number, size in enumerate(sizes)]
    for place, (name, sizes) in enumerate(SIZES.items())
}
"""Each sequence has a number of its own, as often as it is long."""

PACKERS = {"first_fit": partial(ff.first_fit, bins=3), "best_fit": partial(ff.best_fit, bins=5)}
PLANNED = partial(ff.balanced_fit, ranks=2, window=6)
PACKERS |= {"concat_then_split": ff.concat_then_split}


def packed(names, *, form=list, how=ff.first_fit, bins=None, tail=(), before=(), **options):
    """Some of the sources, mixed and packed."""
    how = how if bins is None else partial(how, bins=bins)
    mix = ff.mix({name: form(SEQUENCES[name]) for name in names}, **{"until": "all", **options})
    return ff.pipe(mix, *before, ff.pack(10, how=how), *tail)


def given_of(rows):
    """How many elements of each sequence are in rows."""
    counts = Counter()
    for row in rows:
        counts.update(np.asarray(row[0])[np.asarray(row[1]) > 0].tolist())
    return counts


def whole_of(names):
    return Counter(itertools.chain.from_iterable(sequence.tolist() for name in names for sequence in SEQUENCES[name]))


def saved_after(flow, k):
    """The first k outputs, and the state then."""
    with flow.run() as iterator:
        rows = list(itertools.islice(iterator, k))
        return rows, json.loads(json.dumps(iterator.state_dict()))


def goes_on(flow, state):
    with iter(flow.load_state_dict(state, strict=False)) as iterator:
        return list(iterator)


def same_rows(some, others):
    return len(some) == len(others) and all(
        np.array_equal(a, b) for one, other in zip(some, others) for a, b in zip(one, other)
    )


CHANGES = {
    "reweighted": (("web", "code"), [1, 1], ("web", "code"), [5, 1]),
    "added": (("web", "code"), [1, 2], ("books", "web", "code"), [1, 1, 2]),
    "added in front, by another name order": (("web", "books"), [1, 1], ("code", "few", "books", "web"), [1, 1, 1, 1]),
}


@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("how", PACKERS)
@pytest.mark.parametrize("change", CHANGES)
def test_behind_pack_nothing_is_lost_and_nothing_comes_twice(change, how, form, unit):
    before, old, after, new = CHANGES[change]
    options = {"form": form, "how": PACKERS[how], "unit": unit}
    every = list(packed(before, weights=old, **options))
    changed = 0
    for k in range(0, len(every), 2):
        given, state = saved_after(packed(before, weights=old, **options), k)
        if "over" in state["mix"]:
            with pytest.raises(ValueError, match="the mix had ended when the state was saved"):
                packed(after, weights=new, **options).load_state_dict(state, strict=False)
            continue
        rest = goes_on(packed(after, weights=new, **options), state)
        assert given_of(given) + given_of(rest) == whole_of(after), k
        changed += 1
        assert same_rows(goes_on(packed(before, weights=old, **options), state), every[k:])
    assert changed > 5


# Other stages that hold something


def noisy(sequence, rng):
    return sequence, int(rng.integers(1 << 40))


def numbers_in(outputs):
    """The numbers of the sequences in outputs of whatever form."""
    for output in outputs:
        if isinstance(output, (list, tuple)):
            yield from numbers_in(output)
        elif isinstance(output, np.ndarray) and output.ndim:
            yield from {*output.ravel().tolist()} - {0}


def behind(stage, names, form=list, before=(), **options):
    options = {"until": "all", **options}
    return ff.pipe(ff.mix({name: form(SEQUENCES[name]) for name in names}, **options), *before, *stage)


@ff.stage
def in_pairs(source, *, mark):
    for first in source:
        second = next(source, None)
        yield [first] if second is None else [first, second]
        mark()


@ff.stage
def in_threes(source, *, mark):
    """The last two of each three are read again."""
    three = list(itertools.islice(source, 3))
    while three:
        yield three[:1]
        three = three[1:] + list(itertools.islice(source, 1))
        mark(unused=len(three))


STAGES = {
    "batch_by_length": [ff.batch_by_length(len, boundaries=[2, 5], sizes=[3, 2, 2])],
    "by tokens": [ff.batch_by_length(len, tokens=12)],
    "batch_by_key": [ff.batch_by_key(len, 2, collate=None)],
    "batch_by_key, map, batch": [ff.batch_by_key(len, 2, collate=None), ff.map(list), ff.batch(2, collate=None)],
    "batch and rebatch": [ff.batch(3, collate=ff.pad(0)), ff.map(list), ff.batch_by_key(len, 2, collate=None)],
    "interleave": [ff.interleave(lambda sequence: [sequence] * len(sequence), cycle=3)],
    "take_while": [ff.take_while(lambda sequence: True)],
    "two": [ff.batch_by_key(len, 2, collate=None), ff.batch_by_key(len, 2, collate=None)],
    "of users": [in_pairs()],
    "that go back": [in_threes()],
}


@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("name", STAGES)
def test_behind_other_streams_nothing_is_lost_and_nothing_comes_twice(name, form, unit):
    before, after = ("web", "code"), ("books", "code", "few", "web")
    make = partial(behind, STAGES[name], form=form, unit=unit)
    every, expected, changed = list(make(before)), Counter(numbers_in(make(after))), 0
    for k in range(0, len(every), 2):
        given, state = saved_after(make(before), k)
        if "over" in state["mix"]:
            continue
        rest = goes_on(make(after, weights=[1, 2, 3, 1]), state)
        assert Counter(numbers_in(given)) + Counter(numbers_in(rest)) == expected, k
        changed += 1
    assert changed > 2


WORKERS = [{}, {"threads": 2}, {"processes": 1}, {"processes": 2}]


@pytest.mark.parametrize("workers", WORKERS, ids=str)
@pytest.mark.parametrize("form", [list, streamed])
def test_with_workers_the_same_is_held_and_given(form, workers):
    """What stands between the mix and the packer has its own randomness, and stays what it was."""

    def make(names, prefetched, **options):
        stages = [ff.map(lambda one: one[0]), ff.pack(10, how=partial(ff.first_fit, bins=3)), ff.batch(2)]
        return behind(
            [*stages, ff.prefetch(2, **workers) if prefetched else None],
            names,
            form,
            before=[ff.map(noisy, rng=True)],
            unit=None if form is list else len,
            **options,
        )

    for k in (0, 1, 3, 6):
        given, state = saved_after(make(("web", "code"), True), k)
        plain, again = saved_after(make(("web", "code"), False), k)
        assert same_rows(given, plain)
        assert state["mix"] == again["mix"]
        assert state == again or not k  # before anything was given, a prefetch has not begun
        after = partial(make, ("code", "books", "web"), weights=[1, 3, 1])
        with iter(after(True).load_state_dict(state, strict=False)) as iterator:
            rest = list(itertools.islice(iterator, 1))
            later = json.loads(json.dumps(iterator.state_dict()))
            rest += iterator
        assert same_rows(rest, goes_on(after(False), state))
        assert same_rows(rest[1:], list(after(True).load_state_dict(later)))
        rows = [row for batch in [*given, *rest] for row in zip(*batch)]
        assert given_of(rows) == whole_of(("web", "code", "books"))


@pytest.mark.parametrize("form", [list, streamed])
def test_a_prefetch_between_the_mix_and_the_packer_is_read_again(form):
    def make(names, prefetched=True, **options):
        before = [ff.map(np.negative), ff.prefetch(3) if prefetched else None]
        return packed(names, form=form, bins=3, before=before, **options)

    for k in range(0, 9, 2):
        given, state = saved_after(make(("web", "code")), k)
        rest = goes_on(make(("books", "code", "web"), prefetched=k % 4 == 0, weights=[1, 3, 1]), state)
        assert given_of([*given, *rest]) == {-one: n for one, n in whole_of(("books", "code", "web")).items()}


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
@pytest.mark.parametrize("how", ["first_fit", "concat_then_split"])
def test_sources_may_change_again_and_again(form, unit, how):
    """Also at once, before anything was given, and with what was picked again still held."""
    make = partial(packed, form=form, unit=unit, how=PACKERS[how])
    turns = [
        ("web", "code"),
        ("code", "books", "web"),
        ("web", "few", "books", "code"),
        ("books", "few", "code", "web"),
    ]
    for steps in itertools.product([0, 1, 3], repeat=3):
        given, state = saved_after(make(turns[0]), 1 + steps[0])
        for names, k in zip(turns[1:], [*steps[1:], None]):
            with iter(make(names, weights=range(1, len(names) + 1)).load_state_dict(state, strict=False)) as iterator:
                given += itertools.islice(iterator, k)
                state = json.loads(json.dumps(iterator.state_dict()))
        assert given_of(given) == whole_of(turns[-1]), steps


@settings(max_examples=40, **calm)
@given(
    st.permutations(list(SIZES)),
    st.integers(1, 3),
    st.lists(st.sampled_from([1, 2, 0.3, 7]), min_size=8, max_size=8),
    st.sampled_from(list(PACKERS)),
    st.sampled_from([list, streamed]),
    st.sampled_from([{}, {"unit": len}, {"random": True}, {"temperature": 3}]),
    st.integers(0, 30),
    st.integers(0, 5),
)
def test_whatever_changes_nothing_is_lost_and_nothing_comes_twice(names, n, weights, how, form, options, k, later):
    make = partial(packed, form=form, how=PACKERS[how], **options)
    given, state = saved_after(make(names[:n], weights=weights[:n]), k)
    if not {"picks"} <= set(state.get("mix", ())) or state["epoch"]:
        return
    after = make(names[::-1], weights=weights[: len(names)])
    with iter(after.load_state_dict(state, strict=False)) as iterator:
        assert iterator.position == k
        given += itertools.islice(iterator, later)
        state = json.loads(json.dumps(iterator.state_dict()))
        rest = list(iterator)
    assert given_of([*given, *rest]) == whole_of(names)
    assert same_rows(list(make(names[::-1], weights=weights[: len(names)]).load_state_dict(state)), rest)


# What is refused


@pytest.mark.parametrize("form", [list, streamed])
def test_a_source_of_which_something_may_be_held_cannot_be_left_out(form):
    make = partial(packed, form=form, bins=3)
    _, state = saved_after(make(("web", "code")), 4)
    with pytest.raises(
        ValueError, match=r"may hold datapoints \(at most \d+ of 'code'\) of sources that are not in it"
    ):
        make(("web", "books")).load_state_dict(state, strict=False)


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
def test_a_source_that_is_to_go_is_given_no_weight_and_what_is_held_of_it_still_comes(form, unit):
    make = partial(packed, form=form, bins=3, unit=unit)
    for k in (1, 4, 7):
        given, state = saved_after(make(("web", "code")), k)
        after = make(("code", "web", "books"), weights=ff.phases({0: {"web": 1, "books": 1}}))
        rest = goes_on(after, state)
        taken = given_of([*given, *rest])
        assert {one for one in taken if one // 1000 == 1} == set(whole_of(["web"]))
        code = {one: count for one, count in taken.items() if one // 1000 == 2}
        assert 0 < len(code) < len(SEQUENCES["code"])
        assert all(count == whole_of(["code"])[one] for one, count in code.items())


def test_other_stages_behind_the_mix_are_another_pipeline():
    _, state = saved_after(packed(("web", "code"), bins=3), 4)
    for other in (
        packed(("web", "code", "few"), bins=4),
        packed(("web", "code", "few"), bins=3, before=[ff.map(list)]),
        behind([], ("web", "code", "few")),
    ):
        with pytest.raises(ValueError, match="saved by another pipeline"):
            other.load_state_dict(state, strict=False)
    tail = packed(("web", "code", "few"), bins=3, tail=[ff.map(list), ff.batch(2, collate=None)])
    assert tail.load_state_dict(state, strict=False).state_dict()["position"] == 2


def test_behind_a_stage_that_cannot_be_started_again_sources_stay():
    make = partial(behind, [ff.shuffle_buffer(4)])
    _, state = saved_after(make(("web", "code")), 4)
    assert "mix" not in state
    with pytest.raises(ValueError, match="It cannot be told which datapoints are left"):
        make(("web", "code", "few")).load_state_dict(state, strict=False)


# What is told


@pytest.mark.parametrize("workers", [None, {}, {"threads": 2}, {"processes": 1}], ids=str)
@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
def test_quotas_see_through_streams_and_count_what_the_mix_has_handed_on(form, unit, workers):
    handed = []

    def seen(sequence):
        handed.append(sequence)
        return sequence

    tail = [ff.batch(2), None if workers is None else ff.prefetch(1, **workers)]
    flow = packed(("web", "code"), form=form, bins=3, unit=unit, weights=[2, 1], before=[ff.map(seen)], tail=tail)
    with iter(flow) as iterator:
        assert {name: quota.delivered for name, quota in ff.quotas(iterator).items()} == {"web": 0, "code": 0}
        for _ in range(4):
            next(iterator)
            quotas = ff.quotas(iterator)
            if workers is None:
                for place, name in enumerate(("web", "code")):
                    ours = [one for one in handed if one[0] // 1000 == place + 1]
                    assert quotas[name].delivered == (len(ours) if unit is None else sum(map(len, ours)))
            total = sum(quota.delivered for quota in quotas.values())
            assert quotas["web"].expected == pytest.approx(total * 2 / 3)
            assert abs(quotas["web"].expected - quotas["web"].delivered) <= (1 if unit is None else 8)
        state = json.loads(json.dumps(iterator.state_dict()))
    with iter(flow.load_state_dict(state)) as iterator:
        assert ff.quotas(iterator) == quotas


def test_quotas_see_through_streams_that_cannot_be_started_again():
    for form in (list, streamed):
        with iter(behind([ff.shuffle_buffer(4), ff.batch(2, collate=None)], ("web", "code"), form)) as iterator:
            list(itertools.islice(iterator, 3))
            assert {name: quota.delivered for name, quota in ff.quotas(iterator).items()} == {"web": 5, "code": 5}


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
def test_the_state_stays_below_two_kilobytes(form, unit):
    lengths = np.random.default_rng(0).lognormal(5.6, 0.8, 6000).clip(8, 2048).astype(int)  # some 380 tokens
    texts = [np.zeros(length, np.int32) for length in lengths.tolist()]
    parts = {"web": texts[:3000], "code": texts[3000:5000], "books": texts[5000:]}

    def make(names, weights):
        mix = ff.mix({name: form(parts[name]) for name in names}, weights=weights, unit=unit, until="forever")
        return ff.pipe(mix, ff.pack(2048), ff.batch(8))

    for k in (1, 50, 200):
        _, state = saved_after(make(("web", "code"), [7, 3]), k)
        assert len(json.dumps(state)) < 2000
        with iter(make(("web", "code", "books"), [7, 2, 1]).load_state_dict(state, strict=False)) as iterator:
            for _ in range(20):
                next(iterator)
                assert len(json.dumps(iterator.state_dict())) < 2000


@pytest.mark.parametrize(("options", "most"), [({}, 1200), ({"unit": len}, 2000), ({"random": True}, 2000)], ids=str)
def test_the_state_of_a_mix_before_a_wide_window_stays_small(options, most):
    """The picks of all that it may hold are in it."""
    lengths = np.random.default_rng(0).lognormal(5.6, 0.8, 9000).clip(8, 2048).astype(int)
    texts = [np.zeros(length, np.int32) for length in lengths.tolist()]
    sources = {"web": texts[:6000], "code": texts[6000:8000], "books": texts[8000:]}
    mix = ff.mix(sources, weights=[7, 2, 1], until="forever", **options)
    with iter(ff.pipe(mix, ff.batch_by_cost(np.square, ranks=1, tokens=16384, window=4096, collate=None))) as iterator:
        sizes = [len(json.dumps(iterator.state_dict())) for _ in itertools.islice(iterator, 120)]
    assert max(sizes) < most


@pytest.mark.parametrize("begun", [0, 130])
@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("options", [{"unit": len}, {"random": True}], ids=str)
def test_the_state_of_a_mix_that_has_changed_holds_its_picks_once(form, options, begun):
    """Before a wide window, in which many are made again, and wherever one goes on from there."""
    lengths = np.random.default_rng(0).lognormal(5.6, 0.8, 9000).clip(8, 2048).astype(int)
    texts = [np.full(length, number) for number, length in enumerate(lengths.tolist())]
    parts = {"web": texts[:3000], "code": texts[3000:6000], "books": texts[6000:]}

    def make(names, weights):
        mix = ff.mix({name: form(parts[name]) for name in names}, weights=weights, until="forever", **options)
        return ff.pipe(mix, ff.batch_by_cost(np.square, ranks=1, tokens=16384, window=2048, collate=None))

    _, state = saved_after(make(("web", "code"), [1, 1]), begun)
    after, given = make(("books", "code", "web"), [1, 1, 1]), []
    expected = list(itertools.islice(after.load_state_dict(state, strict=False), 100))
    for k in (1, 24, 25, 30, 20):
        with iter(after.load_state_dict(state, strict=False)) as iterator:
            given += itertools.islice(iterator, k)
            state = json.loads(json.dumps(iterator.state_dict()))
        assert len(json.dumps(state["anchors"])) < 350
        assert len(json.dumps(state)) < 2000
    assert len(given) == 100
    assert all(map(same, given, expected))


@pytest.mark.parametrize("sources", [1, 2, 3, 5, 16, 257])
def test_picks_are_written_down_exactly(sources):
    rng = np.random.default_rng(sources)
    for count in (0, 1, 7, 4096):
        picks = rng.integers(sources, size=count).tolist()
        assert picks_of(picks_text(picks, sources), sources) == picks
        assert picks_of(picks_text(picks, sources).replace(f"{count}:", f"{count + 8}:"), sources) is None


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
def test_a_resume_reads_again_only_what_was_held(form, unit):
    read = []

    def make():
        sources = {
            name: ff.map(lambda one: read.append(one) or one, form([np.ones(1 + n % 7)] * 5000))
            for n, name in enumerate(("web", "code"), 3)
        }
        return ff.pipe(ff.mix(sources, unit=unit), ff.pack(10, how=partial(ff.first_fit, bins=3)))

    with make().run() as iterator:
        list(itertools.islice(iterator, 1000))
        state = iterator.state_dict()
    read.clear()
    with iter(make().load_state_dict(state)) as iterator:
        next(iterator)
    assert len(read) < 20 or form is streamed  # a generator has to be read to get anywhere


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
def test_an_error_behind_a_mix_that_went_on_loses_nothing(form, unit):
    broken = set()

    def length(sequence):
        if int(sequence[0]) in broken:
            broken.clear()
            raise OSError("away")
        return len(sequence)

    make = partial(behind, [ff.batch_by_length(length, boundaries=[2, 5], sizes=[3, 2, 2])], form=form, unit=unit)
    _, state = saved_after(make(("web", "code")), 3)
    after = make(("books", "web", "code"))
    whole = goes_on(after, state)
    for number in (1013, 2005, 3004):
        broken.add(number)
        iterator, made = iter(after.load_state_dict(state, strict=False)), []
        with pytest.raises(OSError, match="away"):
            made.extend(iterator)
        rest = list(after.load_state_dict(json.loads(json.dumps(iterator.state_dict()))))
        assert [one.tolist() for one in rest] == [one.tolist() for one in whole[len(whole) - len(rest) :]]
        assert iterator.position + len(rest) == 3 + len(whole)


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("until", ["forever", "first"])
def test_rounds_and_ends_go_on_behind_a_packer(form, until):
    make = partial(packed, form=form, bins=3, until=until)
    for k in (2, 9, 14):
        given, state = saved_after(make(("web", "code")), k)
        if state["epoch"] or "over" in state["mix"]:
            continue
        with iter(make(("code", "books", "web"), weights=[1, 2, 4]).load_state_dict(state, strict=False)) as iterator:
            rest = list(itertools.islice(iterator, 60))
        taken = given_of([*given, *rest])
        for place, name in enumerate(SIZES):
            times = [taken[1000 * (place + 1) + n] / size for n, size in enumerate(SIZES[name])]
            window = 8 if until == "forever" else 0  # of which some are still held
            assert all(time == int(time) for time in times)
            assert sum(a < b for a, b in itertools.pairwise(times)) <= window, (k, name, times)


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
def test_a_state_that_was_loaded_says_the_same_before_anything_is_read(form, unit):
    """Also before the packer has begun anew for the first time."""
    for names, how in itertools.product([("web",), ("web", "code")], PACKERS):
        make = partial(packed, names, form=form, how=PACKERS[how], unit=unit)
        for k in range(6):
            _, state = saved_after(make(), k)
            flow = make().load_state_dict(state)
            assert flow.state_dict() == state
            with iter(flow) as iterator:
                assert json.loads(json.dumps(iterator.state_dict())) == state


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 1}, {"processes": 2}], ids=str)
@pytest.mark.parametrize(("form", "unit"), [(list, None), (streamed, None), (streamed, len)])
def test_the_laws_hold_behind_packers(form, unit, workers):
    def make():
        mix = packed(("web", "code"), form=form, unit=unit, bins=3, before=[ff.map(np.negative)], epochs={"code": 2})
        return ff.pipe(mix, ff.map(list), ff.batch(2, collate=None))

    check(make, workers=(workers,), stops=5, epochs=(1,))


@pytest.mark.parametrize("picks", ["1:8", "2:00", "x", "3:%", 7, None, "-1:", "99999:"], ids=str)
@pytest.mark.parametrize("form", [list, streamed])
def test_picks_that_cannot_be_are_refused(form, picks):
    _, state = saved_after(packed(("web", "code"), form=form, bins=3), 2)
    state["mix"]["picks"] = picks
    with pytest.raises(ValueError, match=r"load_state_dict\(\): (mix|anchors\['2'\]) must be"):
        packed(("code", "web"), form=form, bins=3).load_state_dict(sealed(state), strict=False)


def test_anchors_that_do_not_add_up_are_refused():
    make = partial(packed, form=streamed, bins=3)
    _, state = saved_after(make(("web", "code")), 3)
    with iter(make(("code", "books", "web")).load_state_dict(state, strict=False)) as iterator:
        next(iterator)
        later = json.loads(json.dumps(iterator.state_dict()))
    ((place, anchor),) = [(key, one) for key, one in later["anchors"].items() if len(one[2]) > 20]
    for at, value in ((0, 99), (2, 99), (20, 99), (22, 99), (40, "9:xx"), (41, 9), (43, 9)):
        row = [*anchor[2][:at], value, *anchor[2][at + 1 :]]
        forged = sealed({**later, "anchors": {**later["anchors"], place: [anchor[0], anchor[1], row]}})
        with pytest.raises(ValueError, match=rf"load_state_dict\(\): anchors\['{place}'\] must be"):
            make(("code", "books", "web")).load_state_dict(forged)


# On several ranks


def on_ranks(world, names, *, batch=2, state=None, **options):
    """What each rank of a world gives, and its last state, up to the end or for a few steps."""
    steps, every = options.pop("steps", None), []
    for rank in range(world):
        tail = [ff.shard(rank, world, remainder="keep"), ff.batch(batch, collate=None)]
        flow = packed(names, tail=tail, **options)
        if state is not None:
            flow.load_state_dict(state, strict=False)
        with iter(flow) as iterator:
            batches = list(itertools.islice(iterator, steps))
            every.append(([row for one in batches for row in one], iterator.state_dict(), ff.quotas(iterator)))
    return every


@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("how", PACKERS)
def test_on_ranks_the_mix_changes_at_the_same_place_and_their_number_may_too(how, form, unit):
    options = {"form": form, "how": PACKERS[how], "unit": unit}
    for steps in (1, 2):
        before = on_ranks(2, ("web", "code"), steps=steps, weights=[1, 2], **options)
        given = [row for rows, *_ in before for row in rows]
        state = json.loads(json.dumps(before[-1][1]))
        for world, batch in ((2, 2), (1, 4), (4, 1)):
            names = ("books", "web", "code")
            after = on_ranks(world, names, batch=batch, state=state, weights=[1, 1, 2], **options)
            assert given_of([*given, *(row for rows, *_ in after for row in rows)]) == whole_of(names), (steps, world)
        with pytest.raises(ValueError, match=r"of rank 0 of 2, .*; load the state of rank 1 on every rank"):
            on_ranks(2, ("books", "web", "code"), state=before[0][1], weights=[1, 1, 2], **options)


@pytest.mark.parametrize("form", [list, streamed])
def test_quotas_on_ranks_are_of_all_of_them(form):
    first, last = (quotas for *_, quotas in on_ranks(2, ("web", "code"), steps=2, form=form, unit=len, bins=3))
    assert sum(one.delivered for one in last.values()) >= 4 * 2 * 8
    assert sum(one.delivered for one in first.values()) <= sum(one.delivered for one in last.values())


@pytest.mark.parametrize("form", [list, streamed])
def test_on_ranks_a_mix_without_anything_behind_it_changes_too(form):
    def ranks(names, state=None, steps=None):
        every = []
        for rank in range(2):
            mix = ff.mix({name: form(list(SIZES[name])) for name in names}, until="all", tag="from")
            flow = ff.pipe(mix, ff.shard(rank, 2, remainder="keep"), ff.batch(2, collate=None))
            with iter(flow if state is None else flow.load_state_dict(state, strict=False)) as iterator:
                every.append((list(itertools.islice(iterator, steps)), iterator.state_dict()))
        return every

    before = ranks(("web", "code"), steps=3)
    after = ranks(("web", "code", "few"), before[1][1])
    given = Counter(pair for rows, _ in (*before, *after) for one in rows for pair in one)
    assert given == Counter((size, name) for name in ("web", "code", "few") for size in SIZES[name])


def test_a_state_saved_on_more_ranks_before_their_first_step_changes_the_mix():
    def planned(weight, rank=0, world=1):
        mix = ff.mix({"web": SEQUENCES["web"], "code": SEQUENCES["code"]}, weights=[1, weight], unit=len, until="all")
        plan = ff.batch_by_cost(np.square, mix, ranks=2, size=4, collate=None)
        return ff.pipe(plan, ff.shard(rank, world))

    def given(flow, steps=None):
        with iter(flow) as iterator:
            rows = [*itertools.islice(iterator, steps)]
            return {int(one[0]) for row in rows for one in row}, iterator.state_dict()

    before, state = given(planned(1), 3)  # of a plan for two ranks, which a third reads behind
    _, state = given(planned(2, 2, 3).load_state_dict(state, strict=False), 0)
    after, _ = given(planned(3).load_state_dict(state, strict=False))
    assert before | after == {int(one[0]) for name in ("web", "code") for one in SEQUENCES[name]}


def changed(names, tail, unit=None, times=1):
    """A mix of some of the sources by streams, behind which there are stages and a shard that has begun nowhere yet."""
    sources = {name: streamed(SEQUENCES[name] * times) for name in names}
    mix = ff.mix(sources, weights=list(range(1, len(names) + 1)), unit=unit)
    return ff.pipe(mix, *tail, ff.shard(0, 1))


@pytest.mark.parametrize("unit", [None, len], ids=["counted", "in tokens"])
@pytest.mark.parametrize(
    "tail",
    [[], [ff.batch(3, collate=None)], [ff.pack(10, how=PACKERS["first_fit"])], [ff.pack(10, how=PLANNED)]],
    ids=["shard", "batch", "pack", "pack for ranks"],
)
def test_a_changed_mix_may_be_saved_before_it_has_given_anything(tail, unit):
    _, state = saved_after(changed(["web", "code"], tail, unit), 4)
    rest = list(changed(["code", "web", "few"], tail, unit).load_state_dict(state, strict=False))
    for taken in (0, 0, 1):
        iterator = iter(changed(["code", "web", "few"], tail, unit).load_state_dict(state, strict=False))
        assert same(rest[:taken], list(itertools.islice(iterator, taken)))
        state, rest = json.loads(json.dumps(iterator.state_dict())), rest[taken:]
        flow = changed(["code", "web", "few"], tail, unit).load_state_dict(state)
        assert same(rest, list(flow))
    assert rest


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("stage", ["batch_by_length", "batch_by_cost"])
def test_a_changed_mix_may_be_saved_on_ranks_before_its_end_is_seen(stage, form):
    """After the last output a shard has nothing to look up in what was given before the change."""
    by_length = ff.batch_by_length(len, boundaries=[2, 5], sizes=[3, 2, 2])
    by_cost = ff.batch_by_cost(np.square, ranks=2, tokens=20, window=6, collate=None)

    def make(names, remainder="keep"):
        mix = ff.mix({name: form(SEQUENCES[name]) for name in names}, weights=list(range(1, len(names) + 1)))
        return ff.pipe(mix, by_length if stage == "batch_by_length" else by_cost, ff.shard(1, 2, remainder=remainder))

    def later(remainder, taken):
        with iter(make(after, remainder).load_state_dict(saved[remainder], strict=False)) as iterator:
            return list(itertools.islice(iterator, taken)), json.loads(json.dumps(iterator.state_dict()))

    after = ["code", "web", "few"]
    saved = {remainder: saved_after(make(["web", "code"], remainder), 2)[1] for remainder in ("keep", "drop", "pad")}
    whole = goes_on(make(after), saved["keep"])
    for remainder, taken in itertools.product(saved, range(len(whole) + 1)):
        given, state = later(remainder, taken)
        short = remainder == "pad" and stage == "batch_by_length"
        with pytest.raises(ValueError, match="given before its sources") if short else contextlib.nullcontext():
            assert same(whole, [*given, *goes_on(make(after, remainder), state)])


def test_what_was_given_before_a_mix_changed_is_for_the_flow_that_gave_it_to_say():
    tail, names = [ff.pack(10, how=PACKERS["first_fit"])], ["code", "web", "few"]
    _, state = saved_after(changed(["web", "code"], tail, times=4), 20)
    flow = changed(names, tail, times=4).load_state_dict(state, strict=False)
    with pytest.raises(ValueError, match="was given before its sources or weights became what they are"):
        ff.origins(flow, 0)
    origins = ff.origins(flow, 20)
    with iter(flow) as iterator:
        assert origins == ff.origins(changed(names, tail, times=4), 20, state=iterator)
        numbers = {int(number) for number in next(iterator)[0]} - {0}
    sizes = {name: len(sequences) for name, sequences in SEQUENCES.items()}
    assert numbers == {int(SEQUENCES[one.source][one.index % sizes[one.source]][0]) for one in origins}


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("unit", [None, "tokens"], ids=["counted", "in tokens"])
def test_the_name_of_a_source_goes_through_a_packer(form, unit):
    def make(names, **options):
        rows = {name: form([{"tokens": one} for one in SEQUENCES[name]]) for name in names}
        mix = ff.mix(rows, unit=unit, tag="from", until="all", **options)
        return ff.pipe(mix, ff.pack(10, how=partial(ff.first_fit, bins=3), keep="from"))

    def elements(row, segment=None):
        inside = row["segment_ids"] > 0 if segment is None else row["segment_ids"] == segment
        return row["tokens"][inside].tolist()

    given, state = saved_after(make(("web", "code")), 4)
    rows = given + goes_on(make(("books", "code", "web"), weights=[1, 2, 1]), state)
    for row in rows:
        for segment, name in enumerate(row["from"], 1):
            assert {one // 1000 for one in elements(row, segment)} == {[*SIZES].index(name) + 1}
    assert Counter(itertools.chain.from_iterable(map(elements, rows))) == whole_of(("web", "code", "books"))


def test_a_changed_mix_that_is_over_and_begins_to_give_the_rest_again_tells_what_had_been_picked():
    """Its own state holds no picks any more, since nothing is left to be picked."""
    sizes = {"some": [7, 7, 7, 3, 12, 7, 7, 12, 3, 2], "few": [2, 3, 1, 2, 7]}

    def make(weights):
        sources = {name: ff.pipe([np.full(size, size) for size in sizes[name]], ff.shuffle()) for name in sizes}
        mix = ff.mix(sources, weights=weights, until="all", unit=len)
        return ff.pipe(mix, ff.pack(16, how=partial(ff.balanced_fit, ranks=2, window=8)), ff.batch(3))

    def saved_at(state, strict, k):
        with iter(make([1, 2]).load_state_dict(state, strict=strict)) as iterator:
            return [*itertools.islice(iterator, k)], json.loads(json.dumps(iterator.state_dict())), [*iterator]

    _, state = saved_after(make([1, 1]), 1)
    _, over, rest = saved_at(state, False, 1)
    _, again, _ = saved_at(over, True, 0)
    assert again["mix"]["steps"] == over["mix"]["steps"] == sum(map(len, sizes.values()))
    assert over["mix"]["over"]
    assert all(map(same, saved_at(again, True, 9)[0], rest))
