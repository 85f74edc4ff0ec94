"""Match many pairs at once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shapeflow.errors import ShapeflowError
from shapeflow.flow import jacobian_determinants
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.matching.spec import MatchingSpec
from shapeflow.optimize import Minimum, minimize
from shapeflow.ragged import Ragged
from shapeflow.shape import Shape
from shapeflow.shooting import Carried

_log = logging.getLogger("shapeflow.matching")


@dataclass(frozen=True)
class MatchingResult:
    """One entry a problem, in the order given: a row of numbers, the momenta p₀ (n, d), the deformed source, the
    source landmarks carried by the flow, and the objective after every iteration. `control_points` (n, d) say where
    momenta live.
    """

    rows: tuple[dict[str, Any], ...]
    momenta: tuple[np.ndarray, ...]
    control_points: tuple[np.ndarray, ...]
    deformed: tuple[Shape, ...]
    carried: tuple[np.ndarray | None, ...]
    history: tuple[tuple[float, ...], ...]


def match(
    sources: Sequence[Shape],
    targets: Sequence[Shape],
    spec: MatchingSpec | Sequence[MatchingSpec],
    *,
    source_landmarks: Sequence[np.ndarray | None] | None = None,
    target_landmarks: Sequence[np.ndarray | None] | None = None,
    start: Sequence[np.ndarray] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MatchingResult:
    """Minimise γ·H + A for every pair (sources[b], targets[b]), all in one batch.

    One spec for all, or one a problem (then they may differ in σ, attachment widths, γ and weight: a sweep over σ is
    just more problems). `start` are momenta to begin from, zero unless given. A problem that fails has a row whose
    `status` says so; the others are not disturbed.
    """
    count = len(sources)
    specs = [spec] * count if isinstance(spec, MatchingSpec) else list(spec)
    if not count or len(targets) != count or len(specs) != count:
        raise ShapeflowError(
            f"match needs as many sources as targets and specs, at least one; received {count}, {len(targets)} and {len(specs)}"
        )
    _same_but_for_widths(specs)
    from_marks, to_marks = source_landmarks or [None] * count, target_landmarks or [None] * count
    problems = [Problem(*item) for item in zip(sources, targets, specs, from_marks, to_marks, strict=True)]
    began = time.perf_counter()
    objective = MatchingObjective(problems)
    z = torch.zeros_like(objective.q0) if start is None else torch.as_tensor(np.concatenate(start)).to(objective.q0)
    first = specs[0]
    minimum = minimize(
        objective, z, max_iter=first.max_iter, tolerance=first.tolerance, memory=first.memory, progress=progress
    )
    return result_of(objective, minimum.z, minimum=minimum, seconds=time.perf_counter() - began)


def _same_but_for_widths(specs: Sequence[MatchingSpec]) -> None:
    free = {"sigma": 1.0, "gamma": 1.0, "attachment_weight": 1.0}
    ratios = {tuple(w / s.attachment_widths[0] for w in s.attachment_widths) for s in specs}
    if len({replace(s, attachment_widths=(1.0,), **free) for s in specs}) != 1 or len(ratios) != 1:
        raise ShapeflowError(
            "the specs of one batch may differ in sigma, gamma, attachment widths (in proportion) and weight only"
        )


def result_of(
    objective: MatchingObjective,
    p: Tensor,
    *,
    minimum: Minimum | None = None,
    mesh: Tensor | None = None,
    seconds: float = 0.0,
) -> MatchingResult:
    """Shoot the momenta p once more with everything aboard, and lay the numbers out a problem at a time.

    `mesh` (N, d) stands for the sources' points where they were estimated too; `seconds` already spent are shared by
    the problems.
    """
    began = time.perf_counter()
    spec, problems, layout = objective.spec, objective.problems, objective.source.rows
    start = objective.source.points if mesh is None else mesh
    q0 = start if objective.on_vertices else objective.q0
    aboard, owners = _landmarks_aboard(problems, objective.q0)
    with torch.no_grad():
        shot = objective.shoot(p, (aboard,), mesh=mesh)
        energy, attachment = objective.terms(p, shot)
        total, deformed = objective.total(energy, attachment), objective.deformed(shot)
        at = Carried(start, layout)
        determinants = jacobian_determinants(
            objective.metric, q0, p, steps=spec.steps, integrator=spec.integrator, at=at
        )
    carried: list[np.ndarray | None] = [None] * len(problems)
    for owner, piece in zip(owners, aboard.rows.slices(), strict=True):
        if owner is not None:
            carried[owner] = _numpy(shot.carried[-1][piece])
    share = (seconds + time.perf_counter() - began) / len(problems)
    where = {"device": objective.q0.device.type, "backend": spec.resolved_backend()}
    rows, shapes = [], []
    for b, (problem, piece) in enumerate(zip(problems, layout.slices(), strict=True)):
        row = {
            "hamiltonian": float(energy[b]),
            "attachment": float(attachment[b]),
            "objective": float(total[b]),
            "distance": math.sqrt(2 * max(float(energy[b]), 0.0)),
            "jacobian_min": float(determinants[piece].min()),
            "sigma": problem.spec.sigma,
            "seconds": share,
        }
        if minimum is not None:
            row |= {
                "iterations": minimum.iterations[b],
                "evaluations": minimum.evaluations[b],
                "status": minimum.status[b],
            }
        rows.append(row | where)
        finite = bool(torch.isfinite(deformed[piece]).all())
        shapes.append(problem.source.replace(points=_numpy(deformed[piece])) if finite else problem.source)
    pieces = list(objective.rows.slices())
    return MatchingResult(
        tuple(rows),
        tuple(_numpy(p[piece]) for piece in pieces),
        tuple(_numpy(q0[piece]) for piece in pieces),
        tuple(shapes),
        tuple(carried),
        minimum.history if minimum is not None else ((),) * len(problems),
    )


def _landmarks_aboard(problems: Sequence[Problem], like: Tensor) -> tuple[Carried, list[int | None]]:
    """The landmarks of the problems that have some, as points to carry; the others carry none."""
    points = [np.zeros((0, like.shape[1])) if p.source_landmarks is None else p.source_landmarks for p in problems]
    owners = [None if p.source_landmarks is None else b for b, p in enumerate(problems)]
    return Carried(torch.as_tensor(np.concatenate(points)).to(like), Ragged.of_sizes(map(len, points))), owners


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
