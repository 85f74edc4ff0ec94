"""What must hold of the normalized Hamiltonian (docs/mathematics.md §3), over random shapes, wherever it is computed.

Float64 to 1e-9. Float32 to 2e-5: the scaling is solved to 2e-6, and a force is a difference that loses a digit of it. Exact numbers were given to
8 or 12 digits. Tests of a CUDA device are marked gpu.
"""

import math
from typing import NamedTuple

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq

from shapeflow.hamiltonian import Kernel, Normalization, hamiltonian, metric
from shapeflow.ragged import Ragged
from shapeflow.shooting import Carried, shoot
from tests.shapes import circle, cloud, ellipsoid, open_patch

KERNELS = ["gaussian", "laplacian", "cauchy", "inverse_multiquadric", "energy", "0.5*gaussian + 0.5*cauchy@2.0"]
MODES = ["none", "sinkhorn", "sinkhorn_unrolled", "one_step"]
RTOL = {torch.float64: 1e-9, torch.float32: 2e-5}


class Where(NamedTuple):
    device: str
    backend: str
    dtype: torch.dtype

    @property
    def rtol(self) -> float:
        return RTOL[self.dtype]

    def tensor(self, values) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float64).to(self.device, self.dtype)

    def close(self, got, want, scale: float = 1.0) -> None:
        want = torch.as_tensor(want).to(got).expand_as(got)
        torch.testing.assert_close(got, want, rtol=self.rtol, atol=self.rtol * scale)


_ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]


def _everywhere(dtypes):
    for device, backend in (("cpu", "native"), ("cpu", "torch"), ("cuda", "native")):
        for dtype in dtypes:
            name = f"{device}-{backend}-{str(dtype).removeprefix('torch.')}"
            yield pytest.param(Where(device, backend, dtype), id=name, marks=_ON_GPU if device == "cuda" else [])


@pytest.fixture(params=_everywhere(RTOL))
def where(request) -> Where:
    return request.param


@pytest.fixture(params=_everywhere([torch.float64]))
def exactly(request) -> Where:
    return request.param


SHAPES = {
    "planar points": lambda seed: cloud(30, 2, seed),
    "points": lambda seed: cloud(25, 3, seed),
    "curve": lambda seed: circle(24, 1.0 + 0.1 * seed),
    "closed surface": lambda seed: ellipsoid((1.3, 1.0, 0.5 + 0.1 * seed), subdivisions=1),
    "open surface": lambda seed: open_patch(5),
}


