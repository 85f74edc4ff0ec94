"""Ragged log-sum-exp problems with the shapes and weights that go wrong, and their dense float64 twin."""

from __future__ import annotations

import torch
from kernel_cases import case
from torch import Tensor

from shapeflow.ops.problem import Problem

# l is a logarithm of up to a few hundred and a rounding of the exponents is one of l: relative where l is large, absolute where it is small.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}


def weighted(
    d: int = 3, e: int = 3, dtype=torch.float32, rows=(1, 0, 129, 300, 3), columns=(7, 3, 300, 129, 0), device="cpu"
) -> tuple[dict[str, Tensor], Problem]:
    """Tensors u, x, y, h, b: logarithms spread over hundreds, a tenth of the weights zero, none left in the first of several problems; u = −l where there
    are weights.
    """
    tensors, problem = case(d=d, e=e, dtype=dtype, rows=rows, columns=columns, device=device)
    g = torch.Generator().manual_seed(1)
    m = problem.columns.total
    h = 30 * torch.randn(m, generator=g, dtype=torch.float64)
    h[torch.rand(m, generator=g) < 0.1] = -torch.inf
    if len(columns) > 1:
        h[: columns[0]] = -torch.inf
    t = {k: tensors[k] for k in ("x", "y", "b")} | {"h": h.to(device, dtype)}
    logs = dense(t, problem)[0]
    u = torch.where(logs > -torch.inf, -logs, -torch.inf).to(device, dtype)
    return t | {"u": u}, problem


def dense(t: dict[str, Tensor], problem: Problem) -> tuple[Tensor, Tensor | None]:
    """(l, v) in float64 on the CPU, by whole matrices; v is None without u."""
    x, y, h, b, sigma = (s.double().cpu() for s in (t["x"], t["y"], t["h"], t["b"], problem.sigma))
    exponents = [
        h[j] - (x[i, None] - y[None, j]).square().sum(2) / s**2
        for i, j, s in zip(problem.rows.slices(), problem.columns.slices(), sigma, strict=True)
    ]
    logs = torch.cat(
        [k.logsumexp(1) if k.shape[1] else torch.full(k.shape[:1], -torch.inf).double() for k in exponents]
    )
    if "u" not in t:
        return logs, None
    u = t["u"].double().cpu()
    v = [
        (u[i, None] + k).exp() @ b[j]
        for i, j, k in zip(problem.rows.slices(), problem.columns.slices(), exponents, strict=True)
    ]
    return logs, torch.cat(v)


def check(backend, t: dict[str, Tensor], problem: Problem) -> tuple[Tensor, Tensor]:
    """Compare both functions of a backend with the dense twin; returns what they gave."""
    logs, v = dense(t, problem)
    tolerance = TOLERANCE[t["x"].dtype]
    got_l = backend.logsumexp(t["x"], t["y"], t["h"], problem)
    got_v = backend.softmax_product(t["u"], t["x"], t["y"], t["h"], t["b"], problem)
    torch.testing.assert_close(got_l.double().cpu(), logs, rtol=tolerance, atol=10 * tolerance)
    # Weights err by the rounding of their exponents, of size |u| + |h| + r²/σ².
    size = 1 + t["u"][t["u"] > -torch.inf].abs().max().item() if (t["u"] > -torch.inf).any() else 1
    assert v is not None
    torch.testing.assert_close(
        got_v.double().cpu(), v, rtol=0, atol=tolerance * size * max(t["b"].abs().flatten().tolist(), default=0)
    )
    return got_l, got_v
