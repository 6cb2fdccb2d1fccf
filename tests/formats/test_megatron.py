"""Megatron-LM's documents: what its own builder writes, byte for byte; and slices as its GPTDataset cuts them."""

import gc
import os
import pickle
import re
import struct

import numpy as np
import pytest

import flowfn as ff
from flowfn.formats import read_megatron, write_megatron
from flowfn.formats.tokens.indexes import index_bytes
from flowfn.testing import check, same

pytestmark = pytest.mark.timeout(120)

DTYPES = ["uint8", "int8", "int16", "int32", "int64", "float64", "float32", "uint16"]
"""In the order of Megatron-LM's codes, from 1 on."""
DOCUMENTS = [[[5, 6, 7], [1]], [[8, 0]], [[]], [[9]]]
"""Four documents, of five sequences."""
INDEX = (
    b"MMIDIDX\0\0"
    + struct.pack("<QBQQ", 1, 8, 5, 5)
    + struct.pack("<5i", 3, 1, 2, 0, 1)
    + struct.pack("<5q", 0, 6, 8, 12, 12)
    + struct.pack("<5q", 0, 2, 3, 4, 5)
)
TOKENS = struct.pack("<7H", 5, 6, 7, 1, 8, 0, 9)
"""What IndexedDatasetBuilder of megatron-core 0.16.1 writes of them as uint16 (add_item, end_document)."""
MULTIMODAL = bytes.fromhex(
    "4d4d4944494458000001000000000000000402000000000000000200000000000000030000000200000000000000000000000c00000000000000"
    "000000000000000002000000000000000001"
)
"""What it writes of one document of [0, 1, 2] in mode 0 and [0, 1] in mode 1, as int32 and with multimodal=True."""


@pytest.fixture
def prefix(tmp_path):
    return str(tmp_path / "text")


@pytest.fixture
def built(prefix):
    """Files as Megatron-LM writes them."""
    return placed(prefix, INDEX, TOKENS)


def placed(prefix, index, tokens):
    for suffix, content in ((".idx", index), (".bin", tokens)):
        with open(prefix + suffix, "wb") as file:
            file.write(content)
    return prefix


def lists(flow):
    return [row.tolist() if isinstance(row, np.ndarray) else [part.tolist() for part in row] for row in flow]


def test_what_is_written_is_what_megatron_writes(prefix, tmp_path):
    write_megatron(prefix, DOCUMENTS, "uint16")
    for suffix, content in ((".idx", INDEX), (".bin", TOKENS)):
        with open(prefix + suffix, "rb") as file:
            assert file.read() == content
    assert sorted(os.listdir(tmp_path)) == ["text.bin", "text.idx"]


def test_documents_and_sequences_are_read(built):
    documents = read_megatron(built)
    assert lists(documents) == [[5, 6, 7, 1], [8, 0], [], [9]]
    assert lists(read_megatron(built, sequences=True)) == [[5, 6, 7], [1], [8, 0], [], [9]]
    assert len(documents) == 4
    assert documents[-1].dtype == np.uint16
    assert not any(document.flags.writeable for document in documents)
    assert repr(documents) == f"read_megatron({built!r})"


@pytest.mark.parametrize("suffix", ["", ".idx", ".bin"])
def test_a_prefix_may_have_the_suffix_of_either_file(suffix, built, tmp_path):
    assert lists(read_megatron(built + suffix)) == lists(read_megatron(built))
    assert lists(read_megatron([built + suffix, f"{tmp_path}/t*t"])) == 2 * lists(read_megatron(built))
    write_megatron(f"{tmp_path}/new{suffix}", [[1]], "int32")
    assert {"new.bin", "new.idx"} <= set(os.listdir(tmp_path))


@pytest.mark.parametrize(("code", "dtype"), list(enumerate(DTYPES, 1)))
def test_all_dtypes_are_written_under_their_codes_and_read(code, dtype, prefix):
    rows = [np.array([0, 1, 100], dtype), np.array([7], dtype)]
    write_megatron(prefix, rows, dtype)
    with open(prefix + ".idx", "rb") as file:
        assert file.read()[17] == code
    assert same(list(read_megatron(prefix)), rows)
    assert read_megatron(prefix, 2)[0].dtype == np.dtype(dtype)


