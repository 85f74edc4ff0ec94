"""Skipping far blocks: the same sums to rounding, NaN still everywhere it belongs, and only where it pays."""

from __future__ import annotations

import math

import pytest
import torch
from kernel_cases import TOLERANCE, call, case, error, reference

from shapeflow.errors import BackendError
from shapeflow.ops.backends import native_cpu, nearby
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged

ROWS, COLUMNS = (1500, 0, 1, 700), (2600, 5, 300, 900)


def small_widths(kernel: str, dtype: torch.dtype, sigma: float, d: int = 3):
    tensors, problem = case(kernel, d=d, dtype=dtype, rows=ROWS, columns=COLUMNS)
    return tensors, Problem(problem.radial, torch.full_like(problem.sigma, sigma), problem.rows, problem.columns)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("op", ["product", "fused", "tangent"])
@pytest.mark.parametrize(
    ("kernel", "sigma"), [("gaussian", 0.03), ("laplacian", 0.008), ("0.5*gaussian + 2.0*gaussian@2.0", 0.02)]
)
def test_equals_the_oracle(kernel, sigma, op, dtype, monkeypatch):
    monkeypatch.setenv("SHAPEFLOW_NEARBY", "1")
    tensors, problem = small_widths(kernel, dtype, sigma)
    # Twice the usual: at these widths |log k| reaches 16, and with it the rounding of the exponent.
    assert error(call(native_cpu, op, tensors, problem), reference(op, tensors, problem)) < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("d", [1, 2, 5])
def test_dimensions(d, monkeypatch):
    monkeypatch.setenv("SHAPEFLOW_NEARBY", "1")
    tensors, problem = small_widths("gaussian", torch.float64, 0.05, d)
    assert (
        error(call(native_cpu, "fused", tensors, problem), reference("fused", tensors, problem))
        < TOLERANCE[torch.float64]
    )


