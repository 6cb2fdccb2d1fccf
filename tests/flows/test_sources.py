"""What a flow can start from: read how, refused with which conversion named, and never changed."""

import array
import collections
import io
import itertools
import pickle
import time
from itertools import islice

import numpy as np
import pytest

import flowfn as ff

# Sequences


class Dataset:
    """A map-style data set, as torch has them."""

    def __init__(self, n):
        self.n, self.read = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if type(index) is not int or not 0 <= index < self.n:
            raise IndexError(index)
        self.read.append(index)
        return index * 10


class Batched(Dataset):
    """One that also reads several together, as torch's and Hugging Face's do."""

    def __getitems__(self, indices):
        assert type(indices) is list
        assert all(type(index) is int for index in indices)
        self.read.append(tuple(indices))
        return [index * 10 for index in indices]


@pytest.mark.parametrize(
    "sequence",
    [
        [3, 1, 2],
        (3, 1, 2),
        range(3),
        [],
        (),
        range(0),
        [None],
        collections.deque("abc"),
        collections.UserList([1, 2]),
        array.array("i", [1, 2]),
        bytearray(b"ab"),
        memoryview(b"ab"),
    ],
)
def test_sequences_are_read_by_index(sequence):
    flow = ff.flow(sequence)
    assert flow.seekable
    assert list(flow) == list(flow) == list(sequence)
    assert len(flow) == len(sequence)
    assert [flow[-i - 1] for i in range(len(sequence))] == list(sequence)[::-1]


def test_a_sequence_hands_out_its_own_objects():
    data = [[1], {"a": 2}]
    assert all(got is given for got, given in zip(ff.flow(data), data))


def test_a_data_set_is_read_only_at_what_is_asked_for_by_plain_ints():
    dataset = Dataset(100)
    flow = ff.pipe(dataset, ff.shuffle(), ff.skip(95))
    assert sorted(flow) == sorted(10 * i for i in dataset.read)
    assert len(dataset.read) == 5
    assert ff.flow(dataset)[-1] == 990


def test_a_data_set_that_grows_has_its_length_of_the_moment():
    data = [1, 2]
    flow = ff.batch(1, data)
    assert len(flow) == 2
    data.append(3)
    assert len(flow) == len(list(flow)) == 3


def test_getitems_is_used_for_blocks():
    dataset = Batched(10)
    assert list(ff.flow(dataset)) == list(range(0, 100, 10))
    assert all(type(read) is tuple for read in dataset.read)
    dataset.read.clear()
    whole = list(ff.pipe(dataset, ff.shuffle(), ff.batch(5)))
    assert sorted(np.concatenate(whole).tolist()) == list(range(0, 100, 10))
    assert sum(map(len, dataset.read)) == 10
    assert len(dataset.read) <= 2
    assert ff.flow(dataset)[3] == 30


class Decoding(Batched):
    """One that takes long for each."""

    def __getitems__(self, indices):
        time.sleep(0.001 * len(indices))
        return super().__getitems__(indices)


def test_several_are_not_made_long_before_they_are_wanted():
    slow, fast = Decoding(3000), Batched(3000)
    assert next(iter(ff.flow(slow))) == next(iter(ff.flow(fast))) == 0
    assert len(slow.read[0]) == len(fast.read[0]) == 16
    assert list(ff.pipe(slow, ff.take(100))) == list(range(0, 1000, 10))
    assert max(map(len, slow.read)) == 16
    assert list(ff.flow(fast)) == list(range(0, 30000, 10))
    assert len(fast.read) < 100


# Arrays


@pytest.mark.parametrize(
    "data",
    [
        np.arange(5),
        np.arange(6.0).reshape(3, 2),
        np.zeros((0, 3)),
        np.array(["a", "b"]),
        np.array([None, [1]], object),
        np.arange(10)[::-3],
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array([(1, 2.0)], [("a", int), ("b", float)]),
        np.zeros((2, 0)),
    ],
    ids=lambda a: f"{a.dtype} {a.shape}",
)
def test_the_rows_of_an_array_are_its_datapoints(data):
    flow = ff.flow(data)
    assert len(flow) == len(data)
    np.testing.assert_equal(list(flow), list(data))
    assert [type(row) for row in flow] == [type(row) for row in data]
    assert all(not row.flags.writeable for row in flow if isinstance(row, np.ndarray))
    assert data.flags.writeable


def test_rows_are_read_only_views_and_the_array_is_left_as_it_was():
    data = np.zeros((3, 2))
    for flow in (ff.flow(data), ff.map(lambda row: row[0], ff.from_arrays(data))):
        for row in flow:
            assert np.shares_memory(row, data)
            with pytest.raises(ValueError, match="read-only"):
                row[0] = 1
    data[0] = 1  # still the user's own


