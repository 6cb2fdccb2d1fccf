"""SVHN in both formats, the silhouettes, BSDS500: MATLAB files as MATLAB writes them, and broken ones."""

import os
import pickle

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

import flowfn as ff
from flowfn.datasets import (
    bsds500,
    bsds500_files,
    caltech101_silhouettes,
    caltech101_silhouettes_labels,
    read_boundaries,
    read_ground_truth,
    svhn,
    svhn_numbers,
    svhn_numbers_files,
)
from flowfn.testing import check, same

rng = np.random.default_rng(0)
DIGITS = rng.integers(0, 256, (32, 32, 3, 7), np.uint8)
CALLED = np.array([[1], [9], [10], [2], [3], [10], [5]], np.uint8)


def write_digits(folder, split="train", images=DIGITS, labels=CALLED, **options):
    scipy.io.savemat(folder / f"{split}_32x32.mat", {"X": images, "y": labels}, do_compression=True, **options)
    return folder


def test_svhn_gives_digits_and_zero_is_zero(tmp_path):
    flow = svhn(write_digits(tmp_path))
    assert same([label for _, label in flow], list(np.array([1, 9, 0, 2, 3, 0, 5])))
    assert same([image for image, _ in flow], list(DIGITS.transpose(3, 0, 1, 2)))
    assert len(pickle.dumps(flow)) < 1500
    assert repr(flow) == f"svhn({str(tmp_path)!r}, 'train')"
    assert len(svhn(write_digits(tmp_path, "extra"), "extra")) == 7


