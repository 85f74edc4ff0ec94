"""kernels/scaling.cu and steps.cu without a GPU: they compile for three generations of cards, keep their rows in registers, and their arithmetic and
barriers are run by threads of the CPU."""

from __future__ import annotations

import ctypes
import re
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from emulated_launches import launcher, library

from shapeflow.errors import BackendError
from shapeflow.hamiltonian import metric
from shapeflow.normalization import _ALPHA, _BETA, _CONTRACTION, Normalization, sinkhorn, solve
from shapeflow.ops.backends import cuda_nearest, cuda_scaling, cuda_steps
from shapeflow.ops.bound import Kernel
from shapeflow.ops.compile import host, nvrtc
from shapeflow.ops.compile.source import flatten
from shapeflow.ragged import Ragged

try:
    nvrtc.compiler_version()
except BackendError as error:
    pytest.skip(f"NVRTC is not installed: {error}", allow_module_level=True)

HERE = Path(__file__).parent


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_the_matrix_compiles(arch):
    f32, f64 = torch.float32, torch.float64
    names = [
        cuda_scaling.instance("scale", f32, 2, cuda_scaling.ROWS, ("gaussian", "cauchy")),
        cuda_scaling.instance("solve", f64, 3, 1, ("laplacian",)),
    ]
    assert set(nvrtc.cubin("scaling.cu", names, arch)[1]) == set(names)
    names = [cuda_steps.instance(f32, 4), cuda_steps.instance(f64, 1)]
    assert set(nvrtc.cubin("steps.cu", names, arch)[1]) == set(names)
    names = [cuda_nearest.instance(f32), cuda_nearest.instance(f64)]
    assert set(nvrtc.cubin("nearest.cu", names, arch)[1]) == set(names)


def test_the_nearest_particle_of_lost_points(tmp_path, monkeypatch):
    rows, columns = Ragged.of_sizes((150, 0, 7)), Ragged.of_sizes((40, 3, 1))
    x, q, lost = torch.randn(157, 2), torch.randn(44, 2), torch.rand(157) < 0.5
    monkeypatch.setattr(cuda_nearest, "Launch", launcher(lambda name: library(tmp_path, "nearest.cu", name)))
    monkeypatch.setattr(cuda_nearest, "_arch", lambda index: "sm_90")
    monkeypatch.setattr(cuda_nearest, "_kernel", lambda dtype, arch: cuda_nearest.instance(dtype))
    monkeypatch.setattr(cuda_nearest, "current_stream", lambda index: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    found = cuda_nearest.nearest(x, lost, rows, q, columns)
    exact = metric(Kernel("gaussian", torch.ones(3), "torch"), columns, q[:, 0], Normalization("sinkhorn"))._nearest(
        x, rows, q
    )
    assert torch.equal(found, torch.where(lost, exact, 0))


@pytest.mark.parametrize("what", ["scale", "solve"])
def test_rows_stay_in_registers(what, dtype=torch.float32):
    _, _, log = nvrtc.cubin(
        "scaling.cu", [cuda_scaling.instance(what, dtype, 3, cuda_scaling.ROWS, ("gaussian",))], "sm_90", options=["-v"]
    )
    # a few words, set once, may make room for a tile's; its rows and sums are 40
    assert int(re.search(r"(\d+) bytes spill stores", log)[1]) <= 16


SOURCE = """
typedef double T;
extern "C" void scale(unsigned blocks, const long long* offsets, const T* sigma, const double* terms, const T* x, const T* mu, T* l, T* w, T* y, T* before,
                      double* left, double alpha, double beta, double contraction, double tolerance, long long total) {
  emulate({blocks, 1}, SCALING_THREADS, &shapeflow_scale<T, 3, 4, GAUSSIAN>, offsets, sigma, terms, 0.0, x, mu, l, w, y, before, (unsigned*)0, (double*)0,
          left, alpha, beta, contraction, tolerance, 1e-13, 60ll, 1ll, total);
}
extern "C" void solve(unsigned blocks, const long long* offsets, const T* sigma, const double* terms, const T* x, const T* half, const T* right, T* u, T* w,
                      T* y, T* r, T* p, T* s, double tolerance) {
  emulate({blocks, 1}, SCALING_THREADS, &shapeflow_solve<T, 3, 4, GAUSSIAN>, offsets, sigma, terms, 0.0, x, half, right, u, w, y, r, p, s,
          (unsigned*)0, (double*)0, tolerance, 60ll, 1ll);
}
"""


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling")
    source, out = folder / "scaling.cpp", folder / "scaling.so"
    source.write_text('#define SF_EMULATED\n#include "cuda_emulator.h"\n' + flatten("scaling.cu") + SOURCE)
    command = [*host.compiler(), "-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-pthread", f"-I{HERE}"]
    subprocess.run([*command, str(source), "-o", str(out)], check=True)
    return ctypes.CDLL(str(out))


def pointers(*tensors):
    return [ctypes.c_void_p(t.data_ptr()) for t in tensors]


def test_teams_of_one_block_by_rows_and_by_tiles_against_the_generic_loops(emulated):
    rows, g = Ragged.of_sizes((40, 1, 0, 77, 129, 192)), torch.Generator().manual_seed(0)
    n = rows.total
    q, mu = torch.randn(n, 3, generator=g, dtype=torch.float64), 0.1 + torch.rand(n, generator=g, dtype=torch.float64)
    right, sigma = (
        torch.randn(n, generator=g, dtype=torch.float64),
        torch.tensor([0.5, 1.0, 1.0, 2.0, 0.7, 1.5], dtype=torch.float64),
    )
    generic, options = Kernel("gaussian", sigma, "torch"), Normalization("sinkhorn")
    want = sinkhorn(generic, q, rows, mu, options)
    offsets, terms = torch.tensor(rows.offsets), torch.ones(2, dtype=torch.float64)
    left, scratch = torch.zeros(rows.count, dtype=torch.float64), torch.empty(5, n, dtype=torch.float64)
    numbers = map(ctypes.c_double, (_ALPHA, _BETA, _CONTRACTION, 2e-12))
    lost = want + 0.01
    lost[50] = torch.nan
    for start in (torch.full_like(mu, torch.nan), lost):
        out = start.clone()
        emulated.scale(
            rows.count,
            *pointers(offsets, sigma, terms, q, mu, out, scratch, scratch[2], scratch[3], left),
            *numbers,
            ctypes.c_longlong(n),
        )
        numbers = map(ctypes.c_double, (_ALPHA, _BETA, _CONTRACTION, 2e-12))
        torch.testing.assert_close(out, want, rtol=1e-10, atol=1e-10)
    assert (left == 0).all()
    half = mu.sqrt() * want.exp()
    expected = solve(generic, q, want.exp(), mu, right, rows, options)
    for start in (torch.zeros_like(mu), expected + 0.1, 1e9 * expected, torch.full_like(mu, torch.nan)):
        out = start.clone()
        emulated.solve(
            rows.count, *pointers(offsets, sigma, terms, q, half, right, out, *scratch), ctypes.c_double(2e-12)
        )
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
