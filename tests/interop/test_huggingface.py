"""Hugging Face's datasets: their data sets as flows, and flows as their data sets; with datasets 5.2.0."""

import copy
import datetime
import io
import json
import wave
import zoneinfo
from itertools import islice

import numpy as np
import pytest

import flowfn as ff
from flowfn.interop import from_table, to_hf
from flowfn.testing import check

datasets = pytest.importorskip("datasets")
if not hasattr(datasets, "Dataset"):  # a folder of tests has the name as well
    pytest.skip("could not import 'datasets'", allow_module_level=True)

split_by_node = pytest.importorskip("datasets.distributed").split_dataset_by_node
pytestmark = pytest.mark.timeout(120)
COLUMNS = {"x": list(range(40)), "t": [f"text {i}" for i in range(40)], "v": [[i, i + 0.5] for i in range(40)]}


def dataset():
    return datasets.Dataset.from_dict(COLUMNS)


def alike(one, other):
    return list(one) == list(other) and all(
        type(one[k]) is type(other[k]) and np.array_equal(one[k], other[k]) for k in one
    )


# Data sets with an index


@pytest.mark.parametrize("name", [None, "numpy", "torch"])
@pytest.mark.parametrize("change", ["as it is", "shuffled", "selected", "filtered", "columns"])
def test_rows_are_those_of_the_data_set(name, change):
    changed = {
        "as it is": lambda one: one,
        "shuffled": lambda one: one.shuffle(seed=1),
        "selected": lambda one: one.select([5, 3, 5, 39]),
        "filtered": lambda one: one.filter(lambda row: row["x"] % 3 == 0),
        "columns": lambda one: one.select_columns(["t", "x"]),
    }[change](dataset()).with_format(name)
    flow = ff.flow(changed)
    right = [{key: np.asarray(value).tolist() for key, value in changed[i].items()} for i in range(len(changed))]
    for rows in (list(flow), [flow[i] for i in range(len(flow))]):
        assert [{key: np.asarray(value).tolist() for key, value in row.items()} for row in rows] == right
    order = [int(row["x"]) for row in ff.shuffle(flow)]
    assert sorted(order) == sorted(row["x"] for row in right)
    state = iter(ff.pipe(flow, ff.shuffle(), ff.batch(2))).state_dict()
    assert json.loads(json.dumps(state)) == state


def test_columns_of_a_format_are_the_components():
    formatted = dataset().with_format("numpy", columns=["v"])
    assert list(ff.flow(formatted)[3]) == ["v"]


def test_pictures_are_decoded_once_and_not_long_before_they_are_wanted():
    """`__getitems__` decodes whatever it is asked for before it returns: 4096 pictures, for whoever asks for them."""
    image = pytest.importorskip("PIL.Image")
    pictures = [image.fromarray(np.full((4, 5, 3), i, np.uint8)) for i in range(100)]
    made = datasets.Dataset.from_dict({"picture": pictures}, features=datasets.Features({"picture": datasets.Image()}))
    decoded = []
    before = datasets.Image.decode_example

    def counting(self, value, **kwargs):
        decoded.append(1)
        return before(self, value, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.Image, "decode_example", counting)
        rows = list(ff.flow(made))
        assert len(decoded) == 100
        assert [np.asarray(row["picture"])[0, 0, 0] for row in rows] == list(range(100))
        decoded.clear()
        next(iter(ff.flow(made)))
        assert len(decoded) <= 16


def wave_file(number):
    """So many more than 50 samples of 16 bits, which tell the number."""
    with io.BytesIO() as file:
        with wave.open(file, "wb") as written:
            written.setparams((1, 2, 8000, 0, "NONE", ""))
            written.writeframes(np.full(50 + number, 100 * number, "<i2").tobytes())
        return file.getvalue()


def sounds(**options):
    made = datasets.Dataset.from_dict({"sound": [wave_file(i) for i in range(30)], "x": list(range(30))})
    return made.cast_column("sound", datasets.Audio(**options))


