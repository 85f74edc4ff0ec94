"""Geodesics: what is conserved, how fast the schemes converge, exact distances, the flow's Jacobian and its inverse."""

import math

import pytest
import torch
from scipy.optimize import brentq

from shapeflow.flow import jacobian_determinants, pull_back, velocity_gradient
from shapeflow.hamiltonian import Kernel, Normalization, metric
from shapeflow.ragged import Ragged
from shapeflow.shooting import Carried, shoot

D = torch.float64
MODES = ["none", "sinkhorn", "sinkhorn_unrolled", "one_step"]


def problem(mode="sinkhorn", n=20, d=2, sigma=0.8, seed=0, strength=0.5):
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(n, d, generator=g, dtype=D)
    mu = 0.5 + torch.rand(n, generator=g, dtype=D)
    mu = mu / mu.sum()
    p = strength * torch.randn(n, d, generator=g, dtype=D) * (mu[:, None] if mode != "none" else 1 / n)
    rows = Ragged((0, n))
    return metric(Kernel("gaussian", torch.full((1,), sigma, dtype=D), "native"), rows, mu, Normalization(mode)), q, p


@pytest.mark.parametrize("mode", MODES)
def test_energy_and_momenta_are_conserved(mode):
    m, q, p = problem(mode)
    end = shoot(m, q, p, steps=40, integrator="rk4")
    # RK4 at h = 1/40: the error of H is of order h⁴ = 4e-7 times the flow's fifth derivative; the two momenta are linear and quadratic invariants
    assert float(m.hamiltonian(end.q, end.p)) == pytest.approx(float(m.hamiltonian(q, p)), rel=1e-6)
    torch.testing.assert_close(end.p.sum(0), p.sum(0), rtol=1e-9, atol=1e-10)
    wedge = lambda q, p: (q[:, 0] * p[:, 1] - q[:, 1] * p[:, 0]).sum()  # noqa: E731
    torch.testing.assert_close(wedge(end.q, end.p), wedge(q, p), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("integrator, order", [("euler", 1), ("midpoint", 2), ("ralston", 2), ("rk4", 4)])
def test_order_of_the_integrators(integrator, order):
    m, q, p = problem(strength=2.0)
    exact = shoot(m, q, p, steps=256, integrator="rk4").q
    coarse, fine = (float((shoot(m, q, p, steps=k, integrator=integrator).q - exact).norm()) for k in (16, 32))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("integrator", ["euler", "ralston", "rk4"])
def test_the_barycentre_moves_in_a_straight_line_under_any_scheme(integrator):
    m, q, p = problem(strength=3.0)
    path = shoot(m, q, p, steps=5, integrator=integrator, keep_path=True).path
    mu = m.masses[:, None]
    start, speed = (mu * q).sum(0) / mu.sum(), p.sum(0) / mu.sum()
    for k, (qk, _) in enumerate(path):
        torch.testing.assert_close((mu * qk).sum(0) / mu.sum(), start + k / 5 * speed, rtol=1e-9, atol=1e-9)


def test_a_translation_moves_everything_it_carries_by_the_same_vector():
    m, q, _ = problem()
    c = torch.tensor([0.7, -0.3], dtype=D)
    x = torch.randn(6, 2, dtype=D) * 2
    end = shoot(m, q, m.masses[:, None] * c, steps=4, integrator="euler", carried=(Carried(x, Ragged((0, 6))),))
    torch.testing.assert_close(end.q, q + c, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(end.carried[0], x + c, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode, distance", [("sinkhorn", 0.81617859), ("none", 0.76464745)])
def test_geodesic_distance_of_two_parting_masses(mode, distance):
    """From r = 1 to r = 2 at σ = 1: p = (−P, P) with P found as a root, distance √(2H)."""
    q = torch.tensor([[-0.5], [0.5]], dtype=D)
    m = metric(
        Kernel("gaussian", torch.ones(1, dtype=D), "native"),
        Ragged((0, 2)),
        torch.ones(2, dtype=D),
        Normalization(mode),
    )

    def end(P):
        p = torch.tensor([[-P], [P]], dtype=D)
        out = shoot(m, q, p, steps=50, integrator="rk4").q
        return float(out[1] - out[0]), math.sqrt(2 * float(m.hamiltonian(q, p)))

    root = brentq(lambda P: end(P)[0] - 2, 0.1, 3.0, xtol=1e-12)
    assert end(root)[1] == pytest.approx(distance, abs=2e-8)


@pytest.mark.parametrize("mode", MODES)
def test_points_carried_from_the_support_stay_on_it(mode):
    m, q, p = problem(mode)
    end = shoot(m, q, p, steps=6, carried=(Carried(q.clone(), m.rows),))
    torch.testing.assert_close(end.carried[0], end.q, rtol=1e-9, atol=1e-9)


def test_a_batch_is_its_problems_one_by_one():
    singles = [problem(n=n, sigma=s, seed=n) for n, s in ((12, 0.5), (1, 1.0), (20, 1.5))]
    rows = Ragged.of_sizes(len(q) for _, q, _ in singles)
    whole = metric(
        Kernel("gaussian", torch.tensor([0.5, 1.0, 1.5], dtype=D), "native"),
        rows,
        torch.cat([m.masses for m, _, _ in singles]),
        Normalization("sinkhorn"),
    )
    end = shoot(whole, torch.cat([q for _, q, _ in singles]), torch.cat([p for _, _, p in singles]), steps=5)
    torch.testing.assert_close(
        end.q, torch.cat([shoot(m, q, p, steps=5).q for m, q, p in singles]), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("mode", MODES)
def test_adjoint_of_the_shooting_against_finite_differences(mode):
    """MATH asks for 1e-8: central differences of step 1e-5 in float64 are good to about 1e-10 of the value here."""
    m, q, p = problem(mode, n=8)
    w = torch.randn(8, 2, dtype=D)

    def end(q, p):
        out = shoot(m, q, p, steps=3, carried=(Carried(q * 1.1, m.rows),))
        return (w * out.q).sum() + (out.carried[0] * w.flip(0)).sum() + (out.p * w).sum()

    q, p = q.requires_grad_(), p.requires_grad_()
    exact = torch.autograd.grad(end(q, p), (q, p))
    with torch.no_grad():
        for k in range(3):
            g = torch.Generator().manual_seed(k)
            uq, up = (torch.randn(8, 2, generator=g, dtype=D) for _ in range(2))
            h = 1e-4
            line = [float(end(q + t * h * uq, p + t * h * up)) for t in (-2, -1, 1, 2)]
            slope = (line[0] - 8 * line[1] + 8 * line[2] - line[3]) / (12 * h)
            along = float((exact[0] * uq).sum() + (exact[1] * up).sum())
            assert along == pytest.approx(slope, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("mode", ["none", "sinkhorn"])
def test_jacobian_is_that_of_the_discrete_flow(mode):
    m, q, p = problem(mode, strength=2.0)
    x = torch.randn(4, 2, dtype=D)

    def flow(x):
        return shoot(m, q, p, steps=3, integrator="ralston", carried=(Carried(x, Ragged((0, len(x)))),)).carried[0]

    want = torch.stack(
        [torch.linalg.det(torch.autograd.functional.jacobian(lambda y: flow(y[None])[0], point)) for point in x]
    )
    got = jacobian_determinants(m, q, p, steps=3, integrator="ralston", at=Carried(x, Ragged((0, 4))))
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)


def test_folding_is_seen():
    """One Euler step of two particles thrown past each other: the discrete map turns over, and its determinant is negative."""
    q, p = torch.tensor([[-0.3], [0.3]], dtype=D), torch.tensor([[3.0], [-3.0]], dtype=D)
    m = metric(
        Kernel("gaussian", torch.ones(1, dtype=D), "native"),
        Ragged((0, 2)),
        torch.ones(2, dtype=D),
        Normalization("none"),
    )
    middle = Carried(torch.zeros(1, 1, dtype=D), Ragged((0, 1)))
    assert float(jacobian_determinants(m, q, p, steps=1, integrator="euler", at=middle)) < 0


def test_velocity_gradient_has_rows_of_components():
    m, q, p = problem()
    x = torch.randn(3, 2, dtype=D)
    v, gradient = velocity_gradient(m, x, Ragged((0, 3)), q, p)
    h = torch.tensor([1e-6, 0.0], dtype=D)
    slope = (m.velocity(x + h, Ragged((0, 3)), q, p) - v) / 1e-6
    torch.testing.assert_close(gradient[:, :, 0], slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["none", "sinkhorn"])
def test_the_way_back(mode):
    m, q, p = problem(mode)
    x = Carried(torch.randn(5, 2, dtype=D), Ragged((0, 5)))
    end = shoot(m, q, p, steps=20, integrator="rk4", carried=(x,))
    back = pull_back(m, end.q, end.p, Carried(end.carried[0], x.rows), steps=20, integrator="rk4")
    torch.testing.assert_close(back, x.points, rtol=0, atol=1e-6)
