"""The properties of docs/mathematics.md §3: limits, conservation, invariances, exact values. Float64 unless said."""

import math

import pytest
import torch

from shapeflow.errors import ShapeflowError
from shapeflow.hamiltonian import Kernel, Normalization, hamiltonian, metric
from shapeflow.ragged import Ragged
from shapeflow.warm import Warm

D = torch.float64
BACKENDS = ["torch", "native"]


def cloud(n=30, d=2, seed=0, dtype=D):
    g = torch.Generator().manual_seed(seed)
    q, p = (torch.randn(n, d, generator=g, dtype=D) for _ in range(2))
    return q.to(dtype), p.to(dtype), (0.1 + torch.rand(n, generator=g, dtype=D)).to(dtype)


def normalized(q, p, mu, sigma, kernel="gaussian", **more):
    return hamiltonian(q, p, masses=mu, sigma=sigma, kernel=kernel, normalization="sinkhorn", **more)


def metric_of(q, mu, sigma, mode="sinkhorn", kernel="gaussian", backend="native", rows=None, **options):
    layout = rows or Ragged((0, len(q)))
    width = torch.as_tensor(sigma, dtype=q.dtype).expand(layout.count).contiguous()
    return metric(Kernel(kernel, width, backend), layout, mu, Normalization(mode, **options))


TRIANGLE = (
    torch.tensor([[0.0, 0], [1, 0], [0, 1]], dtype=D),
    torch.tensor([[1.0, 0], [0, 1], [-1, 1]], dtype=D),
    torch.tensor([1.0, 2, 3], dtype=D),
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "sigma, value", [(1e-3, 13 / 12), (0.5, 1.038684948472), (1.0, 0.564424821069), (2.0, 0.382708587451), (1e4, 1 / 3)]
)
def test_exact_values_on_three_points(backend, sigma, value):
    # the values are given to 12 digits; the limit σ → ∞ is approached as σ⁻², 2e-9 at σ = 1e4
    assert float(normalized(*TRIANGLE, sigma, backend=backend)) == pytest.approx(
        value, abs=5e-9 if sigma > 100 else 2e-12
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_exact_scaling_velocity_and_force_on_three_points(backend):
    q, p, mu = TRIANGLE
    m = metric_of(q, mu, 1.0, backend=backend)
    v, g = m.field(q, p)
    torch.testing.assert_close(
        m.weights(q).exp(), torch.tensor([0.61368811, 0.60661459, 0.51600422], dtype=D), rtol=0, atol=1e-8
    )
    torch.testing.assert_close(v[0], torch.tensor([0.26011831, 0.25344606], dtype=D), rtol=0, atol=1e-8)
    torch.testing.assert_close(g[0], torch.tensor([-0.1380941, -0.38771689], dtype=D), rtol=0, atol=1e-8)


def test_exact_values_on_two_points():
    q = torch.tensor([[-0.5, 0.0], [0.5, 0.0]], dtype=D, requires_grad=True)
    p, one = torch.tensor([[1.0, 0], [0, 0]], dtype=D), torch.ones(2, dtype=D)
    h = normalized(q, p, one, 1.0)
    (g,) = torch.autograd.grad(h, q)
    assert float(h.detach()) == pytest.approx(1 / (2 * (1 + math.exp(-1))), rel=1e-11)
    assert float(g[0].norm()) == pytest.approx(0.19661193, abs=1e-8)


def test_two_particles_of_unequal_mass():
    """K̃ from H on basis momenta, k = 0.7: c = 0.27923153, K̃₁₁ = (1 − c m₂)/m₁ = 0.44153694."""
    r = math.sqrt(-math.log(0.7))
    q, mu = torch.tensor([[0.0], [r]], dtype=D), torch.tensor([1.0, 2.0], dtype=D)
    entry = lambda *p: float(normalized(q, torch.tensor(p, dtype=D)[:, None], mu, 1.0))  # noqa: E731
    first, second, both = 2 * entry(1.0, 0.0), 2 * entry(0.0, 1.0), 2 * entry(1.0, 1.0)
    assert first == pytest.approx(0.44153694, abs=1e-8)
    assert (both - first - second) / 2 == pytest.approx(0.27923153, abs=1e-8)


@pytest.mark.parametrize(
    "kernel", ["gaussian", "laplacian", "cauchy", "inverse_multiquadric", "energy", "gaussian + 0.5*cauchy@2.0"]
)
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 0.7, 3.0, 1e3])
def test_sandwich_between_translation_and_wasserstein(kernel, sigma):
    q, p, mu = cloud()
    h = float(normalized(q, p, mu, sigma, kernel))
    low = float(p.sum(0).square().sum() / (2 * mu.sum()))
    high = float(0.5 * (p.square().sum(1) / mu).sum())
    assert low * (1 - 1e-9) <= h <= high * (1 + 1e-9)


