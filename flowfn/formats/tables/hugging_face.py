"""Folders of Hugging Face's datasets, read without it: what `save_to_disk` writes, and the cache of `load_dataset`.

In them are Arrow streams, of which a state.json names those of one data set, and a dataset_info.json says what they
hold; a DatasetDict has a folder for each of its splits, which a dataset_dict.json names. In the cache, the streams of
a split are called {name}-{split}.arrow, or {name}-{split}-00000-of-00002.arrow; those called cache-... hold what was
made of them later.

The layouts: https://github.com/huggingface/datasets, src/datasets/arrow_dataset.py, dataset_dict.py and naming.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.formats.tables.reading import STAND_INS, ArrowRows
from flowfn.storage.damage import reading
from flowfn.storage.files import call, flow_of, is_url
from flowfn.storage.finding import paths_of

WHO = "read_hugging_face"
STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


class Saved(NamedTuple):
    """The files of a data set, the columns that it shows (None: all), its features, and how many rows it has, if that
    is said."""

    paths: list[str]
    columns: list[str] | None
    features: Mapping[str, Any]
    rows: int | None


@rules.checked(split=rules.optional(rules.string), arrays=rules.boolean, missing=STAND_INS)
def read_hugging_face(
    folders: Any, split: str | None = None, columns: Any = None, *, arrays: bool = False, missing: Any = None
) -> Flow[Any]:
    """A flow of the rows of a data set in a folder of Hugging Face's datasets, as dicts: {column: value}.

    The folder is one that `save_to_disk` has written, of a Dataset or a DatasetDict, or one of the cache of
    `load_dataset`, in which there is a dataset_info.json. `split` says which of several splits. The library itself is
    not needed. Files are mapped into memory, and read at random, as by `read_arrow`, which also says what `columns`,
    `arrays` and `missing` are.

    Rows are what the library gives in its Python format, but for what it would decode: class labels are integers, lists
    are lists, JSON is decoded; images, sounds and videos are dicts of their "bytes" and "path", as with decode=False.
    Columns that a format hides (`set_format(columns=)`) are hidden, unless `columns` names them; its type, such as
    "torch", is nobody's here. What `shuffle`, `select` or `filter` choose is written down by `save_to_disk`, and not in
    the cache: of an indices file there, read_arrow gives the indices, for `subset`.

    Raises:
        ValueError: a folder is none of these; it has no such split, or several; a file is missing or damaged, or has
            more or fewer rows than is said; it was saved by a version that left chosen rows apart.
        FileNotFoundError: there is no such folder.

    >>> import tempfile
    >>> from flowfn.formats import write_arrow
    >>> folder = tempfile.mkdtemp()
    >>> write_arrow(folder + "/data-00000-of-00001.arrow", [{"text": "yes", "label": 1}, {"text": "no", "label": 0}])
    >>> with open(folder + "/state.json", "w") as file:
    ...     json.dump({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}, file)
    >>> read_hugging_face(folder)[1]
    {'text': 'no', 'label': 0}
    """
    needed("pyarrow", f"{WHO}()", extra="parquet")
    found = paths_of(folders, WHO, folders=True)
    saved = [_saved(folder, split) for folder in found]
    text = call(WHO, folders, split=(split, None), columns=(columns, None), arrays=(arrays, False))
    paths = [path for one in saved for path in one.paths]
    if not paths:
        return flow_of([], WHO, text)
    rows = SavedRows(paths, columns or saved[0].columns, arrays, missing, WHO)
    rows.decode(saved[0].features)
    told = [one.rows for one in saved]
    if None not in told and sum(filter(None, told)) != len(rows):
        raise ValueError(f"{WHO}(): {found[0]} should have {told} rows, as its {INFO} says, but there are {len(rows)}")
    return flow_of(rows, WHO, text)


class SavedRows(ArrowRows):
    """The rows of the files of a data set."""

    def decode(self, features: Mapping[str, Any]) -> None:
        """Have values decoded that are JSON, as features say."""
        self.jsons = {name: feature for name, feature in features.items() if name in self.form.names and _json(feature)}

    def _rows(self, at: int, group: Any, table: Any) -> Iterator[Any]:
        rows = super()._rows(at, group, table)
        return map(self._decoded, rows) if self.jsons else rows

    def _decoded(self, row: dict[str, Any]) -> dict[str, Any]:
        return row | {name: _with_json(row[name], feature) for name, feature in self.jsons.items()}


def _json(feature: Any) -> bool:
    """Whether there is JSON somewhere in a feature."""
    if isinstance(feature, Mapping):
        return feature.get("_type") == "Json" or any(map(_json, feature.values()))
    return isinstance(feature, list) and any(map(_json, feature))


def _with_json(value: Any, feature: Any) -> Any:
    if value is None or not _json(feature):
        return value
    if isinstance(feature, list):  # as older versions write lists
        return [_with_json(one, feature[0]) for one in value]
    if feature.get("_type") == "Json":
        return json.loads(value)
    if "_type" in feature:
        return [_with_json(one, feature["feature"]) for one in value]
    return {key: _with_json(one, feature.get(key)) for key, one in value.items()}


def _saved(folder: str, split: str | None) -> Saved:
    """What a folder holds.

    Raises:
        ValueError: it is none of those that are known.
    """
    if is_url(folder):
        raise ValueError(f"{WHO}(): a folder is read as it lies, so it must be a local one, got {folder!r}")
    for name, read in ((STATE, _of_state), (SPLITS, _of_splits), (INFO, _of_cache)):
        if os.path.exists(os.path.join(folder, name)):
            place = os.path.join(folder, name)
            with reading(place, f"{WHO}(): {place} cannot be read", "; is it damaged?"):
                return read(folder, _json_content(folder, name), split)
    what = "is a file" if os.path.isfile(folder) else f"has none of {STATE}, {SPLITS} and {INFO}"
    raise ValueError(
        f"{WHO}(): {folder} {what}; give the folder that save_to_disk has written, or one of the cache with a {INFO}"
    )


def _json_content(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    if not isinstance(found, dict):
        raise ValueError(f"it holds no object, but {found!r:.40}")
    return found


def _of_state(folder: str, state: dict[str, Any], split: str | None) -> Saved:
    """A data set that was saved."""
    if split is not None and split != state.get("_split"):
        raise ValueError(f"{WHO}(): {folder} is one data set, and no dict of splits; leave out split={split!r}")
    for key in ("_indices_files", "_indices_data_files"):
        if state.get(key):
            raise ValueError(
                f"{WHO}(): {folder} leaves apart which rows are chosen ({key} of {STATE}), as old versions of datasets "
                "did; load it with load_from_disk, and save_to_disk what that gives"
            )
    names = [entry["filename"] for entry in state["_data_files"]]
    if any(set(entry) != {"filename"} for entry in state["_data_files"]):
        raise ValueError(f"{WHO}(): {folder} has files of which a part is meant; save_to_disk it anew")
    shown = None if state.get("_output_all_columns") else state.get("_format_columns")
    return Saved([_there(folder, name) for name in names], shown, _features(_json_content(folder, INFO)), None)


def _features(info: dict[str, Any]) -> Mapping[str, Any]:
    told = info.get("features")
    return told if isinstance(told, Mapping) else {}


def _of_splits(folder: str, told: dict[str, Any], split: str | None) -> Saved:
    """A data set that was saved as one of several."""
    name = _chosen(folder, list(told["splits"]), split)
    inner = os.path.join(folder, name)
    return _of_state(inner, _json_content(inner, STATE), None)


def _of_cache(folder: str, info: dict[str, Any], split: str | None) -> Saved:
    """A split that `load_dataset` has prepared."""
    name = _chosen(folder, list(info.get("splits") or {}), split)
    told = info["splits"][name]
    shards = re.compile(rf"(?!cache-).+-{re.escape(name)}(-\d{{5}}-of-(\d{{5}}))?\.arrow")
    found = sorted(entry for entry in os.listdir(folder) if shards.fullmatch(entry))
    count = len(told.get("shard_lengths") or [0])
    if len(found) != count:
        raise ValueError(
            f"{WHO}(): {folder} should have {count} files of the split {name!r}, as its {INFO} says, but there are "
            f"{len(found)}"
        )
    return Saved([os.path.join(folder, one) for one in found], None, _features(info), told["num_examples"])


def _chosen(folder: str, splits: list[str], split: str | None) -> str:
    if split in splits:
        return str(split)
    if split is None and len(splits) == 1:
        return splits[0]
    there = ", ".join(map(repr, splits)) or "none"
    raise ValueError(f"{WHO}(): split must be one of those in {folder}: {there}, got {split!r}")


def _there(folder: str, name: Any) -> str:
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise ValueError(f"{WHO}(): {folder} lacks {name!r}, which its {STATE} names; it is not whole")
    return path
