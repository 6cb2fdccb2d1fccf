"""TFRecord: what TensorFlow and tensorpack wrote is read, without TensorFlow,
and what is damaged is told with its place."""

import base64
import gzip
import json
import os
import pickle
import random
import struct
import threading
import zlib
from itertools import pairwise

import crc32c
import numpy as np
import pytest
from resuming import Calls
from written_by_others import DATAPOINTS, EXAMPLES, written

import flowfn as ff
from flowfn import formats
from flowfn.formats.encoding.messages import example
from flowfn.formats.encoding.payloads import packed_datapoint
from flowfn.formats.tfrecord import framing
from flowfn.formats.tfrecord import writing as tfrecord_writing
from flowfn.testing import check, same

COMPRESSIONS = pytest.mark.parametrize("compression", [None, "gzip", "zlib"])


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
    return str(tmp_path / "data.tfrecord")


@pytest.fixture
def whole(path):
    """A file of ten records, and what is in it."""
    formats.write_tfrecord(path, [[i, b"x" * 10 * i] for i in range(10)])
    with open(path, "rb") as file:
        return file.read()


def raw(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path


def frame(payload, length=None):
    """A record as the specification has it; `length` is a lie."""

    def masked(data):
        crc = crc32c.crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    head = struct.pack("<Q", len(payload) if length is None else length)
    return head + masked(head) + payload + masked(payload)


# TensorFlow, and tensorpack


def test_checksums_are_those_of_the_specification():
    assert crc32c.crc32c(b"123456789") == 0xE3069283  # RFC 3720, and everybody else
    assert framing.framed(b"abc", crc32c.crc32c) == frame(b"abc")
    assert base64.b64encode(frame(b"")) == b"AAAAAAAAAAApA5gH2OqCog=="


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow-gzip", "tensorflow-zlib"])
def test_files_of_tensorflow_are_read(name, path, tmp_path):
    compression = name[11:] or None
    flow = formats.read_tfrecord(written(tmp_path / "data.tfrecord", f"{name}.tfrecord"), compression=compression)
    assert same(list(flow), EXAMPLES)
    assert flow.seekable == (compression is None)


def test_features_are_chosen_and_formed(tmp_path):
    path = written(tmp_path / "data.tfrecord", "tensorflow.tfrecord")
    form = {"label": int, "name": str, "image": ("uint8", (1, 2, 3)), "boxes": (np.float64, (-1, 4)), "words": len}
    first = formats.read_tfrecord(path, features=form)[0]
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert same(first, {"label": -1, "name": "cat0", "image": image, "boxes": np.array([[0.5, 0, 2, 3]]), "words": 2})
    assert list(first) == list(form)
    assert same(formats.read_tfrecord(path, features=["label"])[2], {"label": np.array([1])})


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"missing": int}, "no feature 'missing'; it has 'boxes', 'image', 'label', 'name', 'none', 'words'"),
        ({"name": int}, "must be one value of int"),
        ({"words": str}, "must be one value of str"),
        ({"boxes": float}, "must be one value of float"),
        ({"boxes": ("float32", (3,))}, r"must have the shape \(3,\), and has 4 values"),
        ({"boxes": ("float32", (-1, 3))}, r"must have the shape \(-1, 3\)"),
        ({"image": ("uint32", (2,))}, "must be the bytes of one array of uint32"),
        ({"words": ("uint8", (-1,))}, "must be the bytes of one array"),
    ],
)
def test_features_that_are_not_so_are_told(features, message, tmp_path):
    path = written(tmp_path / "data.tfrecord", "tensorflow.tfrecord")
    with pytest.raises(ValueError, match=rf"record 0 of .*data\.tfrecord, at byte 0, cannot be read: .*{message}"):
        list(formats.read_tfrecord(path, features=features))


