"""What is written by habit: right, or refused where it is written, with the word to use."""

import ast
import collections
import copy
import functools
import importlib
import pickle
import queue
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
from migrating import tables

import flowfn as ff
from flowfn import interop
from flowfn.flows import dialects, translating

a, b = ff.flow([1, 2]), ff.flow([3, 4])
X, y = np.zeros((4, 2)), np.zeros(4)


def said(call):
    """What the error says that a call raises."""
    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
        call()
    return str(caught.value)


# A flow is made without opening its source


class Loader:
    """As torchdata has them: a state that is loaded is for the next iter()."""

    def __init__(self, start):
        self.start, self.opened = start, 0

    def __iter__(self):
        self.opened += 1
        first, self.start = self.start, 0
        return iter(range(first, 6))


class Sized(Loader):
    """One that tells its length too."""

    def __len__(self):
        return 6


class Restarting(Loader):
    """One that is its own iterator, and begins anew whenever it is asked for one."""

    def __iter__(self):
        self.numbers = super().__iter__()
        return self

    def __next__(self):
        return next(self.numbers)


class Both(Loader):
    """One that has a next datapoint without being its own iterator."""

    def __next__(self):
        raise AssertionError("not asked")


def test_what_a_callable_returns_is_asked_once_for_its_iterator():
    made = []

    def remade():
        made.append(Restarting(2))
        return made[-1]

    flow = ff.flow(remade)
    iterator = iter(flow)
    assert [int(next(iterator)), int(next(iterator))] == [2, 3]
    again = iter(flow)
    again.load_state_dict(iterator.state_dict())
    assert [int(x) for x in again] == [4, 5]
    assert [one.opened for one in made] == [1, 1]


@pytest.mark.parametrize(
    "make", [ff.flow, lambda x: ff.pipe(x, ff.map(abs)), lambda x: ff.take(9, x), lambda x: ff.concat(x, [])]
)
@pytest.mark.parametrize("loader", [Loader, Sized])
def test_making_a_flow_does_not_open_its_source(make, loader):
    source = loader(4)
    flow = make(source)
    repr(flow), bool(flow), flow.seekable, flow.state_dict(), pickle.dumps(ff.flow(loader(0)))
    assert source.opened == 0
    assert [int(x) for x in flow] == [4, 5]
    assert source.opened == 1
    assert [int(x) for x in flow] == list(range(6))


def test_whether_it_is_an_iterator_is_told_when_it_is_read():
    flow = ff.flow(Both(4))
    assert list(flow) == [4, 5]
    assert list(flow) == list(range(6))
    source = Restarting(4)
    once = ff.flow(source)
    assert list(once) == [4, 5]
    assert source.opened == 1
    with pytest.raises(ValueError, match="is an iterator, which can be read once"):
        list(once)
    assert list(ff.flow(Restarting(1)).run(start=2)) == [3, 4, 5]


# Flows and stages within containers


@pytest.mark.parametrize(
    "word",
    [ff.concat, ff.mix, ff.zip, ff.zip_components, ff.flow, ff.pipe, ff.batch(2), ff.shuffle, ff.split, ff.cache()],
)
@pytest.mark.parametrize(
    "hold",
    [list, tuple, collections.deque, lambda flows: dict(enumerate(flows)).values(), set],
    ids=["list", "tuple", "deque", "view", "set"],
)
def test_flows_in_a_container_are_refused_and_the_word_is_named(word, hold):
    name = word.name if hasattr(word, "name") else word.__name__
    joining = name if name in ("concat", "mix", "zip", "zip_components") else "concat"
    text = said(lambda: word(hold([a, b])))
    assert text.startswith(f"{name}(): a source cannot hold flows; write {joining}(*flows)")


@pytest.mark.parametrize("word", [ff.concat, ff.zip, ff.zip_components, ff.flow])
def test_flows_in_a_dict_are_refused_but_where_names_count(word):
    assert said(lambda: word({"a": a, "b": b})).startswith(f"{word.__name__}(): a source cannot hold flows; write ")
    assert list(ff.mix({"a": a, "b": b})) == [1, 3, 2, 4]


