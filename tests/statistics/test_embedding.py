"""Distance matrices as points and trees."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from shapeflow.errors import ShapeflowError
from shapeflow.statistics import classical_scaling, cluster_order


def test_scaling_recovers_points_from_their_distances():
    x = np.random.default_rng(0).normal(size=(9, 2))
    scaling = classical_scaling(cdist(x, x))
    np.testing.assert_allclose(cdist(scaling.coordinates, scaling.coordinates), cdist(x, x), atol=1e-9)
    assert scaling.explained.sum() == pytest.approx(1.0) and scaling.negative < 1e-12
    assert scaling.explained[0] >= scaling.explained[1]


def test_distances_that_no_points_have_are_reported():
    d = np.array(
        [[0, 1, 1, 1], [1, 0, 2, 2], [1, 2, 0, 2], [1, 2, 2, 0.0]]
    )  # a star: the arms' ends are too far apart for any plane
    scaling = classical_scaling(d)
    assert scaling.negative > 0.05 and scaling.coordinates.shape == (4, 2)
    line = classical_scaling(np.array([[0, 1.0], [1.0, 0]]), components=3)
    assert line.coordinates.shape == (2, 3) and line.explained.tolist() == [1.0, 0.0, 0.0]


def test_clusters_stand_together_and_missing_entries_do_not_stop_it():
    x = np.array([0.0, 10.0, 0.1, 10.1, 0.2])
    d = np.abs(x[:, None] - x[None])
    order = cluster_order(d).tolist()
    assert {frozenset(order[:3]), frozenset(order[3:])} == {frozenset({0, 2, 4}), frozenset({1, 3})} or {
        frozenset(order[:2]),
        frozenset(order[2:]),
    } == {frozenset({0, 2, 4}), frozenset({1, 3})}
    d[0, 1] = d[1, 0] = np.nan
    assert sorted(cluster_order(d)) == list(range(5))


@pytest.mark.parametrize(
    ("d", "message"),
    [
        (np.zeros((2, 3)), "square"),
        (np.array([[0, 1.0], [2.0, 0]]), "symmetric"),
        (np.array([[0, np.nan], [np.nan, 0]]), "missing"),
    ],
)
def test_what_is_no_distance_matrix_is_refused(d, message):
    with pytest.raises(ShapeflowError, match=message):
        classical_scaling(d)
