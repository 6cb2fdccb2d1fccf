"""Many datapoints described: what their components have in common, what is missing, what drifts; and their images."""

import re

import numpy as np
import pytest

import flowfn as ff

RNG = np.random.Generator(np.random.Philox(7))
MANY = [
    {
        "class": k // 50,
        "text": "a" * k,
        "noise": RNG.normal(size=5),
        "gaps": np.array([np.nan if k % 7 == 0 else 1.0, 2.0]),
        "fixed": np.arange(3),
        "boxes": np.zeros((k % 4, 4)),
        "mixed": k if k % 2 else None,
        "nested": {"odd": [k, 1]} if k % 2 else {},
    }
    for k in range(100)
]


def rows(capsys, data, n):
    ff.describe(data, n)
    said = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(said) if line.startswith("all "))
    return [re.sub(" {2,}", " | ", line.strip()) for line in said[start:]]


def test_many_datapoints_are_summed_up_component_by_component(capsys):
    low, high = (one(one(d["noise"]) for d in MANY) for one in (min, max))
    assert rows(capsys, MANY, 100) == [
        "all 100 datapoints: dict, length 8",
        "'class' | int | 0 to 1 | drifts: 0 in the first half, 1 in the last",
        "'text' | str | length 0 to 99 | length drifts: 24.5 in the first half, 74.5 in the last",
        f"'noise' | float64 array | (5,) | {low:.5g} to {high:.5g}",
        "'gaps' | float64 array | (2,) | 1 to 2 | NaN in 15",
        "'fixed' | int64 array | (3,) | 0 to 2 | constant",
        "'boxes' | float64 array | 4 shapes | 0",
        "'mixed' | None or int | 1 to 99 | drifts: 25 in the first half, 75 in the last",
        "'nested' | dict | length 0 to 1",
        "'odd' | list | length 2 | 1 to 99 | in 50, drifts: 13 in the first half, 38 in the last",
    ]


def test_what_is_shuffled_does_not_drift(capsys):
    flow = ff.pipe(MANY, ff.shuffle(), ff.select(["class", "text"]))
    assert not any("drift" in row for row in rows(capsys, flow, 100))
    assert rows(capsys, range(100), 50) == [
        "all 50 datapoints: int, 0 to 49, drifts: 12 in the first half, 37 in the last"
    ]
    assert len(rows(capsys, [{k: k, "x": 1} for k in range(500)], 500)) == 102
    ff.describe([1, 2], 9)  # too few to be summed up
    assert "all" not in capsys.readouterr().out.replace("that is all", "")


def test_images_are_put_on_one_sheet(tmp_path):
    import cv2

    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)] * 4
    flow = [{"name": "x", "image": np.full((50, 100, 3), colour, np.uint8)} for colour in colours]
    ff.describe(flow, 10, sheet=tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1]
    assert sheet.shape == (2 * 180 + 4, 8 * 180 + 4, 3)
    centres = [sheet[row * 180 + 92, column * 180 + 92].tolist() for row in range(2) for column in range(8)]
    assert centres == [list(colour) for colour in colours[:10]] + [[255, 255, 255]] * 6
    with pytest.raises(ValueError, match=r"describe\(\): there is no image in these datapoints"):
        ff.describe([1], sheet=tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"describe\(\): sheet must end in .png or .jpg, got"):
        ff.describe(flow, sheet=tmp_path / "sheet.what")