def samples(row):
    with wave.open(io.BytesIO(row["sound"]["bytes"])) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2"), row["x"]


@pytest.mark.parametrize("stream", [False, True])
def test_sound_that_is_not_decoded_is_bytes_and_a_path_for_a_decoder_of_ones_own(stream):
    """`Audio(decode=False)` needs no torchcodec where bytes are cast to it (with features given to `from_dict` it does,
    datasets 5.2.0, features/audio.py), and passes through workers, batches and states as other columns do."""
    made = sounds(decode=False).to_iterable_dataset(num_shards=3) if stream else sounds(decode=False)
    assert {tuple(row["sound"]) for row in ff.flow(made)} == {("bytes", "path")}
    flow = ff.pipe(made, ff.shuffle_buffer(5), ff.map(samples))
    right = [(number, len(sound), set(sound.tolist())) for sound, number in flow]
    assert sorted(right, key=lambda row: row[0]) == [(i, 50 + i, {100 * i}) for i in range(30)]
    again = iter(ff.pipe(flow.set_epoch(0), ff.prefetch(2, processes=2)))
    assert [number for _, number in islice(again, 7)] == [row[0] for row in right[:7]]
    state = json.loads(json.dumps(again.state_dict()))
    assert [number for _, number in flow.load_state_dict(state)] == [row[0] for row in right[7:]]


def test_sound_that_cannot_be_decoded_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(datasets.config, "TORCHCODEC_AVAILABLE", False)
    with pytest.raises(ImportError, match="please install 'torchcodec'"):
        next(iter(ff.flow(sounds())))


@pytest.mark.parametrize("stream", [False, True])
def test_decoded_sound_is_the_object_that_datasets_has_for_it(stream):
    """It decodes when it is asked for its array, of float32. Workers read what has an index, and one worker reads a stream;
    two of them are given what this process has read of it, and a decoder cannot be given away."""
    if not decodes_sound():
        pytest.skip("torchcodec, or FFmpeg, is not installed")
    made = sounds().to_iterable_dataset(num_shards=3) if stream else sounds()
    row = next(iter(ff.flow(made)))
    assert type(row["sound"]).__module__ == "datasets.features._torchcodec"
    flow = ff.pipe(made, ff.map(decoded), ff.prefetch(2, processes=1 if stream else 2))
    for number, (sound, rate) in enumerate(flow):
        assert (sound.dtype, sound.shape, rate) == (np.float32, (50 + number,), 8000)
        assert np.array_equal(sound, np.full(50 + number, np.float32(100 * number) / 2**15))
    assert number == 29
    apart = ff.pipe(made, ff.map(decoded) if stream else None, ff.prefetch(2, processes=2))
    with pytest.raises(TypeError, match="AudioDecoder of torchcodec is of the process that made it"):
        next(iter(apart))


def test_a_decoder_that_would_be_pickled_as_an_address_is_not_sent():
    """torchcodec 0.17.0: what is unpickled elsewhere looks into memory that is not there."""
    for flow in (ff.pipe([0], ff.map(decoder)), ff.pipe(lambda: map(decoder, [0]), ff.map(repr))):
        with pytest.raises(TypeError, match="AudioDecoder of torchcodec is of the process that made it"):
            next(iter(ff.pipe(flow, ff.prefetch(2, processes=2))))


def decoder(_):
    return type("AudioDecoder", (), {"__module__": "torchcodec.decoders"})()


def decoded(row):
    return row["sound"]["array"], row["sound"]["sampling_rate"]


def decodes_sound():
    try:
        return sounds()[0]["sound"]["sampling_rate"] == 8000
    except (ImportError, RuntimeError):
        return False


