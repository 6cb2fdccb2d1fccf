"""Files that are whole, and not what a reader takes: each is named for what it is, with what to do;
none is called damaged."""

import bz2
import gzip
import json
import lzma
import os
import re

import numpy as np
import pytest

from flowfn import formats

pytestmark = pytest.mark.timeout(60)

READERS = {
    name: getattr(formats, name)
    for name in (
        *("read_arrow", "read_csv", "read_hdf5", "read_jsonl", "read_lmdb", "read_npy", "read_npz"),
        *("read_parquet", "read_svmlight", "read_tfrecord", "read_webdataset", "read_zarr"),
    )
}
TEXTS = {"read_csv": b"a,b\n1,2\n", "read_jsonl": b'{"a": 1}\n', "read_svmlight": b"1 1:2\n"}
WHOLE = {
    "read_parquet": lambda path: formats.write_parquet(path, [1, 2]),
    "read_arrow": lambda path: formats.write_arrow(path, [1, 2]),
    "read_hdf5": lambda path: formats.write_hdf5(path, [1, 2]),
    "read_lmdb": lambda path: formats.write_lmdb(path, [1, 2]),
    "read_npy": lambda path: formats.write_npy(path, [1, 2]),
    "read_npz": lambda path: formats.write_npz(path, [1, 2]),
    "read_webdataset": lambda path: formats.write_webdataset(path, [{"cls": 1}]),
}
WRONG = re.compile("damaged|corrupt|not whole|cut off")


def refusal(read, path, kind=ValueError, **options):
    with pytest.raises(kind) as caught:
        list(read(path, **options))
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("reader", ["read_csv", "read_jsonl", "read_svmlight", "read_npy", "read_hdf5", "read_parquet"])
@pytest.mark.parametrize("kind", WHOLE)
def test_another_format_is_named_with_the_function_that_reads_it(kind, reader, tmp_path):
    if kind == reader or (kind, reader) in {
        ("read_webdataset", "read_npy"),
        ("read_lmdb", "read_npy"),
    }:  # of ten bytes nobody can tell
        return
    path = str(tmp_path / "data")
    WHOLE[kind](path)
    message = refusal(READERS[reader], path)
    assert kind in message.partition("():")[2]
    assert not WRONG.search(message)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_there_is_told_with_its_name(reader, tmp_path):
    read = READERS[reader]
    path = tmp_path / "data"
    assert f"{reader}(): no file matches {str(path)!r}" in refusal(read, path, FileNotFoundError)
    (tmp_path / "link").symlink_to(path)
    for given in (tmp_path / "link", str(tmp_path / "l*"), [tmp_path / "link"]):
        with pytest.raises(
            FileNotFoundError, match=rf"{reader}\(\): .*link' is a link to '.*data', which is not there"
        ):
            read(given)


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_is_told_from_a_file(reader, tmp_path):
    (tmp_path / "data").mkdir()
    message = refusal(READERS[reader], tmp_path / "data", (OSError, ValueError))
    if reader not in ("read_lmdb", "read_zarr"):
        assert f"it is a folder: write '{tmp_path}/data/*' for the files in it" in message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="whoever runs this may read everything")
@pytest.mark.parametrize("reader", READERS)
def test_what_may_not_be_read_is_told(reader, tmp_path):
    (tmp_path / "data").write_bytes(b"x")
    (tmp_path / "data").chmod(0)
    refusal(READERS[reader], tmp_path / "data", PermissionError)


