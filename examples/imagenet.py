"""Train and validation pipelines for ImageNet, out of a million small files and out of one large one.

They are those of tensorpack's ResNet script: photographs are cropped, resized, recoloured and mirrored as in
fb.resnet.torch for training, and resized and cropped in the middle for validation. The second way to train is that of
tensorpack's tutorial on efficient data loading, for disks that are slow at random access: the JPEG files, in one LMDB
file, are read in order, and shuffled in a buffer. Run it:

    pip install "flowfn[examples]"
    python examples/imagenet.py
    python examples/imagenet.py --data /data/ILSVRC2012

Without `--data`, a folder of the same layout is made of scikit-learn's two photographs. Images are RGB everywhere.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import flowfn as ff
from flowfn.datasets import ilsvrc12_files
from flowfn.formats import read_lmdb, write_lmdb

try:
    import cv2
    import lmdb  # noqa: F401
    import sklearn.datasets
    from tqdm import tqdm

    from flowfn.image import augment, decode_image, fbresnet_train, fbresnet_val, read_image
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[examples]" brings it.') from error

SYNSETS = {"n03877845": "china", "n11939491": "flower"}  # a palace, and a daisy's relative, by scikit-learn's names


def main(options: argparse.Namespace) -> None:
    folder = options.data or make_imagenet(options.folder, options.images)
    train, val = ilsvrc12_files(folder, "train"), ilsvrc12_files(folder, "val")
    print(f"{len(train)} photographs to train on and {len(val)} to validate with, in {folder}")

    show("train, from files", train_from_files(train, options))
    show("validation, from files", val_from_files(val, options))

    database = options.lmdb or (None if options.data else folder / "train.lmdb")
    if database is None:  # it would be some 140 GB
        return print("name a file to write and read with --lmdb")
    if not database.exists():
        write_database(database, train)
    print(f"{database}: {database.stat().st_size / 1e6:.1f} MB")
    show("train, from LMDB", train_from_database(database, options))


def train_from_files(files: ff.Flow, options: argparse.Namespace) -> ff.Flow:
    """Every image once in each epoch, in an order and augmented in a way of its own."""
    return ff.pipe(
        files,  # [path, label]
        ff.shuffle(),  # of all of them
        ff.map_component(read_image, 0),
        augment(fbresnet_train(), 0),
        ff.batch(options.batch, drop_remainder=True),
        ff.prefetch(4, processes=options.processes),
    )


def val_from_files(files: ff.Flow, options: argparse.Namespace) -> ff.Flow:
    """Every image once, always alike and in the same order; the last batch may be smaller."""
    return ff.pipe(
        files,
        ff.map_component(read_image, 0),
        augment(fbresnet_val(), 0),
        ff.batch(options.batch),
        ff.prefetch(4, processes=options.processes),
    )


def write_database(path: Path, files: ff.Flow) -> None:
    """Write [bytes of the JPEG file, label] of every image, not decoded, in a random order.

    The buffer that shuffles what is read mixes only what is near, and in folders a whole class is.
    """
    write_lmdb(path, ff.pipe(files, ff.shuffle(), ff.map_component(read_bytes, 0)))


def train_from_database(path: Path, options: argparse.Namespace) -> ff.Flow:
    """The same as `train_from_files`, but for the order: the file is read from its beginning to its end."""
    return ff.pipe(
        read_lmdb(path),  # [bytes, label]
        ff.shuffle_buffer(options.buffer),  # of what is still small
        ff.map_component(decode_image, 0),
        augment(fbresnet_train(), 0),
        ff.batch(options.batch, drop_remainder=True),
        ff.prefetch(
            4, processes=options.processes
        ),  # only the shuffling stays here: reading and augmenting are shared out
    )


def show(name: str, batches: ff.Flow) -> None:
    """Go through two epochs, and say what came out and how fast."""
    first = "fewer images than one batch"
    for epoch in range(2):  # the first one also starts the processes
        count, start = 0, time.perf_counter()
        with tqdm(desc=f"{name}, epoch {epoch}", unit="image") as bar:
            for number, (images, labels) in enumerate(batches):
                if number == 0:
                    first = f"images {images.dtype} {images.shape}, labels {labels.dtype} {labels.shape}"
                count += len(images)
                bar.update(len(images))
        rate = count / (time.perf_counter() - start)
    print(f"{name}: {first}; {count} images an epoch, {rate:,.0f} a second")


def read_bytes(path: str) -> bytes:
    """What is in a file."""
    return Path(path).read_bytes()


def make_imagenet(parent: Path, count: int) -> Path:
    """A folder of ImageNet's layout with `count` images to train on and a fifth as many to validate
    with, made the first time."""
    folder = parent / f"flowfn-imagenet-{count}"
    if not folder.exists():
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=parent) as unfinished:
            whole = Path(unfinished) / folder.name
            write_crops(whole / "train", count, np.random.default_rng(0))
            write_crops(whole / "val", max(count // 5, 1), np.random.default_rng(1))
            try:  # renaming is atomic: the folder is there whole or not at all, however this run is interrupted
                whole.rename(folder)
            except OSError:
                if not folder.exists():  # otherwise another run was faster
                    raise
    return folder


def write_crops(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Write random rectangles of the photographs as folder/n03877845/n03877845_0.JPEG and so on,
    a folder for each class."""
    originals = Path(sklearn.datasets.__file__).parent / "images"
    photographs = {synset: read_image(originals / f"{name}.jpg") for synset, name in SYNSETS.items()}
    for synset in SYNSETS:
        (folder / synset).mkdir(parents=True)
    for number in tqdm(range(count), desc=f"cutting photographs for {folder.name}", unit="image"):
        synset = list(SYNSETS)[number % len(SYNSETS)]
        path = folder / synset / f"{synset}_{number}.JPEG"
        crop = random_crop(photographs[synset], rng)
        encoded = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))[1]  # OpenCV takes blue, green, red
        path.write_bytes(encoded.tobytes())


def random_crop(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rectangle 360 to 500 pixels wide and 290 to 410 high, anywhere in the photograph."""
    height, width = rng.integers(290, 411), rng.integers(360, 501)
    top, left = rng.integers(photograph.shape[0] - height + 1), rng.integers(photograph.shape[1] - width + 1)
    return photograph[top : top + height, left : left + width]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, help="the folder of ImageNet, with train and val in it (default: one is made)")
    add(
        "--lmdb",
        type=Path,
        help=(
            "the LMDB file of the training images, written if it is not there (default: train.lmdb in the folder "
            "that is made)"
        ),
    )
    add("--images", type=int, default=2000, help="how many photographs to cut to train on (default: %(default)s)")
    add(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the folder that is made is kept (default: %(default)s)",
    )
    add("--batch", type=int, default=64, help="how many images make a batch (default: %(default)s)")
    add(
        "--buffer",
        type=int,
        default=1000,
        help="how many JPEG files are shuffled at a time; 50000 for ImageNet (default: %(default)s)",
    )
    add("--processes", type=int, default=3, help="how many worker processes (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_options())
