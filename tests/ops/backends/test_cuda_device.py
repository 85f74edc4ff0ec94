"""The CUDA kernels on a CUDA device: against the oracle, repeatable, capturable, never waiting. Run by tests/gpu.sh."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import KERNELS, NAMES, TOLERANCE, call, case, error, reference

from shapeflow.ops import arguments, kernel_product, kernel_product_fused
from shapeflow.ops.backends import cuda
from shapeflow.ops.problem import Problem
from shapeflow.ragged import Ragged

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]

OPS = ("product", "gradient", "fused", "tangent")


@pytest.fixture(autouse=True)
def small_problems_on_tensor_cores(monkeypatch):
    monkeypatch.setattr(cuda, "WORTH", dict.fromkeys(cuda.WORTH, 0))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_and_operator(kernel, op, dtype):
    tensors, problem = case(kernel, dtype=dtype, device="cuda")
    assert error(call(cuda, op, tensors, problem), reference(op, tensors, problem)) < TOLERANCE[dtype]


@pytest.mark.parametrize("op", ["product", "gradient", "fused"])
def test_small_and_large_problems_of_a_gaussian(op, monkeypatch):
    """Either tile, by the number of pairs."""
    monkeypatch.undo()
    for n in (300, 4000):
        tensors, problem = case(rows=(n,), columns=(n,), device="cuda")
        assert error(call(cuda, op, tensors, problem), reference(op, tensors, problem)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize(("d", "e"), [(1, 1), (2, 2), (2, 8), (3, 5), (3, 6), (3, 37), (7, 4), (20, 1)])
@pytest.mark.parametrize("op", OPS)
def test_dimensions(d, e, op):
    tensors, problem = case(d=d, e=e, device="cuda")
    tolerance = TOLERANCE[torch.float32] * max(1, d / 3)
    assert error(call(cuda, op, tensors, problem), reference(op, tensors, problem)) < tolerance


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("op", OPS)
def test_every_specialised_size(op, d, monkeypatch):
    """As the points lie, and sorted."""
    for e in range(1, 11):
        tensors, problem = case(d=d, e=e, rows=(1, 0, 600), columns=(7, 3, 700), device="cuda")
        exact = reference(op, tensors, problem)
        for wanted in ("0", "1"):
            monkeypatch.setenv("SHAPEFLOW_NEARBY", wanted)
            assert error(call(cuda, op, tensors, problem), exact) < TOLERANCE[torch.float32], (e, wanted)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [((1,), (5000,)), ((5000,), (1,)), ((513, 0, 3000), (2000, 4, 511)), ((0,), (5,)), ((5,), (0,))],
)
def test_sizes(rows, columns):
    tensors, problem = case(rows=rows, columns=columns, device="cuda")
    assert error(call(cuda, "fused", tensors, problem), reference("fused", tensors, problem)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nonfinite(name, bad):
    tensors, problem = case(rows=(20, 3, 40), columns=(30, 1500, 9), device="cuda")
    clean = call(cuda, "tangent", tensors, problem)
    is_row = name in ("x", "dx", "a", "da")
    tensors[name][24 if is_row else 31, -1] = bad
    touched = torch.zeros(63, dtype=torch.bool, device="cuda")
    touched[slice(24, 25) if is_row else slice(20, 23)] = True
    for out, before in zip(call(cuda, "tangent", tensors, problem), clean, strict=True):
        assert torch.isnan(out[touched]).all()
        assert torch.equal(out[~touched], before[~touched])


def test_same_bits_every_time():
    tensors, problem = case(rows=(3000, 17), columns=(4000, 900), device="cuda")
    first = call(cuda, "tangent", tensors, problem)
    for _ in range(10):
        assert all(torch.equal(a, b) for a, b in zip(first, call(cuda, "tangent", tensors, problem), strict=True))


def test_error_does_not_grow_with_the_number_of_columns():
    m = 4_000_000
    x, y, b = torch.zeros(3, 2), torch.full((m, 2), 0.1), torch.full((m, 1), 0.1)
    problem = Problem(case()[1].radial, torch.ones(1, device="cuda"), Ragged((0, 3)), Ragged((0, m)))
    v = cuda.product(x.cuda(), y.cuda(), b.cuda(), problem)
    exact = m * float(b[0]) * torch.exp(-2 * torch.tensor(0.1).double() ** 2)
    torch.testing.assert_close(v.double().cpu(), exact.expand(3, 1), rtol=1e-6, atol=0)


def test_a_graph_replays_new_values():
    """Captured once, replayed on other numbers in the same memory. A call that waited for the device could not be captured."""
    tensors, problem = case(rows=(300, 500), columns=(400, 700), device="cuda")
    call(cuda, "fused", tensors, problem)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(cuda, "fused", tensors, problem)
    tensors["b"].mul_(2)
    tensors["x"].add_(0.1)
    graph.replay()
    torch.cuda.synchronize()
    assert error(out, reference("fused", tensors, problem)) < TOLERANCE[torch.float32]


def test_a_graph_of_the_callers_keeps_a_width_that_was_a_number():
    """Equal widths are kept from call to call, and forgotten when there are many: not under a graph."""
    tensors, _ = case(rows=(300,), columns=(400,), device="cuda")
    x, y, b = (tensors[name] for name in "xyb")
    want = kernel_product(x, y, b, "gaussian", 0.7, backend="native")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = kernel_product(x, y, b, "gaussian", 0.7, backend="native")
    arguments._widths.clear()
    spoiled = [torch.full((64,), torch.nan, device="cuda") for _ in range(500)]
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, want) and spoiled


def test_another_stream():
    tensors, problem = case(rows=(3000,), columns=(3000,), device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        tensors["b"].mul_(3)
        out = call(cuda, "product", tensors, problem)
    stream.synchronize()
    assert error(out, reference("product", tensors, problem)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("stretch", [1, 5, 40])
@pytest.mark.parametrize(
    ("op", "kernel"), [("product", "gaussian"), ("fused", "gaussian"), ("tangent", "gaussian"), ("fused", "laplacian")]
)
def test_far_columns_are_skipped(monkeypatch, op, kernel, stretch):
    monkeypatch.setenv("SHAPEFLOW_NEARBY", "1")
    tensors, problem = case(kernel, rows=(3000, 20), columns=(5000, 30), device="cuda")
    tensors |= {"x": tensors["x"] * stretch, "y": tensors["y"] * stretch}
    assert error(call(cuda, op, tensors, problem), reference(op, tensors, problem)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_features_of_any_size_on_tensor_cores(scale):
    """Halves reach from 6e-8 to 65504: features are scaled to that range, a chunk of columns at a time."""
    tensors, problem = case(rows=(300,), columns=(700,), device="cuda")
    tensors["b"] *= scale
    tensors["b"][300:] *= 1e-3
    assert error(call(cuda, "fused", tensors, problem), reference("fused", tensors, problem)) < TOLERANCE[torch.float32]


def test_a_million_points_in_little_memory():
    n = 1_000_000
    x, b = torch.rand(n, 3, device="cuda"), torch.randn(n, 3, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = kernel_product(x, x, b, "gaussian", 0.1, backend="native")
    torch.cuda.synchronize()
    assert torch.isfinite(out).all()
    assert torch.cuda.max_memory_allocated() - before < 1e9


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
def test_second_derivatives_through_the_front_door(kernel):
    tensors, _ = case(kernel, rows=(40,), columns=(40,), dtype=torch.float64, device="cuda")
    x, p = tensors["x"].requires_grad_(), tensors["a"].requires_grad_()

    def energy(backend):
        v, g = kernel_product_fused(p, x, x, p, kernel, 0.4, backend=backend)
        return torch.autograd.grad((v * tensors["da"]).sum() + (g * tensors["dx"]).sum(), (x, p))

    for fast, slow in zip(energy("native"), energy("torch"), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
