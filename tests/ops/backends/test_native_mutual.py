"""Sums that meet each pair once against the oracle, and when they are taken."""

import pytest
import torch

from shapeflow import kernel_product
from shapeflow.ops.backends import native_cpu, nearby
from shapeflow.ops.bound import Kernel
from shapeflow.ops.registry import tangent
from shapeflow.ragged import Ragged

ROWS = Ragged.of_sizes((40, 0, 1, 533, 17))
SIGMA = (0.5, 1.0, 1.0, 2.0, 0.7)
KERNELS = ["gaussian", "laplacian", "inverse_multiquadric", "0.3*gaussian@0.5 + 2.0*cauchy@3.0"]
PRECISIONS = [(torch.float64, 1e-13), (torch.float32, 2e-5)]


def setting(kernel="gaussian", dtype=torch.float64, d=3, e=5, rows=ROWS, sigma=SIGMA):
    """Points far from the origin, two of them coincident, motions, and features with ⟨a_i, b_j⟩ = ⟨a_j, b_i⟩: an own part and two that change places."""
    g = torch.Generator().manual_seed(d + e)
    x, dx = (torch.randn(rows.total, d, generator=g, dtype=torch.float64) for _ in range(2))
    x[3] = x[5]
    own, one, other = (torch.randn(rows.total, k, generator=g, dtype=torch.float64) for k in (e % 2, e // 2, e // 2))
    a, b = torch.cat([own, -one, other], 1), torch.cat([own, other, -one], 1)
    kernels = (
        Kernel(kernel, torch.tensor(sigma, dtype=t), name) for t, name in ((dtype, "native"), (torch.float64, "torch"))
    )
    return *kernels, [t.to(dtype) for t in (x + 30, dx, a, b)]


def symmetric_by_value(kernel, rows, x, dx, a, b):
    return kernel.mutual_gradient(a, x, b, rows), *kernel.mutual_tangent(x, dx, a, b, rows)


def symmetric_by_identity(kernel, rows, x, dx, a, b):
    """The operators on one set of points and features, which moves: b is a's rate here."""
    return (
        kernel.product(x, rows, x, rows, a), kernel.gradient(a, x, rows, x, rows, a), *kernel.fused(a, x, rows, x, rows, a),
        *kernel.tangent(x, dx, a, b, a, b, rows), *kernel.tangent(x, dx, a, None, a, None, rows),
    )  # fmt: skip


def once(monkeypatch):
    """Which calls met each pair once, from now on."""
    told, sums = [], native_cpu._sums

    def listening(op, problem, once, *rest):
        told.append((op, once))
        return sums(op, problem, once, *rest)

    monkeypatch.setattr(native_cpu, "_sums", listening)
    return told


@pytest.mark.parametrize("operators", [symmetric_by_value, symmetric_by_identity])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("d, e", [(3, 3), (2, 1), (3, 16), (3, 24)])
def test_each_pair_once_is_each_pair_twice(operators, kernel, dtype, tolerance, d, e, monkeypatch):
    native, generic, given = setting(kernel, dtype, d, e)
    told = once(monkeypatch)
    got = operators(native, ROWS, *given)
    assert told and all(met for _, met in told)
    for ours, theirs in zip(got, operators(generic, ROWS, *(t.double() for t in given)), strict=True):
        # relative to the largest sum: a force of nearly opposite parts keeps no more than that (float32: the points lie 30 from the origin)
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance * float(theirs.abs().max()))


@pytest.mark.parametrize("n", [2500, 9001])
def test_many_points_in_several_chunks_and_parts(n, monkeypatch):
    """float32 sums that do not lose digits with n: n beyond one CHUNK of columns, and beyond each number of parts."""
    rows = Ragged((0, n))
    native, exact, (x, dx, a, b) = setting("cauchy", torch.float32, e=3, rows=rows, sigma=(0.5,))
    exact = Kernel("cauchy", exact.sigma, "native")
    told = once(monkeypatch)
    got = native.fused(a, x, rows, x, rows, a), native.tangent(x, dx, a, b, a, b, rows)
    assert [met for _, met in told] == [True, True]
    x, dx, a, b = (t.double() for t in (x, dx, a, b))
    copy = x.clone(), a.clone()
    want = exact.fused(a, x, rows, copy[0], rows, copy[1]), exact.tangent(x, dx, a, b, a, b, rows)
    assert told[2] == ("fused", False)
    for ours, theirs in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=3e-6 * float(theirs.abs().max()))


def test_what_must_not_be_met_once_is_met_twice(monkeypatch):
    """Other points, other features, points that move as rows only, too few points, too many features, far pairs to skip."""
    native, _, (x, dx, a, b) = setting(e=native_cpu.WIDE[1] + 1)
    told, some, few = once(monkeypatch), a[:, :3].contiguous(), Ragged.of_sizes((255, 1))
    tail, back = native._tail(ROWS, ROWS), b[:, :3].contiguous()
    native.product(x, ROWS, x + 0, ROWS, some)
    native.fused(some, x, ROWS, x, ROWS, back)
    tangent(x, dx, some, None, x, None, some, None, *tail)
    native.product(x, ROWS, x, ROWS, a)
    native.mutual_gradient(a, x, b, ROWS)
    Kernel("gaussian", native.sigma[:2].clone(), "native").product(x[:256], few, x[:256], few, some[:256])
    monkeypatch.setenv("SHAPEFLOW_NEARBY", "1")
    assert nearby.order("product", x, x, native._among(ROWS)) is not None
    native.product(x, ROWS, x, ROWS, some)
    assert told and not any(met for _, met in told)


def test_arrays_at_the_front_door_that_are_one_set_of_points(monkeypatch):
    told = once(monkeypatch)
    x, b = torch.randn(600, 3).numpy(), torch.randn(600, 2).numpy()
    kernel_product(x, x, b, sigma=1.0)
    kernel_product(x, x.copy(), b, sigma=1.0)
    assert [met for _, met in told] == [True, False]


def test_what_is_not_finite_loses_its_problem_alone():
    native, _, given = setting()
    healthy = symmetric_by_value(native, ROWS, *given)
    given[0][7, 1] = torch.inf
    for before, after in zip(healthy, symmetric_by_value(native, ROWS, *given), strict=True):
        assert bool(after[:40].isnan().all()) and torch.equal(after[40:], before[40:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_depend_on_neither_threads_nor_neighbours(dtype):
    """Of one problem shared by several threads, the same among others, and among so many that each has a thread of its own."""
    n, threads = 700, torch.get_num_threads()
    alone, among = Ragged((0, n)), Ragged((0, n, n + 30, n + 60))
    native, _, (x, dx, a, b) = setting(dtype=dtype, rows=among, sigma=(0.6, 1.0, 2.0))
    one = Kernel("gaussian", native.sigma[:1].clone(), "native")
    crowd = Kernel("gaussian", native.sigma[:1].repeat(9), "native")
    everybody = Ragged.of_sizes((n,) * 9)
    found = []
    try:
        for count in (1, 2, 4, 4):
            torch.set_num_threads(count)
            mine = [t[:n].contiguous() for t in (x, dx, a, b)]
            found.append(one.mutual_tangent(*mine, alone))
            found.append(tuple(t[:n] for t in native.mutual_tangent(x, dx, a, b, among)))
            found.append(tuple(t[:n] for t in crowd.mutual_tangent(*(t.repeat(9, 1) for t in mine), everybody)))
    finally:
        torch.set_num_threads(threads)
    for v, g in found[1:]:
        assert torch.equal(v, found[0][0]) and torch.equal(g, found[0][1])
