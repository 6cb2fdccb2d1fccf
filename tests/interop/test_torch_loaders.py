"""A flow in torch's DataLoader gives what it gives by itself, epoch after epoch, with any workers."""

import copy
import multiprocessing
import os
import pickle
import queue
import threading
from itertools import chain

import pytest
from flows_for_loaders import FLOWS, batched, flow_of, plain, records, serial

import flowfn as ff
from flowfn.interop import as_dataset

torch = pytest.importorskip("torch")

from torch.utils.data import ChainDataset, DataLoader, IterableDataset, _utils, get_worker_info  # noqa: E402

from flowfn.interop import torch_datasets  # noqa: E402

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than processors
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def loader(dataset, **options):
    return DataLoader(dataset, batch_size=None, **options)


SETTINGS = {
    "no workers": {},
    "one worker": {"num_workers": 1},
    "two workers": {"num_workers": 2},
    "three workers": {"num_workers": 3},
    "two that stay": {"num_workers": 2, "persistent_workers": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", FLOWS)
def test_each_pass_is_the_next_epoch_in_the_order_of_the_flow(kind, setting):
    loading = loader(as_dataset(batched(kind)), **SETTINGS[setting])
    assert [plain(loading) for _ in range(3)] == serial(batched(kind), range(3))


@pytest.mark.long
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("stay", [False, True])
def test_each_pass_is_the_next_epoch_however_workers_are_started(method, stay):
    loading = loader(as_dataset(batched()), num_workers=2, multiprocessing_context=method, persistent_workers=stay)
    assert [plain(loading) for _ in range(2)] == serial(batched(), range(2))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", FLOWS)
def test_where_torch_makes_batches_every_datapoint_comes_once(kind, setting):
    loading = DataLoader(as_dataset(flow_of(kind)), batch_size=4, **SETTINGS[setting])
    for epoch in range(2):
        assert records(loading) == sorted(plain(flow_of(kind).run(epoch=epoch)))


def test_without_workers_torchs_batches_are_the_flows():
    loading = DataLoader(as_dataset(flow_of()), batch_size=3)
    assert [plain(loading) for _ in range(2)] == serial(batched(), range(2))


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_pass_that_is_broken_off_is_an_epoch(setting):
    loading = loader(as_dataset(batched()), **SETTINGS[setting])
    for batches in (1, 0, 4):
        passing = iter(loading)
        for _ in range(batches):
            next(passing)
        del passing
    assert plain(loading) == serial(batched(), [3])[0]


@pytest.mark.parametrize("setting", SETTINGS)
def test_loaders_of_one_dataset_take_turns(setting):
    dataset = as_dataset(batched())
    one, other = (loader(dataset, **SETTINGS[setting]) for _ in range(2))
    assert [plain(one), plain(other), plain(one)] == serial(batched(), range(3))


@pytest.mark.parametrize("setting", ["no workers", "two workers", "three workers"])
@pytest.mark.parametrize("seeded", [False, True])
def test_passes_side_by_side_are_each_of_one_epoch(setting, seeded):
    """Their workers start at the same time, and torch may have given them the same seeds."""
    dataset, expected = as_dataset(batched()), serial(batched(), range(6))
    for turn in range(3):
        passes = []
        for _ in range(2):
            generator = torch.Generator().manual_seed(0) if seeded else None
            passes.append(iter(loader(dataset, generator=generator, **SETTINGS[setting])))
        got = [list(one) for one in zip(*passes, strict=True)]
        sides = sorted(plain(side) for side in zip(*got))
        assert sides == sorted(expected[2 * turn : 2 * turn + 2])


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("by", ["generator", "manual_seed"])
def test_seeding_torch_anew_repeats_no_epoch(setting, by):
    """What a DataLoader gives workers as seed comes again then, which is all that it tells them."""
    generator = torch.Generator() if by == "generator" else None
    loading, got = loader(as_dataset(batched()), generator=generator, **SETTINGS[setting]), []
    for turn in range(4):
        (generator or torch).manual_seed(0)
        if turn == 1:  # one is broken off, maybe before all workers have begun
            next(iter(loading))
        else:
            got.append(plain(loading))
    assert got == serial(batched(), [0, 2, 3])


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_epoch_can_be_set(setting):
    dataset = as_dataset(batched())
    loading = loader(dataset, **SETTINGS[setting])
    got = []
    for epoch in (7, None, 2):
        if epoch is not None:
            dataset.set_epoch(epoch)
        got.append(plain(loading))
    assert got == serial(batched(), [7, 8, 2])
    with pytest.raises(ValueError, match=r"set_epoch\(\): epoch must be an integer >= 0, got -1"):
        dataset.set_epoch(-1)


@pytest.mark.parametrize("setting", ["no workers", "two workers"])
def test_seed_and_epoch_are_the_flows_own(setting):
    flow = batched().reset_state(5).set_epoch(3)
    dataset = as_dataset(flow)
    flow.reset_state(6)  # workers would not hear of it
    loading = loader(dataset, **SETTINGS[setting])
    assert [plain(loading), plain(loading)] == serial(batched().reset_state(5), [3, 4])


def test_a_seed_out_of_entropy_is_the_same_in_all_workers():
    flow = batched().reset_state()
    assert plain(loader(as_dataset(flow), num_workers=2)) == plain(flow)


def test_copies_count_for_themselves():
    dataset = as_dataset(batched())
    plain(loader(dataset))
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset), copy.copy(dataset)):
        assert [plain(loader(other)) for _ in range(2)] == serial(batched(), [1, 2])
    assert plain(loader(dataset)) == serial(batched(), [1])[0]


