"""Match many pairs at once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shapeflow.errors import ShapeflowError
from shapeflow.flow import jacobian_determinants
from shapeflow.matching.control import control_points
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.matching.sizing import batches
from shapeflow.matching.spec import MatchingSpec
from shapeflow.memory import is_exhausted, release
from shapeflow.optimize import Minimum, minimize
from shapeflow.ragged import Ragged
from shapeflow.shape import Shape, check_shapes
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
    progress: Callable[[float, int], None] | None = None,
) -> MatchingResult:
    """Minimise γ·H + A for every pair (sources[b], targets[b]), as many in one batch as memory holds.

    One spec for all, or one a problem (then they may differ in σ, attachment widths, γ and weight: a sweep over σ is
    just more problems). `start` are momenta to begin from, zero unless given. A problem that fails has a row whose
    `status` says so; the others are not disturbed. A batch that memory did not hold after all is solved as two halves
    (`halvings` in the rows), which changes results by rounding only; a single matching that memory does not hold is a failed row.
    `progress(done, count)` is told how many matchings are done, as `optimize.minimize` tells it.
    """
    check_shapes(sources=sources, targets=targets)
    count = len(sources)
    specs = [spec] * count if isinstance(spec, MatchingSpec) else list(spec)
    if not count or len(targets) != count or len(specs) != count:
        raise ShapeflowError(
            f"match needs as many sources as targets and specs, at least one; received {count}, {len(targets)} and {len(specs)}"
        )
    _same_but_for_widths(specs)
    from_marks, to_marks = source_landmarks or [None] * count, target_landmarks or [None] * count
    problems = [Problem(*item) for item in zip(sources, targets, specs, from_marks, to_marks, strict=True)]
    begin = [None] * count if start is None else list(start)
    waiting = [(batch, 0) for batch in batches(problems, specs[0].torch_device())]
    if len(waiting) > 1:
        _log.info("%d matchings in %d batches, as many in each as memory is estimated to hold", count, len(waiting))
    found: list[MatchingResult] = []
    solved = 0
    while waiting:
        batch, halvings = waiting.pop(0)
        tell = None if progress is None else lambda done, _, before=solved: progress(before + done, count)
        result = _tried(problems[batch.start : batch.stop], begin[batch.start : batch.stop], tell)
        if isinstance(result, str):
            release()
            if len(batch) > 1:
                middle = (batch.start + batch.stop) // 2
                _log.warning(
                    "out of memory with %d matchings in a batch: its halves are tried (%s)", len(batch), result
                )
                halves = range(batch.start, middle), range(middle, batch.stop)
                waiting = [(half, halvings + 1) for half in halves] + waiting
                continue
            _log.error("out of memory with a single matching (%s)", result)
            status = f"failed: out of memory, by itself: prepare fewer points ({result})"
            result = _failed(problems[batch.start], begin[batch.start], status)
        rows = tuple(row | {"batch": len(batch), "halvings": halvings} for row in result.rows)
        found.append(replace(result, rows=rows))
        solved += len(batch)
        if progress is not None:
            progress(solved, count)
    return _joined(found)


def _tried(
    problems: Sequence[Problem], start: Sequence[np.ndarray | None], progress: Callable[[float, int], None] | None
) -> MatchingResult | str:
    """One batch, or what was said when memory did not hold it: not the error, whose traceback would keep the batch alive."""
    try:
        return _solve(problems, start, progress)
    except Exception as error:  # whatever an allocator raises
        if not is_exhausted(error):
            raise
        return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def _solve(
    problems: Sequence[Problem], start: Sequence[np.ndarray | None], progress: Callable[[float, int], None] | None
) -> MatchingResult:
    """One batch."""
    began = time.perf_counter()
    objective, spec = MatchingObjective(problems), problems[0].spec
    z = torch.zeros_like(objective.q0)
    if start[0] is not None:
        z = torch.as_tensor(np.concatenate([p for p in start if p is not None])).to(z)
    minimum = minimize(
        objective, z, max_iter=spec.max_iter, tolerance=spec.tolerance, memory=spec.memory, progress=progress
    )
    replay = objective.replay.note(z)
    objective.restart()  # what is kept for further evaluations makes room for the last shot
    result = result_of(objective, minimum.z, minimum=minimum, seconds=time.perf_counter() - began)
    return replace(result, rows=tuple(row | {"replay": replay} for row in result.rows))


def _failed(problem: Problem, start: np.ndarray | None, status: str) -> MatchingResult:
    """The row of a matching that could not be tried, its shape where it was."""
    names = ("hamiltonian", "attachment", "objective", "distance", "jacobian_min", "seconds")
    row: dict[str, Any] = dict.fromkeys(names, math.nan)
    row |= {"sigma": problem.spec.sigma, "iterations": 0, "evaluations": 0, "status": status}
    row |= {"device": problem.spec.torch_device().type, "backend": problem.spec.resolved_backend(), "replay": ""}
    at = control_points(problem.source, problem.spec)
    at = problem.source.points if at is None else at
    momenta = np.zeros_like(at, dtype=float) if start is None else start
    return MatchingResult((row,), (momenta,), (at,), (problem.source,), (problem.source_landmarks,), ((),))


def _joined(results: Sequence[MatchingResult]) -> MatchingResult:
    """The batches' results as one, in their order."""
    if len(results) == 1:
        return results[0]
    return MatchingResult(
        *(tuple(chain.from_iterable(getattr(r, f.name) for r in results)) for f in fields(MatchingResult))
    )


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
    where = {"seconds": share, "device": objective.q0.device.type, "backend": spec.resolved_backend()}
    rows, shapes = [], []
    for b, (problem, piece) in enumerate(zip(problems, layout.slices(), strict=True)):
        found = {
            "hamiltonian": float(energy[b]),
            "attachment": float(attachment[b]),
            "objective": float(total[b]),
            "distance": math.sqrt(2 * max(float(energy[b]), 0.0)),
            "jacobian_min": float(determinants[piece].min()),
            "sigma": problem.spec.sigma,
        }
        rows.append(found | (_ending(minimum, b) if minimum is not None else {}) | where)
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


def _ending(minimum: Minimum, b: int) -> dict[str, Any]:
    """How the search of a problem ended."""
    return {name: getattr(minimum, name)[b] for name in ("iterations", "evaluations", "status")}


def _landmarks_aboard(problems: Sequence[Problem], like: Tensor) -> tuple[Carried, list[int | None]]:
    """The landmarks of the problems that have some, as points to carry; the others carry none."""
    points = [np.zeros((0, like.shape[1])) if p.source_landmarks is None else p.source_landmarks for p in problems]
    owners = [None if p.source_landmarks is None else b for b, p in enumerate(problems)]
    return Carried(torch.as_tensor(np.concatenate(points)).to(like), Ragged.of_sizes(map(len, points))), owners


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
