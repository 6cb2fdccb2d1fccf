"""What Hugging Face's datasets does where a row of examples/from_others.md tells of a difference, beside what is done here."""

from functools import partial

import numpy as np
import pytest
from beside import COLUMNS, listed, odd, plain

import flowfn as ff
import flowfn.formats as formats

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def hf():
    pytest.importorskip("datasets.load")  # a folder of tests is called datasets, too
    import datasets

    datasets.disable_progress_bars()
    return datasets


def xs(rows):
    return [int(row["x"]) for row in rows]


def test_what_datasets_loads_is_read_in_place(hf, tmp_path):
    """Of JSON datasets makes a table: what a row lacks is None. Of CSV it guesses types."""
    data_set = hf.Dataset.from_dict(COLUMNS)
    data_set.to_parquet(tmp_path / "a.parquet")
    data_set.to_json(tmp_path / "a.jsonl")
    data_set.to_csv(tmp_path / "a.csv")
    (tmp_path / "ragged.jsonl").write_text('{"x": 1}\n{"y": 2}\n')
    (tmp_path / "missing.csv").write_text("x,y\n1,a\n2,\n")
    load_from = partial(hf.load_dataset, split="train", cache_dir=str(tmp_path / "cache"))
    load = lambda kind, name: [*load_from(kind, data_files=str(tmp_path / name))]
    rows = [*data_set]
    assert rows == load("parquet", "a.parquet") == [*formats.read_parquet(tmp_path / "a.parquet")]
    assert rows == load("json", "a.jsonl") == [*formats.read_jsonl(tmp_path / "a.jsonl")]
    assert [*formats.read_csv(tmp_path / "a.csv", types={"x": int})] == rows
    assert load("csv", "a.csv") == [{"x": i, "y": i} for i in range(10)]
    assert load("json", "ragged.jsonl") == [{"x": 1, "y": None}, {"x": None, "y": 2}]
    assert [*formats.read_jsonl(tmp_path / "ragged.jsonl")] == [{"x": 1}, {"y": 2}]
    assert load("csv", "missing.csv")[1] == {"x": 2, "y": None}
    assert formats.read_csv(tmp_path / "missing.csv")[1] == {"x": "2", "y": ""}


def test_arrays_in_datasets_come_out_as_lists(hf):
    columns = {"v": np.float32([[0.1, 0.2], [0.3, 0.4]])}
    assert type(hf.Dataset.from_dict(columns)[0]["v"]) is list
    assert ff.from_arrays(**columns)[0]["v"].dtype == np.float32


def test_what_a_function_gives_is_merged_into_the_row_by_datasets(hf):
    f = lambda row: {"z": 2 * row["x"]}
    theirs = hf.Dataset.from_dict(COLUMNS)
    assert [*theirs.map(f)] == [*ff.map(lambda row: {**row, **f(row)}, theirs)]
    assert ff.map(f, theirs)[3] == {"z": 6}
    indexed = theirs.map(lambda row, i: {"i": i}, with_indices=True, remove_columns=["x", "y"])
    assert [*indexed] == [*ff.pipe(theirs, ff.enumerate(), ff.map(lambda pair: {"i": pair[0]}))]


def test_columns_are_given_to_a_function_of_batches(hf):
    twice = lambda columns: {"x": 2 * columns["x"]}  # a list twice over
    theirs = hf.Dataset.from_dict({"x": COLUMNS["x"]})
    ours = ff.pipe(theirs, ff.batch(3, collate=ff.as_list), ff.map(twice), ff.unbatch())
    assert [*theirs.map(twice, batched=True, batch_size=3)] == [*ours]
    assert {type(row["x"]) for row in ours} == {int}


def test_datasets_knows_how_much_a_filter_left(hf):
    theirs = hf.Dataset.from_dict(COLUMNS).filter(lambda row: odd(row["x"]))
    ours = ff.filter(lambda row: odd(row["x"]), hf.Dataset.from_dict(COLUMNS))
    assert (len(theirs), [*theirs]) == (5, [*ours])
    with pytest.raises(TypeError, match="length"):
        len(ours)


def test_a_shuffle_of_datasets_is_one_order(hf):
    """A Dataset is put in one order, without a seed by NumPy's global generator; a stream is in the order of seed and
    epoch, and the epoch is set by hand (datasets 5.2)."""
    data_set = hf.Dataset.from_dict(COLUMNS)
    shuffled = data_set.shuffle(seed=1)
    assert xs(shuffled) == xs(shuffled)
    before = np.random.get_state()[2]
    data_set.shuffle()
    assert np.random.get_state()[2] != before
    stream = data_set.to_iterable_dataset(num_shards=4).shuffle(seed=1, buffer_size=3)
    first = xs(stream)
    assert first == xs(stream)
    stream.set_epoch(1)
    assert first != xs(stream)
    assert xs(data_set.to_iterable_dataset().shuffle(seed=1).repeat(2)) == 2 * xs(
        data_set.to_iterable_dataset().shuffle(seed=1)
    )
    ours = ff.pipe(data_set, ff.shuffle())
    assert xs(ours) != xs(ours)
    frozen = ff.pipe(data_set, ff.shuffle(), ff.freeze())
    assert xs(frozen) == xs(frozen)
    rounds = xs(ff.pipe(data_set, ff.shuffle(), ff.repeat(2)))
    assert rounds[:10] != rounds[10:]


