"""Every backend against the oracle (the native ones have more of their own tests in backends/)."""

import pytest
import torch

from shapeflow.errors import BackendError
from shapeflow.ops import oracle
from shapeflow.ops.registry import backend_module
from tests.ops.cases import KERNEL_NAMES, case


def module(backend):
    found = backend_module(backend, "cpu")
    try:
        getattr(found, "check", lambda: None)()
    except BackendError as error:
        pytest.skip(str(error))
    return found


def compare(backend, c, rtol=1e-10):
    fast, p = module(backend), c.problem

    def close(got, want):
        torch.testing.assert_close(got, want, rtol=rtol, atol=rtol * float(want.abs().max()) if want.numel() else 0)

    close(fast.product(c.x, c.y, c.b, p), oracle.product(c.x, c.y, c.b, p))
    close(fast.gradient(c.a, c.x, c.y, c.b, p), oracle.gradient(c.a, c.x, c.y, c.b, p))
    for got, want in zip(fast.fused(c.a, c.x, c.y, c.b, p), oracle.fused(c.a, c.x, c.y, c.b, p), strict=True):
        close(got, want)
    for along in (
        (c.dx, c.da, c.dy, c.db),
        (c.dx, None, None, None),
        (None, c.da, c.dy, None),
        (c.dx, c.da, c.dx[:0], None),
    ):
        dx, da, dy, db = (t if t is None or len(t) else None for t in along)
        args = (c.x, dx, c.a, da, c.y, dy, c.b, db, p)
        for got, want in zip(fast.tangent(*args), oracle.tangent(*args), strict=True):
            close(got, want)


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_matches_the_oracle_for_every_kernel(backend, kernel):
    compare(backend, case(kernel), 1e-9)


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("e", [1, 6, 11])
def test_matches_the_oracle_in_any_dimension(backend, d, e):
    compare(backend, case(d=d, e=e))


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize(
    "rows, columns", [((1,), (1,)), ((257,), (1025,)), ((0,), (4,)), ((4,), (0,)), ((1, 64, 17), (33, 1, 0))]
)
def test_matches_the_oracle_at_the_edges_of_tiles(backend, rows, columns):
    compare(backend, case(rows=rows, columns=columns, d=2, e=3))


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
def test_single_precision_keeps_its_digits_far_from_the_origin(backend, kernel):
    """Points 1,000 σ away: the difference form loses only what the coordinates themselves have lost, 1000·eps ≈ 1e-4 of σ."""
    near = case(kernel, dtype=torch.float32, shift=1000.0)
    compare_in_float64(backend, near, 2e-5)


def compare_in_float64(backend, c, rtol):
    """Against float64 arithmetic on the same float32 numbers: what is measured is the backend's rounding alone."""
    from dataclasses import replace

    wide = {name: getattr(c, name).double() for name in ("a", "x", "y", "b")}
    problem = replace(c.problem, sigma=c.problem.sigma.double())
    got = module(backend).fused(c.a, c.x, c.y, c.b, c.problem)
    want = oracle.fused(wide["a"], wide["x"], wide["y"], wide["b"], problem)
    for g, w in zip(got, want, strict=True):
        assert float((g.double() - w).abs().max() / w.abs().max()) < rtol


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_coincident_points_are_smooth(backend):
    c = case("laplacian", rows=(12,), columns=(12,))
    same = type(c)(c.a, c.x, c.x.clone(), c.b, c.dx, c.da, c.dy, c.db, c.problem)
    compare(backend, same, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_keops_matches_the_oracle(kernel):
    compare("keops", case(kernel, rows=(7, 20), columns=(5, 41)), 1e-9)


def test_keops_sums_a_ragged_batch():
    """One formula only, because KeOps compiles each: the slow test above covers them all."""
    c = case("gaussian", rows=(7, 20), columns=(5, 41))
    torch.testing.assert_close(
        module("keops").product(c.x, c.y, c.b, c.problem), oracle.product(c.x, c.y, c.b, c.problem)
    )


def test_a_device_that_a_backend_has_nothing_for_is_named():
    with pytest.raises(BackendError, match="native backend has no kernels for mps"):
        backend_module("native", "mps")
