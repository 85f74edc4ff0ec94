"""Columns of a row that no solver knows: the run, the versions, what the deformation leaves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shapeflow.errors import ShapeflowError
from shapeflow.study.prepared import cohort_size
from shapeflow.study.specs import sigma_of

log = logging.getLogger("shapeflow.study")


def shared_columns(run: str, config: Mapping[str, Any], prepared: Path) -> dict[str, Any]:
    """Columns that every row of a run shares."""
    return {
        "run": run,
        "config_hash": run.rsplit("-", 1)[-1],
        "kernel": config["kernel"]["name"],
        "sigma": sigma_of(config, cohort_size(prepared)),
        "normalization": config["normalization"]["name"],
        "gamma": config["attachment"]["gamma"],
        "versions": versions(),
    }


def versions() -> str:
    """What computed a row, in one line."""
    import importlib.metadata as metadata
    import platform

    names = ("shapeflow", "torch", "numpy")
    return "; ".join([*(f"{name} {metadata.version(name)}" for name in names), f"python {platform.python_version()}"])


def surface_errors(before: Any, after: Any, target: Any) -> dict[str, float]:
    """Surface distances after and before; NaN where the deformed shape is not finite."""
    from shapeflow.evaluation import surface_distance

    try:
        mean, p95 = surface_distance(after, target)
        return {"surface_mean": mean, "surface_p95": p95, "surface_mean_before": surface_distance(before, target)[0]}
    except ShapeflowError as error:
        log.warning("no surface distance: %s", error)
        return {}


def landmark_errors(marks: tuple[Any, Any], carried: Any) -> dict[str, float]:
    from shapeflow.evaluation import landmark_error

    if marks[0] is None or carried is None:
        return {}
    return {
        "landmark_error": landmark_error(carried, marks[1]),
        "landmark_error_before": landmark_error(marks[0], marks[1]),
    }
