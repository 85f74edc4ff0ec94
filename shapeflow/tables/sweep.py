"""One row a run: what a person compares when choosing a kernel and its width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from shapeflow.errors import ShapeflowError
from shapeflow.evaluation.criteria import knn_accuracy, silhouette
from shapeflow.tables.collect import atlas_table, matching_table, summary_table
from shapeflow.tables.distances import distance_matrix
from shapeflow.tables.labels import categorical_labels, subject_labels
from shapeflow.tables.schema import RUN, SWEEP, conform, failed
from shapeflow.tables.settings import varied_settings

_MEANS = ("surface_mean", "surface_p95", "surface_mean_before", "landmark_error", "landmark_error_before")
_STATISTICS = (
    "generalisation",
    "specificity",
    "stability",
    "permanova_r2",
    "permanova_p",
    "classification_accuracy",
    "classification_p",
)


def study_sweep(run_dirs: Sequence[Path], label: str | None = None) -> pd.DataFrame:
    """The sweep table of the runs in these folders, from all that lies in them."""
    matched = [folder for folder in run_dirs if (folder / "matching.parquet").is_file()]
    return sweep_table(
        matching_table(matched),
        atlas_table(run_dirs),
        label=label,
        summaries=summary_table(run_dirs),
        settings=varied_settings(run_dirs),
    )


def sweep_table(
    matching: pd.DataFrame,
    atlas: pd.DataFrame | None = None,
    *,
    label: str | None = None,
    summaries: pd.DataFrame | None = None,
    settings: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Summary of the matching and atlas tables, a run a row, in order of kernel, normalization, σ and id.

    `label` names the label that the separation columns judge; by default the first categorical one. `summaries` are what the statistics of
    the runs' atlases found (`summary_table`); `settings` what distinguishes the runs beside the columns (`varied_settings`).
    """
    runs: list[str] = list(
        dict.fromkeys([*matching["run"].astype(str), *(atlas["run"].astype(str) if atlas is not None else [])])
    )
    rows = []
    for run in runs:
        pairs = matching[matching["run"].astype(str) == run]
        subjects = atlas[atlas["run"].astype(str) == run] if atlas is not None else pd.DataFrame()
        row = {**_of_run(pairs, subjects), "settings": (settings or {}).get(run) or None}
        row = {**row, **_of_pairs(pairs, label), **_of_atlas(subjects), **_cost(pairs, subjects)}
        rows.append({**row, **_of_statistics(summaries, run, row.get("label") or label)})
    table = conform(pd.DataFrame(rows, columns=None if rows else [c.name for c in SWEEP]), SWEEP, where="sweep table")
    return table.sort_values(["kernel", "normalization", "sigma", "run"], kind="stable").reset_index(drop=True)


def _of_run(pairs: pd.DataFrame, subjects: pd.DataFrame) -> dict:
    first = (pairs if len(pairs) else subjects).iloc[0]
    names = {*pairs.get("source", ()), *pairs.get("target", ()), *subjects.get("subject", ())}
    shared = [c.name for c in RUN if c in SWEEP]
    return {name: first.get(name) for name in shared} | {"subjects": len(names)}


def _of_pairs(pairs: pd.DataFrame, label: str | None) -> dict:
    between = pairs[pairs["source"] != pairs["target"]]
    if not len(between):
        return {"pairs": 0}
    good = between[~failed(between)]
    matrix = distance_matrix(pairs)
    upper = np.triu_indices(len(matrix.names), k=1)
    values, asymmetry = matrix.values[upper], matrix.asymmetry[upper]
    return {
        "pairs": len(between),
        "distance_mean": _mean(values),
        "distance_median": float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else np.nan,
        "asymmetry_mean": _mean(asymmetry),
        **{name: _mean(good[name]) for name in _MEANS if name in good},
        **_separation(pairs, label),
    }


def _separation(pairs: pd.DataFrame, label: str | None) -> dict:
    """How distances part a label's groups; nothing where most are not known, as between subjects that only a template was matched to."""
    labels = subject_labels(pairs)
    groups = categorical_labels(labels)
    if label is not None and label not in labels.columns:
        raise ShapeflowError(
            f"label {label!r} is not in the table; its labels are {', '.join(labels.columns) or 'none'}"
        )
    chosen = label or (groups[0] if groups else None)
    if chosen is None:
        return {}
    known = labels[chosen].dropna().astype(str)
    matrix = distance_matrix(pairs).restricted(list(known.index))
    upper = matrix.values[np.triu_indices(len(known), k=1)]
    if 2 * np.isfinite(upper).sum() <= upper.size:
        return {}
    return {
        "label": chosen,
        "knn_accuracy": knn_accuracy(np.nan_to_num(matrix.values, nan=np.inf), list(known)),
        "majority_rate": float(known.value_counts(normalize=True).max()),
        "silhouette": silhouette(matrix.values, list(known)),
    }


def _of_atlas(subjects: pd.DataFrame) -> dict:
    if not len(subjects):
        return {}
    good = subjects[~failed(subjects)]
    return {
        "atlas_objective": float(good["objective"].sum()) if good["objective"].notna().any() else np.nan,
        "atlas_surface_mean": _mean(good["surface_mean"]),
        "atlas_surface_p95": _mean(good["surface_p95"]),
        "atlas_landmark_error": _mean(good["landmark_error"]),
    }


def _of_statistics(summaries: pd.DataFrame | None, run: str, label: str | None) -> dict:
    """The run's row for the label; what does not depend on a label is in any of its rows."""
    if summaries is None or not len(summaries):
        return {}
    own = summaries[summaries["run"] == run]
    if not len(own):
        return {}
    of_label = own[own["label"] == label] if label is not None else own
    row = of_label.iloc[0] if len(of_label) else own.iloc[0].reindex(["generalisation", "specificity", "stability"])
    found = {name: row.get(name) for name in _STATISTICS}
    # without pairs, the label that is judged is known here only
    return found | (
        {name: row.get(name) for name in ("label", "majority_rate") if name in row} if len(of_label) else {}
    )


def _cost(pairs: pd.DataFrame, subjects: pd.DataFrame) -> dict:
    both = [part for part in (pairs, subjects) if len(part)]
    jacobians = [float(part.loc[~failed(part), "jacobian_min"].min()) for part in both]
    jacobians = [j for j in jacobians if np.isfinite(j)]
    return {
        "failures": sum(int(failed(part).sum()) for part in both),
        "jacobian_min": min(jacobians) if jacobians else np.nan,
        "evaluations": int(pairs["evaluations"].fillna(0).sum()) if len(pairs) else pd.NA,
        "seconds": sum(float(part["seconds"].fillna(0).sum()) for part in both),
    }


def _mean(values: object) -> float:
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("nan")