@pytest.mark.parametrize("form", ["msgpack", "pickle"])
def test_files_of_tensorpack_are_read(form, tmp_path):
    path = written(tmp_path / "data.tfrecord", f"tensorpack-{form}.tfrecord")
    flow = formats.read_tfrecord(path, allow_pickle=form == "pickle")
    assert same(list(flow), DATAPOINTS)
    assert len(flow) == 3
    if form == "pickle":
        with pytest.raises(ValueError, match=r"record 0 of .* is a pickle.*allow_pickle=True"):
            list(formats.read_tfrecord(path))


def test_an_example_is_a_message_that_protobuf_reads():
    datapoint = {
        "a": [1, -2, 2**62],
        "b": "text",
        "c": np.array([[0.5, 1]]),
        "d": [b"x", "y"],
        "e": True,
        "f": np.array(["u"]),
        "g": [],
    }
    read = example("a test", "tfrecord").FromString(formats.as_example(datapoint)).features.feature
    assert list(read["a"].int64_list.value) == [1, -2, 2**62]
    assert list(read["b"].bytes_list.value) == [b"text"]
    assert list(read["c"].float_list.value) == [0.5, 1]
    assert list(read["d"].bytes_list.value) == [b"x", b"y"]
    assert list(read["e"].int64_list.value) == [1]
    assert list(read["f"].bytes_list.value) == [b"u"]
    assert read["g"].WhichOneof("kind") == "float_list"
    assert formats.as_example(datapoint) == formats.as_example(dict(reversed(datapoint.items())))


@pytest.mark.parametrize(
    ("datapoint", "error", "message"),
    [
        ([1], TypeError, "must be a dict with strings as keys"),
        ({1: 2}, TypeError, "must be a dict with strings as keys"),
        ({"a": None}, TypeError, "'a' must be strings, bytes, integers or floats"),
        ({"a": 2**63}, ValueError, "'a' does not fit into 64-bit integers"),
    ],
)
def test_what_no_example_can_hold_is_told(datapoint, error, message):
    with pytest.raises(error, match=message):
        formats.as_example(datapoint)


# Reading


def test_a_file_is_a_seekable_flow(path):
    formats.write_tfrecord(path, ({"number": i, "square": np.array(i * i)} for i in range(100)))
    flow = formats.read_tfrecord(path)
    assert len(flow) == 100
    assert flow[-1] == {"number": 99, "square": np.array(9801)}
    assert [one["number"] for one in flow] == list(range(100))
    assert sorted(one["number"] for one in ff.pipe(flow, ff.shuffle())) == list(range(100))
    assert repr(flow) == f"read_tfrecord({path!r})"
    with pytest.raises(IndexError, match="index 100 is out of range"):
        flow.part.object[100]


def test_the_laws_hold(tmp_path):
    for number in range(3):
        formats.write_tfrecord(tmp_path / f"{number}.tfrecord", list(range(number * 5, number * 7)))
    check(lambda: ff.pipe(formats.read_tfrecord(f"{tmp_path}/*.tfrecord"), ff.shuffle(), ff.batch(3)))


@COMPRESSIONS
def test_compressed_or_not_it_is_the_same(compression, path):
    datapoints = [[i, np.full((50, 50), i)] for i in range(30)]
    formats.write_tfrecord(path, datapoints, compression=compression)
    flow = formats.read_tfrecord(path, compression=compression)
    assert same(list(flow), datapoints)
    assert same(list(flow.run(start=28)), datapoints[28:])
    if compression:
        with pytest.raises(TypeError, match="can only be read from its beginning"):
            flow[0]
        with pytest.raises(ValueError, match=f'it looks compressed: pass compression="{compression}"'):
            list(formats.read_tfrecord(path))


def test_files_of_a_pattern_are_read_in_natural_order(tmp_path):
    for number in (10, 9, 0, 1):
        formats.write_tfrecord(tmp_path / f"part-{number}.tfrecord", [number] * (number % 5))
    expected = [1, 9, 9, 9, 9]
    flow = formats.read_tfrecord(str(tmp_path / "part-*"))
    assert list(flow) == expected == [flow[i] for i in range(5)]
    assert list(ff.subset([4, 0, 1], flow)) == [9, 1, 9]
    assert list(formats.read_tfrecord(str(tmp_path / "part-{0..1}.tfrecord"))) == [1]
    paths = [tmp_path / "part-9.tfrecord", str(tmp_path / "part-1.tfrecord")]
    assert list(formats.read_tfrecord(paths)) == [9, 9, 9, 9, 1]
    with pytest.raises(FileNotFoundError, match="no file matches"):
        formats.read_tfrecord(str(tmp_path / "none-*"))


