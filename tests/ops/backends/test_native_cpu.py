"""The compiled CPU kernels against the dense oracle: values, derivatives, shapes, precision, threads."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from kernel_cases import KERNELS, TOLERANCE, call, case, error, reference

from shapeflow.ops.backends import native_cpu
from shapeflow.ops.compile import host
from shapeflow.ops.problem import Problem
from shapeflow.ragged import Ragged

OPS = native_cpu.OPERATORS


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_and_operator_float32(kernel, op):
    tensors, problem = case(kernel)
    assert error(call(native_cpu, op, tensors, problem), reference(op, tensors, problem)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("op", ["fused", "tangent"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_float64(kernel, op):
    tensors, problem = case(kernel, dtype=torch.float64)
    assert error(call(native_cpu, op, tensors, problem), reference(op, tensors, problem)) < TOLERANCE[torch.float64]


@pytest.mark.parametrize(("d", "e"), [(1, 1), (2, 2), (2, 8), (3, 5), (3, 6), (7, 4), (20, 1)])
@pytest.mark.parametrize("op", ["product", "tangent"])
def test_dimensions(d, e, op):
    tensors, problem = case(d=d, e=e)
    # r² of d coordinates: its rounding, and the exponent it feeds, grow with d.
    tolerance = TOLERANCE[torch.float32] * max(1, d / 3)
    assert error(call(native_cpu, op, tensors, problem), reference(op, tensors, problem)) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("op", OPS)
def test_every_specialised_size(op, d):
    for e in range(1, 9):
        tensors, problem = case(d=d, e=e, rows=(1, 0, 65), columns=(7, 3, 129))
        assert (
            error(call(native_cpu, op, tensors, problem), reference(op, tensors, problem)) < TOLERANCE[torch.float32]
        ), e


@pytest.mark.parametrize("op", OPS)
def test_many_features_go_in_slices(op):
    """37 = 16 + 16 + 5: v by slices, g the sum over them."""
    tensors, problem = case(e=37, dtype=torch.float64)
    assert error(call(native_cpu, op, tensors, problem), reference(op, tensors, problem)) < TOLERANCE[torch.float64]


@pytest.mark.parametrize(
    "absent",
    [("dx",), ("da", "db"), ("dy", "db"), ("dx", "da"), ("dx", "dy"), ("dx", "da", "dy"), ("dx", "da", "dy", "db")],
)
def test_absent_tangents_are_zero(absent):
    tensors, problem = case("laplacian", d=2, e=2, dtype=torch.float64)
    zeroed = {k: torch.zeros_like(t) if k in absent else t for k, t in tensors.items()}
    given = {k: t for k, t in tensors.items() if k not in absent}
    exact = reference("tangent", zeroed, problem)
    for out, expected in zip(call(native_cpu, "tangent", given, problem), exact, strict=True):
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_no_features():
    tensors, problem = case(e=0)
    v, g = call(native_cpu, "fused", tensors, problem)
    assert v.shape == (tensors["x"].shape[0], 0)
    assert not g.any()


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_few_rows_share_their_columns(rows):
    """Fewer row tiles than cores: the columns are cut and the cuts added in order, empty problems in between."""
    tensors, problem = case(rows=(rows, 0, 2), columns=(5000, 10, 2100))
    assert (
        error(call(native_cpu, "fused", tensors, problem), reference("fused", tensors, problem))
        < TOLERANCE[torch.float32]
    )


def test_points_far_from_the_origin():
    """The difference form: a shape of size 1 at 1e4 loses only what float32 coordinates had lost before the call."""
    tensors, problem = case()
    for name in ("x", "y"):
        tensors[name] = tensors[name] + 1e4
    assert (
        error(call(native_cpu, "fused", tensors, problem), reference("fused", tensors, problem))
        < TOLERANCE[torch.float32]
    )


@pytest.mark.parametrize("sigma", [1e-12, 1e-4, 1e4, 1e18])
def test_extreme_widths(sigma):
    """σ far from the shape's size: k is 0 or 1. (Beyond r/σ = 1e13 float32 answers NaN.)"""
    tensors, problem = case(rows=(20,), columns=(30,))
    problem = Problem(problem.radial, torch.full((1,), sigma), problem.rows, problem.columns)
    assert (
        error(call(native_cpu, "product", tensors, problem), reference("product", tensors, problem))
        < TOLERANCE[torch.float32]
    )


