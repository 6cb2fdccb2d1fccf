"""Protocol buffers, byte by byte: what they allow is read as they say,
and what a message does not know is never passed over."""

import gzip
import struct
import zlib

import crc32c
import numpy as np
import pytest
from written_by_others import SEQUENCES, written

import flowfn as ff
from flowfn import formats
from flowfn.formats.encoding.messages import datum, example, parsed, sequence_example
from flowfn.formats.tfrecord.framing import framed
from flowfn.testing import check, same


def varint(number):
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def field(number, content):
    """A field with its length before it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def number(place, value):
    """A field that is an integer."""
    return varint(place << 3) + varint(value)


def ints(*values):
    """A feature of integers."""
    return field(3, field(1, b"".join(map(varint, values))))


def floats(*values):
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


def texts(*values):
    return field(1, b"".join(field(1, value) for value in values))


def entry(name, content):
    """An entry of a map from names."""
    return field(1, field(1, name) + field(2, content))


def steps(*features):
    return b"".join(field(1, feature) for feature in features)


def lists(**held):
    """The feature lists of a SequenceExample."""
    return field(2, b"".join(entry(name.encode(), content) for name, content in held.items()))


ONE = field(1, entry(b"a", ints(1)))
NONE = np.array([], np.float32)
GROUP = varint(5 << 3 | 3) + number(1, 1) + varint(5 << 3 | 4)

READ = {
    "nothing": (b"", {}),
    "no features": (field(1, b""), {}),
    "each kind": (
        field(1, entry(b"i", ints(1, 2**64 - 1)) + entry(b"f", floats(0.5, -2)) + entry(b"b", texts(b"", b"\xff"))),
        {"b": [b"", b"\xff"], "f": np.array([0.5, -2], np.float32), "i": np.array([1, -1])},
    ),
    "integers that are not packed": (
        field(1, entry(b"a", field(3, number(1, 5) + number(1, 300)))),
        {"a": np.array([5, 300])},
    ),
    "floats that are not packed": (
        field(1, entry(b"a", field(2, b"\x0d" + struct.pack("<f", 1.5)))),
        {"a": np.array([1.5], np.float32)},
    ),
    "packed and not": (
        field(1, entry(b"a", field(3, number(1, 5) + field(1, b"\6\7") + number(1, 8)))),
        {"a": np.array([5, 6, 7, 8])},
    ),
    "an integer longer than needs be": (
        field(1, entry(b"a", field(3, field(1, b"\x85\x80\x00")))),
        {"a": np.array([5])},
    ),
    "a name twice": (field(1, entry(b"a", ints(1)) + entry(b"a", texts(b"x"))), {"a": [b"x"]}),
    "a kind twice": (field(1, entry(b"a", ints(1) + ints(2))), {"a": np.array([1, 2])}),
    "two kinds": (field(1, entry(b"a", ints(1) + texts(b"x"))), {"a": [b"x"]}),
    "a kind that comes again": (field(1, entry(b"a", ints(1) + texts(b"x") + ints(3))), {"a": np.array([3])}),
    "features twice": (ONE + field(1, entry(b"b", ints(2))), {"a": np.array([1]), "b": np.array([2])}),
    "a value before its name": (field(1, field(1, field(2, ints(4)) + field(1, b"k"))), {"k": np.array([4])}),
    "a name alone": (field(1, field(1, field(1, b"k"))), {"k": NONE}),
    "a value alone": (field(1, field(1, field(2, ints(4)))), {"": np.array([4])}),
    "two names": (field(1, field(1, field(1, b"k") + field(2, ints(4)) + field(1, b"l"))), {"l": np.array([4])}),
    "two values": (field(1, field(1, field(1, b"k") + field(2, ints(4)) + field(2, ints(5)))), {"k": np.array([4, 5])}),
    "an empty list of integers": (field(1, entry(b"a", field(3, b""))), {"a": np.array([], np.int64)}),
    "an empty list of bytes": (field(1, entry(b"a", field(1, b""))), {"a": []}),
    "a feature of no kind": (field(1, entry(b"a", b"")), {"a": NONE}),
    "a context and lists": (
        ONE + lists(t=steps(ints(1, 2), ints(3))),
        {"a": np.array([1]), "t": [np.array([1, 2]), np.array([3])]},
    ),
    "lists before the context": (lists(t=steps(ints(1))) + ONE, {"a": np.array([1]), "t": [np.array([1])]}),
    "lists alone": (lists(t=steps(texts(b"x"), texts()), u=b""), {"t": [[b"x"], []], "u": []}),
    "empty lists": (ONE + field(2, b""), {"a": np.array([1])}),
    "steps of other kinds": (lists(t=steps(ints(1), texts(b"x"), b"")), {"t": [np.array([1]), [b"x"], NONE]}),
    "lists twice": (lists(t=steps(ints(1))) + lists(u=steps(ints(2))), {"t": [np.array([1])], "u": [np.array([2])]}),
    "a list's name twice": (
        field(2, entry(b"t", steps(ints(1))) + entry(b"t", steps(ints(2)))),
        {"t": [np.array([2])]},
    ),
}
"""The bytes of a message, and what TensorFlow and protobuf's own library read in them."""