def test_the_laws_hold_for_svhn(tmp_path):
    write_digits(tmp_path)
    check(lambda: ff.pipe(svhn(tmp_path), ff.shuffle(), ff.batch(2)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"svhn\(\): 'train_32x32\.mat' is not in .*ufldl\.stanford\.edu/housenumbers"
    ):
        svhn(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'train/digitStruct\.mat' is not in .* \(train\.tar\.gz\)"):
        svhn_numbers_files(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"caltech101_silhouettes_28_split1\.mat' is not in .*people\.cs\.umass\.edu"
    ):
        caltech101_silhouettes(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"caltech101_silhouettes_labels\(\): 'caltech101_silhouettes_16_split1\.mat' is not in"
    ):
        caltech101_silhouettes_labels(tmp_path, size=16)
    with pytest.raises(FileNotFoundError, match=r"'BSR/BSDS500/data/images/train' .*BSR_bsds500\.tgz"):
        bsds500_files(tmp_path)
    write_digits(tmp_path)
    with pytest.raises(ValueError, match="e26dedcc434d2e4c54c9b2d4a06d8373 was published"):
        svhn(tmp_path, verify=True)


def broken(path):
    """The damaged forms of a file."""
    whole = path.read_bytes()
    yield whole[: len(whole) // 2]
    yield whole[:-7]
    yield whole[:100]
    yield b""
    yield b"hello" * 100
    yield whole[:140] + bytes(255 - byte for byte in whole[140:400]) + whole[400:]
    yield whole[:160] + b"\0" * (len(whole) - 160)


def test_a_broken_matlab_file_is_named(tmp_path):
    path = write_digits(tmp_path) / "train_32x32.mat"
    for content in list(broken(path)):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"svhn\(\): '.*train_32x32\.mat' (cannot be read as a MATLAB file|must hold)"
        ):
            len(svhn(tmp_path))


def test_an_absurd_shape_takes_no_memory(tmp_path):
    path = tmp_path / "train_32x32.mat"
    scipy.io.savemat(path, {"X": np.zeros((2, 3), np.uint8), "y": CALLED})
    dimensions = np.array([2, 3], "<i4").tobytes()
    path.write_bytes(path.read_bytes().replace(dimensions, np.array([2**31 - 1, 2**31 - 1], "<i4").tobytes(), 1))
    with pytest.raises(ValueError, match=r"which cannot be in .* bytes"):
        len(svhn(tmp_path))


def test_other_variables_than_images_and_labels_are_refused(tmp_path):
    for images, labels in ((DIGITS[..., 0], CALLED), (DIGITS, CALLED[:3]), (DIGITS.astype(float), CALLED)):
        write_digits(tmp_path, images=images, labels=labels)
        with pytest.raises(ValueError, match=r"must hold X, bytes in \(height, width, 3, n\), and y with n labels"):
            len(svhn(tmp_path))
    write_digits(tmp_path, labels=CALLED + 1)
    with pytest.raises(ValueError, match="the label of datapoint 2 is 11"):
        len(svhn(tmp_path))
    write_digits(tmp_path, labels=[1, 1.5, 2, 3, 4, 5, np.nan])
    with pytest.raises(ValueError, match=r"the label of datapoint 1 is 1\.5, and must be an integer in 0\.\.10"):
        len(svhn(tmp_path))
    for other in ("seven", {"a": 1}, np.array([[1, "a"]], object)):
        write_digits(tmp_path, labels=other)
        with pytest.raises(ValueError, match=r"svhn\(\): .* must hold numbers in the variable 'y'"):
            len(svhn(tmp_path))
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": DIGITS})
    with pytest.raises(ValueError, match=r"must hold the variable 'y', but it holds \['X'\]"):
        len(svhn(tmp_path))


# SVHN's whole numbers

NUMBERS = {
    "1.png": [(246, 77, 81, 219, 1), (323, 81, 96, 219, 9)],
    "2.png": [(77, 29, 23, 32, 10)],
    "3.png": [(1, 2, 3, 4, 2)] * 3,
}
SIDES = ("left", "top", "width", "height", "label")


def write_numbers(folder, numbers=NUMBERS):
    """digitStruct.mat as MATLAB 7.3 writes it: references to names,
    and to groups of numbers or of references to numbers."""
    (folder / "train").mkdir(exist_ok=True)
    with h5py.File(folder / "train" / "digitStruct.mat", "w", userblock_size=512) as file:
        inner, struct = file.create_group("#refs#"), file.create_group("digitStruct")
        names = struct.create_dataset("name", (len(numbers), 1), h5py.ref_dtype)
        boxes = struct.create_dataset("bbox", (len(numbers), 1), h5py.ref_dtype)
        for at, (name, digits) in enumerate(numbers.items()):
            names[at, 0] = inner.create_dataset(f"n{at}", data=np.array([[ord(one)] for one in name], np.uint16)).ref
            group = inner.create_group(f"b{at}")
            boxes[at, 0] = group.ref
            for column, side in enumerate(SIDES):
                values = [float(digit[column]) for digit in digits]
                if len(values) == 1:
                    group[side] = np.array([values])
                    continue
                held = group.create_dataset(side, (len(values), 1), h5py.ref_dtype)
                for row, value in enumerate(values):
                    held[row, 0] = inner.create_dataset(f"v{at}{side}{row}", data=np.array([[value]])).ref
    return folder


def test_whole_numbers_have_a_box_for_each_digit(tmp_path):
    flow = svhn_numbers_files(write_numbers(tmp_path))
    path, boxes, labels = flow[0]
    assert path == str(tmp_path / "train" / "1.png")
    assert same(boxes, np.array([[246, 77, 327, 296], [323, 81, 419, 300]], np.float32))
    assert same(labels, np.array([1, 9]))
    assert same(flow[1][1:], [np.array([[77, 29, 100, 61]], np.float32), np.array([0])])
    assert [os.path.basename(name) for name, _, _ in flow] == ["1.png", "2.png", "3.png"]
    assert [len(labels) for _, _, labels in flow] == [2, 1, 3]


def test_whole_numbers_come_with_their_images(tmp_path):
    image = rng.integers(0, 256, (8, 12, 3), np.uint8)
    cv2.imwrite(str(write_numbers(tmp_path) / "train" / "2.png"), image[..., ::-1])
    assert same(svhn_numbers(tmp_path)[1][0], image)


def test_the_laws_hold_for_whole_numbers(tmp_path):
    write_numbers(tmp_path)
    check(lambda: ff.pipe(svhn_numbers_files(tmp_path), ff.shuffle()), epochs=(0,))


@pytest.mark.parametrize("content", [b"", b"hello" * 300, None])
def test_a_digit_struct_that_is_no_hdf5_is_named(tmp_path, content):
    path = write_numbers(tmp_path) / "train" / "digitStruct.mat"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(ValueError, match=r"digitStruct\.mat' cannot be read as HDF5"):
        list(svhn_numbers_files(tmp_path))


def test_a_digit_struct_of_another_form_is_named(tmp_path):
    path = write_numbers(tmp_path) / "train" / "digitStruct.mat"
    with h5py.File(path, "a") as file:
        del file["#refs#/b1/top"]
    with pytest.raises(ValueError, match="is damaged at its image 1"):
        list(svhn_numbers_files(tmp_path))


def test_a_digit_struct_without_names_is_refused(tmp_path):
    path = write_numbers(tmp_path) / "train" / "digitStruct.mat"
    with h5py.File(path, "w") as file:
        file["other"] = 1
    with pytest.raises(ValueError, match="must hold digitStruct with 'name'"):
        list(svhn_numbers_files(tmp_path))


def test_a_digit_struct_names_nothing_outside_of_its_folder(tmp_path):
    write_numbers(tmp_path, {"../1.png": [(1, 1, 1, 1, 1)]})
    with pytest.raises(ValueError, match=r"must name images beside it, but its image 0 is called '\.\./1\.png'"):
        list(svhn_numbers_files(tmp_path))


# Silhouettes

SHAPES = rng.integers(0, 2, (9, 28, 28), np.uint8)
NAMES = np.array([["Faces", "ant", "yin_yang"]], object)


def write_silhouettes(folder, size=28, **change):
    held = {}
    for number, split in enumerate(("train", "val", "test")):
        shapes = SHAPES[number * 3 : number * 3 + 3, :size, :size]
        held[f"{split}_data"] = np.stack([shape.ravel(order="F") for shape in shapes])  # as MATLAB's image(:)' is
        held[f"{split}_labels"] = np.array([[1], [101], [number + 2]], np.uint8)
    scipy.io.savemat(
        folder / f"caltech101_silhouettes_{size}_split1.mat", held | {"classnames": NAMES} | change, do_compression=True
    )
    return folder


@pytest.mark.parametrize("size", [28, 16])
def test_silhouettes_stand_upright(tmp_path, size):
    write_silhouettes(tmp_path, size)
    for number, split in enumerate(("train", "val", "test")):
        flow = caltech101_silhouettes(tmp_path, split, size=size)
        assert same(
            [image for image, _ in flow],
            [np.ascontiguousarray(one) for one in SHAPES[number * 3 : number * 3 + 3, :size, :size]],
        )
        assert same([label for _, label in flow], [np.int64(0), np.int64(100), np.int64(number + 1)])
    assert caltech101_silhouettes_labels(tmp_path, size=size) == ["Faces", "ant", "yin_yang"]


def test_silhouettes_of_another_form_are_refused(tmp_path):
    write_silhouettes(tmp_path, val_data=np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"must hold val_data \(n, 784\) and n val_labels, got float64\(3, 5\)"):
        len(caltech101_silhouettes(tmp_path, "val"))
    write_silhouettes(tmp_path, val_labels=np.array([[0], [1], [2]]))
    with pytest.raises(ValueError, match="the label of datapoint 0 is -1"):
        len(caltech101_silhouettes(tmp_path, "val"))
    with pytest.raises(ValueError, match="size must be 28 or 16, got 32"):
        caltech101_silhouettes(tmp_path, size=32)


# BSDS500

DRAWN = {"100": (6, 4), "23": (4, 6), "8": (4, 6)}


def write_berkeley(folder, split="train"):
    data = folder / "BSR" / "BSDS500" / "data"
    for kind in ("images", "groundTruth"):
        (data / kind / split).mkdir(parents=True, exist_ok=True)
    drawn = {}
    for number, (name, shape) in enumerate(DRAWN.items()):
        image = np.full((*shape, 3), 40 * number + 10, np.uint8)
        cv2.imwrite(str(data / "images" / split / f"{name}.jpg"), image)
        people = 5 if number else 1
        segments, lines = (
            rng.integers(1, 9, (people, *shape)).astype(np.uint16),
            rng.integers(0, 2, (people, *shape)).astype(np.uint8),
        )
        cells = np.empty((1, people), object)
        for person in range(people):
            cells[0, person] = {"Segmentation": segments[person], "Boundaries": lines[person]}
        scipy.io.savemat(data / "groundTruth" / split / f"{name}.mat", {"groundTruth": cells}, do_compression=True)
        drawn[name] = segments, lines
    (data / "images" / split / "Thumbs.db").write_bytes(b"x")
    return drawn


@pytest.mark.parametrize("inner", ["", "BSR", "BSR/BSDS500", "BSR/BSDS500/data"])
def test_images_are_listed_beside_what_people_have_drawn(tmp_path, inner):
    write_berkeley(tmp_path)
    listed = list(bsds500_files(tmp_path / inner))
    assert [[os.path.basename(path) for path in pair] for pair in listed] == [
        [f"{n}.jpg", f"{n}.mat"] for n in ("8", "23", "100")
    ]
    assert all(os.path.isfile(path) for pair in listed for path in pair)


def test_boundaries_are_the_share_of_people_who_drew_them(tmp_path):
    drawn = write_berkeley(tmp_path, "val")
    flow = bsds500(tmp_path, "val")
    for (image, boundaries), (_, path), name in zip(flow, bsds500_files(tmp_path, "val"), ("8", "23", "100")):
        segments, lines = drawn[name]
        assert image.shape == (*DRAWN[name], 3)
        assert same(boundaries, (lines.sum(0) / len(lines)).astype(np.float32))
        assert same(read_boundaries(path), boundaries)
        truth = read_ground_truth(path)
        assert same(truth.segments, segments)
        assert same(truth.boundaries, lines != 0)


def test_all_images_can_lie_so_that_they_stack(tmp_path):
    write_berkeley(tmp_path)
    images, boundaries = ff.batch(3, bsds500(tmp_path, landscape=True))[0]
    assert images.shape == (3, 4, 6, 3)
    assert boundaries.shape == (3, 4, 6)
    assert same(boundaries[2], bsds500(tmp_path)[2][1].T)


def test_the_laws_hold_for_bsds500(tmp_path):
    write_berkeley(tmp_path)
    check(lambda: bsds500(tmp_path))


@pytest.mark.long
@pytest.mark.timeout(180)
def test_the_laws_hold_in_processes(tmp_path):
    write_berkeley(tmp_path)
    check(lambda: bsds500(tmp_path), workers=({"processes": 2},))
    write_numbers(tmp_path)
    check(lambda: ff.pipe(svhn_numbers_files(tmp_path), ff.shuffle()), workers=({"processes": 2},))


def test_ground_truth_that_is_missing_or_broken_is_named(tmp_path):
    write_berkeley(tmp_path)
    path = tmp_path / "BSR/BSDS500/data/groundTruth/train/23.mat"
    for held in (
        {"groundTruth": np.zeros((1, 2))},
        {"groundTruth": np.empty((1, 0), object)},
        {"groundTruth": {"a": 1}},
    ):
        scipy.io.savemat(path, held)
        with pytest.raises(ValueError, match=r"read_ground_truth\(\): '.*23\.mat' must hold groundTruth, cells of"):
            bsds500(tmp_path)[1]
    for content in (b"", b"hello" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"'.*23\.mat' cannot be read as a MATLAB file"):
            bsds500(tmp_path)[1]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"bsds500\(\): '23\.mat' is not in"):
        bsds500(tmp_path)
