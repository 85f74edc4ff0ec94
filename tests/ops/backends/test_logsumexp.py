"""The log-sum-exp product: values and derivatives against dense torch, extreme weights, and a transport problem whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_cases import TOLERANCE

from shapeflow.errors import DerivativeError, KernelError
from shapeflow.ops import kernel_logsumexp, logsumexp

ROWS, COLUMNS = (5, 1, 40, 3), (300, 2, 17, 130)
BACKENDS = ("native", "torch")


def batch(dtype=torch.float64, d=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.rand(sum(ROWS), d, generator=g).to(dtype), torch.rand(sum(COLUMNS), d, generator=g).to(dtype)
    h = 5 * torch.randn(sum(COLUMNS), generator=g).to(dtype)
    return x, y, h, torch.tensor([0.1, 0.3, 0.5, 0.02], dtype=dtype)


def offsets(sizes):
    return (0, *torch.tensor(sizes).cumsum(0).tolist())


def dense(x, y, h, sigma):
    out = []
    for b, (i, j) in enumerate(zip(x.split(ROWS), zip(y.split(COLUMNS), h.split(COLUMNS), strict=True), strict=True)):
        out.append(
            (
                j[1] - torch.cdist(i, j[0], compute_mode="donot_use_mm_for_euclid_dist").square() / sigma[b] ** 2
            ).logsumexp(1)
        )
    return torch.cat(out)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_values(backend, dtype, d):
    x, y, h, sigma = batch(dtype, d)
    got = kernel_logsumexp(x, y, h, sigma, rows=offsets(ROWS), columns=offsets(COLUMNS), backend=backend)
    exact = dense(x.double(), y.double(), h.double(), sigma.double())
    # The exponents reach 1/0.02² = 2500 in size, and l with them.
    torch.testing.assert_close(got.double(), exact, rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
def test_derivatives(backend):
    inputs = [t.requires_grad_() for t in batch()]
    weights = torch.randn(sum(ROWS), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out = kernel_logsumexp(*inputs, rows=offsets(ROWS), columns=offsets(COLUMNS), backend=backend)
    got = torch.autograd.grad((weights * out).sum(), inputs)
    exact = torch.autograd.grad((weights * dense(*inputs)).sum(), inputs)
    for a, b in zip(got, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_logarithms(backend):
    """h = −∞ is a weight of zero, large h does not overflow, a row without weights is −∞ and has no derivative."""
    x, y = torch.zeros(2, 2, requires_grad=True), torch.zeros(6, 2)
    h = torch.tensor([1e4, 1e4, -torch.inf, -torch.inf, -torch.inf, 3.0])
    out = kernel_logsumexp(x, y[:5], h[:5], 1.0, rows=(0, 1, 2), columns=(0, 3, 5), backend=backend)
    torch.testing.assert_close(out.detach(), torch.tensor([1e4 + 0.6931, -torch.inf]), rtol=1e-6, atol=0)
    (grad,) = torch.autograd.grad(out[:1].sum(), x)
    assert not grad.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["x", "y", "h"])
def test_nonfinite(name, bad):
    x, y, h, sigma = batch(torch.float32)
    tensors = {"x": x, "y": y, "h": h}
    tensors[name][0 if name == "x" else 10] = bad
    got = kernel_logsumexp(*tensors.values(), sigma, rows=offsets(ROWS), columns=offsets(COLUMNS), backend="native")
    touched = torch.zeros(sum(ROWS), dtype=torch.bool)
    touched[: 1 if name == "x" else 5] = True
    assert torch.equal(torch.isnan(got), touched)


def test_sinkhorn_finds_a_known_plan():
    """A cloud and its translate: the entropic plan's barycentric map moves the mean by exactly the translation."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(60, 2, generator=g, dtype=torch.float64)
    y, n, sigma = x + torch.tensor([0.5, -0.2]), 60, 0.3
    log_weight = -torch.log(torch.tensor(float(n), dtype=torch.float64))
    f, gy = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for _ in range(500):
        f = -kernel_logsumexp(x, y, gy + log_weight, sigma)
        gy = -kernel_logsumexp(y, x, f + log_weight, sigma)
    marginal = kernel_logsumexp(x, y, gy + log_weight, sigma) + f
    torch.testing.assert_close(marginal, torch.zeros_like(marginal), rtol=0, atol=1e-6)
    points = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(kernel_logsumexp(points, y, gy + log_weight, sigma).sum(), points)
    barycentres = x + slope * sigma**2 / 2
    torch.testing.assert_close(
        (barycentres - x).mean(0), torch.tensor([0.5, -0.2], dtype=torch.float64), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("h", [torch.zeros(4, 2), torch.zeros(3), torch.tensor(0.0)], ids=["plane", "short", "number"])
def test_weights_of_a_wrong_shape_are_refused_by_their_name(h):
    with pytest.raises(KernelError, match=r"`h` must be \(4,\)"):
        kernel_logsumexp(torch.rand(3, 2), torch.rand(4, 2), h, 1.0)


def test_numpy_goes_in_and_comes_out():
    x, y, h, sigma = batch()
    spec = {"rows": offsets(ROWS), "columns": offsets(COLUMNS)}
    got = kernel_logsumexp(x.numpy(), y.numpy(), h.numpy(), sigma.numpy(), **spec)
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, dense(x, y, h, sigma).numpy(), rtol=1e-12)


def test_far_from_the_origin_derivatives_keep_their_digits():
    """Points 1,000 σ away, in float32: what is lost is what the coordinates themselves have lost."""
    x, y, h, sigma = batch()
    inputs = [t.float().requires_grad_() for t in (x + 100, y + 100, h, 0 * sigma + 0.1)]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    spec = {"rows": offsets(ROWS), "columns": offsets(COLUMNS), "backend": "native"}
    got = torch.autograd.grad(kernel_logsumexp(*inputs, **spec).sum(), inputs)
    want = torch.autograd.grad(kernel_logsumexp(*exact, **spec).sum(), exact)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g.double(), w, rtol=1e-4, atol=1e-5 * float(w.abs().max()))


def test_a_second_derivative_is_an_error_and_never_a_zero():
    x, y, h, sigma = batch()
    x.requires_grad_()
    out = kernel_logsumexp(x, y, h, sigma, rows=offsets(ROWS), columns=offsets(COLUMNS))
    (g,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(DerivativeError, match="second derivative"):
        g.square().sum().backward()


@pytest.mark.parametrize("name", ["logsumexp", "softmax_product"])
def test_opcheck(name):
    x, y, h, sigma = batch()
    tail = (sigma, list(offsets(ROWS)), list(offsets(COLUMNS)), "gaussian", "torch")
    head = (x.requires_grad_(), y, h) if name == "logsumexp" else (torch.zeros(sum(ROWS), dtype=x.dtype), x, y, h, y)
    torch.library.opcheck(
        getattr(logsumexp, name).registered,
        (*head, *tail),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )
