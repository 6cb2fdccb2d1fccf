"""Large batches come out of processes as tensors in the memory in which workers stacked them, in few files, and stay."""

import os
from pathlib import Path

import numpy as np
import pytest

import flowfn as ff
from flowfn.interop import to_torch

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.timeout(120)

IMAGES, SHAPE, BATCHES, AHEAD = 32, (3, 224, 224), 40, 2
BYTES = 4 * IMAGES * int(np.prod(SHAPE))  # 19 MB


def image(index):
    return np.broadcast_to(np.float32(index), SHAPE)


def address(array):
    return array.__array_interface__["data"][0]


def file_at(address):
    """The inode of the file in memory that this process has mapped at an address; None if that is memory of its own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(place, 16) for place in line.split()[0].split("-"))
        if start <= address < end:
            return int(line.split()[4]) if "/memfd:" in line else None
    raise ValueError(f"nothing is mapped at {address:#x}")


def with_its_file(batch):
    """A batch, and in which file it lies where this is called."""
    return [batch, file_at(address(batch))]


def files_in_memory():
    """How many bytes each of the files in memory has that this process has open."""
    found = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if os.readlink(descriptor).startswith("/memfd:flowfn"):
                told = descriptor.stat()
                found[told.st_ino] = told.st_blocks * 512
        except OSError:  # closed by now
            pass
    return found


def batches(*stages, count=BATCHES):
    return ff.pipe(range(IMAGES * count), ff.map(image), ff.batch(IMAGES), *stages)


def labels(number):
    """What the images of a batch are filled with."""
    return torch.arange(number * IMAGES, (number + 1) * IMAGES, dtype=torch.float32)


def holds(tensor, number):
    """Whether a tensor is the batch of a number."""
    return tensor.shape == (IMAGES, *SHAPE) and torch.equal(tensor, labels(number).view(-1, 1, 1, 1).expand_as(tensor))


def holds_rows(view, number):
    """Whether a view, its channels last, is of the batch without the first five."""
    expected = labels(number)[5:].view(-1, 1, 1, 1)
    return len(view) == IMAGES - 5 and torch.equal(view, expected.expand_as(view))


@pytest.fixture(scope="module", autouse=True)
def no_workers():
    ff.shut_down()
    yield
    ff.shut_down()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_batch_is_a_tensor_where_a_worker_has_stacked_it(processes):
    here = []

    def looked_at(pair):
        here.append(address(pair[0]))
        return pair

    flow = batches(ff.map(with_its_file), ff.prefetch(AHEAD, processes=processes), ff.map(looked_at), to_torch())
    for number, (tensor, made_in) in enumerate(flow):
        assert tensor.data_ptr() == here[number]
        assert file_at(tensor.data_ptr()) == made_in is not None
        assert holds(tensor, number)
    assert number == BATCHES - 1


@pytest.mark.parametrize("processes", [1, 2])
def test_40_batches_go_round_in_the_files_of_the_first(processes):
    """As long as nobody knows how long a batch takes, workers make the first ones together, in parts that are joined
    here; from then on they come whole, in the same files, which are as many as those that are ahead, in work and here."""
    files, places = [], []
    for tensor in batches(ff.prefetch(AHEAD, processes=processes), to_torch()):
        files.append(files_in_memory())
        places.append(file_at(tensor.data_ptr()))
    assert len(files) == BATCHES
    assert set(files[-1]) <= set(files[BATCHES // 2])
    assert max(sum(one.values()) for one in files) <= 1.2 * BYTES * (AHEAD + 3 * processes + 3)
    assert set(places[BATCHES // 2 :]) <= set(files[-1])
    assert "/dev/shm/torch" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("processes", [1, 2])
def test_tensors_that_are_kept_stay_as_they_were_while_others_come(processes):
    kept = {}
    for number, tensor in enumerate(batches(ff.prefetch(AHEAD, processes=processes), to_torch(), count=24)):
        if number % 3 == 0:
            kept[number] = tensor
        if number % 6 == 5:
            kept[number - 2] = kept[number - 2][5:].permute(0, 2, 3, 1)  # of a tensor a view is left
    assert len({tensor.data_ptr() for tensor in kept.values()}) == len(kept) == 8
    for number, tensor in kept.items():
        assert holds(tensor, number) if number % 6 == 0 else holds_rows(tensor, number)


def test_what_is_written_into_a_tensor_is_not_in_the_batches_that_come_after():
    for number, tensor in enumerate(batches(ff.prefetch(AHEAD, processes=2), to_torch(), count=12)):
        assert holds(tensor, number)
        tensor.zero_()
