"""ILSVRC12 in both layouts, with Caffe's lists and without; its synsets, its mean image, its boxes."""

import os
import pickle
import shutil
import struct

import cv2
import numpy as np
import pytest

import flowfn as ff
from flowfn.datasets import ilsvrc12, ilsvrc12_files, ilsvrc12_labels, ilsvrc12_mean, ilsvrc12_synsets, read_annotation
from flowfn.testing import check, same

SYNSETS = ["n01440764", "n01443537", "n01484850"]
WORDS = ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark, man-eater"]
TRAIN = [
    (f"{synset}/{synset}_{number}.JPEG", label) for label, synset in enumerate(SYNSETS) for number in (10026, 18, 9)
]
VAL = [(f"ILSVRC2012_val_0000000{number + 1}.JPEG", label) for number, label in enumerate([2, 0, 1, 2])]


def picture(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    cv2.imwrite(str(path), np.full((8, 6, 3), value, np.uint8))


def write(folder, *, lists=None, in_folders=False):
    """The data; with `lists`, Caffe's archive in that folder."""
    for number, (name, _) in enumerate(TRAIN):
        picture(folder / "train" / name, 20 * number)
    for number, (name, label) in enumerate(VAL):
        picture(folder / "val" / (f"{SYNSETS[label]}/{name}" if in_folders else name), 20 * number)
    if lists is not None:
        lists.mkdir(exist_ok=True, parents=True)
        for split, lines in (("train", TRAIN), ("val", VAL)):
            (lists / f"{split}.txt").write_text("".join(f"{name} {label}\n" for name, label in lines))
        (lists / "synsets.txt").write_text("\n".join(SYNSETS) + "\n")
        (lists / "synset_words.txt").write_text("".join(f"{synset} {words}\n" for synset, words in zip(SYNSETS, WORDS)))
    return folder


def names(flow, folder):
    return [(os.path.relpath(path, folder), label) for path, label in flow]


@pytest.mark.parametrize("inner", ["", "caffe_ilsvrc12", "elsewhere"])
def test_files_come_in_the_order_of_caffes_lists(tmp_path, inner):
    write(tmp_path, lists=tmp_path / inner)
    metadata = tmp_path / inner if inner == "elsewhere" else None
    flow = ilsvrc12_files(tmp_path, metadata=metadata)
    assert names(flow, tmp_path / "train") == TRAIN
    assert names(ilsvrc12_files(tmp_path, "val", metadata=metadata), tmp_path / "val") == VAL
    assert len(flow) == 9
    assert flow[-1] == [str(tmp_path / "train" / TRAIN[8][0]), 2]
    assert type(flow[0][1]) is int


def test_the_validation_set_may_lie_in_folders(tmp_path):
    write(tmp_path, lists=tmp_path, in_folders=True)
    expected = [(f"{SYNSETS[label]}/{name}", label) for name, label in VAL]
    assert names(ilsvrc12_files(tmp_path, "val"), tmp_path / "val") == expected
    (tmp_path / "synsets.txt").unlink()
    (tmp_path / "synset_words.txt").unlink()
    assert names(ilsvrc12_files(tmp_path, "val"), tmp_path / "val") == expected


def test_folders_of_synsets_can_do_without_lists(tmp_path):
    write(tmp_path, in_folders=True)
    expected = [
        (f"{synset}/{synset}_{number}.JPEG", label) for label, synset in enumerate(SYNSETS) for number in (9, 18, 10026)
    ]
    assert names(ilsvrc12_files(tmp_path), tmp_path / "train") == expected
    assert [label for _, label in ilsvrc12_files(tmp_path, "val")] == [0, 1, 2, 2]
    (tmp_path / "synsets.txt").write_text("\n".join(reversed(SYNSETS)))
    assert [label for _, label in ilsvrc12_files(tmp_path, "val")] == [0, 0, 1, 2]
    (tmp_path / "synsets.txt").write_text("\n".join(SYNSETS[:2]))
    with pytest.raises(
        ValueError, match=r"the folder 'n01484850' in '.*train' is none of the 2 synsets in the metadata"
    ):
        ilsvrc12_files(tmp_path)


def test_labels_without_lists_are_the_same_in_a_split_that_lacks_a_synset(tmp_path):
    write(tmp_path, in_folders=True)
    shutil.rmtree(tmp_path / "val" / SYNSETS[1])
    assert [label for _, label in ilsvrc12_files(tmp_path, "val")] == [0, 2, 2]


def test_images_are_decoded_in_rgb(tmp_path):
    write(tmp_path, lists=tmp_path)
    cv2.imwrite(str(tmp_path / "val" / VAL[1][0]), np.full((8, 8, 3), (0, 0, 255), np.uint8))  # OpenCV writes BGR
    image, label = ilsvrc12(tmp_path, "val")[1]
    assert label == 0
    assert image.shape == (8, 8, 3)
    assert image.dtype == np.uint8
    assert image[0, 0, 0] > 250 > 10 > image[0, 0, 2]


def test_the_laws_hold(tmp_path):
    write(tmp_path, lists=tmp_path)
    check(lambda: ff.pipe(ilsvrc12(tmp_path, "val", boxes=tmp_path), ff.shuffle()))


@pytest.mark.long
@pytest.mark.timeout(180)
def test_the_laws_hold_in_processes(tmp_path):
    write(tmp_path, lists=tmp_path)
    check(lambda: ff.pipe(ilsvrc12_files(tmp_path), ff.shuffle()), workers=({"processes": 2},))


def test_an_index_and_a_pass_give_the_same_path_whatever_the_list_says(tmp_path):
    write(tmp_path, lists=tmp_path)
    (tmp_path / "train.txt").write_text("".join(f"/{name} {label}\n" for name, label in TRAIN))
    flow = ilsvrc12_files(tmp_path)
    assert list(flow.run(epoch=0)) == [flow[index] for index in range(9)]


def test_a_list_pickles_small(tmp_path):
    write(tmp_path, lists=tmp_path)
    flow = ilsvrc12_files(tmp_path)
    assert list(pickle.loads(pickle.dumps(flow)).run(epoch=0)) == list(flow.run(epoch=0))
    assert len(pickle.dumps(flow)) < 2000


def test_what_is_missing_is_named_with_its_page(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"ilsvrc12_files\(\): 'train' is not in .*image-net\.org.*ILSVRC2012_img_train"
    ):
        ilsvrc12_files(tmp_path)
    write(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"'val\.txt' is not in .*caffe_ilsvrc12\.tar\.gz.* there must be folders of synsets"
    ):
        ilsvrc12_files(tmp_path, "val")
    write(tmp_path, lists=tmp_path)
    (tmp_path / "val" / VAL[2][0]).unlink()
    with pytest.raises(FileNotFoundError, match=r"'ILSVRC2012_val_00000003\.JPEG' is not in .*val"):
        ilsvrc12_files(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match="metadata must be the folder of the data, but there is no folder"):
        ilsvrc12_files(tmp_path, metadata=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="split must be 'train', 'val' or 'test', got 'all'"):
        ilsvrc12_files(tmp_path, "all")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("a.JPEG\n", r"line 1 of .* must be a name and a label, got b'a\.JPEG'"),
        ("a.JPEG 1\nb.JPEG x\n", "line 2 of"),
        ("a.JPEG -1\n", "line 1 of"),
        ("a.JPEG 9999999999\n", "line 1 of"),
    ],
)
def test_a_list_of_another_form_is_refused(tmp_path, content, message):
    write(tmp_path, lists=tmp_path)
    (tmp_path / "val.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        ilsvrc12_files(tmp_path, "val")


def test_a_label_without_a_synset_is_refused(tmp_path):
    write(tmp_path, lists=tmp_path, in_folders=True)
    (tmp_path / "val.txt").write_text("a.JPEG 0\nb.JPEG 3\n")
    with pytest.raises(ValueError, match=r"gives 'b\.JPEG' the label 3, but there are 3 synsets"):
        ilsvrc12_files(tmp_path, "val")


def test_synsets_and_labels_are_those_of_the_archive(tmp_path):
    write(tmp_path, lists=tmp_path / "caffe_ilsvrc12")
    assert ilsvrc12_synsets(tmp_path) == SYNSETS
    assert ilsvrc12_labels(tmp_path) == WORDS
    (tmp_path / "caffe_ilsvrc12" / "synsets.txt").unlink()
    assert ilsvrc12_synsets(tmp_path) == SYNSETS
    with pytest.raises(FileNotFoundError, match=r"'imagenet_mean\.binaryproto' is not in"):
        ilsvrc12_mean(tmp_path)


# The mean image


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def blob(planes, packed=True):
    """A BlobProto: num, channels, height, width, data."""
    sizes = b"".join(bytes([number << 3]) + varint(size) for number, size in zip((1, 2, 3, 4), (1, *planes.shape)))
    if not packed:
        return sizes + b"".join(b"\x2d" + struct.pack("<f", value) for value in planes.ravel().tolist())
    return sizes + b"\x2a" + varint(planes.nbytes) + planes.astype("<f4").tobytes()


@pytest.mark.parametrize("packed", [True, False])
def test_the_mean_image_is_rgb(tmp_path, packed):
    planes = np.random.default_rng(0).random((3, 5, 4)).astype(np.float32)
    (tmp_path / "imagenet_mean.binaryproto").write_bytes(blob(planes, packed))
    assert same(ilsvrc12_mean(tmp_path), np.ascontiguousarray(planes[::-1].transpose(1, 2, 0)))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x2a\xff", b"\xff" * 20, b"\x2a\xff\xff\xff\xff\x0f" + b"a" * 9, blob(np.zeros((2, 3, 3), "f4")), b"\x0b"],
)
def test_a_broken_mean_image_is_named(tmp_path, content):
    (tmp_path / "imagenet_mean.binaryproto").write_bytes(content)
    with pytest.raises(ValueError, match=r"ilsvrc12_mean\(\): '.*imagenet_mean\.binaryproto' is damaged"):
        ilsvrc12_mean(tmp_path)


