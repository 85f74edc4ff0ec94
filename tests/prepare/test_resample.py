"""Exact counts, small errors, and the way back to full resolution."""

from __future__ import annotations

import numpy as np
import pytest

from shapeflow.closest import closest_points
from shapeflow.errors import MeshError
from shapeflow.io.raw import make_raw
from shapeflow.prepare import Prepare
from shapeflow.prepare.decimate import decimate
from shapeflow.prepare.resample import polylines, resample, resample_curves
from shapeflow.prepare.subject import stage
from shapeflow.prepare.topology import edges_of
from shapeflow.sampling import farthest_points
from shapeflow.shape import Shape
from tests.io.shapes import loop, sphere


@pytest.mark.parametrize("n_points", [20, 57, 200])
def test_decimation_meets_the_number_of_vertices(n_points: int) -> None:
    shape = sphere(30, seed=1)
    coarse, made_by = decimate(shape, n_points)
    assert coarse.n_points == n_points and made_by == "fast-simplification"
    assert set(edges_of(coarse.simplices).counts.tolist()) == {2}
    assert closest_points(coarse.points, shape).distance.max() < 0.15 * shape.size()


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_decimation_does_not_depend_on_the_unit(factor: float) -> None:
    shape = sphere(20, seed=1)
    small, large = decimate(shape, 100)[0], decimate(shape.replace(points=factor * shape.points + 7 * factor), 100)[0]
    assert np.array_equal(small.simplices, large.simplices)
    assert np.allclose(small.points, large.points / factor - 7, atol=1e-8)


def test_decimation_that_stalls_on_slivers_is_finished() -> None:
    # a latitude-longitude sphere has needles at its poles, where the fast library refuses to go on
    rows = 100
    u, v = np.linspace(0, 2 * np.pi, 4 * rows, endpoint=False), np.linspace(1e-3, np.pi - 1e-3, rows)
    lat, lon = np.meshgrid(v, u, indexing="ij")
    points = np.stack([np.sin(lat) * np.cos(lon), np.sin(lat) * np.sin(lon), np.cos(lat)], -1).reshape(-1, 3)
    index = np.arange(len(points)).reshape(rows, -1)
    after = np.roll(index, -1, 1)
    faces = np.concatenate(
        [
            np.stack([index[:-1], index[1:], after[1:]], -1).reshape(-1, 3),
            np.stack([index[:-1], after[1:], after[:-1]], -1).reshape(-1, 3),
        ]
    )
    coarse, made_by = decimate(Shape(points, faces), 400)
    assert made_by == "VTK"
    assert 400 <= coarse.n_points <= 404
    assert abs(np.linalg.norm(coarse.points, axis=1) - 1).max() < 0.05


def test_a_non_manifold_mesh_survives() -> None:
    shape = sphere(20)
    fin = np.array([[0, 40, shape.n_points]])  # a third triangle on an edge
    dirty = Shape(np.concatenate([shape.points, [[0, 0, 3.0]]]), np.concatenate([shape.simplices, fin]))
    assert decimate(dirty, 150)[0].n_points == 150


def test_more_vertices_than_there_are_leaves_the_mesh() -> None:
    shape = sphere(5)
    assert resample(shape, 10_000, "decimate") == (shape, "nothing") and resample(shape, None, "decimate")[0] is shape


def test_remeshing_is_even() -> None:
    pytest.importorskip("pyacvd")
    shape = sphere(25, seed=1)
    even, decimated = resample(shape, 200, "remesh")[0], resample(shape, 200, "decimate")[0]
    assert abs(even.n_points - 200) <= 4
    assert even.masses().std() < 0.5 * decimated.masses().std()
    assert closest_points(shape.points, even).distance.max() < 0.06 * shape.size()