@pytest.mark.parametrize(
    ("name", "index", "touched"),
    [("y", 2700, slice(1500, 1501)), ("b", 2700, slice(1500, 1501)), ("x", 1600, slice(1600, 1601))],
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nonfinite_is_not_skipped(name, index, touched, bad, monkeypatch):
    """A bad value in a far block still reaches every row of its problem."""
    monkeypatch.setenv("SHAPEFLOW_NEARBY", "1")
    tensors, problem = small_widths("gaussian", torch.float32, 0.02)
    tensors[name][index, -1] = bad
    (v,) = call(native_cpu, "product", tensors, problem)
    expected = torch.zeros(v.shape[0], dtype=torch.bool)
    expected[touched] = True
    assert torch.equal(torch.isnan(v).all(1), expected)
    assert torch.equal(torch.isnan(v).any(1), expected)


def test_far_pairs_are_really_skipped(monkeypatch):
    """Two clusters at 5.3 σ, where k = 1e-12 is under the tolerance: a feature of 1e12 in one adds about 1 to a dense sum in the other, nothing here."""
    n, sigma = 1920, 0.5  # whole blocks and whole tiles, whatever the width of the vectors
    cluster = torch.rand(n, 3) * 1e-3
    x = torch.cat([cluster, cluster + torch.tensor([5.3 * sigma, 0, 0])])
    b = torch.cat([torch.ones(n, 1), torch.zeros(n, 1)])
    b[n] = 1e12
    layout = Ragged((0, 2 * n))
    problem = Problem(Radial.parse("gaussian"), torch.full((1,), sigma), layout, layout)
    assert nearby.order("product", x, x, problem) is None  # too small to pay by itself
    dense = native_cpu.product(x, x, b, problem)[:n] - n
    monkeypatch.setenv("SHAPEFLOW_NEARBY", "1")
    order = nearby.order("product", x, x, problem)
    assert order is not None and order.rows is order.columns
    sparse = native_cpu.product(x, x, b, problem)[:n] - n
    assert dense.min() > 0.3 and sparse.abs().max() < 0.05


def test_chosen_only_where_it_pays():
    n = 60_000
    layout = Ragged((0, n))
    points = torch.rand(n, 3)

    def chosen(kernel: str, sigma: float) -> bool:
        problem = Problem(Radial.parse(kernel), torch.full((1,), sigma), layout, layout)
        return nearby.order("product", points, points, problem) is not None

    assert chosen("gaussian", 0.01)
    assert not chosen("gaussian", 1.0)  # everything is near
    assert not chosen("cauchy", 0.01)  # tails never end


def test_same_bits_again(monkeypatch):
    monkeypatch.setenv("SHAPEFLOW_NEARBY", "1")
    tensors, problem = small_widths("gaussian", torch.float32, 0.02)
    first, second = (call(native_cpu, "tangent", tensors, problem) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_tolerance_bounds_the_error_and_can_be_set(monkeypatch):
    """|v_i − exact| <= tolerance · k(0) · Σ_j |b_j|, and likewise for a gradient: at a coarse tolerance more is left out, never more than that."""
    monkeypatch.setenv("SHAPEFLOW_NEARBY", "1")
    sigma = 0.02
    tensors, problem = small_widths("0.5*gaussian + 2.0*gaussian@2.0", torch.float64, sigma)
    (exact,) = reference("product", tensors, problem)
    (exact_g,) = reference("gradient", tensors, problem)
    features = problem.rows.spread(problem.columns.sum(tensors["b"].abs()))
    bound = sum(t.weight for t in problem.radial.terms) * features
    # the gradient of exp(−r²/s²) is √(2/e)/s at most, and the two terms have s = σ and 2σ
    bound_g = math.sqrt(2 / math.e) * (0.5 + 2.0 / 2) / sigma * (tensors["a"].abs() * features).sum(1, keepdim=True)
    worst = []
    for tolerance in (1e-2, 1e-5):
        monkeypatch.setenv("SHAPEFLOW_NEARBY_TOLERANCE", str(tolerance))
        (v,) = call(native_cpu, "product", tensors, problem)
        assert bool(((v - exact).abs() <= tolerance * bound + 1e-12 * bound).all())
        (g,) = call(native_cpu, "gradient", tensors, problem)
        assert bool(((g - exact_g).abs() <= tolerance * bound_g + 1e-12 * bound_g).all())
        worst.append(float((v - exact).abs().max()))
    assert worst[0] > 100 * worst[1] > 0
    for wrong in ("0", "2", "small"):
        monkeypatch.setenv("SHAPEFLOW_NEARBY_TOLERANCE", wrong)
        with pytest.raises(BackendError, match="between 0 and 1"):
            call(native_cpu, "product", tensors, problem)


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "2*laplacian@0.5 + gaussian@3"])
@pytest.mark.parametrize(("op", "m"), [("product", 0), ("gradient", 1), ("fused", 1), ("tangent", 2)])
def test_the_radius_is_where_a_derivative_has_fallen(op, m, kernel):
    radial, powers = Radial.parse(kernel), {"gaussian": 2, "laplacian": 1}
    rho = torch.linspace(0, 60, 600_001, dtype=torch.float64)
    needed = 0.0
    for term in radial.terms:
        values = (rho / term.ratio) ** m * torch.exp(-((rho / term.ratio) ** powers[term.name]))
        needed = max(needed, float(rho[values > 1e-7 * values.max()].max()))
    assert nearby.reach(radial, torch.float32, op) == pytest.approx(needed, abs=2e-4 + radial.epsilon)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_bits_are_spread(d):
    cells = torch.tensor([0, 1, 2, 5, 1000, 777, 2 ** (nearby.BITS // d) - 1])
    plain = [sum((int(c) >> bit & 1) << (bit * d) for bit in range(nearby.BITS)) for c in cells]
    assert nearby._spread(cells, d).tolist() == plain