@pytest.mark.parametrize("word", [ff.concat, ff.mix, ff.zip, ff.flow])
@pytest.mark.parametrize("gives", [iter, lambda flows: (flow for flow in flows), lambda flows: map(ff.flow, flows)])
def test_an_iterator_of_flows_is_refused_when_it_is_read(word, gives):
    with pytest.raises(
        TypeError, match=rf"^{word.__name__}\(\): the datapoints of this iterator are flows; write .*\(\*flows\)"
    ):
        list(word(gives([a, b])))


def test_flows_are_datapoints_where_a_function_returns_them():
    assert list(ff.pipe(lambda: [a, b], ff.flat_map(lambda flow: flow))) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "stage", [ff.take(2), ff.compose(ff.take(2)), ff.take, ff.guard(ff.map(abs)), ff.inside(ff.map(abs))]
)
def test_a_source_and_its_stages_in_a_list_are_refused(stage):
    for call in (lambda: ff.pipe([a, stage]), lambda: ff.flow((a, stage)), lambda: ff.batch(2, [stage])):
        assert "a source cannot hold the stage" in said(call)
        assert "write pipe(source, stage, ...), one by one" in said(call)


@pytest.mark.parametrize("hold", [list, tuple])
@pytest.mark.parametrize(
    "word",
    [functools.partial(ff.pipe, [1]), ff.compose, ff.inside, ff.guard],
    ids=["pipe", "compose", "inside", "guard"],
)
def test_stages_in_a_list_are_refused(word, hold):
    assert "a list of stages" in said(lambda: word([ff.batch(2), ff.take(1)])).replace("a tuple", "a list")
    assert re.search(r"one by one, \w+\(\.\.\., \*stages\)$", said(lambda: word(hold([ff.batch(2), None]))))


def test_weights_among_the_sources_of_a_mix_are_refused():
    assert said(lambda: ff.mix(a, b, [0.5, 0.5])) == (
        "mix(): weights are given by name, got [0.5, 0.5] among the sources; write weights=[0.5, 0.5], or flow([0.5, "
        "0.5]) for a source"
    )
    assert list(ff.mix([1, 2], [3, 4])) == [1, 3, 2, 4]
    assert list(ff.mix(a, [3])) == [1, 3, 2]


# What is none of the functions that are asked for


FACTORIES = [ff.batch, ff.shuffle, ff.batch(2), ff.compose(ff.batch(2)), ff.inside(ff.map(abs)), ff.pad, ff.shape_of]


@pytest.mark.parametrize("given", FACTORIES)
@pytest.mark.parametrize(
    "word",
    [
        ff.map,
        lambda f: ff.map(f, rng=True),
        lambda f: ff.map_component(f, 0),
        ff.filter,
        ff.filter_map,
        ff.flat_map,
        ff.tap,
        ff.take_while,
        ff.interleave,
        lambda f: ff.scan(f, 0),
        lambda f: ff.unique(key=f),
        lambda f: ff.batch_by_key(f, 2),
        lambda f: ff.batch_by_length(f, tokens=9),
        lambda f: ff.batch(2, collate=f),
        lambda f: ff.batch(2, collate={"x": f}),
        lambda f: ff.batch(2, collate=[ff.stack, f]),
        lambda f: ff.window(2, collate=f),
        lambda f: ff.collate(f),
        lambda f: ff.pack(8, how=f),
        ff.seeded,
        ff.per_process,
    ],
)
def test_what_makes_functions_or_stages_is_no_function(word, given):
    assert re.search(
        r"\(\): \w+ must be .*, got (the stage \S+|\w+, which makes stages|\w+ without its arguments); write ",
        said(lambda: word(given)),
    )