def test_more_files_than_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(framing, "OPEN_RECORD_FILES", 2)
    for number in range(9):
        formats.write_tfrecord(tmp_path / f"{number}.tfrecord", [number, number])
    flow = formats.read_tfrecord(f"{tmp_path}/*.tfrecord")
    assert sorted(ff.pipe(flow, ff.shuffle())) == sorted([*range(9)] * 2)
    assert len(flow.part.object.handle._open) == 2


@pytest.mark.long
@pytest.mark.timeout(180)
def test_worker_processes_open_the_files_for_themselves(tmp_path):
    for number in range(4):
        formats.write_tfrecord(tmp_path / f"{number}.tfrecord", [[np.full(5, i), number] for i in range(20)])
    flow = formats.read_tfrecord(f"{tmp_path}/*.tfrecord")
    alone = list(ff.pipe(flow, ff.shuffle(), ff.batch(4)))
    assert len(pickle.dumps(flow)) < 2000
    assert same(list(ff.pipe(flow, ff.shuffle(), ff.batch(4), ff.prefetch(2, processes=2))), alone)


def test_threads_read_at_once(path):
    formats.write_tfrecord(path, [[i, b"x" * i] for i in range(400)])
    flow, found = formats.read_tfrecord(path), {}

    def read(which):
        found[which] = [flow[i][0] for i in range(which, 400, 4)]

    threads = [threading.Thread(target=read, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {which: list(range(which, 400, 4)) for which in range(4)}


def test_what_comes_out_stays_as_it_is(path):
    formats.write_tfrecord(path, [np.full(1000, i) for i in range(300)])
    held = list(formats.read_tfrecord(path))  # memory is used again while reading, but not what was given
    assert all((array == number).all() for number, array in enumerate(held))
    formats.write_tfrecord(path, [b"%d" % i * 100 for i in range(300)], encode=bytes, overwrite=True)
    assert list(formats.read_tfrecord(path, decode=lambda payload: payload)) == [b"%d" % i * 100 for i in range(300)]


def test_large_and_small_records_mix(path):
    sizes = [0, 1, 1 << 19, 3, 5000, 1 << 20, 0, 4096]
    formats.write_tfrecord(path, [bytes(size) for size in sizes], encode=bytes)
    flow = formats.read_tfrecord(path, decode=len)
    assert list(flow) == sizes
    assert [flow[i] for i in range(8)] == sizes


def test_urls_are_read_in_order_and_with_an_index_anywhere(path):
    import fsspec

    formats.write_tfrecord("memory://some/data.tfrecord", list(range(20)))
    flow = formats.read_tfrecord("memory://some/data.tfrecord")
    assert not flow.seekable
    assert list(flow) == list(range(20))
    formats.write_tfrecord(path, list(range(20)))
    assert len(formats.read_tfrecord(path, save_index=True)) == 20
    fsspec.filesystem("memory").put(path + ".idx", "/some/data.tfrecord.idx")
    assert formats.read_tfrecord("memory://some/data.tfrecord", save_index=True)[7] == 7


# The index


def test_an_index_is_kept_beside_the_file_as_dali_writes_it(path, whole):
    flow = formats.read_tfrecord(path, save_index=True)
    assert len(flow) == 10
    with open(path + ".idx") as file:
        lines = [tuple(map(int, line.split())) for line in file]
    assert lines[0] == (0, 12 + len(packed_datapoint([0, b""])) + 4)
    assert all(end + size == begin for (end, size), (begin, _) in pairwise(lines))
    assert sum(lines[-1]) == len(whole)
    assert list(formats.read_tfrecord(path, save_index=True)) == list(flow)


@pytest.mark.parametrize("text", ["", "0 20\n", "x y\n", "0 1e9\n", "0 -5\n", "99999999999999999999 1\n", "3 4 5"])
def test_an_index_that_does_not_fit_is_made_anew(text, path, whole):
    with open(path + ".idx", "w") as file:
        file.write(text)
    assert len(formats.read_tfrecord(path, save_index=True)) == 10
    with open(path + ".idx") as file:
        assert file.read().count("\n") == 10


def test_an_index_that_lies_is_found_out(path, whole):
    with open(path + ".idx", "w") as file:
        file.write(f"0 30\n30 {len(whole) - 30}\n")
    flow = formats.read_tfrecord(path, save_index=True)
    for read in (lambda: flow[0], lambda: list(flow)):
        with pytest.raises(ValueError, match="its length is not that of the index"):
            read()


# Writing


@COMPRESSIONS
def test_the_same_datapoints_give_the_same_bytes(compression, path):
    files = []
    for _ in range(2):
        formats.write_tfrecord(path, DATAPOINTS, compression=compression, overwrite=True)
        with open(path, "rb") as file:
            files.append(file.read())
    assert files[0] == files[1]
    unpacked = {None: bytes, "gzip": gzip.decompress, "zlib": zlib.decompress}[compression](files[0])
    assert unpacked == b"".join(frame(packed_datapoint(datapoint)) for datapoint in DATAPOINTS)


def test_nothing_is_there_before_all_is(path):
    def flow():
        yield 1
        assert not os.path.exists(path)
        raise KeyError("torn")

    with pytest.raises(KeyError, match="torn"):
        formats.write_tfrecord(path, flow)
    assert os.listdir(os.path.dirname(path)) == []


def test_an_existing_file_is_not_replaced_unless_told(path):
    formats.write_tfrecord(path, [1])
    with pytest.raises(FileExistsError, match=r"write_tfrecord\(\): .* exists; pass overwrite=True"):
        formats.write_tfrecord(path, [2])
    formats.write_tfrecord(path, [2], overwrite=True)
    assert list(formats.read_tfrecord(path)) == [2]


@pytest.mark.parametrize(
    "stages",
    [(), (ff.shuffle(), ff.map(lambda x, rng: (x, int(rng.integers(1000))), rng=True))],
    ids=["plain", "random"],
)
def test_writing_goes_on_where_it_was_broken_off(stages, path, monkeypatch):
    monkeypatch.setattr(tfrecord_writing, "JOURNAL_SECONDS", -1)
    seen = Calls()

    def counted(x):
        if len(seen.made) == 13 and not seen.broken:
            seen.broken = True
            raise OSError("broken off")
        seen.made.append(x)
        return x

    flow = ff.pipe(range(30), *stages, ff.map(counted))
    with pytest.raises(OSError, match="broken off"):
        formats.write_tfrecord(path, flow, resume=True)
    assert sorted(os.listdir(os.path.dirname(path))) == ["data.tfrecord.part", "data.tfrecord.part.json"]
    with open(path + ".part", "ab") as file:
        file.write(b"torn by a crash")
    formats.write_tfrecord(path, flow, resume=True)
    assert os.listdir(os.path.dirname(path)) == ["data.tfrecord"]
    assert list(formats.read_tfrecord(path)) == list(ff.pipe(range(30), *stages))
    assert len(seen.made) == 30


def test_what_another_flow_began_is_not_continued(path, monkeypatch):
    monkeypatch.setattr(tfrecord_writing, "JOURNAL_SECONDS", -1)

    def torn(x):
        if x == 3:
            raise OSError("broken off")
        return x

    with pytest.raises(OSError, match="broken off"):
        formats.write_tfrecord(path, ff.pipe(range(10), ff.map(torn)), resume=True)
    with pytest.raises(ValueError, match="saved by another pipeline"):
        formats.write_tfrecord(path, ff.pipe(range(11), ff.map(torn)), resume=True)


def test_how_far_another_file_had_come_is_forgotten(path, monkeypatch):
    with open(path + ".part.json", "w") as file:  # its file is in place, and it was killed before it could remove this
        json.dump({"count": 3, "bytes": 60, "state": {}}, file)

    def torn(x):
        if x == 5:
            raise OSError("broken off")
        return x

    with pytest.raises(OSError, match="broken off"):
        formats.write_tfrecord(path, ff.pipe(range(100, 110), ff.map(lambda x: torn(x - 100))), resume=True)
    assert os.listdir(os.path.dirname(path)) == ["data.tfrecord.part"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda known: {**known, "bytes": known["bytes"] - 1},
        lambda known: {**known, "count": known["count"] - 1},
        lambda known: {**known, "bytes": -1},
        lambda known: {**known, "count": "5"},
        lambda known: {**known, "bytes": None},
        lambda known: {**known, "state": {**known["state"], "position": 1}},
        lambda known: {"count": 5},
        lambda known: [known],
        lambda known: 5,
    ],
)
def test_what_was_noted_is_not_believed_if_it_is_damaged(path, monkeypatch, damage):
    monkeypatch.setattr(tfrecord_writing, "JOURNAL_SECONDS", -1)
    seen = Calls()

    def torn(x):
        if x == 5 and not seen.broken:
            seen.broken = True
            raise OSError("broken off")
        return x

    flow = ff.pipe(range(10), ff.map(torn))
    with pytest.raises(OSError, match="broken off"):
        formats.write_tfrecord(path, flow, resume=True)
    with open(path + ".part.json") as file:
        known = json.load(file)
    with open(path + ".part.json", "w") as file:
        json.dump(damage(known), file)
    formats.write_tfrecord(path, flow, resume=True)
    assert list(formats.read_tfrecord(path)) == list(range(10))


def test_what_is_compressed_cannot_be_resumed(path):
    with pytest.raises(ValueError, match="cannot be resumed"):
        formats.write_tfrecord(path, [1], compression="gzip", resume=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compression": "lzma"}, "compression must be 'gzip', 'zlib' or None"),
        ({"features": "label"}, "features must be a list of names"),
        ({"features": {"a": ("O", (1,))}}, "features must be a list of names"),
        ({"features": {"a": ("f4", (-1, -1))}}, "features must be a list of names"),
        ({"features": ["a"], "decode": bytes}, "not both"),
        ({"decode": 3}, "decode must be a function or None"),
        ({"save_index": "yes"}, "save_index must be True or False"),
    ],
)
def test_wrong_arguments_fail_at_once(arguments, message, path, whole):
    with pytest.raises((TypeError, ValueError), match=message):
        formats.read_tfrecord(path, **arguments)


