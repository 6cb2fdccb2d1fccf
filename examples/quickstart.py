"""Read, resize, shuffle and batch a few thousand photographs in worker processes, and look at what comes out.

The photographs are cut out of the two that scikit-learn ships and are kept as JPEG files in a folder, one subfolder for
each class. The pipeline is that of tensorpack's tutorial on efficient data loading: a list of [path, label] is
shuffled, each file is read and resized, and batches of 128 are made ahead of time in three processes. Run it:

    pip install "flowfn[examples]"
    python examples/quickstart.py

Images are RGB in all of flowfn. Here they are not, since this example reads and writes its files by OpenCV's own
functions, whose order is blue, green, red (BGR). For a model trained on RGB, read by `flowfn.image.read_image`, or
reverse the last axis: `images[..., ::-1]`.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import flowfn as ff

try:
    import cv2
    import sklearn.datasets
    from tqdm import tqdm
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[examples]" brings it.') from error

CLASSES = ("china", "flower")


def main(options: argparse.Namespace) -> None:
    folder = cut_photographs(options.folder, options.images)
    files = list_files(folder)
    print(f"{len(files)} photographs in {folder}")

    train = ff.pipe(
        files,  # a list of [path, label]
        ff.shuffle(),  # a new order every epoch
        ff.map_component(read_image, 0),  # path -> image
        ff.batch(128),
        ff.prefetch(4, processes=options.processes),  # all of the above in worker processes, 4 batches ahead
    )

    images, labels = train[0]  # any batch can be had by its index; this one is what the first epoch starts with
    print(f"first batch: images {images.dtype} {images.shape}, labels {labels.dtype} {labels.shape}")
    write_image(options.sheet, contact_sheet(images))
    print(f"contact sheet: {options.sheet.resolve()}")

    for epoch in range(2):  # the first one also starts the processes
        rate = images_per_second(train, len(files), f"epoch {epoch}")
        print(f"epoch {epoch}: {rate:,.0f} images per second")


def read_image(path: str) -> np.ndarray:
    """The image in a file as uint8 [225, 225, 3], blue, green, red."""
    image = cv2.imread(path)
    if image is None:  # OpenCV reports an unreadable file in no other way
        raise OSError(f"cannot read {path}")
    return cv2.resize(image, (225, 225))


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image of uint8 [height, width, 3], blue, green, red, in the format that the name says."""
    if not cv2.imwrite(str(path), image):  # a full disk is reported in no other way either
        raise OSError(f"cannot write {path}")


def images_per_second(train: ff.Flow, count: int, description: str) -> float:
    """How fast one epoch comes out of the pipeline, with a progress bar while it does."""
    start = time.perf_counter()
    with tqdm(total=count, desc=description, unit="image") as bar:
        for images, _ in train:
            bar.update(len(images))
    return count / (time.perf_counter() - start)


def contact_sheet(images: np.ndarray, columns: int = 16, side: int = 72) -> np.ndarray:
    """Thumbnails in rows of `columns`, in the images' colour order; the end of the last row may stay black."""
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows, columns, side, side, 3), np.uint8)
    for place, image in enumerate(images):
        sheet[divmod(place, columns)] = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return sheet.swapaxes(1, 2).reshape(rows * side, columns * side, 3)


def list_files(folder: Path) -> list[list]:
    """[path, label] of every image; the label is the number of its class."""
    return [[str(path), label] for label, name in enumerate(CLASSES) for path in sorted((folder / name).glob("*.jpg"))]


def cut_photographs(parent: Path, count: int) -> Path:
    """The folder of `count` images; they are cut out of scikit-learn's photographs the first time."""
    folder = parent / f"flowfn-photographs-{count}"
    if not folder.exists():
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=parent) as unfinished:
            whole = Path(unfinished) / folder.name
            write_crops(whole, count)
            try:  # renaming is atomic: the folder is there whole or not at all, however this run is interrupted
                whole.rename(folder)
            except OSError:
                if not folder.exists():  # otherwise another run was faster
                    raise
    return folder


def write_crops(folder: Path, count: int) -> None:
    """Write `count` random rectangles of the photographs, of some 430 by 350 pixels, as JPEG files."""
    rng = np.random.default_rng(0)
    # scikit-learn's own load_sample_images() needs Pillow and gives RGB; OpenCV reads the same files as it writes them.
    originals = Path(sklearn.datasets.__file__).parent / "images"
    photographs = [cv2.imread(str(originals / f"{name}.jpg")) for name in CLASSES]
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for number in tqdm(range(count), desc="cutting photographs", unit="image"):
        label = number % len(CLASSES)
        image = random_crop(photographs[label], rng)
        write_image(folder / CLASSES[label] / f"{number:06}.jpg", image)


def random_crop(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rectangle 360 to 500 pixels wide and 290 to 410 high, anywhere in the photograph."""
    height, width = rng.integers(290, 411), rng.integers(360, 501)
    top, left = rng.integers(photograph.shape[0] - height + 1), rng.integers(photograph.shape[1] - width + 1)
    return photograph[top : top + height, left : left + width]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--images", type=int, default=3000, help="how many photographs to cut (default: %(default)s)")
    add(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where their folder is kept (default: %(default)s)",
    )
    add(
        "--sheet",
        type=Path,
        default=Path("contact_sheet.png"),
        help="where to write the contact sheet (default: %(default)s)",
    )
    add("--processes", type=int, default=3, help="how many worker processes (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_options())
