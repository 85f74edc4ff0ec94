"""Templates to begin with: the words, a subject, a file, and an average of shapes whose average is known."""

from __future__ import annotations

import numpy as np
import pytest

from shapeflow.atlas import AtlasSpec, average, initial_template
from shapeflow.errors import ConfigError, ShapeflowError
from shapeflow.evaluation import surface_distance
from shapeflow.io import write_shape
from shapeflow.matching import MatchingSpec
from tests.shapes import circle, ellipsoid, sphere

SPEC = AtlasSpec(MatchingSpec(sigma=0.6, attachment_widths=(0.4,), steps=3))


def cohort():
    return {f"s{i}": ellipsoid((1 + t, 1.0, 1 - t), (0, 0, 0)) for i, t in enumerate((-0.3, -0.05, 0.1, 0.25))}


def test_the_average_of_stretched_balls_is_nearly_a_ball_and_as_near_to_all_as_the_best_of_them():
    start, subjects = cohort()["s0"], list(cohort().values())
    found = average(start, subjects, 0.3)
    assert surface_distance(found, sphere(3))[0] < 0.03 and surface_distance(start, sphere(3))[0] > 0.12
    nearest = min(np.mean([surface_distance(c, s)[0] for s in subjects]) for c in subjects)
    assert np.mean([surface_distance(found, s)[0] for s in subjects]) < 1.02 * nearest
    np.testing.assert_array_equal(found.simplices, start.simplices)


def test_thin_ends_do_not_shrink():
    """Averages of nearest points from one side alone lose a needle's tip; of equal shapes the average is the shape."""
    needle = ellipsoid((3.0, 0.3, 0.3), (0, 0, 0), subdivisions=3)
    longer = ellipsoid((3.4, 0.3, 0.3), (0, 0, 0), subdivisions=3)
    np.testing.assert_allclose(average(needle, [needle, needle], 0.2).points, needle.points, atol=1e-9)
    length = np.ptp(average(needle, [needle, longer], 0.2).points[:, 0])
    assert 6.2 < length < 6.6  # 6.0 and 6.8


def test_curves_too():
    found = average(circle(30, 0.8), [circle(40, r) for r in (0.8, 1.2)], 0.3)
    assert np.linalg.norm(found.points, axis=1) == pytest.approx(1.0, abs=0.03)


def test_what_can_be_asked_for(tmp_path):
    subjects = cohort()
    found, words = initial_template("closest", subjects, SPEC)
    assert words in ("s1, the nearest to all others", "s2, the nearest to all others") and found is subjects[words[:2]]
    assert initial_template("s3", subjects, SPEC) == (subjects["s3"], "s3")
    mean, words = initial_template("average", subjects, SPEC, n_points=60)
    assert mean.n_points == 60 and words.startswith("the average, on the mesh of s")
    write_shape(tmp_path / "mine.vtk", sphere(3))
    given, words = initial_template(str(tmp_path / "mine.vtk"), subjects, SPEC, n_points=100)
    assert given.n_points == 100 and words.endswith("mine.vtk")
    assert initial_template(str(tmp_path / "mine.vtk"), subjects, SPEC)[0].n_points == sphere(3).n_points
    with pytest.raises(ConfigError, match="write closest, average, a subject"):
        initial_template("s9", subjects, SPEC)
    write_shape(tmp_path / "flat.vtk", circle(12))
    with pytest.raises(ShapeflowError, match="has curves in .-D; the subjects are surfaces in 3-D"):
        initial_template(str(tmp_path / "flat.vtk"), subjects, SPEC)
