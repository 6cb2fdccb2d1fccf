"""Folders of Hugging Face's datasets: what it saved and what it cached is read without it, as it would give it."""

import datetime
import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest
from written_by_others import saved_dataset

import flowfn as ff
from flowfn import formats
from flowfn.formats import read_hugging_face
from flowfn.testing import check, same

pytestmark = pytest.mark.timeout(120)

ROWS = [{"n": number, "words": ["x"] * (number % 3), "label": number % 2} for number in range(11)]
JSON = {"_type": "Json"}


@pytest.fixture
def saved(tmp_path):
    return saved_dataset(tmp_path / "saved", ROWS, shards=3)


@pytest.fixture
def splits(tmp_path):
    """A DatasetDict."""
    saved_dataset(tmp_path / "dict" / "train", ROWS, shards=2)
    saved_dataset(tmp_path / "dict" / "test", ROWS[:2])
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return tmp_path / "dict"


@pytest.fixture
def cache(tmp_path):
    """A folder of the cache, with two splits, and what shuffle() and map() left there."""
    made, folder = saved_dataset(tmp_path / "made", ROWS, shards=2), tmp_path / "cache"
    test = saved_dataset(tmp_path / "other", ROWS[:2])
    folder.mkdir()
    for number in range(2):
        shutil.copy(made / f"data-0000{number}-of-00002.arrow", folder / f"json-train-0000{number}-of-00002.arrow")
    shutil.copy(test / "data-00000-of-00001.arrow", folder / "json-test.arrow")
    for name in ("cache-5ae7d10a3d269a77", "cache-42374069acdcf19d-train"):
        shutil.copy(test / "data-00000-of-00001.arrow", folder / f"{name}.arrow")
    told = {
        "train": {"name": "train", "num_examples": 11, "shard_lengths": [5, 6], "dataset_name": "json"},
        "test": {"name": "test", "num_examples": 2, "dataset_name": "json"},
    }
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}, "splits": told}))
    return folder


def test_a_saved_data_set_is_read_in_order_and_at_random(saved):
    flow = read_hugging_face(saved)
    assert list(flow) == ROWS
    assert len(flow) == 11
    assert [flow[-1], flow[4]] == [ROWS[-1], ROWS[4]]
    assert list(ff.shuffle(flow)) == list(ff.shuffle(ROWS))
    assert repr(flow) == f"read_hugging_face({saved!r})"


def test_columns_arrays_and_missing_are_as_of_read_arrow(saved):
    assert list(read_hugging_face(saved, columns=["label", "n"]))[3] == {"label": 1, "n": 3}
    numbers = saved_dataset(saved.parent / "numbers", [{"ids": [1, 2], "n": None}, {"ids": [], "n": 2}])
    rows = list(read_hugging_face(numbers, arrays=True, missing={"n": -1}))
    assert same(rows, [{"ids": np.array([1, 2]), "n": -1}, {"ids": np.array([], np.int64), "n": 2}])


def test_one_of_several_splits_is_named(splits):
    assert list(read_hugging_face(splits, "train")) == ROWS
    assert list(read_hugging_face(splits, split="test")) == ROWS[:2]
    assert list(read_hugging_face(splits / "test")) == ROWS[:2]
    for wrong in (None, "validation"):
        with pytest.raises(ValueError, match=rf"split must be one of those in .*dict: 'train', 'test', got {wrong!r}"):
            read_hugging_face(splits, wrong)


def test_the_cache_is_read_split_by_split_without_what_was_made_of_it(cache):
    assert list(read_hugging_face(cache, "train")) == ROWS
    assert list(read_hugging_face(cache, "test")) == ROWS[:2]
    with pytest.raises(ValueError, match=r"split must be one of those in .*cache: 'train', 'test', got None"):
        read_hugging_face(cache)


def test_a_missing_shard_of_the_cache_is_told(cache, saved):
    os.remove(cache / "json-train-00001-of-00002.arrow")
    with pytest.raises(ValueError, match=r"should have 2 files of the split 'train', .* but there are 1"):
        read_hugging_face(cache, "train")
    shutil.copy(cache / "json-test.arrow", cache / "json-train-00001-of-00002.arrow")
    with pytest.raises(ValueError, match=r"should have \[11\] rows, as its dataset_info.json says, but there are 7"):
        read_hugging_face(cache, "train")
    os.remove(saved / "data-00001-of-00003.arrow")
    with pytest.raises(ValueError, match=r"saved lacks 'data-00001-of-00003\.arrow', which its state\.json names"):
        read_hugging_face(saved)


