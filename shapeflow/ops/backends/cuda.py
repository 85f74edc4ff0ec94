"""The operator family on CUDA: kernels/cuda.cu, and kernels/gaussian.cu where tensor cores can help, compiled by NVRTC for each specialisation
and launched on torch's current stream.

Rows are cut into tiles of R × 128; when tiles alone do not fill the card the columns are cut as well and a second kernel adds the parts in order.
Which tile meets which columns is decided on the host, from the offsets, and kept on the device: a call allocates its results from torch's
allocator, launches one or two kernels and never waits, so that it can be captured in a CUDA graph (after one call that compiles and plans).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.backends import nearby
from shapeflow.ops.backends.entries import entries, mask_of, nothing
from shapeflow.ops.backends.native_call import REAL, SLICE, at
from shapeflow.ops.backends.native_cpu import Specialization
from shapeflow.ops.backends.plans import Plans, constants
from shapeflow.ops.compile import nvrtc
from shapeflow.ops.compile.launch import Launch, architecture, current_stream
from shapeflow.ops.problem import Problem
from shapeflow.ragged import Ragged

THREADS, SPAN = 128, 256  # mirror kernels/tile.h
UNIT = 16  # columns that tensor cores take at once
MOST_FEATURES = {"product": 6, "gradient": 10, "fused": 6}  # whose rows stay in registers in kernels/gaussian.cu
# Pairs: with fewer, the longer start of a tensor tile is not paid back.
WORTH = {"product": 1 << 22, "gradient": 3 << 22, "fused": 3 << 22}
LIMIT = 56.0  # mirrors kernels/gaussian.cu
SMALLEST_CUT = 64  # columns: fewer are not worth a block
SLACK = 0.01  # of the estimated time, given for fewer cuts: each is a copy of the results in memory


def check() -> None:
    """Raise BackendError, saying what to install, if this backend cannot run here."""
    if not torch.cuda.is_available():
        raise BackendError("torch sees no CUDA device: install a CUDA build of torch and a driver, or use the CPU")
    nvrtc.compiler_version()


def exponents_on_tensor_cores(dtype: torch.dtype, d: int, terms: tuple[str, ...], arch: str) -> bool:
    """Whether a device of architecture `arch` ("sm_90") can take the exponents of a kernel from one mma (kernels/gaussian.h)."""
    return dtype == torch.float32 and terms == ("gaussian",) and d <= 3 and int(arch.removeprefix("sm_")) >= 80


def on_tensor_cores(spec: Specialization, arch: str) -> bool:
    """Whether kernels/gaussian.cu computes `spec` there."""
    possible = exponents_on_tensor_cores(spec.dtype, spec.d, spec.terms, arch)
    return possible and spec.e <= MOST_FEATURES.get(spec.op, 0)


def instance(spec: Specialization, r: int, tensor: bool = False) -> str:
    """The template instance of `spec` with tiles of `r` · 128 rows."""
    if tensor:
        return f"shapeflow_gaussian<{spec.op.upper()}, {spec.d}, {spec.e}, {r}>"
    terms = ", ".join(t.upper() for t in spec.terms)
    return f"shapeflow_tile<{spec.op.upper()}, {REAL[spec.dtype]}, {spec.d}, {spec.e}, {spec.mask}, {r}, {terms}>"


def rows_a_thread(spec: Specialization, tensor: bool = False) -> tuple[int, ...]:
    """The choices of R that keep a row's values and sums in registers."""
    if tensor:
        return (2, 4) if spec.op == "product" and spec.e <= 4 else (2,)
    v, g = spec.e * (spec.op != "gradient"), spec.d * (spec.op != "product")
    kept = spec.d + spec.e * (spec.op != "product") + (spec.d + spec.e) * (spec.op == "tangent") + 3 * (v + g)
    words = kept * (2 if spec.dtype == torch.float64 else 1)
    return tuple(r for r in (1, 2, 4) if r == 1 or r * words <= 112)


