"""Evaluations are the price: fewer than half of what SciPy's L-BFGS-B needs, and Deformetrica's objective in a fifth of its own."""

import numpy as np
import pytest

from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import MatchingObjective, Problem
from tests.benchmarks.convergence import ours, reached, scipy_best
from tests.shapes import sphere


def star(seed):
    """A sphere with smooth random bumps of a fifth of its radius."""
    shape, rng = sphere(2), np.random.default_rng(seed)
    waves = rng.normal(size=(6, 3))
    radius = 1 + 0.08 * np.cos(shape.points @ waves.T * 2 + rng.uniform(0, 6, 6)).sum(1)
    return shape.replace(points=shape.points * radius[:, None])


@pytest.mark.parametrize("normalization, gamma", [("none", 1e-3), ("sinkhorn", 1e-2)])
def test_forty_evaluations_go_below_a_hundred_of_scipy(normalization, gamma):
    spec = MatchingSpec(sigma=0.5, attachment_widths=(0.3,), steps=4, gamma=gamma, normalization=normalization)
    problem = [Problem(star(0), star(1), spec)]
    goal = scipy_best(MatchingObjective(problem))
    values, minimum = ours(MatchingObjective(problem), 40)
    assert goal < 0.2 * values[0]  # SciPy has not simply failed
    assert reached(values, goal) is not None
    assert len(values) == minimum.evaluations[0]  # every evaluation is counted


def test_the_objective_of_deformetrica(data_root):
    """Deformetrica takes 105 evaluations to 209.98."""
    from tests.benchmarks.matching import objective

    if not (data_root / "mandible_pair").is_dir():
        pytest.skip("mandible_pair is not in SHAPEFLOW_DATA")
    values, _ = ours(objective("varifold", "float32"), 120)
    assert values[39] < 210 and values[119] < 184
