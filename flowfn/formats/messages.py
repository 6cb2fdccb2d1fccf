"""Protocol buffers of other people's files, described here so that no generated code is needed.

`Example` is TensorFlow's (tensorflow/core/example/example.proto and feature.proto), `Datum` is Caffe's
(src/caffe/proto/caffe.proto). They are kept in a pool of their own, so that they get in nobody's way.
"""

from __future__ import annotations

import functools
from typing import Any

from flowfn.extras import needed

_OPTIONAL, _REPEATED = 1, 3
_FLOAT, _INT64, _INT32, _BOOL, _MESSAGE, _BYTES, _STRING = 2, 3, 5, 8, 11, 12, 9
_PROTO2, _PROTO3 = "proto2", "proto3"

Field = tuple[str, int, int, int, str]
"""Name, number, label, type, and for a message its name."""


@functools.cache
def example(who: str, extra: str) -> Any:
    """The class `Example`: named features, each a list of bytes, of floats or of integers."""
    lists = {
        "BytesList": [("value", 1, _REPEATED, _BYTES, "")],
        "FloatList": [("value", 1, _REPEATED, _FLOAT, "")],
        "Int64List": [("value", 1, _REPEATED, _INT64, "")],
    }
    kinds = [("bytes_list", 1, _OPTIONAL, _MESSAGE, "BytesList"), ("float_list", 2, _OPTIONAL, _MESSAGE, "FloatList")]
    kinds.append(("int64_list", 3, _OPTIONAL, _MESSAGE, "Int64List"))
    messages = {
        **lists,
        "Feature": kinds,
        "Features": [("feature", 1, _REPEATED, _MESSAGE, "Features.FeatureEntry")],
        "Example": [("features", 1, _OPTIONAL, _MESSAGE, "Features")],
    }
    entry = {"Features": [("key", 1, _OPTIONAL, _STRING, ""), ("value", 2, _OPTIONAL, _MESSAGE, "Feature")]}
    return _made("tensorflow", _PROTO3, messages, who, extra, {"Feature": "kind"}, entry)("Example")


@functools.cache
def datum(who: str, extra: str) -> Any:
    """The class `Datum`: an image, raw or encoded, and its label."""
    numbers = [(name, number, _OPTIONAL, _INT32, "") for name, number in (("channels", 1), ("height", 2), ("width", 3), ("label", 5))]
    others = [("data", 4, _OPTIONAL, _BYTES, ""), ("float_data", 6, _REPEATED, _FLOAT, ""), ("encoded", 7, _OPTIONAL, _BOOL, "")]
    return _made("caffe", _PROTO2, {"Datum": numbers + others}, who, extra)("Datum")


def _made(
    package: str,
    syntax: str,
    messages: dict[str, list[Field]],
    who: str,
    extra: str,
    choices: dict[str, str] | None = None,
    entries: dict[str, list[Field]] | None = None,
) -> Any:
    """A function from the name of a message to its class. `choices` have one field at a time, `entries` are of maps."""
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
            entry = message.nested_type.add(name="FeatureEntry")
            entry.options.map_entry = True
            _add(entry, package, (entries or {})[name])
    pool = pools.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return lambda name: factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


def _add(message: Any, package: str, fields: list[Field], chosen: bool = False) -> None:
    for name, number, label, kind, of in fields:
        field = message.field.add(name=name, number=number, label=label, type=kind)
        if of:
            field.type_name = f".{package}.{of}"
        if chosen:
            field.oneof_index = 0
