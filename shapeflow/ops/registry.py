"""The operator family as torch.library operators: schema, shapes, implementations and derivatives.

The derivative formulas, for L a scalar and cotangents V of v, h of g, with Φ = Σ_ij ⟨a_i, b_j⟩ k(x_i, y_j):

    product   ∂L/∂x = gradient(V, x, y, b)      (∂L/∂b, ∂L/∂y) = fused(b, y, x, V)      roles of rows and columns swapped
    fused     (∂L/∂a, ∂L/∂x) = tangent along (ȧ = V, ẋ = h)      (∂L/∂b, ∂L/∂y) = the same with roles swapped
    gradient  fused with V = 0
    tangent   raises: the family ends here, and a silent zero would be worse than an error

σ: Φ depends on (x, y, σ) through (x − y)/σ, hence −σ ∂L/∂σ = Σ⟨x, ∂L/∂x⟩ + Σ⟨y, ∂L/∂y⟩ (+ Σ⟨h, g⟩, as g is of degree
−1): Euler's theorem, from gradients already at hand. x and y are first moved by the same vector; the total does not
depend on it but its rounding does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from shapeflow.errors import DerivativeError
from shapeflow.ops.problem import Problem, layout
from shapeflow.ops.radial import Radial

NAMESPACE = "shapeflow"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")
COMMON = "Tensor sigma, int[] rows, int[] columns, str radial, str backend"
_SCHEMAS = {
    "product": f"(Tensor x, Tensor y, Tensor b, {COMMON}) -> Tensor",
    "gradient": f"(Tensor a, Tensor x, Tensor y, Tensor b, {COMMON}) -> Tensor",
    "fused": f"(Tensor a, Tensor x, Tensor y, Tensor b, {COMMON}) -> (Tensor, Tensor)",
    "tangent": f"(Tensor x, Tensor? dx, Tensor a, Tensor? da, Tensor y, Tensor? dy, Tensor b, Tensor? db, {COMMON}) -> (Tensor, Tensor)",
}
_MODULES = {("native", "cpu"): "native_cpu", ("native", "cuda"): "cuda"}
_SOFTMAX = {("native", "cpu"): "native_softmax", ("native", "cuda"): "cuda_softmax"}


def backend_module(backend: str, device_type: str) -> ModuleType:
    """The module that implements a backend on a kind of device."""
    name = _MODULES.get((backend, device_type), {"torch": "tiled", "keops": "keops"}.get(backend, backend))
    return import_module(f"shapeflow.ops.backends.{name}")


def problem_of(sigma: Tensor, rows: list[int], columns: list[int], radial: str) -> Problem:
    return Problem(Radial.parse(radial), sigma, layout(tuple(rows)), layout(tuple(columns)))


@lru_cache(maxsize=64)
def implementation(name: str, backend: str, device_type: str) -> Callable[..., Any]:
    """A backend's function of this name."""
    apart = _SOFTMAX.get((backend, device_type)) if name in ("logsumexp", "softmax_product") else None
    module = import_module(f"shapeflow.ops.backends.{apart}") if apart else backend_module(backend, device_type)
    return getattr(module, name)


def define(name: str, schema: str) -> Any:
    """Register an operator whose one implementation, for CPU and CUDA, hands its tensors, made contiguous, to the
    backend's function of the same name.
    """

    def run(*args: Any) -> Any:
        *tensors, sigma, rows, columns, radial, backend = args
        function = implementation(name, backend, sigma.device.type)
        # Plain-torch code would stay visible to autograd here and hide a missing derivative formula.
        with torch.no_grad():
            tensors = [None if t is None else t.contiguous() for t in tensors]
            return function(*tensors, problem_of(sigma, rows, columns, radial))

    LIBRARY.define(f"{name}{schema}")
    for device in ("CPU", "CUDA"):
        LIBRARY.impl(name, run, device)
    return getattr(torch.ops.shapeflow, name).default


product, gradient, fused, tangent = (define(name, schema) for name, schema in _SCHEMAS.items())


@torch.library.register_fake(f"{NAMESPACE}::product", lib=LIBRARY)
def _(x, y, b, *_: Any) -> Tensor:
    return b.new_empty(x.shape[0], b.shape[1])


@torch.library.register_fake(f"{NAMESPACE}::gradient", lib=LIBRARY)
def _(a, x, y, b, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.register_fake(f"{NAMESPACE}::fused", lib=LIBRARY)
def _(a, x, y, b, *_: Any) -> tuple[Tensor, Tensor]:
    return b.new_empty(x.shape[0], b.shape[1]), x.new_empty(x.shape)


@torch.library.register_fake(f"{NAMESPACE}::tangent", lib=LIBRARY)
def _(x, dx, a, *_: Any) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape), x.new_empty(x.shape)


