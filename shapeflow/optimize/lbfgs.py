"""Batched L-BFGS.

minimise f_b(z_b) for b = 1 … B, the unknowns concatenated (N, d). One evaluation is one call of the objective for
every unfinished problem: evaluations are what a user pays for, so they are counted, a problem at a time. Finished
problems leave the batch once they are half of it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shapeflow.optimize.history import History
from shapeflow.optimize.search import MAX_TRIALS, Search
from shapeflow.ragged import Ragged

STATUSES = ("running", "converged", "max_iter", "line_search_failed", "diverged")
RUNNING, CONVERGED, MAX_ITER, LINE_SEARCH_FAILED, DIVERGED = range(5)
_log = logging.getLogger("shapeflow.optimize")


class Objective(ABC):
    """B energies of one ragged unknown."""

    rows: Ragged

    @abstractmethod
    def evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B,) and gradients (N, d)."""

    @abstractmethod
    def select(self, problems: Sequence[int]) -> Objective:
        """The objective of a subset of the problems."""

    def noise(self, value: Tensor) -> Tensor:
        """(B,) rounding error of the values: decreases below it are not seen."""
        return 4 * torch.finfo(value.dtype).eps * value.abs()

    def precondition(self, gradient: Tensor) -> Tensor:
        """An approximate inverse Hessian, up to a factor a problem, applied to a gradient (N, d)."""
        return gradient

    def restart(self) -> None:  # noqa: B027, a hook that most objectives do not need
        """A new search begins: forget what `learn` was told."""

    def learn(self, s: Tensor, y: Tensor, accepted: Tensor) -> None:  # noqa: B027, another
        """The problems in `accepted` (B,) have moved by s (N, d), and their gradients by y: a preconditioner may
        adapt.
        """

    def first_step(self, z: Tensor, value: Tensor, slope: Tensor, direction: Tensor) -> Tensor:
        """(B,) length of the very first step along `direction`, where nothing is known of the curvature; `value` and
        `slope` are (B,) float64 on the host, and so is the result.
        """
        norm = self.rows.sum(direction.square().sum(1)).sqrt().double().cpu()
        return 1 / norm.clamp(min=torch.finfo(norm.dtype).tiny)


@dataclass(frozen=True)
class Minimum:
    """Where the search ended: unknowns (N, d), values, (B,) iterations, evaluations and statuses, and the objective's
    history a problem.
    """

    z: Tensor
    value: Tensor
    gradient_norm: Tensor
    iterations: tuple[int, ...]
    evaluations: tuple[int, ...]
    status: tuple[str, ...]
    history: tuple[tuple[float, ...], ...]


def minimize(
    objective: Objective,
    start: Tensor,
    *,
    max_iter: int = 100,
    max_evaluations: int | None = None,
    tolerance: float = 1e-5,
    memory: int = 10,
    progress: Callable[[float, int], None] | None = None,
) -> Minimum:
    """Minimise every problem until its relative decrease over an iteration, or its gradient relative to the first,
    falls below `tolerance`.

    The decrease must stay below `tolerance` · |f| twice running, so that one short step does not end a search.

    `progress(done, count)` is told, after every iteration, how many problems are done; one that still runs counts by
    the share of `max_iter` that it has used.
    """
    return _Run(objective, start, max_iter, max_evaluations or 4 * max_iter + 20, tolerance, memory, progress).result()