def test_batches_of_numpys_format_have_other_dtypes_than_its_columns():
    """Its formatter makes int64 and float32 of all arrays, whatever the features say, and a column of a batch is one
    (a row's number is none, and keeps its dtype), so `dataset[0]["x"]` and `dataset[:1]["x"][0]` are different numbers
    (datasets 5.2.0, formatting/np_formatter.py). Flows, and torch's loaders, read by `__getitems__`, the batch's way."""
    features = datasets.Features({"x": datasets.Value("float64"), "i": datasets.Value("int8")})
    made = datasets.Dataset.from_dict({"x": [0.1], "i": [1]}, features=features).with_format("numpy")
    assert (made[0]["x"].dtype, made[0]["i"].dtype) == (np.float64, np.int8)
    assert (made[:1]["x"].dtype, made[:1]["i"].dtype) == (np.float32, np.int64)
    assert ff.flow(made)[0]["x"].dtype == np.float32
    row = from_table(made.with_format("arrow")[:])[0]
    assert (row["x"].dtype, row["i"].dtype) == (np.float64, np.int8)


def test_the_table_of_a_data_set_is_a_source_that_is_gathered_by_columns():
    made = dataset().shuffle(seed=1)
    with pytest.raises(TypeError, match=r"from_table\(dataset.with_format\(\"arrow\"\)\[:\]\)"):
        from_table(made)
    flow = from_table(made.with_format("arrow")[:])
    assert list(flow) == list(made)
    batches = ff.pipe(flow, ff.shuffle(), ff.batch(8))
    assert [x for batch in batches for x in batch["x"]] == [row["x"] for row in ff.shuffle(ff.flow(made))]


@pytest.mark.parametrize("kind", ["DatasetDict", "IterableDatasetDict"])
def test_a_dict_of_splits_is_refused_by_their_names(kind):
    one = dataset() if kind == "DatasetDict" else dataset().to_iterable_dataset()
    with pytest.raises(
        TypeError, match=r"a dict of splits, 'mine', 'validation'; name one of them: write d\[\"validation\"\]"
    ):
        ff.flow(getattr(datasets, kind)({"mine": one, "validation": one}))


# Data sets that are iterated


def numbers(shards):
    for shard in shards:
        for i in range(10):
            yield {"x": 10 * shard + i}


def generated():
    return datasets.IterableDataset.from_generator(numbers, gen_kwargs={"shards": [0, 1, 2, 3]})


def xs(rows):
    return [int(row["x"]) for row in rows]


def above(row):
    return row["x"] % 3 != 0


def doubled(batch):
    return {"x": [2 * x for x in batch["x"] for _ in range(2)]}