def test_functions_and_objects_that_are_functions_may_stand_there():
    (
        ff.map(ff.shape_of()),
        ff.map(ff.pad(0)),
        ff.map(ff.stack),
        ff.batch(2, collate=ff.as_list),
        ff.pack(8, how=ff.best_fit),
    )
    (
        ff.map(print),
        ff.map(str),
        ff.map(dict.get),
        ff.map(np.add),
        ff.map(functools.partial(pow, 2)),
        ff.map(ff.seeded(abs), rng=True),
    )


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        (ff.first_fit, "write pack(length, how=first_fit)"),
        (ff.best_fit, "write pack(length, how=best_fit)"),
        (ff.concat_then_split, "write pack(length, how=concat_then_split)"),
        (ff.shape_of("image"), "write batch_by_key(shape_of('image'), size)"),
        (ff.pad, "pad without its arguments; write pad(...)"),
        (ff.shape_of, "shape_of without its arguments; write shape_of(...)"),
        (ff.cache_to, "write cache_to(path)"),
        (ff.map, "write map(f)"),
        (ff.concat, "write concat(a, b)"),
    ],
)
def test_what_is_no_stage_says_where_it_belongs(given, instead):
    assert said(lambda: ff.pipe([1], given)).startswith("pipe(): argument 2 is ")
    assert said(lambda: ff.pipe([1], given)).endswith(instead)


class Mine:
    def one(self, x):
        return x

    def two(self, x, rng):
        return x


def by_name(x, *, rng):
    return x


@pytest.mark.parametrize(
    "f", [lambda x, rng: x, lambda x, generator: x, Mine().two, functools.partial(lambda a, x, rng: x, 1), by_name]
)
@pytest.mark.parametrize("word", [ff.map, ff.filter, ff.filter_map, ff.flat_map, lambda f: ff.map_component(f, 0)])
def test_a_forgotten_rng_is_named(word, f):
    assert "write rng=True" in said(lambda: word(f))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: ff.map(lambda image, label: image),
            "a function of (image, label); it is called with one datapoint: write lambda datapoint",
        ),
        (lambda: ff.map(lambda: 1), "a function of (); it is called with one datapoint"),
        (
            lambda: ff.map(lambda x: x, rng=True),
            "a function of (x); with rng=True it is called with the datapoint and its generator",
        ),
        (lambda: ff.scan(lambda x: x, 0), "a function of (x); it is called with 2 arguments"),
        (
            lambda: ff.batch(2, collate=lambda x, y: x),
            "a function of (x, y); it is called with the list of values of a component",
        ),
        (lambda: ff.tap(lambda x, y: x), "a function of (x, y); it is called with one datapoint"),
    ],
)
def test_functions_of_other_arguments_are_refused_where_they_are_written(call, words):
    assert words in said(call)


def renamed(f):
    @functools.wraps(f)
    def wrapper(*args):
        return f(*args, None)

    return wrapper


def test_functions_whose_arguments_are_not_certain_are_left_alone():
    assert list(ff.map(renamed(lambda x, rng: x), [1])) == [1]
    assert (
        list(ff.map(lambda x, rng=None: x, [1]))
        == list(ff.map(lambda *x: x[0], [1]))
        == list(ff.map(Mine().one, [1]))
        == [1]
    )
    assert list(ff.map(lambda x, *, by=1: x, [1])) == list(ff.map(functools.partial(lambda x, y: x, y=2), [1])) == [1]
    told = lambda *args: args[0]
    told.__signature__ = "none of one's business"
    assert list(ff.map(told, [1])) == [1]


# Words of other libraries


def test_every_word_of_the_table_is_told_wherever_it_is_written():
    words = [getattr(ff, name) for name in dir(ff) if hasattr(getattr(ff, name), "definition")]
    for word in (*words, ff.split, ff.guard, ff.files, ff.fake):
        known = translating.inspect.signature(word).parameters
        for keyword, told in dialects.KEYWORDS.items():
            if keyword not in known:
                text = said(lambda word=word, keyword=keyword: word(**{keyword: 1}))
                assert (
                    f"{word.__name__}(): got an unexpected keyword argument {keyword!r}; {keyword} is a word of "
                    f"{told.of}: " in text
                )


