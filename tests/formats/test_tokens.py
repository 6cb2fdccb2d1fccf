"""Files of nothing but tokens: rows of them, from whatever program wrote them, across files, and in batches."""

import os
import pickle
import re
import struct
import sys

import numpy as np
import pytest

import flowfn as ff
from flowfn import formats
from flowfn.formats import read_tokens, write_tokens
from flowfn.formats.tokens import files
from flowfn.testing import check, same

pytestmark = pytest.mark.timeout(120)

GPT_2 = struct.pack("<3i", 20240520, 1, 3) + bytes(1012) + bytes.fromhex("0100 ffff 0700")
LLAMA_3 = struct.pack("<3i", 20240801, 7, 3) + bytes(1012) + bytes.fromhex("01000000 ffff0100 07000000")
"""Three tokens as llm.c's dev/data/data_common.py writes them for either tokenizer."""


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "train.bin")


def numbers(path, count, dtype="<u2", first=0):
    np.arange(first, first + count, dtype=dtype).tofile(path)
    return path


def rows(flow):
    return [row.tolist() for row in flow]


def test_rows_follow_one_another_and_what_is_left_is_left_out(path):
    flow = read_tokens(numbers(path, 11), "uint16", 4)
    assert rows(flow) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(flow) == 2
    assert flow[1].dtype == np.uint16
    assert repr(flow) == f"read_tokens({path!r}, 'uint16', 4)"


@pytest.mark.parametrize(
    ("length", "stride", "expected"),
    [
        (5, 4, [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]),
        (3, 5, [[0, 1, 2], [5, 6, 7]]),
        (9, 1, [list(range(9)), list(range(1, 10))]),
        (10, 1, [list(range(10))]),
        (1, 1, [[number] for number in range(10)]),
    ],
)
def test_rows_are_a_stride_apart(length, stride, expected, path):
    flow = read_tokens(numbers(path, 10), "uint16", length, stride=stride)
    assert rows(flow) == expected
    assert len(flow) == len(expected)


def test_rows_are_views_of_the_file_that_nobody_can_write_to(path):
    flow = read_tokens(numbers(path, 100), "uint16", 10)
    first, again = flow[3], flow[3]
    assert not first.flags.writeable
    assert first.__array_interface__["data"] == again.__array_interface__["data"]
    assert type(first) is np.ndarray


def test_a_batch_is_gathered_and_may_be_written_to(path):
    for options in ({}, {"stride": 7}):
        flow = read_tokens(numbers(path, 1000), "uint16", 10, **options)
        for stages in ([], [ff.shuffle()], [ff.shard(1, 2)]):
            batches = list(ff.pipe(flow, *stages, ff.batch(8)))
            assert same(batches, list(ff.pipe(list(ff.pipe(flow, *stages)), ff.batch(8))))
            assert batches[0].flags.writeable
            assert ff.pipe(flow, *stages).node.gathers


def test_a_row_lies_within_one_file(tmp_path):
    paths = [numbers(tmp_path / f"{at}.bin", count, first=100 * at) for at, count in enumerate([5, 0, 2, 4, 9])]
    flow = read_tokens(paths, "uint16", 4)
    assert rows(flow) == [[0, 1, 2, 3], [300, 301, 302, 303], [400, 401, 402, 403], [404, 405, 406, 407]]
    assert flow[2].tolist() == [400, 401, 402, 403]
    assert rows(read_tokens(f"{tmp_path}/*.bin", "uint16", 4)) == rows(flow)
    assert rows(read_tokens(f"{tmp_path}/{{0..4}}.bin", "uint16", 4)) == rows(flow)
    (batch,) = ff.pipe(flow, ff.batch(4))
    assert batch.tolist() == rows(flow)


def test_few_of_many_files_are_mapped_and_all_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAPPED", 3)
    paths = [numbers(tmp_path / f"{at}.bin", 8, first=8 * at) for at in range(20)]
    flow = read_tokens(paths, "uint16", 4)
    order = list(ff.shuffle(range(40)))
    assert [flow[at].tolist()[0] for at in order] == [4 * at for at in order]
    held = flow.node.part.object
    assert sum("columns" in vars(part) for part in held.parts) <= 3
    assert sorted(row[0] for row in rows(ff.shuffle(flow))) == list(range(0, 160, 4))


