"""Protocol buffers of other people's files, described here so that no generated code is needed.

`Example` and `SequenceExample` are TensorFlow's (tensorflow/core/example/example.proto and feature.proto), `Datum` is
Caffe's (src/caffe/proto/caffe.proto). They are kept in pools of their own, so that they get in nobody's way.

Almost any bytes are a message of any kind to protobuf: what it does not know it passes over, so that a message of
another kind comes out empty. `parsed` gives a message of which nothing was passed over.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from flowfn.extras import needed
from flowfn.storage.damage import Unreadable

_LABEL_OPTIONAL, _LABEL_REPEATED = 1, 3
_TYPE_FLOAT, _TYPE_INT64, _TYPE_INT32, _TYPE_BOOL, _TYPE_MESSAGE, _TYPE_BYTES, _TYPE_STRING = 2, 3, 5, 8, 11, 12, 9
_PROTO2, _PROTO3 = "proto2", "proto3"
_VARINT, _EIGHT, _SIZED, _FOUR = 0, 1, 2, 5
_WIRES = {_TYPE_FLOAT: _FOUR, _TYPE_INT64: _VARINT, _TYPE_INT32: _VARINT, _TYPE_BOOL: _VARINT}
"""How numbers are written; all else has its length before it."""

Field = tuple[str, int, int, int, str]
"""Name, number, label, type, and for a message its name."""


def parsed(kind: Any, payload: bytes, called: str) -> Any:
    """The message of a class that bytes are, as protobuf reads it:
    of names given twice the last counts, lists are packed or not.

    Raises:
        Unreadable (a ValueError): they are not, or there is more in them than such a message has.
    """
    try:
        message = kind.FromString(payload)
    except Exception as error:  # protobuf's own, of which there are several
        raise Unreadable(f"it is no {called}: {error}") from error
    message.DiscardUnknownFields()
    if message.ByteSize() != len(payload):  # something was passed over, or it is written in an unusual way
        strange = _stranger(kind.DESCRIPTOR, memoryview(payload))
        if strange is not None:
            raise Unreadable(f"it is another message of protocol buffers than {called}: {strange}")
    return message


def _stranger(about: Any, data: memoryview) -> str | None:
    """What there is in a message that its description does not know."""
    for number, wire, content in _wire_fields(data):
        field = about.fields_by_number.get(number)
        if field is None:
            return f"its {about.name} has a field {number}"
        usual = _WIRES.get(field.type, _SIZED)
        if wire != usual and not (wire == _SIZED and _is_repeated(field)):
            return f"field {number} ({field.name}) of its {about.name} is of the wire type {wire}, not {usual}"
        inner = _stranger(field.message_type, content) if field.message_type is not None else None
        if inner is not None:
            return inner
    return None


def _wire_fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """(number, wire type, content) of what is in a message that protobuf has read."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        size, begin = _varint(data, at) if wire == _SIZED else (0, at)
        end = _varint(data, at)[1] if wire == _VARINT else begin + {_EIGHT: 8, _FOUR: 4}.get(wire, size)
        yield tag >> 3, wire, data[begin:end]
        at = end


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An integer, seven bits a byte, and where it ends."""
    number = shift = 0
    while data[at] & 0x80:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return number | data[at] << shift, at + 1


def _is_repeated(field: Any) -> bool:
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == _LABEL_REPEATED


def example(who: str, extra: str) -> Any:
    """The class `Example`: named features, each a list of bytes, of floats or of integers."""
    return _tensorflow(who, extra)("Example")


def sequence_example(who: str, extra: str) -> Any:
    """The class `SequenceExample`: features as its context, and lists of features.
    The bytes of an `Example` are one, too."""
    return _tensorflow(who, extra)("SequenceExample")


@functools.cache
def _tensorflow(who: str, extra: str) -> Any:
    """The messages of TensorFlow's, by name."""
    lists = {
        "BytesList": [("value", 1, _LABEL_REPEATED, _TYPE_BYTES, "")],
        "FloatList": [("value", 1, _LABEL_REPEATED, _TYPE_FLOAT, "")],
        "Int64List": [("value", 1, _LABEL_REPEATED, _TYPE_INT64, "")],
    }
    kinds = [
        ("bytes_list", 1, _LABEL_OPTIONAL, _TYPE_MESSAGE, "BytesList"),
        ("float_list", 2, _LABEL_OPTIONAL, _TYPE_MESSAGE, "FloatList"),
    ]
    kinds.append(("int64_list", 3, _LABEL_OPTIONAL, _TYPE_MESSAGE, "Int64List"))
    messages = {
        **lists,
        "Feature": kinds,
        "Features": [("feature", 1, _LABEL_REPEATED, _TYPE_MESSAGE, "Features.FeatureEntry")],
        "Example": [("features", 1, _LABEL_OPTIONAL, _TYPE_MESSAGE, "Features")],
        "FeatureList": [("feature", 1, _LABEL_REPEATED, _TYPE_MESSAGE, "Feature")],
        "FeatureLists": [("feature_list", 1, _LABEL_REPEATED, _TYPE_MESSAGE, "FeatureLists.FeatureListEntry")],
        "SequenceExample": [
            ("context", 1, _LABEL_OPTIONAL, _TYPE_MESSAGE, "Features"),
            ("feature_lists", 2, _LABEL_OPTIONAL, _TYPE_MESSAGE, "FeatureLists"),
        ],
    }
    entries = {"Features": "Feature", "FeatureLists": "FeatureList"}
    return _message_classes("tensorflow", _PROTO3, messages, who, extra, {"Feature": "kind"}, entries)