REFUSED = {
    "a field": (ONE + field(3, b"x"), "its SequenceExample has a field 3"),
    "an integer in front": (number(7, 3) + ONE, None),
    "a group": (ONE + GROUP, "its SequenceExample has a field 5"),
    "a field of Features": (field(1, entry(b"a", ints(1)) + field(2, b"x")), "its Features has a field 2"),
    "a field of an entry": (
        field(1, field(1, field(1, b"k") + field(2, ints(4)) + field(3, b"x"))),
        "its FeatureEntry has a field 3",
    ),
    "a group in an entry": (field(1, field(1, field(1, b"k") + GROUP)), "its FeatureEntry has a field 5"),
    "a kind of feature": (field(1, entry(b"a", field(4, b"x"))), "its Feature has a field 4"),
    "a field of a list": (field(1, entry(b"a", field(3, field(2, b"x")))), "its Int64List has a field 2"),
    "fixed integers": (
        field(1, entry(b"a", field(3, b"\x09" + bytes(8)))),
        r"field 1 \(value\) of its Int64List is of the wire type 1, not 0",
    ),
    "doubles": (
        field(1, entry(b"a", field(2, b"\x09" + bytes(8)))),
        r"field 1 \(value\) of its FloatList is of the wire type 1, not 5",
    ),
    "integers for floats": (
        field(1, entry(b"a", field(2, number(1, 5)))),
        "of its FloatList is of the wire type 0, not 5",
    ),
    "integers for bytes": (
        field(1, entry(b"a", field(1, number(1, 5)))),
        "of its BytesList is of the wire type 0, not 2",
    ),
    "an integer for a list": (
        field(1, entry(b"a", number(3, 5))),
        r"field 3 \(int64_list\) of its Feature is of the wire type 0, not 2",
    ),
    "a field of a feature list": (lists(t=steps(ints(1)) + field(2, b"x")), "its FeatureList has a field 2"),
    "a field of feature lists": (ONE + field(2, field(7, b"x")), "its FeatureLists has a field 7"),
    "a name in both": (
        ONE + lists(a=steps(ints(1))),
        "its SequenceExample has 'a' both in its context and among its feature lists",
    ),
    "a picture and who took it": (field(1, number(1, 5) + field(2, b"jpeg")) + field(2, b"camera"), None),
    "a name that is no text": (
        field(1, entry(b"\xff", ints(1))),
        "it is no tf.train.Example or SequenceExample: .*UTF-8",
    ),
    "a part of a float": (
        field(1, entry(b"a", field(2, field(1, bytes(5))))),
        "it is no tf.train.Example or SequenceExample",
    ),
}
"""The bytes of other messages, and what is said of them."""


def ways(path, payload):
    """A record among others is read: in order, compressed, one by one, and in batches of two."""
    records = b"".join(framed(one, crc32c.crc32c) for one in (ONE, payload, ONE))
    path.write_bytes(records)
    path.with_suffix(".gz").write_bytes(gzip.compress(records))
    return {
        "in order": lambda: list(formats.read_tfrecord(path))[1],
        "compressed": lambda: list(formats.read_tfrecord(path.with_suffix(".gz"), compression="gzip"))[1],
        "alone": lambda: formats.read_tfrecord(path)[1],
        "at random": lambda: list(ff.subset([2, 1, 0], formats.read_tfrecord(path)))[1],
        "given": lambda: formats.from_example(payload),
    }


