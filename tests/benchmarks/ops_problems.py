"""The work that is timed, in the three ways it can be asked for: our operators, PyKeOps' autograd, torch tiles.

product   v_i = Σ_j exp(−|q_i − q_j|²/σ²) p_j                 n points of the unit cube, σ = 0.2, d = e = 3
fused     v = ∂H/∂p and g = ∂H/∂q of H = ½⟨p, K_q p⟩
vjp       the product of a cotangent (V, h) with the Jacobian of (v, g): what one step of a matching's gradient needs
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged

SIGMA = 0.2
WORK = ("product", "fused", "vjp")


@dataclass(frozen=True)
class Points:
    q: Tensor
    p: Tensor
    V: Tensor
    h: Tensor

    @staticmethod
    def random(
        n: int, d: int = 3, e: int = 3, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0
    ) -> Points:
        g = torch.Generator().manual_seed(seed)
        q = torch.rand(n, d, generator=g, dtype=torch.float64)
        p, V, h = (torch.randn(n, k, generator=g, dtype=torch.float64) for k in (e, e, d))
        return Points(*(t.to(device, dtype) for t in (q, p, V, h)))

    def double(self) -> Points:
        return Points(*(t.double() for t in (self.q, self.p, self.V, self.h)))


def backend_call(module: ModuleType, work: str, t: Points, layout: Ragged | None = None) -> Callable[[], object]:
    """One of our backends; all points of a layout's problem interact with each other."""
    layout = layout or Ragged((0, t.q.shape[0]))
    sigma = torch.full((layout.count,), SIGMA, dtype=t.q.dtype, device=t.q.device)
    problem = Problem(Radial.parse("gaussian"), sigma, layout, layout)
    if work == "product":
        return lambda: module.product(t.q, t.q, t.p, problem)
    if work == "fused":
        return lambda: module.fused(t.p, t.q, t.q, t.p, problem)
    return lambda: module.tangent(t.q, t.h, t.p, t.V, t.q, t.h, t.p, t.V, problem)


def keops_call(work: str, t: Points) -> Callable[[], object]:
    """The same by PyKeOps and its autograd, as its documentation's LDDMM example does it."""
    from pykeops.torch import Vi, Vj

    scale = 1 / SIGMA**2

    def product(q: Tensor, p: Tensor) -> Tensor:
        return ((-((Vi(q) - Vj(q)) ** 2).sum(-1) * scale).exp() * Vj(p)).sum(1)

    def fused(create_graph: bool, q: Tensor, p: Tensor):
        H = 0.5 * (p * product(q, p)).sum()
        return torch.autograd.grad(H, (p, q), create_graph=create_graph)

    def vjp():
        q, p = t.q.detach().requires_grad_(), t.p.detach().requires_grad_()
        v, g = fused(True, q, p)
        return torch.autograd.grad((v * t.V).sum() + (g * t.h).sum(), (p, q))

    if work == "product":
        return lambda: product(t.q, t.p)
    if work == "fused":
        return lambda: fused(False, t.q.detach().requires_grad_(), t.p.detach().requires_grad_())
    return vjp