# Files that are not what they should be


def test_an_empty_file_has_no_records(path):
    raw(path, b"")
    assert list(formats.read_tfrecord(path)) == []
    formats.write_tfrecord(path, [], overwrite=True)
    assert os.path.getsize(path) == 0


def reads(path):
    """The ways of reading a file: by its index, and in order."""
    with open(path, "rb") as file:
        compressed = raw(path + ".gz", gzip.compress(file.read()))
    return lambda: list(formats.read_tfrecord(path)), lambda: list(
        formats.read_tfrecord(compressed, compression="gzip")
    )


@pytest.mark.parametrize("left", [1, 11, 12, 15, 17])
def test_a_truncated_file_says_where(left, path, whole):
    sixth = sum(16 + len(packed_datapoint([i, b"x" * 10 * i])) for i in range(6))
    raw(path, whole[: sixth + left])
    for read in reads(path):
        with pytest.raises(
            ValueError, match=rf"is truncated: record 6, at byte {sixth}, must have \d+ bytes, and {left} are left"
        ):
            read()


def test_every_flipped_byte_is_found(path, whole):
    draw = random.Random(0)
    for at in [*range(30), *draw.sample(range(len(whole)), 30)]:
        raw(path, whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
        for read in reads(path):
            with pytest.raises(ValueError, match=r"checksum of its (length|bytes) is wrong"):
                read()


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 40, 100])
def test_absurd_lengths_are_held_against_the_file(length, path):
    raw(path, frame(packed_datapoint(1)) + frame(b"liar", length))
    for read in reads(path):
        with pytest.raises(ValueError, match="is truncated: record 1, at byte 17"):
            read()


