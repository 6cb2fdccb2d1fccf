"""Where points have gone in an image that was made by looking up, for each of its pixels, where it comes from."""

from __future__ import annotations

import numpy as np

STEPS = 12
EXACT = 1e-3
"""So near, in pixels, a point has to be before no further step is taken."""


def inverted(points: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The indices (n, 2), x then y, at which an image shows what was at those given: its pixel (i, j)
    is from (x[i, j], y[i, j]).

    Between pixels the maps (height, width) are linear, and beyond them what they displace stays as it is at the edge.
    Where they fold, or skip a point, it is one of the places that come nearest to it.

    >>> x, y = np.meshgrid(np.arange(5) + 0.5, np.arange(4))
    >>> inverted(np.array([[2.0, 1.0]]), x, y).tolist()
    [[1.5, 1.0]]
    """
    maps = np.stack([x, y], -1).astype(np.float64)
    wanted = np.asarray(points, np.float64)
    places, off = _approached(wanted, wanted, maps)
    far = off > EXACT
    if far.any():
        again, still_off = _approached(_nearest_pixels(wanted[far], maps), wanted[far], maps)
        better = still_off < off[far]
        places[np.flatnonzero(far)[better]] = again[better]
    return places


def _approached(start: np.ndarray, wanted: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best of Newton's steps from a start, and how far it is off."""
    place, best, least = start, start, np.full(len(start), np.inf)
    for _ in range(STEPS):
        source, slopes = _looked_up(place, maps)
        missing = wanted - source
        off = np.hypot(*missing.T)
        best, least = np.where((off < least)[:, None], place, best), np.minimum(off, least)
        if (least <= EXACT).all():
            break
        place = place + _step(slopes, missing)
    return best, least


def _step(slopes: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Newton's step; where the map is all but flat, what is missing itself."""
    steep = np.abs(np.linalg.det(slopes)) > 0.05
    usable = np.where(steep[:, None, None], slopes, np.eye(2))
    return np.linalg.solve(usable, missing[..., None])[..., 0]


def _nearest_pixels(wanted: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The pixels that come from nearest to points."""
    flat = [int(((maps - point) ** 2).sum(-1).argmin()) for point in wanted]
    rows, columns = np.divmod(np.array(flat), maps.shape[1])
    return np.stack([columns, rows], 1).astype(np.float64)


def _looked_up(places: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where places (n, 2) come from, and the derivatives of that (n, 2, 2): of x and y, by x and y."""
    last = np.array(maps.shape[1::-1]) - 1
    inside = np.clip(places, 0, last)
    column, row = np.minimum(inside.astype(np.intp), np.maximum(last - 1, 0)).T
    right, below = np.minimum(column + 1, last[0]), np.minimum(row + 1, last[1])
    across, down = (inside - np.stack([column, row], 1)).T[..., None]
    above = maps[row, column] * (1 - across) + maps[row, right] * across
    under = maps[below, column] * (1 - across) + maps[below, right] * across
    by_x = (maps[row, right] - maps[row, column]) * (1 - down) + (maps[below, right] - maps[below, column]) * down
    slopes = np.stack([by_x, under - above], -1)
    outside = places != inside
    slopes = np.where(outside[:, None], np.eye(2), slopes)  # beyond the edge a step is a step
    return above * (1 - down) + under * down + places - inside, slopes