def test_from_arrays_gives_lists_or_dicts():
    x, y = np.arange(6).reshape(3, 2), [7, 8, 9]
    listed, named = ff.from_arrays(x, y), ff.from_arrays(x=x, y=y)
    np.testing.assert_equal(list(listed), [[x[i], y[i]] for i in range(3)])
    np.testing.assert_equal(list(named), [{"x": x[i], "y": y[i]} for i in range(3)])
    assert (len(listed), len(named)) == (3, 3)
    np.testing.assert_equal(listed[-1], [x[2], 9])
    assert list(ff.from_arrays(np.zeros((0, 2)), [])) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ff.from_arrays([1, 2], [1]),
            "from_arrays(): arrays must have equal lengths, got shapes {0: (2,), 1: (1,)}",
        ),
        (
            lambda: ff.from_arrays(a=[1], b=5),
            "from_arrays(): arrays must have equal lengths, got shapes {'a': (1,), 'b': ()}",
        ),
        (lambda: ff.from_arrays(5), "from_arrays(): arrays must have equal lengths, got shapes {0: ()}"),
        (
            lambda: ff.from_arrays(),
            "from_arrays(): give arrays, either all by position (datapoints are lists) or all by name (dicts)",
        ),
        (
            lambda: ff.from_arrays([1], b=[1]),
            "from_arrays(): give arrays, either all by position (datapoints are lists) or all by name (dicts)",
        ),
    ],
)
def test_from_arrays_refuses_what_has_no_common_length(call, message):
    with pytest.raises(ValueError, match="from_arrays") as caught:
        call()
    assert str(caught.value) == message


def test_a_memory_map_is_read_in_place_and_travels_by_its_file(tmp_path):
    path = tmp_path / "data"
    whole = np.memmap(path, np.int32, "w+", shape=(100_000, 4))
    whole[:] = np.arange(400_000).reshape(-1, 4)
    whole.flush()
    for mapped in (
        np.memmap(path, np.int32, "r", shape=(100_000, 4)),
        np.memmap(path, np.int32, "r", shape=(100_000, 4))[5:],
    ):
        for flow in (ff.flow(mapped), ff.from_arrays(x=mapped)):
            batch = next(iter(ff.pipe(flow, ff.skip(3), ff.batch(2))))
            rows = batch["x"] if isinstance(batch, dict) else batch
            np.testing.assert_equal(rows, mapped[3:5])
            assert rows.flags.writeable
            text = pickle.dumps(flow)
            assert len(text) < 10_000
            np.testing.assert_equal(list(islice(pickle.loads(text), 3)), list(islice(flow, 3)))
    fortran = np.memmap(path, np.int32, "r", shape=(4, 100_000), order="F")
    np.testing.assert_equal(pickle.loads(pickle.dumps(ff.flow(fortran)))[1], fortran[1])


# Iterables and callables


def test_iterables_are_read_again_in_every_pass():
    class Numbers:
        def __iter__(self):
            return iter([1, 2, 3])

    flow = ff.flow(Numbers())
    assert list(flow) == list(flow) == [1, 2, 3]
    assert list(flow.run(start=2)) == [3]
    assert not flow.seekable
    assert list(ff.flow({"a": 1, "b": 2}.values())) == [1, 2]


def test_old_style_sequences_are_iterated():
    class Old:
        def __getitem__(self, index):
            if index >= 3:
                raise IndexError(index)
            return index

    assert list(ff.flow(Old())) == [0, 1, 2]


@pytest.mark.parametrize(
    "factory",
    [
        lambda: [1, 2],
        lambda: iter([1, 2]),
        lambda: (x for x in (1, 2)),
        lambda: ff.flow([1, 2]),
        [1, 2].__iter__,
        lambda: np.array([1, 2]),
    ],
)
def test_a_callable_is_called_once_in_each_pass(factory):
    calls = []
    flow = ff.flow(lambda: calls.append(1) or factory())
    assert list(flow) == list(flow) == [1, 2]
    assert len(calls) == 2
    assert list(flow.run(start=1)) == [2]


def test_a_callable_gets_what_it_asks_for():
    seen = []

    def source(rng, *, epoch, start=0):
        seen.append((epoch, start))
        return list(zip(range(start, 10), rng.random(10)[start:].tolist()))

    flow = ff.flow(source)
    first, second = list(flow), list(flow)
    assert seen == [(0, 0), (1, 0)]
    assert first != second
    assert list(flow.run(epoch=0)) == first
    assert list(flow.run(epoch=1, start=4)) == second[4:]
    assert seen[-1] == (1, 4)
    assert list(flow.run(seed=1, epoch=0)) != first