def test_nothing_but_the_first_file_is_opened_before_a_row_is_wanted(tmp_path, monkeypatch):
    paths = [numbers(tmp_path / f"{at}.bin", 8) for at in range(3)]
    opened = []

    def noted(event, arguments):
        if event == "open" and str(tmp_path) in str(arguments[0]):
            opened.append(os.path.basename(arguments[0]))

    sys.addaudithook(noted)
    flow = read_tokens(paths, "uint16", 4)
    assert len(flow) == 6
    assert set(opened) == {"0.bin"}
    assert flow[5].tolist() == [4, 5, 6, 7]
    assert set(opened) == {"0.bin", "2.bin"}


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", ">u2", ">i4"]
)
def test_tokens_are_of_any_dtype_and_order_of_bytes(dtype, path):
    flow = read_tokens(numbers(path, 12, dtype), dtype, 4)
    assert rows(flow) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert flow[0].dtype == np.dtype(dtype)
    (batch,) = ff.pipe(flow, ff.batch(3))
    assert batch.dtype == np.dtype(dtype).newbyteorder("=")  # as stacked one by one
    assert batch.tolist() == rows(flow)


def test_a_header_is_passed_over(path):
    with open(path, "wb") as file:
        file.write(b"odd" + np.arange(9, dtype="<u4").tobytes())
    flow = read_tokens(path, "uint32", 2, header=3)
    assert rows(flow) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert ff.pipe(flow, ff.shuffle(), ff.batch(4))[0].shape == (4, 2)  # although nothing in it is aligned


@pytest.mark.parametrize(
    ("content", "dtype", "tokens"), [(GPT_2, "<u2", [1, 65535, 7]), (LLAMA_3, "<u4", [1, 131071, 7])]
)
def test_files_of_llm_c_are_known_by_their_first_bytes(content, dtype, tokens, path):
    with open(path, "wb") as file:
        file.write(content)
    for given in (None, dtype):
        assert rows(read_tokens(path, given, 3)) == [tokens]
    assert read_tokens(path, None, 3)[0].dtype == np.dtype(dtype)
    write_tokens(path, [tokens[:1], tokens[1:]], dtype, header="llm.c", overwrite=True)
    with open(path, "rb") as file:
        assert file.read() == content
    with pytest.raises(ValueError, match=rf"dtype must be that of .*, whose header \(llm.c\) says {np.dtype(dtype)}"):
        read_tokens(path, "int64", 3)
    assert len(read_tokens(path, "uint8", 1, header=0)) == len(content)


def test_npy_files_of_one_axis_are_known_too(tmp_path):
    path = str(tmp_path / "a.npy")
    np.save(path, np.arange(10, dtype=np.int32))
    assert rows(read_tokens(path, None, 4)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    write_tokens(tmp_path / "b.npy", [[0, 1, 2], [], [3]], "int32")
    assert np.load(tmp_path / "b.npy").tolist() == [0, 1, 2, 3]
    assert rows(read_tokens([path, tmp_path / "b.npy"], "int32", 4))[2] == [0, 1, 2, 3]
    np.save(path, np.zeros((4, 3), np.int32))
    with pytest.raises(ValueError, match=r"holds int32 \(4, 3\); read_npy reads the rows of an array"):
        read_tokens(path, None, 4)


def test_files_that_begin_otherwise_than_the_first_are_refused_when_they_are_read(tmp_path):
    write_tokens(tmp_path / "0.npy", [range(8)], "int32")
    write_tokens(tmp_path / "1.npy", [range(8)], "uint32")
    flow = read_tokens(f"{tmp_path}/*.npy", None, 4)
    assert flow[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"files of tokens must begin alike, but .*1\.npy has another header"):
        flow[2]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"\0" * 7, {}, "has 7 bytes, which are no whole tokens of uint16; it is not whole, or of another dtype"),
        (b"\0" * 6, {"header": 3}, "has 3 bytes behind a header of 3, which are no whole tokens"),
        (b"\0" * 2, {"header": 3}, "has 0 bytes behind a header of 3, which are no whole tokens"),
        (b"", {}, "length must be at most the number of tokens in a file, 0 in"),
        (b"\0" * 6, {}, "length must be at most the number of tokens in a file, 3 in .* for rows of 4"),
        (GPT_2[:-2], {}, r"should hold 3 tokens, as its header \(llm\.c\) says, but there are 2; it is damaged"),
        (GPT_2 + b"\0\0", {}, "should hold 3 tokens"),
    ],
)
def test_what_is_damaged_or_too_short_is_named(content, options, message, path):
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_tokens(path, "uint16", 4, **options)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("uint16", 0), ValueError, "length must be a positive integer, got 0"),
        (("float32", 4), ValueError, "dtype must be a dtype of integers or None, got 'float32'"),
        (("words", 4), ValueError, "dtype must be a dtype of integers or None, got 'words'"),
        ((None, 4), ValueError, "does not say of what dtype its tokens are; give dtype"),
    ],
)
def test_wrong_arguments_are_told(arguments, error, message, path):
    numbers(path, 10)
    with pytest.raises(error, match=re.escape(message)):
        read_tokens(path, *arguments)
    with pytest.raises(ValueError, match="stride must be a positive integer or None, got 0"):
        read_tokens(path, "uint16", 4, stride=0)
    with pytest.raises(ValueError, match=r"each must be a local one, got 's3://a/b\.bin'"):
        read_tokens("s3://a/b.bin", "uint16", 4)
    with pytest.raises(FileNotFoundError):
        read_tokens(path + "x", "uint16", 4)