def test_error_does_not_grow_with_the_number_of_columns():
    """Equal terms, the worst case for a running float32 sum: 4e5 of them drift by 1e-3; blocks added in double do not."""
    m = 400_000
    x, y, b = torch.zeros(3, 2), torch.full((m, 2), 0.1), torch.full((m, 1), 0.1)
    rows, columns = Ragged((0, 3)), Ragged((0, m))
    problem = Problem(case()[1].radial, torch.ones(1), rows, columns)
    v = native_cpu.product(x, y, b, problem)
    exact = m * float(b[0]) * torch.exp(-2 * torch.tensor(0.1).double() ** 2)
    torch.testing.assert_close(v.double(), exact.expand(3, 1), rtol=1e-6, atol=0)


def test_same_bits_on_any_number_of_threads():
    tensors, problem = case(rows=(300, 5, 700), columns=(3000, 2500, 10))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(call(native_cpu, "fused", tensors, problem))
    finally:
        torch.set_num_threads(before)
    for one, *others in zip(*results, strict=True):
        assert all(torch.equal(one, other) for other in others)


def test_python_threads_and_forked_children_share_the_pool():
    """Callers at the same time, and a child that inherits the pool's memory but not its threads."""
    tensors, problem = case(rows=(700,), columns=(900,))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        expected = call(native_cpu, "product", tensors, problem)[0]
        with ThreadPoolExecutor(4) as pool:
            for result in pool.map(lambda _: call(native_cpu, "product", tensors, problem)[0], range(40)):
                assert torch.equal(result, expected)
        with warnings.catch_warnings():
            # Python 3.12 warns of forking with threads, which is what is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            same = False
            with contextlib.suppress(BaseException):
                same = torch.equal(call(native_cpu, "product", tensors, problem)[0], expected)
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)


def test_obeys_torch_num_threads(monkeypatch):
    seen = []
    tensors, problem = case(rows=(4,), columns=(4,))
    call(native_cpu, "product", tensors, problem)
    kept = dict(native_cpu._functions)
    for key, function in kept.items():
        monkeypatch.setitem(native_cpu._functions, key, lambda *a, f=function: (seen.append(a[-2]), f(*a))[1])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        call(native_cpu, "product", tensors, problem)
    finally:
        torch.set_num_threads(before)
    assert seen == [3]


@cache
def runs(march: str) -> bool:
    """Whether code compiled for `march` runs on this processor: a small program is compiled and started."""
    test = "int main() { volatile float a[64]; for (int i = 0; i < 64; ++i) a[i] = float(i); return a[3] != 3.0f; }"
    with tempfile.TemporaryDirectory(prefix="shapeflow-") as folder:
        file, out = Path(folder, "test.cpp"), Path(folder, "test")
        file.write_text(test, encoding="utf-8")
        built = subprocess.run(
            [*host.compiler(), "-O3", f"-march={march}", str(file), "-o", str(out)], capture_output=True, check=False
        )
        return built.returncode == 0 and subprocess.run([str(out)], check=False).returncode == 0


@pytest.mark.parametrize("march", ["x86-64-v3", "x86-64"])
def test_narrower_vectors(march, monkeypatch):
    """The AVX2 and the baseline code paths, which this processor can run as well."""
    if not runs(march):
        pytest.skip(f"this processor or compiler does not know -march={march}")
    monkeypatch.setattr(host, "ARCHITECTURE_FLAGS", ((f"-march={march}",),))
    monkeypatch.setattr(native_cpu, "_functions", {})
    native_cpu.compiled.cache_clear()
    try:
        for dtype in TOLERANCE:
            for kernel in ("0.7*gaussian + 0.2*laplacian@2.0 + cauchy@0.5", "energy"):
                tensors, problem = case(kernel, dtype=dtype)
                assert (
                    error(call(native_cpu, "tangent", tensors, problem), reference("tangent", tensors, problem))
                    < TOLERANCE[dtype]
                )
                sizes = (5, 520)
                tensors, problem = case(kernel, dtype=dtype, rows=sizes, columns=sizes)
                tensors |= {"y": tensors["x"], "dy": tensors["dx"], "b": tensors["a"], "db": tensors["da"]}
                once = replace(
                    problem, columns=problem.rows
                )  # is how a backend sees that each pair need be met only once
                assert native_cpu.mutual(once, 3)
                for op in native_cpu.OPERATORS:
                    found, exact = call(native_cpu, op, tensors, once), reference(op, tensors, problem)
                    assert error(found, exact) < TOLERANCE[dtype]
    finally:
        native_cpu.compiled.cache_clear()


def test_warm_compiles_everything_once():
    specs = native_cpu.specializations("gaussian", d=3, features=(3, 19))
    assert {(s.mutual, s.e) for s in specs} == {(False, 3), (False, 16), (True, 3), (True, 19)}
    assert native_cpu.warm(s for s in [*specs, *specs] if s.op == "product") == 4
