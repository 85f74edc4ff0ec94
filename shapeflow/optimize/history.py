"""The curvature memory of batched L-BFGS.

Each problem of a ragged batch keeps its own last m pairs (s, y) in a ring. The two-loop recursion (Nocedal & Wright,
algorithm 7.4) runs for all problems together; a pair that a problem does not have yet counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shapeflow.ragged import Ragged


class History:
    """Pairs (m, N, d) and 1/⟨s, y⟩ (m, B); `newest` (B,) is each problem's latest slot."""

    def __init__(self, like: Tensor, rows: Ragged, memory: int) -> None:
        self.rows, self.memory = rows, memory
        self.s, self.y = like.new_zeros(memory, *like.shape), like.new_zeros(memory, *like.shape)
        self.rho = like.new_zeros(memory, rows.count)
        self.newest = torch.full((rows.count,), -1, dtype=torch.long, device=like.device)
        self.scale = like.new_ones(rows.count)  # ⟨s, y⟩/⟨y, y⟩ of the newest pair: the initial inverse Hessian

    def push(self, s: Tensor, y: Tensor, inner_y: Tensor, accepted: Tensor) -> None:
        """Store a pair for the problems in `accepted` (B,) whose curvature is positive. `inner_y` is H₀ applied to
        y.
        """
        sy, yy = self._dot(s, y), self._dot(y, inner_y)
        good = accepted & (sy > 1e-10 * (self._dot(s, s) * self._dot(y, y)).sqrt()) & (yy > 0)
        if not bool(good.any()):
            return
        self.newest = torch.where(good, (self.newest + 1) % self.memory, self.newest)
        chosen = self.rows.spread(good)
        slot, row = self.rows.spread(self.newest)[chosen], torch.nonzero(chosen)[:, 0]
        self.s[slot, row], self.y[slot, row] = s[chosen], y[chosen]
        problems = torch.nonzero(good)[:, 0]
        self.rho[self.newest[problems], problems] = 1 / sy[problems]
        self.scale = torch.where(good, sy / yy, self.scale)

    def direction(self, gradient: Tensor, precondition: Callable[[Tensor], Tensor]) -> Tensor:
        """−H g (N, d)."""
        back = []
        g = gradient
        for age in range(self.memory):
            s, y, rho = self._pair(age)
            alpha = rho * self._dot(s, g)
            back.append((s, y, rho, alpha))
            g = g - self.rows.spread(alpha)[:, None] * y
        g = self.rows.spread(self.scale)[:, None] * precondition(g)
        for s, y, rho, alpha in reversed(back):
            beta = rho * self._dot(y, g)
            g = g + self.rows.spread(alpha - beta)[:, None] * s
        return -g

    def forget(self, problems: Tensor) -> None:
        """Restart the problems in the mask (B,) from the initial inverse Hessian."""
        self.rho[:, problems] = 0

    def select(self, layout: Ragged, rows: Tensor, problems: Tensor) -> History:
        kept = object.__new__(History)
        kept.rows, kept.memory = layout, self.memory
        kept.s, kept.y = self.s[:, rows], self.y[:, rows]
        kept.rho, kept.newest, kept.scale = self.rho[:, problems], self.newest[problems], self.scale[problems]
        return kept

    def _pair(self, age: int) -> tuple[Tensor, Tensor, Tensor]:
        slot = (self.newest - age) % self.memory  # a slot that was never filled has rho = 0
        rows = torch.arange(self.s.shape[1], device=self.s.device)
        by_row = self.rows.spread(slot)
        problems = torch.arange(self.rows.count, device=self.s.device)
        return self.s[by_row, rows], self.y[by_row, rows], self.rho[slot, problems]

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        return self.rows.sum((a * b).sum(1))
