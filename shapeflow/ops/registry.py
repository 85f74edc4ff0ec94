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

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from shapeflow.errors import BackendError, DerivativeError
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged, layout

NAMESPACE = "shapeflow"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
_COMMON = "Tensor sigma, int[] rows, int[] columns, str radial, str backend"
Layout = Ragged | Sequence[int]
_MODULES = {("native", "cpu"): "native_cpu", ("native", "cuda"): "cuda"}
_ANYWHERE = {"keops": "keops", "torch": "tiled"}
_SOFTMAX = {("native", "cpu"): "native_softmax", ("native", "cuda"): "cuda_softmax"}


def backend_module(backend: str, device_type: str) -> ModuleType:
    """The module that implements a backend on a kind of device."""
    name = _MODULES.get((backend, device_type)) or _ANYWHERE.get(backend)
    if name is None:
        raise BackendError(
            f"the {backend} backend has no kernels for {device_type} tensors: write backend=torch, or move them to the CPU or to CUDA"
        )
    return import_module(f"shapeflow.ops.backends.{name}")


def problem_of(sigma: Tensor, rows: Layout, columns: Layout, radial: Radial | str) -> Problem:
    return Problem(Radial.parse(radial), sigma, _shared(rows), _shared(columns))


def _shared(rows: Layout) -> Ragged:
    return rows.shared if isinstance(rows, Ragged) else layout(tuple(rows))


@lru_cache(maxsize=64)
def implementation(name: str, backend: str, device_type: str) -> Callable[..., Any]:
    """A backend's function of this name."""
    apart = _SOFTMAX.get((backend, device_type)) if name in ("logsumexp", "softmax_product") else None
    module = import_module(f"shapeflow.ops.backends.{apart}") if apart else backend_module(backend, device_type)
    return getattr(module, name)


class Operator:
    """One operator: called as `op(*tensors, sigma, rows, columns, radial, backend)`.

    `registered` is its torch.library form, for which torch knows schema, shapes and derivative. A call that something is watching (a compiler,
    a tracer, fake tensors, functorch, forward mode) goes there. Any other call, which is nearly every one, needs nothing of torch's dispatcher:
    it goes straight to the backend, under a plain autograd.Function of the same formulas when a gradient is wanted. At 500 points the
    dispatcher would cost more than the sums.
    """

    def __init__(self, name: str, schema: str, fake: Callable, setup: Callable, backward: Callable) -> None:
        """`schema` without the arguments that all share; `setup(ctx, inputs, output)` saves what `backward` reads."""
        self.name = name
        arguments, result = schema.split(" -> ")
        _LIBRARY.define(f"{name}({arguments}, {_COMMON}) -> {result}")
        for device in ("CPU", "CUDA"):
            _LIBRARY.impl(name, self._hidden, device)
        qualified = f"{NAMESPACE}::{name}"
        torch.library.register_fake(qualified, fake, lib=_LIBRARY)
        torch.library.register_autograd(qualified, backward, setup_context=setup, lib=_LIBRARY)
        self.registered = getattr(torch.ops.shapeflow, name).default
        self.function = _function(name, self._straight, setup, backward)

    def __call__(self, *arguments: Any) -> Any:
        tensors = arguments[:-4]  # σ is the last
        if watched(tensors):
            _refuse_forward_mode(tensors)
            *_, rows, columns, radial, backend = arguments
            return self.registered(*tensors, _offsets(rows), _offsets(columns), str(radial), backend)
        if torch.is_grad_enabled():
            for t in tensors:
                if t is not None and t.requires_grad:
                    return self.function.apply(*arguments)
        return self._straight(*arguments)

    def _straight(self, *arguments: Any) -> Any:
        *tensors, sigma, rows, columns, radial, backend = arguments
        run = implementation(self.name, backend, sigma.device.type)
        return run(*[None if t is None else t.contiguous() for t in tensors], problem_of(sigma, rows, columns, radial))

    def _hidden(self, *arguments: Any) -> Any:
        # Plain-torch code would stay visible to autograd here and hide a missing derivative formula.
        with torch.no_grad():
            return self._straight(*arguments)


def _function(name: str, straight: Callable, setup: Callable, backward: Callable) -> Any:
    def forward(ctx: Any, *inputs: Any) -> Any:
        output = straight(*inputs)
        setup(ctx, inputs, output)
        return output

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(name, (torch.autograd.Function,), members)


def _offsets(rows: Layout) -> Sequence[int]:
    return rows.offsets if isinstance(rows, Ragged) else rows


def _refuse_forward_mode(tensors: Sequence[Tensor | None]) -> None:
    """torch would drop the tangent of an operator that it has no forward formula for, without a word."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    if any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise DerivativeError(
            "forward-mode differentiation does not pass through kernel products: kernel_product_tangent is their directional derivative"
        )


def watched(tensors: Sequence[Tensor | None]) -> bool:
    """Whether anything but autograd wants to see the operators that are called on these tensors."""
    if (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    ):
        return True
    return any(t is not None and type(t) is not Tensor and type(t) is not Parameter for t in tensors)


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


product = Operator(
    "product",
    "Tensor x, Tensor y, Tensor b -> Tensor",
    lambda x, y, b, *_: b.new_empty(x.shape[0], b.shape[1]),
    lambda ctx, inputs, output: keep(ctx, inputs[:3], inputs),
    _product_backward,
)
gradient = Operator(
    "gradient",
    "Tensor a, Tensor x, Tensor y, Tensor b -> Tensor",
    lambda a, x, *_: x.new_empty(x.shape),
    lambda ctx, inputs, output: keep(ctx, (*inputs[:4], output), inputs),
    lambda ctx, h: _pair_backward(ctx, None, h),
)
fused = Operator(
    "fused",
    "Tensor a, Tensor x, Tensor y, Tensor b -> (Tensor, Tensor)",
    lambda a, x, *_: (a.new_empty(a.shape), x.new_empty(x.shape)),
    lambda ctx, inputs, output: keep(ctx, (*inputs[:4], output[1]), inputs),
    _pair_backward,
)
tangent = Operator(
    "tangent",
    "Tensor x, Tensor? dx, Tensor a, Tensor? da, Tensor y, Tensor? dy, Tensor b, Tensor? db -> (Tensor, Tensor)",
    lambda x, dx, a, *_: (a.new_empty(a.shape), x.new_empty(x.shape)),
    lambda ctx, inputs, output: None,
    _tangent_backward,
)