def test_rows_and_columns_of_datasets_are_chosen_alike(hf):
    data_set = hf.Dataset.from_dict(COLUMNS)
    assert [*data_set.select([5, 0, 0])] == [*ff.subset([5, 0, 0], data_set)]
    assert [*data_set.select_columns(["y"])] == [*data_set.remove_columns(["x"])] == [*ff.select(["y"], data_set)]
    assert [*data_set.sort("x", reverse=True)] == [*ff.subset(np.argsort(COLUMNS["x"])[::-1], data_set)]
    assert [*data_set.take(2).repeat(2), *data_set.skip(8)] == [
        *ff.pipe(data_set, ff.take(2), ff.repeat(2)),
        *ff.skip(8, data_set),
    ]
    others = hf.Dataset.from_dict({"z": COLUMNS["x"]})
    assert [*hf.concatenate_datasets([data_set, data_set])] == [*ff.concat(data_set, data_set)]
    assert [*hf.concatenate_datasets([data_set, others], axis=1)] == [*ff.zip_components(data_set, others)]


@pytest.mark.parametrize(("size", "share", "theirs", "ours"), [(10, 0.2, 2, 2), (10, 0.25, 3, 2), (9, 0.2, 2, 2)])
def test_sizes_of_a_test_set_are_rounded_up_by_datasets(hf, size, share, theirs, ours):
    parts = hf.Dataset.from_dict({"x": [*range(size)]}).train_test_split(test_size=share, seed=0)
    assert sorted(xs(parts["train"]) + xs(parts["test"])) == [*range(size)]
    assert len(parts["test"]) == theirs
    assert len(ff.split(range(size), 1 - share, share, seed=0)[1]) == ours


def test_shards_of_datasets_are_blocks_unless_it_is_told(hf):
    from datasets.distributed import split_dataset_by_node

    data_set = hf.Dataset.from_dict(COLUMNS)
    blocks = [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    for rank in range(3):
        assert xs(data_set.shard(3, rank)) == xs(split_dataset_by_node(data_set, rank, 3)) == blocks[rank]
        assert xs(data_set.shard(3, rank, contiguous=False)) == xs(ff.shard(rank, 3, data_set))
    stream = data_set.to_iterable_dataset(num_shards=4)
    assert xs(split_dataset_by_node(stream, 1, 2)) == [3, 4, 5, 8, 9]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("stopping", "until", "theirs_more", "ours_more"),
    [
        ("first_exhausted", "first", [], [3]),
        ("all_exhausted_without_replacement", "all", [], []),
        ("all_exhausted", "cycle_all", [100], [100]),
    ],
)
def test_datasets_interleaves_alike_but_for_the_end(hf, streamed, stopping, until, theirs_more, ours_more):
    """With "all_exhausted" a Dataset goes on to the end of a round where its stream stops at once (datasets 5.2,
    findings/datasets_interleaved_streams_end_earlier.sh)."""
    parts = hf.Dataset.from_dict(COLUMNS), hf.Dataset.from_dict({"x": [100, 101, 102], "y": [*"abc"]})
    theirs = [part.to_iterable_dataset() for part in parts] if streamed else parts
    together = xs(hf.interleave_datasets([*theirs], stopping_strategy=stopping))
    ours = xs(ff.mix(*parts, until=until))
    common = ours[: len(ours) - len(ours_more)]
    assert ours == common + ours_more
    assert together == common + (theirs_more if not streamed else [])


def test_datasets_interleaves_by_chance(hf):
    parts = [hf.Dataset.from_dict({"x": [*range(n, n + 2000)]}) for n in (0, 2000)]
    theirs = hf.interleave_datasets(parts, probabilities=[0.5, 0.5], seed=1)
    ours = ff.mix(*parts, weights=[0.5, 0.5], random=True, until="all")
    from_the_first = [sum(x < 2000 for x in xs(one)[:2000]) for one in (theirs, ours)]
    assert from_the_first[0] != 1000
    assert len(ours) == 4000 == len({*xs(ours)})


def test_a_transform_of_datasets_is_given_columns(hf):
    data_set = hf.Dataset.from_dict({"x": COLUMNS["x"]})
    theirs = data_set.with_transform(lambda columns: {"x": [-x for x in columns["x"]]})
    assert [*theirs] == [*ff.map(lambda row: {"x": -row["x"]}, data_set)]
    batches, ours = [*data_set.batch(4)], [*ff.batch(4, data_set)]
    assert batches == listed(ours)
    assert (type(batches[0]["x"]), type(ours[0]["x"])) == (list, np.ndarray)


@pytest.mark.long
def test_a_collator_with_padding_is_pad(hf):
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "a": 1, "b": 2}, "a"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]")
    rows = [{"input_ids": [1, 2, 1]}, {"input_ids": [2]}]
    theirs = transformers.DataCollatorWithPadding(tokenizer)(rows)
    (ours,) = ff.batch(2, rows, collate=ff.pad({"input_ids": 0}, mask="attention_mask"))
    assert plain(theirs["input_ids"]) == plain(ours["input_ids"]) == [[1, 2, 1], [2, 0, 0]]
    assert plain(theirs["attention_mask"]) == ours["attention_mask"].astype(int).tolist()
