"""Where a row of the tables of examples/from_others.md tells of no difference, both sides give the same.

A library that is not installed skips its own rows.
"""

import inspect
import operator
from functools import partial

import numpy as np
import pytest
from beside import RNG, ROWS, SEQUENCES, listed, untupled
from migrating import tables

import flowfn as ff
import flowfn.formats as formats

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.filterwarnings("ignore"),
]

MODULES = {
    "torch": "torch",
    "tf.data": "tensorflow",
    "Grain": "grain",
    "datasets": "datasets.load",  # a folder of tests is called so, too
    "webdataset": "webdataset",
    "Ray Data": "ray",
}


# Where a row tells of no difference: (what theirs gives, what ours gives)


def torch_says():
    import torch
    from torch.utils import data

    from flowfn.image import convert_boxes

    class Stream(data.IterableDataset):
        def __init__(self, items):
            self.items = items

        def __iter__(self):
            return iter(self.items)

    data_set = [10, 11, 12, 13, 14, 15, 16]
    loaded = partial(data.DataLoader, data_set)
    sampler = data.BatchSampler([6, 0, 0, 3, 2], 2, False)
    parts = [[1, 2], [3], [4, 5]]
    boxes = np.float32([[1, 2, 5, 9], [0, 0, 3, 3]])
    return {
        "drop_last": lambda: (loaded(batch_size=3, drop_last=True), ff.batch(3, data_set, drop_remainder=True)),
        "batch_sampler": lambda: (
            loaded(batch_sampler=sampler),
            ff.pipe(sampler, ff.inside(ff.map(data_set.__getitem__)), ff.collate()),
        ),
        "Subset(": lambda: (data.Subset(data_set, [5, 0, 0]), ff.subset([5, 0, 0], data_set)),
        "ConcatDataset(": lambda: (
            [*data.ConcatDataset(parts), *data.ChainDataset([*map(Stream, parts)])],
            [*ff.concat(*parts), *ff.concat(*parts)],
        ),
        "StackDataset(": lambda: (data.StackDataset(data_set, ROWS), ff.zip(data_set, ROWS)),
        "box_convert(": lambda: (
            pytest.importorskip("torchvision.ops").box_convert(torch.as_tensor(boxes), "xyxy", "xywh"),
            convert_boxes(boxes, "xyxy", "xywh"),
        ),
    }


