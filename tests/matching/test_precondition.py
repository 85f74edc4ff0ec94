"""The model of the Hessian as a preconditioner: what it inverts, what it learns, and what it saves."""

import dataclasses

import pytest
import torch

from shapeflow.attachment.features import FEATURES, centres_and_normals
from shapeflow.matching import MatchingSpec, curvature, precondition
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.ops import Radial
from shapeflow.optimize import minimize
from tests.shapes import circle, ellipsoid, sphere

SPEC = MatchingSpec(sigma=1.0, attachment_widths=(0.4,), steps=4, gamma=1e-2)
PLAIN = 2.0**40  # so large a κ that the metric alone is left


def objective(**changes):
    spec = dataclasses.replace(SPEC, **changes)
    return MatchingObjective([Problem(sphere(2), ellipsoid(), spec), Problem(sphere(1), ellipsoid(), spec)])


def random(shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("normalization", ["none", "sinkhorn", "one_step"])
def test_inverts_the_metric_up_to_the_shift(monkeypatch, normalization):
    """P₀ G p = p − (what the shift takes away); P is symmetric and positive."""
    monkeypatch.setattr(precondition, "START", PLAIN)
    o = objective(normalization=normalization)
    p = random(o.q0.shape)
    smooth = o.metric.field(o.q0, p)[0] if normalization != "none" else o.metric.velocity(o.q0, o.rows, o.q0, p)
    again = o.metric.velocity(o.q0, o.rows, o.q0, o.precondition(smooth))
    # what is lost lies where A < δρ: invisible as velocity
    assert float((again - smooth).norm() / smooth.norm()) < 0.02


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
@pytest.mark.parametrize("attachment", ["varifold", "landmarks"])
def test_inverts_the_model_of_the_hessian(normalization, attachment):
    """With every point picked, P_κ is the inverse of A + δρI + T/κ, T in units of its largest generalized eigenvalue."""
    spec = dataclasses.replace(SPEC, normalization=normalization, attachment=attachment)
    o = MatchingObjective([Problem(sphere(1), ellipsoid(subdivisions=1), spec)])
    hessian = o.hessian()
    hessian.kappa[:] = 0.125
    n, d = o.q0.shape
    units = torch.eye(n * d, dtype=torch.float64).view(-1, n, d)
    p_matrix = torch.stack([o.precondition(u).flatten() for u in units])
    torch.testing.assert_close(p_matrix, p_matrix.T)
    half = torch.ones(n, dtype=torch.float64) if normalization == "none" else o.metric.masses.sqrt()
    velocity = lambda p: o.metric.velocity(o.q0, o.rows, o.q0, p)  # noqa: E731
    metric = torch.stack([(half[:, None] * velocity(half[:, None] * u)).flatten() for u in units])
    metric += hessian.factors[0].shift * torch.eye(n * d)
    basis = lambda x: velocity_matrix(o, x)  # noqa: E731
    t = curvature.stiffness(o.attachment, 0, o.source.points, basis)
    t = (half[:, None, None, None] * t * half[:, None]).reshape(n * d, n * d)
    largest = float(torch.linalg.eigvals(torch.linalg.solve(metric, t)).real.max())
    expected = metric + t / (0.125 * largest)
    both = half.repeat_interleave(d)
    torch.testing.assert_close(p_matrix, both[:, None] * torch.linalg.inv(expected) * both, rtol=1e-6, atol=1e-8)
    assert float(torch.linalg.eigvalsh(p_matrix)[0]) > 0


def velocity_matrix(o, x):
    """(f, n): the velocity at x of a unit momentum at each point, one axis at a time."""
    from shapeflow.ragged import Ragged

    rows, columns = Ragged((0, len(x))), []
    for j in range(len(o.q0)):
        p = torch.zeros_like(o.q0)
        p[j, 0] = 1
        columns.append(o.metric.velocity(x, rows, o.q0, p)[:, 0])
    return torch.stack(columns, 1)


@pytest.mark.parametrize("name", ["measure", "current", "varifold"])
@pytest.mark.parametrize("shape", [sphere(1), circle(12)], ids=["surface", "curve"])
def test_stiffness_is_the_second_derivative_with_features_that_do_not_turn(name, shape):
    spec = dataclasses.replace(SPEC, attachment=name, attachment_widths=(0.4, 0.8), attachment_kernel="cauchy")
    o = MatchingObjective([Problem(shape, shape, spec)])
    c0, normals = centres_and_normals(o.source.points, o.source.simplices)
    f, radial = FEATURES[name](c0, normals), Radial.parse(o.attachment.kernel.radial)

    def moved(coefficients):
        c = c0 + basis @ coefficients
        square = lambda a, b: ((a[:, None] - b) ** 2).sum(-1) / 0.4**2  # noqa: E731
        inner = lambda a, b: (radial.value(square(a, b)) * (f @ f.T)).sum()  # noqa: E731
        return inner(c, c) - 2 * inner(c, c0) + inner(c0, c0)

    basis = random((len(c0), 5))
    t = curvature.stiffness(o.attachment, 0, o.source.points, lambda x: basis)
    d = c0.shape[1]
    exact = torch.autograd.functional.hessian(moved, torch.zeros(5, d, dtype=torch.float64))
    torch.testing.assert_close(t, exact, rtol=1e-8, atol=1e-8 * float(exact.abs().max()))


def test_an_oriented_varifold_is_a_measure_of_places_and_normals():
    """Frozen normals: the Hessian of the same sum over z = (c, ℓu) in the centres alone."""
    from shapeflow.attachment.kernel_norm import parts

    shape = sphere(1)
    o = MatchingObjective([Problem(shape, shape, dataclasses.replace(SPEC, attachment="oriented_varifold"))])
    attachment = o.attachment.parts[0]
    z0, f = parts(attachment.name, o.source.points, attachment.simplices, attachment.cells, attachment.normal_length)
    basis, width = random((len(z0), 4)), float(attachment.kernel.sigma[0])

    def moved(coefficients):
        z = torch.cat([z0[:, :3] + basis @ coefficients, z0[:, 3:]], 1)
        inner = lambda a, b: (torch.exp(-((a[:, None] - b) ** 2).sum(-1) / width**2) * (f @ f.T)).sum()  # noqa: E731
        return inner(z, z) - 2 * inner(z, z0)

    t = curvature.stiffness(o.attachment, 0, o.source.points, lambda x: basis)
    exact = torch.autograd.functional.hessian(moved, torch.zeros(4, 3, dtype=torch.float64))
    torch.testing.assert_close(t, exact, rtol=1e-8, atol=1e-8 * float(exact.abs().max()))


@pytest.mark.parametrize("attachment", ["oriented_varifold", "sinkhorn"])
def test_every_attachment_has_a_stiffness(attachment):
    o = objective(attachment=attachment, attachment_widths=(0.3,), dtype="float32")
    assert all(float(factor.tau.max()) == 1 for factor in o.hessian().factors)


def test_clusters_of_simplices_stand_for_all(monkeypatch):
    """With a kernel wider than a cluster, a quarter of the simplices give the same stiffness to smooth fields."""
    o = objective(attachment_widths=(1.0,))
    basis = lambda x: torch.exp(-torch.cdist(x, o.q0[:6]).square())  # noqa: E731
    every = curvature.stiffness(o.attachment, 0, o.source.points, basis)
    monkeypatch.setattr(curvature, "CELLS", 80)
    some = curvature.stiffness(o.attachment, 0, o.source.points, basis)
    assert float((some - every).norm() / every.norm()) < 0.1


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
def test_learns_how_much_of_the_model_to_believe(normalization):
    """Pairs y = P_κ⁻¹ s of two problems with different κ: each finds its own; a problem without a step keeps what it had."""
    o = objective(normalization=normalization)
    hessian, truth = o.hessian(), torch.tensor([2.0**-5, 4.0], dtype=torch.float64)
    hessian.kappa[:] = truth
    y = random(o.q0.shape)
    s = o.precondition(y)
    hessian.restart()
    o.learn(s, y, torch.tensor([True, True]))
    assert hessian.kappa.tolist() == truth.tolist()
    hessian.restart()
    o.learn(s, y, torch.tensor([False, True]))
    assert hessian.kappa.tolist() == [precondition.START, 4.0]
    assert o.select([1]).hessian().kappa.tolist() == [4.0]


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
def test_a_large_source_goes_through_some_of_its_points(monkeypatch, normalization):
    o = objective(normalization=normalization)
    g = o.metric.velocity(o.q0, o.rows, o.q0, random(o.q0.shape))
    exact = o.precondition(g)
    for name, value in {"EXACT": 80, "WHOLE": 0, "COARSE": 40}.items():
        monkeypatch.setattr(precondition, name, value)
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
