"""CIFAR-10 and CIFAR-100, in the version for Python and in the binary one.

Krizhevsky: Learning multiple layers of features from tiny images (2009), https://www.cs.toronto.edu/~kriz/cifar.html,
    which describes both versions. The pickles of the version for Python are read without running them
    (`flowfn.datasets.pickles`).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.datasets.finding import Published
from flowfn.datasets.in_memory import in_memory_flow, labels_below
from flowfn.datasets.pickles import plain_pickle
from flowfn.datasets.statistics import Statistics
from flowfn.flows.flow import Flow
from flowfn.storage.files import call

CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""What the labels of CIFAR-10 mean."""

CIFAR100_LABELS = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905
)
"""What the fine labels of CIFAR-100 mean."""

CIFAR100_COARSE_LABELS = tuple(
    """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
    vehicles_1 vehicles_2""".split()  # noqa: SIM905
)
"""What the coarse labels of CIFAR-100 mean."""

CIFAR10_STATISTICS = Statistics((125.307, 122.950, 113.865), (62.993, 62.089, 66.705))
"""Mean and standard deviation of each channel (RGB) of CIFAR-10's training images, in 0..255."""

CIFAR100_STATISTICS = Statistics((129.304, 124.070, 112.434), (68.170, 65.392, 70.418))
"""Mean and standard deviation of each channel (RGB) of CIFAR-100's training images, in 0..255."""

