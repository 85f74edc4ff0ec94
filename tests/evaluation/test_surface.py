"""Distances between shapes, against answers known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from shapeflow.errors import MeshError, ShapeflowError
from shapeflow.evaluation import directed_distances, knn_accuracy, landmark_error, silhouette, surface_distance
from shapeflow.shape import Shape


def plane(n: int, z: float, skew: float = 1.0) -> Shape:
    """The unit square at height z, n × n vertices, denser towards x = 0 when skew > 1."""
    u = np.linspace(0.0, 1.0, n)
    x, y = np.meshgrid(u**skew, u, indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), np.full(n * n, z)], axis=1)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel(), i[:-1, 1:].ravel()
    return Shape(points, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]), {})


def test_parallel_planes():
    mean, p95 = surface_distance(plane(5, 0.0), plane(8, 0.25))
    assert mean == pytest.approx(0.25) and p95 == pytest.approx(0.25)


def test_a_shape_is_at_distance_zero_from_a_resampling_of_itself():
    """Vertex to surface, not vertex to vertex: two samplings of one plane coincide."""
    assert surface_distance(plane(4, 0.0), plane(9, 0.0, skew=2.0)) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_symmetric_and_equivariant():
    rng = np.random.default_rng(0)
    a, b = plane(5, 0.0), plane(6, 0.3)
    a, b = (Shape(s.points + 0.05 * rng.normal(size=s.points.shape), s.simplices, {}) for s in (a, b))
    assert surface_distance(a, b) == pytest.approx(surface_distance(b, a))
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    moved = [Shape(2.0 * s.points @ q.T + 7.0, s.simplices, {}) for s in (a, b)]
    assert surface_distance(*moved) == pytest.approx(tuple(2.0 * v for v in surface_distance(a, b)), rel=1e-9)


def test_sampling_density_does_not_weigh():
    """A plane that is tilted about y: the mean height is ½ however the vertices crowd at one end."""

    def tilted(skew):
        flat = plane(40, 0.0, skew)
        return Shape(flat.points + flat.points[:, :1] * np.array([0.0, 0.0, 1.0]), flat.simplices, {})

    far = Shape(np.array([[-9.0, -9, 0], [9, -9, 0], [0, 19, 0]]), np.array([[0, 1, 2]]), {})
    for skew in (1.0, 3.0):
        shape = tilted(skew)
        assert directed_distances(shape, far) @ shape.masses() == pytest.approx(0.5, abs=2e-3)


def test_curves_in_the_plane_and_points():
    t = np.linspace(0.0, 1.0, 11)[:, None]
    edges = np.stack([np.arange(10), np.arange(1, 11)], axis=1)
    low, high = Shape(np.hstack([t, 0 * t]), edges, {}), Shape(np.hstack([t, 0 * t + 0.5]), edges, {})
    assert surface_distance(low, high) == pytest.approx((0.5, 0.5))
    shifted = Shape(np.hstack([t * 0.9 + 0.05, 0 * t]), edges, {})  # inside the segment, between the vertices
    assert directed_distances(shifted, low) == pytest.approx(0.0, abs=1e-12)
    dots = [
        Shape(p, np.arange(2)[:, None], {})
        for p in (np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([[0.0, 3, 0], [1, 4, 0]]))
    ]
    assert directed_distances(*dots) == pytest.approx([3.0, np.sqrt(10.0)])


def test_quantile_takes_the_worse_direction():
    """A spike on one shape is seen from the spike only."""
    flat, spiked = plane(11, 0.0), plane(11, 0.0)
    points = spiked.points.copy()
    points[:22, 2] = 5.0  # a fold over more than 5 % of the area
    spiked = Shape(points, spiked.simplices, {})
    assert surface_distance(flat, spiked)[1] == pytest.approx(5.0)
    assert surface_distance(spiked, flat)[1] == pytest.approx(5.0)


def test_landmarks():
    a = np.array([[0.0, 0, 0], [1, 0, 0]])
    assert landmark_error(a, a + [0.0, 3.0, 4.0]) == pytest.approx(5.0)
    assert landmark_error(a, np.array([[0.0, 1, 0], [np.nan] * 3])) == pytest.approx(1.0)
    with pytest.raises(ShapeflowError, match="correspond"):
        landmark_error(a, a[:1])


def test_dimensions_must_agree():
    with pytest.raises(MeshError, match="one dimension"):
        surface_distance(plane(3, 0.0), Shape(np.zeros((1, 2)), np.array([[0]]), {}))


def test_separation_criteria():
    x = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 5.2])
    d = np.abs(x[:, None] - x[None])
    together, mixed = list("aaabbb"), list("ababab")
    assert knn_accuracy(d, together) == 1.0 and silhouette(d, together) > 0.9
    assert knn_accuracy(d, mixed) < 0.5 and silhouette(d, mixed) < 0.1
    assert knn_accuracy(d, together, k=3) == 1.0
    assert np.isnan(knn_accuracy(d, list("aaaaaa"))) and np.isnan(silhouette(d, list("aaaaaa")))
    with pytest.raises(ShapeflowError, match="square"):
        knn_accuracy(d[:3], together)
