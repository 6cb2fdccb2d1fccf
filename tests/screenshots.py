"""Make the pictures of pages that the README shows: `python tests/screenshots.py [FOLDER]`, by default into `examples/`.

It needs what `browsers.py` needs, and `pip install "flowfn[examples,seeing]"`. The photograph is scikit-learn's.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def look(folder):
    """The page of `look` on a pipeline for segmentation."""
    sys.path.append(str(EXAMPLES))
    import numpy as np
    from segmentation import dahlia

    import flowfn as ff
    from flowfn.image import augment, brightness_scale, flip, random_resized_crop, rotation

    def scaled(d):
        return {**d, "image": (d["image"] / np.float32(255))}

    moved = [
        rotation(40, border="constant"),
        random_resized_crop(192, area=(0.3, 1)),
        flip(horizontal=True),
        brightness_scale(0.4),
    ]
    train = ff.pipe(
        [{"id": number, **dahlia()} for number in range(6)],
        ff.shuffle(),
        augment(moved, image="image", mask="mask", coords="points", boxes="boxes"),
        ff.map(scaled),
        ff.batch(2, collate={"boxes": ff.as_list}),
    )
    ff.look(train, 3).save(folder / "look.html")
    return folder / "look.html", "look.webp", (1180, 900)


def profile(folder):
    """The page of `profile` on photographs that are decoded in one thread, for a training that takes more."""
    import time

    import quickstart

    import flowfn as ff

    quickstart.cut_photographs(folder, 400)
    with contextlib.chdir(folder):  # its name is of no interest
        files = quickstart.list_files(next(Path().iterdir()))
        train = ff.pipe(files, ff.shuffle(), ff.map_component(quickstart.read_image, 0), ff.batch(16), ff.prefetch(4))
        found = ff.profile(train, lambda batch: time.sleep(0.004), 25)
    found.save(folder / "profile.html")
    return folder / "profile.html", "profile.webp", (1180, 900)


def main(folder=EXAMPLES):
    """Open each page and write what is seen."""
    from browsers import Browser

    browser = Browser()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            for made in (look, profile):
                page, name, (width, height) = made(Path(temporary))
                browser.open(page, width, height)
                browser.save(Path(folder, name))
    finally:
        browser.chrome.quit()


if __name__ == "__main__":
    main(*sys.argv[1:])
