"""Evaluations on a CUDA device: the scaling kernels against the generic loops, recorded evaluations against those of the CPU. Run by tests/gpu.sh.

What waits for the device cannot be recorded, so that a recording proves that nothing does.
"""

import gc

import pytest
import torch

from shapeflow import ragged
from shapeflow.hamiltonian import metric
from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.normalization import Normalization, sinkhorn, solve
from shapeflow.ops.backends import cuda, cuda_field, cuda_scaling, cuda_softmax
from shapeflow.ops.bound import Kernel
from shapeflow.ragged import Ragged
from shapeflow.replay import Replay
from shapeflow.warm import Warm
from tests.benchmarks.surfaces import star

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]


def setting(sizes, kernel="gaussian", dtype=torch.float64):
    rows, g = Ragged.of_sizes(sizes), torch.Generator().manual_seed(0)
    q = torch.randn(rows.total, 3, generator=g, dtype=torch.float64)
    mu = 0.1 + torch.rand(rows.total, generator=g, dtype=torch.float64)
    right = torch.randn(rows.total, generator=g, dtype=torch.float64)
    sigma = 0.3 + torch.rand(rows.count, generator=g, dtype=torch.float64)
    exact = Kernel(kernel, sigma, "torch"), q, mu, right
    return rows, exact, (Kernel(kernel, sigma.to(dtype).cuda(), "native"), *(t.to(dtype).cuda() for t in exact[1:]))


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "0.3*gaussian@0.5 + 2.0*cauchy@3.0"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("sizes", [(1500,), (300, 0, 1, 77, 900), (40, 70) * 200])
def test_scaling_is_the_generic_one(sizes, dtype, tolerance, kernel):
    """Teams of many blocks, of some and of one; cold, warm, and from a guess that is not finite."""
    rows, (generic, *slow), (native, q, mu, right) = setting(sizes, kernel, dtype)
    options = Normalization("sinkhorn")
    want = sinkhorn(generic, slow[0], rows, slow[1], options)
    lost = want.clone()
    lost[rows.offsets[1] - 1] = torch.nan
    for start in (None, want + 0.01, lost):
        got = sinkhorn(native, q, rows, mu, options, None if start is None else start.to(mu))
        torch.testing.assert_close(got.cpu().double(), want, rtol=tolerance, atol=tolerance)
    w = solve(generic, slow[0], want.exp(), slow[1], slow[2], rows, options)
    for start in (None, w + 0.1, 1e9 * w):
        begin = None if start is None else start.to(mu)
        got = solve(native, q, want.exp().to(mu), mu, right, rows, options, begin)
        torch.testing.assert_close(got.cpu().double(), w, rtol=10 * tolerance, atol=10 * tolerance)


