"""Drawings of arrays: images, lines, sound, histograms, small and of few bytes each."""

from __future__ import annotations

import base64
import importlib
import io
import wave
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

SIDE = 176
"""How large an image is shown, in pixels; and how many images of a batch."""
MOST_IMAGES = 4
LINE, FEW = 160, 16
"""How many points a line has; and how many numbers are rather read than drawn."""
COLOURS = ((60, 140, 240), (230, 60, 60), (250, 180, 40), (70, 190, 110), (180, 100, 220), (40, 190, 190))
DARK = 32
"""Bytes up to this number alone would be black; they are spread."""
SECONDS = 4
"""So much of a sound can be heard."""


def drawn(array: np.ndarray, few: np.ndarray, rate: float | None) -> tuple[str, Any]:
    """(form, what to draw it with): of an array, and what is looked at of it if it is large."""
    if array.size == 0:
        return "", None
    if (sounds := _sound(array)) is not None and rate is not None:
        return "sound", {"line": line(sounds), "file": wav(sounds, rate), "rate": rate}
    images, count = images_in(array)
    if images and (files := [file for image in images if (file := encoded(image))]):
        return "images", {"files": files, "more": count - len(files)}
    if array.ndim == 1:
        return row(array)
    if array.ndim == 2 and array.size <= FEW:
        return "values", ["  ".join(map(_number_shown, line)) for line in array.tolist()]
    return "histogram", histogram(few)


def row(array: np.ndarray) -> tuple[str, Any]:
    """A row of numbers: a few as they are, many as a line."""
    if array.dtype.kind == "c" or array.size <= FEW:
        return "values", ["  ".join(map(_number_shown, array[:FEW].tolist()))]
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    return "line", line(array)


def _number_shown(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def line(array: np.ndarray) -> dict[str, Any]:
    """A polyline in a box of LINE by 40: of many numbers, the least and the greatest of each stretch."""
    values = np.asarray(array, np.float64)
    if len(values) > LINE:
        edges = np.linspace(0, len(values), LINE // 2 + 1).astype(int)
        with np.errstate(invalid="ignore"):
            pairs = [(np.fmin.reduce(values[a:b]), np.fmax.reduce(values[a:b])) for a, b in pairwise(edges)]
        values = np.array(pairs).ravel()
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    across = np.linspace(0, LINE, len(values))
    up = 38 - 36 * (values - low) / ((high - low) or 1)
    points = " ".join(f"{x:.0f},{y:.1f}" for x, y in zip(across, up) if np.isfinite(y))
    return {"points": points, "low": f"{low:.4g}", "high": f"{high:.4g}"}


def histogram(array: np.ndarray) -> Any:
    """The heights (0 to 1) of 24 bars from the least to the greatest number."""
    values = np.abs(array) if array.dtype.kind == "c" else np.asarray(array, np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    if not np.isfinite(high - low):
        return None
    counts = np.histogram(finite, 24, (low, high) if high > low else (low - 0.5, high + 0.5))[0]
    return {"bars": (counts / counts.max()).round(3).tolist(), "low": f"{low:.4g}", "high": f"{high:.4g}"}


def images_in(array: np.ndarray) -> tuple[list[np.ndarray], int]:
    """The first images that an array is, or that it is a batch of, and how many there are; none where its shape tells
    of none."""
    shape = array.shape
    if array.dtype.kind == "c" or (array.ndim == 2 and array.dtype.kind in "iu" and array.dtype.itemsize > 2):
        return [], 0  # rows of tokens and of labels
    if array.ndim == 2 and min(shape) >= 8:
        return [array], 1
    if array.ndim == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) >= 4:
        return [array], 1
    if array.ndim == 3 and shape[0] in (1, 3, 4) and min(shape[1:]) >= 8:
        return [np.moveaxis(array, 0, 2)], 1
    if (array.ndim == 3 and min(shape[1:]) >= 8) or array.ndim in (4, 5):
        first = [images_in(one)[0][:1] for one in array[:MOST_IMAGES]]
        return ([one for one, *_ in first], len(array)) if all(first) else ([], 0)
    return [], 0


@cache
def _opencv() -> Any:
    """OpenCV, if it is here."""
    try:
        return importlib.import_module("cv2")
    except ImportError:
        return None


def encoded(image: np.ndarray, over: Any = None) -> dict[str, Any] | None:
    """An image as a small file in a `data:` address, with `over` drawn on it; None without OpenCV."""
    cv2 = _opencv()
    if cv2 is None:
        return None
    small = shrunk(cv2, image)
    if over is not None:
        small = over(cv2, small, small.shape[1] / image.shape[1])
    few = max(small.shape[:2]) <= 64
    channels = 1 if small.ndim == 2 else small.shape[2]
    flipped = (
        small if channels == 1 else cv2.cvtColor(small, cv2.COLOR_RGBA2BGRA if channels == 4 else cv2.COLOR_RGB2BGR)
    )
    form, options = ("png", []) if few or channels == 4 else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 82])
    done, data = cv2.imencode(f".{form}", flipped, options)
    return _picture_file(f"image/{form}", data.tobytes(), few, small.shape) if done else None


