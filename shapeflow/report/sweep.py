"""The sweep on the page: which run to look at first and why, a row a run, and what they are compared by as small multiples."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from shapeflow.errors import ShapeflowError
from shapeflow.report.payload import numbers
from shapeflow.report.text import written
from shapeflow.report.view import run_title
from shapeflow.statistics import Choice, choose_run
from shapeflow.tables import SWEEP

UNITS = {c.name: c.unit for c in SWEEP}

TITLES = {
    "sigma": "σ",
    "distance_mean": "mean distance",
    "asymmetry_mean": "asymmetry",
    "surface_mean": "surface distance",
    "surface_mean_before": "surface distance before",
    "landmark_error_before": "landmark error before",
    "jacobian_min": "smallest Jacobian",
    "atlas_surface_mean": "atlas surface distance",
    "generalisation": "generalisation error",
    "knn_accuracy": "nearest-neighbour accuracy",
    "permanova_r2": "PERMANOVA R²",
    "classification_accuracy": "classifier accuracy",
    "seconds": "computing time",
}

# what a run is compared by: column, what is better, what it stands beside
CRITERIA = {
    "How close shapes come": (
        ("landmark_error", "low", "landmark_error_before"),
        ("surface_mean", "low", "surface_mean_before"),
        ("atlas_landmark_error", "low", None),
        ("atlas_surface_mean", "low", None),
    ),
    "How well the deformations behave": (
        ("jacobian_min", "high", None),
        ("asymmetry_mean", "low", None),
        ("generalisation", "low", None),
        ("stability", "high", None),
    ),
    "How well groups part": (
        ("knn_accuracy", "high", "majority_rate"),
        ("silhouette", "high", None),
        ("permanova_r2", "high", None),
        ("classification_accuracy", "high", "majority_rate"),
    ),
    "What it costs": (("evaluations", "low", None), ("seconds", "low", None)),
}

_COLUMNS = (
    "pairs", "failures", "landmark_error_before", "landmark_error", "surface_mean_before", "surface_mean", "atlas_landmark_error",
    "atlas_surface_mean", "jacobian_min", "generalisation", "stability", "knn_accuracy", "silhouette", "permanova_r2",
    "classification_accuracy", "evaluations", "seconds",
)  # fmt: skip


def title(column: object) -> str:
    return TITLES.get(str(column), str(column).replace("_", " "))


def choice(sweep: pd.DataFrame) -> Choice | None:
    try:
        return choose_run(sweep)
    except ShapeflowError:  # nothing was measured that runs could be compared by: the page then marks none
        return None


def run_titles(sweep: pd.DataFrame) -> dict[str, str]:
    """A run's name in words, without what all runs share."""
    vary = [c for c in ("kernel", "sigma", "normalization", "settings") if c in sweep and _varies(sweep[c])]
    return {
        str(row["run"]): run_title(**{c: row[c] for c in vary}) or run_title(row["kernel"], row["sigma"])
        for row in sweep.to_dict("records")
    }


def comparison(sweep: pd.DataFrame, units: Mapping[str, str] = UNITS) -> tuple[pd.DataFrame, list[str]]:
    """(a row a run, with what tells the runs apart; what is the same for all, in words)."""
    known = [c for c in _COLUMNS if c in sweep and sweep[c].notna().any()]
    alike = [c for c in known if len(sweep) > 1 and not _varies(sweep[c])]
    words = [
        " ".join(filter(None, [title(c), written(c, sweep[c].iloc[0]), units[c]]))
        for c in (*(c for c in ("normalization",) if c in sweep and not _varies(sweep[c])), *alike)
    ]
    frame = sweep[["run", *(c for c in known if c not in alike)]]
    return frame, words if len(sweep) > 1 else []


def meanings(sweep: pd.DataFrame) -> dict[str, str]:
    """What the page's columns of the sweep mean."""
    shown = ("run", "kernel", "sigma", "normalization", "gamma", "settings", *_COLUMNS)
    return {
        title(c.name): c.meaning for c in SWEEP if c.name in shown and c.name in sweep and sweep[c.name].notna().any()
    }


def _varies(values: pd.Series) -> bool:
    return values.nunique(dropna=False) > 1


def criteria(sweep: pd.DataFrame) -> list[dict]:
    """Small multiples: a criterion against σ, a line for each kernel and whatever else the runs differ by; none for a single width."""
    if not _varies(sweep["sigma"]):
        return []
    distinct = [c for c in ("normalization", "settings") if c in sweep and _varies(sweep[c])]
    label = next(iter(sweep["label"].dropna()), None) if "label" in sweep else None
    panels = []
    for heading, columns in CRITERIA.items():
        for column, better, beside in columns:
            if column not in sweep or not sweep[column].notna().any():
                continue
            known = beside is not None and beside in sweep and sweep[beside].notna().any()
            panels.append({
                "key": column,
                "group": f"{heading} ({label})" if "groups" in heading and label else heading,
                "title": title(column),
                "unit": UNITS.get(column, ""),
                "better": better,
                "share": column.endswith("_accuracy"),
                "lines": [_line(names, part, column) for names, part in sweep.groupby(["kernel", *distinct], sort=True, dropna=False)],
                "reference": float(sweep[beside].astype("float64").mean()) if known else None,
                "reference_title": "always naming the largest group" if beside == "majority_rate" else "before matching",
            })  # fmt: skip
    return panels


def _line(names: tuple, part: pd.DataFrame, column: str) -> dict:
    part = part.sort_values("sigma", kind="stable")
    return {
        "name": ", ".join(str(name) for name in names if not pd.isna(name)),
        "x": numbers(part["sigma"].to_numpy(dtype=float)),
        "y": numbers(part[column].to_numpy(dtype=float, na_value=float("nan"))),
        "runs": part["run"].astype(str).tolist(),
    }