def test_places_are_believed_where_sequences_do_not_follow_one_another(prefix):
    index = bytearray(INDEX)
    index[54:62], index[62:70] = struct.pack("<q", 0), struct.pack("<q", 4)  # what was at 0 and 6
    index[54:70] = struct.pack("<2q", 2, 0)
    placed(prefix, bytes(index), TOKENS)
    assert lists(read_megatron(prefix))[:2] == [[6, 7, 1, 5], [8, 0]]
    with pytest.raises(ValueError, match=r"do not follow one another.*read documents, and pack them"):
        list(read_megatron(prefix, 2))


@pytest.mark.parametrize("options", [{}, {"order": range(4)}, {"order": range(5), "sequences": True}])
def test_slices_cross_documents_and_overlap_by_one_token(options, built):
    assert lists(read_megatron(built, 2, **options)) == [[5, 6, 7], [7, 1, 8], [8, 0, 9]]
    assert lists(read_megatron(built, 4, **options)) == [[5, 6, 7, 1, 8]]
    assert lists(read_megatron(built, 6, **options)) == [[5, 6, 7, 1, 8, 0, 9]]
    assert len(read_megatron(built, 1, **options)) == 6


def test_documents_stand_in_any_order_and_again(built):
    assert lists(read_megatron(built, 2, order=[3, 1, 3])) == [[9, 8, 0]]
    assert lists(read_megatron(built, 3, order=np.array([3, 2, 0, 1]))) == [[9, 5, 6, 7], [7, 1, 8, 0]]
    assert lists(read_megatron(built, 1, order=[0, 4], sequences=True)) == [[5, 6], [6, 7], [7, 9]]


def test_the_order_may_be_a_shuffled_flow_of_epochs(built):
    order = ff.pipe(range(4), ff.shuffle(), ff.repeat(3)).reset_state(5)
    numbers = list(order.run(seed=5, epoch=0))
    stream = np.concatenate([np.array(list(read_megatron(built)[number])) for number in numbers])
    rows = read_megatron(built, 5, order=order)
    assert lists(rows) == [stream[at : at + 6].tolist() for at in range(0, 16, 5)]
    assert list(order.run(seed=5, epoch=0)) == numbers == list(order)  # it stays where it was


def test_segments_and_positions_begin_anew_with_every_document_and_slice(built):
    assert lists(read_megatron(built, 4, segments=True)) == [[[5, 6, 7, 1, 8], [1, 1, 1, 1, 2], [0, 1, 2, 3, 0]]]
    rows = read_megatron(built, 2, order=[1, 2, 0, 3], segments=True)
    assert lists(rows) == [
        [[8, 0, 5], [1, 1, 2], [0, 1, 0]],
        [[5, 6, 7], [1, 1, 1], [0, 1, 2]],
        [[7, 1, 9], [1, 1, 2], [0, 1, 0]],
    ]
    assert [part.dtype for part in rows[0]] == [np.uint16, np.int32, np.int32]
    (packed,) = ff.pipe([[8, 0], [5]], ff.pack(3, how=ff.concat_then_split))
    assert [part.tolist() for part in packed] == lists(rows)[0]


@pytest.mark.parametrize("options", [{}, {"order": [7, 2, 2, 9, 0, 5, 30]}, {"segments": True}])
def test_batches_of_slices_are_gathered(options, prefix):
    rng = np.random.default_rng(0)
    write_megatron(prefix, [rng.integers(0, 1000, rng.integers(0, 40)) for _ in range(100)], "int32")
    flow = read_megatron(prefix, 16, **options)
    assert flow.node.gathers
    for stages in ([], [ff.shuffle()], [ff.shard(1, 2)]):
        batches = list(ff.pipe(flow, *stages, ff.batch(5)))
        assert same(batches, list(ff.pipe(list(ff.pipe(flow, *stages)), ff.batch(5))))
    if "segments" in options:
        twice = list(ff.pipe(flow, ff.select([1, 1]), ff.batch(4)))
        assert same(twice, [[row[1], row[1]] for row in ff.pipe(flow, ff.batch(4))])
        chosen = ff.pipe(flow, ff.select([2, 0]), ff.batch(4))
        assert same(list(chosen), [[row[2], row[0]] for row in ff.pipe(flow, ff.batch(4))])


