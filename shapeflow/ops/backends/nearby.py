"""Sub-quadratic sums: kernels that decay fast need only the columns nearby.

Points are sorted along a Morton curve, so that a tile of rows and a block of columns are small boxes, and pairs of boxes farther apart than

    ρ σ,   where every term f_m(ρ²/ratio_m²) <= tolerance

are skipped (kernels/boxes.h). Each skipped pair is off by at most `tolerance` times k(0) |b_j|: 1e-7 in float32 and 1e-16 in float64, so a sum keeps
the accuracy that its rounding allows. Derivatives carry factors r/σ² and their square: their tolerance is a hundred times smaller.

It is used when sorting costs less than it is expected to save; SHAPEFLOW_NEARBY=0 switches it off, =1 forces it.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged

TOLERANCE = {torch.float32: 1e-7, torch.float64: 1e-16}
FEWEST_PAIRS = 1 << 26  # below this a dense call takes less than 10 ms on one core
SORT, PAIR = 3e-7, 3e-10  # seconds a point and a pair, on one core: only their ratio matters


@dataclass(frozen=True)
class Order:
    """Rows and columns sorted in space: `x[rows]` and `y[columns]`, and how far a column can matter, in units of σ."""

    rows: Tensor
    columns: Tensor
    reach: float


@lru_cache(maxsize=256)
def reach(radial: Radial, dtype: torch.dtype, derivative: bool) -> float | None:
    """ρ, or None for a kernel whose tails never end."""
    tolerance = TOLERANCE[dtype] * (1e-2 if derivative else 1.0)
    logarithm = -math.log(tolerance)
    lengths = {"gaussian": math.sqrt(logarithm), "laplacian": logarithm + radial.epsilon}
    if not all(t.name in lengths for t in radial.terms):
        return None
    return max(lengths[t.name] * t.ratio for t in radial.terms)


def order(op: str, x: Tensor, y: Tensor, problem: Problem) -> Order | None:
    """How to sort this call's points, or None to visit every pair."""
    wanted = os.environ.get("SHAPEFLOW_NEARBY", "")
    if x.shape[0] * y.shape[0] < FEWEST_PAIRS and wanted != "1":
        return None  # before anything that costs a microsecond
    pairs = sum(n * m for n, m in zip(problem.rows.sizes, problem.columns.sizes, strict=True))
    if wanted == "0" or pairs == 0 or (pairs < FEWEST_PAIRS and wanted != "1"):
        return None
    radius = reach(problem.radial, x.dtype, op != "product")
    if radius is None or (wanted != "1" and not _pays(x, y, problem, radius, pairs)):
        return None
    columns = _sorted(y, problem.columns)
    same = x.data_ptr() == y.data_ptr() and problem.rows == problem.columns
    return Order(columns if same else _sorted(x, problem.rows), columns, radius)


def _pays(x: Tensor, y: Tensor, problem: Problem, radius: float, pairs: int) -> bool:
    """Expected saving against the cost of sorting.

    The share of pairs that stay is estimated as if the points filled the box around all of them, widened by the boxes of tiles and blocks
    (an eighth of the extent, at most); one problem stands for the batch.
    """
    extent = y.amax(0) - y.amin(0)
    span = 2 * radius * float(problem.sigma.max())
    stays = 1.0
    for length in extent.tolist():
        if length > 0 and math.isfinite(length):
            stays *= min(1.0, span / length + 0.125)
    saved = (1 - stays) * pairs * PAIR / torch.get_num_threads()
    return saved > SORT * (x.shape[0] + y.shape[0])


def _sorted(points: Tensor, layout: Ragged) -> Tensor:
    """(n,) permutation along a Morton curve, problem by problem; stable, so that equal inputs give equal bits."""
    used = points[:, :3]
    low = used.amin(0)
    size = float((used.amax(0) - low).max())
    if not (size > 0 and math.isfinite(size)):
        return torch.arange(points.shape[0])
    bits = 20 if used.shape[1] < 3 else 14
    cells = ((used - low) * ((2**bits - 1) / size)).long()
    code = torch.stack([_spread(cells[:, k], used.shape[1], bits) << k for k in range(used.shape[1])]).sum(0)
    if layout.count > 1:
        code = code + (layout.owner() << 42)
    return torch.argsort(code, stable=True)


def _spread(cell: Tensor, d: int, bits: int) -> Tensor:
    """The bits of `cell`, d places apart."""
    if d == 1:
        return cell
    out = torch.zeros_like(cell)
    for bit in range(bits):
        out |= (cell >> bit & 1) << (bit * d)
    return out
