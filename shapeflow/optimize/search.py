"""A line search for every problem of a batch, in lock step.

Weak Wolfe conditions by bracketing: where the decrease is too small the step becomes the bracket's upper end, where
the slope is still too steep its lower end; the next trial is the minimiser of the cubic through both ends, kept
inside the bracket. Almost every step is accepted at the first trial, so a problem pays one evaluation an iteration;
the others wait for nobody, since each trial is one evaluation of the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

DECREASE, CURVATURE = 1e-4, 0.9
MAX_TRIALS = 20


@dataclass
class Search:
    """State of the searches: all (B,). Along the direction, `f0` and `slope0` at step 0; [lo, hi] brackets an
    acceptable step.
    """

    f0: Tensor
    slope0: Tensor
    step: Tensor
    lo: Tensor
    f_lo: Tensor
    slope_lo: Tensor
    hi: Tensor
    f_hi: Tensor
    slope_hi: Tensor
    trials: Tensor

    @staticmethod
    def start(f0: Tensor, slope0: Tensor, step: Tensor) -> Search:
        zero, far = torch.zeros_like(f0), torch.full_like(f0, torch.inf)
        return Search(
            f0,
            slope0,
            step,
            zero,
            f0.clone(),
            slope0.clone(),
            far,
            far.clone(),
            zero.clone(),
            torch.zeros_like(f0, dtype=torch.long),
        )

    def replaced(self, problems: Tensor, other: Search) -> Search:
        """The searches of `other` for the problems in the mask (B,), these for the rest."""
        return Search(*(torch.where(problems, b, a) for a, b in zip(self._state(), other._state(), strict=True)))

    def select(self, problems: Tensor) -> Search:
        """The searches of some of the problems, given by their numbers."""
        return Search(*(t[problems] for t in self._state()))

    def _state(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))

    def judge(self, f: Tensor, slope: Tensor, rounding: Tensor) -> Tensor:
        """Take the values at the trial steps; returns the mask of accepted steps and moves the brackets of the
        others.

        `rounding` (B,) is the noise of f: a decrease that is smaller cannot be seen, and is not asked for.
        """
        self.trials += 1
        fine = torch.isfinite(f) & torch.isfinite(slope)
        low_enough = fine & (f <= self.f0 + DECREASE * self.step * self.slope0 + rounding)
        flat_enough = slope >= CURVATURE * self.slope0
        accepted = low_enough & flat_enough
        shrink, grow = ~low_enough, low_enough & ~flat_enough
        self.hi = torch.where(shrink, self.step, self.hi)
        self.f_hi, self.slope_hi = torch.where(shrink, f, self.f_hi), torch.where(shrink, slope, self.slope_hi)
        self.lo = torch.where(grow, self.step, self.lo)
        self.f_lo, self.slope_lo = torch.where(grow, f, self.f_lo), torch.where(grow, slope, self.slope_lo)
        self.step = torch.where(accepted, self.step, self._next())
        return accepted

    def _next(self) -> Tensor:
        width = self.hi - self.lo
        cubic = _cubic(self.lo, self.f_lo, self.slope_lo, self.hi, self.f_hi, self.slope_hi)
        inside = torch.isfinite(cubic) & (cubic > self.lo + 0.1 * width) & (cubic < self.hi - 0.1 * width)
        bracketed = torch.where(inside, cubic, self.lo + 0.5 * width)
        # A trial that overflowed says nothing but "too far": go back much further than half way.
        bracketed = torch.where(torch.isfinite(self.f_hi), bracketed, self.lo + 0.1 * width)
        return torch.where(torch.isinf(self.hi), 4 * self.step.clamp(min=torch.finfo(self.step.dtype).tiny), bracketed)


def _cubic(a: Tensor, fa: Tensor, ga: Tensor, b: Tensor, fb: Tensor, gb: Tensor) -> Tensor:
    """Minimiser of the cubic with values fa, fb and slopes ga, gb at a, b (Nocedal & Wright, 3.59); NaN where there
    is none.
    """
    d1 = ga + gb - 3 * (fb - fa) / (b - a)
    root = (d1.square() - ga * gb).sqrt()
    return b - (b - a) * (gb + root - d1) / (gb - ga + 2 * root)
