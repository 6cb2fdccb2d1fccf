"""Where points have gone in an image that was looked up."""

import numpy as np
import pytest
from marked import rng, smooth

from flowfn.image.inverting import inverted

HEIGHT, WIDTH = 40, 60
COLUMNS, ROWS = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))


def looked_up(places, x, y):
    """Where places between pixels come from."""
    column, row = np.floor(places).astype(int).T
    across, down = (places - [*zip(column, row)]).T
    corners = [
        (0, 0, (1 - across) * (1 - down)),
        (0, 1, across * (1 - down)),
        (1, 0, (1 - across) * down),
        (1, 1, across * down),
    ]
    return np.stack([sum(one[row + i, column + j] * weight for i, j, weight in corners) for one in (x, y)], 1)


@pytest.mark.parametrize("strength", [0, 5, 20])
def test_what_was_looked_up_is_found(strength):
    x, y = (base + strength * (smooth((HEIGHT, WIDTH), seed) / 255 - 0.5) for seed, base in enumerate((COLUMNS, ROWS)))
    places = rng().uniform((8, 8), (WIDTH - 8, HEIGHT - 8), (50, 2))
    points = looked_up(places, x, y)
    np.testing.assert_allclose(inverted(points, x, y), places, atol=0.01)


def test_beyond_the_edge_a_displacement_stays_as_it_is():
    points = np.array([[-20.0, 10.0], [100.0, 100.0], [0.0, -3.5]])
    np.testing.assert_allclose(inverted(points, COLUMNS + 2.5, ROWS - 1.0), points - [2.5, -1.0], atol=1e-3)


def test_of_several_places_it_is_one_and_of_none_the_nearest():
    folded = np.abs(COLUMNS - 30.0)  # each column but the middle one is to be seen twice, and none beyond 30
    ((x, y),) = inverted(np.array([[10.0, 7.0]]), folded, ROWS)
    assert (abs(abs(x - 30) - 10) < 0.01, abs(y - 7) < 0.01) == (True, True)
    flat = np.full((HEIGHT, WIDTH), 5.0)
    ((x, y),) = inverted(np.array([[10.0, 7.0]]), flat, ROWS)
    assert np.isfinite([x, y]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_images_of_one_row_or_column_are_images(shape):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    points = np.array([[0.0, 0.0], [3.0, 2.0]])
    np.testing.assert_allclose(inverted(points, columns, rows), points, atol=1e-3)


def test_no_points_are_none():
    assert inverted(np.zeros((0, 2)), COLUMNS, ROWS).shape == (0, 2)