def test_a_callable_with_options_of_its_own_is_called_without_them():
    assert list(ff.flow(lambda n=3: range(n))) == [0, 1, 2]
    assert list(ff.flow(lambda *args, **kwargs: [args, kwargs])) == [(), {}]


def test_a_callable_that_asks_for_something_else_is_refused_at_once():
    with pytest.raises(
        TypeError, match=r"^flow\(\): a callable source may ask for rng, epoch and start, but <lambda> asks for path$"
    ):
        ff.flow(lambda path: [path])


def test_two_random_callables_differ():
    make = lambda: ff.flow(lambda rng: rng.random(5).tolist())
    a, b = zip(*ff.zip(make(), make()))
    assert a != b


def test_a_callable_that_returns_a_random_flow_is_new_in_every_epoch():
    flow = ff.flow(lambda: ff.shuffle(range(50)))
    first, second = list(flow), list(flow)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first == list(flow.run(epoch=0))


def test_a_callable_over_an_open_file_closes_it_with_the_pass(tmp_path):
    path = tmp_path / "lines"
    path.write_text("a\nb\nc\n")
    opened = []

    def lines():
        with path.open() as file:
            opened.append(file)
            yield from map(str.strip, file)

    with iter(ff.pipe(lines, ff.map(str.upper))) as iterator:
        assert next(iterator) == "A"
    assert opened[0].closed


# One-shot iterators


ONE_SHOT = [
    iter,
    lambda data: (x for x in data),
    lambda data: map(int, data),
    lambda data: io.StringIO("".join(f"{x}\n" for x in data)),
]


@pytest.mark.parametrize("make", ONE_SHOT)
def test_an_iterator_works_for_one_pass_and_the_second_says_what_to_give(make):
    flow = ff.flow(make([1, 2, 3]))
    assert [int(x) for x in flow] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"is an iterator, which can be read once.*give a list, or a callable"):
        list(flow)


def test_an_iterator_reached_twice_in_one_tree_is_an_error():
    shared = ff.flow(iter(range(6)))
    with pytest.raises(ValueError, match="is an iterator, which can be read once"):
        list(ff.zip(shared, ff.map(abs, shared)))
    with pytest.raises(ValueError, match="is an iterator, which can be read once"):
        list(ff.concat(ff.flow(iter([1])), shared, shared))


def test_one_iterator_under_two_flows_is_an_error_too():
    numbers = iter(range(6))
    with pytest.raises(ValueError, match="is an iterator, which can be read once"):
        list(ff.zip(ff.map(abs, numbers), ff.map(abs, numbers)))


def test_an_iterator_below_repeat_is_an_error_at_the_second_round():
    iterator = iter(ff.repeat(2, iter([1])))
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="is an iterator, which can be read once"):
        next(iterator)


def test_making_and_looking_at_a_flow_reads_nothing_of_an_iterator():
    def source():
        yield 1
        raise AssertionError("read")

    flow = ff.pipe(source(), ff.map(abs), ff.batch(2), ff.take(1))
    repr(flow), bool(flow), flow.state_dict(), flow.seekable
    assert next(iter(ff.take(1, source()))) == 1


# Foreign objects


class DataFlow:
    """As tensorpack and its heirs have them."""

    def __init__(self, n=3):
        self.n, self.resets = n, 0

    def reset_state(self):
        self.resets += 1

    def __iter__(self):
        assert self.resets
        return iter([[i] for i in range(self.n)])

    def __len__(self):
        return self.n


class OldDataFlow:
    """As the oldest have them."""

    resets = 0

    def reset_state(self):
        self.resets += 1

    def get_data(self):
        yield from ([i] for i in range(3))

    def size(self):
        return 3


@pytest.mark.parametrize("make", [DataFlow, OldDataFlow])
def test_foreign_objects_are_reset_once_and_iterated(make):
    foreign = make()
    flow = ff.pipe(foreign, ff.map_component(abs, 0))
    assert foreign.resets == 0
    assert list(flow) == list(flow) == [[0], [1], [2]]
    assert foreign.resets == 1
    assert len(flow) == 3
    assert not flow.seekable
    assert list(flow.run(start=2)) == [[2]]


def test_a_foreign_object_with_an_index_is_never_read_by_it():
    class Both(DataFlow):
        def __getitem__(self, index):
            raise AssertionError("indexed")

    flow = ff.flow(Both())
    assert not flow.seekable
    assert list(flow) == [[0], [1], [2]]