def test_documents_of_several_prefixes_are_told_apart(prefix, tmp_path):
    """Files that were merged had the documents of one of them (https://github.com/NVIDIA/Megatron-LM/issues/81,
    https://github.com/NVIDIA-NeMo/Speech/issues/9821); several are read beside each other."""
    other = str(tmp_path / "other")
    write_megatron(prefix, [[1, 2, 0], [[3, 4], [5, 0]]], "uint16")
    write_megatron(other, [[6, 0], [[7], [8, 0]]], "uint16")
    documents = [[1, 2, 0], [3, 4, 5, 0], [6, 0], [7, 8, 0]]
    assert lists(read_megatron([prefix, other])) == documents
    assert lists(ff.subset([3, 0, 2], read_megatron([prefix, other]))) == [documents[at] for at in (3, 0, 2)]


def test_slices_stay_within_one_prefix_of_several(built, tmp_path):
    other = str(tmp_path / "other")
    write_megatron(other, [[1, 2, 3], [4]], "uint16")
    for options in ({}, {"segments": True}):
        flow = read_megatron([built, other], 2, **options)
        first = [row[0] for row in lists(flow)] if options else lists(flow)
        assert first == [[5, 6, 7], [7, 1, 8], [8, 0, 9], [1, 2, 3]]
    write_megatron(other, [[1, 2, 3], [4]], "int64", overwrite=True)
    flow = read_megatron([built, other], 2)
    with pytest.raises(ValueError, match="says that tokens are int64, those of the first uint16"):
        list(flow)


def test_tokens_lie_farther_than_32_bits_can_say(prefix):
    count = 2**30
    with open(prefix + ".bin", "wb") as file:  # of holes, all but its end
        file.truncate(5 * count - 4)
        file.seek(0, os.SEEK_END)
        file.write(bytes([1, 2, 3, 4]))
    with open(prefix + ".idx", "wb") as file:
        file.writelines(index_bytes(np.dtype("u1"), [count] * 5, range(6)))
    at = 5 * count // 2 - 1  # slices of two tokens and one
    assert read_megatron(prefix, 2)[at - 1].tolist() == [1, 2, 3]
    ordered = read_megatron(prefix, 2, order=[1, 2, 3, 4, 0], segments=True)
    assert lists([ordered[2 * count - 1]]) == [[[3, 4, 0], [1, 1, 2], [0, 1, 0]]]
    assert read_megatron(prefix)[4][-4:].tolist() == [1, 2, 3, 4]


def test_arrays_outlive_the_flow_that_they_are_of(built):
    rows = [read_megatron(built)[0], read_megatron(built, 2)[0], read_megatron(built, 2, order=[0, 1])[0]]
    gc.collect()
    assert [row.tolist() for row in rows] == [[5, 6, 7, 1], [5, 6, 7], [5, 6, 7]]


def test_sequences_of_a_multimodal_index_have_their_modes(prefix):
    placed(prefix, MULTIMODAL, struct.pack("<5i", 0, 1, 2, 0, 1))
    flow = read_megatron(prefix, sequences=True)
    assert [(row["tokens"].tolist(), row["mode"]) for row in flow] == [([0, 1, 2], 0), ([0, 1], 1)]
    for options in ({}, {"length": 2}, {"length": 2, "segments": True}):
        with pytest.raises(ValueError, match=r"text\.idx have modes.*sequences=True reads them one by one"):
            read_megatron(prefix, **options)


