"""NaN and infinity in the input come out as NaN in the rows they touch, and nowhere else: never a plausible number."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import NAMES, call, case

from shapeflow.ops.backends import native_cpu

BAD = (float("nan"), float("inf"), float("-inf"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", BAD)
def test_tangent(name, bad):
    _check("tangent", name, bad)


@pytest.mark.parametrize("name", ["x", "a", "y", "b"])
@pytest.mark.parametrize("bad", BAD)
def test_fused(name, bad):
    _check("fused", name, bad)


@pytest.mark.parametrize("kernel", ["gaussian", "cauchy"])
def test_an_infinite_coordinate_is_not_a_far_point(kernel):
    """k(∞) = 0 would give a sum that looks right."""
    _check("product", "y", float("inf"), kernel)
    _check("product", "x", float("-inf"), kernel)


@pytest.mark.parametrize("sigma", [float("nan"), float("inf"), 0.0, -1.0])
def test_sigma(sigma):
    """Refused at the front door; a backend that is handed one answers NaN for that problem."""
    tensors, problem = case(rows=(4, 5), columns=(6, 7))
    problem.sigma[1] = sigma
    (v,) = call(native_cpu, "product", tensors, problem)
    assert torch.isfinite(v[:4]).all() and torch.isnan(v[4:]).all()


def _check(op: str, name: str, bad: float, kernel: str = "gaussian") -> None:
    rows, columns = (20, 3, 40), (30, 1500, 9)
    tensors, problem = case(kernel, rows=rows, columns=columns)
    clean = call(native_cpu, op, tensors, problem)
    spoiled = dict(tensors)
    spoiled[name] = tensors[name].clone()
    is_row = name in ("x", "dx", "a", "da")
    index = 24 if is_row else 31  # in the third problem's rows, or in the second problem's columns
    spoiled[name][index, -1] = bad
    touched = torch.zeros(sum(rows), dtype=torch.bool)
    touched[slice(24, 25) if is_row else slice(20, 23)] = True
    for out, before in zip(call(native_cpu, op, spoiled, problem), clean, strict=True):
        assert torch.isnan(out[touched]).all()
        assert torch.equal(out[~touched], before[~touched])
