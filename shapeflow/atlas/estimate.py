"""Estimate an atlas, in rounds that each end with a checkpoint."""

from __future__ import annotations

import hashlib
import logging
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shapeflow.atlas.bayesian import BayesianEstimate, BayesianObjective
from shapeflow.atlas.objective import AtlasObjective, Step
from shapeflow.atlas.parallel import shared_objective
from shapeflow.atlas.spec import BAYESIAN, AtlasSpec
from shapeflow.errors import ShapeflowError
from shapeflow.io.files import replacing
from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.matching.match import result_of
from shapeflow.optimize import minimize
from shapeflow.shape import Shape, check_shapes

_log = logging.getLogger("shapeflow.atlas")


@dataclass(frozen=True)
class AtlasResult:
    """The template, the momenta (S, n_c, d) at `control_points` (n_c, d), a row and a reconstruction a subject, and
    the objective after every iteration; of the Bayesian atlas, its noise and covariance.
    """

    template: Shape
    momenta: np.ndarray
    control_points: np.ndarray
    rows: tuple[dict[str, Any], ...]
    reconstructions: tuple[Shape, ...]
    history: tuple[dict[str, Any], ...]
    status: str
    bayesian: BayesianEstimate | None = None


def closest_subject(subjects: Sequence[Shape], spec: MatchingSpec) -> int:
    """The subject with the smallest total attachment to all others as they lie: a template to begin with."""
    totals = []
    for candidate in subjects:
        objective = MatchingObjective([Problem(candidate, s, spec) for s in subjects])
        totals.append(float((objective.attachment_weight * objective.attachment(objective.source.points)).sum()))
    return int(np.argmin(totals))


def estimate_atlas(
    template: Shape,
    subjects: Sequence[Shape],
    spec: AtlasSpec,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[float, int], None] | None = None,
    processes: int = 1,
) -> AtlasResult:
    """Minimise the mean over subjects of γ·H + A over the template's points and every subject's momenta; with `model="bayesian"`, J over these, the
    noise and the covariance (`atlas.bayesian`), which are updated after every round.

    With `checkpoint`, the unknowns are written there after every round of `spec.round_iter` iterations; a run that is
    killed and started again with the same arguments ends with the same bits, because a round begins with an empty
    memory, of L-BFGS and of guesses, whether or not the process was interrupted. A checkpoint of other arguments is not used, with a warning.

    With `processes`, subjects are shared among as many processes of this machine (a GPU each on CUDA): the same result
    to rounding, and a checkpoint of any number of them resumes with any other. A process that dies ends the estimation.
    `progress(iterations, max_iter)` is told how far it is.
    """
    check_shapes(template=[template], subjects=subjects)
    if not subjects:
        raise ShapeflowError("an atlas needs at least one subject; received none")
    if processes < 1:
        raise ShapeflowError(f"an atlas needs at least one process; received {processes}")
    began = time.perf_counter()
    width = spec.template_width or spec.matching.sigma
    problems = [Problem(template, s, spec.matching) for s in subjects]
    bayesian = spec.model == BAYESIAN
    with shared_objective(template, problems, width, processes, energy=not bayesian) as atlas:
        objective = BayesianObjective(atlas, spec) if bayesian else atlas
        return _search(objective, atlas, template, subjects, spec, checkpoint, progress, began)


def _search(
    objective: AtlasObjective | BayesianObjective,
    atlas: AtlasObjective,
    template: Shape,
    subjects: Sequence[Shape],
    spec: AtlasSpec,
    checkpoint: Path | None,
    progress: Callable[[float, int], None] | None,
    began: float,
) -> AtlasResult:
    key = _key(template, subjects, spec)
    z, history, status = _resume(checkpoint, key, objective, atlas.start())
    while status == "running":
        before = max(0, len(history) - 1)
        count = min(spec.round_iter, spec.max_iter - before)
        minimum = minimize(
            objective,
            z,
            max_iter=count,
            tolerance=spec.matching.tolerance,
            memory=spec.matching.memory,
            progress=progress
            and (lambda share, _, before=before, count=count: progress(before + share * count, spec.max_iter)),
        )
        steps, ending = objective.end_round(minimum)
        z, history[-1:] = minimum.z, steps  # a round begins where the last one ended
        finished = ending != "max_iter" or len(history) - 1 >= spec.max_iter
        status = ending if finished else "running"
        _log.info("atlas: %d iterations, %s", len(history) - 1, _told(objective.columns, history[-1]))
        if progress is not None:
            progress(len(history) - 1, spec.max_iter)
        _write(checkpoint, key, z, history, status, objective)
    return _result(objective, atlas, template, subjects, z, history, status, time.perf_counter() - began)


def _told(columns: tuple[str, ...], step: Step) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in zip(columns, step, strict=True))


def _result(objective, atlas, template, subjects, z, history, status, seconds) -> AtlasResult:
    points, p = atlas.split(z)
    final = template.replace(points=points.cpu().double().numpy())
    count = len(history) - 1
    matching = result_of(atlas.matching, p, mesh=points.repeat(len(subjects), 1), seconds=seconds)
    found = objective.finish(matching.rows, z)
    rows = tuple(row | {"iterations": count, "status": status, "processes": atlas.processes} for row in found)
    momenta = np.stack(matching.momenta)
    steps = tuple({"iteration": k, **dict(zip(objective.columns, step, strict=True))} for k, step in enumerate(history))
    controls = final.points if atlas.matching.on_vertices else matching.control_points[0]
    return AtlasResult(final, momenta, controls, rows, matching.deformed, steps, status, objective.estimate())


def _key(template: Shape, subjects: Sequence[Shape], spec: AtlasSpec) -> str:
    """What a checkpoint belongs to: every number that goes in. Where it runs is not among them."""
    elsewhere = replace(spec, matching=replace(spec.matching, device="auto", backend="auto"))
    digest = hashlib.sha256(repr(elsewhere).encode())
    for shape in (template, *subjects):
        digest.update(shape.points.tobytes())
        digest.update(shape.simplices.tobytes())
    return digest.hexdigest()


def _resume(
    checkpoint: Path | None, key: str, objective: AtlasObjective | BayesianObjective, start: torch.Tensor
) -> tuple[torch.Tensor, list[Step], str]:
    if checkpoint is None or not checkpoint.exists():
        return start, [], "running"
    try:
        with checkpoint.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            found, z, status = str(saved["key"]), saved["z"], str(saved["status"])
            history: list[Step] = list(map(tuple, saved["history"].reshape(len(saved["history"]), -1).tolist()))
            state = {name: saved[name] for name in objective.state()} if found == key else {}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        _log.warning("atlas: the checkpoint %s cannot be read (%s); starting over", checkpoint, error)
        return start, [], "running"
    if found != key:
        _log.warning("atlas: the checkpoint %s belongs to other data or settings; starting over", checkpoint)
        return start, [], "running"
    _log.info("atlas: resuming after %d iterations from %s", len(history) - 1, checkpoint)
    objective.load(state)
    return torch.as_tensor(z).to(start), history, status


def _write(checkpoint: Path | None, key: str, z: torch.Tensor, history: list[Step], status: str, objective) -> None:
    if checkpoint is None:
        return
    with replacing(checkpoint) as temporary, temporary.open("wb") as file:
        np.savez(file, key=key, z=z.cpu().numpy(), history=np.array(history), status=status, **objective.state())