def training(dataset, results):
    """What a rank of a training does, which was started with a data set."""
    results.put([plain(loader(dataset, num_workers=2)) for _ in range(2)] + [plain(loader(dataset))])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_processes_that_were_given_the_dataset_count_for_themselves(method):
    """Ranks of a training: they share memory with one another, and so do all their workers."""
    dataset, context = as_dataset(batched()), multiprocessing.get_context(method)
    plain(loader(dataset))
    results = context.SimpleQueue()
    ranks = [context.Process(target=training, args=(dataset, results)) for _ in range(2)]
    for rank in ranks:
        rank.start()
    got = [results.get() for _ in ranks]
    for rank in ranks:
        rank.join(60)
    assert got == [serial(batched(), [1, 2, 3])] * 2
    assert plain(loader(dataset)) == serial(batched(), [1])[0]


def test_datasets_can_be_chained():
    """An IterableDataset within another is told of workers as if it were alone."""
    chained = ChainDataset([as_dataset(batched()), as_dataset(batched())])
    for workers in (0, 2):
        chained.datasets = [as_dataset(batched()) for _ in range(2)]
        assert records(DataLoader(chained, batch_size=None, num_workers=workers)) == sorted(
            2 * [*chain(*serial(batched(), [0])[0])]
        )
    dataset = as_dataset(batched())
    twice = DataLoader(ChainDataset([dataset, dataset]), batch_size=None, num_workers=2, persistent_workers=True)
    for epochs in ([0, 1], [2, 3]):
        assert records(twice) == sorted(chain(*chain(*serial(batched(), epochs))))


