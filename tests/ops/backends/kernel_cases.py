"""Batches of kernel-product problems with every awkward shape in them, and how far a result is from the float64 oracle."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from shapeflow.ops import oracle
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged

KERNELS = (
    "gaussian",
    "laplacian",
    "cauchy",
    "inverse_multiquadric",
    "energy",
    "0.7*gaussian + 0.2*laplacian@2.0 + cauchy@0.5",
)
NAMES = ("x", "dx", "a", "da", "y", "dy", "b", "db")

# One point, no point on either side, both sides of a vector and of a row tile, more columns than one block.
ROWS = (1, 0, 15, 16, 17, 65, 3, 5, 33)
COLUMNS = (7, 3, 129, 1, 128, 300, 0, 5, 16)

# float32: a rounding of 6e-8 for each of D, r², the radial function (1.2e-7) and the sums, times |log k| <= 10. float64 likewise.
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-13}


def case(
    kernel: str = "gaussian",
    d: int = 3,
    e: int = 3,
    dtype: torch.dtype = torch.float32,
    rows: tuple[int, ...] = ROWS,
    columns: tuple[int, ...] = COLUMNS,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[dict[str, Tensor], Problem]:
    """Points of the unit cube, widths around 0.4 and one a problem; some rows coincide with columns."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    n, m = Ragged.of_sizes(rows), Ragged.of_sizes(columns)
    x, y = (
        torch.rand(n.total, d, generator=generator, dtype=torch.float64),
        torch.rand(m.total, d, generator=generator, dtype=torch.float64),
    )
    for i, j in zip(n.offsets[:-1], m.offsets[:-1], strict=True):
        if i < n.total and j < m.total:
            y[j] = x[i]
    tensors = {
        "x": x, "dx": normal(n.total, d), "a": normal(n.total, e), "da": normal(n.total, e),
        "y": y, "dy": normal(m.total, d), "b": normal(m.total, e), "db": normal(m.total, e),
    }  # fmt: skip
    sigma = 0.3 + 0.2 * torch.rand(n.count, generator=generator, dtype=torch.float64)
    move = {"dtype": dtype, "device": device}
    return {k: t.to(**move) for k, t in tensors.items()}, Problem(Radial.parse(kernel), sigma.to(**move), n, m)


def call(backend, op: str, t: dict[str, Tensor], problem: Problem) -> tuple[Tensor, ...]:
    """The operator `op` of a backend module on the tensors it takes; always a tuple."""
    wanted = {"product": "x y b", "gradient": "a x y b", "fused": "a x y b", "tangent": "x dx a da y dy b db"}[
        op
    ].split()
    out = getattr(backend, op)(*(t.get(name) for name in wanted), problem)
    return out if isinstance(out, tuple) else (out,)


def reference(op: str, t: dict[str, Tensor], problem: Problem) -> tuple[Tensor, ...]:
    """The oracle in float64, on the values as the backend saw them."""
    exact = Problem(problem.radial, problem.sigma.double().cpu(), problem.rows, problem.columns)
    with warnings.catch_warnings():
        # torch's own forward-mode code is deprecated by torch itself on import.
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*torch.jit.script.*")
        return call(oracle, op, {k: v.double().cpu() for k, v in t.items()}, exact)


def error(results: tuple[Tensor, ...], references: tuple[Tensor, ...]) -> float:
    """Largest error of any result over that result's largest entry."""
    worst = 0.0
    for out, exact in zip(results, references, strict=True):
        assert out.shape == exact.shape
        assert torch.isfinite(out).all()
        if exact.numel():
            worst = max(worst, float((out.cpu().double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30)))
    return worst