# Boxes

BOX = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
SIZE = "<annotation><folder>x</folder><size><width>500</width><height>375</height><depth>3</depth></size>"


def annotation(*boxes):
    return SIZE + "".join(BOX.format(SYNSETS[0], *box) for box in boxes) + "</annotation>"


def test_boxes_are_those_in_the_files(tmp_path):
    (tmp_path / "a.xml").write_text(annotation((1, 2, 30, 40), (0, 0, 499, 374)))
    found = read_annotation(tmp_path / "a.xml")
    assert found.shape == (375, 500)
    assert found.names == [SYNSETS[0]] * 2
    assert same(found.boxes, np.array([[1, 2, 30, 40], [0, 0, 499, 374]], np.float32))


def test_boxes_come_with_their_images_and_none_where_there_are_none(tmp_path):
    write(tmp_path, lists=tmp_path)
    boxes = tmp_path / "boxes"
    (boxes / SYNSETS[0]).mkdir(parents=True)
    (boxes / SYNSETS[0] / f"{SYNSETS[0]}_18.xml").write_text(annotation((1, 2, 3, 4)))
    (boxes / "ILSVRC2012_val_00000002.xml").write_text(annotation((5, 6, 7, 8), (1, 1, 2, 2)))
    assert [found.shape for _, _, found in ilsvrc12_files(tmp_path, boxes=boxes)] == [(0, 4), (1, 4)] + [(0, 4)] * 7
    image, label, found = ilsvrc12(tmp_path, "val", boxes=boxes)[1]
    assert image.shape == (8, 6, 3)
    assert label == 0
    assert same(found, np.array([[5, 6, 7, 8], [1, 1, 2, 2]], np.float32))


