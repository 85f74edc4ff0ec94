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
    """One entry a problem, in the order given: a row of numbers, the momenta p₀ (n, d), the deformed source, the source landmarks carried by the flow, and
    the objective after every iteration. `control_points` (n, d) say where momenta live."""

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

    One spec for all, or one a problem (then they may differ in σ, attachment widths, γ and weight: a sweep over σ is just more problems). `start` are momenta to begin from,
    zero unless given. A problem that fails has a row whose `status` says so; the others are not disturbed.
    """
    count = len(sources)
    specs = [spec] * count if isinstance(spec, MatchingSpec) else list(spec)
    if not count or len(targets) != count or len(specs) != count:
        raise ShapeflowError(f"match needs as many sources as targets and specs, at least one; received {count}, {len(targets)} and {len(specs)}")
    _same_but_for_widths(specs)
    from_marks, to_marks = source_landmarks or [None] * count, target_landmarks or [None] * count
    problems = [Problem(*item) for item in zip(sources, targets, specs, from_marks, to_marks, strict=True)]
    began = time.perf_counter()
    objective = MatchingObjective(problems)
    z = torch.zeros_like(objective.q0) if start is None else torch.as_tensor(np.concatenate(start)).to(objective.q0)
    first = specs[0]
    minimum = minimize(objective, z, max_iter=first.max_iter, tolerance=first.tolerance, memory=first.memory, progress=progress)
    return _gather(objective, minimum, time.perf_counter() - began)


def _same_but_for_widths(specs: Sequence[MatchingSpec]) -> None:
    free = {"sigma": 1.0, "gamma": 1.0, "attachment_weight": 1.0}
    ratios = {tuple(w / s.attachment_widths[0] for w in s.attachment_widths) for s in specs}
    if len({replace(s, attachment_widths=(1.0,), **free) for s in specs}) != 1 or len(ratios) != 1:
        raise ShapeflowError("the specs of one batch may differ in sigma, gamma, attachment widths (in proportion) and weight only")


def _gather(objective: MatchingObjective, minimum: Minimum, seconds: float) -> MatchingResult:
    """Shoot the solutions once more with everything aboard, and lay the numbers out a problem at a time."""
    began = time.perf_counter()
    spec, problems, rows = objective.spec, objective.problems, objective.rows
    aboard, owners = _landmarks_aboard(problems, objective.q0)
    with torch.no_grad():
        shot = objective.shoot(minimum.z, (aboard,))
        energy, attachment = objective.terms(minimum.z, shot)
        deformed = objective.deformed(shot)
        at = Carried(objective.source.points, objective.source.rows)
        determinants = jacobian_determinants(objective.metric, objective.q0, minimum.z, steps=spec.steps, integrator=spec.integrator, at=at)
    carried: list[np.ndarray | None] = [None] * len(problems)
    for owner, piece in zip(owners, aboard.rows.slices(), strict=True):
        if owner is not None:
            carried[owner] = _numpy(shot.carried[-1][piece])
    share = (seconds + time.perf_counter() - began) / len(problems)
    device, backend = str(objective.q0.device.type), spec.resolved_backend()
    out = []
    for b, (problem, mesh) in enumerate(zip(problems, objective.source.rows.slices(), strict=True)):
        out.append(
            {
                "hamiltonian": float(energy[b]),
                "attachment": float(attachment[b]),
                "objective": float(minimum.value[b]),
                "distance": math.sqrt(2 * max(float(energy[b]), 0.0)),
                "jacobian_min": float(determinants[mesh].min()),
                "iterations": minimum.iterations[b],
                "evaluations": minimum.evaluations[b],
                "status": minimum.status[b],
                "seconds": share,
                "sigma": problem.spec.sigma,
                "device": device,
                "backend": backend,
            }
        )
    finite = [bool(torch.isfinite(deformed[mesh]).all()) for mesh in objective.source.rows.slices()]
    shapes = [
        p.source.replace(points=_numpy(deformed[mesh])) if ok else p.source
        for p, mesh, ok in zip(problems, objective.source.rows.slices(), finite, strict=True)
    ]
    momenta = tuple(_numpy(minimum.z[piece]) for piece in rows.slices())
    controls = tuple(_numpy(objective.q0[piece]) for piece in rows.slices())
    return MatchingResult(tuple(out), momenta, controls, tuple(shapes), tuple(carried), minimum.history)


def _landmarks_aboard(problems: Sequence[Problem], like: Tensor) -> tuple[Carried, list[int | None]]:
    """The landmarks of the problems that have some, as points to carry; the others carry none."""
    points = [np.zeros((0, like.shape[1])) if p.source_landmarks is None else p.source_landmarks for p in problems]
    owners = [None if p.source_landmarks is None else b for b, p in enumerate(problems)]
    return Carried(torch.as_tensor(np.concatenate(points)).to(like), Ragged.of_sizes(map(len, points))), owners


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
