"""torch's data sets and loaders as sources of flows, and flows that are given to a DataLoader as they are."""

from itertools import chain

import numpy as np
import pytest

import flowfn as ff
import flowfn.testing
from flowfn.interop import as_dataset, to_torch

torch = pytest.importorskip("torch")

from torch.utils import data  # noqa: E402

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


class Rows(data.Dataset):
    def __len__(self):
        return 11

    def __getitem__(self, index):
        return torch.tensor([index, index * index])


class Together(Rows):
    def __getitems__(self, indices):
        return [torch.tensor([i, i * i]) for i in indices]


class Stream(data.IterableDataset):
    def __iter__(self):
        yield from map(Rows().__getitem__, range(11))


class Noisy(Rows):
    def __getitem__(self, index):
        return torch.tensor([float(index), torch.rand(()).item()])


def plain(iterable):
    return [one.tolist() if isinstance(one, torch.Tensor) else one for one in iterable]


def rows(order=range(11)):
    return [[i, i * i] for i in order]


# As sources

DATASETS = {
    "map-style": (Rows, True),
    "several at once": (Together, True),
    "TensorDataset": (lambda: data.TensorDataset(torch.arange(11)), True),
    "ConcatDataset": (lambda: data.ConcatDataset([Rows(), Together()]), True),
    "Subset": (lambda: data.Subset(Together(), [3, 1, 2]), True),
    "IterableDataset": (Stream, False),
    "ChainDataset": (lambda: data.ChainDataset([Stream(), Stream()]), False),
}


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_is_read_as_torch_reads_it(name):
    make, seekable = DATASETS[name]
    flow = ff.flow(make())
    assert flow.seekable is seekable
    theirs = list(data.DataLoader(make(), batch_size=None))
    listed = lambda one: [part.tolist() for part in one] if isinstance(one, (tuple, list)) else one.tolist()
    assert [*map(listed, flow)] == [*map(listed, theirs)]
    ff.testing.check(lambda: ff.pipe(make(), ff.shuffle() if seekable else None, ff.map(listed)))


def order_of(loader):
    """The rows of a loader's batches, one after the other."""
    return ff.pipe(loader, ff.map(lambda batch: batch.tolist()))


def generator():
    return torch.Generator().manual_seed(3)


LOADERS = {
    "in order": lambda **o: data.DataLoader(Rows(), batch_size=4, **o),
    "shuffled": lambda **o: data.DataLoader(Rows(), batch_size=4, shuffle=True, **o),
    "of a generator": lambda **o: data.DataLoader(Rows(), batch_size=4, shuffle=True, generator=generator(), **o),
    "a sampler": lambda **o: data.DataLoader(Rows(), batch_size=4, sampler=data.SubsetRandomSampler(range(11)), **o),
    "weights": lambda **o: data.DataLoader(
        Rows(), batch_size=4, sampler=data.WeightedRandomSampler([1.0] * 11, 20, generator=generator()), **o
    ),
    "drawn again": lambda **o: data.DataLoader(
        Rows(), batch_size=4, sampler=data.RandomSampler(Rows(), replacement=True, num_samples=80), **o
    ),
    "of a batch sampler": lambda **o: data.DataLoader(
        Rows(), batch_sampler=data.BatchSampler(data.RandomSampler(Rows()), 4, False), **o
    ),
    "a rank": lambda **o: data.DataLoader(
        Rows(), batch_size=2, sampler=data.DistributedSampler(Rows(), num_replicas=2, rank=1), **o
    ),
    "a stream": lambda **o: data.DataLoader(Stream(), batch_size=4, **o),
}

SAMPLERS = {
    "at random": lambda: data.RandomSampler(Rows()),
    "of a generator": lambda: data.RandomSampler(Rows(), generator=generator()),
    "drawn again": lambda: data.RandomSampler(Rows(), replacement=True, num_samples=80),
    "drawn again of a generator": lambda: data.RandomSampler(
        Rows(), replacement=True, num_samples=80, generator=generator()
    ),
    "a subset": lambda: data.SubsetRandomSampler(range(3, 11)),
    "weights": lambda: data.WeightedRandomSampler([1.0] * 11, 20),
    "batches": lambda: data.BatchSampler(data.RandomSampler(Rows()), 4, False),
    "a rank": lambda: data.DistributedSampler(Rows(), num_replicas=2, rank=1),
}


