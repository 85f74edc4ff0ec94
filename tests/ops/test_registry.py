"""An operator has two ways in, straight to the backend and through torch's dispatcher: they agree, and whoever watches sees the second."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from shapeflow.errors import DerivativeError
from shapeflow.ops import arguments, kernel_product, kernel_product_fused, registry
from tests.ops.cases import case

ROWS, COLUMNS = (4, 9), (6, 5)


def both(monkeypatch, compute):
    straight = compute()
    monkeypatch.setattr(registry, "watched", lambda tensors: True)
    dispatched = compute()
    monkeypatch.undo()
    for s, d in zip(straight, dispatched, strict=True):
        assert torch.equal(s, d)


def test_the_two_ways_agree_bit_for_bit_up_to_second_derivatives(monkeypatch):
    c = case("laplacian", ROWS, COLUMNS)
    spec = {"kernel": "laplacian", "rows": c.problem.rows, "columns": c.problem.columns, "backend": "torch"}

    def compute():
        leaves = [t.clone().requires_grad_() for t in (c.x, c.y, c.b, c.problem.sigma)]
        v = kernel_product(*leaves[:3], sigma=leaves[3], **spec)
        first = torch.autograd.grad(v.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        return (v.detach(), *(g.detach() for g in first), *second)

    both(monkeypatch, compute)


def test_fused_agrees_without_gradients(monkeypatch):
    c = case("gaussian", ROWS, COLUMNS)
    spec = {"rows": c.problem.rows, "columns": c.problem.columns, "backend": "torch"}
    both(monkeypatch, lambda: kernel_product_fused(c.a, c.x, c.y, c.b, sigma=c.problem.sigma, **spec))


def test_only_plain_calls_go_straight():
    """A tracer records the operator, fake tensors get shapes."""
    c = case("gaussian", (6,), (8,))
    call = lambda x: kernel_product(x, c.y, c.b, sigma=0.5, backend="torch")  # noqa: E731
    graph = make_fx(call)(c.x)
    assert any("shapeflow.product" in str(node.target) for node in graph.graph.nodes)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = kernel_product(torch.empty(6, 3), torch.empty(8, 3), torch.empty(8, 2), sigma=0.5)
    assert fake.shape == (6, 2) and not any(type(w) is not torch.Tensor for w in arguments._widths.values())


def test_forward_mode_is_an_error_and_never_a_zero():
    c = case("gaussian", (6,), (8,))
    call = lambda x: kernel_product(x, c.y, c.b, sigma=0.5, backend="torch")  # noqa: E731
    with pytest.raises(DerivativeError, match="kernel_product_tangent"):
        torch.func.jvp(call, (c.x,), (c.x,))
    with forward_ad.dual_level(), pytest.raises(DerivativeError, match="kernel_product_tangent"):
        call(forward_ad.make_dual(c.x, c.x))


def test_a_width_that_is_kept_works_in_every_mode():
    c = case("gaussian", (6,), (8,))
    arguments._widths.clear()
    with torch.inference_mode():
        kernel_product(c.x, c.y, c.b, sigma=0.25)
    x = c.x.clone().requires_grad_()
    kernel_product(x, c.y, c.b, sigma=0.25).sum().backward()
    assert x.grad is not None and len(arguments._widths) == 1


def test_the_front_door_compiles_without_a_graph_break():
    c = case("gaussian", ROWS, COLUMNS)
    p = c.problem

    spec = {"kernel": p.radial, "rows": p.rows, "columns": p.columns, "backend": "torch"}

    def energy(x):
        return kernel_product(x, c.y, c.b, sigma=p.sigma, **spec).square().sum()

    compiled = torch.compile(energy, fullgraph=True, backend="aot_eager")
    x = c.x.clone().requires_grad_()
    (want,) = torch.autograd.grad(energy(x), x)
    (got,) = torch.autograd.grad(compiled(x), x)
    torch.testing.assert_close(got, want)