def euler(
    problem: Problem, x: Tensor, grad_x: Tensor, y: Tensor, grad_y: Tensor, degree: Tensor | None = None
) -> Tensor:
    """∂L/∂σ (B,) by homogeneity; `degree` (N,) is ⟨h_i, g_i⟩ where the output scales as 1/length."""
    rows, columns = problem.rows, problem.columns
    centre = rows.mean(x.detach())
    total = rows.sum(((x - rows.spread(centre)) * grad_x).sum(1)) + columns.sum(
        ((y - columns.spread(centre)) * grad_y).sum(1)
    )
    if degree is not None:
        total = total + rows.sum(degree)
    return -total / problem.sigma


def keep(ctx: Any, tensors: tuple[Tensor, ...], inputs: tuple[Any, ...]) -> None:
    ctx.save_for_backward(*tensors, inputs[-5])
    ctx.spec = inputs[-4:]


def _product_backward(ctx: Any, V: Tensor) -> tuple[Tensor | None, ...]:
    x, y, b, sigma = ctx.saved_tensors
    rows, columns, radial, backend = ctx.spec
    need_x, need_y, need_b, need_sigma = ctx.needs_input_grad[:4]
    there, back = (sigma, rows, columns, radial, backend), (sigma, columns, rows, radial, backend)
    grad_x = grad_y = grad_b = grad_sigma = None
    if need_x or need_sigma:
        grad_x = gradient(V, x, y, b, *there)
    if (need_y or need_sigma) and need_b:
        grad_b, grad_y = fused(b, y, x, V, *back)
    elif need_y or need_sigma:
        grad_y = gradient(b, y, x, V, *back)
    elif need_b:
        grad_b = product(y, x, V, *back)
    if need_sigma:
        assert grad_x is not None and grad_y is not None
        grad_sigma = euler(problem_of(sigma, rows, columns, radial), x, grad_x, y, grad_y)
    return grad_x, grad_y, grad_b, grad_sigma, None, None, None, None


def _pair_backward(ctx: Any, V: Tensor | None, h: Tensor) -> tuple[Tensor | None, ...]:
    """Backward of `fused`, and of `gradient` with V = None."""
    a, x, y, b, g, sigma = ctx.saved_tensors
    rows, columns, radial, backend = ctx.spec
    need_a, need_x, need_y, need_b, need_sigma = ctx.needs_input_grad[:5]
    grad_a = grad_x = grad_y = grad_b = grad_sigma = None
    if need_a or need_x or need_sigma:
        grad_a, grad_x = tangent(x, h, a, V, y, None, b, None, sigma, rows, columns, radial, backend)
    if need_b or need_y or need_sigma:
        grad_b, grad_y = tangent(y, None, b, None, x, h, a, V, sigma, columns, rows, radial, backend)
    if need_sigma:
        assert grad_x is not None and grad_y is not None
        grad_sigma = euler(problem_of(sigma, rows, columns, radial), x, grad_x, y, grad_y, (h * g).sum(1))
    return grad_a, grad_x, grad_y, grad_b, grad_sigma, None, None, None, None


def _tangent_backward(ctx: Any, *_: Tensor) -> None:
    raise DerivativeError(
        "a third derivative of a kernel product was asked for; the family ends with `tangent` (the derivative of v and ∂₁). "
        "Differentiate less often, or use shapeflow.ops.oracle, which is plain torch."
    )


torch.library.register_autograd(
    f"{NAMESPACE}::product",
    _product_backward,
    setup_context=lambda ctx, inputs, output: keep(ctx, inputs[:3], inputs),
    lib=LIBRARY,
)
torch.library.register_autograd(
    f"{NAMESPACE}::gradient",
    lambda ctx, h: _pair_backward(ctx, None, h),
    setup_context=lambda ctx, inputs, output: keep(ctx, (*inputs[:4], output), inputs),
    lib=LIBRARY,
)
torch.library.register_autograd(
    f"{NAMESPACE}::fused",
    _pair_backward,
    setup_context=lambda ctx, inputs, output: keep(ctx, (*inputs[:4], output[1]), inputs),
    lib=LIBRARY,
)
torch.library.register_autograd(
    f"{NAMESPACE}::tangent", _tangent_backward, setup_context=lambda ctx, inputs, output: None, lib=LIBRARY
)