def test_several_folders_follow_one_another(saved, tmp_path):
    other = saved_dataset(tmp_path / "saved-2", ROWS[:2])
    assert list(read_hugging_face([saved, other])) == ROWS + ROWS[:2]
    assert list(read_hugging_face(f"{tmp_path}/saved*")) == ROWS + ROWS[:2]


def test_columns_that_a_format_hides_are_hidden_unless_they_are_named(tmp_path):
    hidden = saved_dataset(tmp_path / "hidden", ROWS, _format_columns=["n"], _format_type="torch")
    assert read_hugging_face(hidden)[3] == {"n": 3}
    assert read_hugging_face(hidden, columns=["label"])[3] == {"label": 1}
    shown = saved_dataset(tmp_path / "shown", ROWS, _format_columns=["n"], _output_all_columns=True)
    assert read_hugging_face(shown)[3] == ROWS[3]


@pytest.mark.parametrize("key", ["_indices_files", "_indices_data_files"])
def test_rows_that_were_chosen_apart_are_refused_in_words(key, tmp_path):
    old = saved_dataset(tmp_path / "old", ROWS, **{key: [{"filename": "indices.arrow"}]})
    with pytest.raises(
        ValueError, match=rf"leaves apart which rows are chosen \({key} of state\.json\), as old versions"
    ):
        read_hugging_face(old)
    saved_dataset(tmp_path / "new", ROWS, **{key: []})
    assert list(read_hugging_face(tmp_path / "new")) == ROWS


def test_files_of_which_a_part_is_meant_are_refused(tmp_path):
    parts = [{"filename": "data-00000-of-00001.arrow", "skip": 2}]
    with pytest.raises(ValueError, match="has files of which a part is meant; save_to_disk it anew"):
        read_hugging_face(saved_dataset(tmp_path / "old", ROWS, _data_files=parts))


def test_a_data_set_without_rows_has_none(tmp_path):
    assert list(read_hugging_face(saved_dataset(tmp_path / "none", [], _data_files=[]))) == []