def test_what_are_no_tokens_is_told(tmp_path):
    numbers(tmp_path / "a.bin.gz", 8)
    with pytest.raises(ValueError, match="is compressed, as its name says; decompress it before"):
        read_tokens(tmp_path / "a.bin.gz", "uint16", 4)
    formats.write_megatron(tmp_path / "a", [range(30)], "uint16")
    with pytest.raises(ValueError, match=r"a\.idx is an index of Megatron-LM; read_megatron reads it"):
        read_tokens(tmp_path / "a.idx", "uint16", 4)
    assert len(read_tokens(tmp_path / "a.bin", "uint16", 4)) == 7
    np.save(tmp_path / "b.npy", np.zeros(9))
    (tmp_path / "b.npy").rename(tmp_path / "b.idx")
    numbers(tmp_path / "b.bin", 8)
    with pytest.raises(ValueError, match=r"does not begin as an index of Megatron-LM does; it is an \.npy file"):
        formats.read_megatron(tmp_path / "b")


def test_a_file_that_has_changed_is_told(path):
    flow = read_tokens(numbers(path, 8), "uint16", 4)
    numbers(path, 7)
    with pytest.raises(ValueError, match="has changed since it was opened; call read_tokens"):
        list(flow)


@pytest.mark.parametrize(
    ("documents", "dtype", "error", "message"),
    [
        ([[1], [2, 65536]], "uint16", ValueError, "datapoint 1 has the token 65536, and uint16 goes from 0 to 65535"),
        ([[-1]], "uint16", ValueError, "datapoint 0 has the token -1"),
        ([[2**70]], "int64", TypeError, "datapoints are rows of tokens"),
        ([[1.5]], "int64", TypeError, "datapoints are rows of tokens, integers on one axis"),
        ([[[1, 2]]], "int64", TypeError, "datapoints are rows of tokens"),
        ([[[1, 2], [3]]], "int64", TypeError, "datapoints are rows of tokens"),
        ([3], "int64", TypeError, "datapoints are rows of tokens"),
        (["text"], "int64", TypeError, "datapoints are rows of tokens"),
        ([[1]], "float32", ValueError, "dtype must be a dtype of integers"),
    ],
)
def test_what_is_no_token_is_not_written(documents, dtype, error, message, path, tmp_path):
    with pytest.raises(error, match=message):
        write_tokens(path, documents, dtype)
    assert os.listdir(tmp_path) == []


def test_the_largest_and_the_smallest_token_are_written(path):
    for dtype in ("uint8", "int8", "uint64", "int64"):
        ends = [int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)]
        write_tokens(path, [np.array(ends, dtype)] * 2, dtype, overwrite=True)
        assert rows(read_tokens(path, dtype, 2)) == [ends, ends]


def test_files_of_llm_c_have_no_more_tokens_than_their_header_can_say(path, tmp_path, monkeypatch):
    monkeypatch.setattr("flowfn.formats.tokens.writing.MOST_OF_LLM_C", 3)
    with pytest.raises(ValueError, match="has at most 3 tokens, got 4; write several"):
        write_tokens(path, [[1, 2], [3, 4]], "uint16", header="llm.c")
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match=r"tokens of llm\.c are uint16 or uint32, got int64"):
        write_tokens(path, [[1]], "int64", header="llm.c")


def test_flows_of_tokens_travel_small(tmp_path):
    paths = [numbers(tmp_path / f"{at}.bin", 1000) for at in range(3)]
    flow = read_tokens(paths, "uint16", 4)
    list(flow)
    assert len(pickle.dumps(flow)) < 2500
    assert same(list(pickle.loads(pickle.dumps(flow))), list(flow))


@pytest.mark.long
@pytest.mark.parametrize("workers", [[{}, {"threads": 2}], [{"processes": 2}]], ids=["threads", "processes"])
def test_flows_of_tokens_keep_the_laws(workers, tmp_path):
    for at, count in enumerate([40, 3, 100]):
        numbers(tmp_path / f"{at}.bin", count, first=1000 * at)
    check(lambda: read_tokens(f"{tmp_path}/*.bin", "uint16", 4, stride=3), workers=workers)
    check(lambda: ff.pipe(read_tokens(f"{tmp_path}/*.bin", "uint16", 4), ff.shuffle(), ff.batch(3)), workers=workers)