def test_advice_names_words_that_there_are():
    """Every `word(` in an advice is a public name, of the package or of one of its parts, or of Python's."""
    places = [
        ff,
        *(importlib.import_module(f"flowfn.{name}") for name in ("formats", "datasets", "interop", "serving")),
    ]
    image = set(re.findall(r'"(\w+)"', (Path(ff.__file__).parent / "image" / "__init__.py").read_text()))
    public = {name for place in places for name in (*dir(place), *place.__all__)} | image
    others = {
        "len",
        "list",
        "range",
        "next",
        "iter",
        "partial",
        "reduce",
        "DataFrame",
        "argsort",
        "per_process",
        "f",
        "load_dataset",
        "reset_state",
        "state_dict",
        "load_state_dict",
    }
    texts = [word.do for word in dialects.KEYWORDS.values()] + [
        at for word in dialects.KEYWORDS.values() for at in word.at.values()
    ]
    for text in [*texts, *dialects.METHODS.values(), *dialects.NAMES.values()]:
        for name in re.findall(r"(\w+)\(", text):
            assert name in public | others, f"{name} in {text!r}"
    for word in dialects.KEYWORDS.values():
        assert all(hasattr(ff, name) for name in word.at), word


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ff.batch(2, drop_last=True), "write drop_remainder=True"),
        (lambda: ff.batch(batch_size=2), "write size, the first argument"),
        (lambda: ff.shard(0, 2, drop_last=True), 'write remainder="drop"'),
        (lambda: ff.shuffle(buffer_size=9), "shuffle_buffer(size)"),
        (lambda: ff.shuffle(seed=1), "reset_state(seed)"),
        (lambda: ff.pack(7, bins=4), r"bins= is an option of packers: write how=partial(first_fit, bins=...)"),
        (lambda: ff.pack(7, window=4), r"window= is an option of packers: write how=partial(balanced_fit, window=...)"),
        (lambda: ff.pack(7, meta_features=["id"]), "meta_features is a word of grain: write keep="),
        (lambda: ff.prefetch(2, num_workers=2), "write processes=n"),
        (lambda: ff.map(abs, num_parallel_calls=2), "write prefetch(ahead, processes=n)"),
        (lambda: ff.map(abs, processes=2), "processes= is an option of prefetch"),
        (lambda: ff.batch(2, threads=2), "threads= is an option of prefetch"),
        (lambda: ff.interleave(iter, cycle_length=2), "write cycle="),
        (lambda: ff.mix(a, b, probabilities=[1, 2]), "write weights="),
        (lambda: ff.mix(a, b, stopping_strategy="first_exhausted"), 'write until="first"'),
        (lambda: ff.split(a, 0.5, shuffle=True), "leave it out: parts are random"),
        (lambda: ff.batch(2, colate=ff.stack), "did you mean collate=?"),
        (lambda: ff.mix(a, b, weigths=[1, 2]), "did you mean weights=?"),
        (lambda: ff.guard(ff.map(abs), retries=2), "did you mean retry=?"),
        (lambda: ff.fake((2,), dtyp="f4"), "did you mean dtype=?"),
    ],
)
def test_the_word_to_use_is_named(call, words):
    assert words in said(call)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("as_dataset", "as_dataset(pipe(...))"),
        ("as_loader", "as_loader(pipe(...), trainer)"),
        ("as_pydataset", "as_pydataset(pipe(...))"),
        ("as_stateful", "as_stateful(pipe(...))"),
        ("as_tf_dataset", "as_tf_dataset(pipe(...))"),
        ("to_hf", "to_hf(pipe(...))"),
    ],
)
def test_what_a_framework_takes_is_made_of_a_whole_pipe(name, call):
    function = getattr(interop, name)
    with pytest.raises(TypeError, match=rf"^pipe\(\): argument 3 is not a stage: write {re.escape(call)}$"):
        ff.pipe([1, 2], ff.batch(2), function)
    with pytest.raises(
        TypeError, match=rf"^{name}\(\): got .* 'batch_size'; batch_size is a word of torch.*: .*batch\(size\)$"
    ):
        function(ff.flow([1]), batch_size=2)