def test_json_is_decoded_wherever_it_stands(tmp_path):
    rows = [{"j": '{"a": 1}', "k": ["[2]", "null"], "s": {"t": "3", "u": "4"}}, {"j": None, "k": [], "s": None}]
    features = {
        "j": JSON,
        "k": {"feature": JSON, "_type": "List"},
        "s": {"t": JSON, "u": {"dtype": "string", "_type": "Value"}},
    }
    flow = read_hugging_face(saved_dataset(tmp_path / "json", rows, features=features))
    decoded = [{"j": {"a": 1}, "k": [[2], None], "s": {"t": 3, "u": "4"}}, {"j": None, "k": [], "s": None}]
    assert list(flow) == decoded
    assert flow[0] == decoded[0]
    assert list(read_hugging_face(tmp_path / "json", columns=["k"])) == [{"k": row["k"]} for row in decoded]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("state.json", "{", r"state\.json cannot be read: .*; is it damaged\?"),
        ("state.json", "[]", r"state\.json cannot be read: it holds no object, but \[\]"),
        ("state.json", "{}", r"state\.json cannot be read: KeyError: '_data_files'"),
        ("state.json", '{"_data_files": [{"filename": 7}]}', r"state\.json cannot be read"),
        ("dataset_info.json", "7", r"state\.json cannot be read: it holds no object, but 7|dataset_info"),
    ],
)
def test_damaged_json_is_named(name, text, message, saved):
    (saved / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_hugging_face(saved)


def test_what_is_no_such_folder_is_told(saved, tmp_path):
    with pytest.raises(ValueError, match=r"has none of state\.json, dataset_dict\.json and dataset_info\.json; give"):
        read_hugging_face(tmp_path)
    with pytest.raises(ValueError, match=r"state\.json is a file; give the folder"):
        read_hugging_face(saved / "state.json")
    with pytest.raises(FileNotFoundError):
        read_hugging_face(tmp_path / "none")
    with pytest.raises(ValueError, match="must be a local one, got 's3://a/b'"):
        read_hugging_face("s3://a/b")
    with pytest.raises(ValueError, match="is one data set, and no dict of splits; leave out split='train'"):
        read_hugging_face(saved, "train")
    with pytest.raises(TypeError, match="split must be a string or None, got 7"):
        read_hugging_face(saved, 7)


def test_flows_of_folders_travel_small(saved):
    flow = read_hugging_face(saved)
    list(flow)
    assert len(pickle.dumps(flow)) < 5000
    assert list(pickle.loads(pickle.dumps(flow))) == ROWS


@pytest.mark.long
@pytest.mark.parametrize("workers", [[{}, {"threads": 2}], [{"processes": 2}]], ids=["threads", "processes"])
def test_flows_of_folders_keep_the_laws(workers, saved):
    check(lambda: ff.pipe(read_hugging_face(saved), ff.shuffle()), workers=workers)


# Beside the library itself


@pytest.fixture
def library():
    """The library, with a data set of all that it knows."""
    pytest.importorskip("datasets.load")  # a folder of tests is called datasets, too
    import datasets as library
    from PIL import Image

    features = library.Features(
        {
            "image": library.Image(),
            "label": library.ClassLabel(names=["no", "yes"]),
            "ids": library.List(library.Value("int32")),
            "turns": library.Sequence({"who": library.Value("string")}),
            "points": library.Array2D((2, 2), "float32"),
            "nested": {"score": library.Value("float32")},
            "when": library.Value("timestamp[s]"),
            "raw": library.Value("binary"),
        }
    )
    pictures = [Image.fromarray(np.full((4, 5, 3), number, np.uint8)) for number in range(5)]
    rows = {
        "image": [*pictures[:4], None],
        "label": [0, 1, 1, 0, None],
        "ids": [[1], [], [2, 3], None, [4]],
        "turns": [{"who": ["a", "b"]}] * 5,
        "points": [[[1, 2], [3, 4.5]]] * 5,
        "nested": [{"score": 0.5}] * 5,
        "when": [datetime.datetime(2026, 1, 2, 3, 4, 5)] * 5,
        "raw": [b"\0\xff"] * 5,
    }
    return library, library.Dataset.from_dict(rows, features=features)


def as_it_is(library, dataset):
    return list(dataset.cast_column("image", library.Image(decode=False)))


def test_what_the_library_saves_is_read_as_it_reads_it(library, tmp_path):
    library, dataset = library
    chosen = dataset.select([4, 2, 0])
    dataset.save_to_disk(str(tmp_path / "one"), num_shards=2)
    library.DatasetDict({"train": dataset, "test": chosen}).save_to_disk(str(tmp_path / "dict"))
    dataset.with_format("numpy", columns=["label", "ids"]).save_to_disk(str(tmp_path / "formatted"))
    assert list(read_hugging_face(tmp_path / "one")) == as_it_is(library, dataset)
    assert list(read_hugging_face(tmp_path / "dict", "train")) == as_it_is(library, dataset)
    assert list(read_hugging_face(tmp_path / "dict", "test")) == as_it_is(library, chosen)
    assert list(read_hugging_face(tmp_path / "formatted")) == list(dataset.select_columns(["label", "ids"]))
    picture = formats_image(read_hugging_face(tmp_path / "one")[3]["image"]["bytes"])
    assert (picture == 3).all()


def formats_image(data):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


def test_what_the_library_caches_is_read(library, tmp_path):
    library, _ = library
    for number in range(2):
        formats.write_jsonl(tmp_path / f"{number}.jsonl", ROWS[6 * number : 6 * number + 6])
    files = {"train": [str(tmp_path / f"{number}.jsonl") for number in range(2)], "test": str(tmp_path / "1.jsonl")}
    loaded = library.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
    folder = os.path.dirname(loaded["train"].cache_files[0]["filename"])
    kept = loaded["train"].filter(lambda row: row["n"] > 4)
    assert list(read_hugging_face(folder, "train")) == ROWS
    assert list(read_hugging_face(folder, "test")) == ROWS[6:]
    indices = [row["indices"] for row in formats.read_arrow(kept.cache_files[-1]["filename"])]
    assert list(ff.subset(indices, read_hugging_face(folder, "train"))) == list(kept)


def test_json_of_the_library_is_decoded(library, tmp_path):
    library, _ = library
    if not hasattr(library, "Json"):
        pytest.skip("this version has none")
    features = library.Features({"j": library.Json(), "k": library.List(library.Json())})
    rows = {"j": [{"a": 1}, [2], None], "k": [[{"b": 1}], [], [3]]}
    dataset = library.Dataset.from_dict(rows, features=features)
    dataset.save_to_disk(str(tmp_path / "json"))
    assert list(read_hugging_face(tmp_path / "json")) == list(dataset)
