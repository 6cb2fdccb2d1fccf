"""Images in folders: their order and their labels, links, what cannot be read, and very many of them."""

import os
import pickle
import tracemalloc

import cv2
import numpy as np
import pytest

import flowfn as ff
from flowfn.datasets import image_folder, image_folder_files, image_folder_labels
from flowfn.datasets.folders import images_below
from flowfn.testing import check


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def listed(folder, **options):
    return [(os.path.relpath(path, folder), label) for path, label in image_folder_files(folder, **options)]


def test_labels_are_the_folders_and_everything_is_in_natural_order(tmp_path):
    write(
        tmp_path,
        "class10/a.png",
        "class2/image10.jpg",
        "class2/image2.JPEG",
        "class2/image2b.png",
        "class2/b/1.png",
        "Class1/x.webp",
    )
    assert listed(tmp_path) == [
        ("Class1/x.webp", 0),
        ("class2/image2.JPEG", 1),
        ("class2/image2b.png", 1),
        ("class2/image10.jpg", 1),
        ("class2/b/1.png", 1),
        ("class10/a.png", 2),
    ]
    assert image_folder_labels(tmp_path) == ["Class1", "class2", "class10"]


def test_names_with_a_dot_in_front_other_files_and_files_without_a_folder_are_left_out(tmp_path):
    write(tmp_path, "a/1.png", "a/.2.png", "a/.hidden/3.png", ".b/4.png", "a/notes.txt", "a/png", "5.png")
    assert listed(tmp_path) == [("a/1.png", 0)]


def test_a_folder_without_images_keeps_its_label(tmp_path):
    write(tmp_path, "a/notes.txt", "b/1.png")
    assert listed(tmp_path) == [("b/1.png", 1)]


def test_extensions_may_be_others(tmp_path):
    write(tmp_path, "a/1.png", "a/2.NPY")
    assert listed(tmp_path, extensions=[".npy"]) == [("a/2.NPY", 0)]


def test_labels_may_be_given(tmp_path):
    write(tmp_path, "2/a.png", "10/b.png", "x/c.png")
    assert listed(tmp_path, labels=sorted(["2", "10", "x"])) == [("10/b.png", 0), ("2/a.png", 1), ("x/c.png", 2)]
    assert listed(tmp_path, labels={"x": 7, "2": -1, "gone": 3}) == [("x/c.png", 7), ("2/a.png", -1)]


