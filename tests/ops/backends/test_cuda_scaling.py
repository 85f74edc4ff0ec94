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
from shapeflow.ops.backends.plans import Plans
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
        cuda_scaling.instance("scale", f32, 1, cuda_scaling.ROWS, ("gaussian",), tensor=True),
        cuda_scaling.instance("solve", f32, 3, cuda_scaling.ROWS, ("gaussian",), tensor=True),
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


@pytest.mark.parametrize(
    ("what", "tensor", "most"), [("scale", False, 16), ("solve", False, 16), ("scale", True, 16), ("solve", True, 64)]
)
def test_rows_stay_in_registers(what, tensor, most):
    """But for a few words, which make room for a tile's: a tile's rows and sums alone are 40. On tensor cores they are 48, and a solve puts away 16 others,
    its own between products and those of the loops for wide problems: none is stored or read in a tile."""
    name = cuda_scaling.instance(what, torch.float32, 3, cuda_scaling.ROWS, ("gaussian",), tensor)
    _, _, log = nvrtc.cubin("scaling.cu", [name], "sm_90", options=["-v"])
    assert int(re.search(r"(\d+) bytes spill stores", log)[1]) <= most


def test_what_runs_on_tensor_cores():
    """One Gaussian in float32 in space, in launches where a problem is neither small nor too large for shared memory, which has room for the largest."""
    fit, f32 = cuda_scaling.MOST_SHARED // (cuda_scaling.SIDE * cuda_scaling.POINT) * cuda_scaling.SIDE, torch.float32
    assert fit == 2624
    for sizes, room in (((300, 5000, 10), 320), ((256, 5000), 0), ((257, fit + 1, fit), fit), ((fit + 1,), 0), ((), 0)):
        assert cuda_scaling.tensor_room(sizes, f32, 3, ("gaussian",), "sm_80") == room
    assert cuda_scaling.tensor_room((300,), torch.float64, 3, ("gaussian",), "sm_80") == 0
    assert cuda_scaling.tensor_room((300,), f32, 4, ("gaussian",), "sm_80") == 0
    assert cuda_scaling.tensor_room((300,), f32, 3, ("gaussian", "gaussian"), "sm_80") == 0
    assert cuda_scaling.tensor_room((300,), f32, 3, ("cauchy",), "sm_80") == 0
    assert cuda_scaling.tensor_room((300,), f32, 3, ("gaussian",), "sm_75") == 0


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


def test_products_on_tensor_cores_against_the_generic_loops(emulated, monkeypatch):
    """In float32, whole problems that are neither small nor wide: the last two are, and take the loops that other launches take, to the bit."""
    rows, g = Ragged.of_sizes((129, 1, 0, 192, 300, 60, 150)), torch.Generator().manual_seed(0)
    n, f64 = rows.total, torch.float64
    q, mu = torch.randn(n, 3, generator=g), 0.1 + torch.rand(n, generator=g)
    q[rows.offsets[3] :] += torch.tensor([30.0, -20.0, 10.0])
    right, sigma = torch.randn(n, generator=g), torch.tensor([1.0, 1.0, 1.0, 2.0, 1.5, 1.0, 0.2])
    generic, options = Kernel("gaussian", sigma.double(), "torch"), Normalization("sinkhorn")
    problem = Problem(Radial.parse("gaussian"), sigma, rows, rows)
    numbers, left = options.numbers(torch.float32), torch.zeros(rows.count, dtype=f64)
    exact = sinkhorn(generic, q.double(), rows, mu.double(), options)
    found = [emulated.scale(q, mu, problem, None, left, *numbers)]
    half = (mu.double().sqrt() * exact.exp()).float()
    expected = solve(generic, q.double(), exact.exp(), mu.double(), right.double(), rows, options)
    found += [emulated.solve(q, half, right, problem, start, 2e-6, 60) for start in (None, expected.float() + 0.1)]
    assert (left == 0).all()
    for out, want in zip(found, (exact, expected, expected), strict=True):
        for a, b in zip(out.split(rows.sizes), want.split(rows.sizes), strict=True):
            assert (a.double() - b).norm() <= 5e-6 * b.norm()  # a solve is one to 2e-6 of its right-hand side

    # Without room for points in shared memory all are.
    monkeypatch.setattr(emulated, "MOST_SHARED", 0)
    monkeypatch.setattr(emulated, "_plans", Plans("an emulated kernel", most=100))
    other = emulated.scale(q, mu, problem, None, left, *numbers)
    same = [torch.equal(a, b) for a, b in zip(found[0].split(rows.sizes), other.split(rows.sizes), strict=True)]
    assert same == [False, True, True, False, False, True, True]