def test_every_option_of_a_word_is_near_to_its_misspelling():
    for word in [getattr(ff, name) for name in dir(ff) if hasattr(getattr(ff, name), "definition")]:
        for option in [name for name in translating.inspect.signature(word).parameters if len(name) > 4]:
            twisted = option[:-2] + option[-1] + option[-2]
            if twisted != option:
                text = said(lambda word=word, twisted=twisted: word(**{twisted: 1}))
                assert f"did you mean {option}=?" in text or option in ("source", "sources")


@pytest.mark.parametrize(
    "thing",
    [a, ff.batch(2), ff.compose(ff.batch(2)), ff.guard(ff.map(abs))],
    ids=["flow", "stage", "composed", "guarded"],
)
def test_methods_of_other_libraries_are_answered(thing):
    words = [name for name in dir(ff) if hasattr(getattr(ff, name), "definition")]
    for name in (*words, *dialects.METHODS):
        assert not hasattr(thing, name)
        assert re.match(rf"a (flow|stage) has no attribute '{name}'; ", said(lambda name=name: getattr(thing, name))), (
            name
        )
    with pytest.raises(AttributeError) as caught:
        thing.nothing_like_it  # noqa: B018
    assert str(caught.value).endswith("has no attribute 'nothing_like_it'")
    assert (caught.value.name, caught.value.obj) == ("nothing_like_it", thing)


def test_the_answer_is_what_to_write():
    assert said(lambda: a.map(abs)) == "a flow has no attribute 'map'; write pipe(flow, map(f))"
    assert said(lambda: a.concat(b)) == "a flow has no attribute 'concat'; write concat(flow, other)"
    assert (
        said(lambda: ff.shuffle().batch(2))
        == "a stage has no attribute 'batch'; write pipe(source, shuffle(), batch(size))"
    )
    assert (
        said(lambda: a.padded_batch(2))
        == "a flow has no attribute 'padded_batch'; write batch(size, flow, collate=pad(value))"
    )


def test_answers_do_not_come_between_copies_and_pickles():
    for thing in (
        ff.pipe([1, 2], ff.shuffle()),
        ff.batch(2),
        ff.compose(ff.batch(2)),
        ff.guard(ff.map(abs)),
        ff.inside(ff.map(abs)),
    ):
        for again in (copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing))):
            assert repr(again) == repr(thing)
        assert not hasattr(thing, "__array__")
        assert not hasattr(thing, "_private")
        assert not hasattr(thing, "__wrapped__")


def test_an_attribute_error_within_a_flow_stays_itself():
    class Broken:
        def __getitem__(self, index):
            return index

        def __len__(self):
            return self.size_of_it

    flow = ff.flow(Broken())
    for read in (len, list, lambda flow: flow[0], lambda flow: ff.shard(0, 2, flow), lambda flow: flow.state_dict()):
        with pytest.raises(AttributeError, match="'Broken' object has no attribute 'size_of_it'"):
            read(flow)


def test_names_of_other_libraries_are_answered():
    for name, here in dialects.NAMES.items():
        assert not hasattr(ff, name)
        assert (
            said(lambda name=name: getattr(ff, name))
            == f"module 'flowfn' has no attribute {name!r}; what is called so elsewhere is {here} here"
        )
    assert said(lambda: ff.read_csv).endswith("from flowfn.formats import read_csv")
    assert said(lambda: ff.nothing_like_it) == "module 'flowfn' has no attribute 'nothing_like_it'"
    with pytest.raises(ImportError, match="BatchData"):
        from flowfn import BatchData  # noqa: F401


