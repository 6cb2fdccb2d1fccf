"""Functions that change their datapoint in place are found and named;
changes that reach nobody else are nobody's business."""

import array
import collections
import dataclasses
import functools
import importlib.util
import io
import itertools
import json
import operator
import queue
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import flowfn as ff
from flowfn.image import augment
from flowfn.seeing.watching import InputChanged
from flowfn.testing import LawBroken, check, outputs, same

pytestmark = pytest.mark.timeout(120)


def arrays(count=4):
    return [np.full(2, 8.0 + number) for number in range(count)]


def halve(x, *_):
    x /= 2
    return x


def positive(x, *_):
    return bool((halve(x) > 0).all())


def halved(x):
    yield halve(x)


def first_halved(items):
    halve(items[0])
    return np.stack(items)


def half_of_each(items):
    return np.stack([halve(x) for x in items])


def halved_with(state, x):
    return state, halve(x)


def half_sum(x):
    return float(halve(x).sum())


def as_floats(items):
    return list(map(float, items))


class Halver:
    def halve(self, x):
        return halve(x)

    __call__ = halve


def held(x):
    return [x, "name"]


def negative(x):
    return not positive(x)


def half_length(x):
    return len(halve(x))


def failing(x):
    raise LookupError(x)


def noisy(x, rng):
    return x + rng.random(2)


def drawn(x, rng):
    return [*x, rng.random()]


def odd(x):
    return x[0] % 2 == 1


def two_of(x):
    return [x, x]


def unusual(number):
    return Unusual(number)


def ones(number):
    return np.ones(2)


def fill(x):
    x[... if x.dtype.names is None else x.dtype.names[0]] = 0
    return x


def looked_at(x):
    return len(repr(x)) + len(str(x))


def from_queue(items):
    made = queue.SimpleQueue()
    for item in [*items, None]:
        made.put(item)
    return ff.from_queue(made)


@dataclasses.dataclass
class Record:
    value: list


class Plain:
    def __init__(self, value):
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Unusual(Plain):
    """What is kept in a cache as it is."""

    def __itruediv__(self, number):
        self.value = self.value / number - 1
        return self


class Fresh:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.full(2, float(index))


class Foreign:
    """A DataFlow."""

    def __init__(self):
        self.data, self.resets, self.passes = arrays(), 0, 0

    def reset_state(self):
        self.resets += 1

    def __iter__(self):
        self.passes += 1
        return iter(self.data)


@ff.stage.each
def halving(source):
    for x in source:
        yield halve(x)


@ff.stage.each
def halving_late(source):
    for x in source:
        yield float(x[0])
        x /= 2


@ff.stage.each
def halving_the_one_before(source):
    one, other = itertools.tee(source)
    next(other, None)
    for x, _ in itertools.zip_longest(one, other):
        yield halve(x)


@ff.stage.group(size=2)
def pairs(source):
    for items in source:
        yield half_of_each(items)


@ff.stage.expand
def twice(source):
    for x in source:
        yield float(x[0])
        yield halve(x)


@ff.stage.stream
def delayed(source):
    last = None
    for x in source:
        if last is not None:
            yield halve(last)
        last = x
    yield halve(last)


def in_a_stream(source):
    for x in source:
        yield halve(x)


@ff.stage.stream
def all_in_the_end(source):
    items = list(source)
    for x in items:
        halve(x)
    yield from [len(items)] * bool(items)


@ff.stage.each
def differences(source):
    last = 0.0
    for x in source:
        x -= last
        last = float(x[0])
        yield x


@ff.stage.group(size="size", step="step")
def emptied(size, step, source):
    for items in source:
        group = list(items)
        items.clear()
        yield group


