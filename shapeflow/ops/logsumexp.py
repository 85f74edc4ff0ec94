"""The log-sum-exp product of entropic optimal transport.

    l_i = log Σ_j exp(h_j − |x_i − y_j|²/σ²)

With squared distances as cost and temperature ε, σ² = ε (cost |x−y|²) or 2ε (cost ½|x−y|²); h_j = log β_j + g_j/ε
makes −ε l_i Sinkhorn's new potential.
Memory is O(N + M). Derivatives, of first order and in every argument, come from the soft-max product with weights
w_ij = exp(h_j − |x_i − y_j|²/σ² − l_i):

    ∂l_i/∂h_j = w_ij      ∂l_i/∂x_i = −(2/σ²) (x_i − Σ_j w_ij y_j)      ∂l_i/∂y_j = (2/σ²) w_ij (x_i − y_j)

and in σ by homogeneity, as for the other operators. A Sinkhorn divergence needs no more: at its fixed point the
potentials' own derivative drops out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapeflow.errors import KernelError
from shapeflow.ops.backend import resolve
from shapeflow.ops.backends import softmax
from shapeflow.ops.problem import Problem
from shapeflow.ops.products import Offsets, _check, _layouts, _sigma
from shapeflow.ops.radial import Radial


def kernel_logsumexp(
    x: Tensor,
    y: Tensor,
    h: Tensor,
    sigma: Any,
    *,
    rows: Offsets = None,
    columns: Offsets = None,
    backend: str | None = None,
) -> Tensor:
    """l_i = log Σ_j exp(h_j − |x_i − y_j|²/σ²), (N,).

    x (N, d), y (M, d) positions; h (M,) logarithms of weights, −∞ for a weight of zero; σ in mesh units, a number or
    one for each problem of the batch.
    A row without any column gives −∞.
    """
    if h.ndim != 1:
        raise KernelError(f"`h` must be one logarithm a column, ({y.shape[0]},); received {tuple(h.shape)}")
    _check({"x": x, "y": y, "b": h[:, None]})
    n, m = _layouts(x, y, rows, columns)
    width = _sigma(sigma, n.count, x)
    return _LogSumExp.apply(x, y, h, width, n, m, resolve(backend, x.device))  # type: ignore[no-any-return]


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, h, sigma, rows, columns, backend):
        x, y, h = x.contiguous(), y.contiguous(), h.contiguous()
        problem = Problem(Radial.parse("gaussian"), sigma.detach(), rows, columns)
        out = softmax.logsumexp(x, y, h, problem, backend)
        ctx.save_for_backward(x, y, h, out)
        ctx.problem, ctx.backend = problem, backend
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, G: Tensor):
        x, y, h, out = ctx.saved_tensors
        problem, backend = ctx.problem, ctx.backend
        rows, columns = problem.rows, problem.columns
        scale = 2 / problem.sigma**2
        # Differences of barycentres lose digits far from the origin, and the total over σ is free of the centre: move
        # it close.
        centre = columns.sum(y) / torch.tensor(columns.sizes, dtype=y.dtype, device=y.device).clamp_min(1)[:, None]
        x, y = x - rows.spread(centre), y - columns.spread(centre)
        # A row without weights has l = −∞ and no derivative.
        some = out > -torch.inf
        u, G = torch.where(some, -out, -torch.inf), torch.where(some, G, 0)
        grad_x = grad_y = grad_h = grad_sigma = None
        need_x, need_y, need_h, need_sigma = ctx.needs_input_grad[:4]
        if need_x or need_sigma:
            mean = softmax.softmax_product(u, x, y, h, y, problem, backend)
            grad_x = (
                -rows.spread(scale)[:, None]
                * torch.where(some, G, 0)[:, None]
                * torch.where(some[:, None], x - mean, 0)
            )
        if need_y or need_h or need_sigma:
            b = torch.cat([G[:, None], G[:, None] * x], dim=1)
            moments = softmax.softmax_product(h, y, x, u, b, problem.transposed(), backend)
            grad_h = moments[:, 0].contiguous()
            grad_y = columns.spread(scale)[:, None] * (moments[:, 1:] - y * grad_h[:, None])
        if need_sigma:
            assert grad_x is not None and grad_y is not None
            grad_sigma = -(rows.sum((x * grad_x).sum(1)) + columns.sum((y * grad_y).sum(1))) / problem.sigma
        return grad_x, grad_y, grad_h, grad_sigma, None, None, None