@pytest.mark.parametrize("name", READ)
def test_what_protocol_buffers_allow_is_read_as_they_say(name, tmp_path):
    payload, right = READ[name]
    for way, read in ways(tmp_path / "a.tfrecord", payload).items():
        assert same(read(), right), way
    assert list(formats.from_example(payload)) == sorted(right)


@pytest.mark.parametrize("name", REFUSED)
def test_another_message_is_refused_by_name(name, tmp_path):
    payload, words = REFUSED[name]
    for way, read in ways(tmp_path / "a.tfrecord", payload).items():
        with pytest.raises(ValueError, match=words or ".") as caught:
            read()
        if way != "given":
            assert f"record 1 of {tmp_path}/a." in str(caught.value), way


@pytest.mark.parametrize("name", READ)
def test_the_bytes_of_an_example_are_those_of_a_sequence_example_without_lists(name):
    payload, _ = READ[name]
    message = sequence_example("a test", "tfrecord").FromString(payload)
    message.ClearField("feature_lists")
    assert example("a test", "tfrecord").FromString(message.SerializeToString()).features == message.context


def test_sequence_examples_of_tensorflow_are_read(tmp_path):
    flow = formats.read_tfrecord(written(tmp_path / "a.tfrecord", "tensorflow-sequence.tfrecord"))
    assert same(list(flow), SEQUENCES)
    check(lambda: flow)


def test_feature_lists_are_chosen_and_formed(tmp_path):
    path = written(tmp_path / "a.tfrecord", "tensorflow-sequence.tfrecord")
    form = {
        "id": int,
        "frames": ("uint8", (2,)),
        "scores": ("float64", (3, 1)),
        "tokens": ("int64", (-1,)),
        "empty": ("int8", (4,)),
    }
    first, _, third = formats.read_tfrecord(path, features={**form, "words": len})
    right = {
        "id": 2,
        "frames": np.array([[2, 0], [2, 1]], np.uint8),
        "scores": np.array([[[0.5], [2], [0]], [[0.5], [2], [1]]]),
        "tokens": [np.array([0]), np.array([0, 1])],
        "empty": np.empty((0, 4), np.int8),
        "words": [2, 0],
    }
    assert same(third, right)
    assert first["tokens"] == []
    assert same(formats.read_tfrecord(path, features=["frames"])[1], {"frames": SEQUENCES[1]["frames"]})
    assert formats.from_example(lists(t=steps(texts(b"x"), texts(b"y"))), {"t": str}) == {"t": ["x", "y"]}
    for form, words in (
        ({"tokens": int}, r"'tokens\[1\]' must be one value of int"),
        ({"gaps": ("int64", (1,))}, r"'gaps\[1\]' must have"),
    ):
        with pytest.raises(ValueError, match=f"record . of .* its feature {words}"):
            list(formats.read_tfrecord(path, features=form))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (number(1, 1) + number(2, 1) + number(3, 1) + field(4, b"x") + number(8, 7), "its Datum has a field 8"),
        (field(1, number(1, 1)) + number(2, 1), r"field 1 \(channels\) of its Datum is of the wire type 2, not 0"),
        (number(4, 1), r"field 4 \(data\) of its Datum is of the wire type 0, not 2"),
    ],
)
def test_another_message_is_no_datum(payload, words):
    kind = datum("a test", "lmdb")
    with pytest.raises(ValueError, match=f"it is another message of protocol buffers than Datum: {words}"):
        parsed(kind, payload, "Datum")
    both = number(1, 1) + field(6, struct.pack("<f", 1)) + b"\x35" + struct.pack("<f", 2)
    assert list(parsed(kind, both, "Datum").float_data) == [1, 2]


@pytest.mark.parametrize("more", [b"more", zlib.compress(framed(ONE, crc32c.crc32c))])
def test_what_stands_behind_a_zlib_stream_is_not_dropped(more, tmp_path):
    whole = zlib.compress(framed(ONE, crc32c.crc32c) * 3)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(whole + more)
    with pytest.raises(
        ValueError, match=rf"in record 3 .*: there is more behind byte {len(whole)} of it, where its zlib stream ends"
    ):
        list(formats.read_tfrecord(path, compression="zlib"))
    path.write_bytes(gzip.compress(framed(ONE, crc32c.crc32c)) * 2)
    assert len(list(formats.read_tfrecord(path, compression="gzip"))) == 2