def _picture_file(kind: str, data: bytes, few: bool, shape: tuple[int, ...]) -> dict[str, Any]:
    enlarged = min(max(72 // max(shape[:2]), 1), 8) if few else 1
    return {
        "address": f"data:{kind};base64,{base64.b64encode(data).decode()}",
        "few": few,
        "width": shape[1] * enlarged,
        "height": shape[0] * enlarged,
    }


def shrunk(cv2: Any, image: np.ndarray) -> np.ndarray:
    """An image as bytes, at most SIDE wide and high."""
    steps = [max(side // (4 * SIDE), 1) for side in image.shape[:2]]
    image = image[:: steps[0], :: steps[1]]
    image = np.ascontiguousarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    scale = min(SIDE / max(image.shape[:2]), 1)
    size = [max(round(side * scale), 1) for side in image.shape[1::-1]]
    if image.dtype == np.uint8 and (image.ndim == 3 or image.max() > DARK):
        return image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    values = np.nan_to_num(image.astype(np.float32), posinf=0, neginf=0)
    values = values if scale == 1 else cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    low, high = float(values.min()), float(values.max())
    if image.dtype.kind == "f" and low >= 0 and 1.5 < high <= 255:
        low, high = 0, 255
    elif image.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0, 1
    return ((values - low) * (255 / ((high - low) or 1))).clip(0, 255).astype(np.uint8)


def coloured(labels: np.ndarray) -> np.ndarray:
    """Labels as colours; 0 is black."""
    table = np.zeros((256, 3), np.uint8)
    table[1:] = np.resize(np.array(COLOURS, np.uint8), (255, 3))
    return table[labels]


def of_file(data: bytes) -> tuple[str, Any]:
    """What is in some bytes, if that is an image in a file."""
    cv2 = _opencv()
    known = data[:3] == b"\xff\xd8\xff" or data[:8] == b"\x89PNG\r\n\x1a\n" or data[:4] == b"RIFF"
    if cv2 is None or not known or len(data) > 1 << 24:
        return "", None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)
    if image is None:
        return "", None
    return "images", {"files": [encoded(np.ascontiguousarray(image[..., ::-1]))], "more": 0}


def _sound(array: np.ndarray) -> np.ndarray | None:
    """The samples of an array that can be sound, of the first channel."""
    if array.dtype.kind not in "fi" or array.size < 16:
        return None
    if array.ndim == 2 and min(array.shape) <= 2:
        return array[0] if array.shape[0] <= 2 else array[:, 0]
    return array if array.ndim == 1 else None


def wav(samples: np.ndarray, rate: float) -> str:
    """The beginning of a sound as a file of 16 bits, in a `data:` address."""
    step = max(int(rate) // 16000, 1)
    values = np.asarray(samples[: int(SECONDS * rate) : step], np.float64)
    full = np.iinfo(samples.dtype).max if samples.dtype.kind == "i" else max(float(np.abs(values).max()), 1.0)
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(max(int(rate / step), 1))
        written.writeframes((np.nan_to_num(values) / full * 32767).astype("<i2").tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"
