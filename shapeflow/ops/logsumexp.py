"""The log-sum-exp product of entropic optimal transport.

    l_i = log Σ_j exp(h_j − |x_i − y_j|²/σ²)

With squared distances as cost and temperature ε, σ² = ε (cost |x−y|²) or 2ε (cost ½|x−y|²); h_j = log β_j + g_j/ε
makes −ε l_i Sinkhorn's new potential.
Memory is O(N + M). Derivatives, of first order and in every argument, come from the soft-max product with weights
w_ij = exp(h_j − |x_i − y_j|²/σ² − l_i):

    ∂l_i/∂h_j = w_ij      ∂l_i/∂x_i = −(2/σ²) (x_i − Σ_j w_ij y_j)      ∂l_i/∂y_j = (2/σ²) w_ij (x_i − y_j)

and in σ by homogeneity, as for the other operators. A Sinkhorn divergence needs no more: at its fixed point the
potentials' own derivative drops out.

Both are operators of `registry`, so a backend is again a module with functions of these names, here

    logsumexp(x, y, h, problem) -> l                x (N,d), y (M,d), h (M,) -> (N,)
    softmax_product(u, x, y, h, b, problem) -> v    v_i = Σ_j exp(u_i + h_j − |x_i − y_j|²/σ²) b_j      u (N,), b (M,e) -> (N,e)

on contiguous tensors of one dtype and device. h_j = −∞ and u_i = −∞ are weights of zero (a row without weights: l = −∞, v = 0); NaN and
other infinities make a row NaN. `problem.radial` is the gaussian.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from shapeflow.errors import DerivativeError
from shapeflow.ops import registry
from shapeflow.ops.arguments import Array, Offsets, check, layouts_of, tensor_of, widths_of
from shapeflow.ops.backend import resolve
from shapeflow.ops.registry import Operator


def kernel_logsumexp(
    x: Array,
    y: Array,
    h: Array,
    sigma: Any = None,
    *,
    rows: Offsets = None,
    columns: Offsets = None,
    backend: str | None = None,
) -> Array:
    """l_i = log Σ_j exp(h_j − |x_i − y_j|²/σ²), (N,).

    x (N, d), y (M, d) positions; h (M,) logarithms of weights, −∞ for a weight of zero; σ in mesh units, a number or
    one for each problem of the batch. Tensors or NumPy arrays in, the same kind out; differentiable once, in all of
    x, y, h and σ. A row without any column gives −∞. Never stores an N × M matrix.

    One half of a Sinkhorn iteration with cost |x − y|² and temperature ε:
    f = −ε · kernel_logsumexp(x, y, log β + g/ε, ε**0.5).
    """
    numpy = not any(isinstance(t, Tensor) for t in (x, y, h))
    tensors: dict[str, Any] = {name: tensor_of(name, value) for name, value in (("x", x), ("y", y), ("h", h))}
    check(tensors)
    n, m = layouts_of(tensors["x"], tensors["y"], rows, columns)
    width = widths_of(sigma, n.count, tensors["x"])
    out: Any = logsumexp(*tensors.values(), width, n, m, "gaussian", resolve(backend, tensors["x"].device))
    return out.numpy() if numpy else out


def _backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, ...]:
    x, y, h, out, sigma = ctx.saved_tensors
    rows, columns, radial, backend = ctx.spec
    problem = registry.problem_of(sigma, rows, columns, radial)
    there, back = (sigma, rows, columns, radial, backend), (sigma, columns, rows, radial, backend)
    rows, columns = problem.rows, problem.columns
    scale = 2 / sigma**2
    # Differences of barycentres lose digits far from the origin: move it close.
    centre = columns.mean(y)
    x, y = x - rows.spread(centre), y - columns.spread(centre)
    # A row without weights has l = −∞ and no derivative.
    some = out > -torch.inf
    u, G = torch.where(some, -out, -torch.inf), torch.where(some, G, 0)
    grad_x = grad_y = grad_h = grad_sigma = None
    need_x, need_y, need_h, need_sigma = ctx.needs_input_grad[:4]
    if need_x or need_sigma:
        mean = softmax_product(u, x, y, h, y, *there)
        grad_x = -(rows.spread(scale) * G)[:, None] * torch.where(some[:, None], x - mean, 0)
    if need_y or need_h or need_sigma:
        b = torch.cat([G[:, None], G[:, None] * x], dim=1)
        moments = softmax_product(h, y, x, u, b, *back)
        grad_h = moments[:, 0].contiguous()
        grad_y = columns.spread(scale)[:, None] * (moments[:, 1:] - y * grad_h[:, None])
    if need_sigma:
        assert grad_x is not None and grad_y is not None
        grad_sigma = registry.euler(problem, x, grad_x, y, grad_y)
    return grad_x, grad_y, grad_h, grad_sigma, None, None, None, None


def _no_second_derivative(ctx: Any, *_: Tensor) -> None:
    raise DerivativeError(
        "a second derivative of kernel_logsumexp was asked for; it has one. At a fixed point of Sinkhorn's iteration the first is all that a "
        "divergence needs: detach the potentials"
    )


logsumexp = Operator(
    "logsumexp",
    "Tensor x, Tensor y, Tensor h -> Tensor",
    lambda x, *_: x.new_empty(x.shape[0]),
    lambda ctx, inputs, output: registry.keep(ctx, (*inputs[:3], output), inputs),
    _backward,
)
softmax_product = Operator(
    "softmax_product",
    "Tensor u, Tensor x, Tensor y, Tensor h, Tensor b -> Tensor",
    lambda u, x, y, h, b, *_: b.new_empty(x.shape[0], b.shape[1]),
    lambda ctx, inputs, output: None,
    _no_second_derivative,
)
