"""The columns of every table, in one place: name, type, unit, meaning.

Beside these a table carries the labels of its subjects: `source_<label>` and `target_<label>` in the matching table, `<label>` in the
atlas table. A column that the schema does not know is kept, after those it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from shapeflow.errors import ShapeflowError

LENGTH = "mesh units"


@dataclass(frozen=True)
class Column:
    name: str
    dtype: str  # a pandas dtype: "string", "float64" or "Int64"
    unit: str
    meaning: str
    required: bool = False


def _text(name: str, meaning: str, required: bool = False) -> Column:
    return Column(name, "string", "", meaning, required)


def _number(name: str, unit: str, meaning: str, required: bool = False) -> Column:
    return Column(name, "float64", unit, meaning, required)


def _count(name: str, meaning: str, required: bool = False) -> Column:
    return Column(name, "Int64", "", meaning, required)


RUN = (
    _text("run", "id of the run", required=True),
    _text("config_hash", "hash of what the run depends on, the id's last part"),
    _text("kernel", "radial kernel of the deformation", required=True),
    _number("sigma", LENGTH, "width of that kernel", required=True),
    _text("normalization", "none, or how the kernel's mass is normalized", required=True),
    _number(
        "gamma",
        "",
        "weight of the Hamiltonian against the attachment; of a Bayesian atlas, 2 (noise_std / atlas.momenta_std)²",
    ),
)

SOLUTION = (
    _number("hamiltonian", "", "H(q(0), p(0)) of the solution"),
    _number("attachment", "", "A(q(1), target), what the match leaves"),
    _number("objective", "", "gamma · H + A"),
    _number("distance", "", "sqrt(2H), the length of the geodesic", required=True),
    _number("surface_mean", LENGTH, "symmetric mean vertex-to-surface distance after matching"),
    _number("surface_p95", LENGTH, "its 95 % quantile, the larger of both directions"),
    _number("surface_mean_before", LENGTH, "the mean before matching"),
    _number(
        "landmark_error",
        LENGTH,
        "mean distance of carried landmarks to the target's; in an atlas, of those of the other subjects",
    ),
    _number("landmark_error_before", LENGTH, "the same before matching"),
    _number("jacobian_min", "", "smallest determinant of the flow's Jacobian at the vertices; below zero it folds"),
    _count("iterations", "steps of the optimiser"),
    _count("evaluations", "energies with gradients that it asked for"),
    _text("status", "why the optimiser stopped; failed… where it did not succeed", required=True),
    _number("seconds", "s", "time spent on it (its share of the batch)"),
    _text("device", "where it ran"),
    _text("backend", "which kernel products it used"),
    _count("batch", "matchings that were solved together"),
    _count("halvings", "how often the batch was cut in two because memory ran out"),
    _text("replay", "on CUDA: whether evaluations were replayed from a recording, or why not"),
    _text("versions", "of shapeflow and what it computes with"),
)

MATCHING = (
    _text("source", "subject that is deformed", required=True),
    _text("target", "subject it is matched to", required=True),
    *RUN,
    *SOLUTION,
)
ATLAS = (
    _text("subject", "subject that the template is matched to", required=True),
    *RUN,
    *SOLUTION,
    _number("landmark_size", LENGTH, "centroid size of the subject's own landmarks, when it has them all"),
    _count("processes", "processes that shared the atlas"),
    _number("noise_std", "", "Bayesian atlas: standard deviation of the noise, in each dimension of the residual"),
)

DISTANCES = (
    _text("first", "a subject", required=True),
    _text("second", "another", required=True),
    _number("distance", "", "mean of the two directions' sqrt(2H)", required=True),
    _number("asymmetry", "", "|forth − back| / (forth + back); empty where one direction only was solved"),
    _count("directions", "how many of the two directions were solved"),
)

SWEEP = (
    *(c for c in RUN if c.name != "config_hash"),
    _text("settings", "what else distinguishes the runs of the study"),
    _count("subjects", "subjects of the run"),
    _count("pairs", "matchings between two different subjects"),
    _count("failures", "matchings and atlas rows that failed"),
    _number("distance_mean", "", "mean of the distance matrix, off its diagonal"),
    _number("distance_median", "", "its median"),
    _number("asymmetry_mean", "", "mean asymmetry of the two directions"),
    _number("surface_mean", LENGTH, "mean over pairs of surface_mean"),
    _number("surface_p95", LENGTH, "mean over pairs of surface_p95"),
    _number("surface_mean_before", LENGTH, "mean over pairs before matching"),
    _number("landmark_error", LENGTH, "mean over pairs of landmark_error"),
    _number("landmark_error_before", LENGTH, "mean over pairs before matching"),
    _number("jacobian_min", "", "smallest over pairs and atlas"),
    _number("atlas_objective", "", "sum over subjects of gamma · H + A"),
    _number("atlas_surface_mean", LENGTH, "mean over subjects, template to subject"),
    _number("atlas_surface_p95", LENGTH, "mean over subjects of the 95 % quantile"),
    _number("atlas_landmark_error", LENGTH, "mean over subjects of landmark_error"),
    _text(
        "label",
        "categorical label whose groups the columns from knn_accuracy to silhouette and from permanova_r2 on judge",
    ),
    _number("knn_accuracy", "", "leave-one-out accuracy of the nearest neighbour's label"),
    _number("majority_rate", "", "accuracy of always naming the largest group"),
    _number("silhouette", "", "mean silhouette width of the label's groups"),
    _number(
        "generalisation",
        LENGTH,
        "atlas: a subject left out, described by the others' components: root mean square distance to its reconstruction, mean over subjects",
    ),
    _number(
        "specificity",
        LENGTH,
        "atlas: shapes drawn from the components: root mean square distance to the nearest subject, mean over shapes",
    ),
    _number(
        "stability",
        "",
        "atlas: how little the components turn when subjects are drawn anew (bootstrap); 1 is not at all",
    ),
    _number(
        "permanova_r2",
        "",
        "share of the variance between the label's groups: of momenta in the kernel metric, without an atlas of the distances",
    ),
    _number("permanova_p", "", "its p by permutation"),
    _number(
        "classification_accuracy",
        "",
        "leave-one-out accuracy of a linear classifier on the fold's own components of momenta",
    ),
    _number("classification_p", "", "its p by permutation"),
    _count("evaluations", "energies with gradients of all matchings"),
    _number("seconds", "s", "time, all matchings and the atlas"),
)


def conform(frame: pd.DataFrame, columns: Sequence[Column], *, where: str = "table") -> pd.DataFrame:
    """`frame` with the schema's types and order; missing optional columns are added empty, unknown ones kept at the end."""
    missing = [c.name for c in columns if c.required and c.name not in frame.columns]
    if missing:
        raise ShapeflowError(
            f"{where} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, frame.columns)) or 'none'}. "
            "Delete the file so that its rule writes it again."
        )
    out = {}
    for c in columns:
        values = frame[c.name] if c.name in frame.columns else pd.Series(pd.NA, index=frame.index)
        try:
            out[c.name] = pd.to_numeric(values).astype("float64") if c.dtype == "float64" else values.astype(c.dtype)
        except (TypeError, ValueError) as error:
            raise ShapeflowError(f"column {c.name!r} of {where} should be {c.dtype}: {error}") from error
    extra = [name for name in frame.columns if name not in out]
    return pd.DataFrame({**out, **{name: frame[name] for name in extra}}, index=frame.index)


def failed(rows: pd.DataFrame) -> pd.Series:
    """Rows that give no distance: their status says failed, or the distance is not finite."""
    status = rows["status"].astype("string").str.lower().str.startswith("fail").fillna(True).astype(bool)
    distance = pd.to_numeric(rows["distance"]).astype("float64")
    return status | distance.isna() | distance.abs().eq(float("inf"))
