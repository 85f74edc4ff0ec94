"""What every call of a compiled CPU kernel needs: its plan, the thread pool, addresses."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged

SLICE = 16  # features of one compiled kernel: more are cut into slices
REAL = {torch.float32: "float", torch.float64: "double"}


class Plan(ctypes.Structure):
    """What does not change from call to call (kernels/plan.h), with the arrays it points into kept alive."""

    _fields_ = (
        ("problems", c_int64), ("rows", c_void_p), ("columns", c_void_p),
        ("weights", c_void_p), ("ratios", c_void_p), ("epsilon", c_double),
    )  # fmt: skip

    def __init__(self, radial: Radial, rows: Ragged, columns: Ragged) -> None:
        count, terms = rows.count, radial.terms
        arrays = (
            (c_int64 * (count + 1))(*rows.offsets),
            (c_int64 * (count + 1))(*columns.offsets),
            (c_double * len(terms))(*(t.weight for t in terms)),
            (c_double * len(terms))(*(t.ratio for t in terms)),
        )
        super().__init__(count, *map(ctypes.addressof, arrays), radial.epsilon)
        self.alive = (radial, rows, columns, *arrays)
        self.names = tuple(t.name for t in terms)


# Keyed by identity: hashing the offsets of a thousand problems would cost more than a small kernel. The plan keeps the keyed objects alive.
_plans: dict[tuple[int, int, int], Plan] = {}


def plan_of(problem: Problem) -> Plan:
    key = (id(problem.radial), id(problem.rows), id(problem.columns))
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= 1024:
            _plans.clear()
        plan = _plans[key] = Plan(problem.radial, problem.rows, problem.columns)
    return plan


@cache
def pool() -> int:
    """Address of the process's threads and working memory, kernels/pool.cpp."""
    return ctypes.addressof(ctypes.c_char.in_dll(host.library("pool.cpp", {}), "shapeflow_pool"))


def at(tensor: Tensor | None, shift: int = 0) -> int:
    """The address, `shift` bytes on, that a kernel of either platform reads or writes; null for a tensor that is not given."""
    return 0 if tensor is None else tensor.data_ptr() + shift
