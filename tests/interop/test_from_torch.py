"""What torch's DataLoader does where a row of examples/from_others.md tells of a difference, beside what is done here."""

from functools import partial

import numpy as np
import pytest
from beside import RNG, ROWS, SEQUENCES, listed, plain, untupled

import flowfn as ff
from flowfn.interop import to_torch

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def data():
    return pytest.importorskip("torch.utils.data")


def test_batches_of_torch_have_the_same_numbers_and_dtypes_in_a_list(data):
    """A DataLoader makes a list of tuples (torch 2.14.1, default_collate: "backwards compatibility")."""
    flow = ff.batch(3, ROWS)
    theirs = [*data.DataLoader(ROWS, batch_size=3)]
    assert untupled(listed(theirs)) == untupled(listed(flow))
    assert {type(batch) for batch in theirs} == {list}
    assert {type(batch) for batch in flow} == {tuple}
    for their, our in zip(theirs, ff.pipe(flow, to_torch()), strict=True):
        assert [one.dtype for one in their[:3]] == [one.dtype for one in our[:3]]


def test_every_pass_of_a_loader_of_torch_draws_from_the_global_generator(data):
    """In torch 2.14.1 a pass takes a seed for its workers from it, though there are none and nothing is shuffled. So
    weights that are drawn behind a pass over a validation set are others than without it."""
    import torch

    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(data.DataLoader(range(3)))
    assert not torch.equal(before, torch.get_rng_state())
    shuffled = data.DataLoader(range(20), shuffle=True)
    orders = []
    for drawn in (0, 1):
        torch.manual_seed(0)
        torch.rand(drawn)
        orders.append(listed(shuffled))
        before = torch.get_rng_state()
        orders.append(listed(ff.shuffle(range(20)).run()))
        assert torch.equal(before, torch.get_rng_state())
    assert orders[0] != orders[2]
    assert orders[1] == orders[3]


def test_a_sampler_of_torch_is_a_source(data):
    letters, sampler = "abcde", [3, 0, 3]
    assert [one for (one,) in data.DataLoader(letters, sampler=sampler)] == [
        *ff.pipe(sampler, ff.map(letters.__getitem__))
    ]
    chosen = [letters[i] for i in data.SubsetRandomSampler([4, 2, 1])]
    assert sorted(chosen) == sorted(ff.pipe(letters.split(), ff.flat_map(iter), ff.filter("ceb".__contains__)))
    assert sorted(chosen) == sorted(ff.pipe([*letters], ff.subset([4, 2, 1]), ff.shuffle()))


def test_torch_draws_by_at_most_so_many_weights(data):
    """WeightedRandomSampler calls torch.multinomial, which knows 2**24 categories at most (torch 2.14.1)."""
    import torch

    many = np.ones(2**24 + 1, np.float32)
    with pytest.raises(RuntimeError, match=r"cannot exceed 2\^24"):
        list(data.WeightedRandomSampler(torch.as_tensor(many), 3))
    assert len([*ff.sample(3, range(len(many)), weights=many)]) == 3
    drawn = {*data.WeightedRandomSampler([1, 0, 3], 50)}
    assert drawn == {*ff.sample(50, range(3), weights=[1, 0, 3], replacement=True)} == {0, 2}


class Noisy:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.random.random()


def test_random_numbers_in_workers_of_torch_change_with_their_number(data):
    import torch

    def noise(workers):
        torch.manual_seed(0)
        return listed(data.DataLoader(Noisy(), num_workers=workers))

    assert noise(1) == noise(1) != noise(2)
    ours = ff.map(lambda x, rng: rng.random(), range(4), rng=True)
    assert listed(ours.run()) == listed(ff.prefetch(2, ours, processes=2).run())


def test_what_torch_collates_is_given_as_a_list(data):
    theirs = data.DataLoader(range(5), batch_size=2, collate_fn=sum)
    assert [*theirs] == [*ff.pipe(range(5), ff.batch(2, collate=None), ff.map(sum))]


def test_torch_pads_a_batch_alike(data):
    import torch
    from torch.nn.utils.rnn import pad_sequence

    theirs = pad_sequence([*map(torch.as_tensor, SEQUENCES)], batch_first=True, padding_value=-1)
    (ours,) = ff.batch(len(SEQUENCES), SEQUENCES, collate=ff.pad(-1))
    assert plain(theirs) == plain(ours)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("size", [10, 8, 7, 2])
def test_shares_of_ranks_are_those_of_torch(data, size, drop):
    for rank in range(4):
        theirs = data.DistributedSampler(range(size), 4, rank, shuffle=False, drop_last=drop)
        assert [*theirs] == [*ff.shard(rank, 4, range(size), remainder="drop" if drop else "pad")]


