"""Pictures in which points can be found again, and where they are: for tests of whatever moves pixels."""

import numpy as np

HEIGHT, WIDTH = 60, 80


def rng(seed=0):
    return np.random.Generator(np.random.Philox(key=seed))


def numbered(shape=(HEIGHT, WIDTH), dtype=np.float32):
    """Every element is another number; 0 is none of them."""
    return (np.arange(np.prod(shape)).reshape(shape) + 1).astype(dtype)


def smooth(shape=(HEIGHT, WIDTH), seed=0):
    """A float32 picture of a few long waves, from 0 to 255: interpolation hardly blurs it."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape[:2])
    waves = [
        sum(
            draw.normal() * np.sin(2 * np.pi * (a * x + b * y) + 6 * draw.random())
            for a, b in draw.uniform(-1, 1, (6, 2))
        )
        for _ in range(shape[2] if len(shape) == 3 else 1)
    ]
    waves = np.stack(waves, -1).reshape(shape)
    return (255 * (waves - waves.min()) / np.ptp(waves)).astype(np.float32)


def noise(shape=(HEIGHT, WIDTH, 3), dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def blob(x, y, size=(HEIGHT, WIDTH), sigma=1.5):
    """A bright spot around a point, on black."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return (200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))).astype(np.float32)


def centroid(image):
    """The point around which an image is bright."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    weights = image.astype(np.float64)
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def centres(size=(HEIGHT, WIDTH)):
    """The coordinates of all pixels' centres, in the order of their numbers."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return np.stack([columns.ravel(), rows.ravel()], 1)


def inside(points, size, margin=0.0):
    """Which points are in an image, so far from its edges."""
    return ((points >= margin) & (points <= np.array(size[1::-1]) - margin)).all(1)