def warm(specs: Iterable[Specialization], device: torch.device | str = "cuda") -> int:
    """Compile (or find in the cache) every instance that `specs` may need on `device`; returns how many. Here every pair is met twice."""
    arch = architecture(torch.device(device).index or 0)
    names = [("cuda.cu", f"shapeflow_reduce<{real}>") for real in REAL.values()]
    for spec in dict.fromkeys(spec for spec in specs if not spec.mutual):
        names += [("cuda.cu", instance(spec, r)) for r in rows_a_thread(spec)]
        if on_tensor_cores(spec, arch):
            names += [("gaussian.cu", instance(spec, r, True)) for r in rows_a_thread(spec, True)]
    for source, name in names:
        nvrtc.kernel(source, name, arch)
    return len(names)


# Planning: on the host, once for each layout.


@dataclass(frozen=True)
class Tile:
    """What the cost of a kind of tile is made of, in units of 128 pairs."""

    threads: int
    resident: int  # blocks that share a multiprocessor
    fetch: float  # a column, beyond its R · 128 pairs
    start: float  # beginning and ending a block, for each R
    last: float  # blocks do not end together: how much of another wave is waited for


GENERAL, TENSOR = Tile(128, 4, 0.5, 300.0, 0.4), Tile(256, 2, 0.3, 500.0, 0.7)