@pytest.mark.parametrize(
    ("index", "tokens", "message"),
    [
        (b"", TOKENS, "text.idx is empty"),
        (b"MMIDIDY" + INDEX[7:], TOKENS, "text.idx does not begin as an index of Megatron-LM does"),
        (INDEX[:9] + b"\2" + INDEX[10:], TOKENS, "is of version 2; version 1 and the dtypes 1 to 8 are known"),
        (INDEX[:17] + b"\x09" + INDEX[18:], TOKENS, "says that tokens are of dtype 9"),
        (INDEX[:-1], TOKENS, "should have 134 bytes for 5 sequences in 4 documents, but it has 133; it is damaged"),
        (INDEX, TOKENS[:-2], "says that 14 bytes of tokens are in .*text.bin, which has 12"),
        (INDEX, TOKENS + b"\0\0", "says that 14 bytes of tokens are in .*text.bin, which has 16"),
        (INDEX[:-8] + struct.pack("<q", 4), TOKENS, "says that documents end with sequence 4 of 5"),
        (INDEX[:-16] + struct.pack("<2q", 9, 5), TOKENS, "says that document 2 has the sequences 3 to 9, of 5"),
        (INDEX[:54] + struct.pack("<q", -2) + INDEX[62:], TOKENS, "sequence 0 has 3 tokens from byte -2"),
        (INDEX[:34] + struct.pack("<i", -3) + INDEX[38:], TOKENS, "has -"),
    ],
)
def test_what_is_damaged_is_named(index, tokens, message, prefix):
    placed(prefix, index, tokens)
    with pytest.raises(ValueError, match=message) as caught:
        lists(read_megatron(prefix, sequences="sequence 0" in message))
    assert prefix in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"length": 0}, ValueError, "length must be a positive integer or None, got 0"),
        ({"segments": True}, ValueError, "order and segments are of slices; give length, too"),
        ({"length": 2, "order": [4]}, ValueError, "order must number some of the 4 documents of"),
        ({"length": 2, "order": [-1]}, ValueError, "order must number some of the 4 documents of"),
        (
            {"length": 2, "order": ff.cycle([0])},
            ValueError,
            "order must come to an end, got an endless flow; write repeat(n)",
        ),
        ({"length": 2, "order": [0.5]}, TypeError, "order must be numbers of documents, got float64 (1,)"),
        ({"length": 7}, ValueError, "length must be"),
        ({"length": 7, "segments": True}, ValueError, "length must be less than the number of tokens, 7 of"),
    ],
)
def test_wrong_arguments_are_told(options, error, message, built):
    with pytest.raises(error, match=re.escape(message)):
        read_megatron(built, **options)
    with pytest.raises(ValueError, match="order is of the documents of one prefix, got 2 prefixes"):
        read_megatron([built, built], 2, order=[0])