def test_workers_that_are_threads_share_the_datapoints(monkeypatch):
    """torch 2.14 tells in WorkerInfo whether a worker is a thread. There is no loader with such workers yet."""
    local = threading.local()
    monkeypatch.setattr(torch_datasets, "get_worker_info", lambda: local.info)
    dataset, expected = as_dataset(batched()), serial(batched(), range(3))
    fields = {"worker_method": "thread"} if "worker_method" in _utils.worker.WorkerInfo.__annotations__ else {}

    def work(worker, got):
        local.info = _utils.worker.WorkerInfo(id=worker, num_workers=2, seed=4 + worker, dataset=dataset, **fields)
        got[worker] = plain(dataset)

    for epoch in range(3):
        got = [[], []]
        workers = [threading.Thread(target=work, args=(worker, got)) for worker in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [batch for both in zip(*got) for batch in both] == expected[epoch]


@pytest.mark.parametrize("setting", ["no workers", "two workers"])
def test_lengths_are_the_flows(setting):
    assert len(loader(as_dataset(batched()), **SETTINGS[setting])) == 6
    assert len(DataLoader(as_dataset(flow_of()), batch_size=4, **SETTINGS[setting])) == 5
    with pytest.raises(TypeError, match="is not known before it is read"):
        len(loader(as_dataset(batched("a stream")), **SETTINGS[setting]))


def failing(x):
    if x == 5:
        raise KeyError(f"no picture {x}")
    return x


@pytest.mark.parametrize("setting", SETTINGS)
def test_an_error_names_stage_and_datapoint(setting):
    flow = ff.pipe(range(12), ff.map(failing))
    with pytest.raises(KeyError, match="no picture 5") as caught:
        list(loader(as_dataset(flow), **SETTINGS[setting]))
    said = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "in map(failing), its datapoint 5" in said


@pytest.mark.parametrize("setting", ["one worker", "two workers"])
def test_processes_in_the_flow_are_threads_within_workers(setting):
    """A worker of torch is daemonic, and may have no children."""
    flow = ff.pipe(range(12), ff.map(lambda x: [x, os.getpid()]), ff.prefetch(2, processes=2))
    got = list(loader(as_dataset(flow), **SETTINGS[setting]))
    assert [x for x, _ in got] == [*range(12)]
    assert len({pid for _, pid in got}) == SETTINGS[setting]["num_workers"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"shuffle": True},
            "DataLoader with IterableDataset: expected unspecified shuffle option, but got shuffle=True",
        ),
        ({"sampler": range(3)}, "DataLoader with IterableDataset: expected unspecified sampler option"),
    ],
)
def test_torch_refuses_another_order(options, said):
    with pytest.raises(ValueError, match=said):
        DataLoader(as_dataset(batched()), **options)


class Shares(IterableDataset):
    """It gives each worker a part, as torch's documentation has it, and data sets of webdataset and Hugging Face do."""

    def __iter__(self):
        info = get_worker_info()
        yield from range(6) if info is None else range(info.id, 6, info.num_workers)


UNSHARED = {
    "an iterator": (lambda: ff.flow(iter(range(6))), "each would read one of its own"),
    "a queue": (lambda: ff.from_queue(queue.SimpleQueue()), "each would read one of its own"),
    "in any order": (lambda: ff.pipe(range(6), ff.prefetch(2, threads=2, ordered=False)), "as they come"),
    "an IterableDataset": (lambda: ff.flow(Shares()), "may give each of them a part"),
    "a loader of one": (lambda: ff.flow(DataLoader(Shares(), batch_size=None)), "may give each of them a part"),
}


@pytest.mark.parametrize("kind", UNSHARED)
def test_what_workers_would_not_read_alike_is_not_shared(kind):
    make, said = UNSHARED[kind]
    with pytest.raises(TypeError, match=rf"as_dataset\(\): 2 workers of torch cannot share .*{said}.*num_workers=0"):
        list(loader(as_dataset(make()), num_workers=2))
    if kind != "a queue":
        for workers in (0, 1):
            assert sorted(loader(as_dataset(make()), num_workers=workers)) == [*range(6)]


def test_a_flow_that_stands_within_an_epoch_is_refused():
    flow = batched()
    state = next(iterator := iter(flow)) is not None and iterator.state_dict()
    assert plain(as_dataset(flow)) == serial(batched(), [1])[0]  # it was only looked into
    loaded = batched().load_state_dict(state)
    with pytest.raises(ValueError, match=r"as_dataset\(\): the state of the flow is within epoch 0 \(position 1\)"):
        as_dataset(loaded)
    assert plain(as_dataset(loaded.set_epoch(2))) == serial(batched(), [2])[0]


def test_anything_that_makes_a_flow_makes_a_dataset():
    dataset = as_dataset([1, 2, 3])
    assert list(loader(dataset)) == [1, 2, 3]
    assert repr(dataset) == "as_dataset(flow([1, 2, 3]))"
    with pytest.raises(TypeError, match=r"as_dataset\(\): a source cannot be a mapping"):
        as_dataset({"x": 1})