@pytest.mark.parametrize("kernel, slack", [("gaussian", 1e-9), ("laplacian", 1e-9), ("cauchy", 1e-3)])
def test_limits_of_the_width(kernel, slack):
    """σ = 1e-3 of the shape: Wasserstein. σ = 1e5: translations only. A kernel with a heavy tail arrives there more slowly."""
    q, p, mu = cloud(n=20)
    high = float(0.5 * (p.square().sum(1) / mu).sum())
    low = float(p.sum(0).square().sum() / (2 * mu.sum()))
    assert float(normalized(q, p, mu, 1e-3, kernel)) == pytest.approx(high, rel=slack)
    # ½Σ|p|²/μ weighs what the translation limit lacks; it falls as 1/σ at worst (laplacian)
    assert float(normalized(q, p, mu, 1e6, kernel)) - low <= 1e-4 * high


@pytest.mark.parametrize("dtype, rtol", [(D, 1e-9), (torch.float32, 2e-5)])
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 1.0, 10.0, 1e3])
def test_translations_are_geodesics(dtype, rtol, sigma):
    q, _, mu = cloud(dtype=dtype)
    c = torch.tensor([0.3, -1.2], dtype=dtype)
    p = mu[:, None] * c
    m = metric_of(q, mu, sigma)
    v, g = m.field(q, p)
    torch.testing.assert_close(v, c.expand_as(q), rtol=rtol, atol=rtol)
    assert float(g.abs().max()) <= rtol * float(p.norm()) / min(sigma, 1.0)
    assert float(m.hamiltonian(q, p)) == pytest.approx(float(0.5 * mu.sum() * c.square().sum()), rel=rtol)
    x = torch.randn(7, 2, dtype=dtype) * 3
    torch.testing.assert_close(m.velocity(x, Ragged((0, 7)), q, p), c.expand(7, 2), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("kernel", ["gaussian", "cauchy", "energy"])
def test_momentum_is_mass_times_velocity_in_total(kernel):
    q, p, mu = cloud(seed=3)
    v, g = metric_of(q, mu, 0.8, kernel=kernel).field(q, p)
    torch.testing.assert_close((mu[:, None] * v).sum(0), p.sum(0), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(g.sum(0), torch.zeros(2, dtype=D), rtol=0, atol=1e-9)


def test_invariances():
    q, p, mu = cloud(seed=1)
    h = float(normalized(q, p, mu, 0.7))
    assert float(normalized(q, p, mu, 0.7, "3.5*gaussian")) == pytest.approx(h, rel=1e-9)  # k → a·k
    assert float(normalized(q, 2.5 * p, 2.5 * mu, 0.7)) == pytest.approx(2.5 * h, rel=1e-9)  # (p, μ) → (ap, aμ)
    assert float(normalized(3 * q, p, mu, 2.1)) == pytest.approx(h, rel=1e-9)  # (q, σ) → (sq, sσ)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=D)
    assert float(normalized(q @ turn.T + 5, p @ turn.T, mu, 0.7)) == pytest.approx(h, rel=1e-9)  # rigid motions
    share = torch.tensor([0.3, 0.7], dtype=D)
    split = lambda t: torch.cat([t[:1] * share.view(2, *[1] * (t.ndim - 1)), t[1:]])  # noqa: E731
    again = torch.cat([q[:1], q[:1], q[1:]])
    assert float(normalized(again, split(p), split(mu), 0.7)) == pytest.approx(h, rel=1e-9)  # a particle split in place


def test_one_particle_has_the_kinetic_energy_of_its_mass():
    q, p, mu = torch.zeros(1, 2, dtype=D), torch.tensor([[3.0, 4.0]], dtype=D), torch.tensor([5.0], dtype=D)
    for sigma in (1e-3, 1.0, 1e3):
        assert float(normalized(q, p, mu, sigma)) == pytest.approx(2.5, rel=1e-11)


def test_mass_awareness():
    """One half of a cloud sampled ten times denser, with the same momentum per area: the same velocities after normalization, not before."""
    g = torch.Generator().manual_seed(0)
    q = torch.rand(40, 2, generator=g, dtype=D)
    c = torch.stack([q[:, 1], -q[:, 0]], 1)
    sparse_mu = torch.full((40,), 1 / 40, dtype=D)
    dense_q, dense_c = torch.cat([q[:20].repeat(10, 1), q[20:]]), torch.cat([c[:20].repeat(10, 1), c[20:]])
    dense_mu = torch.cat([torch.full((200,), 1 / 400, dtype=D), sparse_mu[20:]])
    x, rows = q, Ragged((0, 40))
    fields = {}
    for mode in ("sinkhorn", "none"):
        for name, (points, mu, rate) in {"even": (q, sparse_mu, c), "uneven": (dense_q, dense_mu, dense_c)}.items():
            # without normalization every vertex counts one, whatever its share of the area
            p = mu[:, None] * rate if mode == "sinkhorn" else rate
            fields[mode, name] = metric_of(points, mu, 0.3, mode).velocity(x, rows, points, p)
    torch.testing.assert_close(fields["sinkhorn", "uneven"], fields["sinkhorn", "even"], rtol=1e-9, atol=1e-10)
    assert float((fields["none", "uneven"] - fields["none", "even"]).norm()) > float(fields["none", "even"].norm())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["none", "sinkhorn", "sinkhorn_unrolled", "one_step"])
def test_gradients_are_exact(backend, mode):
    q, p, mu = cloud(n=9)
    q.requires_grad_()
    p.requires_grad_()
    call = lambda q, p: hamiltonian(q, p, masses=mu, sigma=0.8, normalization=mode, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(call, (q, p), rtol=1e-7, atol=1e-9)
    assert torch.autograd.gradgradcheck(call, (q, p), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("mode", ["none", "sinkhorn", "sinkhorn_unrolled", "one_step"])
def test_the_field_is_the_gradient_of_the_hamiltonian_on_and_off_the_support(mode):
    rows = Ragged((0, 12, 30))
    q, p, mu = cloud(d=3)
    m = metric_of(q, mu, torch.tensor([0.5, 1.5]), mode, rows=rows)
    leaf_q, leaf_p = q.clone().requires_grad_(), p.clone().requires_grad_()
    g, v = torch.autograd.grad(m.hamiltonian(leaf_q, leaf_p).sum(), (leaf_q, leaf_p))
    field_v, field_g = m.field(q, p)
    torch.testing.assert_close(field_v, v)
    torch.testing.assert_close(field_g, g)
    torch.testing.assert_close(m.velocity(q.clone(), rows, q, p), v, rtol=1e-9, atol=1e-10)
    assert torch.autograd.gradcheck(lambda a, b: m.field(a, b), (leaf_q, leaf_p), rtol=1e-7, atol=1e-8)
    x = torch.randn(5, 3, dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, a, b: m.velocity(x, Ragged((0, 2, 5)), a, b), (x, leaf_q, leaf_p), rtol=1e-7, atol=1e-8
    )


def test_a_warm_start_changes_the_work_and_not_the_result():
    q, p, mu = cloud()
    m = metric_of(q, mu, 0.6)
    warm = Warm()
    m.field(q + 0.01 * p, p, warm)
    for cold, warmed in zip(m.field(q, p), m.field(q, p, warm), strict=True):
        torch.testing.assert_close(warmed, cold, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_points_far_from_the_support_follow_the_nearest_particle(dtype):
    q, p, mu = cloud(dtype=dtype)
    x = q[:3] + 1e3
    v = metric_of(q, mu, 0.1).velocity(x, Ragged((0, 3)), q, p)
    nearest = torch.cdist(x, q).argmin(1)
    torch.testing.assert_close(v, p[nearest] / mu[nearest, None])


def test_a_stopped_scaling_is_logged(caplog):
    q, p, mu = cloud()
    metric_of(q, mu, 0.5, max_iterations=2).field(q, p)
    assert "Sinkhorn scaling stopped after 2 steps" in caplog.text


@pytest.mark.parametrize(
    "change, said",
    [
        ({"masses": torch.ones(3, dtype=D)}, "30 positive numbers"),
        ({"masses": torch.zeros(30, dtype=D)}, "positive"),
        ({"p": torch.zeros(30, 3, dtype=D)}, r"both be \(n, d\)"),
        ({"normalization": "sinkorn"}, "unknown normalization 'sinkorn'"),
    ],
)
def test_refusals(change, said):
    q, p, mu = cloud()
    arguments = {"q": q, "p": p, "masses": mu, "sigma": 1.0} | change
    with pytest.raises(ShapeflowError, match=said):
        hamiltonian(arguments.pop("q"), arguments.pop("p"), **arguments)
