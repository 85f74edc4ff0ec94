"""Sentences and formatted cells of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from shapeflow.tables import SWEEP, categorical_labels

UNITS = {c.name: c.unit for c in SWEEP}
MEANINGS = {c.name: c.meaning for c in SWEEP}

TITLES = {
    "run": "run",
    "kernel": "kernel",
    "sigma": "σ",
    "normalization": "normalization",
    "pairs": "pairs",
    "failures": "failures",
    "distance_mean": "mean distance",
    "asymmetry_mean": "asymmetry",
    "surface_mean": "surface distance",
    "surface_p95": "surface distance, 95 %",
    "surface_mean_before": "surface distance before",
    "landmark_error": "landmark error",
    "landmark_error_before": "landmark error before",
    "jacobian_min": "smallest Jacobian",
    "atlas_objective": "atlas objective",
    "atlas_surface_mean": "atlas surface distance",
    "atlas_landmark_error": "atlas landmark error",
    "knn_accuracy": "nearest-neighbour accuracy",
    "majority_rate": "majority rate",
    "silhouette": "silhouette",
    "generalisation": "generalisation error",
    "specificity": "specificity",
    "permanova_p": "PERMANOVA p",
    "permanova_r2": "PERMANOVA R²",
    "classification_accuracy": "classifier accuracy",
    "classification_p": "classifier p",
    "evaluations": "evaluations",
    "seconds": "seconds",
}

# what a run is compared by: column, what is better, what it stands beside
CRITERIA = (
    ("landmark_error", "low", "landmark_error_before"),
    ("surface_mean", "low", "surface_mean_before"),
    ("atlas_landmark_error", "low", None),
    ("atlas_surface_mean", "low", None),
    ("generalisation", "low", None),
    ("stability", "high", None),
    ("jacobian_min", "high", None),
    ("knn_accuracy", "high", "majority_rate"),
    ("silhouette", "high", None),
    ("permanova_r2", "high", None),
    ("classification_accuracy", "high", "majority_rate"),
    ("asymmetry_mean", "low", None),
    ("evaluations", "low", None),
    ("seconds", "low", None),
)


def sentence(study: Mapping, sweep: pd.DataFrame, labels: pd.DataFrame | None) -> str:
    """The study in a sentence: cohort, sweep, outcome, cost."""
    n = int(
        study.get("subjects")
        or (len(labels) if labels is not None and len(labels) else sweep["subjects"].max() if len(sweep) else 0)
    )
    cohort = f"{n} shapes of the data set {study.get('dataset', '')}".rstrip()
    groups = categorical_labels(labels) if labels is not None else []
    label = study.get("label") if study.get("label") in groups else next(iter(groups), None)
    if label is not None and labels is not None:
        counts = labels[label].dropna().map(cell).value_counts().sort_index()
        cohort += f" ({label}: {join([f'{n} {name}' if not name.lstrip('-').isdigit() else f'{n} of {name}' for name, n in counts.items()])})"
    pairs, failures = _total(sweep, "pairs"), _total(sweep, "failures")
    matched = f"{pairs:,} matchings".replace(",", "\u202f") if pairs else "an atlas"
    runs = f"{len(sweep)} run{'s' if len(sweep) != 1 else ''}"
    varied = (("kernel", "kernel", ""), ("sigma", "width", "σ = "), ("normalization", "normalization", ""))
    over = ", ".join(filter(None, [listed(sweep, *words) for words in varied]))
    ending = f"{failures} of them failed" if failures else "none failed"
    return f"{cohort} were compared in {runs} over {over}: {matched}, {ending}."


def listed(sweep: pd.DataFrame, column: str, singular: str, prefix: str = "") -> str:
    values = (
        [f"{v:g}" if isinstance(v, float) else str(v) for v in sorted(sweep[column].dropna().unique())]
        if len(sweep)
        else []
    )
    if not values:
        return ""
    if len(values) > 6:
        return f"{len(values)} {singular}s from {prefix}{values[0]} to {values[-1]}"
    return f"{singular}{'s' if len(values) > 1 else ''} {prefix}{join(values)}"


def join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def cell(value: object) -> str:
    """A table's cell: whole numbers whole, others to four digits, nothing for what is missing."""
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _total(sweep: pd.DataFrame, column: str) -> int:
    return int(sweep[column].fillna(0).sum()) if column in sweep else 0