@pytest.mark.parametrize(
    ("documents", "dtype", "error", "message"),
    [
        ([[1], [70000]], "uint16", ValueError, "datapoint 1 has the token 70000, and uint16 goes from 0 to 65535"),
        ([[1], 5], "int32", TypeError, "datapoints are rows of tokens"),
        (
            [[1]],
            "uint32",
            ValueError,
            "dtype must be one of uint8, int8, int16, int32, int64, float64, float32, uint16",
        ),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_a_failing_writer_leaves_what_was_there(there, documents, dtype, error, message, prefix, tmp_path):
    if there:
        placed(prefix, INDEX, TOKENS)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(error, match=message):
        write_megatron(prefix, documents, dtype, overwrite=there)
    assert sorted(os.listdir(tmp_path)) == before
    assert not there or lists(read_megatron(prefix))[1] == [8, 0]


@pytest.mark.parametrize("there", [".idx", ".bin"])
def test_neither_file_is_replaced_unless_told(there, prefix, tmp_path):
    with open(prefix + there, "wb") as file:
        file.write(b"precious")
    with pytest.raises(FileExistsError, match=re.escape(f"text{there}' exists; pass overwrite=True to replace it")):
        write_megatron(prefix, [[1]], "int32")
    assert os.listdir(tmp_path) == [f"text{there}"]
    write_megatron(prefix, [[1]], "int32", overwrite=True)
    assert lists(read_megatron(prefix)) == [[1]]


def test_tokens_never_lie_beside_an_index_of_others(built, monkeypatch):
    seen, replace = [], os.replace

    def noted(source, target):
        seen.append((os.path.basename(target), os.path.exists(built + ".idx")))
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    write_megatron(built, [[1, 2]], "int32", overwrite=True)
    assert seen == [("text.bin", False), ("text.idx", False)]
    assert lists(read_megatron(built)) == [[1, 2]]


def test_flows_of_documents_travel_small(built):
    flows = [read_megatron(built), read_megatron(built, 2), read_megatron(built, 2, order=[0], segments=True)]
    for flow in flows:
        list(flow)
        assert len(pickle.dumps(flow)) < 2500
        assert same(list(pickle.loads(pickle.dumps(flow))), list(flow))


@pytest.mark.long
@pytest.mark.parametrize("workers", [[{}, {"threads": 2}], [{"processes": 2}]], ids=["threads", "processes"])
def test_flows_of_documents_and_slices_keep_the_laws(workers, prefix):
    rng = np.random.default_rng(0)
    write_megatron(prefix, [rng.integers(0, 1000, rng.integers(0, 20)) for _ in range(30)], "uint16")
    check(lambda: ff.pipe(read_megatron(prefix), ff.shuffle()), workers=workers)
    check(lambda: ff.pipe(read_megatron(prefix, 8), ff.shuffle(), ff.batch(3)), workers=workers)
    order = list(ff.shuffle(range(30)))
    check(lambda: ff.pipe(read_megatron(prefix, 8, order=order, segments=True), ff.batch(3)), workers=workers)


# Beside the library itself


@pytest.fixture
def library():
    """What builds its files, what reads them, and what cuts slices of them."""
    pytest.importorskip("torch")
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    return indexed, pytest.importorskip("megatron.core.datasets.gpt_dataset")


def some_documents(rng, count, dtype):
    sequences = lambda: [rng.integers(0, 100, rng.integers(0, 9)).astype(dtype) for _ in range(rng.integers(1, 4))]
    return [sequences() for _ in range(count)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_library_writes_the_same_bytes_and_reads_them(dtype, library, tmp_path):
    import torch

    indexed, _ = library
    documents = some_documents(np.random.default_rng(0), 20, dtype)
    builder = indexed.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=getattr(np, dtype))
    for document in documents:
        for sequence in document:
            builder.add_item(torch.from_numpy(sequence.astype(np.int64 if dtype == "uint16" else dtype)))
        builder.end_document()
    builder.finalize(str(tmp_path / "theirs.idx"))
    write_megatron(tmp_path / "ours", documents, dtype)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()
    theirs = indexed.IndexedDataset(str(tmp_path / "ours"))
    assert same(
        [theirs[number] for number in range(len(theirs))], list(read_megatron(tmp_path / "ours", sequences=True))
    )
    assert same(list(read_megatron(tmp_path / "theirs")), list(map(np.concatenate, documents)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("samples", [None, 1000])
def test_slices_are_those_of_its_gpt_dataset(samples, library, tmp_path):
    indexed, gpt = library
    from megatron.core.datasets.utils import Split

    class Tokenizer:
        vocab_size, eod, pad, unique_identifiers = 1000, 0, -1, {}

    rng = np.random.default_rng(0)
    prefix = str(tmp_path / "text")
    write_megatron(prefix, [np.append(rng.integers(1, 1000, rng.integers(0, 50)), 0) for _ in range(300)], "int32")
    config = gpt.GPTDatasetConfig(
        random_seed=7,
        sequence_length=32,
        blend=([prefix], None),
        split="1,0,0",
        reset_position_ids=True,
        reset_attention_mask=True,
        eod_mask_loss=False,
        tokenizer=Tokenizer(),
        path_to_cache=str(tmp_path / "cache"),
        mid_level_dataset_surplus=0.005,
    )
    numbers = np.arange(300, dtype=np.int32)
    theirs = gpt.GPTDataset(indexed.IndexedDataset(prefix), prefix, numbers, samples, Split.train, config)
    slices = read_megatron(prefix, 32, order=theirs.document_index, segments=True)
    ours = list(ff.pipe(slices, ff.subset(theirs.shuffle_index)))
    assert len(theirs) == len(ours) > 200
    for sample, (tokens, _, positions) in zip([theirs[at] for at in range(len(theirs))], ours):
        assert sample["tokens"].tolist() == tokens[:-1].tolist()
        assert sample["labels"].tolist() == tokens[1:].tolist()
        assert sample["position_ids"].tolist() == positions[:-1].tolist()
