"""CIFAR in both versions, and pickles that are not what they seem."""

import os
import pickle
import struct

import numpy as np
import pytest

import flowfn as ff
from flowfn.datasets import CIFAR10_LABELS, CIFAR100_COARSE_LABELS, CIFAR100_LABELS, cifar10, cifar100
from flowfn.datasets.pickles import plain_pickle
from flowfn.testing import check, same

ROWS = np.random.default_rng(0).integers(0, 256, (50, 3072), np.uint8)
FINE = [(7 * i) % 100 for i in range(50)]
COARSE = [(3 * i) % 20 for i in range(50)]
IMAGES = ROWS.reshape(50, 3, 32, 32).transpose(0, 2, 3, 1)


def python2(rows, lists):
    """What Python 2's cPickle wrote for CIFAR in protocol 2, instruction by instruction."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def number(value):
        return b"K" + bytes([value])

    raw = rows.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87R"
        + b"(K\x01M" + struct.pack("<H", len(rows)) + b"M" + struct.pack("<H", 3072) + b"\x86"
        + b"cnumpy\ndtype\nq\x0eU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tb"
    )  # fmt: skip
    items = text(b"data") + b"q\x05" + array + text(b"batch_label") + text(b"training batch 1 of 5")
    for name, values in lists.items():
        items += text(name) + b"]q\x14(" + b"".join(map(number, values)) + b"e"
    items += text(b"filenames") + b"](" + b"".join(text(b"%d.png" % i) for i in range(len(rows))) + b"e"
    return b"\x80\x02}q\x01(" + items + b"u."


def write10(folder, form):
    for number in range(6):
        rows, labels = ROWS[number * 8 : number * 8 + 8], [fine % 10 for fine in FINE[number * 8 : number * 8 + 8]]
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        folder.mkdir(exist_ok=True, parents=True)
        if form == "binary":
            (folder / f"{name}.bin").write_bytes(
                b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, rows))
            )
        elif form == "python2":
            (folder / name).write_bytes(python2(rows, {b"labels": labels}))
        else:
            (folder / name).write_bytes(
                pickle.dumps({"data": rows, "labels": labels, "filenames": ["é.png"] * 8}, protocol=form)
            )


def write100(folder, form):
    for name in ("train", "test"):
        if form == "binary":
            rows = (bytes([coarse, fine]) + row.tobytes() for coarse, fine, row in zip(COARSE, FINE, ROWS))
            (folder / f"{name}.bin").write_bytes(b"".join(rows))
        else:
            (folder / name).write_bytes(python2(ROWS, {b"coarse_labels": COARSE, b"fine_labels": FINE}))


FORMS = ["binary", "python2", 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("form", FORMS)
def test_both_versions_of_cifar10_are_read_and_pickles_of_any_protocol(tmp_path, form):
    write10(tmp_path, form)
    train, test = cifar10(tmp_path), cifar10(tmp_path, "test")
    assert (len(train), len(test)) == (40, 8)
    assert same([image for image, _ in train], list(IMAGES[:40]))
    assert same([label for _, label in test], [np.int64(fine % 10) for fine in FINE[40:48]])
    assert CIFAR10_LABELS[test[0][1]] == "airplane"


@pytest.mark.parametrize(("form", "inner"), [("binary", "cifar-10-batches-bin"), ("python2", "cifar-10-batches-py")])
def test_the_folder_around_the_unpacked_one_will_do(tmp_path, form, inner):
    write10(tmp_path / inner, form)
    assert same(cifar10(tmp_path)[3], [IMAGES[3], np.int64(FINE[3] % 10)])


@pytest.mark.parametrize("form", ["binary", "python2"])
def test_cifar100_has_fine_and_coarse_labels(tmp_path, form):
    write100(tmp_path, form)
    assert same(cifar100(tmp_path)[5], [IMAGES[5], np.int64(FINE[5])])
    assert same(cifar100(tmp_path, labels="coarse")[5], [IMAGES[5], np.int64(COARSE[5])])
    assert same(cifar100(tmp_path, "test", labels="both")[49], [IMAGES[49], np.int64(FINE[49]), np.int64(COARSE[49])])
    with pytest.raises(ValueError, match="labels must be 'fine', 'coarse' or 'both', got 'all'"):
        cifar100(tmp_path, labels="all")


def test_there_are_a_hundred_labels_and_twenty():
    assert len(CIFAR100_LABELS) == len(set(CIFAR100_LABELS)) == 100
    assert list(CIFAR100_LABELS) == sorted(CIFAR100_LABELS)
    assert len(CIFAR100_COARSE_LABELS) == len(set(CIFAR100_COARSE_LABELS)) == 20


def test_the_laws_hold(tmp_path):
    write10(tmp_path, "binary")
    check(lambda: ff.pipe(cifar10(tmp_path, "test"), ff.shuffle(), ff.batch(3)))


@pytest.mark.long
@pytest.mark.timeout(180)
def test_the_laws_hold_in_processes(tmp_path):
    write10(tmp_path, "binary")
    check(lambda: ff.pipe(cifar10(tmp_path, "test"), ff.shuffle(), ff.batch(3)), workers=({"processes": 2},))


def test_a_flow_is_small_to_pickle(tmp_path):
    write10(tmp_path, "python2")
    flow = cifar10(tmp_path)
    whole = list(flow.run(epoch=0))
    assert len(pickle.dumps(flow)) < 2000
    assert same(list(pickle.loads(pickle.dumps(flow)).run(epoch=0)), whole)


def test_a_missing_file_is_the_one_that_is_missing(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"cifar10\(\): 'cifar-10-batches-py/data_batch_1' is not in .*cifar\.html"
    ):
        cifar10(tmp_path)
    write10(tmp_path, "binary")
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"'data_batch_4\.bin' is not in"):
        cifar10(tmp_path)


def test_an_archive_that_is_still_packed_is_named(tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(
        FileNotFoundError,
        match=r"get it from .*cifar-10-python\.tar\.gz.*\(or unpack 'cifar-10-python\.tar\.gz', if it is in that\)",
    ):
        cifar10(tmp_path)
    with pytest.raises(
        NotADirectoryError,
        match=r"cifar10\(\): dir must be the folder of the data, but '.*tar\.gz' is a file; unpack it",
    ):
        cifar10(archive)


def test_verify_is_about_the_pickles(tmp_path):
    write10(tmp_path, "python2")
    with pytest.raises(ValueError, match="c99cafc152244af753f735de768cd75f was published"):
        cifar10(tmp_path, verify=True)
    write100(tmp_path, "python2")
    with pytest.raises(ValueError, match="f0ef6b0ae62326f3e7ffdfab6717acfc was published"):
        cifar100(tmp_path, "test", verify=True)


@pytest.mark.parametrize(("change", "message"), [(b"", "has 0 bytes"), (b"x" * 3074, "rows of 3073 bytes")])
def test_a_binary_file_of_the_wrong_size_is_refused(tmp_path, change, message):
    write10(tmp_path, "binary")
    (tmp_path / "test_batch.bin").write_bytes(change)
    with pytest.raises(ValueError, match=message):
        len(cifar10(tmp_path, "test"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a dict, but it holds a list"),
        ({"labels": [1]}, r"must hold 'data'.*got the keys \['labels'\]"),
        ({"data": ROWS[:2].astype(np.int16), "labels": [1, 2]}, "must hold 'data'"),
        ({"data": ROWS[:2, :5], "labels": [1, 2]}, "must hold 'data'"),
        ({"data": ROWS[:2]}, "must hold 'labels'"),
        ({"data": ROWS[:2], "labels": [1, "a"]}, "a list of integers"),
        ({"data": ROWS[:2], "labels": [1]}, "2 images, and 'labels' of shape"),
        ({"data": ROWS[:2], "labels": [1, 10]}, "the label of datapoint 1 is 10"),
        ({"data": ROWS[:2], "labels": [1, 10**30]}, "larger than any integer"),
        ({"data": ROWS[:2], "labels": np.array([0.5, 1.5])}, "a list of integers"),
    ],
)
def test_a_pickle_of_something_else_says_what_it_must_hold(tmp_path, content, message):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        len(cifar10(tmp_path, "test"))


# Pickles


class Running:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def unpickled(tmp_path):
    def unpickle(content):
        path = tmp_path / "pickle"
        path.write_bytes(content)
        return plain_pickle(str(path), "cifar10")

    return unpickle


VALUES = {
    "a": [1, -1, 2**40, 1.5, None, True, (1, (2,), "é", b"\xff")],
    "b": {"c": [], "d": ()},
    "array": np.arange(6.0).reshape(2, 3).T,
}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_and_arrays_come_back(unpickled, protocol):
    assert same(unpickled(pickle.dumps(VALUES, protocol=protocol)), VALUES)


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "bool", "f8"])
def test_arrays_of_numbers_come_back_with_their_byte_order(unpickled, dtype):
    array = np.arange(5).astype(dtype)
    for protocol in range(6):
        assert same(unpickled(pickle.dumps(array, protocol=protocol)), array)


def nested(levels):
    value = ()
    for _ in range(levels):
        value = (value, value)
    return value


HOSTILE = {
    "runs a command": pickle.dumps(Running(os.system, "touch ran")),
    "runs a command, the old way": b"cos\nsystem\n(S'touch ran'\ntR.",
    "runs a command by INST": b"(S'touch ran'\nios\nsystem\n.",
    "runs a command by OBJ": b"(cos\nsystem\nS'touch ran'\no.",
    "evaluates": pickle.dumps(Running(eval, "open('ran', 'w')")),
    "opens": b"cbuiltins\nopen\n(S'ran'\nS'w'\ntR.",
    "in a dict": pickle.dumps({"data": Running(os.system, "touch ran")}),
    "gets attributes": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR.",
    "loads more with numpy": b"cnumpy\nload\n(S'ran'\ntR.",
    "names within a module": b"cnumpy\nndarray.tofile\n.",
    "refers to what somebody else keeps": b"P1\n.",
    "extension codes": b"\x82\x01.",
    "makes objects": b"cnumpy\nndarray\n)\x81.",
    "sets the state of a class": b"cnumpy\nndarray\n}(S'__setstate__'\nS'x'\nub.",
    "sets the state of a dict": b"}}S'a'\nK\x01sb.",
    "arrays of objects": pickle.dumps(np.array([Running(os.system, "touch ran")], object)),
    "arrays of records": pickle.dumps(np.zeros(2, "i4,f8")),
    "arrays of texts": pickle.dumps(np.array(["ab"])),
    "an array larger than its bytes": pickle.dumps(np.zeros(3, np.uint8), protocol=2).replace(
        b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"
    ),
    "more bytes than there are": b"\x80\x04\x8e" + b"\xff\xff\xff\xff\xff\xff\x00\x00" + b"abc.",
    "a bytearray of a terabyte": b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"abc.",
    "keys that take for ever to hash": b"}(" + pickle.dumps(nested(60), 2)[2:-1] + b"K\x01u.",
    "keys that take for ever, one by one": b"}" + pickle.dumps(nested(60), 2)[2:-1] + b"K\x01s.",
    "no pickle": b"hello",
    "nothing": b"",
    "cut off": pickle.dumps(VALUES)[:-20],
    "an empty stack": b"0.",
    "a future protocol": b"\x80\x63N.",
    "an endless number": b"L" + b"9" * 10000 + b"L\n.",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", list(HOSTILE))
def test_a_hostile_pickle_runs_nothing_and_is_refused(tmp_path, monkeypatch, unpickled, what):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"cifar10\(\): '.*pickle' is (not read any further|damaged)"):
        unpickled(HOSTILE[what])
    assert [path.name for path in tmp_path.iterdir()] == ["pickle"]


def test_huge_numbers_take_no_memory(unpickled):
    assert unpickled(b"]r\xff\xff\xff\x7f.") == []  # a place in the memo
    assert unpickled(b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"].") == []  # the length of a frame


def test_a_refusal_names_what_was_asked_for(unpickled):
    with pytest.raises(ValueError, match=r"for its pickle asks for posix\.system; nothing in it was run"):
        unpickled(HOSTILE["runs a command"])