class _Run:
    """The state of a batch: `kept` names the problems still in it, everything else has that many entries."""

    def __init__(self, objective, start, max_iter, max_evaluations, tolerance, memory, progress) -> None:
        self.objective, self.rows, self.all_rows = objective, objective.rows, objective.rows
        self.max_iter, self.max_evaluations, self.tolerance = max_iter, max_evaluations, tolerance
        self.progress = progress
        count = self.rows.count
        self.kept = torch.arange(count)
        self.final = start.clone()
        self.value, self.norm = (torch.full((count,), torch.nan, dtype=torch.float64) for _ in range(2))
        self.status = torch.full((count,), RUNNING)
        self.iterations, self.evaluations = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)
        self.history: list[list[float]] = [[] for _ in range(count)]
        self.z = start.clone()
        objective.restart()
        self.f, self.g = objective.evaluate(self.z)
        self.f = self.f.double().cpu()
        self.evaluations += 1
        self.g0 = self._norm(self.g)
        self.small = torch.zeros(count, dtype=torch.long)
        self.memory = History(self.z, self.rows, memory)
        self._record(torch.ones(count, dtype=torch.bool))
        self._finish(~torch.isfinite(self.f), DIVERGED)
        self._finish(self.g0 == 0, CONVERGED)
        self.direction, self.search = self._descend(first=True)

    def result(self) -> Minimum:
        while len(self.kept) and bool((self.status[self.kept] == RUNNING).any()):
            self._iterate()
            self._compact()
        self._store()
        names = tuple(STATUSES[s] for s in self.status.tolist())
        history = tuple(map(tuple, self.history))
        return Minimum(
            self.final,
            self.value,
            self.norm,
            tuple(self.iterations.tolist()),
            tuple(self.evaluations.tolist()),
            names,
            history,
        )

    def _iterate(self) -> None:
        """One evaluation of the batch at every problem's trial point, and what follows from it."""
        running = self.status[self.kept] == RUNNING
        step = torch.where(running, self.search.step, 0.0)
        z = self.z + self.rows.spread(step.to(self.z))[:, None] * self.direction
        f, g = self.objective.evaluate(z)
        f = f.double().cpu()
        self.evaluations[self.kept] += running
        slope = self._dot(g, self.direction)
        self.rounding = self.objective.noise(self.f).double().cpu()
        accepted = self.search.judge(f, slope, self.rounding) & running
        self._accept(accepted, z, f, g)
        self._give_up(running & ~accepted)
        over = running & (self.evaluations[self.kept] >= self.max_evaluations)
        self._finish(over & (self.status[self.kept] == RUNNING), MAX_ITER)

    def _accept(self, accepted: Tensor, z: Tensor, f: Tensor, g: Tensor) -> None:
        if not bool(accepted.any()):
            return
        by_row = self.rows.spread(accepted.to(z.device))[:, None]
        y = g - self.g
        s, taken = z - self.z, accepted.to(z.device)
        self.objective.learn(s, y, taken)
        self.memory.push(s, y, self.objective.precondition(y), taken)
        decrease = self.f - f
        self.z, self.g = torch.where(by_row, z, self.z), torch.where(by_row, g, self.g)
        self.f = torch.where(accepted, f, self.f)
        self.iterations[self.kept] += accepted
        self._record(accepted)
        tiny = decrease <= torch.maximum(self.tolerance * self.f.abs(), self.rounding)
        self.small = torch.where(accepted, torch.where(tiny, self.small + 1, 0), self.small)
        self._finish(accepted & ((self.small >= 2) | (self._norm(self.g) <= self.tolerance * self.g0)), CONVERGED)
        self._finish(accepted & (self.iterations[self.kept] >= self.max_iter), MAX_ITER)
        direction, search = self._descend(first=False)
        self.direction = torch.where(by_row, direction, self.direction)
        self.search = self.search.replaced(accepted, search)

    def _give_up(self, waiting: Tensor) -> None:
        """A search out of trials restarts once from the gradient; if that fails too, the problem keeps its best point
        and says so.
        """
        stuck = waiting & (self.search.trials >= MAX_TRIALS)
        if not bool(stuck.any()):
            return
        fresh = self.memory.rho.eq(0).all(0).cpu()
        self._finish(stuck & fresh, LINE_SEARCH_FAILED)
        again = stuck & ~fresh
        if bool(again.any()):
            self.memory.forget(again)
            direction, search = self._descend(first=True)
            self.direction = torch.where(self.rows.spread(again.to(self.z.device))[:, None], direction, self.direction)
            self.search = self.search.replaced(again, search)

    def _descend(self, first: bool) -> tuple[Tensor, Search]:
        direction = self.memory.direction(self.g, self.objective.precondition)
        slope = self._dot(self.g, direction)
        if not first:
            # Rounding can spoil a direction near the end; the preconditioned gradient always descends.
            wrong = ~(slope < 0)
            if bool(wrong.any()):
                self.memory.forget(wrong.to(self.z.device))
                steepest = -self.objective.precondition(self.g)
                direction = torch.where(self.rows.spread(wrong.to(self.z.device))[:, None], steepest, direction)
                slope = self._dot(self.g, direction)
            return direction, Search.start(self.f, slope, torch.ones_like(slope))
        step = self.objective.first_step(self.z, self.f, slope, direction)
        return direction, Search.start(self.f, slope, step)

    def _record(self, problems: Tensor) -> None:
        for k in torch.nonzero(problems)[:, 0].tolist():
            self.history[int(self.kept[k])].append(float(self.f[k]))
        if self.progress is not None:
            shares = torch.where(self.status == RUNNING, self.iterations / self.max_iter, 1.0)
            self.progress(float(shares.sum()), self.all_rows.count)

    def _finish(self, problems: Tensor, status: int) -> None:
        names = self.kept[problems]
        self.status[names] = torch.where(self.status[names] == RUNNING, status, self.status[names])

    def _compact(self) -> None:
        alive = self.status[self.kept] == RUNNING
        if int(alive.sum()) > len(self.kept) // 2 or bool(alive.all()):
            return
        self._store()
        chosen = torch.nonzero(alive)[:, 0]
        if not len(chosen):
            self.kept = self.kept[chosen]
            return
        self.objective = self.objective.select(chosen.tolist())
        layout, rows = self.rows.select(chosen.tolist())
        device_rows, device_chosen = rows.to(self.z.device), chosen.to(self.z.device)
        self.memory = self.memory.select(layout, device_rows, device_chosen)
        self.z, self.g, self.direction = self.z[device_rows], self.g[device_rows], self.direction[device_rows]
        self.f, self.g0, self.small = self.f[chosen], self.g0[chosen], self.small[chosen]
        self.search = self.search.select(chosen)
        self.rows, self.kept = layout, self.kept[chosen]

    def _store(self) -> None:
        """Copy the points of the problems in the batch to where the result is gathered."""
        if not len(self.kept):
            return
        _, rows = self.all_rows.select(self.kept.tolist())
        self.final[rows.to(self.final.device)] = self.z
        self.value[self.kept] = self.f.to(self.value)
        self.norm[self.kept] = self._norm(self.g).to(self.norm)

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        """(B,) on the host, in double precision: what decides is decided there."""
        return self.rows.sum((a * b).sum(1).double()).cpu()

    def _norm(self, a: Tensor) -> Tensor:
        return self._dot(a, a).sqrt()