EDITING = {
    "map": (ff.map(halve), "map(halve)"),
    "map, with rng": (ff.map(halve, rng=True), "map(halve, rng=True)"),
    "map of a partial": (ff.map(functools.partial(halve)), "map(partial(halve))"),
    "map of seeded": (ff.map(ff.seeded(halve), rng=True), "map(seeded(halve), rng=True)"),
    "map of a method": (ff.map(Halver().halve), "map(halve)"),
    "map of an object": (ff.map(Halver()), "map(<"),
    "map_component": (ff.compose(ff.map(held), ff.map_component(halve, 0)), "map_component(halve, 0)"),
    "filter": (ff.filter(positive), "filter(positive)"),
    "filter, with rng": (ff.filter(positive, rng=True), "filter(positive, rng=True)"),
    "filter that drops all": (ff.filter(negative), "filter(negative)"),
    "filter_map": (ff.filter_map(halve), "filter_map(halve)"),
    "flat_map of a generator": (ff.flat_map(halved), "flat_map(halved)"),
    "flat_map": (ff.flat_map(halve), "flat_map(halve)"),
    "tap": (ff.tap(halve), "tap(halve)"),
    "tap of some": (ff.tap(halve, first=3), "tap(halve, first=3)"),
    "scan": (ff.scan(halved_with, 0), "scan(halved_with, 0)"),
    "take_while": (ff.take_while(positive), "take_while(positive)"),
    "unique": (ff.unique(key=half_sum), "unique(key=half_sum)"),
    "interleave": (ff.interleave(halve, cycle=2), "interleave(halve"),
    "batch": (ff.batch(2, collate=half_of_each), "batch(2, collate=half_of_each)"),
    "batch, by component": (
        ff.compose(ff.map(held), ff.batch(2, collate={0: half_of_each, 1: ff.as_list})),
        "batch(2, collate={0: half_of_each, 1: as_list})",
    ),
    "batch, its first": (ff.batch(3, collate=first_halved), "batch(3, collate=first_halved)"),
    "window": (ff.window(2, collate=half_of_each), "window(2, collate=half_of_each)"),
    "batch_by_key": (ff.batch_by_key(len, 2, collate=half_of_each), "batch_by_key(len, 2"),
    "batch_by_key, what is left": (ff.batch_by_key(len, 3, collate=half_of_each), "batch_by_key(len, 3"),
    "batch_by_key, its key": (ff.batch_by_key(half_sum, 2), "batch_by_key(half_sum, 2)"),
    "batch_by_length": (ff.batch_by_length(len, tokens=4, collate=half_of_each), "batch_by_length(len"),
    "batch_by_length, its length": (ff.batch_by_length(half_length, tokens=4), "batch_by_length(half_length"),
    "collate": (ff.compose(ff.batch(2, collate=None), ff.collate(half_of_each)), "collate(half_of_each)"),
    "inside": (ff.compose(ff.batch(2, collate=None), ff.inside(ff.map(halve))), "inside(map(halve))"),
    "guard": (ff.guard(ff.map(halve)), "guard(map(halve))"),
    "guard that drops": (ff.guard(ff.map(halve), then="drop"), "guard(map(halve), then='drop')"),
    "guard of batches": (ff.guard(ff.batch(2, collate=half_of_each)), "guard(batch(2"),
    "guard that replaces": (ff.guard(ff.map(failing), then=lambda x, error: halve(x)), "guard(map(failing)"),
    "augment": (ff.compose(ff.map(np.atleast_2d), augment([halve])), "augment([map_image(halve)])"),
    "a stage of each": (halving(), "halving()"),
    "a stage of each, behind its output": (halving_late(), "halving_late()"),
    "a stage of each that reads ahead": (halving_the_one_before(), "halving_the_one_before()"),
    "a stage of group": (pairs(), "pairs()"),
    "a stage of expand": (twice(), "twice()"),
    "a stage of stream": (delayed(), "delayed()"),
    "a stage of stream, in the end": (all_in_the_end(), "all_in_the_end()"),
    "a function of the stream": (in_a_stream, "in_a_stream"),
    "a stage of two sources": (differences(), "differences()"),
}
"""Stages that change their datapoints in place, and how they are named."""

