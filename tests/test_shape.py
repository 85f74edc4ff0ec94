"""Shapes: masses, sizes, and refusals that say what to do."""

from __future__ import annotations

import numpy as np
import pytest

from shapeflow.errors import MeshError, ShapeflowError
from shapeflow.shape import Shape

SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
TWO = np.array([[0, 1, 2], [0, 2, 3]])


def test_masses_are_shares_of_the_area() -> None:
    shape = Shape(SQUARE, TWO)
    assert np.allclose(shape.measures(), 0.5)
    # vertices 0 and 2 lie on both triangles, 1 and 3 on one: a third of a half each time
    assert np.allclose(shape.masses(), [1 / 3, 1 / 6, 1 / 3, 1 / 6])
    assert shape.size() == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize("d", [2, 3])
def test_masses_of_curves_are_shares_of_the_length(d: int) -> None:
    points = np.zeros((3, d))
    points[:, 0] = [0.0, 1.0, 4.0]
    shape = Shape(points, np.array([[0, 1], [1, 2]]))
    assert np.allclose(shape.masses(), [1 / 8, 4 / 8, 3 / 8])


def test_points_weigh_the_same() -> None:
    shape = Shape(SQUARE)
    assert shape.kind == "points" and np.allclose(shape.masses(), 0.25)


def test_unreferenced_vertices_have_no_mass() -> None:
    shape = Shape(np.concatenate([SQUARE, [[9.0, 9, 9]]]), TWO)
    assert shape.masses()[4] == 0.0 and shape.masses().sum() == pytest.approx(1)


def test_the_same_surface_sampled_twice_as_densely_has_the_same_centroid_and_size() -> None:
    rng = np.random.default_rng(0)
    curve = np.array([[0.0, 0], [3, 1], [4, 5]])
    middle = (curve[:-1] + curve[1:]) / 2
    dense = Shape(
        np.stack([curve[0], middle[0], curve[1], middle[1], curve[2]]), np.stack([np.arange(4), np.arange(4) + 1], 1)
    )
    coarse = Shape(curve, np.array([[0, 1], [1, 2]]))
    assert np.allclose(dense.centroid(), coarse.centroid())
    assert coarse.size() == dense.size()
    moved = coarse.replace(points=coarse.points + rng.normal(size=2))
    assert moved.centroid_size() == pytest.approx(coarse.centroid_size())


def test_scaling_scales_the_centroid_size() -> None:
    shape = Shape(SQUARE, TWO)
    assert shape.replace(points=3 * shape.points).centroid_size() == pytest.approx(3 * shape.centroid_size())


@pytest.mark.parametrize(
    ("points", "simplices", "says"),
    [
        (SQUARE, [[1, 2, 4]], "1-based"),
        (SQUARE, [[0, 1, -1]], "index -1"),
        (SQUARE, [[0.0, 1.0, 2.0]], "integers"),
        (SQUARE, np.empty((0, 3), int), "0 simplices"),
        (np.empty((0, 3)), None, "0 points"),
        (SQUARE[:, :1], None, r"\(n, 2\) or \(n, 3\)"),
        (SQUARE, [[0, 1, 2, 3]], "triangles"),
        (np.where(SQUARE == 1, np.nan, SQUARE), TWO, "drop_nan"),
    ],
)
def test_refusals(points: np.ndarray, simplices: object, says: str) -> None:
    with pytest.raises(MeshError, match=says):
        Shape(points, None if simplices is None else np.asarray(simplices))


def test_arrays_need_a_row_a_point() -> None:
    with pytest.raises(MeshError, match="needs 4 rows"):
        Shape(SQUARE, TWO, {"a": np.zeros(3)})


def test_a_shape_without_area_has_no_masses() -> None:
    with pytest.raises(ShapeflowError, match="no area"):
        Shape(np.zeros((3, 3)), np.array([[0, 1, 2]])).masses()
