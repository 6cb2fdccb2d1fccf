"""MNIST and the IDX format: files made byte by byte, and broken."""

import gzip
import hashlib
import pickle
import struct
import sys

import numpy as np
import pytest

import flowfn as ff
from flowfn.datasets import FASHION_MNIST_LABELS, MNIST_LABELS, fashion_mnist, mnist, read_idx
from flowfn.testing import check, same

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 10


def idx(array, code=0x08):
    big = array.astype(array.dtype.newbyteorder(">"))
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


def write(folder, images=IMAGES, labels=LABELS, front="train", packed=True):
    for name, content in ((f"{front}-images-idx3-ubyte", idx(images)), (f"{front}-labels-idx1-ubyte", idx(labels))):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("split", "front"), [("train", "train"), ("test", "t10k")])
def test_datapoints_are_image_and_label(tmp_path, packed, split, front):
    flow = mnist(write(tmp_path, front=front, packed=packed), split)
    assert len(flow) == 20
    assert same([image for image, _ in flow], list(IMAGES))
    assert same([label for _, label in flow], list(LABELS.astype(np.int64)))
    assert same(flow[-1], [IMAGES[19], np.int64(9)])
    assert repr(flow) == f"mnist({str(tmp_path)!r}, {split!r})"


def test_batches_are_gathered_from_the_arrays(tmp_path):
    flow = ff.pipe(mnist(write(tmp_path)), ff.shuffle(), ff.batch(8))
    images, labels = flow[0]
    assert images.shape == (8, 28, 28)
    assert images.dtype == np.uint8
    assert labels.shape == (8,)
    assert labels.dtype == np.int64
    assert all(np.array_equal(image, IMAGES[np.flatnonzero((IMAGES == image).all((1, 2)))[0]]) for image in images)
    assert flow.node.gathers or flow.sources[0].node.gathers


def test_images_may_have_any_size(tmp_path):
    image, _ = mnist(write(tmp_path, IMAGES[:, :8, :9]))[3]
    assert same(image, IMAGES[3, :8, :9])


def test_rows_cannot_be_written_to(tmp_path):
    image, _ = mnist(write(tmp_path))[0]
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 1


def test_a_flow_pickles_as_the_paths_of_its_files(tmp_path):
    flow = mnist(write(tmp_path))
    list(flow)
    pickled = pickle.dumps(flow)
    assert len(pickled) < 1500
    assert same(list(pickle.loads(pickled).run(epoch=0)), list(flow.run(epoch=0)))


def test_nothing_is_read_before_a_datapoint_is_wanted(tmp_path):
    flow = mnist(write(tmp_path))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"no longer")
    with pytest.raises(ValueError, match="not an IDX file"):
        len(flow)


def test_the_laws_hold(tmp_path):
    write(tmp_path)
    check(lambda: ff.pipe(mnist(tmp_path), ff.shuffle(), ff.batch(3)))


@pytest.mark.long
@pytest.mark.timeout(180)
def test_the_laws_hold_in_processes(tmp_path):
    write(tmp_path)
    check(lambda: mnist(tmp_path), workers=({"processes": 2},))


def test_fashion_mnist_has_files_of_the_same_names(tmp_path):
    flow = fashion_mnist(write(tmp_path))
    assert same(flow[7], [IMAGES[7], np.int64(7)])
    assert FASHION_MNIST_LABELS[9] == "Ankle boot"
    assert len(FASHION_MNIST_LABELS) == len(MNIST_LABELS) == 10


@pytest.mark.parametrize("function", [mnist, fashion_mnist])
def test_a_missing_file_is_named_with_its_page_and_its_place(tmp_path, function):
    with pytest.raises(
        FileNotFoundError, match=r"'train-images-idx3-ubyte' \(or 'train-images-idx3-ubyte\.gz'\) is not in .*https?://"
    ):
        function(tmp_path)
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-labels-idx1-ubyte.*put it there"):
        function(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nothing is downloaded"):
        function(tmp_path / "nowhere")


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"mnist\(\): split must be 'train' or 'test', got 'val'"):
        mnist(tmp_path, "val")
    with pytest.raises(TypeError, match=r"mnist\(\): dir must be the path of a folder, got 3"):
        mnist(3)


def test_verify_compares_with_the_published_sum(tmp_path, monkeypatch):
    write(tmp_path)
    with pytest.raises(ValueError, match=r"has the MD5 sum .*f68b3c2dcbeaaa9fbdd348bbdeb94873 was published"):
        mnist(tmp_path, verify=True)
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    module = sys.modules["flowfn.datasets.mnist"]
    monkeypatch.setattr(module, "_MNIST", module.Published("mnist", "", sums))
    assert len(mnist(tmp_path, verify=True)) == 20


# IDX


@pytest.mark.parametrize(
    ("dtype", "code"),
    [("uint8", 0x08), ("int8", 0x09), ("int16", 0x0B), ("int32", 0x0C), ("float32", 0x0D), ("float64", 0x0E)],
)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 1, 2), (0, 4)])
def test_every_type_and_number_of_axes_is_read(tmp_path, dtype, code, shape):
    array = (np.random.default_rng(1).random(shape) * 100 - 20).astype(dtype)
    path = tmp_path / "array"
    path.write_bytes(idx(array, code))
    assert same(read_idx(path), array)
    path.write_bytes(gzip.compress(idx(array, code)))
    assert same(read_idx(path), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\x00\x00\x08", "not an IDX file"),
        (b"\x01\x00\x08\x01", "not an IDX file.*01.x00.x08"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x01a", "not an IDX file"),
        (b"\x00\x00\x08\x02\x00\x00\x00\x01", "ends within its header"),
        (idx(LABELS)[:-1], "cannot be in a file of its size|ends after"),
        (idx(LABELS) + b"x", "goes on behind the 20 bytes"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "cannot be in a file of its size"),
        (b"\x00\x00\x08\xff" + b"\x00\x00\x00\x01" * 255 + b"a", "cannot be"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-30], "damaged"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-8], "damaged"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-8] + b"\0" * 8, "damaged.*CRC"),
        (gzip.compress(idx(LABELS)[:-2], mtime=0), "ends after 18 of 20 bytes"),
        (gzip.compress(idx(LABELS) + b"x", mtime=0), "goes on behind"),
        (gzip.compress(b"\x00\x00\x0e\x03" + b"\xff" * 12, mtime=0), "cannot be in a file of its size"),
        (b"\x1f\x8b", "damaged"),
        (b"\x1f\x8b\x08\x00" + b"\xff" * 50, "damaged"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"read_idx\(\): '.*broken' .*({message})"):
        read_idx(path)


def test_other_arrays_than_images_and_labels_are_refused(tmp_path):
    write(tmp_path, images=IMAGES[0])
    with pytest.raises(ValueError, match="must hold bytes in 3 axes, but its header says uint8 in 2"):
        len(mnist(tmp_path))
    write(tmp_path, labels=LABELS[:19])
    with pytest.raises(ValueError, match=r"one label for each image, but .* has 20 and .* 19"):
        len(mnist(tmp_path))
    write(tmp_path, labels=LABELS + 1)
    with pytest.raises(ValueError, match=r"the label of datapoint 9 is 10, and must be an integer in 0\.\.9"):
        len(mnist(tmp_path))
