"""Repairs: each does its one thing, says how much, and leaves a clean mesh alone."""

from __future__ import annotations

import numpy as np
import pytest

from shapeflow.errors import ConfigError, MeshError
from shapeflow.io.raw import Raw, make_raw
from shapeflow.prepare import Prepare
from shapeflow.prepare.clean import clean
from shapeflow.prepare.holes import taubin
from shapeflow.prepare.quality import facts
from shapeflow.prepare.topology import components_of, edges_of, orientation, volumes
from shapeflow.shape import Shape
from tests.io.shapes import loop, sphere, tetrahedron


def raw(shape: Shape) -> Raw:
    return Raw(shape.points, shape.simplices, shape.point_data)


def volume(shape: Shape) -> float:
    return float(volumes(shape.points, shape.simplices, np.zeros(len(shape.simplices), int))[0])


@pytest.mark.parametrize("shape", [sphere(), loop(), Shape(sphere().points)])
def test_a_clean_shape_is_left_alone(shape: Shape) -> None:
    found, record = clean(raw(shape), Prepare())
    assert np.array_equal(found.points, shape.points) and np.array_equal(found.simplices, shape.simplices)
    assert not any(record.values())


def test_vertices_that_are_not_finite_go_with_their_triangles() -> None:
    shape = sphere()
    points = shape.points.copy()
    points[5] = np.nan
    found, record = clean(Raw(points, shape.simplices, {"i": np.arange(len(points))}), Prepare())
    assert record["drop_nan"] == 1 and found.n_points == shape.n_points - 1
    assert 5 not in found.point_data["i"] and np.array_equal(found.points, points[found.point_data["i"]])
    with pytest.raises(MeshError, match="drop_nan"):
        clean(Raw(points, shape.simplices), Prepare(drop_nan=False))


def test_a_soup_is_merged() -> None:
    shape = sphere()
    soup = make_raw(shape.points[shape.simplices].reshape(-1, 3), np.arange(3 * len(shape.simplices)).reshape(-1, 3))
    found, record = clean(soup, Prepare())
    assert found.n_points == shape.n_points and record["merge"] == 3 * len(shape.simplices) - shape.n_points
    noisy = soup._replace(points=soup.points + 1e-7 * np.random.default_rng(0).normal(size=soup.points.shape))
    assert clean(noisy, Prepare())[0].n_points > shape.n_points
    assert clean(noisy, Prepare(merge_tolerance=1e-5))[0].n_points == shape.n_points


def test_degenerate_repeated_and_unreferenced() -> None:
    shape = tetrahedron()
    extra = np.array([[0, 0, 1], [0, 2, 1]])  # a triangle without area, and the first face again
    points = np.concatenate([shape.points, [[9.0, 9, 9]]])
    found, record = clean(make_raw(points, np.concatenate([shape.simplices, extra])), Prepare())
    assert (record["drop_degenerate"], record["drop_duplicates"], record["drop_unreferenced"]) == (1, 1, 1)
    assert found.n_points == 4 and volume(found) == pytest.approx(1 / 6)


def test_a_pocket_of_two_opposite_triangles_vanishes_and_leaves_a_manifold() -> None:
    shape = sphere()
    a, b = shape.simplices[0, :2]
    apex = len(shape.points)
    pocket = np.array([[a, b, apex], [b, a, apex]])
    points = np.concatenate([shape.points, [shape.points[a] * 1.1]])
    found, record = clean(make_raw(points, np.concatenate([shape.simplices, pocket])), Prepare())
    assert record["drop_duplicates"] == 2 and set(edges_of(found.simplices).counts.tolist()) == {2}
    assert found.n_points == shape.n_points


def test_a_sheet_drawn_from_both_sides_keeps_one_side() -> None:
    flat = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    one = np.array([[0, 1, 2], [0, 2, 3]])
    found, _ = clean(make_raw(flat, np.concatenate([one, one[:, ::-1]])), Prepare())
    assert len(found.simplices) == 2 and found.measures().sum() == pytest.approx(1)


def test_components_by_share() -> None:
    big, small = sphere(), sphere(radius=0.2)
    both = make_raw(
        np.concatenate([big.points, small.points + 5]), np.concatenate([big.simplices, small.simplices + big.n_points])
    )
    for asked, left in (("all", 2), ("largest", 1), (0.01, 2), (0.1, 1), (0.0, 2)):
        found, record = clean(both, Prepare(components=asked))
        assert components_of(found.simplices, found.n_points)[0] == left and record["components"] == 2 - left


def test_orientation_is_restored_and_faces_outwards() -> None:
    shape = sphere()
    turned = np.random.default_rng(0).random(len(shape.simplices)) < 0.4
    mixed = np.where(turned[:, None], shape.simplices[:, [0, 2, 1]], shape.simplices)
    found, record = clean(make_raw(shape.points, mixed), Prepare())
    assert volume(found) == pytest.approx(volume(shape)) and record["orient"] == turned.sum()
    inside_out, record = clean(make_raw(shape.points, shape.simplices[:, [0, 2, 1]]), Prepare())
    assert volume(inside_out) > 0 and record["orient"] == len(shape.simplices)
    kept, _ = clean(make_raw(shape.points, mixed), Prepare(orient=False))
    assert np.array_equal(kept.simplices, mixed)