_SIDE, _PIXELS = 32, 3 * 32 * 32
_CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html (cifar-{}-python.tar.gz)"
_CIFAR10 = Published(
    "cifar10",
    _CIFAR_PAGE.format(10),
    {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)
_CIFAR100 = Published(
    "cifar100",
    _CIFAR_PAGE.format(100),
    {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
)
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_CHOSEN = {"fine": ("fine_labels",), "coarse": ("coarse_labels",), "both": ("fine_labels", "coarse_labels")}


@rules.checked(split=rules.one_of(*_BATCHES))
def cifar10(dir: Any, split: str = "train", *, verify: bool = False) -> Flow[Any]:
    """Read CIFAR-10: [image (32, 32, 3) uint8 RGB, label int64], 50 000 for training and 10 000 to test.

    `dir` holds the unpacked folder `cifar-10-batches-py` (or `cifar-10-batches-bin`), or is that folder. `split` is
    "train" or "test". The files are read when the first datapoint (or the length) is wanted; `batch` gathers whole
    batches in one call. With `verify=True` the pickles are compared with their published MD5 sums. `CIFAR10_LABELS` and
    `CIFAR10_STATISTICS` belong to it.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a file is not what it should be.

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with open(os.path.join(folder, "test_batch.bin"), "wb") as file:
    ...     _ = file.write(bytes([3]) + bytes([255] * 1024) + bytes(2048))
    >>> image, label = cifar10(folder, "test")[0]
    >>> image.shape, image[0, 0], CIFAR10_LABELS[label]
    ((32, 32, 3), array([255,   0,   0], dtype=uint8), 'cat')
    """
    folder = _CIFAR10.folder(dir)
    binary, paths = _version_files(_CIFAR10, folder, "cifar-10-batches-", _BATCHES[split], verify)
    shown = call("cifar10", folder, split, verify=(verify, False))
    return in_memory_flow("cifar10", shown, _cifar_arrays, "cifar10", binary, paths, {"labels": 10}, ("labels",))


@rules.checked(split=rules.one_of("train", "test"), labels=rules.one_of(*_CHOSEN))
def cifar100(dir: Any, split: str = "train", *, labels: str = "fine", verify: bool = False) -> Flow[Any]:
    """Read CIFAR-100: [image (32, 32, 3) uint8 RGB, label int64], 50 000 for training and 10 000 to test.

    `labels` is "fine" (100 classes, `CIFAR100_LABELS`), "coarse" (20 of five each, `CIFAR100_COARSE_LABELS`), or
    "both": [image, fine label, coarse label]. `dir` holds the unpacked folder `cifar-100-python` (or
    `cifar-100-binary`), or is that folder; all else is as in `cifar10`. `CIFAR100_STATISTICS` belongs to it.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a file is not what it should be.
    """
    folder = _CIFAR100.folder(dir)
    binary, paths = _version_files(_CIFAR100, folder, "cifar-100-", [split], verify)
    shown = call("cifar100", folder, split, labels=(labels, "fine"), verify=(verify, False))
    return in_memory_flow(
        "cifar100",
        shown,
        _cifar_arrays,
        "cifar100",
        binary,
        paths,
        {"coarse_labels": 20, "fine_labels": 100},
        _CHOSEN[labels],
    )


def _version_files(
    published: Published, folder: str, front: str, names: list[str], verify: bool
) -> tuple[bool, list[str]]:
    """Whether there is the binary version, and the paths of the files; of two versions,
    that of which all or most is there."""
    ends = [
        ("", f"{front}py" if "10-" in front else f"{front}python"),
        (".bin", f"{front}bin" if "10-" in front else f"{front}binary"),
    ]
    ways = [(end, below) for end, inner in ends[: 1 if verify else 2] for below in (f"{inner}/", "")]
    end, below = max(
        ways, key=lambda way: sum(os.path.isfile(os.path.join(folder, way[1], name + way[0])) for name in names)
    )
    return end == ".bin", [published.file(folder, f"{below}{name}{end}", verify=verify) for name in names]


def _cifar_arrays(
    who: str, binary: bool, paths: list[str], classes: dict[str, int], chosen: tuple[str, ...]
) -> list[np.ndarray]:
    """The images, and the chosen ones of the labels."""
    read = _from_binary if binary else _from_pickle
    parts = [read(who, path, classes) for path in paths]
    images = np.empty((sum(len(pixels) for pixels, _ in parts), _SIDE, _SIDE, 3), np.uint8)
    done = 0
    for pixels, _ in parts:
        images[done : done + len(pixels)] = pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        done += len(pixels)
    return [images, *(np.concatenate([labels[name] for _, labels in parts]) for name in chosen)]


def _from_binary(who: str, path: str, classes: dict[str, int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows of one byte for each kind of label, and 3072 for the image: all reds, all greens, all blues."""
    width = len(classes) + _PIXELS
    size = os.path.getsize(path)
    if not size or size % width:
        raise ValueError(f"{who}(): {path!r} must hold rows of {width} bytes, but it has {size} bytes; get it again")
    rows = np.fromfile(path, np.uint8).reshape(-1, width)
    return rows[:, len(classes) :], {
        name: labels_below(count, rows[:, column], who, path) for column, (name, count) in enumerate(classes.items())
    }


def _from_pickle(who: str, path: str, classes: dict[str, int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A dict of "data", an array (n, 3072), and lists of labels."""
    content = plain_pickle(path, who)
    if not isinstance(content, dict):
        raise ValueError(f"{who}(): {path!r} must hold a dict, but it holds a {type(content).__name__}")
    named = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    pixels = named.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        raise ValueError(
            f"{who}(): {path!r} must hold 'data', an array (n, {_PIXELS}) of uint8, got the keys {sorted(named)}"
        )
    labels = {}
    for key, count in classes.items():
        entries: Any = named.get(key)
        whole = (
            entries.dtype.kind in "iu"
            if isinstance(entries, np.ndarray)
            else isinstance(entries, list) and set(map(type, entries)) <= {int}
        )
        if not whole:
            raise ValueError(f"{who}(): {path!r} must hold {key!r}, a list of integers, got the keys {sorted(named)}")
        if np.shape(entries) != (len(pixels),):
            raise ValueError(
                f"{who}(): {path!r} is damaged: it has {len(pixels)} images, and {key!r} of shape {np.shape(entries)}"
            )
        try:
            labels[key] = labels_below(count, np.array(entries, np.int64), who, path)
        except OverflowError:
            raise ValueError(
                f"{who}(): {path!r} is damaged: a label is larger than any integer that an array holds"
            ) from None
    return pixels, labels
