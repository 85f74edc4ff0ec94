"""Geodesics: what is conserved, how fast the schemes converge, exact distances, the flow's Jacobian and its inverse."""

import pytest
import torch

from shapeflow.flow import jacobian_determinants, pull_back, velocity_gradient
from shapeflow.hamiltonian import Kernel, Normalization, metric
from shapeflow.integrators import SCHEMES
from shapeflow.ragged import Ragged
from shapeflow.shooting import Carried, _compiled, shoot

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


def test_a_translation_moves_everything_it_carries_by_the_same_vector():
    m, q, _ = problem()
    c = torch.tensor([0.7, -0.3], dtype=D)
    x = torch.randn(6, 2, dtype=D) * 2
    end = shoot(m, q, m.masses[:, None] * c, steps=4, integrator="euler", carried=(Carried(x, Ragged((0, 6))),))
    torch.testing.assert_close(end.q, q + c, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(end.carried[0], x + c, rtol=1e-9, atol=1e-9)


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


def compiled_setting(backend, dtype=D, sizes=(13, 0, 1, 30), d=3):
    g = torch.Generator().manual_seed(3)
    rows = Ragged.of_sizes(sizes)
    q, p, V, h, s = (torch.randn(rows.total, d, generator=g, dtype=D).to(dtype) for _ in range(5))
    sigma = torch.linspace(0.6, 1.4, rows.count, dtype=D).to(dtype)
    m = metric(Kernel("0.7*gaussian + 0.3*cauchy@2.0", sigma, backend), rows, torch.ones_like(q[:, 0]), Normalization())
    return m, q.requires_grad_(), (p / 20).requires_grad_(), (V, h, s)


@pytest.mark.parametrize("integrator", list(SCHEMES))
@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_geodesic_in_one_call_is_the_one_field_by_field(integrator, d):
    """kernels/shooting.cpp against the loop in Python, ends and gradients, on a ragged batch with an empty problem."""
    found = []
    for backend in ("native", "torch"):
        m, q, p, cotangents = compiled_setting(backend, d=d)
        end = shoot(m, q, p, steps=3, integrator=integrator)
        found.append(
            (end.q, end.p, end.velocity, *torch.autograd.grad((end.q, end.p, end.velocity), (q, p), cotangents))
        )
        with torch.no_grad():
            assert torch.equal(shoot(m, q, p, steps=3, integrator=integrator).q, end.q)  # without a tape
    assert _compiled(*compiled_setting("native")[:2]) is not None and _compiled(*compiled_setting("torch")[:2]) is None
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_a_geodesic_has_the_same_bits_on_any_number_of_threads(dtype):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            m, q, p, cotangents = compiled_setting("native", dtype, (300, 5))
            end = shoot(m, q, p, steps=4)
            found.append((end.q, end.p, *torch.autograd.grad((end.q, end.p, end.velocity), (q, p), cotangents)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_lost_problem_does_not_reach_the_others():
    m, q, p, _ = compiled_setting("native")
    spoiled = q.detach().clone()
    spoiled[-1, 0] = torch.inf
    lost, whole = shoot(m, spoiled, p, steps=2).q, shoot(m, q, p, steps=2).q
    assert lost[14:].isnan().all() and torch.equal(lost[:14], whole[:14])
