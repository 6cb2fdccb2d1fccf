"""LMDB: what tensorpack wrote is read, what we write it reads, and no file does harm."""

import gc
import json
import os
import pickle
import random
import struct
import threading
import zlib

import lmdb
import msgpack
import numpy as np
import pytest
from resuming import Calls
from written_by_others import DATAPOINTS, written

import flowfn as ff
from flowfn import formats
from flowfn.formats.encoding.messages import datum
from flowfn.formats.encoding.payloads import packed_datapoint, unpacked_datapoint
from flowfn.formats.lmdb import environments, keyvalue, listings
from flowfn.formats.lmdb.environments import Growing
from flowfn.formats.lmdb.listings import STATE
from flowfn.storage import writing
from flowfn.testing import check, same

ANYTHING = [
    *[None, True, 1, -5, 2**70, -(2**90), 1.5, float("inf"), "x", "\ud800", b"ab", 1j, "", [], {}, ()],
    *[(1, (2, 3)), [1, (2,)], {"a": 1, 2: 3, (1, 2): 4, b"k": 5}, {1, 2}, frozenset("ab")],
    *[
        np.arange(6).reshape(2, 3),
        np.zeros((0, 3), "f4"),
        np.array(3.5),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(10)[::2],
    ],
    *[
        np.float64(2),
        np.float32(2),
        np.bool_(True),
        np.str_("hé"),
        np.datetime64("2020-01-01"),
        np.array(["2020"], "M8[D]"),
    ],
    *[
        np.arange(3, dtype=">i2"),
        np.array(["a", "bb"]),
        np.array([b"a", b"bb"]),
        np.zeros(3, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    ],
    np.array([(1, [2, 3.0], (b"x",))], dtype=[("a", "i4"), ("b", "f4", (2,)), ("c", [("d", "S3")])]),
]


def touch(path):
    open(path, "w").close()


class Bomb:
    """Something that leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return touch, (self.path,)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "data.lmdb")


def bare(path, entries):
    """A database that only LMDB wrote."""
    with (
        lmdb.open(path, subdir=False, lock=False, map_size=1 << 26) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in entries:
            transaction.put(key, value)
    return path


# What comes back


@pytest.mark.parametrize("value", ANYTHING, ids=repr)
def test_what_was_written_comes_back(value):
    again = unpacked_datapoint(packed_datapoint(value))
    assert type(again) is type(value)
    assert same(again, value)
    if isinstance(value, (np.ndarray, np.generic)):
        assert again.dtype == value.dtype


def test_a_file_is_a_seekable_flow(path):
    formats.write_lmdb(path, ({"number": i, "square": np.array(i * i)} for i in range(100)))
    flow = formats.read_lmdb(path)
    assert len(flow) == 100
    assert flow.seekable
    assert flow[-1] == {"number": 99, "square": np.array(9801)}
    assert [one["number"] for one in flow] == list(range(100))
    assert sorted(one["number"] for one in ff.pipe(flow, ff.shuffle())) == list(range(100))
    assert repr(flow) == f"read_lmdb({path!r})"


def test_the_laws_hold(path):
    formats.write_lmdb(path, list(range(20)))
    check(lambda: ff.pipe(formats.read_lmdb(path), ff.shuffle(), ff.batch(3)))


@pytest.mark.long
@pytest.mark.timeout(180)
def test_worker_processes_open_the_file_for_themselves(path):
    formats.write_lmdb(path, [[np.full(10, i), i] for i in range(50)])
    flow = formats.read_lmdb(path)
    assert len(pickle.dumps(flow)) < 2000
    alone = list(ff.pipe(flow, ff.shuffle(), ff.batch(4)))
    assert same(list(ff.pipe(flow, ff.shuffle(), ff.batch(4), ff.prefetch(2, processes=2))), alone)


def test_threads_share_the_environment(path):
    formats.write_lmdb(path, list(range(500)))
    flow, found = formats.read_lmdb(path), {}

    def read(which):
        found[which] = [flow[i] for i in range(which, 500, 4)]

    threads = [threading.Thread(target=read, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {which: list(range(which, 500, 4)) for which in range(4)}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_it_anew(path):
    formats.write_lmdb(path, list(range(10)))
    flow = formats.read_lmdb(path)
    assert flow[3] == 3
    child = os.fork()
    if not child:
        try:
            os._exit(0 if list(flow) == list(range(10)) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert flow[4] == 4


def test_two_flows_over_one_file_live_together(path):
    formats.write_lmdb(path, list(range(10)))
    assert list(ff.zip(formats.read_lmdb(path), formats.read_lmdb(path)))[7] == (7, 7)


def test_a_file_that_somebody_else_has_open_is_told(path):
    formats.write_lmdb(path, [1])
    with (
        lmdb.open(path, subdir=False, lock=False, readonly=True),
        pytest.raises(ValueError, match=r"already open.*close the other first"),
    ):
        len(formats.read_lmdb(path))


def test_a_file_that_was_replaced_is_read_anew(path):
    formats.write_lmdb(path, [1])
    before = formats.read_lmdb(path)
    assert before[0] == 1
    formats.write_lmdb(path, [2, 3], overwrite=True)
    assert list(formats.read_lmdb(path)) == [2, 3]
    assert list(before) == [1]  # it still has the one that it opened


def test_it_is_closed_when_nobody_reads_any_more(path):
    formats.write_lmdb(path, [1])
    flow = formats.read_lmdb(path)
    assert list(flow) == [1]
    del flow
    gc.collect()
    with lmdb.open(path, subdir=False, lock=False, readonly=True):
        pass


def test_an_index_out_of_range_is_an_index_error(path):
    formats.write_lmdb(path, [1, 2])
    with pytest.raises(IndexError):
        formats.read_lmdb(path)[2]
    with pytest.raises(IndexError, match="index 2 is out of range for 2"):
        formats.read_lmdb(path).part.object[2]


def test_an_empty_flow_makes_an_empty_database(path):
    formats.write_lmdb(path, [])
    assert list(formats.read_lmdb(path)) == []


# tensorpack, and plain LMDB


@pytest.mark.parametrize("form", ["msgpack", "pickle"])
def test_files_of_tensorpack_are_read(form, tmp_path):
    path = written(tmp_path / "data.lmdb", f"tensorpack-{form}.lmdb")
    flow = formats.read_lmdb(path, allow_pickle=form == "pickle")
    assert len(flow) == 3
    assert same(list(flow), DATAPOINTS)
    assert same(flow[2], DATAPOINTS[2])
    assert flow.part.object.listing == listings.Numbered(3, sorted=True)


def test_a_folder_is_read(tmp_path):
    written(tmp_path / "data.mdb", "tensorpack-msgpack.lmdb")
    assert same(list(formats.read_lmdb(tmp_path)), DATAPOINTS)


def test_tensorpack_can_read_ours(path):
    formats.write_lmdb(path, DATAPOINTS, encode=pickle.dumps)  # as its pickle form does
    with lmdb.open(path, subdir=False, lock=False, readonly=True) as environment, environment.begin() as transaction:
        keys = pickle.loads(transaction.get(b"__keys__"))
        assert keys == [b"00000000", b"00000001", b"00000002"]
        assert same([pickle.loads(transaction.get(key)) for key in keys], DATAPOINTS)
        assert transaction.stat()["entries"] == 4


def test_any_msgpack_can_read_ours(path):
    formats.write_lmdb(path, [["a", 1, [2.5, None]]])
    with lmdb.open(path, subdir=False, lock=False, readonly=True) as environment, environment.begin() as transaction:
        assert msgpack.unpackb(transaction.get(b"00000000")) == ["a", 1, [2.5, None]]
        assert msgpack.unpackb(transaction.get(b"__keys__")) == [b"00000000"]


def test_databases_of_others_are_read_in_their_order(path):
    bare(path, [(b"dog", b"wau"), (b"cat", b"meow"), (b"a longer key", b"?")])
    flow = formats.read_lmdb(path, decode=bytes, with_keys=True)
    assert list(flow) == [(b"a longer key", b"?"), (b"cat", b"meow"), (b"dog", b"wau")]
    assert flow[1] == (b"cat", b"meow")
    assert [flow[i] for i in (2, 0)] == list(ff.subset([2, 0], flow))
    assert [len(one) for one in formats.read_lmdb(path, decode=bytes.decode)] == [1, 4, 3]


def test_keys_are_those_that_the_user_names(path):
    bare(path, [(b"%03d" % i, b"%d" % i) for i in range(5)])
    assert list(formats.read_lmdb(path, keys="{:0>3d}", decode=int)) == [0, 1, 2, 3, 4]
    assert list(formats.read_lmdb(path, keys=["003", b"001"], decode=int)) == [3, 1]
    with pytest.raises(ValueError, match="nothing under the key b'9', which is to be datapoint 1"):
        list(formats.read_lmdb(path, keys=["003", "9"], decode=int))


@pytest.mark.parametrize("dumps", [packed_datapoint, pickle.dumps, lambda keys: pickle.dumps(keys, 2)])
def test_keys_that_the_database_lists_decide_the_order(dumps, path):
    keys = [b"b", b"c", b"a"]
    bare(path, [(b"__keys__", dumps(keys)), *[(key, packed_datapoint(key.decode())) for key in keys]])
    assert list(formats.read_lmdb(path)) == (["b", "c", "a"] if dumps(keys)[:2] != b"\x80\x02" else ["a", "b", "c"])
    assert list(formats.read_lmdb(path, allow_pickle=True)) == ["b", "c", "a"]


def test_more_than_eight_digits_are_found_by_their_keys(path, monkeypatch):
    monkeypatch.setattr(listings, "SORTED", 5)
    formats.write_lmdb(path, list(range(10)))
    flow = formats.read_lmdb(path)
    assert flow.part.object.listing == listings.Numbered(10)
    assert list(flow) == list(range(10))


# Writing


def test_the_map_grows_and_loses_nothing(path, monkeypatch):
    monkeypatch.setattr(environments, "FIRST", 1 << 16)
    monkeypatch.setattr(keyvalue, "TRANSACTION_BYTES", 1 << 12)
    images = [np.full((50, 50), i, np.uint8) for i in range(200)]
    formats.write_lmdb(path, images)
    assert same(list(formats.read_lmdb(path)), images)


def test_nothing_is_there_before_all_is(path):
    def flow():
        yield 1
        assert not os.path.exists(path)
        raise KeyError("torn")

    with pytest.raises(KeyError, match="torn"):
        formats.write_lmdb(path, flow)
    assert os.listdir(os.path.dirname(path)) == []


def test_an_existing_file_is_not_replaced_unless_told(path):
    formats.write_lmdb(path, [1])
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        formats.write_lmdb(path, [2])
    assert list(formats.read_lmdb(path)) == [1]
    formats.write_lmdb(path, [2], overwrite=True)
    assert list(formats.read_lmdb(path)) == [2]
    assert os.listdir(os.path.dirname(path)) == ["data.lmdb"]


@pytest.mark.parametrize(
    "stages",
    [(), (ff.shuffle(), ff.map(lambda x, rng: (x, int(rng.integers(1000))), rng=True))],
    ids=["plain", "random"],
)
def test_writing_goes_on_where_it_was_broken_off(stages, path, monkeypatch):
    monkeypatch.setattr(keyvalue, "TRANSACTION_BYTES", 5)
    seen = Calls()

    def counted(x):
        if len(seen.made) == 13 and not seen.broken:
            seen.broken = True
            raise OSError("broken off")
        seen.made.append(x)
        return x

    flow = ff.pipe(range(30), *stages, ff.map(counted))
    with pytest.raises(OSError, match="broken off"):
        formats.write_lmdb(path, flow, resume=True)
    assert os.listdir(os.path.dirname(path)) == ["data.lmdb.part"]
    formats.write_lmdb(path, flow, resume=True)
    assert os.listdir(os.path.dirname(path)) == ["data.lmdb"]
    assert list(formats.read_lmdb(path)) == list(ff.pipe(range(30), *stages))
    assert 30 <= len(seen.made) < 43  # not all was made again


def test_what_another_flow_began_is_not_continued(path, monkeypatch):
    monkeypatch.setattr(keyvalue, "TRANSACTION_BYTES", 1)

    def torn(x):
        if x == 3:
            raise OSError("broken off")
        return x

    with pytest.raises(OSError, match="broken off"):
        formats.write_lmdb(path, ff.pipe(range(10), ff.map(torn)), resume=True)
    with pytest.raises(ValueError, match="saved by another pipeline"):
        formats.write_lmdb(path, ff.pipe(range(11), ff.map(torn)), resume=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"torn",
        lambda text: b"5",
        lambda text: text.replace(b'"count": 3', b'"count": 2', 1),
        lambda text: text.replace(b'"position": 3', b'"position": 2'),
        lambda text: b'{"count": 3}',
    ],
)
def test_what_was_noted_is_not_believed_if_it_is_damaged(path, monkeypatch, damage):
    monkeypatch.setattr(keyvalue, "TRANSACTION_BYTES", 1)

    def torn(x):
        if x == 3:
            raise OSError("broken off")
        return x

    flow = ff.pipe(range(10), ff.map(torn))
    with pytest.raises(OSError, match="broken off"):
        formats.write_lmdb(path, flow, resume=True)
    with Growing(path + ".part", "test") as database:
        text = bytes(database.get(STATE))
        assert damage(text) != text
        database.put([], {STATE: damage(text)})
    with pytest.raises(ValueError, match="damaged"):
        formats.write_lmdb(path, flow, resume=True)


def test_what_was_whole_but_not_in_its_place_is_written_anew(path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patched.setattr(writing, "into_place", killed)
        formats.write_lmdb(path, range(100), resume=True)
    assert os.listdir(os.path.dirname(path)) == ["data.lmdb.part"]
    formats.write_lmdb(path, range(1000, 1050), resume=True)  # of which nobody knows that it is of another flow
    flow = formats.read_lmdb(path)
    assert list(flow) == list(range(1000, 1050))
    assert flow.part.object.handle.entries == 51


@pytest.mark.parametrize("value", [object(), np.array([None]), range(3), json])
def test_what_is_no_data_is_refused_with_its_number(value, path):
    with pytest.raises(TypeError, match=r"must be of|cannot pickle") as caught:
        formats.write_lmdb(path, [1, value])
    assert "datapoint 1" in caught.value.__notes__[0]
    assert not os.path.exists(path)


def test_bytes_are_what_encode_returns(path):
    formats.write_lmdb(path, [b"a", b"b"], encode=bytes)
    assert list(formats.read_lmdb(path, decode=bytes)) == [b"a", b"b"]
    with pytest.raises(TypeError, match="encode must return bytes, got 'x' for datapoint 0"):
        formats.write_lmdb(path + "2", ["x"], encode=lambda datapoint: datapoint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keys": 3}, "keys must be a template"),
        ({"keys": [3]}, "keys must be a template"),
        ({"decode": "msgpack"}, "decode must be a function or None"),
        ({"allow_pickle": 1}, "allow_pickle must be True or False"),
    ],
)
def test_wrong_arguments_fail_at_once(arguments, message, path):
    formats.write_lmdb(path, [1])
    with pytest.raises((TypeError, ValueError), match=message):
        formats.read_lmdb(path, **arguments)


# Files that are not what they should be


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"data\.lmdb"):
        formats.read_lmdb(path)


def test_a_url_is_refused():
    for call in (formats.read_lmdb, lambda url: formats.write_lmdb(url, [1])):
        with pytest.raises(ValueError, match="must be a local one"):
            call("memory://data.lmdb")


@pytest.mark.parametrize("size", [0, 100, 5000, 0.5, -1])
def test_a_truncated_database_is_not_read(size, path):
    formats.write_lmdb(path, [np.zeros(5000) for _ in range(20)])
    whole = os.path.getsize(path)
    os.truncate(path, int(whole * size) if isinstance(size, float) else size % whole)
    with pytest.raises(
        ValueError, match=r"read_lmdb\(\): .*data\.lmdb (is truncated: it must have|is empty|cannot be opened as LMDB)"
    ):
        len(formats.read_lmdb(path))


def test_noise_is_not_read(path):
    with open(path, "wb") as file:
        file.write(random.Random(0).randbytes(100_000))
    with pytest.raises(ValueError, match="cannot be opened as LMDB"):
        list(formats.read_lmdb(path))


def test_a_pickle_is_not_opened_unless_it_may_be(path, tmp_path):
    trace = str(tmp_path / "ran")
    for payload in (
        pickle.dumps(Bomb(trace)),
        packed_datapoint({b"nd": True, b"type": "O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps(Bomb(trace))}),
    ):
        formats.write_lmdb(path, [b"ok", payload], encode=bytes, overwrite=True)
        for read in (lambda flow: flow[1], list, lambda flow: list(ff.subset([1], flow))):
            with pytest.raises(ValueError, match=r"is a pickle.*pass allow_pickle=True"):
                read(formats.read_lmdb(path, keys=["00000001"] * 2))
    assert not os.path.exists(trace)
    with pytest.raises(ValueError, match=r"datapoint 1 \(key b'00000001'\) of .* is a pickle"):
        formats.read_lmdb(path)[1]


def test_a_pickled_list_of_keys_runs_nothing(path, tmp_path):
    trace = str(tmp_path / "ran")
    bare(path, [(b"__keys__", pickle.dumps([Bomb(trace)])), (b"a", packed_datapoint(1)), (b"b", packed_datapoint(2))])
    assert list(formats.read_lmdb(path)) == [1, 2]
    assert not os.path.exists(trace)


HOSTILE = {
    "nothing": b"",
    "cut off": packed_datapoint(["long", "datapoint"])[:-3],
    "something behind it": packed_datapoint([1]) + b"x",
    "no msgpack": b"\xc1",
    "4 GB of bytes": b"\xc6\xff\xff\xff\xff",
    "4 thousand million items": b"\xdd\xff\xff\xff\xff",
    "lists in lists": b"\x91" * 100_000 + b"\x90",
    "an array of objects": packed_datapoint({b"nd": True, b"type": "O", b"shape": [1], b"data": bytes(8)}),
    "an array that is too large": packed_datapoint(
        {b"nd": True, b"type": "<f4", b"shape": [1 << 60], b"data": bytes(8)}
    ),
    "a negative shape": packed_datapoint({b"nd": True, b"type": "<f4", b"shape": [-1, -2], b"data": bytes(8)}),
    "objects in a structure": packed_datapoint(
        {b"nd": True, b"type": [["a", "O"]], b"kind": b"V", b"shape": [1], b"data": bytes(8)}
    ),
    "an unknown extension": msgpack.packb(msgpack.ExtType(77, b"")),
    "tuples in tuples": msgpack.packb(msgpack.ExtType(0, packed_datapoint(3))),
}


MIXED = [{46: 1, **dict.fromkeys(range(7), "x")}, {}, [1], "text", {}, {46: None}, b"bytes", 7]
"""Some of these begin as pickles do, or are pickles of something else if they are read as such."""


@pytest.mark.parametrize("size", [0, 5_000], ids=["small", "large"])
@pytest.mark.parametrize("first", [packed_datapoint, pickle.dumps], ids=["msgpack", "pickle"])
def test_pickles_among_others_are_told_apart(first, size, path):
    datapoints = [*MIXED, bytes(size)] * 20
    forms = [first, packed_datapoint, pickle.dumps]
    items = [(b"%08d" % number, forms[number % 3](datapoint)) for number, datapoint in enumerate(datapoints)]
    bare(path, items)
    flow = formats.read_lmdb(path, allow_pickle=True)
    assert same(list(flow), datapoints)
    order = random.Random(0).sample(range(len(datapoints)), len(datapoints))
    assert same(list(ff.subset(order, flow)), [datapoints[index] for index in order])
    assert same([flow[index] for index in order], [datapoints[index] for index in order])
    refusing = iter(formats.read_lmdb(path))
    with pytest.raises(ValueError, match=r"datapoint \d \(key b'0000000\d'\) of .* cannot be read: it is a pickle"):
        list(refusing)
    assert refusing.position == (0 if first is pickle.dumps else 2)


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_payload_is_told_with_its_key(payload, path):
    formats.write_lmdb(path, [packed_datapoint(1), payload], encode=bytes)
    flow = formats.read_lmdb(path)
    assert flow[0] == 1
    for read in (lambda: flow[1], lambda: list(flow)):
        with pytest.raises(ValueError, match=r"datapoint 1 \(key b'00000001'\) of .*data\.lmdb cannot be read"):
            read()


def test_an_absurd_number_of_entries_is_held_against_the_file(path):
    formats.write_lmdb(path, range(5))
    with open(path, "rb") as file:
        damaged = bytearray(file.read())
    for place in (120, 4096 + 120):  # in each of the two pages that tell of all others
        damaged[place : place + 8] = struct.pack("<Q", 1 << 50)
    with open(path, "wb") as file:
        file.write(damaged)
    with pytest.raises(ValueError, match=rf"is corrupt: it says that it has {1 << 50} entries, in \d+ bytes"):
        len(formats.read_lmdb(path))


def test_corrupted_pages_are_errors_or_other_data(path):
    formats.write_lmdb(path, [[np.full(3000, i, np.uint8), i] for i in range(50)])
    with open(path, "rb") as file:
        whole = file.read()
    draw, told = random.Random(0), 0
    for attempt in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[draw.choice([1, 2, 3, 4, 5, 20, 52]) * 4096 + draw.randrange(200)] = draw.randrange(256)
        other = f"{path}{attempt}"
        with open(other, "wb") as file:
            file.write(damaged)
        try:
            list(formats.read_lmdb(other))
        except (ValueError, OverflowError):
            told += 1
    assert told


# Caffe


@pytest.fixture
def cv2():
    import cv2

    return cv2


def datums(path, *given):
    message = datum("a test", "lmdb")
    return bare(path, [(b"%08d_name" % i, message(**fields).SerializeToString()) for i, fields in enumerate(given)])


def test_raw_images_of_caffe_come_in_rgb(path):
    planes = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
    datums(path, {"channels": 3, "height": 2, "width": 4, "data": planes.tobytes(), "label": 7})
    (image, label), (other, _) = formats.read_caffe_lmdb(path)[0], formats.read_caffe_lmdb(path, stored="rgb")[0]
    assert label == 7
    assert image.shape == (2, 4, 3)
    np.testing.assert_array_equal(image[:, :, ::-1], planes.transpose(1, 2, 0))
    np.testing.assert_array_equal(other, planes.transpose(1, 2, 0))


def test_floats_and_gray_images_of_caffe(path):
    gray = {"channels": 1, "height": 2, "width": 2, "data": b"\x01\x02\x03\x04", "label": 1}
    floats = {"channels": 2, "height": 1, "width": 2, "float_data": [0.5, 1, 2, 3], "label": 0}
    datums(path, gray, floats)
    (first, _), (second, _) = formats.read_caffe_lmdb(path)
    assert first.tolist() == [[[1], [2]], [[3], [4]]]
    assert second.dtype == np.float32
    assert second.tolist() == [[[0.5, 2], [1, 3]]]


def test_encoded_images_of_caffe_are_decoded(path, cv2):
    image = np.zeros((3, 2, 3), np.uint8)
    image[0, 0] = 255, 10, 0  # red, mostly
    png = cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()
    deep = cv2.imencode(".png", np.full((2, 2), 40_000, np.uint16))[1].tobytes()
    datums(path, {"data": png, "encoded": True, "label": 3}, {"data": deep, "encoded": True})
    flow = formats.read_caffe_lmdb(path)
    assert same(flow[0], [image, 3])
    assert flow[1][0].dtype == np.uint16
    assert flow[1][0].shape == (2, 2, 1)


BOUNDLESS = b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    )
)
"""A picture file that says that it has 120 GB."""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 3, "height": 1 << 30, "width": 1 << 30, "data": b"x"}, "has 1 values"),
        ({"channels": -1, "height": -1, "width": 1, "data": b"x"}, "has 1 values"),
        ({"encoded": True, "data": b"\x89PNG torn"}, "encoded image is no image that OpenCV decodes"),
        ({"encoded": True}, "encoded image is empty"),
        ({"encoded": True, "data": BOUNDLESS}, "encoded image is a PNG image, but damaged"),
        ({"encoded": True, "data": b"\xff\xd8\xff\xe0\0\4ab\xff\xda"}, "encoded image is a JPEG image that is cut off"),
    ],
)
def test_a_datum_that_lies_is_told(fields, message, path, cv2):
    datums(path, fields)
    with pytest.raises(ValueError, match=rf"read_caffe_lmdb\(\): datapoint 0 .*{message}"):
        list(formats.read_caffe_lmdb(path))


def test_what_is_no_datum_is_told(path):
    bare(path, [(b"a", b"\xff\xff\xff")])
    with pytest.raises(ValueError, match="it is no Datum"):
        formats.read_caffe_lmdb(path)[0]


# A root that is damaged: LMDB would take the other one, or none, without a word


def rooted(path, own):
    """A database of several commits, and where the newest of its roots lies."""
    if own:
        formats.write_lmdb(path, [[number, "x" * 50] for number in range(200)])
    else:
        for first in (0, 100, 200):
            bare(path, [(b"k%05d" % number, bytes(60)) for number in range(first, first + 100)])
    with open(path, "rb") as file:
        held = bytearray(file.read())
    commits = [int.from_bytes(held[at + 144 : at + 152], "little") for at in (0, 4096)]
    return held, 4096 * commits.index(max(commits))


@pytest.mark.parametrize("own", [True, False], ids=["ours", "another's"])
@pytest.mark.parametrize(
    ("at", "number", "message"),
    [
        (144, 0, "of which nothing was ever committed|its two roots are of the commits"),
        (144, 2**63, "its two roots are of the commits"),
        (144, 9, "its two roots are of the commits"),
        (128, 2**64 - 1, r"it says that it has \d+ entries, and 0 are found"),
        (120, 7, r"\d+ keys are listed, and it has 6 entries|it says that it has 7 entries, and 8 are found"),
        (120, 0, r"\d+ keys are listed|it says that it has 0 entries, and 1 are found"),
    ],
    ids=["commit 0", "commit 2**63", "commit 9", "no root", "fewer entries", "no entries"],
)
def test_a_damaged_root_is_told_and_nothing_is_lost_in_silence(own, at, number, message, path, tmp_path):
    held, root = rooted(path, own)
    held[root + at : root + at + 8] = number.to_bytes(8, "little")
    (tmp_path / "damaged.lmdb").write_bytes(held)
    flow = formats.read_lmdb(tmp_path / "damaged.lmdb", decode=None if own else bytes)
    with pytest.raises(ValueError, match=rf"^read_lmdb\(\): .*damaged\.lmdb (is corrupt: |has \d+ bytes, )({message})"):
        len(flow)


@pytest.mark.parametrize("own", [True, False], ids=["ours", "another's"])
def test_copies_and_a_database_of_any_number_of_commits_are_read(own, path, tmp_path):
    rooted(path, own)
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment:
        for name, compact in (("plain", False), ("compact", True)):
            environment.copy(str(tmp_path / name), compact=compact)
    for commits in range(1, 5):
        for commit in range(commits):
            bare(str(tmp_path / f"{commits}.lmdb"), [(b"%d" % commit, b"")])
        assert len(formats.read_lmdb(tmp_path / f"{commits}.lmdb", decode=bytes)) == commits
    whole = list(map(str, formats.read_lmdb(path, decode=bytes)))
    assert [list(map(str, formats.read_lmdb(tmp_path / name, decode=bytes))) for name in ("plain", "compact")] == [
        whole
    ] * 2


# Databases of other kinds


def test_databases_within_the_database_are_no_datapoints(path):
    with lmdb.open(str(path), subdir=False, max_dbs=2) as environment:
        for name in (b"train", b"val"):
            inner = environment.open_db(name)
            with environment.begin(write=True) as transaction:
                for number in range(1, 300):
                    transaction.put(b"%06d" % number, bytes(48), db=inner)
        with environment.begin(write=True) as transaction:
            transaction.put(b"plain", bytes(48))
    flow = formats.read_lmdb(path, decode=bytes)
    assert flow[0] == bytes(48)
    for index in (1, 2):
        with pytest.raises(
            ValueError, match=r"datapoint \d \(key b'(train|val)'\) of .* is a database of its own, which is not read"
        ):
            flow[index]
    with pytest.raises(ValueError, match="is a database of its own"):
        list(flow)
    with pytest.raises(ValueError, match="datapoint 1 "):
        formats.read_lmdb(path)[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda page: page[:92] + bytes([4, 0]) + page[94:], "several values under one key .dupsort."),
        (lambda page: page[:16] + page[16:20][::-1] + page[20:], "a machine of another order of bytes: dump it there"),
        (lambda page: page[4:], "a machine of 32 bits: dump it there"),
        (lambda page: b"hello" * 1000, "is it a whole LMDB database"),
    ],
    ids=["dupsort", "other order of bytes", "32 bits", "something else"],
)
def test_what_lmdb_does_not_read_here_is_named(changed, message, path, tmp_path):
    bare(path, [(b"a", b"1")])
    with open(path, "rb") as file:
        held = file.read()
    (tmp_path / "b.lmdb").write_bytes(changed(held[:4096]) + changed(held[4096:8192]) + held[8192:])
    with pytest.raises(ValueError, match=rf"^read_lmdb\(\): .*b\.lmdb.*{message}"):
        len(formats.read_lmdb(tmp_path / "b.lmdb", decode=bytes))