def test_torch_repeats_an_order_where_set_epoch_is_forgotten(data):
    theirs, ours = data.DistributedSampler(range(20), 2, 0), ff.pipe(range(20), ff.shuffle(), ff.shard(0, 2))
    assert [*theirs] == [*theirs]
    assert [*ours] != [*ours]
    theirs.set_epoch(1)
    assert [*theirs] != [*data.DistributedSampler(range(20), 2, 0)]
    assert [*ours.set_epoch(1)] == [*ours.run(epoch=1)]


def test_parts_of_torch_are_of_these_sizes(data):
    """random_split rounds down and gives what is left to the first parts, one each; and refuses what is no whole."""
    parts = partial(data.random_split, range(10))
    assert [[*map(len, parts([0.33, 0.33, 0.34]))], [*map(len, ff.split(range(10), 0.33, 0.33, 0.34))]] == [
        [4, 3, 3],
        [3, 4, 3],
    ]
    assert [*map(len, parts([7, 3]))] == [*map(len, ff.split(range(10), 7, 3))] == [7, 3]
    assert [*parts([5, 5])[0]] != [*parts([5, 5])[0]] or [*parts([5, 5])[0]] != [*parts([5, 5])[0]]
    assert [*ff.split(range(10), 5, 5)[0]] == [*ff.split(range(10), 5, 5)[0]]
    with pytest.raises(ValueError, match="Sum of input lengths"):
        parts([0.25, 0.25, 0.25])


def test_rows_of_tensors_are_those_of_arrays(data):
    x, y = np.arange(6.0).reshape(3, 2), np.arange(3)
    import torch

    ours = ff.from_arrays(x, y)
    assert untupled(listed(data.TensorDataset(torch.tensor(x), torch.tensor(y)))) == untupled(listed(ours))
    with pytest.raises(ValueError, match="read-only"):
        ours[0][0][:] = 7


def test_each_worker_of_torch_reads_a_stream_from_its_beginning(data):
    class Stream(data.IterableDataset):
        def __iter__(self):
            return iter(range(4))

    assert sorted(listed(data.DataLoader(Stream(), batch_size=None, num_workers=2))) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [*ff.pipe(Stream(), ff.prefetch(2, processes=2))] == [0, 1, 2, 3]
    assert [*ff.pipe(lambda: iter(range(4)), ff.prefetch(2, processes=2))] == [0, 1, 2, 3]


def test_torchdatas_state_wants_as_many_workers(data):
    """StatefulDataLoader (torchdata 0.11) asserts it, without a word."""
    loaders = pytest.importorskip("torchdata.stateful_dataloader")

    def loader(workers):
        return loaders.StatefulDataLoader(range(8), batch_size=2, num_workers=workers)

    def read(workers):
        return ff.pipe(range(8), ff.batch(2), ff.prefetch(2, processes=workers))

    theirs, ours = loader(2), iter(read(2))
    passing = iter(theirs)
    assert plain(next(passing)) == plain(next(ours)) == [0, 1]
    loaded = theirs.state_dict()
    other = loader(1)
    other.load_state_dict(loaded)
    with pytest.raises(AssertionError):
        list(other)
    assert listed(read(1).load_state_dict(ours.state_dict())) == [[2, 3], [4, 5], [6, 7]]
    ours.close()


def test_torchvision_normalizes_to_the_same_numbers(data):
    import torch

    from flowfn.image import normalize

    functional = pytest.importorskip("torchvision.transforms.functional")
    images = RNG.integers(0, 256, (4, 5, 6, 3), "uint8")
    mean, deviation = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    theirs = torch.stack([functional.normalize(functional.to_tensor(one), mean, deviation) for one in images])
    collate = [normalize(tuple(255 * m for m in mean), tuple(255 * d for d in deviation)), ff.stack]
    ((ours, labels),) = ff.batch(4, [[one, 1] for one in images], collate=collate)
    assert (ours.dtype, ours.shape, labels.tolist()) == (np.float32, (4, 3, 5, 6), [1] * 4)
    np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-6)


def test_torchvision_lists_files_by_their_letters(data, tmp_path):
    """torchvision 0.29's ImageFolder has "img10" before "img2"; labels are the same."""
    from PIL import Image

    from flowfn.datasets import image_folder

    folders = pytest.importorskip("torchvision.datasets")
    for name in ("cat/img2.png", "cat/img10.png", "dog/img1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((1, 1, 3), int(name[-6:-4].strip("g")), "uint8")).save(tmp_path / name)
    theirs = [[np.asarray(image)[0, 0, 0].item(), label] for image, label in folders.ImageFolder(tmp_path)]
    ours = [[image[0, 0, 0].item(), label] for image, label in image_folder(tmp_path)]
    assert (theirs, ours) == ([[10, 0], [2, 0], [1, 1]], [[2, 0], [10, 0], [1, 1]])