def test_names_that_are_no_text_come_back(tmp_path):
    write(tmp_path, "a b/é 1.png")
    (tmp_path / "a b" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    paths = [path for path, _ in image_folder_files(tmp_path)]
    assert all(map(os.path.exists, paths))
    assert len(paths) == 2


@pytest.mark.timeout(20)
def test_links_are_followed_and_circles_do_no_harm(tmp_path):
    write(tmp_path, "data/a/1.png", "data/a/inner/2.png", "store/3.png")
    data = tmp_path / "data"
    (data / "a" / "inner" / "up").symlink_to(data / "a")
    (data / "a" / "self").symlink_to(data / "a" / "self")
    (data / "itself").symlink_to(data / "itself")
    (data / "all").symlink_to(data)
    (data / "b").symlink_to(tmp_path / "store")
    (data / "b" / "link.png").symlink_to(data / "a" / "1.png")
    assert listed(data) == [("a/1.png", 0), ("a/inner/2.png", 0), ("b/3.png", 2), ("b/link.png", 2)]


@pytest.mark.timeout(20)
def test_many_links_to_each_other_are_entered_once(tmp_path):
    folders = [tmp_path / "a" / f"{number}" for number in range(20)]
    for folder in folders:
        write(folder, "1.png")
    for folder in folders:
        for number, other in enumerate(folders):
            (folder / f"to{number}").symlink_to(other)
    assert len(listed(tmp_path)) == 20


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for_and_a_link_to_nothing_is_an_error_when_it_is_read(tmp_path):
    write(tmp_path, "a/2.txt")
    os.mkfifo(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "1.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "a" / "2.png")
    assert listed(tmp_path) == [("a/1.png", 0), ("a/2.png", 0)]
    with pytest.raises(FileNotFoundError, match=r"1\.png"):
        image_folder(tmp_path)[0]
    assert (
        list(
            ff.pipe(
                image_folder_files(tmp_path), ff.guard(ff.map_component(open, 0), errors=OSError, then="drop", budget=2)
            )
        )
        == []
    )


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    write(tmp_path, "a/1.png", "b/2.png")
    real = os.scandir

    def scandir(path):
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(
        PermissionError,
        match=r"the folder '.*b' cannot be read \(Permission denied\), and what is in it would be missed",
    ):
        image_folder_files(tmp_path)


def test_a_folder_that_is_gone_before_it_is_entered_is_an_error(tmp_path):
    write(tmp_path, "a/1.png")
    with pytest.raises(
        FileNotFoundError, match=r"who\(\): the folder '.*gone' cannot be read \(No such file or directory\)"
    ):
        list(images_below(str(tmp_path), "gone", (".png",), "who"))


def test_where_there_is_nothing_the_message_says_what_there_is(tmp_path):
    write(tmp_path, "1.png")
    with pytest.raises(
        FileNotFoundError, match=r"no image .* a folder stands for a label; there are no folders in it.*write files\('"
    ):
        image_folder_files(tmp_path)
    write(tmp_path, "cats/notes.txt")
    with pytest.raises(FileNotFoundError, match=r"its folders are 'cats'"):
        image_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no image .* lies in the folders 'dog' of .*; its folders are 'cats'"):
        image_folder(tmp_path, labels=["dog"])
    with pytest.raises(NotADirectoryError, match=r"image_folder\(\): dir must be .*, but '.*1\.png' is a file$"):
        image_folder(tmp_path / "1.png")
    with pytest.raises(
        FileNotFoundError,
        match=r"image_folder\(\): dir must be the folder of the data, but there is no folder '.*gone'$",
    ):
        image_folder(tmp_path / "gone")


@pytest.mark.parametrize("extensions", [".png", ["png"], [], [3]])
def test_extensions_are_checked(tmp_path, extensions):
    with pytest.raises((TypeError, ValueError), match=r'extensions must be a list of extensions such as ".jpg"'):
        image_folder_files(tmp_path, extensions=extensions)


@pytest.mark.parametrize("labels", ["a", ["a", "a"], [], {"a": "b"}, {"a": 2**31}, [1]])
def test_labels_are_checked(tmp_path, labels):
    with pytest.raises((TypeError, ValueError), match=r"labels must be a list of the folders' names, or a dict"):
        image_folder_files(tmp_path, labels=labels)


def test_images_are_decoded_as_they_are_wanted(tmp_path):
    write(tmp_path, "a/1.png", "b/2.png")
    cv2.imwrite(str(tmp_path / "b" / "2.png"), np.full((3, 4, 3), (1, 2, 3), np.uint8))
    flow = image_folder(tmp_path)
    assert flow[1][0].tolist() == [[[3, 2, 1]] * 4] * 3
    with pytest.raises(ValueError, match=r"1\.png"):
        flow[0]


def test_the_laws_hold(tmp_path):
    write(tmp_path, *(f"{label}/{number}.png" for label in "abc" for number in range(5)))
    check(lambda: ff.pipe(image_folder_files(tmp_path), ff.shuffle(), ff.batch(4)))


@pytest.mark.long
@pytest.mark.timeout(180)
def test_the_laws_hold_in_processes(tmp_path):
    write(tmp_path, *(f"{label}/{number}.png" for label in "abc" for number in range(5)))
    check(lambda: image_folder_files(tmp_path), workers=({"processes": 2},))


def test_the_repr_is_the_call(tmp_path):
    write(tmp_path, "a/1.png")
    assert repr(image_folder_files(tmp_path)) == f"image_folder_files({str(tmp_path)!r})"
    assert repr(image_folder_files(tmp_path, labels=["a"])) == f"image_folder_files({str(tmp_path)!r}, labels=['a'])"
    shown = repr(image_folder_files(tmp_path, extensions={".png", ".jpg", ".PNM"}))
    assert (
        shown == f"image_folder_files({str(tmp_path)!r}, extensions=('.jpg', '.png', '.pnm'))"
    )  # whatever order the set has


@pytest.mark.long
@pytest.mark.timeout(180)
def test_very_many_files_take_little_memory(tmp_path):
    for label in range(20):
        (tmp_path / f"n{label:08}").mkdir()
        for number in range(500):
            os.close(os.open(tmp_path / f"n{label:08}" / f"n{label:08}_{number}.JPEG", os.O_CREAT))
    tracemalloc.start()
    try:
        flow = image_folder_files(tmp_path)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(flow) == 10_000
    assert held < 10_000 * 45
    assert len(pickle.dumps(flow)) < 10_000 * 45
    assert flow[9_999] == [str(tmp_path / "n00000019" / "n00000019_499.JPEG"), 19]
    assert list(flow)[::5000] == [flow[0], flow[5000]]