UPSTREAM = {
    "a list": lambda: ff.flow(arrays()),
    "a list, shuffled": lambda: ff.pipe(arrays(), ff.shuffle()),
    "a part of a list": lambda: ff.pipe(arrays(), ff.shuffle(), ff.skip(1), ff.take(2)),
    "a shard of a list": lambda: ff.pipe(arrays(), ff.shard(1, 2)),
    "a list, frozen": lambda: ff.pipe(arrays(), ff.shuffle(), ff.freeze()),
    "a list, twice": lambda: ff.pipe(arrays(), ff.repeat(2)),
    "a list, each twice": lambda: ff.pipe(arrays(), ff.repeat_each(2)),
    "lists, one after the other": lambda: ff.concat(arrays(), arrays()),
    "lists, mixed": lambda: ff.mix(arrays(), arrays(), weights=[1, 2]),
    "a list, as a stream": lambda: ff.pipe(arrays(), ff.filter(len)),
    "a list, through a buffer": lambda: ff.pipe(arrays(), ff.shuffle_buffer(3, reuse=2)),
    "a list, as lists and back": lambda: ff.pipe(arrays(), ff.batch(2, collate=None), ff.flat_map(iter)),
    "a list, interleaved": lambda: ff.pipe([arrays(), arrays()], ff.interleave(iter, cycle=2)),
    "a list, as batches' rows": lambda: ff.pipe([np.ones((2, 2)), np.ones((1, 2))], ff.unbatch()),
    "a tuple": lambda: ff.flow(tuple(arrays())),
    "an iterable": lambda: ff.flow(dict(enumerate(arrays())).values()),
    "a function that returns a list": lambda: ff.flow(functools.partial(tuple, tuple(arrays()))),
    "a variable": lambda: ff.pipe(range(4), ff.map(arrays().__getitem__)),
    "copies that are given twice": lambda: ff.pipe(arrays(), ff.map(np.copy), ff.flat_map(two_of)),
    "copies, through a buffer": lambda: ff.pipe(arrays(), ff.map(np.copy), ff.shuffle_buffer(3, reuse=2)),
    "copies in two windows": lambda: ff.pipe(arrays(), ff.map(np.copy), ff.window(2, collate=None), ff.flat_map(iter)),
    "a cache": lambda: ff.pipe(range(4), ff.map(unusual), ff.cache()),
    "a prefetch": lambda: ff.pipe(arrays(), ff.prefetch(2, processes=2)),
}
"""Where datapoints come from that somebody else has too."""


@pytest.mark.parametrize("stream", [False, True], ids=["by index", "as a stream"])
@pytest.mark.parametrize(("stage", "named"), EDITING.values(), ids=EDITING)
def test_a_stage_that_changes_its_datapoint_in_place_is_found_and_named(stage, named, stream):
    with pytest.raises(
        InputChanged, match=re.escape(named) + r".* changes its datapoint in place \(datapoint \d: .*copy"
    ):
        list(ff.pipe(arrays(), ff.filter(len) if stream else None, stage, ff.check_inputs()))


@pytest.mark.parametrize("make", UPSTREAM.values(), ids=UPSTREAM)
def test_wherever_a_datapoint_comes_from_that_others_hold_too(make):
    with pytest.raises(InputChanged, match=r"map\(halve\) changes its datapoint in place"):
        list(ff.pipe(make(), ff.map(halve), ff.check_inputs()))


@pytest.mark.parametrize("stream", [False, True], ids=["by index", "as a stream"])
@pytest.mark.parametrize("stage", [stage for stage, _ in EDITING.values()], ids=EDITING)
def test_what_was_made_for_a_stage_is_its_own(stage, stream):
    def make(last=None):
        return ff.pipe(arrays(), ff.filter(len) if stream else None, ff.map(np.copy), stage, last)

    assert same(outputs(make(ff.check_inputs())), outputs(make()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ff.flow(lambda: map(np.copy, arrays())),
        lambda: ff.flow(lambda rng: (rng.random(2) for _ in range(4))),
        lambda: ff.flow(iter(arrays())),
        lambda: ff.flow(Fresh()),
        lambda: ff.fake((2,), 4),
        lambda: ff.pipe(arrays(), ff.map(noisy, rng=True)),
        lambda: ff.pipe(np.ones((8, 2)), ff.batch(2)),
        lambda: ff.pipe(arrays(8), ff.batch(2)),
        lambda: ff.pipe(arrays(), ff.map(noisy, rng=True), ff.shuffle(), ff.repeat(2), ff.repeat_each(2)),
        lambda: ff.pipe(arrays(), ff.filter(len), ff.map(np.copy), ff.shuffle_buffer(2), ff.repeat(2)),
        lambda: from_queue(arrays()),
    ],
)
def test_fresh_datapoints_may_be_changed(make):
    assert len(list(ff.pipe(make(), ff.map(halve), ff.check_inputs()))) >= 4