@pytest.fixture(params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def sample(request, where):
    """q, p, μ: vertices shaken by a tenth, momenta of random direction and size, and masses spread over a factor of ten."""
    name, seed = request.param, list(SHAPES).index(request.param)
    g = torch.Generator().manual_seed(seed)
    shape = SHAPES[name](seed)
    q = torch.as_tensor(shape.points)
    q = q + 0.1 * torch.randn(q.shape, generator=g, dtype=torch.float64)
    mu = torch.as_tensor(shape.masses()) * (0.1 + 0.9 * torch.rand(len(q), generator=g, dtype=torch.float64))
    p = mu[:, None] * torch.randn(q.shape, generator=g, dtype=torch.float64)
    return tuple(where.tensor(t) for t in (q, p, mu))


def of(where: Where, q, mu, sigma, mode="sinkhorn", kernel="gaussian"):
    width = where.tensor([sigma])
    return metric(Kernel(kernel, width, where.backend), Ragged((0, len(q))), mu, Normalization(mode))


def energy(where: Where, q, p, mu, sigma, kernel="gaussian") -> float:
    return float(
        hamiltonian(q, p, masses=mu, sigma=sigma, kernel=kernel, normalization="sinkhorn", backend=where.backend)
    )


def bounds(p, mu) -> tuple[float, float]:
    p, mu = p.double(), mu.double()
    return float(p.sum(0).square().sum() / (2 * mu.sum())), float(0.5 * (p.square().sum(1) / mu).sum())


@pytest.mark.parametrize("kernel", KERNELS)
def test_1_sandwich(where, sample, kernel):
    q, p, mu = sample
    low, high = bounds(p, mu)
    for sigma in (1e-3, 0.3, 1e3):
        h = energy(where, q, p, mu, sigma, kernel)
        assert low * (1 - where.rtol) - where.rtol * high <= h <= high * (1 + where.rtol)


def test_1_limits(where, sample):
    """σ a thousandth of the shape: Wasserstein. A thousand times the shape: translations, which a gaussian approaches as σ⁻²."""
    q, p, mu = sample
    low, high = bounds(p, mu)
    assert energy(where, q, p, mu, 1e-3) == pytest.approx(high, rel=where.rtol)
    assert energy(where, q, p, mu, 1e3) == pytest.approx(low, abs=2e-5 * high)
    if where.dtype == torch.float64:
        assert energy(where, q, p, mu, 1e6) == pytest.approx(low, abs=1e-9 * high)


@pytest.mark.parametrize("sigma", [1e-3, 0.3, 1.0, 1e3])
def test_2_translations(where, sample, sigma):
    q, _, mu = sample
    c = where.tensor([0.3, -1.2, 0.7][: q.shape[1]])
    p = mu[:, None] * c
    m = of(where, q, mu, sigma)
    v, force = m.field(q, p)
    where.close(v, c)
    # ∂H/∂q has the unit |p||v|/σ
    assert float(force.abs().max()) <= where.rtol * float(p.norm() * c.norm()) / min(sigma, 1.0)
    want = 0.5 * float(mu.double().sum() * c.double().square().sum())
    assert float(m.hamiltonian(q, p)) == pytest.approx(want, rel=where.rtol)
    x = 2 * q[:7] + 0.1
    where.close(m.velocity(x, Ragged((0, len(x))), q, p), c)
    rows = Ragged((0, len(x)))
    for steps in (1, 4):
        end = shoot(m, q, p, steps=steps, integrator="euler", carried=(Carried(x, rows),))
        # in single precision the force's rounding is carried on
        where.close(end.q, q + c, scale=4)
        where.close(end.carried[0], x + c, scale=4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_3_momentum_is_mass_times_velocity(where, sample, kernel):
    q, p, mu = sample
    for sigma in (0.05, 0.7):
        v, force = of(where, q, mu, sigma, kernel=kernel).field(q, p)
        where.close((mu[:, None] * v).sum(0), p.sum(0), scale=float(p.norm()))
        where.close(force.sum(0), torch.zeros_like(p[0]), scale=float(force.norm()))


@pytest.mark.parametrize("integrator", ["euler", "ralston", "rk4"])
def test_3_barycentres_move_straight(where, sample, integrator):
    q, p, mu = sample
    m = of(where, q, mu, 0.7)
    path = shoot(m, q, p, steps=5, integrator=integrator, keep_path=True).path
    start, speed = (mu[:, None] * q).sum(0) / mu.sum(), p.sum(0) / mu.sum()
    for k, (at, _) in enumerate(path):
        where.close((mu[:, None] * at).sum(0) / mu.sum(), start + k / 5 * speed)


def test_4_invariances(where, sample):
    q, p, mu = sample
    h = energy(where, q, p, mu, 0.7)
    same = {"rel": 2 * where.rtol}
    assert energy(where, q, p, mu, 0.7, "3.5*gaussian") == pytest.approx(h, **same)
    assert energy(where, q, 2.5 * p, 2.5 * mu, 0.7) == pytest.approx(2.5 * h, **same)
    assert energy(where, 3 * q, p, mu, 2.1) == pytest.approx(h, **same)
    assert energy(where, 1e3 * q, p, mu, 7e2) == pytest.approx(h, **same)
    turn = torch.linalg.qr(
        torch.randn(2 * [q.shape[1]], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    )[0].to(q)
    assert energy(where, q @ turn.T + 1, p @ turn.T, mu, 0.7) == pytest.approx(h, **same)
    share = where.tensor([0.3, 0.7])[:, None]
    again, parts = torch.cat([q[:1], q]), torch.cat([share * p[:1], p[1:]])
    weights = torch.cat([share[:, 0] * mu[:1], mu[1:]])
    assert energy(where, again, parts, weights, 0.7) == pytest.approx(h, **same)  # a particle split in place


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 1e3])
def test_5_one_particle(where, sigma):
    h = energy(where, where.tensor([[0.2, -0.4]]), where.tensor([[3.0, 4.0]]), where.tensor([5.0]), sigma)
    assert h == pytest.approx(2.5, rel=where.rtol)


def test_6_two_particles_of_unequal_mass(where):
    """K̃ from H on basis momenta, at k = 0.7."""
    q, mu = where.tensor([[0.0], [math.sqrt(-math.log(0.7))]]), where.tensor([1.0, 2.0])
    first, second, both = (
        2 * energy(where, q, where.tensor(p)[:, None], mu, 1.0) for p in ([1.0, 0], [0, 1.0], [1.0, 1])
    )
    k = 0.7
    c = 2 * k / (3 * k + math.sqrt(k**2 + 8))
    assert first == pytest.approx(1 - 2 * c, rel=2 * where.rtol)
    assert (both - first - second) / 2 == pytest.approx(c, rel=4 * where.rtol)
    assert (c, 1 - 2 * c) == pytest.approx((0.27923153, 0.44153694), abs=1e-8)


def test_7_two_equal_particles(where):
    q = where.tensor([[-0.5, 0], [0.5, 0]]).requires_grad_()
    h = hamiltonian(q, where.tensor([[1.0, 0], [0, 0]]), masses=where.tensor([1.0, 1.0]), sigma=1.0, normalization="sinkhorn",
                    backend=where.backend)  # fmt: skip
    (force,) = torch.autograd.grad(h, q)
    e = math.exp(-1)
    assert float(h.detach()) == pytest.approx(1 / (2 * (1 + e)), rel=where.rtol)
    # H = 1/(2(1 + k)) with k = exp(−r²) and dk/dr = −2k at r = 1
    assert float(force[0].norm()) == pytest.approx(e / (1 + e) ** 2, rel=where.rtol)
    assert e / (1 + e) ** 2 == pytest.approx(0.19661193, abs=1e-8)


@pytest.mark.parametrize(
    "sigma, value", [(1e-3, 13 / 12), (0.5, 1.038684948472), (1.0, 0.564424821069), (2.0, 0.382708587451), (1e5, 1 / 3)]
)
def test_8_three_particles(where, sigma, value):
    q, p = where.tensor([[0.0, 0], [1, 0], [0, 1]]), where.tensor([[1.0, 0], [0, 1], [-1, 1]])
    mu = where.tensor([1.0, 2, 3])
    assert energy(where, q, p, mu, sigma) == pytest.approx(value, rel=where.rtol)
    if sigma == 1.0:
        m = of(where, q, mu, sigma)
        v, force = m.field(q, p)
        loose = {"rtol": where.rtol, "atol": max(where.rtol, 6e-9)}  # given to 8 digits
        torch.testing.assert_close(m.weights(q).exp(), where.tensor([0.61368811, 0.60661459, 0.51600422]), **loose)
        torch.testing.assert_close(v[0], where.tensor([0.26011831, 0.25344606]), **loose)
        torch.testing.assert_close(
            force[0], where.tensor([-0.1380941, -0.38771689]), rtol=where.rtol, atol=max(where.rtol, 6e-8)
        )


@pytest.mark.parametrize("mode, distance", [("sinkhorn", 0.81617859), ("none", 0.76464745)])
def test_9_two_parting_masses(exactly, mode, distance):
    """From r = 1 to r = 2: ds² = ½ r'² (1 + k)/(1 − k) normalized, ½ r'²/(1 − k) without, k = exp(−r²)."""

    def speed(r):
        k = math.exp(-r * r)
        return math.sqrt(0.5 * (1 + k if mode == "sinkhorn" else 1) / (1 - k))

    length = quad(speed, 1, 2, epsabs=1e-13)[0]
    assert length == pytest.approx(distance, abs=6e-9)
    q, one = exactly.tensor([[-0.5], [0.5]]), exactly.tensor([1.0, 1.0])
    m = of(exactly, q, one, 1.0, mode)

    def miss(strength):
        end = shoot(m, q, exactly.tensor([[-strength], [strength]]), steps=60, integrator="rk4").q
        return float(end[1] - end[0]) - 2

    root = brentq(miss, 0.4, 1.2, xtol=1e-12)
    h = float(m.hamiltonian(q, exactly.tensor([[-root], [root]])))
    assert math.sqrt(2 * h) == pytest.approx(length, rel=5e-9)  # what sixty steps leave


@pytest.mark.parametrize("mode", ["none", "sinkhorn"])
@pytest.mark.parametrize("integrator, order", [("euler", 1), ("midpoint", 2), ("ralston", 2), ("rk4", 4)])
def test_10_order_of_the_integrators(exactly, mode, integrator, order):
    g = torch.Generator().manual_seed(0)
    q, mu = torch.randn(12, 2, generator=g, dtype=torch.float64), torch.full((12,), 1 / 12, dtype=torch.float64)
    p = 1.5 * torch.randn(12, 2, generator=g, dtype=torch.float64) / 12
    q, p, mu = (exactly.tensor(t) for t in (q, p, mu))
    m = of(exactly, q, mu, 0.8, mode)
    exact = shoot(m, q, p, steps=128, integrator="rk4").q
    coarse, fine = (float((shoot(m, q, p, steps=k, integrator=integrator).q - exact).norm()) for k in (12, 24))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("integrator", ["euler", "ralston", "rk4"])
@pytest.mark.parametrize("passengers", [False, True])
def test_11_adjoint_of_the_shooting(exactly, mode, integrator, passengers):
    """∇ of a function of q(1), p(1) and carried points, in q(0), p(0): to 1e-8 of finite differences of fourth order."""
    g = torch.Generator().manual_seed(1)
    shape = ellipsoid(subdivisions=0)
    q, mu = exactly.tensor(shape.points), exactly.tensor(shape.masses())
    p = 0.5 * mu[:, None] * exactly.tensor(torch.randn(q.shape, generator=g, dtype=torch.float64))
    w, x = (exactly.tensor(torch.randn(q.shape, generator=g, dtype=torch.float64)) for _ in range(2))
    m = of(exactly, q, mu, 0.7, mode)

    def end(q, p):
        out = shoot(m, q, p, steps=3, integrator=integrator, carried=(Carried(x, m.rows),) if passengers else ())
        total = (w * out.q).sum() + (w.roll(1, 0) * out.p).sum()
        return total + (w.flip(0) * out.carried[0]).sum() if passengers else total

    q, p = q.requires_grad_(), p.requires_grad_()
    exact = torch.autograd.grad(end(q, p), (q, p))
    with torch.no_grad():
        uq, up = (exactly.tensor(torch.randn(q.shape, generator=g, dtype=torch.float64)) for _ in range(2))
        h = 1e-3
        line = [float(end(q + t * h * uq, p + t * h * up)) for t in (-3, -2, -1, 1, 2, 3)]
        slope = (-line[0] + 9 * line[1] - 45 * line[2] + 45 * line[3] - 9 * line[4] + line[5]) / (60 * h)
        along = float((exact[0] * uq).sum() + (exact[1] * up).sum())
        assert along == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sigma", [1e-3, 1e3])
def test_12_extreme_widths_are_finite(where, sample, mode, sigma):
    """Geodesic, carried points and gradient at widths of a thousandth of the shape and a thousand times it."""
    q, p, mu = sample
    m = of(where, q, mu, sigma, mode)
    q, p = q.requires_grad_(), p.requires_grad_()
    rows = Ragged((0, 5))
    end = shoot(m, q, p, steps=2, carried=(Carried(2 * q[:5].detach() + 1, rows),))
    total = end.q.square().sum() + end.p.square().sum() + end.carried[0].square().sum()
    for gradient in (total, *torch.autograd.grad(total, (q, p))):
        assert bool(torch.isfinite(gradient).all())