def test_curves_are_even_by_arc_length_and_keep_their_sense() -> None:
    shape = loop(400)
    found = resample_curves(shape, 50)
    assert found.n_points == 50 and found.measures().std() < 5e-3 * found.measures().mean()  # chords, not arcs
    assert found.measures().sum() == pytest.approx(shape.measures().sum(), rel=5e-3)
    (order, closed), (before, _) = polylines(found.simplices, 50)[0], polylines(shape.simplices, 400)[0]
    area = lambda p: (p[:, 0] * np.roll(p[:, 1], -1) - p[:, 1] * np.roll(p[:, 0], -1)).sum()  # noqa: E731
    assert closed and area(found.points[order]) * area(shape.points[before]) > 0


def test_vertices_are_shared_by_length_and_lines_keep_their_ends() -> None:
    long, short = np.linspace([0.0, 0, 0], [9, 0, 0], 30), np.linspace([0.0, 5, 0], [1, 5, 0], 30)
    edges = np.stack([np.arange(29), np.arange(29) + 1], 1)
    found = resample_curves(Shape(np.concatenate([long, short]), np.concatenate([edges, edges + 30])), 22)
    lines = polylines(found.simplices, found.n_points)
    assert sorted(len(o) for o, _ in lines) == [2, 20] or sorted(len(o) for o, _ in lines) == [3, 19]
    for end in ([0, 0, 0], [9, 0, 0], [0, 5, 0], [1, 5, 0]):
        assert (np.linalg.norm(found.points - end, axis=1) < 1e-12).any()
    with pytest.raises(MeshError, match="branch"):
        polylines(np.array([[0, 1], [1, 2], [1, 3]]), 4)


def test_farthest_points_cover() -> None:
    points = np.random.default_rng(0).random((500, 3))
    keep = farthest_points(points, 60)
    assert len(set(keep.tolist())) == 60
    gap = np.linalg.norm(points[:, None] - points[keep], axis=2).min(1).max()
    assert gap < np.linalg.norm(points[:, None] - points[:60], axis=2).min(1).max()


@pytest.mark.parametrize("make", [lambda: sphere(8, seed=2), lambda: loop(15), lambda: Shape(sphere(4).points)])
def test_the_nearest_point_is_the_nearest(make) -> None:
    """Against sampling every simplex densely."""
    shape = make()
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(40, shape.dimension)) * 2
    found = closest_points(queries, shape)
    k = shape.simplices.shape[1]
    grid = rng.dirichlet(np.ones(k), size=400 if k > 1 else 1)
    dense = np.einsum("gk,mkd->mgd", grid, shape.points[shape.simplices]).reshape(-1, shape.dimension)
    brute = np.linalg.norm(queries[:, None] - dense, axis=2).min(1)
    assert (found.distance <= brute + 1e-12).all() and np.allclose(found.distance, brute, atol=0.1)
    on = found.carry(shape.simplices, shape.points)
    assert np.allclose(np.linalg.norm(on - queries, axis=1), found.distance)
    assert (found.weights >= 0).all() and np.allclose(found.weights.sum(1), 1)


def test_what_is_known_on_the_coarse_mesh_is_carried_to_the_full_one() -> None:
    shape = sphere(40, seed=1)
    staged = stage(make_raw(shape.points, shape.simplices), "a", Prepare(n_points=150))
    assert staged.full is not None and staged.where is not None
    simplex, weights = staged.where
    carried = np.einsum("nk,nkd->nd", weights, staged.shape.points[staged.shape.simplices[simplex]])
    distance = np.linalg.norm(carried - staged.full.points, axis=1)
    assert distance.max() <= staged.record["resample_max"] + 1e-9 and distance.mean() < 0.01 * shape.size()


def test_the_error_of_resampling_falls_with_the_vertices() -> None:
    shape = sphere(30, seed=3)
    errors = [
        stage(make_raw(shape.points, shape.simplices), "a", Prepare(n_points=n)).record["resample_mean"]
        for n in (50, 100, 400)
    ]
    assert errors[0] > 1.5 * errors[1] > 2.0 * errors[2] > 0
