"""Every augmentor of flowfn.image on one photograph: a contact sheet, each picture with the call that made it.

The photograph is one of the two that scikit-learn ships.
With another seed each augmentor draws something else; with the same, the same.

    pip install "flowfn[examples]"
    python examples/augmentors.py
"""

import argparse
from pathlib import Path

import numpy as np

try:
    import cv2
    import sklearn.datasets

    from flowfn import image as fi
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[examples]" brings it.') from error

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"
HEIGHT, WIDTH, CAPTION, GAP = 144, 216, 34, 6
"""Of each picture, in pixels; captions have two lines."""

AUGMENTORS = [
    fi.identity(),
    fi.flip(horizontal=True, probability=1),
    fi.flip(vertical=True, probability=1),
    fi.transpose(1),
    fi.resize((72, 216)),
    fi.resize_shortest_edge(72),
    fi.random_resize((0.5, 1.0), max_aspect_change=None),
    fi.shift(0.3, 0.3),
    fi.rotation((20, 40), border="constant"),
    fi.rotation_and_crop_valid((20, 40)),
    fi.affine(20, scale=(0.7, 1.1), shear=20, border="reflect"),
    fi.gaussian_deform(2, magnitude=0.09),
    fi.random_crop((90, 120)),
    fi.center_crop(100),
    fi.random_crop_random_shape(60),
    fi.random_resized_crop((144, 216), area=(0.2, 0.5)),
    fi.random_cutout((40, 80), (40, 80), fill=127),
    fi.center_paste((190, 280), (0, 90, 160)),
    fi.random_paste((190, 280), 200),
    fi.hue((90, 150)),
    fi.brightness((60, 90)),
    fi.brightness_scale((0.4, 0.6)),
    fi.contrast((1.8, 2.2)),
    fi.contrast((0.3, 0.4), per_channel=False),
    fi.saturation((2, 3)),
    fi.saturation((0.1, 0.3)),
    fi.lighting(1.0),
    fi.gamma((1.8, 2.2)),
    fi.gamma((0.4, 0.5)),
    fi.grayscale(3),
    fi.color_space("bgr"),
    fi.color_space("hsv"),
    fi.color_space("lab"),
    fi.clip(80, 160),
    fi.mean_variance_normalize(),
    fi.min_max_normalize(0, 1, per_channel=True),
    fi.to_float32(),
    fi.to_uint8(),
    fi.gaussian_blur((4, 8), (2, 4)),
    fi.jpeg_noise((3, 8)),
    fi.gaussian_noise((25, 40)),
    fi.salt_pepper_noise(),
    fi.map_image(np.invert),
    fi.sequence([fi.center_crop(120), fi.grayscale()]),
    fi.apply_randomly(fi.hue((60, 90)), 0.5),
    fi.choose([fi.gamma((3, 3)), fi.transpose(1)]),
    fi.shuffled([fi.brightness(60), fi.gamma(0.5)]),
    fi.fbresnet_train(),
]
PRESETS = {fi.fbresnet_train(): "fbresnet_train()"}
"""Those that are sequences, whose own call is too long for a caption."""


def main(options: argparse.Namespace) -> None:
    photograph = fi.read_image(PHOTOGRAPHS / f"{options.photograph}.jpg")
    photograph = fi.resize((HEIGHT, WIDTH), "area")(photograph.shape, np.random.default_rng(0)).image(photograph)
    tiles = [tile(augmentor, photograph, options.seed) for augmentor in AUGMENTORS]
    write_image(options.sheet, contact_sheet(tiles, options.columns))
    print(f"{len(tiles)} augmentors: {options.sheet.resolve()}")


def tile(augmentor: fi.Augmentor, photograph: np.ndarray, seed: int) -> np.ndarray:
    """What an augmentor makes of the photograph, above its call."""
    transform = augmentor(photograph.shape, np.random.default_rng(seed))
    made = np.full((HEIGHT + CAPTION, WIDTH, 3), 255, np.uint8)
    made[:HEIGHT] = 235
    picture = fitted(visible(transform.image(photograph)))
    top, left = (HEIGHT - picture.shape[0]) // 2, (WIDTH - picture.shape[1]) // 2
    made[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    write_caption(made, PRESETS.get(augmentor, repr(augmentor)))
    return made


def visible(image: np.ndarray) -> np.ndarray:
    """An image as uint8 with 3 channels; floats beyond 0..255 or within 0..1 are stretched,
    as they could not be seen."""
    if image.dtype != np.uint8:
        fits = 1 < image.max() <= 255 and image.min() >= 0
        image = np.rint(image if fits else 255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)
    return (
        fi.grayscale(3)(image.shape, np.random.default_rng(0)).image(image)
        if image.ndim == 2 or image.shape[2] == 1
        else image
    )


def fitted(image: np.ndarray) -> np.ndarray:
    """An image, made smaller if it does not fit into its tile."""
    scale = min(HEIGHT / image.shape[0], WIDTH / image.shape[1], 1)
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def write_caption(made: np.ndarray, caption: str) -> None:
    """Write a caption in two lines below a picture; what is longer is cut."""
    for line, words in enumerate(lines(caption, 38)[:2]):
        place = (2, HEIGHT + 13 + 14 * line)
        cv2.putText(made, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)


def lines(caption: str, width: int) -> list[str]:
    """A call in lines of at most so many letters, broken behind commas, or else behind brackets."""
    made = []
    while len(caption) > width:
        end = (
            caption.rfind(", ", 0, width) + 2 if ", " in caption[:width] else caption.rfind("(", 0, width) + 1 or width
        )
        made, caption = [*made, caption[:end]], caption[end:]
    return [*made, caption]


def contact_sheet(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    """Tiles in rows of `columns`, with a white gap around each."""
    rows = -(-len(tiles) // columns)
    height, width = HEIGHT + CAPTION + GAP, WIDTH + GAP
    sheet = np.full((rows * height + GAP, columns * width + GAP, 3), 255, np.uint8)
    for place, one in enumerate(tiles):
        row, column = divmod(place, columns)
        sheet[GAP + row * height :, GAP + column * width :][: one.shape[0], : one.shape[1]] = one
    return sheet


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an RGB image in the format that the name says."""
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):  # a full disk is reported in no other way
        raise OSError(f"cannot write {path}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--photograph", choices=("china", "flower"), default="china", help="which photograph (default: %(default)s)")
    add("--seed", type=int, default=5, help="the seed of all that is drawn (default: %(default)s)")
    add("--columns", type=int, default=6, help="how many pictures in a row (default: %(default)s)")
    add(
        "--sheet",
        type=Path,
        default=Path("augmentors.png"),
        help="where to write the contact sheet (default: %(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_options())