def test_a_folder_that_may_not_be_listed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=rf"read_csv\(\): .*'{tmp_path}' may not be listed"):
        formats.read_csv(tmp_path / "*.csv")


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
NAMED = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("reader", TEXTS)
def test_what_is_compressed_otherwise_than_its_name_says_is_told(reader, suffix, tmp_path):
    read, text = READERS[reader], TEXTS[reader]
    (tmp_path / "packed.txt").write_bytes(PACKED[suffix](text))
    assert f"it is compressed with {NAMED[suffix]}: its name must end with {suffix}" in refusal(
        read, tmp_path / "packed.txt"
    )
    (tmp_path / f"plain{suffix}").write_bytes(text)
    assert f"is not compressed, although its name ends with {suffix}" in refusal(read, tmp_path / f"plain{suffix}")
    for other in PACKED.keys() - {suffix}:
        (tmp_path / f"packed{other}").write_bytes(PACKED[suffix](text))
        assert f"is compressed with {NAMED[suffix]}, although its name ends with {other}" in refusal(
            read, tmp_path / f"packed{other}"
        )
    (tmp_path / "zstd.txt").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    assert "zstd (Zstandard): decompress it before" in refusal(read, tmp_path / "zstd.txt")
    (tmp_path / f"zstd{suffix}").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    assert "zstd (Zstandard), although its name ends with" in refusal(read, tmp_path / f"zstd{suffix}")
    (tmp_path / f"cut{suffix}").write_bytes(PACKED[suffix](text * 9)[:-9])  # and what is damaged is said to be so
    assert "it is damaged, or not whole" in refusal(read, tmp_path / f"cut{suffix}")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("reader", TEXTS)
def test_text_in_utf16_is_named(reader, encoding, tmp_path):
    (tmp_path / "data").write_bytes((TEXTS[reader].decode() * 3).encode(encoding))
    message = refusal(READERS[reader], tmp_path / "data")
    assert "it is text in UTF-16: convert it" in message
    assert not WRONG.search(message)


def test_text_in_latin1_is_told_with_what_to_give(tmp_path):
    (tmp_path / "a.csv").write_bytes("a,b\n1,2\né,ö\n".encode("latin-1"))
    message = refusal(formats.read_csv, tmp_path / "a.csv")
    assert "datapoint 1 of" in message
    assert "encoding='latin-1'" in message
    assert list(formats.read_csv(tmp_path / "a.csv", encoding="latin-1"))[1] == {"a": "é", "b": "ö"}
    (tmp_path / "b.csv").write_bytes("é,b\n1,2\n".encode("latin-1"))
    assert "encoding='latin-1'" in refusal(formats.read_csv, tmp_path / "b.csv")
    (tmp_path / "a.jsonl").write_bytes('1\n"é"\n'.encode("latin-1"))
    message = refusal(formats.read_jsonl, tmp_path / "a.jsonl")
    assert "datapoint 1 of" in message
    assert "JSON lines are UTF-8: convert the file" in message


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"a": 1}, {"a": 2}], indent=1),
        json.dumps([1, 2], indent=2),
        json.dumps({"a": 1}, indent=2),
        '[{"a": 1},\n{"a": 2}]\n',
        '[{\n"a": 1\n}]\n',
        '{"a": 1},\n{"a": 2}\n',
    ],
)
def test_one_json_array_or_object_over_several_lines_is_named(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    message = refusal(formats.read_jsonl, tmp_path / "a.json")
    assert "it looks like one JSON array or object over several lines" in message
    assert "json.load(file)" in message
    assert not WRONG.search(message)


def test_a_line_that_is_damaged_is_not_taken_for_an_array(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    assert "array" not in refusal(formats.read_jsonl, tmp_path / "a.jsonl")


@pytest.mark.parametrize("reader", READERS)
def test_an_empty_file_has_no_rows_or_is_named(reader, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"")
    if reader in ("read_jsonl", "read_svmlight", "read_tfrecord"):
        assert list(READERS[reader](path)) == []
    else:
        refusal(READERS[reader], path)


@pytest.mark.parametrize(
    "head", ["PAR1,PAR2\n1,2\n", "ARROW1,b\n1,2\n", "BZh9,b\n1,2\n", "PK,b\n1,2\n", "GIF89a,b\n1,2\n"]
)
def test_text_that_begins_like_another_format_is_text(head, tmp_path):
    (tmp_path / "a.csv").write_text(head)
    assert list(formats.read_csv(tmp_path / "a.csv")[0].values()) == ["1", "2"]


def test_a_link_that_is_whole_is_read_and_arrays_are_what_they_were(tmp_path):
    np.save(tmp_path / "data.npy", np.arange(3))
    (tmp_path / "link.npy").symlink_to(tmp_path / "data.npy")
    assert list(formats.read_npy(str(tmp_path / "l*.npy"))) == [0, 1, 2]