DATA = {
    "list": (lambda: [1.0], lambda x: x.append(2)),
    "dict": (lambda: {"a": 1}, lambda x: x.update(a=2)),
    "key of a dict": (lambda: {"a": 1}, lambda x: x.pop("a")),
    "nested": (lambda: {"a": [({"b": [1]},)]}, lambda x: x["a"][0][0]["b"].append(3)),
    "component": (lambda: [np.ones(2), "name"], lambda x: halve(x[0])),
    "order": (lambda: [2, 1], lambda x: x.sort()),
    "set": (lambda: {1}, lambda x: x.add(2)),
    "deque": (lambda: collections.deque([1]), lambda x: x.append(2)),
    "Counter": (lambda: collections.Counter("a"), lambda x: x.update("a")),
    "OrderedDict": (lambda: collections.OrderedDict(a=1, b=2), lambda x: x.move_to_end("a")),
    "bytearray": (lambda: bytearray(b"ab"), lambda x: x.extend(b"c")),
    "memoryview": (lambda: memoryview(bytearray(b"ab")), lambda x: x.__setitem__(0, 0)),
    "array.array": (lambda: array.array("d", [1]), lambda x: x.append(2)),
    "array": (lambda: np.ones(2), halve),
    "array, its shape": (lambda: np.ones((2, 1)), lambda x: x.resize((1, 2), refcheck=False)),
    "array of objects": (lambda: np.array([[1], None], dtype=object), lambda x: x[0].append(1)),
    "structured array": (lambda: np.zeros(1, [("a", "f4"), ("b", "i4")]), lambda x: x.__setitem__("b", 1)),
    "row of a structured array": (lambda: np.zeros(1, [("a", "f4"), ("b", "i4")])[0], lambda x: x.__setitem__("b", 1)),
    "masked array": (lambda: np.ma.masked_array([1.0, 2.0], [0, 1]), lambda x: x.mask.__setitem__(0, True)),
    "object": (lambda: Plain(1), lambda x: setattr(x, "value", 5)),
    "object with slots": (lambda: Slotted(1), lambda x: setattr(x, "value", 5)),
    "dataclass": (lambda: Record([1]), lambda x: x.value.append(5)),
    "iterator": (lambda: iter([1, 2]), next),
    "file in memory": (lambda: io.BytesIO(b"ab"), lambda x: x.read(1)),
    "Series": (lambda: pd.Series({"a": 1.0}), lambda x: x.__setitem__("a", 2.0)),
    "DataFrame": (lambda: pd.DataFrame({"a": [1.0]}), lambda x: x.__setitem__("b", 2.0)),
    "image": (lambda: Image.new("L", (2, 2)), lambda x: x.putpixel((0, 0), 7)),
}


def tensors():
    import torch

    return {
        "tensor": (lambda: torch.ones(2), lambda x: x.add_(1)),
        "tensor of bfloat16": (lambda: torch.ones(2, dtype=torch.bfloat16), lambda x: x.add_(1)),
        "sparse tensor": (lambda: torch.eye(2).to_sparse(), lambda x: x.mul_(2)),
        "tensor in a dict": (lambda: {"x": [torch.tensor(1.0)]}, lambda x: x["x"][0].zero_()),
        "parameter": (lambda: torch.nn.Parameter(torch.ones(2)), lambda x: x.data.mul_(2)),
    }