def test_a_pickle_is_not_opened_unless_it_may_be(path, tmp_path):
    trace = str(tmp_path / "ran")
    formats.write_tfrecord(path, [Bomb(trace)], encode=pickle.dumps)
    for read in reads(path):
        with pytest.raises(ValueError, match="is a pickle"):
            read()
    assert not os.path.exists(trace)


@pytest.mark.parametrize(
    "payload",
    [b"\xc1", b"\x0a\xff\xff\xff\xff\xff", b"\x0a\x05ab", b"\xdd\xff\xff\xff\xff", packed_datapoint([1])[:-1]],
    ids=repr,
)
def test_what_cannot_be_decoded_is_told_with_its_place(payload, path):
    raw(path, frame(packed_datapoint(1)) + frame(payload))
    for read in reads(path):
        with pytest.raises(ValueError, match=r"record 1 of .*data\.tfrecord(\.gz)?, at byte 17, cannot be read"):
            read()


@pytest.mark.parametrize("compression", ["gzip", "zlib"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
def test_torn_compression_is_told(compression, part, path):
    formats.write_tfrecord(path, [random.Random(i).randbytes(500) for i in range(20)], compression=compression)
    os.truncate(path, int(os.path.getsize(path) * part))
    with pytest.raises(ValueError, match="what is compressed is torn in record"):
        list(formats.read_tfrecord(path, compression=compression))


@pytest.mark.parametrize("compression", ["gzip", "zlib"])
def test_what_is_not_compressed_is_told(compression, path, whole):
    with pytest.raises(ValueError, match=r"what is compressed is torn in record 0"):
        list(formats.read_tfrecord(path, compression=compression))


def test_a_file_that_shrinks_while_it_is_read_is_told(path, whole):
    flow = formats.read_tfrecord(path)
    assert len(flow) == 10
    os.truncate(path, 50)
    for read in (lambda: flow[9], lambda: list(flow)):
        with pytest.raises(ValueError, match=r"record \d of .* shorter than it was when its records were counted"):
            read()


def test_records_of_all_kinds_and_sizes_live_in_one_file(path):
    example_of = {"size": [3, 4], "name": "cat"}
    forms = [
        (packed_datapoint, {}),
        (packed_datapoint, [1, "x"]),
        (pickle.dumps, {}),
        (formats.as_example, example_of),
        (pickle.dumps, [b"y" * 99]),
        (packed_datapoint, 5),
    ]
    draw = random.Random(0)
    chosen = [
        draw.choice(forms) if number % 50 else (packed_datapoint, bytes(draw.randrange(400_000)))
        for number in range(300)
    ]
    chosen += [forms[1]] * 70 + [forms[3]] * 70 + [forms[4]] * 70
    raw(path, b"".join(framing.framed(encode(value), crc32c.crc32c) for encode, value in chosen))
    expected = [
        formats.from_example(encode(value)) if encode is formats.as_example else value for encode, value in chosen
    ]
    flow = formats.read_tfrecord(path, allow_pickle=True)
    assert same(list(flow), expected)
    order = draw.sample(range(len(chosen)), len(chosen))
    assert same(list(ff.subset(order, flow)), [expected[index] for index in order])
    assert same([flow[index] for index in order[:50]], [expected[index] for index in order[:50]])


@pytest.mark.parametrize("size", [10, 5_000, 50_000])
def test_records_before_a_damaged_one_come_out(size, path):
    records = [framing.framed(packed_datapoint([number, bytes(size)]), crc32c.crc32c) for number in range(30)]
    damaged = bytearray(records[20])
    damaged[-6] ^= 1
    raw(path, b"".join([*records[:20], bytes(damaged), *records[21:]]))
    found = iter(formats.read_tfrecord(path))
    assert [next(found)[0] for _ in range(20)] == list(range(20))
    with pytest.raises(
        ValueError, match=rf"record 20 of .*, at byte {sum(map(len, records[:20]))}, .*checksum of its bytes is wrong"
    ):
        next(found)