def test_scaling_of_a_large_batch_on_tensor_cores():
    """Whole problems in float32, near and far from the origin; every fifth is too wide for tensor cores, which then must not be used."""
    rows, g = Ragged.of_sizes((300, 517, 700, 1000, 400) * 30), torch.Generator().manual_seed(0)
    q, mu = torch.randn(rows.total, 3, generator=g), 0.1 + torch.rand(rows.total, generator=g)
    q += rows.spread(100 * torch.randn(rows.count, 3, generator=g))
    right = torch.randn(rows.total, generator=g)
    sigma = torch.tensor([0.9, 1.2, 1.5, 3.0, 0.05] * 30)
    q, mu, right, sigma = (t.cuda() for t in (q, mu, right, sigma))
    slow, fast, options = (
        Kernel("gaussian", sigma.double(), "torch"),
        Kernel("gaussian", sigma, "native"),
        Normalization("sinkhorn"),
    )
    want = sinkhorn(slow, q.double(), rows, mu.double(), options)
    w = solve(slow, q.double(), want.exp(), mu.double(), right.double(), rows, options)
    for start in (None, want.float() + 0.01):
        got = sinkhorn(fast, q, rows, mu, options, start)
        torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=2e-5)
        again = sinkhorn(fast, q, rows, mu, options, start)
        assert torch.equal(got, again)
    for start in (None, w.float() + 0.1):
        got = solve(fast, q, want.exp().float(), mu, right, rows, options, start)
        torch.testing.assert_close(got.double(), w, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize(
    "sizes, kernel",
    [
        *((sizes, "gaussian") for sizes in ((1000,), (1400,), (300, 0, 1, 77, 500), (40, 70) * 50)),
        ((300, 0, 1, 77, 500), "0.3*gaussian@0.5 + 2.0*cauchy@3.0"),
    ],
)
def test_the_field_in_shared_memory_is_the_generic_one(sizes, dtype, tolerance, kernel):
    """And its adjoint, along a trajectory and along one near it; every launch gives the same bits again."""
    rows, (generic, *slow), (native, q, mu, _) = setting(sizes, kernel, dtype)
    g, options = torch.Generator().manual_seed(1), Normalization("sinkhorn")
    p, V, h = (torch.randn(rows.total, 3, generator=g, dtype=torch.float64) for _ in range(3))
    exact, fast = metric(generic, rows, slow[1], options), metric(native, rows, mu, options)
    assert fast._shared(q) is not None
    warm, again, w = Warm(), Warm(), Warm()
    for turn in (0.0, 1e-3):
        for guesses in (warm, again, w):
            guesses.restart(2)
        for step in range(6):
            at = slow[0] + turn * h + 1e-3 * step * V
            found = []
            for m, guesses, points, tensors in (
                (exact, w, at, (p, V, h)),
                *((fast, guesses, at.to(q), [t.to(q) for t in (p, V, h)]) for guesses in (warm, again)),
            ):
                *values, kept = m.value(points, tensors[0], guesses)
                found.append((*values, *m.adjoint(points, tensors[0], kept, *tensors[1:], guesses)))
            for want, got, same in zip(*found, strict=True):
                assert torch.equal(got, same)
                torch.testing.assert_close(
                    got.cpu().double(), want, rtol=tolerance, atol=tolerance * float(want.abs().max())
                )
    assert float(warm.left.max()) == 0


def test_a_lost_problem_ends_and_leaves_the_others():
    rows, _, (native, q, mu, p) = setting((300, 200, 400), dtype=torch.float32)
    m, p = metric(native, rows, mu, Normalization("sinkhorn")), torch.stack([p, -p, p], 1)
    assert m._shared(q) is not None

    def field(q, p):
        *values, kept = m.value(q, p, None)
        return (*values, *m.adjoint(q, p, kept, p, q, None))

    want = field(q, p)
    for bad in (torch.nan, torch.inf):
        for spoil in (0, 1):
            tensors = [q.clone(), p.clone()]
            tensors[spoil][310, 1] = bad
            for got, expected in zip(field(*tensors), want, strict=True):
                assert got[300:500].isnan().all()
                assert torch.equal(got[:300], expected[:300]) and torch.equal(got[500:], expected[500:])


def test_teams_are_resident():
    for count in (1, 2, 50, 131, 132, 133, 5000):
        for backend in (cuda_field, cuda_scaling):
            assert count * backend.team_size((1000,) * count, 132) <= max(132, count)


def objective(dtype="float64", count=2, n=150, device="cuda", **changes) -> MatchingObjective:
    spec = MatchingSpec(**({"sigma": 40.0, "attachment_widths": (40.0,), "dtype": dtype, "device": device} | changes))
    return MatchingObjective([Problem(star(n + 10 * b, 1 + b), star(n, 77), spec) for b in range(count)])


def momenta(o: MatchingObjective) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    return (torch.randn(o.q0.shape, generator=g, dtype=torch.float64) * 20 / o.q0.shape[0]).to(o.q0)


CASES = [
    {"normalization": "none"},
    {"normalization": "sinkhorn"},
    {"normalization": "one_step"},
    {"normalization": "sinkhorn_unrolled"},
    {"normalization": "none", "control_points": "subsample", "control_count": 40},
    {"normalization": "sinkhorn", "control_points": "subsample", "control_count": 40, "integrator": "rk4"},
    {"normalization": "none", "attachment": "current", "integrator": "euler"},
]


@pytest.mark.parametrize("changes", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_recorded_evaluations_are_those_of_the_cpu(changes):
    o, slow = objective(**changes), objective(device="cpu", **changes)
    p = momenta(o)
    for factor in (1.0, 1.0, 1.1, -0.5, 1.0):
        value, gradient = o.evaluate(factor * p)
        want_value, want_gradient = slow._evaluate((factor * p).cpu())
        torch.testing.assert_close(value.cpu(), want_value, rtol=1e-9, atol=1e-9 * float(want_value.abs().max()))
        scale = float(want_gradient.abs().max())
        torch.testing.assert_close(gradient.cpu(), want_gradient, rtol=1e-7, atol=1e-7 * scale)
    assert o.replay.replays, o.replay.failure


def test_a_spoiled_evaluation_does_not_spoil_the_next():
    o = objective(count=3)
    p = momenta(o)
    want = o.evaluate(p)
    for bad in (torch.nan, 1e30):
        spoiled = p.clone()
        spoiled[o.rows.offsets[1]] = bad
        o.evaluate(spoiled)
        for got, expected in zip(o.evaluate(p), want, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_garbage_of_older_recordings_does_not_spoil_a_new_one():
    """A batch that shrinks leaves recordings behind; Python may find them garbage while the next one is recorded."""
    old = objective(count=1)
    old.myself = old  # a cycle, which only a collection frees
    for _ in range(2):
        old.evaluate(momenta(old))
    assert old.replay.replays
    held, was, new = [old], gc.get_threshold(), Replay()
    del old

    def function(z):
        if torch.cuda.is_current_stream_capturing():
            held.clear()
        assert [[] for _ in range(1000)]  # many a chance to collect
        return (z + 1,)

    try:
        gc.set_threshold(1, 1, 1)
        z = torch.ones(3, device="cuda")
        for _ in range(3):
            (value,) = new(function, z)
    finally:
        gc.set_threshold(*was)
    assert new.replays and not held and gc.isenabled(), new.failure
    torch.testing.assert_close(value, z + 1)


def test_a_recording_keeps_what_caches_forget():
    """Plans and layouts that other batches have pushed out, their memory given to somebody else: a replay still says the same."""
    o = objective(count=3)
    p = momenta(o)
    o.evaluate(p)
    want = o.evaluate(p)
    assert o.replay.replays and o.replay.kept
    for cache in (ragged._owner, ragged._offsets, ragged._sizes):
        cache.cache_clear()
    for backend in (cuda, cuda_field, cuda_scaling, cuda_softmax):
        backend._plans._made.clear()
    spoiled = [torch.full((size,), torch.nan, device="cuda") for size in (64, 512, 4096) for _ in range(200)]
    for got, expected in zip(o.evaluate(p), want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))
    assert spoiled


def test_a_failed_recording_is_told():
    o = objective(count=3)
    assert o.replay.note(o.q0) == "recorded"
    part = o.select([0, 2]).replay
    for _ in range(2):
        (value,) = part(lambda z: (z.new_tensor(z.sum().item()),), o.q0)  # waits for the device
    torch.testing.assert_close(value, o.q0.sum())
    assert not part.replays and part.note(o.q0).startswith("launch by launch: ")
    assert o.replay.note(o.q0).startswith("recorded, but for some: ")
    torch.testing.assert_close(o.evaluate(momenta(o))[0], o.evaluate(momenta(o))[0])
