"""Guesses for what is solved along a trajectory, from the fields before this one and from the trajectory before this one.

A quantity y is solved at the fields m = 0, 1, … of a trajectory, s fields to a time step. With D_m = y_m − (y_m of the last trajectory),

    y_m ≈ y_m(last) + D_{m−1} + 2 (D_{m−s} − D_{m−s−1}) − (D_{m−2s} − D_{m−2s−1})

extrapolates the change from field to field over the same stage of the last two steps: stages of a Runge–Kutta scheme lie off the trajectory, each by an
amount that varies smoothly from step to step. Terms not known yet are left out. Guesses decide how long a solver takes, never what it finds beyond its
tolerance.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from torch import Tensor

_log = logging.getLogger("shapeflow.normalization")


@dataclass
class Warm:
    """One trajectory's guesses, kept for the next. `stages` is s. What is kept stays in the same memory, so that a CUDA graph can use it."""

    stages: int = 1
    past: dict[str, list[Tensor]] = field(default_factory=dict)
    moved: dict[str, list[Tensor]] = field(default_factory=dict)  # D, this trajectory
    turns: dict[str, list[Tensor]] = field(default_factory=dict)  # D_m − D_{m−1}
    left: Tensor | None = None  # (B,) residuals of solves that missed their tolerance on a device that nobody waits for

    def restart(self, stages: int) -> None:
        """A new trajectory begins."""
        self.stages = stages
        self.moved, self.turns = {}, {}

    def select(self, rows: Tensor) -> Warm:
        """What is known of some of the points (N',), for a batch that goes on without the others."""
        return Warm(self.stages, {name: [t[rows.to(t.device)] for t in past] for name, past in self.past.items()})

    def guess(self, name: str) -> Tensor | None:
        """For the next field of the quantity `name`; None where nothing is known."""
        d, turns, past = self.moved.get(name, []), self.turns.get(name, []), self.past.get(name, [])
        m, s = len(d), self.stages
        known = past[m] if m < len(past) else None
        if not m:
            return known
        out = d[-1].clone() if known is None else known + d[-1]
        if m > s:
            out.add_(turns[m - s], alpha=2 if m > 2 * s else 1)
        if m > 2 * s:
            out.sub_(turns[m - 2 * s])
        return out

    def last(self, name: str) -> Tensor | None:
        """The solution at the last field of this trajectory."""
        m = len(self.moved.get(name, []))
        return self.past[name][m - 1] if m else None

    def learn(self, name: str, value: Tensor) -> None:
        """The solution at that field."""
        d, past = self.moved.setdefault(name, []), self.past.setdefault(name, [])
        m = len(d)
        if m < len(past):
            now = value - past[m]
            past[m].copy_(value)
        else:
            now = value
            past.append(value.clone())
        self.turns.setdefault(name, []).append(now - d[-1] if d else now)
        d.append(now)

    def report(self) -> None:
        """Warn of the solves that missed their tolerance since the last report; waits for the device."""
        if self.left is None:
            return
        worst = float(self.left.max()) if len(self.left) else 0.0
        if worst > 0:
            count = int((self.left > 0).sum())
            _log.warning(
                "Sinkhorn scaling missed its tolerance in %d of %d problems, by %.1e", count, len(self.left), worst
            )
            self.left.zero_()
