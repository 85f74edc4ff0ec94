"""The family closes under differentiation, and says so where it ends."""

import pytest
import torch

from shapeflow.errors import DerivativeError
from shapeflow.ops import kernel_product, kernel_product_fused, kernel_product_grad, registry
from tests.ops.cases import KERNEL_NAMES, case

ROWS, COLUMNS = (4, 9), (6, 5)


def leaves(kernel):
    c = case(kernel, ROWS, COLUMNS, d=2, e=2)
    tensors = [t.clone().requires_grad_() for t in (c.a, c.x, c.y, c.b, c.problem.sigma)]
    return tensors, {"kernel": kernel, "rows": c.problem.rows, "columns": c.problem.columns}


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_kernel_product_is_twice_differentiable_in_everything(kernel):
    (_, x, y, b, sigma), spec = leaves(kernel)
    call = lambda x, y, b, sigma: kernel_product(x, y, b, sigma=sigma, **spec)  # noqa: E731
    assert torch.autograd.gradcheck(call, (x, y, b, sigma))
    assert torch.autograd.gradgradcheck(call, (x, y, b, sigma))


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "energy"])
def test_gradient_and_fused_are_once_differentiable(kernel):
    (a, x, y, b, sigma), spec = leaves(kernel)
    assert torch.autograd.gradcheck(lambda *t: kernel_product_grad(*t[:4], sigma=t[4], **spec), (a, x, y, b, sigma))
    assert torch.autograd.gradcheck(lambda *t: kernel_product_fused(*t[:4], sigma=t[4], **spec), (a, x, y, b, sigma))


def test_a_third_derivative_is_an_error_and_never_a_zero():
    (_, x, y, b, sigma), spec = leaves("gaussian")
    v = kernel_product(x, y, b, sigma=sigma, **spec)
    (g,) = torch.autograd.grad(v.square().sum(), x, create_graph=True)
    (gg,) = torch.autograd.grad(g.square().sum(), x, create_graph=True)
    with pytest.raises(DerivativeError, match="third derivative"):
        gg.square().sum().backward()


@pytest.mark.parametrize("name", ["product", "gradient", "fused", "tangent"])
def test_opcheck(name):
    """Schema, fake tensors and autograd registration, by torch's own checker."""
    c = case("gaussian", ROWS, COLUMNS)
    p = c.problem
    tail = (p.sigma, list(p.rows.offsets), list(p.columns.offsets), str(p.radial), "torch")
    x = c.x.clone().requires_grad_(name != "tangent")
    head = {
        "product": (x, c.y, c.b),
        "gradient": (c.a, x, c.y, c.b),
        "fused": (c.a, x, c.y, c.b),
        "tangent": (x, c.dx, c.a, None, c.y, None, c.b, c.db),
    }[name]
    torch.library.opcheck(
        getattr(registry, name).registered,
        (*head, *tail),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_compiles_without_a_graph_break():
    c = case("gaussian", ROWS, COLUMNS)
    p = c.problem
    tail = (p.sigma, list(p.rows.offsets), list(p.columns.offsets), str(p.radial), "torch")

    def energy(x):
        return registry.product(x, c.y, c.b, *tail).square().sum()

    compiled = torch.compile(energy, fullgraph=True, backend="aot_eager")
    x = c.x.clone().requires_grad_()
    (want,) = torch.autograd.grad(energy(x), x)
    (got,) = torch.autograd.grad(compiled(x), x)
    torch.testing.assert_close(got, want)