def choose(
    tile: Tile, choices: tuple[int, ...], rows: tuple[int, ...], columns: tuple[int, ...], sms: int
) -> tuple[int, int]:
    """(R, columns a block at most) with about the least estimated time, and the fewest cuts that this allows.

    Blocks run in waves of `tile.resident` for each of `sms` multiprocessors; the last wave costs as much as a full one, and some more.
    """
    n, m = np.array(rows), np.array(columns)
    longest = max(int(m.max(initial=1)), SMALLEST_CUT)
    parts = sorted({*range(1, 33), *(1 << k for k in range(5, 20))})
    lengths = [
        max(-(-longest // part), SMALLEST_CUT) for part in parts if part == 1 or longest > SMALLEST_CUT * (part - 1)
    ]

    def cost(r: int, length: int) -> float:
        tiles = -(-n // (r * THREADS))
        blocks = max(int((tiles * np.maximum(-(-m // length), 1)).sum()), 1)
        waves = -(-blocks // (sms * tile.resident))
        return (waves + tile.last * (waves > 1)) * (
            float((tiles * m).sum()) / blocks * (r + tile.fetch) + tile.start * (r + 0.5)
        )

    costs = {(r, length): cost(r, length) for r in reversed(choices) for length in lengths}
    enough = (1 + SLACK) * min(costs.values())
    return max((choice for choice in costs if costs[choice] <= enough), key=lambda choice: choice[1])


def tile_map(
    rows: Ragged, columns: Ragged, r: int, length: int, unit: int = UNIT
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items (n, 7) and cut tiles (t, 4) of kernels/tile.h, and the blocks of SPAN columns (b, 2).

    Columns are cut into nearly equal parts of at most about `length`, between two columns whose place in the problem is a multiple of `unit`.
    """
    tile = r * THREADS
    items, cut, spans = [], [], []
    slots = 0
    for p, (i, end, j, last) in enumerate(
        zip(rows.offsets, rows.offsets[1:], columns.offsets, columns.offsets[1:], strict=False)
    ):
        m, units = last - j, -(-(last - j) // unit)
        cuts = min(max(1, -(-m // length)), max(1, units))
        bounds = [min(unit * (units * s // cuts), m) for s in range(cuts + 1)]
        for row in range(i, end, tile):
            stop = min(row + tile, end)
            for s in range(cuts):
                slot = slots + s if cuts > 1 else -1
                items.append((p, row, stop, j + bounds[s], j + bounds[s + 1], slot, len(spans) + bounds[s] // SPAN))
            if cuts > 1:
                cut.append((row, stop, slots, cuts))
                slots += cuts
        spans += [(begin, min(begin + SPAN, last)) for begin in range(j, last, SPAN)]
    shapes = (items, 7), (cut, 4), (spans, 2)
    return tuple(np.array(values, np.int64).reshape(-1, width) for values, width in shapes)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class _Plan:
    """One layout on one device: the launches, and the tensors and objects that must outlive them."""

    slots: int  # partial sums, each r · THREADS rows of every output
    tile: Launch
    reduce: Launch | None
    boxes: Launch | None  # of blocks of columns, where far ones are skipped
    alive: tuple[Any, ...] = field(repr=False)


_plans: Plans[_Plan] = Plans("this kernel product", most=2048)


def _plan(
    op: str, e: int, mask: int, d: int, dtype: torch.dtype, problem: Problem, device: torch.device, reach: float
) -> _Plan:
    key = (op, e, mask, d, dtype, reach, id(problem.radial), id(problem.rows), id(problem.columns), device.index)
    return _plans.get(key, _make_plan, op, e, mask, d, dtype, problem, device, reach)


def _make_plan(
    op: str, e: int, mask: int, d: int, dtype: torch.dtype, problem: Problem, device: torch.device, reach: float
) -> _Plan:
    terms, arch = problem.radial.terms, architecture(device.index)
    spec = Specialization(op, tuple(t.name for t in terms), dtype, d, e, mask)
    pairs = sum(n * m for n, m in zip(problem.rows.sizes, problem.columns.sizes, strict=True))
    tensor = on_tensor_cores(spec, arch) and pairs >= WORTH[op]
    sms = torch.cuda.get_device_properties(device).multi_processor_count
    kind = TENSOR if tensor else GENERAL
    r, length = choose(kind, rows_a_thread(spec, tensor), problem.rows.sizes, problem.columns.sizes, sms)
    mapped = tile_map(problem.rows, problem.columns, r, length, SPAN if reach else UNIT)
    items, cut, spans = (torch.from_numpy(t).to(device) for t in mapped)
    numbers = constants(problem.radial, device)
    source = "gaussian.cu" if tensor else "cuda.cu"
    nv, ng = e * (op != "gradient"), d * (op != "product")
    tile = Launch(_kernel(source, instance(spec, r, tensor), arch), (len(items), 1), kind.threads)
    tile.fix(0, items.data_ptr())
    tile.fix(2, numbers.data_ptr(), problem.radial.epsilon)
    tile.fix(18, 0, reach)
    reduce = boxes = None
    if len(cut):
        kernel = _kernel("cuda.cu", f"shapeflow_reduce<{REAL[dtype]}>", arch)
        reduce = Launch(kernel, (len(cut) * r, nv + ng), THREADS)
        reduce.fix(0, cut.data_ptr())
        reduce.fix(4, r * THREADS, nv, ng)
    if reach:
        kernel = _kernel("cuda.cu", f"shapeflow_boxes<{REAL[dtype]}, {d}, {e}, {mask}>", arch)
        boxes = Launch(kernel, (len(spans), 1), THREADS)
        boxes.fix(0, spans.data_ptr())
    slots = int(mapped[1][:, 3].sum()) * r * THREADS * (nv + ng)
    alive = (problem.radial, problem.rows, problem.columns, items, cut, spans, numbers)
    return _Plan(slots, tile, reduce, boxes, alive)


@cache
def _kernel(source: str, name: str, arch: str) -> Any:
    return nvrtc.kernel(source, name, arch)


def _run(op: str, problem: Problem, x, dx, a, da, y, dy, b, db, v, g) -> None:
    """Write v and g, by way of sorted points where that pays."""
    if x.device.index != torch.cuda.current_device():
        with torch.cuda.device(x.device):
            return _run(op, problem, x, dx, a, da, y, dy, b, db, v, g)
    large = x.shape[0] * y.shape[0] >= nearby.COSTS["cuda"].fewest  # what decides costs a few microseconds itself
    order = nearby.order(op, x, y, problem, _compact(op, x, b, problem) if large else math.inf, _EYES)
    if order is None:
        return _sums(op, problem, 0.0, x, dx, a, da, y, dy, b, db, v, g)
    _plan_all(op, problem, 0.0, x, dx, da, dy, b, db)  # a graph cannot sort: what it will run is made ready
    given, out = order.sort(x, dx, a, da, y, dy, b, db), order.like(v, g)
    _sums(op, problem, order.reach, *given, *out)
    order.scatter(out, (v, g))


def _compact(op: str, x: Tensor, b: Tensor, problem: Problem) -> float:
    """The radius, in widths, up to which rows are computed on tensor cores (LIMIT); infinite where they never are."""
    spec = Specialization(op, tuple(t.name for t in problem.radial.terms), x.dtype, x.shape[1], b.shape[1])
    return math.sqrt(LIMIT * math.log(2)) if on_tensor_cores(spec, architecture(x.device.index)) else math.inf


def _morton(points: Tensor, low: Sequence[float], scale: float) -> Tensor:
    """nearby.morton in one launch."""
    n, d, used = points.shape[0], points.shape[1], len(low)
    kernel = _kernel("cuda.cu", f"shapeflow_morton<{REAL[points.dtype]}, {used}>", architecture(points.device.index))
    codes = torch.empty(n, dtype=torch.int32, device=points.device)
    launch = Launch(kernel, (-(-n // THREADS), 1), THREADS)
    launch.fix(0, points.data_ptr(), n, d, *low, *(0.0,) * (3 - used), float(scale), codes.data_ptr())
    launch(current_stream(points.device.index))
    return codes


def _extent(points: Sequence[Tensor], sigma: Tensor) -> list[float]:
    """nearby.extent in one launch."""
    x, y, d = points[0], points[-1], points[0].shape[1]
    kernel = _kernel("cuda.cu", f"shapeflow_extent<{REAL[x.dtype]}>", architecture(x.device.index))
    out = x.new_empty(2 * d + 1)
    n = x.shape[0] if len(points) > 1 else 0
    launch = Launch(kernel, (1, 1), 4 * THREADS)
    launch.fix(
        0, x.data_ptr(), n, y.data_ptr(), y.shape[0], nearby.SAMPLE, d, sigma.data_ptr(), sigma.shape[0], out.data_ptr()
    )
    launch(current_stream(x.device.index))
    return out.tolist()


_EYES = nearby.Eyes(_extent, _morton)


def _plan_all(op: str, problem: Problem, reach: float, x, dx, da, dy, b, db) -> list[_Plan]:
    """A plan for each slice of the features."""
    mask, e = mask_of(dx, da, dy, db), b.shape[1]
    widths = (min(SLICE, e - begin) for begin in range(0, e, SLICE))
    return [_plan(op, width, mask, x.shape[1], x.dtype, problem, x.device, reach) for width in widths]


def _sums(op: str, problem: Problem, reach: float, x, dx, a, da, y, dy, b, db, v, g) -> None:
    """Launch slice by slice of the features. Columns farther than reach × σ may be skipped (0: none)."""
    e, d = b.shape[1], x.shape[1]
    if nothing(op, mask_of(dx, da, dy, db), e, v, g) or problem.rows.total == 0:
        return
    stream = current_stream(x.device.index)
    for part, plan in enumerate(_plan_all(op, problem, float(reach), x, dx, da, dy, b, db)):
        mine = g if part == 0 or g is None else torch.empty_like(g)
        partial = x.new_empty(plan.slots) if plan.slots else None
        shift = part * SLICE * x.element_size()
        columns = y.data_ptr(), at(dy), b.data_ptr() + shift, at(db, shift)
        box = None
        if plan.boxes is not None:
            box = x.new_empty(plan.boxes.grid[0] * 2 * d)
            plan.boxes(stream, (1, *columns, box.data_ptr(), e))
        plan.tile(
            stream, (1, problem.sigma.data_ptr()),
            (4, x.data_ptr(), at(dx), at(a, shift), at(da, shift), *columns, at(v, shift), at(mine), at(partial), e, e, e, at(box)),
        )  # fmt: skip
        if plan.reduce is not None:
            plan.reduce(stream, (1, at(partial), at(v, shift), at(mine)), (7, e))
        if mine is not g and g is not None:
            g += mine


product, gradient, fused, tangent = entries(_run)