STREAMS = {
    "generated": generated,
    "of a table": lambda: dataset().to_iterable_dataset(num_shards=4),
    "mapped": lambda: generated().map(lambda row: {"x": -row["x"]}),
    "mapped in batches": lambda: generated().map(doubled, batched=True, batch_size=7),
    "filtered": lambda: generated().filter(above),
    "skipped and taken": lambda: generated().skip(5).take(20),
    "concatenated": lambda: datasets.concatenate_datasets([generated(), generated()]),
    "interleaved": lambda: datasets.interleave_datasets([generated(), generated().take(7)]),
    "interleaved at random": lambda: datasets.interleave_datasets([generated(), generated()], [0.3, 0.7], seed=1),
    "numpy": lambda: dataset().to_iterable_dataset(num_shards=4).with_format("numpy"),
    "numpy, mapped": lambda: (
        dataset().to_iterable_dataset(num_shards=4).with_format("numpy").map(lambda row: {"x": row["x"] + 1})
    ),
    "torch": lambda: dataset().to_iterable_dataset(num_shards=4).with_format("torch"),
    "shuffled": lambda: generated().shuffle(seed=3, buffer_size=8),
    "of a shuffled table": lambda: dataset().to_iterable_dataset(num_shards=4).shuffle(seed=3, buffer_size=8),
    "some columns": lambda: dataset().to_iterable_dataset(num_shards=4).select_columns(["x"]),
    "renamed": lambda: dataset().to_iterable_dataset(num_shards=4).rename_column("t", "u"),
    "cast": lambda: dataset().to_iterable_dataset(num_shards=4).cast_column("x", datasets.Value("float32")),
    "batched": lambda: generated().batch(3).map(lambda row: {"x": sum(row["x"])}),
    "repeated": lambda: generated().repeat(2),
    "of a node": lambda: split_by_node(generated(), 1, 3),
    "arrow, mapped in batches": lambda: (
        dataset()
        .to_iterable_dataset(num_shards=4)
        .with_format("arrow")
        .map(lambda table: table, batched=True, batch_size=7)
        .with_format(None)
    ),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_stream_goes_on_exactly_wherever_it_stood(name, epoch):
    flow = ff.pipe(STREAMS[name](), ff.map(lambda row: int(row["x"])), ff.batch(3))
    whole = [batch.tolist() for batch in flow.run(epoch=epoch)]
    assert len(whole) > 2
    for stop in range(len(whole) + 1):
        iterator = flow.run(epoch=epoch)
        assert [batch.tolist() for batch in islice(iterator, stop)] == whole[:stop]
        again = iter(ff.pipe(STREAMS[name](), ff.map(lambda row: int(row["x"])), ff.batch(3)))
        again.load_state_dict(json.loads(json.dumps(iterator.state_dict())))
        assert [batch.tolist() for batch in again] == whole[stop:], stop


def test_a_stream_does_not_read_again_what_it_gave():
    read = []

    def noted(shards):
        for shard in shards:
            read.append(shard)
            yield from ({"x": 10 * shard + i} for i in range(10))

    made = datasets.IterableDataset.from_generator(noted, gen_kwargs={"shards": [0, 1, 2, 3]})
    iterator = iter(ff.flow(made))
    assert xs(islice(iterator, 25)) == list(range(25))
    state = iterator.state_dict()
    read.clear()
    again = iter(ff.flow(made))
    again.load_state_dict(state)
    assert xs(again) == list(range(25, 40))
    assert read == [2, 3]


def test_its_own_state_forgets_what_a_shuffle_buffer_holds():
    """`state_dict` of a shuffled IterableDataset does not have the buffer: what was in it is lost when it is resumed,
    as its docstring says (datasets 5.2.0). A flow of it reads again up to where it stood, and loses nothing."""
    made = STREAMS["shuffled"]()
    whole = xs(made)
    iterator = iter(made)
    first = xs(islice(iterator, 10))
    made.load_state_dict(made.state_dict())
    assert sorted(first + xs(made)) != sorted(whole)
    passing = iter(ff.flow(STREAMS["shuffled"]()))
    first = xs(islice(passing, 10))
    again = iter(ff.flow(STREAMS["shuffled"]()))
    again.load_state_dict(passing.state_dict())
    assert first + xs(again) == whole


def test_the_flows_epoch_is_that_of_a_shuffled_stream():
    flow = ff.flow(STREAMS["shuffled"]())
    for epoch in (0, 1, 5):
        made = STREAMS["shuffled"]()
        made.set_epoch(epoch)
        assert xs(flow.run(epoch=epoch)) == xs(made)
    assert xs(ff.take(80, ff.cycle(flow))) == xs(flow.run(epoch=0)) + xs(flow.run(epoch=1))


def test_a_stream_that_nobody_shuffled_keeps_its_order_in_all_epochs():
    """Not where `set_epoch` is called: that shuffles the shards of any IterableDataset, of one that was never shuffled
    too (datasets 5.2.0, `_prepare_ex_iterable_for_iteration`), and so do trainers that call it."""
    made = generated()
    made.set_epoch(2)
    assert xs(made)[::10] == [30, 20, 0, 10]
    flow = ff.flow(generated())
    assert xs(flow.run(epoch=0)) == xs(flow.run(epoch=2)) == list(range(40))


def test_skipping_what_was_given_is_not_going_on():
    """`skip` and `take` keep the shards in their order, so `dataset.skip(n)` in epoch 2 is not the rest of the pass over
    `dataset` in epoch 2 (datasets 5.2.0)."""
    whole, rest = generated(), generated().skip(5)
    whole.set_epoch(2)
    rest.set_epoch(2)
    assert xs(rest) != xs(whole)[5:]


def test_two_passes_over_a_stream_have_states_of_their_own():
    """Two iterators of one IterableDataset write where they stand in the same place, so its `state_dict` is of neither
    (datasets 5.2.0). `copy.copy` makes no second one: both have the same attributes."""
    made = generated()
    one, other = iter(made), iter(made)
    assert xs(islice(one, 15)) == list(range(15))
    assert xs(islice(other, 3)) == list(range(3))
    next(one)
    assert made.state_dict()["examples_iterable"]["shard_example_idx"] == 4
    assert vars(copy.copy(made)) is vars(made)
    flow = ff.flow(made)
    one, other = iter(flow), iter(flow)
    assert xs(islice(one, 15)) == list(range(15))
    assert xs(islice(other, 3)) == list(range(3))
    for iterator, stood in ((one, 15), (other, 3)):
        again = iter(flow)
        again.load_state_dict(iterator.state_dict())
        assert xs(again) == list(range(stood, 40))
    assert xs(one) == list(range(15, 40))


def test_the_data_set_stays_as_it_was():
    made = STREAMS["shuffled"]()
    made.set_epoch(4)
    before = xs(made)
    state = made.state_dict()
    assert len(list(ff.flow(made).run(epoch=1))) == 40
    assert made.epoch == 4
    assert made.state_dict() == state
    assert xs(made) == before


def test_workers_read_a_stream_as_this_process_does():
    flow = ff.pipe(generated(), ff.map(lambda row: row["x"]), ff.batch(3))
    right = [batch.tolist() for batch in flow]
    prefetched = ff.pipe(flow, ff.prefetch(4, processes=2))
    assert [batch.tolist() for batch in prefetched] == right
    iterator = iter(prefetched)
    assert [batch.tolist() for batch in islice(iterator, 5)] == right[:5]
    again = iter(prefetched)
    again.load_state_dict(iterator.state_dict())
    assert [batch.tolist() for batch in again] == right[5:]


@pytest.mark.parametrize("name", ["generated", "of a table", "shuffled"])
def test_flows_of_a_stream_keep_the_laws(name):
    check(lambda: ff.pipe(STREAMS[name](), ff.map(lambda row: row["x"]), ff.batch(3)))


def test_workers_of_torch_share_a_stream_once():
    """Within a worker of torch's DataLoader an IterableDataset gives this worker's shards only (datasets 5.2.0); the
    flow shares them out as well, and half of them twice would be a quarter."""
    torch = pytest.importorskip("torch")
    from flowfn.interop import as_dataset

    loader = torch.utils.data.DataLoader(
        as_dataset(ff.pipe(generated(), ff.map(lambda row: row["x"]))), batch_size=None, num_workers=2
    )
    assert sorted(map(int, loader)) == list(range(40))


# Flows as data sets


NOON = datetime.datetime(2024, 7, 1, 12, 0, 0, 7)
ROWS = [
    {
        "i": 2**62 + i,
        "f": 0.1 * i,
        "t": "ü" * i,
        "b": bytes([i]),
        "yes": i % 2 == 0,
        "none": None if i == 0 else i,
        "when": NOON + datetime.timedelta(i),
        "there": NOON.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        "day": NOON.date(),
        "late": NOON.time(),
        "long": datetime.timedelta(i, 1, 1),
        "list": [i, i + 1],
        "empty": [] if i < 2 else ["a"],
        "dict": {"x": i, "y": {"z": [str(i)]}},
        "dicts": [{"x": i}, {"x": None}],
    }
    for i in range(5)
]


@pytest.mark.parametrize("streaming", [False, True])
def test_pythons_values_come_back_as_they_were(streaming):
    rows = list(ff.flow(to_hf(ROWS, streaming=streaming)))
    assert rows == ROWS
    assert [list(map(type, row.values())) for row in rows] == [list(map(type, row.values())) for row in ROWS]


def arrays():
    rng = np.random.default_rng(0)
    named = {
        dtype: (100 * rng.random((7, 3))).astype(dtype)
        for dtype in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?")
    }
    named |= {f"{dtype}, one": column[:, 0] for dtype, column in named.items()}
    return named | {"grid": rng.random((7, 2, 3)).astype("f4"), "cube": rng.integers(0, 256, (7, 2, 3, 3), np.uint8)}


def test_arrays_keep_their_dtype_in_the_features():
    flow = ff.from_arrays(**arrays())
    made = to_hf(flow)
    table = from_table(
        made.select_columns([name for name in arrays() if name not in ("grid", "cube")]).with_format("arrow")[:],
        arrays=True,
    )
    for one, other in zip(table, flow, strict=True):
        for name, value in one.items():
            assert value.dtype == other[name].dtype, name
            assert value.tobytes() == other[name].tobytes(), name
    assert repr(made.features["grid"]) == "Array2D(shape=(2, 3), dtype='float32')"
    assert made.features["f4"] == datasets.List(datasets.Value("float32"))
    grids = made.with_format("numpy", columns=["grid"])
    assert np.array_equal(grids[:]["grid"], arrays()["grid"])
    assert [row["cube"] for row in made] == arrays()["cube"].tolist()


def test_numpys_texts_and_times_are_those_of_datasets():
    row = {
        "t": np.str_("ü"),
        "when": np.datetime64("2024-07-01T12", "s"),
        "long": np.timedelta64(5, "ms"),
        "day": np.datetime64("2024-07-01"),
    }
    row |= {"texts": np.array(["a", "bc"]), "f": np.float16(0.1), "x": np.array(2, "u1")}
    made = to_hf([row])
    dtypes = {name: getattr(feature, "dtype", None) for name, feature in made.features.items()}
    assert dtypes | {"texts": None} == {
        "t": "string",
        "when": "timestamp[s]",
        "long": "duration[ms]",
        "day": "date32",
        "texts": None,
        "f": "float16",
        "x": "uint8",
    }
    assert made[0]["when"] == datetime.datetime(2024, 7, 1, 12)
    assert made[0]["day"] == datetime.date(2024, 7, 1)
    assert made[0]["texts"] == ["a", "bc"]
    assert made[0]["f"] == np.float16(0.1)
    assert made[0]["x"] == 2


def test_rows_with_other_columns_are_refused():
    with pytest.raises(ValueError, match=r"columns must be those of the features, \['x'\], got \['x', 'y'\]"):
        to_hf([{"x": 1}, {"x": 1, "y": 2}])


def test_a_streamed_flow_gives_its_arrays_as_they_are():
    flow = ff.pipe(ff.from_arrays(**arrays()), ff.shuffle())
    made = to_hf(flow, streaming=True)
    for one, other in zip(made, flow, strict=True):
        assert all(
            type(one[k]) is type(other[k]) and one[k].dtype == other[k].dtype and one[k].tobytes() == other[k].tobytes()
            for k in one
        )
    assert made.features == to_hf(flow).features
    assert made.info.splits["train"].num_examples == 7


def random(row, rng):
    return {**row, "noise": float(rng.random())}


def shuffled():
    return ff.pipe([{"x": i} for i in range(20)], ff.shuffle(), ff.map(random, rng=True))


def test_a_streamed_flow_has_epochs_and_goes_on_exactly():
    flow = shuffled()
    made = to_hf(flow, streaming=True)
    for epoch in (0, 1, 3, 0):
        made.set_epoch(epoch)
        right = list(flow.run(epoch=epoch))
        assert list(made) == list(made) == right
        for stop in (1, 7, 20):
            iterator = iter(made)
            assert list(islice(iterator, stop)) == right[:stop]
            again = to_hf(shuffled(), streaming=True)
            again.set_epoch(epoch)
            again.load_state_dict(json.loads(json.dumps(made.state_dict())))
            assert list(again) == right[stop:]


def test_a_streamed_flow_takes_what_a_data_set_takes():
    made = to_hf(shuffled(), streaming=True)
    right = list(shuffled())
    assert list(made.take(3)) == right[:3]
    assert list(made.skip(3)) == right[3:]
    assert [row["x"] for row in made.map(lambda row: {"x": -row["x"]})] == [-row["x"] for row in right]
    assert list(made.filter(lambda row: row["x"] > 9)) == [row for row in right if row["x"] > 9]
    assert sorted(xs(made.shuffle(seed=1, buffer_size=5))) == list(range(20))
    assert [row["x"].item() for row in made.with_format("numpy")] == xs(right)
    nodes = [list(split_by_node(made, rank, 3)) for rank in range(3)]
    assert sorted(row["x"] for node in nodes for row in node) == list(range(20))
    assert [row["x"] for node in nodes for row in node] == [row["x"] for rank in range(3) for row in right[rank::3]]


def test_workers_of_torch_share_a_streamed_flow():
    torch = pytest.importorskip("torch")
    made = to_hf(shuffled(), streaming=True)
    for epoch in (0, 2):
        made.set_epoch(epoch)
        rows = list(torch.utils.data.DataLoader(made, batch_size=None, num_workers=2))
        right = {row["x"]: row["noise"] for row in shuffled().run(epoch=epoch)}
        assert {row["x"]: row["noise"] for row in rows} == right
        assert len(rows) == 20


@pytest.mark.filterwarnings("ignore:.*set_vital")  # torchdata 0.11 calls what torch 2.14 warns of
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_stateful_loader_resumes_a_streamed_flow(workers, epoch):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")

    def loader():
        made = to_hf(shuffled(), streaming=True)
        made.set_epoch(epoch)
        return torchdata.StatefulDataLoader(made, batch_size=None, num_workers=workers)

    whole = list(loader())
    assert sorted(row["x"] for row in whole) == list(range(20))
    stopped = loader()
    assert list(islice(iter(stopped), 7)) == whole[:7]
    again = loader()
    again.load_state_dict(stopped.state_dict())
    assert list(again) == whole[7:]


def test_a_flow_without_an_index_is_one_shard():
    made = to_hf(ff.pipe([{"x": i} for i in range(6)], ff.filter(lambda row: row["x"] != 2)), streaming=True)
    assert made.num_shards == 1
    assert xs(made) == [0, 1, 3, 4, 5]
    assert made.info.splits is None


def test_the_present_epoch_is_in_a_data_set():
    flow = shuffled().set_epoch(3)
    assert list(to_hf(flow)) == list(shuffled().run(epoch=3))


def test_pictures_are_pictures():
    image = pytest.importorskip("PIL.Image")
    made = to_hf([{"picture": image.fromarray(np.full((4, 5, 3), i, np.uint8))} for i in range(3)])
    assert isinstance(made.features["picture"], datasets.Image)
    assert [np.asarray(row["picture"])[0, 0, 0] for row in made] == [0, 1, 2]


def test_features_may_be_said():
    rows = [{"x": i, "label": i % 2} for i in range(4)]
    features = {"x": datasets.Value("int8"), "label": datasets.ClassLabel(names=["no", "yes"])}
    for streaming in (False, True):
        made = to_hf(rows, features=features, streaming=streaming)
        assert made.features["label"].int2str(1) == "yes"
        assert list(made) == rows


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        ([1, 2], r"datapoints must be dicts \{column: value\}, got 1; write map"),
        ([{1: 2}], "datapoints must be dicts"),
        ([{"x": object()}], "'x' is .*, for which no feature is known; say it by features="),
        ([{"x": 1j}], "'x' is 1j, for which no feature is known"),
        ([{"x": np.complex64(1)}], "'x' has the dtype complex64, which datasets does not have"),
        ([], "features cannot be found: .* is empty"),
        (ff.cycle([{"x": 1}]), r"is endless; write take\(n\), or streaming=True"),
    ],
    ids=["numbers", "keys", "objects", "complex", "complex of numpy", "empty", "endless"],
)
def test_what_cannot_be_one_is_refused_in_words(flow, words):
    with pytest.raises((TypeError, ValueError), match=rf"to_hf\(\): .*{words}"):
        to_hf(flow)
