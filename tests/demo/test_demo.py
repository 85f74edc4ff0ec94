"""The demo cohort: what it promises as truth must be true of the files it writes."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from shapeflow.demo import DemoSpec, generate, load_truth, plan, subjects
from shapeflow.demo.flow import shoot, velocity
from shapeflow.demo.templates import chart, embed, refine_half
from shapeflow.errors import ConfigError
from shapeflow.io import read_landmarks, read_shape
from shapeflow.shape import Shape

KINDS = ("closed", "open", "curves")


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return {
        kind: generate(DemoSpec(kind=kind, n_subjects=4, n_points=60, seed=3), tmp_path_factory.mktemp(kind))
        for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_same_spec_same_bytes(kind, cohorts, tmp_path):
    spec = DemoSpec(kind=kind, n_subjects=4, n_points=60, seed=3)
    again = generate(spec, tmp_path / "again")
    files = sorted(p.name for p in cohorts[kind].iterdir())
    assert files == sorted(p.name for p in again.iterdir())
    assert files == sorted(
        [
            *(f"{s}.vtk" for s in subjects(spec)),
            *(f"{s}.landmarks.csv" for s in subjects(spec)),
            "labels.csv",
            "truth.npz",
        ]
    )
    for name in files:
        assert (cohorts[kind] / name).read_bytes() == (again / name).read_bytes(), name
    other = generate(replace(spec, seed=4), tmp_path / "other")
    assert (other / "subject01.vtk").read_bytes() != (again / "subject01.vtk").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mesh_is_the_template_carried_by_its_momenta(kind, cohorts):
    truth = load_truth(cohorts[kind] / "truth.npz")
    for i, name in enumerate(truth.subjects):
        shape = read_shape(cohorts[kind] / f"{name}.vtk")
        assert shape.simplices.shape[1] == (2 if kind == "curves" else 3)
        ends = shoot(truth.points, truth.points, truth.momenta[i], truth.sigma, steps=40)
        np.testing.assert_allclose(shape.points[truth.correspondence[i]], ends, atol=1e-6)  # RK4 at 20 against 40 steps
        landmarks = read_landmarks(cohorts[kind] / f"{name}.landmarks.csv").points
        np.testing.assert_allclose(
            landmarks, shape.points[truth.correspondence[i]][truth.landmark_vertices], atol=1e-12
        )


@pytest.mark.parametrize("kind", KINDS)
def test_vertex_order_hides_the_correspondence(kind, cohorts):
    truth = load_truth(cohorts[kind] / "truth.npz")
    n = len(truth.points)
    assert all((row != np.arange(n)).mean() > 0.9 for row in truth.correspondence)
    assert not (truth.correspondence[0] == truth.correspondence[1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_mesh_is_sound(kind, cohorts):
    for name in subjects(DemoSpec(kind=kind, n_subjects=4)):
        shape = read_shape(cohorts[kind] / f"{name}.vtk")
        cells = shape.simplices
        assert sorted(np.unique(cells)) == list(range(len(shape.points)))
        if kind == "curves":
            assert set(Counter(cells.ravel().tolist()).values()) == {2}
            continue
        directed = Counter(tuple(e) for f in cells.tolist() for e in zip(f, f[1:] + f[:1], strict=True))
        assert set(directed.values()) == {1}, "two faces run along an edge in the same direction"
        boundary = [e for e in directed if e[::-1] not in directed]
        if kind == "closed":
            assert not boundary
            assert len(shape.points) - len(directed) // 2 + len(cells) == 2
            assert np.linalg.det(shape.points[cells]).sum() > 0, "the faces point inwards"
        else:
            assert Counter(v for e in boundary for v in e).keys() == {v for e in boundary for v in e}
            assert set(Counter(v for e in boundary for v in e).values()) == {2}, "one rim, without branches"


@pytest.mark.parametrize("kind", KINDS)
def test_refined_half_is_denser_and_on_the_same_shape(kind):
    c, cells = chart(kind, 160)
    finer, finer_cells = refine_half(kind, c, cells)
    np.testing.assert_array_equal(finer[:160], c)
    q = embed(kind, finer)
    right, left = np.count_nonzero(q[:, 0] > 0.02), np.count_nonzero(q[:, 0] < -0.02)
    assert right > 1.7 * left
    coarse, fine = Shape(embed(kind, c), cells, {}), Shape(q, finer_cells, {})
    from shapeflow.evaluation import surface_distance

    assert surface_distance(coarse, fine)[1] < 0.02
    assert (
        abs(coarse.masses()[:160] @ coarse.points[:, 0] - fine.masses() @ fine.points[:, 0]) < 0.01
    )  # barycentres agree by mass


def test_labels_are_balanced_and_written(cohorts):
    spec = DemoSpec(n_subjects=8)
    labels = plan(spec)
    for group in ("control", "case"):
        members = [i for i in range(8) if labels.group[i] == group]
        assert len(members) == 4
        assert Counter(labels.density[i] for i in members) == {"even": 2, "half_dense": 2}
        assert np.isclose(labels.covariate[members].sum(), 0.0)
    with (cohorts["closed"] / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["subject", "group", "density", "covariate"]
    assert [row["subject"] for row in rows] == list(subjects(DemoSpec(n_subjects=4)))


def test_groups_differ_by_the_known_mode(tmp_path):
    truth = load_truth(generate(DemoSpec(n_subjects=6, n_points=80), tmp_path) / "truth.npz")
    case = np.array([g == "case" for g in truth.group])
    difference = truth.carried[case].mean(0) - truth.carried[~case].mean(0)
    expected = velocity(truth.points, truth.points, 0.15 * truth.group_mode, truth.sigma)
    cosine = (difference * expected).sum() / np.linalg.norm(difference) / np.linalg.norm(expected)
    assert cosine > 0.9
    assert np.isclose(
        np.linalg.norm(velocity(truth.points, truth.points, truth.group_mode, truth.sigma), axis=1).max(), 1.0
    )


def test_flow_keeps_what_a_geodesic_keeps():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(12, 3)), 0.3 * rng.normal(size=(12, 3))
    apart = np.array([[0.0, 0.0], [50.0, 0.0]])
    np.testing.assert_allclose(
        shoot(apart, apart, np.array([[1.0, 2.0], [0.0, -1.0]]), 1.0), [[1.0, 2.0], [50.0, -1.0]], atol=1e-12
    )
    shifted = shoot(q + 5.0, q + 5.0, p, 0.8)
    np.testing.assert_allclose(shifted, shoot(q, q, p, 0.8) + 5.0, atol=1e-10)
    # reversing the momenta at the end is a geodesic back: needs the end's momenta, so compare integrator orders instead
    exact = shoot(q, q, p, 0.8, steps=160)
    errors = [np.abs(shoot(q, q, p, 0.8, steps=s) - exact).max() for s in (5, 10)]
    assert 10 < errors[0] / errors[1] < 24


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "torus"},
        {"n_subjects": 1},
        {"n_points": 3},
        {"seed": -1},
        {"noise": -0.1},
        {"sigma": 0.0},
        {"n_landmarks": 500},
        {"n_subjects": 2.5},
    ],
)
def test_impossible_specs_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DemoSpec(**wrong)


def test_pose_moves_subjects_rigidly(tmp_path):
    base = DemoSpec(n_subjects=2, n_points=40, dense=False)
    still, moved = generate(base, tmp_path / "a"), generate(replace(base, pose=40.0), tmp_path / "b")
    a, b = read_shape(still / "subject01.vtk").points, read_shape(moved / "subject01.vtk").points
    assert np.abs(a - b).max() > 0.01
    gram = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (a, b)]
    ta, tb = (load_truth(p / "truth.npz").correspondence[0] for p in (still, moved))
    np.testing.assert_allclose(gram[0][np.ix_(ta, ta)], gram[1][np.ix_(tb, tb)], atol=1e-9)
