"""kernels/field.cu without a GPU: it compiles for three generations of cards, and teams of one and of many blocks are run by threads of the CPU."""

from __future__ import annotations

import re

import pytest
import torch
from emulated_launches import Emulator

from shapeflow.errors import BackendError
from shapeflow.hamiltonian import metric
from shapeflow.normalization import Normalization
from shapeflow.ops.backends import cuda_field
from shapeflow.ops.bound import Kernel
from shapeflow.ops.compile import nvrtc
from shapeflow.ops.compile.source import flatten
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged
from shapeflow.warm import Warm

try:
    nvrtc.compiler_version()
except BackendError as error:
    pytest.skip(f"NVRTC is not installed: {error}", allow_module_level=True)

F32, F64 = torch.float32, torch.float64


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_the_matrix_compiles(arch):
    names = [
        cuda_field.instance("field", F32, 2, 2, ("gaussian", "cauchy")),
        cuda_field.instance("adjoint", F64, 3, 1, ("laplacian",)),
    ]
    assert set(nvrtc.cubin("field.cu", names, arch)[1]) == set(names)


@pytest.mark.parametrize("what, dtype, n", [("field", F64, 1000), ("adjoint", F64, 1000), ("adjoint", F32, 2000)])
def test_vectors_stay_in_registers(what, dtype, n):
    """But for a few words: 512 threads may have 128 registers each, such a vector is 4 of them, and a solve has six."""
    name = cuda_field.instance(what, dtype, 3, -(-n // cuda_field.THREADS), ("gaussian",))
    _, _, log = nvrtc.cubin("field.cu", [name], "sm_90", options=["-v"])
    assert int(re.search(r"(\d+) bytes spill stores", log)[1]) <= 64


def test_the_launches_know_the_header():
    """Blocks of another size, or with less memory than they count on, would write where others read."""
    header = flatten("shared_matrix.h")
    (of_a_card,) = re.findall(r"#else\nenum { MATRIX_THREADS = (\d+) };", header)
    (others,) = re.findall(
        r"enum { WARPS = MATRIX_THREADS / 32, GROUP = (\d+), SUMS = (\d+), FEWEST_ROWS = (\d+) };", header
    )
    mirrored = cuda_field.THREADS, cuda_field.GROUP, cuda_field.SUMS, cuda_field.FEWEST_ROWS
    assert mirrored == (int(of_a_card), *map(int, others)) and cuda_field.WARPS == cuda_field.THREADS // 32


@pytest.fixture(scope="module")
def emulator(tmp_path_factory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def emulated(emulator, monkeypatch):
    """A function of the number of multiprocessors: the backend with its launches run here."""

    def of(sms: int):
        emulator.patch(cuda_field, monkeypatch, lambda name, arch: ("field.cu", name), sms, together=True)
        monkeypatch.setattr(cuda_field, "THREADS", 64)
        monkeypatch.setattr(cuda_field, "WARPS", 2)
        return cuda_field

    return of


def setting(sizes: tuple[int, ...], d: int, dtype=F64):
    rows, g = Ragged.of_sizes(sizes), torch.Generator().manual_seed(0)
    q, p, V, h = (torch.randn(rows.total, d, generator=g, dtype=F64).to(dtype) for _ in range(4))
    mu = (0.1 + torch.rand(rows.total, generator=g, dtype=F64)).to(dtype)
    sigma = torch.linspace(0.5, 2.0, rows.count, dtype=dtype)
    return rows, sigma, q, p, mu, V, h


def run(backend, radial, sigma, rows, q, p, mu, V, h, warm):
    problem, numbers = Problem(Radial.parse(radial), sigma, rows, rows), Normalization("sinkhorn").numbers(q.dtype)
    left = torch.zeros(rows.count, dtype=F64)
    v, g, *solved = backend.value(q, mu, p, problem, warm, left, numbers)
    assert (left == 0).all()
    return v, g, *backend.adjoint(q, mu, p, (*solved, v), V, h, problem, warm, numbers)


@pytest.mark.parametrize(
    "sms, d, radial",
    [(3, 1, "gaussian"), (12, 2, "laplacian"), *((sms, 3, "0.6*gaussian + 0.4*cauchy@2.0") for sms in (3, 12))],
)
def test_teams_against_the_field_product_by_product(emulated, sms, d, radial):
    """Teams of one block and of four, cold and from guesses of two trajectories."""
    rows, sigma, q, p, mu, V, h = setting((40, 1, 70) if sms == 12 else (40, 0, 70), d)
    generic = metric(Kernel(radial, sigma, "torch"), rows, mu, Normalization("sinkhorn"))
    warm, slow = Warm(), Warm()
    for start in (q + 0.1 * h, q + 0.12 * h):
        for w in (warm, slow):
            w.restart(1)
        for step in range(4):
            points = start + 0.03 * step * V
            *want, kept = generic.value(points, p, slow)
            want += generic.adjoint(points, p, kept, V, h, slow)
            found = run(emulated(sms), radial, sigma, rows, points, p, mu, V, h, warm)
            for got, exact in zip(found, want, strict=True):
                torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)
    for name in ("log_scale", "w_rate"):
        for got, exact in zip(warm.terms(name)[:4], slow.terms(name)[:4], strict=True):
            torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)


def test_a_lost_problem_ends_and_leaves_the_others(emulated):
    """Cold, and with guesses that were lost before."""
    radial, (rows, sigma, q, p, mu, V, h) = "0.6*gaussian + 0.4*cauchy@2.0", setting((40, 1, 70), 3)
    backend, warm = emulated(12), Warm()
    want = run(backend, radial, sigma, rows, q, p, mu, V, h, Warm())
    for bad in (torch.nan, torch.inf, 0.0):
        warm.restart(1)
        for at in (0, 1):
            spoilt = [q, p]
            spoilt[at] = torch.where(torch.arange(111)[:, None] == 50, spoilt[at] + bad, spoilt[at])
            found = run(backend, radial, sigma, rows, *spoilt, mu, V, h, warm)
            for got, exact in zip(found, want, strict=True):
                torch.testing.assert_close(got[:41], exact[:41], rtol=1e-9, atol=1e-9)
                if bad:
                    assert got[41:].isnan().all()
                else:
                    torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)
