"""Sub-quadratic sums: kernels that decay fast need only the columns nearby.

Points are sorted along a Morton curve, so that a tile of rows and a block of columns are small boxes, and pairs of boxes farther apart than

    ρ σ,   where every term's ρ^m f(ρ) has fallen to `tolerance` times its largest value

are skipped (kernels/boxes.h); m = 0, 1, 2 is how often the operator differentiates, since each derivative of k carries a factor r/σ². So each skipped pair
is off by at most `tolerance` times the largest contribution that a pair with these features can make: 1e-7 in float32 and 1e-16 in float64, and a sum keeps
the accuracy that its rounding allows.

SHAPEFLOW_NEARBY_TOLERANCE sets another tolerance, for either precision: 1e-4 skips more, 1e-12 less.

It is used when sorting costs less than it is expected to save; SHAPEFLOW_NEARBY=0 switches it off, =1 forces it. On CUDA, looking at the points waits for the
device: only large calls do, and none while a graph is recorded. There, sorting also makes rows compact, which kernels/gaussian.cu needs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged
from shapeflow.replay import is_recorded

SAMPLE = 4096  # points that are looked at to decide
CORNERS = 0.95  # of the pairs are left where each length of the box is within reach, but not its diagonal
BITS = 30  # of a Morton code, for one to three coordinates: sorting 32 bits takes half the time of 64
TOLERANCE = {torch.float32: 1e-7, torch.float64: 1e-16}


@dataclass(frozen=True)
class Costs:
    """What decides whether sorting pays, in seconds; only ratios matter. Below `fewest` pairs (`product`, of a product) a dense call is too short to look."""

    fewest: int
    product: int
    sort: float  # whatever the size
    point: float
    pair: float


COSTS = {
    "cpu": Costs(1 << 26, 1 << 26, 0, 3e-7, 3e-10),  # of one core
    "cuda": Costs(1 << 31, 1 << 32, 4e-4, 2e-9, 6e-13),
}


@dataclass(frozen=True)
class Eyes:
    """What looks at the points: `extent` and `morton` below, or their equals in one launch each."""

    extent: Callable[[Sequence[Tensor], Tensor], list[float]]
    morton: Callable[[Tensor, Sequence[float], float], Tensor]


@dataclass(frozen=True)
class Order:
    """Rows and columns sorted in space: `x[rows]` and `y[columns]`, and how far a column can matter, in units of σ."""

    rows: Tensor
    columns: Tensor
    reach: float

    def sort(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """x, dx, a, da, y, dy, b, db in this order; what is one tensor stays one."""
        places, done = (self.rows,) * 4 + (self.columns,) * 4, {}
        for t, place in zip(tensors, places, strict=True):
            if t is not None and (id(t), id(place)) not in done:
                done[id(t), id(place)] = t.index_select(0, place)
        return [None if t is None else done[id(t), id(place)] for t, place in zip(tensors, places, strict=True)]

    @staticmethod
    def like(*results: Tensor | None) -> list[Tensor | None]:
        return [None if t is None else torch.empty_like(t) for t in results]

    def scatter(self, values: Sequence[Tensor | None], results: Sequence[Tensor | None]) -> None:
        """Put the results of sorted rows back where the rows came from."""
        for out, value in zip(results, values, strict=True):
            if out is not None and value is not None:
                out.index_copy_(0, self.rows, value)


def tolerance(dtype: torch.dtype) -> float:
    """What a skipped contribution may be, as a share of the largest: SHAPEFLOW_NEARBY_TOLERANCE, or what rounding allows."""
    wanted = os.environ.get("SHAPEFLOW_NEARBY_TOLERANCE")
    if not wanted:
        return TOLERANCE[dtype]
    try:
        value = float(wanted)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise BackendError(f"SHAPEFLOW_NEARBY_TOLERANCE must be a number between 0 and 1; received {wanted!r}")
    return value


_DECAY = {"gaussian": 2, "laplacian": 1}  # f(ρ) = exp(−ρ^n)
_DERIVATIVES = {"product": 0, "gradient": 1, "fused": 1, "tangent": 2}


def reach(radial: Radial, dtype: torch.dtype, op: str) -> float | None:
    """ρ, or None for a kernel whose tails never end."""
    return _reach(radial, tolerance(dtype), _DERIVATIVES[op])


@lru_cache(maxsize=256)
def _reach(radial: Radial, tolerance: float, m: int) -> float | None:
    if not all(t.name in _DECAY for t in radial.terms):
        return None
    return max(_fallen(_DECAY[t.name], m, tolerance, radial.epsilon) * t.ratio for t in radial.terms)


def _fallen(n: int, m: int, tolerance: float, epsilon: float) -> float:
    """ρ with ρ^m exp(−ρ^n) = tolerance × its maximum, which is at ρ^n = m/n. A laplacian is exp(ε − √(ρ² + ε²)), behind by ε at most."""
    maximum = m / n * (math.log(m / n) - 1) if m else 0.0
    rho = 1.0
    for _ in range(60):  # a contraction beyond the maximum, by m / (n ρ^n)
        rho = (m * math.log(max(rho, 1.0)) - maximum - math.log(tolerance)) ** (1 / n)
    return rho + (epsilon if n == 1 else 0.0)


def order(
    op: str, x: Tensor, y: Tensor, problem: Problem, compact: float = math.inf, eyes: Eyes | None = None
) -> Order | None:
    """How to sort this call's points, or None to visit every pair.

    Tiles of rows whose radius is over `compact` widths run at half speed, unless they are sorted.
    """
    wanted, costs = os.environ.get("SHAPEFLOW_NEARBY", ""), COSTS[x.device.type]
    fewest = costs.product if op == "product" else costs.fewest
    if x.shape[0] * y.shape[0] < fewest and wanted != "1":
        return None  # before anything that costs a microsecond
    if is_recorded(x):
        return None
    pairs = sum(n * m for n, m in zip(problem.rows.sizes, problem.columns.sizes, strict=True))
    if wanted == "0" or pairs == 0 or (pairs < fewest and wanted != "1"):
        return None
    radius = reach(problem.radial, x.dtype, op)
    if radius is None:
        return None
    same = problem.among(x, y)
    eyes, d = eyes or Eyes(extent, morton), x.shape[1]
    *box, widest = eyes.extent((y,) if same else (x, y), problem.sigma)  # waits for the device, once
    low = [v if math.isfinite(v) else 0.0 for v in box[:d]]
    lengths = [b - a if math.isfinite(b - a) else 0.0 for a, b in zip(box[:d], box[d:], strict=True)]
    if wanted != "1" and not _pays(x, y, lengths, widest, radius, pairs, costs, compact):
        return None
    grid = low[:3], max(lengths[:3])
    columns = _sorted(y, problem.columns, *grid, eyes)
    return Order(columns if same else _sorted(x, problem.rows, *grid, eyes), columns, radius)


def extent(points: Sequence[Tensor], sigma: Tensor) -> list[float]:
    """Low corner, high corner of a sample of the points (d each), and the largest width.

    NumPy's reductions, not torch's: those open an OpenMP region, whose threads then wait busily for milliseconds on the cores that the sums need.
    """
    sample = np.concatenate([p[:: max(1, p.shape[0] // SAMPLE)].detach().cpu().numpy() for p in points])
    return [*sample.min(0).tolist(), *sample.max(0).tolist(), float(sigma.detach().cpu().numpy().max())]


def _pays(
    x: Tensor,
    y: Tensor,
    lengths: Sequence[float],
    widest: float,
    radius: float,
    pairs: int,
    costs: Costs,
    compact: float,
) -> bool:
    """Expected saving against the cost of sorting.

    The share of pairs that stay is estimated as if the points filled the box around all of them, widened by the boxes of tiles and blocks
    (an eighth of the extent, at most); one problem stands for the batch.
    """
    stays = CORNERS if math.hypot(*lengths) > radius * widest else 1.0
    for length in lengths:
        stays *= min(1.0, 2 * radius * widest / length + 0.125) if length > 0 else 1.0
    if math.hypot(*lengths) / 2 > compact * widest:
        stays *= 0.5
    workers = 1 if x.is_cuda else torch.get_num_threads()
    saved = (1 - stays) * pairs * costs.pair / workers
    return saved > costs.sort + costs.point * (x.shape[0] + y.shape[0])


def _sorted(points: Tensor, layout: Ragged, low: Sequence[float], size: float, eyes: Eyes) -> Tensor:
    """(n,) permutation along a Morton curve, problem by problem; stable, so that equal inputs give equal bits."""
    if not size > 0:
        return torch.arange(points.shape[0], device=points.device)
    code = eyes.morton(points, low, (2 ** (BITS // len(low)) - 1) / size)
    if layout.count > 1:
        code = code + (layout.owner().to(code.device) << BITS)
    return torch.argsort(code, stable=True)


def morton(points: Tensor, low: Sequence[float], scale: float) -> Tensor:
    """(n,) int32: the cells (p − low) · scale of the first coordinates, their bits interleaved. Points outside the box go to its edge."""
    d = len(low)
    place = (points[:, :d] - torch.tensor(low, dtype=points.dtype, device=points.device)) * scale
    most = 2 ** (BITS // d)
    cells = place.nan_to_num(0).clamp(0, most).long().clamp(max=most - 1)
    return (_spread(cells, d) << torch.arange(d, device=cells.device)).sum(1).int()


# Where the bits of a number go when they are moved 2 or 3 places apart, by halves: shift and mask of each step.
_STEPS = {
    1: (),
    2: ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)),
    3: ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)),
}


def _spread(cell: Tensor, d: int) -> Tensor:
    """The bits of `cell`, d places apart: a few passes whatever their number, since on a device each is a launch."""
    for shift, mask in _STEPS[d]:
        cell = (cell | cell << shift) & mask
    return cell