@pytest.mark.parametrize(("page", "number"), [("from_dataflow.md", 90), ("from_others.md", 30)])
def test_every_class_in_the_tables_for_those_who_come_from_elsewhere_is_answered(page, number):
    first = [row for rows in tables(page).values() for row, _, _ in rows]
    names = {name for cell in first for name in re.findall(r"`([A-Z]\w+)", cell)} - {"MyDataFlow"}
    assert len(names) > number
    assert names <= dialects.NAMES.keys()


@pytest.mark.parametrize(
    "stage",
    [ff.shuffle(), ff.batch(2), ff.compose(ff.batch(2)), ff.guard(ff.map(abs)), ff.inside(ff.map(abs))],
    ids=repr,
)
@pytest.mark.parametrize("read", [list, iter, lambda stage: [*stage], lambda stage: dict(enumerate(stage))])
def test_a_stage_alone_is_not_iterated(read, stage):
    assert said(lambda: read(stage)) == f"{stage} is a stage, which holds no datapoints; write pipe(source, {stage})"


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (np.array([0, 1]), "subset(indices, flow)"),
        ([0, 1], "subset(indices, flow)"),
        ((0, 1), "subset(indices, flow)"),
        (range(2), "subset(indices, flow)"),
        (np.array([True, False]), "subset(np.flatnonzero(mask), flow)"),
        ([True, False], "subset(np.flatnonzero(mask), flow)"),
        ("image", "select(['image'], flow)"),
        ((slice(None), 0), "map(lambda x: x[...], flow)"),
        (0.5, "indexed by an integer or a slice, got 0.5"),
        (None, "indexed by an integer or a slice, got None"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("flow", [a, ff.filter(bool, [1])], ids=["seekable", "stream"])
def test_an_index_of_another_kind_names_the_word(flow, index, words):
    assert words in said(lambda: flow[index])


def test_integers_of_any_type_are_indices():
    assert [a[np.int8(1)], a[np.array(0)], a[True]] == [2, 1, 2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: ff.batch(a, 2),
            "batch(): size must be a positive integer, got flow([1, 2]); the source comes last: batch(size, source)",
        ),
        (lambda: ff.map([1], abs), "map(): f must be a function, got [1]; the source comes last: map(f, source)"),
        (lambda: ff.take(a, 1), "the source comes last: take(count, source)"),
    ],
)
def test_a_source_that_comes_first_is_told_to_come_last(call, words):
    assert said(call).endswith(words)


# Columns


@pytest.mark.parametrize(
    "columns",
    [(X, y), [X, y], (y, X), (X, np.zeros((4, 3))), (X, y, np.zeros((4, 2, 2)))],
    ids=["tuple", "list", "y first", "one hot", "three"],
)
@pytest.mark.parametrize("word", [ff.flow, ff.pipe, ff.batch(2)])
def test_the_columns_of_a_data_set_are_not_its_datapoints(word, columns):
    assert "write from_arrays(*arrays) for their rows" in said(lambda: word(columns))
    assert len(ff.from_arrays(*columns)) == 4


@pytest.mark.parametrize(
    "arrays",
    [
        [X, X],
        (X, X),
        [X, np.zeros((4, 3))],
        [np.zeros((4, 4)), np.zeros((4, 4, 3))],
        (np.zeros((3, 2)), np.zeros((4, 2))),
        (X,),
        [[X, y], [X, y]],
        [1, y],
    ],
    ids=range(8),
)
def test_arrays_that_may_be_datapoints_are(arrays):
    assert all(got is given for got, given in zip(ff.flow(arrays), arrays, strict=True))


