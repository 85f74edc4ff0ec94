"""The operator family on the CPU: kernels/cpu.cpp, compiled once for each specialisation and called through ctypes.

A specialisation is (operator, kernel's terms, dtype, d, e, which tangents are given). More than `SLICE` features are cut into slices: v is computed
slice by slice, and g, being linear in ⟨a_i, b_j⟩, is the sum over slices. Weights, width ratios, ε and σ are arguments.
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

from shapeflow.errors import BackendError
from shapeflow.ops.backends import nearby
from shapeflow.ops.backends.entries import DA, DB, DX, DY, entries, mask_of, nothing
from shapeflow.ops.backends.native_call import REAL, SLICE, at, parallel, plan_of
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial

OPERATORS = ("product", "gradient", "fused", "tangent")
# Tangents that derivatives ask for: rows only and columns only (the two halves of a backward pass), with or without the features' part, and all.
MASKS = (DX, DX | DA, DY, DY | DB, DX | DY, DX | DA | DY | DB)


@dataclass(frozen=True)
class Specialization:
    """One compiled kernel. `terms` are kernel names; `mask` says which tangents are given."""

    op: str
    terms: tuple[str, ...]
    dtype: torch.dtype
    d: int
    e: int
    mask: int = 0

    def macros(self) -> dict[str, str]:
        return {
            "SF_OP": self.op.upper(), "SF_TERMS": ",".join(t.upper() for t in self.terms), "SF_REAL": REAL[self.dtype],
            "SF_D": str(self.d), "SF_E": str(self.e), "SF_MASK": str(self.mask),
        }  # fmt: skip


def specializations(
    radial: Radial | str, d: int, features: Iterable[int], dtypes: Iterable[torch.dtype] = (torch.float32,)
) -> list[Specialization]:
    """Every kernel that values, first and second derivatives need for one radial kernel and these feature counts."""
    terms = tuple(t.name for t in Radial.parse(radial).terms)
    sizes = sorted({part for e in features for part in _slices(e)})
    return [
        Specialization(op, terms, dtype, d, e, mask)
        for dtype in dtypes
        for e in sizes
        for op in OPERATORS
        for mask in (MASKS if op == "tangent" else (0,))
    ]


def warm(specs: Iterable[Specialization], jobs: int | None = None) -> int:
    """Compile (or find in the cache) all of `specs`, several at a time; returns how many. For one job before many."""
    unique = list(dict.fromkeys(specs))
    parallel()
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        return len(list(pool.map(compiled, unique)))


def check() -> None:
    """Raise BackendError, saying what to install, if this backend cannot run here."""
    host.compiler()


_functions: dict[tuple, Callable[..., int]] = {}


@cache
def compiled(spec: Specialization) -> Callable[..., int]:
    """The kernel of a specialisation, `shapeflow_run` of kernels/cpu.cpp."""
    function = host.library("cpu.cpp", spec.macros()).shapeflow_run
    function.argtypes = (c_void_p,) * 12 + (c_int64,) * 3 + (c_double, c_int, c_void_p)
    function.restype = c_int
    return function


def _slices(e: int) -> list[int]:
    return [min(SLICE, e - begin) for begin in range(0, e, SLICE)]


def _run(op: str, problem: Problem, x, dx, a, da, y, dy, b, db, v, g) -> None:
    """Write v and g, by way of sorted points where far columns can be skipped."""
    order = nearby.order(op, x, y, problem)
    if order is None:
        _sums(op, problem, 0.0, x, dx, a, da, y, dy, b, db, v, g)
        return
    given, out = order.sort(x, dx, a, da, y, dy, b, db), order.like(v, g)
    _sums(op, problem, order.reach, *given, *out)  # pyright: ignore[reportCallIssue]
    order.scatter(out, (v, g))


def _sums(op: str, problem: Problem, reach: float, x, dx, a, da, y, dy, b, db, v, g) -> None:
    """Call the compiled kernel, slice by slice of the features. Columns farther than reach × σ may be skipped (0: none)."""
    e, d = b.shape[1], x.shape[1]
    mask = mask_of(dx, da, dy, db)
    if nothing(op, mask, e, v, g):
        return
    plan = plan_of(problem)
    begin, total = 0, g
    while begin < e:
        width = min(SLICE, e - begin)
        key = (op, plan.names, x.dtype, d, width, mask)
        function = _functions.get(key)
        if function is None:
            function = _functions[key] = compiled(Specialization(*key))
        part = total if begin == 0 or total is None else torch.empty_like(total)
        shift = begin * x.element_size()
        status = function(
            ctypes.byref(plan), problem.sigma.data_ptr(), x.data_ptr(), at(dx), at(a, shift), at(da, shift),
            y.data_ptr(), at(dy), b.data_ptr() + shift, at(db, shift), at(v, shift), at(part), e, e, e,
            reach, torch.get_num_threads(), parallel(),
        )  # fmt: skip
        if status:
            raise BackendError(
                f"out of memory in a kernel product of {x.shape[0]} rows in {problem.rows.count} problems"
            )
        if begin and total is not None:
            total += part
        begin += width


product, gradient, fused, tangent = entries(_run)
