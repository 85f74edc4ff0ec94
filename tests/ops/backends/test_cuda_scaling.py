"""kernels/scaling.cu and steps.cu without a GPU: they compile for three generations of cards, keep their rows in registers, and their arithmetic and
barriers are run by threads of the CPU."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest
import torch
from emulated_launches import Emulator, launcher

from shapeflow.errors import BackendError
from shapeflow.hamiltonian import metric
from shapeflow.normalization import Normalization, sinkhorn, solve
from shapeflow.ops.backends import cuda_nearest, cuda_scaling, cuda_steps
from shapeflow.ops.bound import Kernel
from shapeflow.ops.compile import nvrtc
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged

try:
    nvrtc.compiler_version()
except BackendError as error:
    pytest.skip(f"NVRTC is not installed: {error}", allow_module_level=True)


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
    monkeypatch.setattr(cuda_nearest, "Launch", launcher(Emulator(tmp_path).get))
    monkeypatch.setattr(cuda_nearest, "architecture", lambda index: "sm_90")
    monkeypatch.setattr(cuda_nearest, "_kernel", lambda dtype, arch: ("nearest.cu", cuda_nearest.instance(dtype)))
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


@pytest.fixture(scope="module")
def emulator(tmp_path_factory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def emulated(emulator, monkeypatch):
    """The backend with its launches run here, by as many threads a block as kernels/scaling.cu has when it is emulated."""
    emulator.patch(cuda_scaling, monkeypatch, lambda name, arch: ("scaling.cu", name))
    monkeypatch.setattr(cuda_scaling, "THREADS", 64)
    monkeypatch.setattr(cuda_scaling, "WARPS", 2)
    return cuda_scaling


def test_teams_of_one_block_by_rows_and_by_tiles_against_the_generic_loops(emulated):
    rows, g = Ragged.of_sizes((40, 1, 0, 77, 129, 192)), torch.Generator().manual_seed(0)
    n, f64 = rows.total, torch.float64
    q, mu = torch.randn(n, 3, generator=g, dtype=f64), 0.1 + torch.rand(n, generator=g, dtype=f64)
    right, sigma = torch.randn(n, generator=g, dtype=f64), torch.tensor([0.5, 1.0, 1.0, 2.0, 0.7, 1.5], dtype=f64)
    generic, options = Kernel("gaussian", sigma, "torch"), Normalization("sinkhorn")
    problem = Problem(Radial.parse("gaussian"), sigma, rows, rows)
    want = sinkhorn(generic, q, rows, mu, options)
    left = torch.zeros(rows.count, dtype=f64)
    lost = want + 0.01
    lost[50] = torch.nan
    for start in (None, lost):
        out = emulated.scale(q, mu, problem, start, left, *options.numbers(f64))
        torch.testing.assert_close(out, want, rtol=1e-10, atol=1e-10)
    assert (left == 0).all()
    half = mu.sqrt() * want.exp()
    expected = solve(generic, q, want.exp(), mu, right, rows, options)
    for start in (None, expected + 0.1, 1e9 * expected, torch.full_like(mu, torch.nan)):
        out = emulated.solve(q, half, right, problem, start, 2e-12, 60)
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


def test_a_residual_above_the_tolerance_is_left(emulated):
    """Of the problem that misses it alone, and the largest ever."""
    rows = Ragged.of_sizes((1, 40))
    q, mu = torch.randn(41, 2, generator=torch.Generator().manual_seed(0)).double(), torch.ones(41).double()
    problem = Problem(Radial.parse("gaussian"), torch.ones(2).double(), rows, rows)
    left = torch.zeros(2).double()
    numbers = Normalization("sinkhorn", max_iterations=1).numbers(torch.float64)
    emulated.scale(q, mu, problem, None, left, *numbers)
    first = float(left[1])
    emulated.scale(q, mu, problem, torch.full_like(mu, 3.0), left, *numbers)
    assert left[1] > first > numbers[3] and left[0] > 0
    emulated.scale(q, mu, problem, None, left, *numbers)
    assert left[1] > first