def tf_data_says():
    import tensorflow as tf

    made, numbers = tf.data.Dataset, tf.data.Dataset.range(7)
    add = lambda total, x: (total + x, total + x)
    ragged = made.from_generator(lambda: SEQUENCES, output_signature=tf.TensorSpec((None,), tf.int64))
    once = lambda read: [read(), read()][0] == read()
    return {
        "batch(": lambda: (numbers.batch(3, drop_remainder=True), ff.batch(3, range(7), drop_remainder=True)),
        "padded_batch(": lambda: (ragged.padded_batch(4), ff.batch(4, SEQUENCES, collate=ff.pad(0))),
        "reshuffle_each_iteration": lambda: [
            [once(partial(listed, shuffled))]
            for shuffled in (
                numbers.shuffle(7, reshuffle_each_iteration=False),
                ff.pipe(range(7), ff.shuffle(), ff.freeze()),
            )
        ],
        "repeat(": lambda: (
            numbers.repeat(2).concatenate(numbers.repeat().take(10)),
            ff.concat(ff.repeat(2, range(7)), ff.pipe(range(7), ff.cycle(), ff.take(10))),
        ),
        "interleave(": lambda: (
            made.range(1, 5).interleave(lambda n: made.range(n), cycle_length=2, block_length=2),
            ff.interleave(range, range(1, 5), cycle=2, block=2),
        ),
        "take_while(": lambda: (
            numbers.take_while(lambda x: x < 5).map(lambda x: x // 2).unique().batch(2).unbatch().batch(2).rebatch(3),
            ff.pipe(
                range(7),
                ff.take_while(lambda x: x < 5),
                ff.map(lambda x: x // 2),
                *(ff.unique(), ff.batch(2), ff.unbatch(), ff.batch(2), ff.rebatch(3)),
            ),
        ),
        "enumerate(": lambda: (numbers.enumerate(start=5), ff.enumerate(range(7), start=5)),
        "scan(": lambda: (numbers.scan(np.int64(0), add), ff.scan(add, 0, range(7))),
        "a.concatenate(": lambda: (numbers.concatenate(made.range(2)), ff.concat(range(7), range(2))),
    }


def grain_says():
    import grain

    numbers, more = grain.MapDataset.range(7), grain.experimental
    parts = [range(3), range(10, 14), range(20, 22)]
    made = [grain.MapDataset.source(part) for part in parts]
    streams = [part.to_iter_dataset() for part in made]
    return {
        ".batch(n, batch_fn": lambda: (
            numbers.batch(3, batch_fn=sum),
            ff.pipe(range(7), ff.batch(3, collate=None), ff.map(sum)),
        ),
        "ds[a:b:c]": lambda: (
            [*numbers[1:6:2], *numbers.slice(slice(5, None, -2))],
            [*ff.flow(range(7))[1:6:2], *ff.slice(5, None, -2, range(7))],
        ),
        "MapDataset.concatenate(": lambda: (grain.MapDataset.concatenate(made), ff.concat(*parts)),
        "ZipMapDataset(": lambda: (
            [*more.ZipMapDataset([numbers, numbers]), *more.ZipIterDataset([streams[0], streams[0]])],
            [*ff.zip(range(7), range(7)), *ff.zip(parts[0], parts[0])],
        ),
        "InterleaveIterDataset(": lambda: (
            more.InterleaveIterDataset(streams, cycle_length=2),
            ff.interleave(iter, parts, cycle=2),
        ),
        "RebatchIterDataset(": lambda: (
            more.LimitIterDataset(more.RebatchIterDataset(numbers.batch(3).to_iter_dataset(), batch_size=2), 3),
            ff.pipe(range(7), ff.batch(3), ff.rebatch(2), ff.take(3)),
        ),
    }


def datasets_says(tmp_path):
    import datasets

    from flowfn.datasets import image_folder

    Image = pytest.importorskip("PIL.Image")

    folder = tmp_path / "pictures"
    for name in ("cat/1.png", "cat/2.png", "dog/3.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (4, 5, 3), "uint8")).save(folder / name)
    load = partial(datasets.load_dataset, data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    return {
        'load_dataset("imagefolder"': lambda: (
            [[np.asarray(one["image"]), one["label"]] for one in load("imagefolder")],
            image_folder(folder),
        ),
    }


def webdataset_says(shards):
    import webdataset

    read = webdataset.WebDataset(shards, shardshuffle=False).decode()
    ours = formats.read_webdataset(shards)
    known = lambda samples: [{"cls": one["cls"], "txt": one["txt"]} for one in samples]
    pairs, ours_in_pairs = read.to_tuple("cls", "txt"), ff.map(operator.itemgetter("cls", "txt"), ours)
    add, double = lambda x: x + 1, lambda text: 2 * text
    return {
        ".map_tuple(": lambda: (
            [*pairs.map_tuple(add, double), *known(read.map_dict(cls=add))],
            [
                *ff.pipe(ours_in_pairs, ff.map_component(add, 0), ff.map_component(double, 1)),
                *known(ff.map_component(add, "cls", ours)),
            ],
        ),
        ".batched(": lambda: (
            pairs.batched(3, partial=False),
            ff.batch(3, ours_in_pairs, drop_remainder=True),
        ),
        ".unbatched(": lambda: (pairs.batched(3).unbatched(), ff.pipe(ours_in_pairs, ff.batch(3), ff.unbatch())),
        ".slice(": lambda: (pairs.slice(3).repeat(2), ff.pipe(ours_in_pairs, ff.take(3), ff.repeat(2))),
    }


def ray_data_says(ray):
    ours = [{"id": i} for i in range(10)]
    theirs = ray.data.range(10)
    double = lambda batch: {"id": 2 * batch["id"]}
    return {
        "map_batches(f": lambda: (
            theirs.map_batches(double, batch_size=3).iter_rows(),
            ff.pipe(ours, ff.batch(3), ff.map(double), ff.unbatch()),
        ),
        "iter_batches(drop_last": lambda: (
            theirs.iter_batches(batch_size=4, drop_last=True),
            ff.batch(4, ours, drop_remainder=True),
        ),
        "limit(": lambda: (
            [*theirs.limit(3).iter_rows(), *theirs.take(3)],
            [*ff.take(3, ours), *ff.flow(ours)[:3]],
        ),
    }


SAYS = {
    "torch": torch_says,
    "tf.data": tf_data_says,
    "Grain": grain_says,
    "datasets": datasets_says,
    "webdataset": webdataset_says,
    "Ray Data": ray_data_says,
}


@pytest.mark.parametrize(
    ("library", "row"),
    [
        (library, row)
        for library, rows in tables("from_others.md").items()
        for row, _, different in rows
        if not different
    ],
)
def test_a_row_without_a_difference_is_the_same(library, row, request):
    """Of which there is one for each such row of the page."""
    pytest.importorskip(MODULES[library])
    says = SAYS[library]
    given = [request.getfixturevalue(name) for name in inspect.signature(says).parameters]
    (read,) = [read for start, read in says(*given).items() if f"`{start}" in row]
    theirs, ours = map(listed, read())
    assert untupled(theirs) == untupled(ours)
    assert ours
