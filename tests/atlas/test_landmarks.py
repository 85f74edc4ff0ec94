"""Landmarks of the template: pulled back, averaged over the others, carried, compared."""

from __future__ import annotations

import numpy as np
import pytest

from shapeflow.atlas import TangentSpace, template_landmarks
from shapeflow.errors import ShapeflowError
from shapeflow.io import Landmarks
from tests.shapes import circle

NAMES = ("a", "b", "c")


def space(normalization: str = "sinkhorn") -> TangentSpace:
    shape = circle(20)
    return TangentSpace(shape, shape.points, shape.masses(), "gaussian", 0.6, normalization, steps=10, integrator="rk4")


def momenta(count: int, seed: int = 0) -> np.ndarray:
    """Smooth momenta, of the size that moves points by about a third of the radius."""
    s = space()
    c = np.random.default_rng(seed).normal(size=(count, 4, 2))
    q = s.control_points
    basis = np.stack([np.ones(len(q)), q[:, 0], q[:, 1], q[:, 0] * q[:, 1]])
    return 0.3 * s.masses[:, None] * np.einsum("kb,skd->sbd", basis, c)


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
def test_the_way_back_undoes_the_way_there(normalization):
    s, p = space(normalization), momenta(3)
    x = [np.array([[0.3, 0.1], [-0.9, 0.4]]), np.zeros((0, 2)), np.array([[0.0, 1.1]])]
    there = s.carry(p, x)
    assert np.linalg.norm(there[0] - x[0], axis=1).min() > 1e-3
    for a, b in zip(s.pull_back(p, there), x, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # rk4 in 10 steps; off the flow's own points the order is the same


def test_landmarks_that_correspond_are_predicted_and_others_are_not():
    s, p = space(), momenta(6)
    truth = np.array([[1.0, 0.0], [0.0, 1.0], [-0.7, -0.7]])
    marks = [Landmarks(NAMES, x) for x in s.carry(p, [truth] * 6)]
    found = template_landmarks(s, p, marks)
    assert found is not None and found.landmarks.names == NAMES
    np.testing.assert_allclose(found.landmarks.points, truth, atol=1e-5)
    own = marks[3].points - marks[3].points.mean(axis=0)
    assert found.size[3] == pytest.approx(np.linalg.norm(own))
    np.testing.assert_allclose(found.error, 0.0, atol=1e-5)
    assert (found.error_before > 1e-2).all()
    # one subject's landmark is put elsewhere: its own error says so, and the others' little
    moved = marks[2].points + np.array([0.6, 0.0])
    wrong = template_landmarks(s, p, [*marks[:2], Landmarks(NAMES, moved), *marks[3:]])
    assert wrong is not None and wrong.error[2] == pytest.approx(0.6, abs=1e-4)
    assert (np.delete(wrong.error, 2) < 0.25).all()


def test_a_subject_has_no_part_in_its_own_prediction():
    """Two subjects: each is predicted by the other alone, so both errors see the whole disagreement and not half of it."""
    s, p = space(), np.zeros((2, 20, 2))
    found = template_landmarks(
        s, p, [Landmarks(("a",), np.array([[0.0, 0.0]])), Landmarks(("a",), np.array([[1.0, 0.0]]))]
    )
    assert found is not None
    np.testing.assert_allclose(found.error, [1.0, 1.0])
    np.testing.assert_allclose(found.error_before, [1.0, 1.0])
    np.testing.assert_allclose(found.landmarks.points, [[0.5, 0.0]])


def test_missing_landmarks_count_where_they_are():
    s, p = space(), np.zeros((3, 20, 2))
    one = Landmarks(("a", "b"), np.array([[0.0, 0.0], [1.0, 1.0]]))
    other = Landmarks(("b", "a"), np.array([[1.0, 2.0], [np.nan, np.nan]]))
    found = template_landmarks(s, p, [one, other, None])
    assert found is not None and found.landmarks.names == ("a", "b")
    np.testing.assert_allclose(found.landmarks.points, [[0.0, 0.0], [1.0, 1.5]])
    # "a" is known in the first alone: there is nothing to predict it from, and nothing to compare in the third
    np.testing.assert_allclose(found.error, [1.0, 1.0, np.nan])
    np.testing.assert_allclose(found.size, [1.0, np.nan, np.nan])
    assert template_landmarks(s, p, [None, None, None]) is None
    with pytest.raises(ShapeflowError, match="one entry a subject"):
        template_landmarks(s, p, [None])
