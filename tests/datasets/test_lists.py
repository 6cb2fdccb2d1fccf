"""Tiny ImageNet and Places365: their folders and lists, and lists that are not right."""

import hashlib
import os
import sys

import cv2
import numpy as np
import pytest

import flowfn as ff
from flowfn.datasets import (
    places365,
    places365_files,
    places365_labels,
    tiny_imagenet,
    tiny_imagenet_files,
    tiny_imagenet_labels,
)
from flowfn.testing import check, same

SYNSETS = ["n02124075", "n04067472", "n04540053"]


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((4, 4, 3), value, np.uint8))


def names(flow, folder):
    return [(os.path.relpath(path, folder), label) for path, label in flow]


def write_tiny(folder):
    for synset in SYNSETS:
        for number in (10, 2):
            picture(folder / "train" / synset / "images" / f"{synset}_{number}.JPEG", number)
        (folder / "train" / synset / f"{synset}_boxes.txt").write_text("")
    lines = []
    for number, synset in enumerate([SYNSETS[2], SYNSETS[0]]):
        picture(folder / "val" / "images" / f"val_{number}.JPEG", 100 * number)
        lines.append(f"val_{number}.JPEG\t{synset}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(SYNSETS))
    (folder / "words.txt").write_text(
        f"n00001740\tentity\n{SYNSETS[0]}\tEgyptian cat\n{SYNSETS[1]}\treel\n{SYNSETS[2]}\tvolleyball\n"
    )
    return folder


@pytest.mark.parametrize("inner", ["", "tiny-imagenet-200"])
def test_tiny_imagenet_is_listed_and_decoded(tmp_path, inner):
    folder = write_tiny(tmp_path / inner)
    train = [
        (f"{synset}/images/{synset}_{number}.JPEG", label) for label, synset in enumerate(SYNSETS) for number in (2, 10)
    ]
    assert names(tiny_imagenet_files(tmp_path), folder / "train") == train
    assert names(tiny_imagenet_files(tmp_path, "val"), folder / "val") == [
        ("images/val_0.JPEG", 2),
        ("images/val_1.JPEG", 0),
    ]
    image, label = tiny_imagenet(tmp_path, "val")[1]
    assert same(image, np.full((4, 4, 3), 100, np.uint8))
    assert label == 0
    assert tiny_imagenet_labels(tmp_path) == ["Egyptian cat", "reel", "volleyball"]


@pytest.mark.timeout(60)
def test_the_laws_hold(tmp_path):
    write_tiny(tmp_path)
    check(lambda: ff.pipe(tiny_imagenet(tmp_path), ff.shuffle(), ff.batch(2)))


def test_what_is_missing_of_tiny_imagenet_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tiny_imagenet\(\): 'wnids\.txt' is not in .*tiny-imagenet-200\.zip"):
        tiny_imagenet(tmp_path)
    write_tiny(tmp_path)
    (tmp_path / "wnids.txt").write_text("\n".join([*SYNSETS, "n99999999"]))
    with pytest.raises(FileNotFoundError, match="'train/n99999999/images' is not in"):
        tiny_imagenet_files(tmp_path)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn1\t0\t0\t0\t0\n")
    with pytest.raises(ValueError, match=r"line 1 of '.*val_annotations\.txt' must be a name and one of the synsets"):
        tiny_imagenet_files(tmp_path, "val")
    (tmp_path / "wnids.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"'.*wnids\.txt' is not a text file in UTF-8"):
        tiny_imagenet_files(tmp_path, "val")


# Places365

TRAIN = [("/a/airfield/00000001.jpg", 0), ("/a/airfield/00000002.jpg", 0), ("/b/beach/00000001.jpg", 2)]
VAL = [("Places365_val_00000001.jpg", 2), ("Places365_val_00000002.jpg", 1)]
KINDS = ["airfield", "apartment_building/outdoor", "beach"]


def write_places(folder, size="256", name="data_256_standard"):
    (folder / "categories_places365.txt").write_text(
        "".join(f"/{kind[0]}/{kind} {number}\n" for number, kind in enumerate(KINDS))
    )
    for file, lines in (("places365_train_standard.txt", TRAIN), ("places365_val.txt", VAL)):
        (folder / file).write_text("".join(f"{name} {label}\n" for name, label in lines))
    (folder / "places365_test.txt").write_text("Places365_test_00000001.jpg\n")
    for below, _ in TRAIN:
        picture(folder / name / below.lstrip("/"), 50)
    for below, _ in VAL:
        picture(folder / f"val_{size}" / below)
    picture(folder / f"test_{size}" / "Places365_test_00000001.jpg")
    return folder


@pytest.mark.parametrize(
    ("size", "name"),
    [(256, "data_256_standard"), (256, "data_256"), ("large", "data_large_standard"), ("large", "data_large")],
)
def test_places_are_listed_by_the_official_lists_in_both_sizes(tmp_path, size, name):
    write_places(tmp_path, size, name)
    assert names(places365_files(tmp_path, size=size), tmp_path / name) == [
        (below.lstrip("/"), label) for below, label in TRAIN
    ]
    assert names(places365_files(tmp_path, "val", size=size), tmp_path / f"val_{size}") == VAL
    assert names(places365_files(tmp_path, "test", size=size), tmp_path / f"test_{size}") == [
        ("Places365_test_00000001.jpg", -1)
    ]
    assert same(places365(tmp_path, size=size)[2], [np.full((4, 4, 3), 50, np.uint8), 2])
    assert places365_labels(tmp_path) == KINDS


def test_places_are_listed_in_the_easy_layout(tmp_path):
    lines = {
        "train": ["train/beach/1.jpg", "train/airfield/1.jpg", "train/beach/2.jpg"],
        "val": ["val/airfield/9.jpg", "val/beach/8.jpg"],
    }
    for split, below in lines.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(below))
        for name in below:
            picture(tmp_path / name)
    assert names(places365_files(tmp_path), tmp_path) == list(zip(lines["train"], [1, 0, 1]))
    assert [label for _, label in places365_files(tmp_path, "val")] == [0, 1]
    assert places365_labels(tmp_path) == ["airfield", "beach"]
    (tmp_path / "val.txt").write_text("1.jpg\n")
    with pytest.raises(
        ValueError, match=r"line 1 of '.*val\.txt' must be such as 'train/airfield/00000001\.jpg', got '1\.jpg'"
    ):
        places365_files(tmp_path, "val")


@pytest.mark.timeout(60)
def test_the_laws_hold_for_places(tmp_path):
    write_places(tmp_path)
    check(lambda: ff.pipe(places365_files(tmp_path), ff.shuffle()))


def test_what_is_missing_of_places_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"places365\(\): 'places365_train_standard\.txt' is not in .*places2\.csail\.mit\.edu"
    ):
        places365(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'places365_train_challenge.txt'"):
        places365(tmp_path, "train-challenge")
    write_places(tmp_path)
    with pytest.raises(FileNotFoundError, match="'data_large_standard' is not in"):
        places365_files(tmp_path, size="large")
    (tmp_path / "val_256" / VAL[0][0]).unlink()
    with pytest.raises(FileNotFoundError, match=r"'Places365_val_00000001\.jpg' is not in '.*val_256'"):
        places365_files(tmp_path, "val")
    with pytest.raises(ValueError, match="size must be 256 or 'large', got 128"):
        places365_files(tmp_path, size=128)
    (tmp_path / "places365_val.txt").write_text("a.jpg 365\n")
    with pytest.raises(ValueError, match=r"gives 'a\.jpg' the label 365, and there are 365"):
        places365_files(tmp_path, "val")
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 1\n")
    with pytest.raises(ValueError, match="must number its categories from 0 on"):
        places365_labels(tmp_path)


def test_verify_compares_the_list_with_the_published_sum(tmp_path, monkeypatch):
    write_places(tmp_path)
    with pytest.raises(ValueError, match="e9f2fd57bfd9d07630173f4e8708e4b1 was published"):
        places365_files(tmp_path, "val", verify=True)
    module = sys.modules["flowfn.datasets.places365"]
    monkeypatch.setitem(
        module._PLACES365_SUMS,
        "places365_val.txt",
        hashlib.md5((tmp_path / "places365_val.txt").read_bytes()).hexdigest(),
    )
    assert len(places365_files(tmp_path, "val", verify=True)) == 2


def test_a_list_that_may_be_cut_off_within_a_label_is_warned_of(tmp_path):
    (tmp_path / "val_256").mkdir()
    (tmp_path / "val_256" / "a.jpg").touch()
    (tmp_path / "places365_val.txt").write_text("a.jpg 16")  # of 165
    with pytest.warns(
        UserWarning, match=r"places365_files\(\): the last line of .*places365_val\.txt has no line break at its end"
    ):
        assert places365_files(tmp_path, "val")[0][1] == 16
