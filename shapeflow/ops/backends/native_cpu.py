"""The operator family on the CPU: kernels/cpu.cpp, and kernels/mutual.cpp where each pair need be met only once, compiled once for each specialisation and
called through ctypes.

A specialisation is (operator, kernel's terms, dtype, d, e, which tangents are given, which source). More than `SLICE` features are cut into slices:
v is computed slice by slice, and g, being linear in ⟨a_i, b_j⟩, is the sum over slices. Weights, width ratios, ε and σ are arguments.

Sums of points among themselves are mutual where ⟨a_i, b_j⟩ = ⟨a_j, b_i⟩: always so where features are the same as rows and as columns, which is seen here, and
where a caller knows it (`mutual_gradient`, `mutual_tangent`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from shapeflow.errors import BackendError
from shapeflow.ops.backends import nearby
from shapeflow.ops.backends.entries import DA, DB, DX, DY, entries, mask_of, nothing
from shapeflow.ops.backends.native_call import REAL, SLICE, at, plan_of, pool
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial

OPERATORS = ("product", "gradient", "fused", "tangent")
# Tangents that derivatives ask for: rows only and columns only (the two halves of a backward pass), with or without the features' part, and all.
MASKS = (DX, DX | DA, DY, DY | DB, DX | DY, DX | DA | DY | DB)
MUTUAL_MASKS = MASKS[-2:]
# Points of the largest problem from which on, and up to which, mutual sums pay: fewer fill vectors badly, the parts' sums of more take too much memory;
# and up to how many features, with more points than MANY and with fewer: a pairing cannot be cut into slices.
FEWEST, MOST = {torch.float32: 512, torch.float64: 256}, 16384
MANY, WIDE = 2048, (16, 32)


@dataclass(frozen=True)
class Specialization:
    """One compiled kernel. `terms` are kernel names; `mask` says which tangents are given; `mutual` whether each pair is met once."""

    op: str
    terms: tuple[str, ...]
    dtype: torch.dtype
    d: int
    e: int
    mask: int = 0
    mutual: bool = False

    @property
    def source(self) -> str:
        return "mutual.cpp" if self.mutual else "cpu.cpp"

    def macros(self) -> dict[str, str]:
        return {
            "SF_OP": self.op.upper(), "SF_TERMS": ",".join(t.upper() for t in self.terms), "SF_REAL": REAL[self.dtype],
            "SF_D": str(self.d), "SF_E": str(self.e), "SF_MASK": str(self.mask),
        }  # fmt: skip


def specializations(
    radial: Radial | str, d: int, features: Iterable[int], dtypes: Iterable[torch.dtype] = (torch.float32,)
) -> list[Specialization]:
    """Every kernel that values, first and second derivatives need for one radial kernel and these feature counts, sums of points among themselves included."""
    terms = tuple(t.name for t in Radial.parse(radial).terms)
    features = sorted(set(features))
    sizes = sorted({part for e in features for part in _slices(e)})
    kinds = ((False, sizes, MASKS), (True, [e for e in features if e <= WIDE[1]], MUTUAL_MASKS))
    return [
        Specialization(op, terms, dtype, d, e, mask, once)
        for dtype in dtypes
        for once, counts, masks in kinds
        for e in counts
        for op in OPERATORS
        for mask in (masks if op == "tangent" else (0,))
    ]


def warm(specs: Iterable[Specialization], jobs: int | None = None) -> int:
    """Compile (or find in the cache) all of `specs`, several at a time; returns how many. For one job before many."""
    unique = list(dict.fromkeys(specs))
    pool()
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as executor:
        return len(list(executor.map(compiled, unique)))


def check() -> None:
    """Raise BackendError, saying what to install, if this backend cannot run here."""
    host.compiler()


_functions: dict[tuple, Callable[..., int]] = {}


@cache
def compiled(spec: Specialization) -> Callable[..., int]:
    """The kernel of a specialisation, `shapeflow_run` of its source."""
    function = host.library(spec.source, spec.macros()).shapeflow_run
    function.argtypes = (c_void_p,) * 12 + (c_int64,) * 3 + (c_double, c_int, c_void_p)
    function.restype = c_int
    return function


def _slices(e: int) -> list[int]:
    return [min(SLICE, e - begin) for begin in range(0, e, SLICE)]


def mutual(problem: Problem, e: int) -> bool:
    """Whether sums of these points among themselves, with a symmetric pairing of e features, meet each pair once."""
    largest = problem.rows.largest
    return FEWEST[problem.sigma.dtype] <= largest <= MOST and 0 < e <= WIDE[largest <= MANY]


def _same(op: str, problem: Problem, x, dx, a, da, y, dy, b, db) -> bool:
    """Whether rows and columns are the same points with the same features, which move alike."""
    if not problem.among(x, y):
        return False
    pairs = () if op == "product" else ((a, b), (dx, dy), (da, db))
    return all(at(p) == at(q) for p, q in pairs) and (op != "tangent" or dx is not None)


def _run(op: str, problem: Problem, x, dx, a, da, y, dy, b, db, v, g, symmetric: bool = False) -> None:
    """Write v and g: each pair once where the pairing is `symmetric`, or by way of sorted points where far columns can be skipped."""
    order = nearby.order(op, x, y, problem)
    if order is None:
        once = (symmetric or _same(op, problem, x, dx, a, da, y, dy, b, db)) and mutual(problem, b.shape[1])
        _sums(op, problem, once, 0.0, x, dx, a, da, y, dy, b, db, v, g)
        return
    given, out = order.sort(x, dx, a, da, y, dy, b, db), order.like(v, g)
    _sums(op, problem, False, order.reach, *given, *out)  # pyright: ignore[reportCallIssue]
    order.scatter(out, (v, g))


def _sums(op: str, problem: Problem, once: bool, reach: float, x, dx, a, da, y, dy, b, db, v, g) -> None:
    """Call the compiled kernel, slice by slice of the features. Columns farther than reach × σ may be skipped (0: none)."""
    e, d = b.shape[1], x.shape[1]
    mask = mask_of(dx, da, dy, db)
    if nothing(op, mask, e, v, g):
        return
    plan = plan_of(problem)
    begin, total = 0, g
    while begin < e:
        width = e if once else min(SLICE, e - begin)
        key = (op, plan.names, x.dtype, d, width, mask, once)
        function = _functions.get(key)
        if function is None:
            function = _functions[key] = compiled(Specialization(*key))
        part = total if begin == 0 or total is None else torch.empty_like(total)
        shift = begin * x.element_size()
        status = function(
            ctypes.byref(plan), problem.sigma.data_ptr(), x.data_ptr(), at(dx), at(a, shift), at(da, shift),
            y.data_ptr(), at(dy), b.data_ptr() + shift, at(db, shift), at(v, shift), at(part), e, e, e,
            reach, torch.get_num_threads(), pool(),
        )  # fmt: skip
        if status:
            raise BackendError(
                f"out of memory in a kernel product of {x.shape[0]} rows in {problem.rows.count} problems"
            )
        if begin and total is not None:
            total += part
        begin += width


product, gradient, fused, tangent = entries(_run)


def mutual_gradient(a: Tensor, x: Tensor, b: Tensor, problem: Problem) -> Tensor:
    """Σ_j ⟨a_i, b_j⟩ ∇₁k(x_i, x_j), (N, d), where ⟨a_i, b_j⟩ = ⟨a_j, b_i⟩."""
    g = torch.empty_like(x)
    _run("gradient", problem, x, None, a, None, x, None, b, None, None, g, symmetric=True)
    return g


def mutual_tangent(x: Tensor, dx: Tensor, a: Tensor, b: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """The derivatives of Σ_j k(x_i, x_j) b_j (N, e) and of that gradient (N, d) as the points move by dx."""
    v, g = torch.empty_like(b), torch.empty_like(x)
    _run("tangent", problem, x, dx, a, None, x, dx, b, None, v, g, symmetric=True)
    return v, g