if importlib.util.find_spec("torch"):  # it is no library of this project; where it is there, it counts
    DATA |= dict.fromkeys(["tensor", "tensor of bfloat16", "sparse tensor", "tensor in a dict", "parameter"])


@pytest.mark.parametrize("kind", DATA)
def test_whatever_a_datapoint_is(kind):
    make, edit = DATA[kind] or tensors()[kind]

    def changed(x):
        edit(x)
        return x

    datapoint = make()
    assert len(list(ff.pipe([datapoint], ff.map(looked_at), ff.check_inputs()))) == 1
    assert len(list(ff.pipe([None], ff.map(lambda _: make()), ff.map(changed), ff.check_inputs()))) == 1
    with pytest.raises(
        InputChanged, match=r"^map\(changed\) changes its datapoint in place \(datapoint 0: .*\), and others"
    ):
        list(ff.pipe([datapoint], ff.map(changed), ff.check_inputs()))


def test_a_change_that_comes_to_the_same_every_time_is_found_too():
    with pytest.raises(InputChanged, match="map"):
        list(ff.pipe([np.ones(2)], ff.map(lambda x: x.fill(0) or x), ff.check_inputs()))


def test_the_first_stage_that_does_so_is_named_and_the_datapoint():
    data = arrays()
    flow = ff.pipe(
        data, ff.shuffle(), ff.map(lambda x: halve(x) if x[0] == 10 else x), ff.map(np.copy), ff.map(halve), ff.batch(2)
    )
    with pytest.raises(InputChanged, match=r"map\(<lambda>\) .* \(datapoint \d: float64 array \(2,\)\)") as raised:
        list(ff.check_inputs(flow))
    number = int(re.search(r"datapoint (\d)", str(raised.value))[1])
    assert f"in map(<lambda>), its datapoint {number}, seed 0, epoch 0" in raised.value.__notes__[0]
    assert ff.pipe(arrays(), ff.shuffle())[number][0] == 10


def test_who_reads_the_flow_is_watched_too():
    def halve_all(flow):
        return [halve(x) for x in flow]

    with pytest.raises(InputChanged, match="who reads this flow changes its datapoint in place"):
        halve_all(ff.check_inputs(arrays()))
    assert len(halve_all(ff.pipe(arrays(), ff.map(np.copy), ff.check_inputs()))) == 4


def test_what_others_do_to_an_object_is_not_put_down_to_a_stage_that_has_it():
    flow = ff.pipe(
        arrays(), ff.map(np.copy), ff.scan(lambda state, x: (x, x), None), ff.tap(len), ff.map(halve), ff.check_inputs()
    )
    assert len(list(flow)) == 4
    with pytest.raises(InputChanged, match=r"map\(halve\)"):
        list(ff.pipe(arrays(), ff.scan(lambda state, x: (x, x), None), ff.tap(len), ff.map(halve), ff.check_inputs()))


def test_a_queue_is_read_once_and_what_has_a_reset_of_its_own_is_not_read_again():
    items = queue.SimpleQueue()
    for item in [*arrays(), None, "next"]:
        items.put(item)
    assert len(list(ff.pipe(ff.from_queue(items), ff.map(halve), ff.check_inputs()))) == 4
    assert items.get_nowait() == "next"
    foreign = Foreign()
    with pytest.raises(InputChanged, match=r"map\(halve\)"):
        list(ff.pipe(foreign, ff.map(halve), ff.check_inputs()))
    assert (foreign.resets, foreign.passes) == (1, 1)


