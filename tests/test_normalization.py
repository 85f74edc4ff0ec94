"""Scaling and its linear systems: compiled against generic, problem by problem, and what happens where they cannot converge."""

import pytest
import torch

from shapeflow.normalization import Normalization, sinkhorn, solve
from shapeflow.ops.backends import native_scaling
from shapeflow.ops.bound import Kernel
from shapeflow.ragged import Ragged
from shapeflow.warm import Warm

ROWS = Ragged.of_sizes((40, 0, 1, 77))
SIGMA = (0.5, 1.0, 1.0, 2.0)


def setting(kernel, dtype=torch.float64, d=3):
    g = torch.Generator().manual_seed(0)
    q = torch.randn(ROWS.total, d, generator=g, dtype=torch.float64)
    mu = 0.1 + torch.rand(ROWS.total, generator=g, dtype=torch.float64)
    right = torch.randn(ROWS.total, generator=g, dtype=torch.float64)
    native, torch_ = (Kernel(kernel, torch.tensor(SIGMA, dtype=dtype), b) for b in ("native", "torch"))
    return native, torch_, q.to(dtype), mu.to(dtype), right.to(dtype)


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "cauchy", "energy", "0.3*gaussian@0.5 + 2.0*cauchy@3.0"])
@pytest.mark.parametrize("dtype, rtol", [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_compiled_scaling_is_the_generic_one(kernel, dtype, rtol):
    native, generic, q, mu, right = setting(kernel, dtype)
    options = Normalization("sinkhorn")
    want = sinkhorn(generic, q, ROWS, mu, options)
    got = sinkhorn(native, q, ROWS, mu, options)
    torch.testing.assert_close(got, want, rtol=rtol, atol=rtol)
    warm = sinkhorn(native, q, ROWS, mu, options, start=want + 0.01)
    torch.testing.assert_close(warm, want, rtol=rtol, atol=rtol)
    scale = want.exp()
    w = solve(generic, q, scale, mu, right, ROWS, options)
    for start in (None, w + 0.1):
        torch.testing.assert_close(
            solve(native, q, scale, mu, right, ROWS, options, start), w, rtol=10 * rtol, atol=10 * rtol
        )


def test_solution_solves():
    native, generic, q, mu, right = setting("gaussian")
    options = Normalization("sinkhorn")
    scale = sinkhorn(native, q, ROWS, mu, options).exp()
    torch.testing.assert_close(
        scale * generic.product(q, ROWS, q, ROWS, (scale * mu)[:, None])[:, 0], torch.ones_like(mu), rtol=0, atol=1e-11
    )
    u = solve(native, q, scale, mu, right, ROWS, options)
    half = mu.sqrt() * scale
    back = u + half * generic.product(q, ROWS, q, ROWS, (half * u)[:, None])[:, 0]
    torch.testing.assert_close(back, right, rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_lost_problem_does_not_stop_the_others(backend):
    native, generic, q, mu, right = setting("gaussian")
    kernel, options = (native if backend == "native" else generic), Normalization("sinkhorn")
    healthy = sinkhorn(kernel, q, ROWS, mu, options)
    q = q.clone()
    q[-1, 0] = torch.nan
    spoiled = sinkhorn(kernel, q, ROWS, mu, options)
    torch.testing.assert_close(spoiled[:41], healthy[:41], rtol=1e-11, atol=1e-11)
    assert bool(spoiled[41:].isnan().all())
    u = solve(kernel, q, healthy.exp(), mu, right, ROWS, options)
    assert bool(torch.isfinite(u[:41]).all()) and bool(u[41:].isnan().any())


def test_large_problems_take_the_generic_loop(monkeypatch):
    native, generic, q, mu, right = setting("gaussian")
    monkeypatch.setattr(native_scaling, "LARGEST", 10)
    monkeypatch.setattr(native_scaling, "scale", lambda *a: pytest.fail("a matrix too large was filled"))
    torch.testing.assert_close(
        sinkhorn(native, q, ROWS, mu, Normalization("sinkhorn")),
        sinkhorn(generic, q, ROWS, mu, Normalization("sinkhorn")),
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_threads(threads):
    native, _, q, mu, right = setting("gaussian", torch.float32)
    before = torch.get_num_threads()
    one = sinkhorn(native, q, ROWS, mu, Normalization("sinkhorn"))
    try:
        torch.set_num_threads(threads)
        assert torch.equal(sinkhorn(native, q, ROWS, mu, Normalization("sinkhorn")), one)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_inside_one_problem_change_no_bit(dtype):
    """A problem that several threads share is the sum of the same parts, whoever takes them; and is the generic one."""
    n, g = 700, torch.Generator().manual_seed(1)
    rows, sigma = Ragged((0, n)), torch.tensor([0.6], dtype=torch.float64)
    q, right = torch.randn(n, 3, generator=g, dtype=torch.float64), torch.randn(n, generator=g, dtype=torch.float64)
    mu = torch.rand(n, generator=g, dtype=torch.float64) + 0.1
    kernel, options, threads = (
        Kernel("gaussian", sigma.to(dtype), "native"),
        Normalization("sinkhorn"),
        torch.get_num_threads(),
    )
    found = []
    try:
        for count in (1, 2, 4, 4, 4):
            torch.set_num_threads(count)
            log_scale = sinkhorn(kernel, q.to(dtype), rows, mu.to(dtype), options)
            u = solve(kernel, q.to(dtype), log_scale.exp(), mu.to(dtype), right.to(dtype), rows, options)
            found.append((log_scale, u))
    finally:
        torch.set_num_threads(threads)
    for log_scale, u in found[1:]:
        assert torch.equal(log_scale, found[0][0]) and torch.equal(u, found[0][1])
    want = sinkhorn(Kernel("gaussian", sigma, "torch"), q, rows, mu, options)
    torch.testing.assert_close(found[0][0].double(), want, rtol=0, atol=1e-10 if dtype == torch.float64 else 2e-5)


def test_guesses_extrapolate_what_varies_smoothly_from_step_to_step():
    """Two stages a step: a quantity that is quadratic in time along each stage, and its change to the next trajectory, are guessed exactly."""
    warm = Warm()

    def at(m, shift):
        time, stage = divmod(m, 2)
        return torch.tensor(
            [3.0 + 0.5 * time - 0.2 * time**2 + 0.7 * stage + shift * (1 + 0.3 * time)], dtype=torch.float64
        )

    for shift in (0.0, 0.1, -0.4):
        warm.restart(2)
        for m in range(12):
            guess = warm.guess("x")
            if m >= 5:
                torch.testing.assert_close(guess, at(m, shift), rtol=0, atol=1e-12)
            warm.learn("x", at(m, shift))
    kept = warm.select(torch.tensor([0]))
    torch.testing.assert_close(kept.guess("x"), at(0, -0.4))