def test_explain_remarks_on_arrays_that_look_like_columns(capsys):
    ff.explain(ff.pipe([X, X], ff.map(np.sum)))
    assert (
        "has 2 datapoints, arrays of one length; if they are meant as columns, write from_arrays(*arrays)"
        in capsys.readouterr().out
    )
    ff.explain(ff.pipe([np.zeros(3), np.zeros(4)], ff.map(np.sum)))
    assert "from_arrays" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ff.from_arrays([X, y]), "write from_arrays(*arrays)"),
        (
            lambda: ff.from_arrays((y, y)),
            "write from_arrays(*arrays), or from_arrays(np.stack(arrays)) if each of them is a row",
        ),
        (lambda: ff.from_arrays({"x": X, "y": y}), "write from_arrays(**arrays)"),
        (lambda: ff.from_arrays(a), "a flow is a source as it is"),
    ],
)
def test_arrays_in_one_container_are_refused(call, words):
    assert words in said(call)
    assert len(ff.from_arrays([[1, 2], [3, 4]])) == len(ff.from_arrays([X[0], X[1]], [0, 1])) == 2


# Paths


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/data/train", "files(path)"),
        ("images/*.jpg", "files(path)"),
        (Path("/data/train"), "files(path)"),
        ("train.csv", "flowfn.formats.read_csv(path)"),
        ("shards/train.bin", "flowfn.formats.read_tokens(path)"),
        (Path("text.idx"), "flowfn.formats.read_megatron(path)"),
        ("s3://bucket/train.csv.gz", "flowfn.formats.read_csv(path)"),
        (Path("train.parquet"), "flowfn.formats.read_parquet(path)"),
        ("shards/{0000..0009}.tar", "flowfn.formats.read_webdataset(path)"),
        ("x.npy", "flowfn.formats.read_npy(path)"),
        ("x.H5", "flowfn.formats.read_hdf5(path)"),
        ("x.tfrecord", "flowfn.formats.read_tfrecord(path)"),
        ("text", "files(path)"),
    ],
    ids=str,
)
def test_a_path_names_its_reader(path, words):
    for word in (ff.flow, ff.pipe, ff.shuffle):
        assert words in said(lambda word=word: word(path)).split("(got")[0]
    assert [*ff.flow([path])] == [path]


# Objects of other classes


class Off:
    """Reading of several at once is switched off, as torch's loader allows."""

    __getitems__ = None

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return index


class Unsized:
    def __init__(self, error):
        self.error = error

    def __len__(self):
        raise self.error

    def __getitem__(self, index):
        return [10, 20][index]


class Iterated(Unsized):
    def __iter__(self):
        return iter([10, 20])


class NoIndex(Off):
    __getitem__ = None

    def __iter__(self):
        return iter(range(3))


class Keyed:
    def __len__(self):
        return 1

    def __getitem__(self, key):
        return {"a": 1}[key]


def test_methods_that_are_none_are_not_there():
    assert list(ff.flow(Off())) == sorted(ff.pipe(Off(), ff.shuffle())) == [0, 1, 2]
    assert list(ff.flow(NoIndex())) == [0, 1, 2]
    assert not ff.flow(NoIndex()).seekable


@pytest.mark.parametrize("error", [TypeError(), NotImplementedError()], ids=repr)
@pytest.mark.parametrize("kind", [Unsized, Iterated])
def test_an_object_that_has_no_length_after_all_is_iterated(kind, error):
    flow = ff.flow(kind(error))
    assert list(flow) == list(flow) == [10, 20]
    assert not flow.seekable
    assert flow.node.length_or_none() is None


def test_a_length_that_fails_for_a_reason_of_its_own_is_an_error():
    with pytest.raises(OSError, match="gone"):
        list(ff.flow(Iterated(OSError("gone"))))


def test_an_object_that_is_read_by_keys_says_so():
    with pytest.raises(
        TypeError,
        match=r"flow\(Keyed\) is read by index, from 0 on, and does not know 0;.*pipe\(keys, map\(x\.__getitem__\)\)",
    ):
        list(ff.flow(Keyed()))
    assert list(ff.pipe(["a"], ff.map(Keyed().__getitem__))) == [1]
    keyed = type("Keys", (Keyed,), {"keys": lambda self: ["a"]})()
    assert "an object that is read by keys; write pipe(list(x.keys()), map(x.__getitem__))" in said(
        lambda: ff.flow(keyed)
    )