@pytest.mark.parametrize("name", LOADERS)
def test_what_a_loader_draws_is_fixed_by_the_pass(name):
    """What its samplers draw comes out of torch's global generator, or of one that goes on from pass to pass."""
    flow = order_of(LOADERS[name]())
    first, second = list(flow), list(flow)
    torch.rand(3)
    assert [list(flow.run(epoch=1)), list(flow.run(epoch=0))] == [second, first]
    assert (first != second) is (name not in ("in order", "a stream"))
    assert list(order_of(LOADERS[name]())) == first
    ff.testing.check(lambda: order_of(LOADERS[name]()), stops=3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_a_sampler_draws_is_fixed_by_the_pass(name):
    flow = ff.flow(SAMPLERS[name]())
    first, second = list(flow), list(flow)
    torch.rand(3)
    assert first != second
    assert [list(flow.run(epoch=1)), list(flow.run(epoch=0))] == [second, first]
    assert len(flow) == len(first) == len(SAMPLERS[name]())
    ff.testing.check(lambda: ff.flow(SAMPLERS[name]()), stops=3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_passes_side_by_side_draw_of_their_own(name):
    """A sampler with replacement draws 32 indices at a time of a generator that is in it (torch 2.14.1, sampler.py)."""
    sampler = SAMPLERS[name]()
    flow, loader = ff.flow(sampler), order_of(data.DataLoader(list(range(11)), batch_size=2, sampler=SAMPLERS[name]()))
    for one in (flow, loader) if name != "batches" else (flow,):
        expected = [list(one.run(epoch=epoch)) for epoch in (0, 1)]
        assert list(zip(*[one.run(epoch=epoch) for epoch in (0, 1)])) == list(zip(*expected))


@pytest.mark.parametrize("drawn", [{}, {"generator": generator()}], ids=["", "of a generator"])
def test_persistent_workers_change_nothing_of_a_pass(drawn):
    options = {"num_workers": 1, "persistent_workers": True, **drawn}
    loader = data.DataLoader(list(range(11)), batch_size=2, shuffle=True, **options)
    flow = order_of(loader)
    first, second = list(flow), list(flow)
    assert first != second
    assert [list(flow.run(epoch=1)), list(flow.run(epoch=0))] == [second, first]
    assert list(order_of(data.DataLoader(list(range(11)), batch_size=2, shuffle=True, **drawn)).run(epoch=0)) == first
    assert len(list(loader)) == 6  # with workers of its own, where somebody else iterates it


def test_workers_of_a_loader_are_seeded_by_the_pass():
    for workers in (1, 2):
        flow = order_of(data.DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers))
        first, second = list(flow), list(flow)
        assert first != second
        iterator = iter(flow.set_epoch(0))
        assert [next(iterator)] == first[:1]
        again = order_of(data.DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers))
        assert list(again.load_state_dict(iterator.state_dict())) == first[1:]


def test_a_loader_is_as_long_as_it_says():
    assert len(ff.flow(LOADERS["shuffled"]())) == 3


def test_the_global_generator_is_where_it_was():
    flow = order_of(LOADERS["shuffled"]())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(flow)
    assert torch.equal(torch.get_rng_state(), before)


