"""kernels/lse.cu on a CUDA device: against its dense float64 twin, repeatable, capturable, never waiting. Run by tests/gpu.sh."""

from __future__ import annotations

import pytest
import torch
from softmax_cases import check, dense, weighted

from shapeflow.ops.backends import cuda_softmax
from shapeflow.ops.logsumexp import kernel_logsumexp
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]


def both(t, problem):
    return (
        cuda_softmax.logsumexp(t["x"], t["y"], t["h"], problem),
        cuda_softmax.softmax_product(t["u"], t["x"], t["y"], t["h"], t["b"], problem),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "e"), [(1, 1), (2, 2), (3, 3), (3, 4), (3, 8), (3, 37), (7, 5), (30, 2)])
def test_dimensions(d, e, dtype):
    check(cuda_softmax, *weighted(d, e, dtype, device="cuda"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [((1,), (5000,)), ((5000,), (1,)), ((5, 513, 0, 3000), (1, 2000, 4, 511)), ((5, 4000), (3, 4000)), ((0,), (5,)), ((5,), (0,))],
)  # fmt: skip
def test_sizes(rows, columns, dtype):
    check(cuda_softmax, *weighted(dtype=dtype, rows=rows, columns=columns, device="cuda"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rising_maximum(dtype):
    """Columns that come nearer by thousands of powers of two, forwards and backwards; the first have no weight."""
    n = 30_000
    y = torch.linspace(0, 60, n, dtype=torch.float64)[:, None]
    for order in (torch.arange(n), torch.arange(n).flip(0)):
        h = torch.where(torch.arange(n) < 5000, -torch.inf, 0.0)
        t = {"x": torch.tensor([[60.0], [30.0], [-20.0]]), "y": y[order], "h": h, "b": torch.ones(n, 1)}
        t = {k: s.to("cuda", dtype) for k, s in t.items()}
        problem = Problem(
            Radial.parse("gaussian"), torch.ones(1, dtype=dtype, device="cuda"), Ragged((0, 3)), Ragged((0, n))
        )
        got = cuda_softmax.logsumexp(t["x"], t["y"], t["h"], problem)
        single = dtype == torch.float32
        torch.testing.assert_close(got.double().cpu(), dense(t, problem)[0], rtol=1e-6 if single else 1e-13, atol=1e-6)


@pytest.mark.parametrize(("name", "bad"), [("x", torch.nan), ("y", torch.inf), ("h", torch.nan), ("h", torch.inf)])
def test_nonfinite(name, bad):
    t, problem = weighted(rows=(20, 3, 40), columns=(30, 1500, 9), device="cuda")
    clean = both(t, problem)
    t[name][21 if name == "x" else 31] = bad
    touched = torch.zeros(63, dtype=torch.bool, device="cuda")
    touched[slice(21, 22) if name == "x" else slice(20, 23)] = True
    for out, before in zip(both(t, problem), clean, strict=True):
        assert torch.isnan(out[touched]).all()
        assert torch.equal(out[~touched], before[~touched])


def test_same_bits_every_time():
    t, problem = weighted(rows=(3000, 17), columns=(4000, 900), device="cuda")
    first = both(t, problem)
    for _ in range(10):
        assert all(torch.equal(a, b) for a, b in zip(first, both(t, problem), strict=True))


def test_error_does_not_grow_with_the_number_of_columns():
    m = 4_000_000
    x, y, h = torch.zeros(3, 2), torch.full((m, 2), 0.1), torch.full((m,), 0.1)
    problem = Problem(Radial.parse("gaussian"), torch.ones(1, device="cuda"), Ragged((0, 3)), Ragged((0, m)))
    got = cuda_softmax.logsumexp(x.cuda(), y.cuda(), h.cuda(), problem)
    exact = torch.tensor(float(m)).double().log() + h[0].double() - 2 * y[0, 0].double() ** 2
    torch.testing.assert_close(got.double().cpu(), exact.expand(3), rtol=3e-7, atol=0)


def test_a_graph_replays_sinkhorn():
    """Ten iterations captured once and replayed on other points are those iterations run anew."""
    t, problem = weighted(rows=(5, 300, 500), columns=(5, 400, 700), device="cuda")
    other = Problem(problem.radial, problem.sigma, problem.columns, problem.rows)

    def sinkhorn():
        f = torch.zeros_like(t["x"][:, 0])
        for _ in range(10):
            g = -cuda_softmax.logsumexp(t["y"], t["x"], f, other)
            f = -cuda_softmax.logsumexp(t["x"], t["y"], g, problem)
        return f

    sinkhorn()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = sinkhorn()
    t["x"].mul_(0.9)
    graph.replay()
    assert torch.equal(out, sinkhorn())


def test_derivatives_through_the_front_door():
    t, problem = weighted(rows=(40, 30), columns=(50, 20), dtype=torch.float64, device="cuda")
    inputs = [t["x"], t["y"], t["h"].nan_to_num(neginf=-3.0), problem.sigma]

    def slopes(backend):
        leaves = [s.detach().clone().requires_grad_() for s in inputs]
        out = kernel_logsumexp(*leaves, rows=problem.rows, columns=problem.columns, backend=backend)
        return torch.autograd.grad((out * t["u"].nan_to_num(neginf=1.0)).sum(), leaves)

    for fast, slow in zip(slopes("native"), slopes("torch"), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


def test_a_million_points_in_little_memory():
    n = 1_000_000
    x, h = torch.rand(n, 3, device="cuda"), torch.zeros(n, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = kernel_logsumexp(x, x, h, 0.1, backend="native")
    torch.cuda.synchronize()
    assert torch.isfinite(out).all()
    assert torch.cuda.max_memory_allocated() - before < 1e8