def test_a_moebius_band_is_reported_and_not_touched() -> None:
    n = 20
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)

    def rim(s: float) -> np.ndarray:
        r = 1 + s * np.cos(t / 2)
        return np.stack([r * np.cos(t), r * np.sin(t), s * np.sin(t / 2)], 1)

    points = np.concatenate([rim(-0.3), rim(0.3)])
    i = np.arange(n)
    j, low, high = (i + 1) % n, i, i + n
    next_low, next_high = (
        np.where(i + 1 < n, j, j + n),
        np.where(i + 1 < n, j + n, j),
    )  # the last strip joins the other rim
    band = np.concatenate([np.stack([low, next_low, high], 1), np.stack([next_low, next_high, high], 1)])
    assert orientation(band, edges_of(band)).one_sided.all()
    assert facts(make_raw(points, band))["one_sided_triangles"] == 2 * n
    assert clean(make_raw(points, band), Prepare())[1]["orient"] == 0


def test_curves_are_joined_straightened_and_turned() -> None:
    shape = loop(20, clockwise=True)
    corners = shape.points[shape.simplices]  # separate segments, every second one backwards
    corners[::2] = corners[::2, ::-1]
    found, record = clean(make_raw(corners.reshape(-1, 2), np.arange(40).reshape(-1, 2)), Prepare())
    assert found.n_points == 20 and record["merge"] == 20
    following = dict(found.simplices.tolist())
    assert len(following) == 20 and set(following.values()) == set(range(20))
    p = found.points
    assert sum(p[a, 0] * p[b, 1] - p[b, 0] * p[a, 1] for a, b in following.items()) > 0
    assert facts(make_raw(shape.points, shape.simplices))["clockwise_curves"] == 1


def test_a_curve_that_touches_itself_stays_one_curve() -> None:
    eight = np.array([[0.0, 0], [1, 1], [2, 0], [1, -1], [0, 0], [-1, 1], [-2, 0], [-1, -1]])
    edges = np.stack([np.arange(8), np.roll(np.arange(8), -1)], 1)
    found, record = clean(make_raw(eight, edges), Prepare(orient=False))
    assert found.n_points == 8 and record["merge"] == 0


def test_holes_are_closed_up_to_a_length_and_agree_with_their_neighbours() -> None:
    shape = sphere()
    opened = shape.simplices[~(shape.simplices == shape.n_points - 1).any(1)]  # without the south cap: 24 edges
    assert clean(make_raw(shape.points, opened), Prepare(fill_holes=23))[1]["fill_holes"] == 0
    found, record = clean(make_raw(shape.points, opened, {"x": shape.points[:, 0]}), Prepare(fill_holes=24))
    assert record["fill_holes"] == 1 and record["orient"] == 0
    assert set(edges_of(found.simplices).counts.tolist()) == {2} and volume(found) == pytest.approx(
        volume(shape), rel=0.01
    )
    assert len(found.point_data["x"]) == found.n_points


def test_smoothing_takes_noise_and_keeps_size() -> None:
    shape = sphere(20)
    noisy = shape.points * (1 + 0.05 * np.random.default_rng(0).normal(size=(shape.n_points, 1)))
    smooth = taubin(noisy, shape.simplices, 20)
    spread = lambda p: np.linalg.norm(p, axis=1).std()  # noqa: E731
    assert spread(smooth) < 0.4 * spread(noisy) and np.linalg.norm(smooth, axis=1).mean() == pytest.approx(1, abs=0.02)


def test_nothing_left_is_refused() -> None:
    with pytest.raises(MeshError, match="nothing is left"):
        clean(make_raw(np.zeros((3, 3)), np.array([[0, 1, 2]])), Prepare(merge=False))


@pytest.mark.parametrize(
    "options",
    [
        {"align": "icp"},
        {"n_points": 2},
        {"scale": -1.0},
        {"scale": {"a": 0.0}},
        {"components": "some"},
        {"components": 2.0},
        {"on_bad": "ignore"},
        {"fill_holes": -1},
    ],
)
def test_impossible_options(options: dict) -> None:
    with pytest.raises(ConfigError, match="prepare\\."):
        Prepare(**options)


def test_the_volume_is_that_of_a_mesh_that_closes() -> None:
    """A head with an open skin has no volume, though its eyeballs have one."""
    ball, open_ = sphere(), Shape(sphere().points + 5, sphere().simplices[1:])
    both = Shape(
        np.concatenate([ball.points, open_.points]),
        np.concatenate([ball.simplices, open_.simplices + ball.n_points]),
    )
    assert facts(raw(ball))["volume"] == pytest.approx(volume(ball))
    assert "volume" not in facts(raw(open_)) and "volume" not in facts(raw(both))