TENSORS = {
    "bfloat16": lambda: torch.ones(2, dtype=torch.bfloat16),
    "with gradients": lambda: torch.ones(2, requires_grad=True),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "elsewhere": lambda: torch.ones(2, device="meta"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_no_array_can_be_made_of_are_named_by_batch(name):
    rows = [[TENSORS[name](), 1]] * 2
    with pytest.raises(
        TypeError, match=r"^batch\(\): torch's Tensor .* cannot become a NumPy array .*collate=torch.stack"
    ):
        list(ff.pipe(rows, ff.batch(2), to_torch()))
    ((stacked, numbers),) = ff.pipe(rows, ff.batch(2, collate=[torch.stack, ff.stack]), to_torch())
    kept = (stacked.dtype, stacked.requires_grad, stacked.layout, stacked.device)
    tensor = TENSORS[name]()
    assert kept == (tensor.dtype, tensor.requires_grad, tensor.layout, tensor.device)
    assert (numbers.dtype, numbers.tolist()) == (torch.int64, [1, 1])


# In a DataLoader as they are


def noisy(x, rng):
    return x, float(rng.random())


RANDOM = {
    "shuffled": [ff.shuffle()],
    "augmented": [ff.map(noisy, rng=True)],
    "in batches": [ff.shuffle(), ff.batch(2)],
    "drawn": [ff.sample(4)],
    "after a freeze": [ff.shuffle(), ff.freeze(), ff.map(noisy, rng=True)],
    "guarded": [ff.guard(ff.map(noisy, rng=True), errors=OSError)],
}
STEADY = {
    "as it is": [],
    "mapped": [ff.map(float)],
    "batched": [ff.batch(2)],
    "frozen": [ff.shuffle(), ff.map(noisy, rng=True), ff.freeze()],
    "kept": [ff.shuffle(), ff.cache()],
}
WAYS = {
    "no workers": {},
    "one by one": {"batch_size": None},
    "two workers": {"num_workers": 2},
    "torch's order": {"shuffle": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RANDOM)
def test_a_random_flow_is_refused_since_it_would_repeat_one_epoch(name, way):
    """A DataLoader calls __getitem__ and __getitems__, with nothing that tells one epoch from another."""
    loader = data.DataLoader(ff.pipe(range(8), *RANDOM[name]), **WAYS[way])
    with pytest.raises(
        TypeError, match=r"a DataLoader does not tell a flow which epoch it is, .*DataLoader\(flowfn.interop.as_dataset"
    ):
        next(iter(loader))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STEADY)
def test_a_flow_that_is_the_same_in_every_epoch_may_be_read_by_index(name, way):
    flow = ff.pipe(range(8), *STEADY[name])
    loader = data.DataLoader(flow, collate_fn=lambda batch: batch, **WAYS[way])
    read = list(loader) if way == "one by one" else [*chain(*loader)]
    key = lambda one: str(one)
    assert sorted(map(key, read)) == sorted(map(key, flow))


@pytest.mark.parametrize("wrap", [lambda f: data.Subset(f, range(4)), lambda f: data.ConcatDataset([f, f])])
def test_nor_does_a_dataset_of_torch_around_it_tell_the_epoch(wrap):
    loader = data.DataLoader(wrap(ff.pipe(range(8), ff.shuffle())), batch_size=2)
    with pytest.raises(TypeError, match="does not tell a flow which epoch it is"):
        next(iter(loader))
    assert wrap(ff.pipe(range(8), ff.shuffle()))[0] in range(8)  # by whom an epoch may be known


def test_random_flows_are_read_by_index_everywhere_else():
    flow = ff.pipe(range(8), ff.shuffle(), ff.map(noisy, rng=True))
    assert [flow[i] for i in range(8)] == flow.__getitems__(range(8)) == list(flow)


def test_a_flow_that_no_index_reads_is_told_so_with_what_to_write():
    said = r"DataLoader\(flowfn.interop.as_dataset\(flow\), batch_size=None\)"
    unsized = ff.pipe(lambda: iter(range(8)), ff.map(float))
    for options in ({}, {"batch_size": 2, "num_workers": 1}, {"batch_size": None}):
        with pytest.raises(TypeError, match=f"length of .* is not known before it is read: .*{said}"):
            list(data.DataLoader(unsized, **options))
    with pytest.raises(TypeError, match=f"is endless, .*{said}"):
        list(data.DataLoader(ff.pipe(range(8), ff.cycle())))
    with pytest.raises(TypeError, match=f"a DataLoader reads by index, and .* can only be iterated.*{said}"):
        list(data.DataLoader(ff.pipe(data.DataLoader(Rows()), ff.map(float))))
    with pytest.raises(TypeError) as caught:
        len(unsized)
    assert "DataLoader" not in str(caught.value)
    assert sum(len(batch) for batch in data.DataLoader(as_dataset(unsized), batch_size=2)) == 8


def test_arrays_in_memory_are_read_in_batches_of_torch():
    flow = ff.from_arrays(np.arange(8), np.arange(8.0))
    (x, y), *rest = data.DataLoader(flow, batch_size=3)
    assert (x.tolist(), y.tolist(), len(rest)) == ([0, 1, 2], [0.0, 1.0, 2.0], 2)