def test_a_key_error_of_ones_own_stays_itself():
    class Table(Keyed):
        def __getitem__(self, index):
            return {}["name"]

    with pytest.raises(KeyError, match="name"):
        list(ff.flow(Table()))


def test_attributes_of_a_data_set_do_not_make_it_a_stage():
    class Staged(Off):
        stages, definition, sources, part = ("a",), "b", (), None

    assert list(ff.flow(Staged())) == list(ff.pipe(Staged(), ff.map(abs))) == [0, 1, 2]
    assert list(ff.concat(Staged(), [3])) == [0, 1, 2, 3]
    assert len(list(ff.flow([Staged()]))) == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"train": [1], "test": [2]}, 'write d["train"]'),
        (queue.Queue(), "a queue; write from_queue(queue)"),
        (sqlite3, "a module"),
        (np.float64(1), "an array without rows"),
        (7, "range(7) counts to it"),
    ],
    ids=["splits", "queue", "module", "number", "int"],
)
def test_other_things_are_refused_with_what_to_write(source, words):
    assert words in said(lambda: ff.flow(source))


# Executors


class Foreign:
    """Another library's client, whose futures are its own."""

    def submit(self, function, *arguments, **keywords):
        return object()


class Client(Foreign):
    def get_executor(self, pure):
        raise AssertionError("not called")


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        (Client(), "executor=flowfn.interop.dask.executor(client), or client.get_executor(pure=False)"),
        (ThreadPoolExecutor, "the class ThreadPoolExecutor; write an instance of it"),
        (4, "4; write processes= or threads="),
        ("processes", "'processes'; write processes= or threads="),
        (object(), "an object with submit(), got <object"),
        (len, "an object with submit(), got "),
    ],
    ids=["client", "class", "number", "word", "object", "function"],
)
def test_what_is_no_executor_says_what_to_write(executor, words):
    assert words in said(lambda: ff.prefetch(2, executor=executor))


def test_a_pool_of_multiprocessing_names_what_is_one():
    with ThreadPool(1) as pool:
        assert "write processes=n, or concurrent.futures.ProcessPoolExecutor(n)" in said(
            lambda: ff.prefetch(2, executor=pool)
        )


@pytest.mark.timeout(60)
def test_futures_of_another_library_are_told():
    flow = ff.pipe(range(4), ff.map(float), ff.prefetch(2, executor=Foreign()))
    assert "submit() of executor must return a concurrent.futures.Future, but Foreign returned object" in said(
        lambda: list(flow)
    )


@pytest.mark.timeout(60)
def test_an_executor_that_was_shut_down_is_told():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError) as caught:
        list(ff.pipe(range(4), ff.map(float), ff.prefetch(2, executor=executor)))
    assert "its executor ended" in caught.value.__notes__[0]


# What explain says of shards


@pytest.mark.parametrize(
    ("stages", "behind"),
    [
        ((ff.shuffle(), ff.shard(0, 2), ff.pack(512), ff.batch(2)), "pack(512)"),
        ((ff.shard(0, 2), ff.shuffle(), ff.map(abs)), "shuffle()"),
        ((ff.shard(0, 2), ff.shuffle(), ff.filter(bool), ff.batch(2)), "filter(bool)"),
        ((ff.shard(0, 2), ff.window(3), ff.map(abs)), "window(3)"),
        ((ff.shard(0, 2), ff.shard(0, 3), ff.batch(2)), "shard(0, 2)"),
    ],
    ids=str,
)
def test_explain_names_what_shard_has_to_go_behind(stages, behind, capsys):
    ff.explain(ff.pipe(range(20), *stages))
    assert f"put shard behind {behind}\n" in capsys.readouterr().out


def test_the_tables_hold_no_word_of_our_own():
    tree = ast.parse(Path(dialects.__file__).read_text())
    keys = [
        key.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    ]
    assert len(keys) > 200
    for name in dialects.NAMES:
        assert name not in vars(ff), name
    for name in dialects.METHODS:
        assert not hasattr(ff.Flow, name), name