def test_a_foreign_object_without_a_length():
    class Unsized(DataFlow):
        def __len__(self):
            raise NotImplementedError

    flow = ff.flow(Unsized())
    assert len(list(flow)) == 3
    with pytest.raises(TypeError, match="not known before it is read"):
        len(flow)


def test_get_data_and_size_without_a_reset():
    class Bare:
        def get_data(self):
            return iter([1, 2])

        def size(self):
            return 2

    assert list(ff.flow(Bare())) == [1, 2]
    assert len(ff.batch(2, Bare())) == 1


# Refused


def frames():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"a": [1, 2]}), pandas.Series([1, 2])


@pytest.mark.parametrize(
    ("source", "what", "conversion"),
    [
        ("text", "a string", r"text\.splitlines\(\).*list\(text\)"),
        (b"text", "a string", r"text\.splitlines\(\).*list\(text\)"),
        ({"a": 1}, "a mapping", r"list\(d\.items\(\)\).*from_arrays\(\*\*d\)"),
        (collections.OrderedDict(), "a mapping", r"list\(d\.items\(\)\).*from_arrays\(\*\*d\)"),
        ({1}, "a set", r"sorted\(s\)"),
        (frozenset([1]), "a set", r"sorted\(s\)"),
        (np.array(3), "an array without rows", r"array\.reshape\(1\)"),
    ],
    ids=repr,
)
def test_what_is_no_source_is_refused_and_the_conversion_named(source, what, conversion):
    with pytest.raises(TypeError, match=rf"^flow\(\): a source cannot be {what}[;,].*write.*{conversion}.*\(got "):
        ff.flow(source)


@pytest.mark.parametrize("source", [-3, None, 1.5, ...])
def test_what_holds_no_datapoints_is_refused(source):
    with pytest.raises(TypeError) as caught:
        ff.flow(source)
    assert (
        str(caught.value)
        == f"flow(): a source is a sequence, an iterable or a function that returns one, got {source!r}"
    )


def test_data_frames_and_series_are_refused_and_the_conversion_works():
    frame, series = frames()
    words = r"^flow\(\): a source cannot be a DataFrame; write flowfn\.interop\.from_table\(df\)"
    with pytest.raises(TypeError, match=words):
        ff.flow(frame)
    with pytest.raises(TypeError, match=r"^flow\(\): a source cannot be a pandas Series; write series.to_numpy\(\)"):
        ff.flow(series)
    assert (
        list(ff.flow(frame.to_dict("records")))
        == list(ff.from_arrays(**{c: frame[c].to_numpy() for c in frame}))
        == [{"a": 1}, {"a": 2}]
    )
    assert list(ff.flow(series.to_numpy())) == [1, 2]


def test_the_word_that_was_called_is_named():
    with pytest.raises(TypeError, match=r"^batch\(\): a source cannot be a string"):
        ff.batch(2, "text")
    with pytest.raises(TypeError, match=r"^pipe\(\): a source cannot be a mapping"):
        ff.pipe({})
    with pytest.raises(TypeError, match=r"^concat\(\): a source cannot be a set"):
        ff.concat([1], {2})


def test_the_views_of_a_dict_keep_its_order_and_are_read():
    d = {"b": 1, "a": 2}
    assert list(ff.flow(d.items())) == [("b", 1), ("a", 2)]
    assert list(ff.flow(d.keys())) == ["b", "a"]


# Inputs are never changed


def test_inputs_are_never_changed():
    data = [[np.zeros(2), {"a": [1, 2]}, (3,)] for _ in range(6)]
    before = pickle.dumps(data)
    flow = ff.pipe(
        data,
        ff.shuffle(),
        ff.map_component(lambda x: x + 1, 0),
        ff.select([0, 1]),
        ff.cache(),
        ff.enumerate(),
        ff.batch(2),
        ff.unbatch(),
        ff.shuffle_buffer(2),
        ff.repeat(2),
    )
    list(flow)
    list(ff.zip_components(data, data))
    assert pickle.dumps(data) == before


def test_a_flow_of_a_flow_is_that_flow():
    flow = ff.flow([1])
    assert ff.flow(flow) is flow
    assert list(itertools.chain(flow, flow)) == [1, 1]


def test_a_list_that_holds_itself_can_be_shown():
    endless = [1]
    endless.append(endless)
    assert repr(ff.flow(endless)) == "flow([1, [1, [1, [1, [1, [1, ...]]]]]])"