@functools.cache
def datum(who: str, extra: str) -> Any:
    """The class `Datum`: an image, raw or encoded, and its label."""
    numbers = [
        (name, number, _LABEL_OPTIONAL, _TYPE_INT32, "")
        for name, number in (("channels", 1), ("height", 2), ("width", 3), ("label", 5))
    ]
    others = [
        ("data", 4, _LABEL_OPTIONAL, _TYPE_BYTES, ""),
        ("float_data", 6, _LABEL_REPEATED, _TYPE_FLOAT, ""),
        ("encoded", 7, _LABEL_OPTIONAL, _TYPE_BOOL, ""),
    ]
    return _message_classes("caffe", _PROTO2, {"Datum": numbers + others}, who, extra)("Datum")


def _message_classes(
    package: str,
    syntax: str,
    messages: dict[str, list[Field]],
    who: str,
    extra: str,
    choices: dict[str, str] | None = None,
    entries: dict[str, str] | None = None,
) -> Any:
    """A function from the name of a message to its class.

    `choices` have one field at a time, `entries` are the messages in maps from names, by the message that has the map.
    """
    descriptors = needed("google.protobuf.descriptor_pb2", who, extra=extra)
    pools, factory = (
        needed("google.protobuf.descriptor_pool", who, extra=extra),
        needed("google.protobuf.message_factory", who, extra=extra),
    )
    file = descriptors.FileDescriptorProto(name=f"flowfn/{package}.proto", package=package, syntax=syntax)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        if name in (choices or {}):
            message.oneof_decl.add(name=(choices or {})[name])
        _add(message, package, fields, name in (choices or {}))
        if name in (entries or {}):
            value_type = (entries or {})[name]
            entry = message.nested_type.add(name=f"{value_type}Entry")
            entry.options.map_entry = True
            _add(
                entry,
                package,
                [
                    ("key", 1, _LABEL_OPTIONAL, _TYPE_STRING, ""),
                    ("value", 2, _LABEL_OPTIONAL, _TYPE_MESSAGE, value_type),
                ],
            )
    pool = pools.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return functools.cache(lambda name: factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")))


def _add(message: Any, package: str, fields: list[Field], chosen: bool = False) -> None:
    for name, number, label, kind, of in fields:
        field = message.field.add(name=name, number=number, label=label, type=kind)
        if of:
            field.type_name = f".{package}.{of}"
        if chosen:
            field.oneof_index = 0
