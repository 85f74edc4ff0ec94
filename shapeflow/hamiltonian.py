"""The Hamiltonian of a shape metric, for any caller: arguments checked, one configuration or a batch (the mathematics is in shapeflow/metric)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from shapeflow.errors import ShapeflowError
from shapeflow.metric import metric
from shapeflow.normalization import Normalization
from shapeflow.ops import Radial, resolve
from shapeflow.ops.bound import Kernel
from shapeflow.ragged import Ragged


def hamiltonian(
    q: Tensor,
    p: Tensor,
    *,
    masses: Tensor | None = None,
    kernel: str | Radial = "gaussian",
    sigma: Any,
    normalization: str | Normalization = "none",
    rows: Ragged | None = None,
    backend: str | None = None,
) -> Tensor:
    """H(q, p) = ½ ⟨p, G_q p⟩: a scalar, or (B,) for a batch laid out by `rows`.

    q, p (N, d); masses (N,), ones unless given (unused without normalization); sigma in mesh units, one number or
    (B,). H has the unit of |p|²/μ when normalized: with masses that sum to one and p = μ ⊗ c, H = ½|c|². Twice
    differentiable in q and p. Source: docs/mathematics.md §2–3.
    """
    if q.shape != p.shape or q.ndim != 2:
        raise ShapeflowError(f"q and p must both be (n, d); received {tuple(q.shape)} and {tuple(p.shape)}")
    layout = rows or Ragged((0, q.shape[0]))
    width = torch.as_tensor(sigma, dtype=q.dtype, device=q.device).expand(layout.count).contiguous()
    mu = torch.ones_like(q[:, 0]) if masses is None else masses
    if mu.shape != q.shape[:1] or not bool((mu > 0).all()):
        raise ShapeflowError(
            f"masses must be {q.shape[0]} positive numbers, one a point; received shape {tuple(mu.shape)}, minimum {float(mu.min()):.3g}"
        )
    options = Normalization(normalization) if isinstance(normalization, str) else normalization
    bound = Kernel(str(Radial.parse(kernel)), width, resolve(backend, q.device))
    value = metric(bound, layout, mu, options).hamiltonian(q, p)
    return value if rows is not None else value[0]