@pytest.mark.parametrize("workers", [{}, {"threads": 2}])
def test_watching_changes_nothing_else(workers):
    def make():
        flow = ff.pipe(
            [[number, float(number)] for number in range(12)], ff.shuffle(), ff.map(tuple), ff.map(drawn, rng=True)
        )
        return ff.pipe(flow, ff.prefetch(2, threads=2), ff.filter(odd), ff.repeat(2), ff.batch(2))

    check(lambda: ff.check_inputs(make()), workers=(workers,), stops=4)
    assert same(outputs(ff.check_inputs(make()), 3, 1), outputs(make(), 3, 1))
    one, other = iter(make()), ff.check_inputs(make())
    first = next(one)
    assert same(first, next(iter(other)))
    assert same(list(one), list(other.load_state_dict(json.loads(json.dumps(other.state_dict())))))
    assert repr(ff.check_inputs(ff.map(float, [1]))) == "pipe(flow([1]), map(float), check_inputs())"


def test_a_stage_of_a_function_that_has_no_module_is_watched_too():
    names = {"ff": ff}
    exec("@ff.stage.each\ndef editing(source):\n    for x in source:\n        x /= 2\n        yield x", names)
    with pytest.raises(InputChanged, match=r"editing\(\)"):
        list(ff.pipe(arrays(), names["editing"](), ff.check_inputs()))


def test_a_flow_that_is_not_watched_is_left_as_it_is():
    flow = ff.pipe(arrays(), ff.map(halve))
    before, node = flow.sources, flow.node
    ff.check_inputs(flow)
    assert flow.sources is before
    assert flow.node is node
    assert len(list(flow)) == 4


@pytest.mark.parametrize(("stage", "named"), EDITING.values(), ids=EDITING)
def test_check_says_that_inputs_are_changed_and_by_which_stage(stage, named):
    with pytest.raises(LawBroken, match="(?s)^purity: .*" + re.escape(named) + ".* changes its datapoint in place"):
        check(lambda: ff.pipe(arrays(), stage))


ROWS = {
    "an array": lambda: ff.flow(np.ones((6, 2))),
    "an array of records": lambda: ff.flow(np.ones((6, 2)).view([("a", "f8"), ("b", "f8")])[:, 0]),
    "arrays": lambda: ff.pipe(ff.from_arrays(np.ones((6, 2)), np.arange(6)), ff.map(operator.itemgetter(0))),
    "named arrays": lambda: ff.pipe(ff.from_arrays(x=np.ones((6, 2))), ff.map(operator.itemgetter("x"))),
    "selected arrays": lambda: ff.pipe(
        ff.from_arrays(np.ones((6, 2)), np.arange(6)), ff.select([0]), ff.map(operator.itemgetter(0))
    ),
    "large arrays": lambda: ff.flow(np.ones((6, 1 << 18))),
    "a cache": lambda: ff.pipe(range(6), ff.map(ones), ff.cache()),
    "constant fakes": lambda: ff.fake((2,), 6, random=False),
}


@pytest.mark.parametrize("order", [None, ff.shuffle(), ff.slice(0, 6, 2), ff.repeat(2), ff.filter(len)], ids=str)
@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
def test_rows_of_arrays_in_memory_are_read_only(make, order):
    with pytest.raises(ValueError, match="read-only"):
        next(iter(ff.pipe(make(), order, ff.map(fill))))


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 1}, {"processes": 2}], ids=str)
@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
def test_rows_of_arrays_in_memory_are_read_only_in_workers_too(make, workers):
    with pytest.raises(ValueError, match="read-only"):
        next(iter(ff.pipe(make(), ff.shuffle(), ff.map(fill), ff.prefetch(2, **workers))))


def test_a_batch_of_rows_is_its_own():
    data = np.ones((6, 2))
    for workers in (None, ff.prefetch(2), ff.prefetch(2, processes=2)):
        assert [
            x.sum() for x in ff.pipe(ff.from_arrays(data), ff.batch(3), ff.map(lambda b: halve(b[0])), workers)
        ] == [3.0, 3.0]
    assert data.sum() == 12


@pytest.mark.parametrize("stream", [False, True], ids=["by index", "as a stream"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_list_that_a_group_is_given_is_its_own(step, stream):
    source = ff.pipe(range(8), ff.filter(lambda x: True) if stream else None)
    expected = list(ff.window(3, source, step=step, collate=None))
    assert list(emptied(3, step, source)) == expected
