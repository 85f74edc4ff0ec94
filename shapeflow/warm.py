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
from typing import NamedTuple

import torch
from torch import Tensor

_log = logging.getLogger("shapeflow.normalization")


class Guess(NamedTuple):
    """past + step + weight · turn − before, of which any may be unknown (None). Nothing is known without past and step."""

    past: Tensor | None = None
    step: Tensor | None = None
    turn: Tensor | None = None
    before: Tensor | None = None
    weight: float = 1.0

    def value(self) -> Tensor | None:
        if self.past is None or self.step is None:
            out = self.past if self.step is None else self.step.clone()
        else:
            out = self.past + self.step
        if out is None or self.turn is None:
            return out
        out = out.add(self.turn, alpha=self.weight)
        return out if self.before is None else out.sub_(self.before)


class Room(NamedTuple):
    """Where a solution y_m is remembered: y_m itself, D_m, and D_m − D_{m−1}."""

    past: Tensor
    moved: Tensor
    turned: Tensor


@dataclass
class Warm:
    """One trajectory's guesses, kept for the next. `stages` is s. What is kept stays in the same memory, so that a CUDA graph can use it."""

    stages: int = 1
    past: dict[str, list[Tensor]] = field(default_factory=dict)
    moved: dict[str, list[Tensor]] = field(default_factory=dict)  # D, this trajectory
    turns: dict[str, list[Tensor]] = field(default_factory=dict)  # D_m − D_{m−1}
    mail: object | None = None  # of a backend whose blocks write to each other, for this trajectory
    left: Tensor | None = None  # (B,) residuals of solves that missed their tolerance on a device that nobody waits for

    def restart(self, stages: int) -> None:
        """A new trajectory begins."""
        self.stages = stages
        self.moved, self.turns, self.mail = {}, {}, None

    def select(self, rows: Tensor) -> Warm:
        """What is known of some of the points (N',), for a batch that goes on without the others."""
        return Warm(self.stages, {name: [t[rows.to(t.device)] for t in past] for name, past in self.past.items()})

    def guess(self, name: str) -> Tensor | None:
        """For the next field of the quantity `name`; None where nothing is known."""
        return self.terms(name).value()

    def terms(self, name: str) -> Guess:
        """What that guess is the sum of."""
        d, turns, past = self.moved.get(name, []), self.turns.get(name, []), self.past.get(name, [])
        m, s = len(d), self.stages
        return Guess(
            past=past[m] if m < len(past) else None,
            step=d[-1] if m else None,
            turn=turns[m - s] if m > s else None,
            before=turns[m - 2 * s] if m > 2 * s else None,
            weight=2.0 if m > 2 * s else 1.0,
        )

    def last(self, name: str) -> Tensor | None:
        """The solution at the last field of this trajectory."""
        m = len(self.moved.get(name, []))
        return self.past[name][m - 1] if m else None

    def learn(self, name: str, value: Tensor) -> None:
        """The solution at that field."""
        known, room = self.terms(name), self.room(name, value)
        torch.sub(value, 0 if known.past is None else known.past, out=room.moved)
        torch.sub(room.moved, 0 if known.step is None else known.step, out=room.turned)
        room.past.copy_(value)

    def room(self, name: str, like: Tensor) -> Room:
        """Memory for the solution at the next field, which has to be written before the next guess."""
        d, past = self.moved.setdefault(name, []), self.past.setdefault(name, [])
        if len(d) == len(past):
            past.append(torch.empty_like(like))
        room = Room(past[len(d)], torch.empty_like(like), torch.empty_like(like))
        d.append(room.moved)
        self.turns.setdefault(name, []).append(room.turned)
        return room

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
