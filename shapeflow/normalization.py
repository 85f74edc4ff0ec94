"""Symmetric Sinkhorn scaling of a kernel matrix, and the linear systems that its derivatives solve
(docs/mathematics.md §3).

λ solves λ_i Σ_j K_ij λ_j μ_j = 1, so that K̃ = ΛKΛ satisfies K̃μ = 1. With ℓ = log λ the residual r(ℓ) = ℓ + log
K(λμ) has the derivative I + K̃D, D = diag(μ), whose spectrum lies in [1, 2] whatever the kernel: D^{1/2}K̃D^{1/2} is
symmetric, positive, with largest eigenvalue 1. Two consequences:

- ℓ ← ℓ − α r + β (ℓ − ℓ_previous), with the α, β that are optimal for a spectrum in [1, 2], contracts by (√2 − 1)/(√2 + 1) ≈ 0.17 a step, against ½ for the
  plain averaged loop; the averaged map is non-expansive in the maximum norm for any α < 1, which is why it also converges from afar.
- conjugate gradients on I + D^{1/2}K̃D^{1/2} gain at least that factor a step: a fixed, small number of products reaches any tolerance.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from shapeflow.errors import ConfigError
from shapeflow.ops.backends import cuda_scaling, native_scaling
from shapeflow.ops.bound import Kernel
from shapeflow.ops.problem import Problem
from shapeflow.ops.registry import problem_of
from shapeflow.ragged import Ragged
from shapeflow.warm import Warm

MODES = ("none", "sinkhorn", "sinkhorn_unrolled", "one_step")
_log = logging.getLogger("shapeflow.normalization")

_ROOT2 = math.sqrt(2)
_ALPHA = 4 / (_ROOT2 + 1) ** 2
_CONTRACTION = (_ROOT2 - 1) / (_ROOT2 + 1)
_BETA = _CONTRACTION**2


@dataclass(frozen=True)
class Normalization:
    """Which Hamiltonian: `none`, `sinkhorn` (to `tolerance`, implicit gradients), `sinkhorn_unrolled` (`iterations`
    steps of the loop of Feydy's talk of 2017, differentiated as written) or `one_step` (K/√(r_i r_j), r = Kμ: explicit and cheap, but
    translations are no longer exact).
    """

    mode: str = "none"
    iterations: int = 5
    tolerance: float | None = None  # on max |r|; None: 2e-12 in float64, 2e-6 in float32
    max_iterations: int = 60

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"unknown normalization {self.mode!r}: write one of {', '.join(MODES)}")
        if self.iterations < 1 or self.max_iterations < 1:
            raise ConfigError("a normalization needs at least one iteration")

    def tolerance_for(self, dtype: torch.dtype) -> float:
        if self.tolerance is not None:
            return max(self.tolerance, 4 * torch.finfo(dtype).eps)
        return 2e-12 if dtype == torch.float64 else 2e-6

    def numbers(self, dtype: torch.dtype) -> tuple[float, float, float, float, float, int]:
        """α, β, the contraction, the tolerance, the level at which only rounding is left, and the most steps."""
        rounding = 100 * torch.finfo(dtype).eps
        return _ALPHA, _BETA, _CONTRACTION, self.tolerance_for(dtype), rounding, self.max_iterations


Product = Callable[[Tensor], Tensor]  # b (N, e) -> K b


def sinkhorn(
    kernel: Kernel,
    q: Tensor,
    rows: Ragged,
    masses: Tensor,
    options: Normalization,
    start: Tensor | None = None,
    warm: Warm | None = None,
) -> Tensor:
    """ℓ = log λ (N,) with λ ⊙ K(λμ) = 1 to the tolerance; `start` is a guess from a nearby configuration.

    A residual left above the tolerance is a warning: at once, or by `warm.report()` when that is given on a device, which is not waited for.
    """
    numbers = options.numbers(masses.dtype)
    *_, tolerance, rounding, steps = numbers
    if (problem := in_cache(kernel, rows)) is not None:
        log_scale, left = native_scaling.scale(q.contiguous(), masses, problem, start, numbers)
    elif (problem := on_card(kernel, rows)) is not None:
        missed = missed_by(warm, rows, q.device)
        log_scale = cuda_scaling.scale(q.contiguous(), masses, problem, start, missed, *numbers)
        left = 0.0 if warm is not None else float(missed.max())
    elif q.is_cuda:
        log_scale, residual = _sinkhorn_fixed(_product(kernel, q, rows), masses, tolerance, start)
        missed = missed_by(warm, rows, q.device)
        by_problem = torch.zeros_like(missed).scatter_reduce_(0, rows.owner(q.device), residual.double(), "amax")
        torch.maximum(missed, torch.where(_CONTRACTION * by_problem > tolerance, by_problem, 0.0), out=missed)
        left = 0.0 if warm is not None else float(missed.max())
    else:
        log_scale, left = _sinkhorn(_product(kernel, q, rows), masses, tolerance, rounding, steps, start)
    warn(left, options, masses.dtype)
    return log_scale


def warn(left: float, options: Normalization, dtype: torch.dtype) -> None:
    """Of a residual left above the tolerance; zero if none is."""
    if left:
        steps, tolerance = options.max_iterations, options.tolerance_for(dtype)
        _log.warning(
            "Sinkhorn scaling stopped after %d steps with residual %.1e (tolerance %.1e)", steps, left, tolerance
        )


def solve(
    kernel: Kernel,
    q: Tensor,
    scale: Tensor,
    masses: Tensor,
    right: Tensor,
    rows: Ragged,
    options: Normalization,
    start: Tensor | None = None,
) -> Tensor:
    """u (N,) with (I + D^{1/2}K̃D^{1/2}) u = right, by conjugate gradients, to the tolerance relative to `right`."""
    half, tolerance = masses.sqrt() * scale, options.tolerance_for(masses.dtype)
    if (problem := in_cache(kernel, rows)) is not None:
        return native_scaling.solve(q.contiguous(), half, right, problem, start, tolerance, options.max_iterations)
    if (problem := on_card(kernel, rows)) is not None:
        return cuda_scaling.solve(q.contiguous(), half, right, problem, start, tolerance, options.max_iterations)
    return _solve(_product(kernel, q, rows), half, right, rows, tolerance, options.max_iterations, start)


def _product(kernel: Kernel, q: Tensor, rows: Ragged) -> Product:
    return lambda b: kernel.product(q, rows, q, rows, b)


def in_cache(kernel: Kernel, rows: Ragged) -> Problem | None:
    """The problem, if compiled code can keep each of its matrices in cache for the whole iteration."""
    if kernel.backend != "native":
        return None
    problem = problem_of(kernel.sigma, rows, rows, kernel.radial)
    return problem if native_scaling.suits(problem) else None


def on_card(kernel: Kernel, rows: Ragged) -> Problem | None:
    """The problem, if a CUDA device can iterate it by itself."""
    if kernel.backend != "native" or not kernel.sigma.is_cuda or not rows.total:
        return None
    return problem_of(kernel.sigma, rows, rows, kernel.radial)


def missed_by(warm: Warm | None, rows: Ragged, device: torch.device) -> Tensor:
    """(B,) where residuals above the tolerance are kept."""
    if warm is None:
        return torch.zeros(rows.count, dtype=torch.float64, device=device)
    if warm.left is None or warm.left.device != device or len(warm.left) != rows.count:
        warm.left = torch.zeros(rows.count, dtype=torch.float64, device=device)
    return warm.left


# The generic loops: any backend, any device, any size; and what kernels/scaling.cpp and scaling.cu are tested against.


def _sinkhorn(
    apply: Product, masses: Tensor, tolerance: float, rounding: float, steps: int, start: Tensor | None
) -> tuple[Tensor, float]:
    previous = log_scale = _start(apply, masses, start)
    worst = math.inf
    for _ in range(steps):
        log_scale, previous, residual = _step(apply, masses, log_scale, previous)
        # a problem gone to NaN is lost, and must not stop the others
        before, worst = worst, float(residual.abs().nan_to_num(nan=0.0).max()) if residual.numel() else 0.0
        stalled = before <= rounding and worst > 0.7 * before  # only rounding is left
        if _CONTRACTION * worst <= tolerance or stalled:  # the step just taken has shrunk it already
            return log_scale, 0.0
    return log_scale, worst


def _sinkhorn_fixed(apply: Product, masses: Tensor, tolerance: float, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """A number of steps that waits for no residual, for a device: as many as bring an error of one below the tolerance, and half as many again for
    the way from afar; and the residual (N,) before the last step."""
    previous = log_scale = _start(apply, masses, start)
    residual = torch.zeros_like(masses)
    for _ in range(math.ceil(1.5 * math.log(tolerance) / math.log(_CONTRACTION))):
        log_scale, previous, residual = _step(apply, masses, log_scale, previous)
    return log_scale, residual.abs().nan_to_num(nan=0.0)


def _step(apply: Product, masses: Tensor, log_scale: Tensor, previous: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(next ℓ, ℓ, r(ℓ))."""
    residual = log_scale + apply((log_scale.exp() * masses)[:, None])[:, 0].log()
    return log_scale - _ALPHA * residual + _BETA * (log_scale - previous), log_scale, residual