BOMB = '<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in zip("abcdefghi", "bcdefghij")
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{BOMB}]><annotation>&j;</annotation>", "has a DOCTYPE"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', "has a DOCTYPE"),
        ('<!DOCTYPE annotation SYSTEM "http://localhost/a.dtd"><annotation/>', "has a DOCTYPE"),
        ("<annotation>&x;</annotation>", "undefined entity"),
        ("", "no element found"),
        ("<annotation>", "no element found"),
        ("hello", "syntax error"),
        ("\x00\x01", "not an annotation"),
        ("<annotation/>", "has no size/height"),
        (f"{SIZE}<object><name>x</name></object></annotation>", "its object 1 has no bndbox"),
        (annotation((1, 2, "x", 4)), "could not convert"),
        (annotation((1, 2, "nan", 4)), "its xmax is nan"),
        ("<annotation>" + " " * (1 << 22) + "</annotation>", "larger than"),
        ("<a>" * 100000, "not an annotation"),
        ('<?xml version="1.0" encoding="nowhere"?><annotation/>', "unknown encoding|not an annotation"),
    ],
)
def test_a_hostile_or_broken_annotation_is_refused(tmp_path, content, message):
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(
        ValueError, match=r"read_annotation\(\): '.*a\.xml' is not an annotation in the form of PASCAL VOC"
    ) as caught:
        read_annotation(tmp_path / "a.xml")
    caught.match(message)
