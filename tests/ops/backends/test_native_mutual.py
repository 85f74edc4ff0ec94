"""Sums that meet each pair once against the operators that meet it twice."""

import pytest
import torch

from shapeflow.ops.backends import native_mutual
from shapeflow.ops.bound import Kernel
from shapeflow.ragged import Ragged

ROWS = Ragged.of_sizes((40, 0, 1, 333, 17))
SIGMA = (0.5, 1.0, 1.0, 2.0, 0.7)


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


def exact(generic, x, dx, a, b, rows):
    x, dx, a, b = (t.double() for t in (x, dx, a, b))
    return generic.gradient(a, x, rows, x, rows, b), *generic.tangent(x, dx, a, None, b, None, rows)


@pytest.mark.parametrize(
    "kernel", ["gaussian", "laplacian", "inverse_multiquadric", "0.3*gaussian@0.5 + 2.0*cauchy@3.0"]
)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 2e-5)])
@pytest.mark.parametrize("d, e", [(3, 5), (2, 1), (3, 16), (3, 24)])
def test_each_pair_once_is_each_pair_twice(kernel, dtype, tolerance, d, e):
    native, generic, given = setting(kernel, dtype, d, e)
    x, dx, a, b = given
    got = native.mutual_gradient(a, x, b, ROWS), *native.mutual_tangent(x, dx, a, b, ROWS)
    for ours, theirs in zip(got, exact(generic, *given, ROWS), strict=True):
        # relative to the largest sum: a force of nearly opposite parts keeps no more than that (float32: the points lie 30 from the origin)
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance * float(theirs.abs().max()))


def test_more_features_than_are_compiled_take_the_operators(monkeypatch):
    native, generic, given = setting(e=native_mutual.MOST + 1)
    monkeypatch.setattr(native_mutual, "_run", lambda *a: pytest.fail("too many features were not refused"))
    x, dx, a, b = given
    got = native.mutual_gradient(a, x, b, ROWS), *native.mutual_tangent(x, dx, a, b, ROWS)
    for ours, theirs in zip(got, exact(generic, *given, ROWS), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_what_is_not_finite_loses_its_problem_alone():
    native, _, (x, dx, a, b) = setting()
    healthy = native.mutual_gradient(a, x, b, ROWS), *native.mutual_tangent(x, dx, a, b, ROWS)
    x[7, 1] = torch.inf
    spoiled = native.mutual_gradient(a, x, b, ROWS), *native.mutual_tangent(x, dx, a, b, ROWS)
    for before, after in zip(healthy, spoiled, strict=True):
        assert bool(after[:40].isnan().all()) and torch.equal(after[40:], before[40:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_depend_on_neither_threads_nor_neighbours(dtype):
    """Of one problem shared by several threads, and of the same among others."""
    n, threads = 700, torch.get_num_threads()
    alone, among = Ragged((0, n)), Ragged((0, n, n + 30, n + 60))
    native, _, (x, dx, a, b) = setting(dtype=dtype, rows=among, sigma=(0.6, 1.0, 2.0))
    one = Kernel("gaussian", native.sigma[:1].clone(), "native")
    found = []
    try:
        for count in (1, 2, 4, 4):
            torch.set_num_threads(count)
            found.append(one.mutual_tangent(x[:n], dx[:n], a[:n], b[:n], alone))
            found.append(tuple(t[:n] for t in native.mutual_tangent(x, dx, a, b, among)))
    finally:
        torch.set_num_threads(threads)
    for v, g in found[1:]:
        assert torch.equal(v, found[0][0]) and torch.equal(g, found[0][1])