def _start(apply: Product, masses: Tensor, start: Tensor | None) -> Tensor:
    """The guess, where it is finite; from cold −½ log Kμ."""
    return _one_step(apply, masses) if start is None else torch.where(start.isfinite(), start, 0.0)


def _one_step(apply: Product, masses: Tensor) -> Tensor:
    """ℓ = −½ log Kμ: exact when σ is far below or far above the distances."""
    return -0.5 * apply(masses[:, None])[:, 0].log()


def _solve(
    apply: Product, half: Tensor, right: Tensor, rows: Ragged, tolerance: float, steps: int, start: Tensor | None
) -> Tensor:
    """Conjugate gradients, one step length a problem. A guess that is worse than none is not used. On a device the number of steps is fixed, and a
    problem that has converged stays where it is."""

    def matrix(u: Tensor) -> Tensor:
        return u + half * apply((half * u)[:, None])[:, 0]

    tiny = torch.finfo(right.dtype).tiny
    u, residual = torch.zeros_like(right), right
    norm = square = rows.sum(right.square())
    if start is not None:
        guessed = right - matrix(start)
        better = rows.spread(rows.sum(guessed.square()) < norm)
        u, residual = torch.where(better, start, u), torch.where(better, guessed, residual)
        square = rows.sum(residual.square())
    direction = residual
    # Where the right-hand side is zero so is the solution, and there is nothing to divide by.
    goal = tolerance**2 * norm + tiny
    for _ in range(math.ceil(math.log(tolerance) / math.log(_CONTRACTION)) + 1 if right.is_cuda else steps):
        done = (square <= goal) | square.isnan()
        if not right.is_cuda and bool(done.all()):
            break
        image = matrix(direction)
        length = torch.where(done, 0.0, square / rows.sum(direction * image).clamp(min=tiny))
        step = rows.spread(length)
        u, residual = u + step * direction, residual - step * image
        fresh = rows.sum(residual.square())
        direction = residual + rows.spread(fresh / square.clamp(min=tiny)) * direction
        square = fresh
    return u
