"""The inverse metric as a preconditioner: what it inverts, and what it saves."""

import dataclasses

import pytest
import torch

from shapeflow.matching import MatchingSpec, precondition
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.optimize import minimize
from tests.shapes import ellipsoid, sphere

SPEC = MatchingSpec(sigma=1.0, attachment_widths=(0.4,), steps=4, gamma=1e-2)


def objective(**changes):
    spec = dataclasses.replace(SPEC, **changes)
    return MatchingObjective([Problem(sphere(2), ellipsoid(), spec), Problem(sphere(1), ellipsoid(), spec)])


@pytest.mark.parametrize("normalization", ["none", "sinkhorn", "one_step"])
def test_inverts_the_metric_up_to_the_shift(normalization):
    """P G p = p − (what the shift takes away), and P is symmetric positive."""
    o = objective(normalization=normalization)
    p = torch.randn(o.q0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    smooth = o.metric.field(o.q0, p)[0] if normalization != "none" else o.metric.velocity(o.q0, o.rows, o.q0, p)
    back = o.precondition(smooth)
    again = o.metric.velocity(o.q0, o.rows, o.q0, back)
    # what is lost lies where A < δρ: invisible as velocity
    assert float((again - smooth).norm() / smooth.norm()) < 0.02
    other = torch.randn(p.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert float((o.precondition(p) * other).sum()) == pytest.approx(float((o.precondition(other) * p).sum()), rel=1e-8)
    assert float((o.precondition(p) * p).sum()) > 0


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
def test_a_large_source_goes_through_some_of_its_points(monkeypatch, normalization):
    o = objective(normalization=normalization)
    g = o.metric.velocity(
        o.q0, o.rows, o.q0, torch.randn(o.q0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    exact = o.precondition(g)
    monkeypatch.setattr(precondition, "EXACT", 80)
    reduced = objective(normalization=normalization).precondition(g)
    velocity = lambda p: o.metric.velocity(o.q0, o.rows, o.q0, p)  # noqa: E731
    assert float((velocity(reduced) - velocity(exact)).norm() / velocity(exact).norm()) < 0.05
    assert float((reduced * g).sum()) > 0


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
def test_saves_more_than_half_of_the_evaluations(monkeypatch, normalization):
    start = objective(normalization=normalization)
    fast = minimize(start, torch.zeros_like(start.q0), max_evaluations=12, tolerance=0.0)
    monkeypatch.setattr(MatchingObjective, "precondition", lambda self, g: g)
    slow = minimize(
        objective(normalization=normalization), torch.zeros_like(start.q0), max_evaluations=24, tolerance=0.0
    )
    assert bool((fast.value < slow.value).all())
