"""What the statistics of a run found, as the page shows it: components, maps, and tests in sentences that say how far they carry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from shapeflow.io import read_shape
from shapeflow.report.text import cell, p_value, percent
from shapeflow.report.view import Embedding, Field, Finding, Mode
from shapeflow.shape import Shape
from shapeflow.statistics.files import file_name
from shapeflow.tables import LENGTH, read_table

_MAPS = (
    ("normal_displacement", "displacement along the normal", LENGTH, True, ()),
    ("log2_area_ratio", "local area, log₂ ratio", "log₂", True, ()),
    ("q", "false discovery rate q", "q", False, (0.01, 0.05, 0.1)),
)


def load_components(folder: Path) -> tuple[tuple[Embedding, ...], tuple[Mode, ...]]:
    """Scores of the first two components as an embedding; modes as frames of the template."""
    if not (folder / "summary.csv").is_file():
        return (), ()
    scores, components = read_table(folder / "scores.csv"), read_table(folder / "components.csv")
    share = components["explained"].to_numpy()
    embeddings: tuple[Embedding, ...] = ()
    if {"pc1", "pc2"} <= set(scores.columns) and len(scores):
        axes = tuple(f"component {k + 1} ({percent(share[k])})" for k in range(2))
        note = f"Momenta of the atlas in the kernel metric; {int((components['cumulative'] < 0.9).sum()) + 1} components hold 90 % of the variance."
        embeddings = (
            Embedding(
                "momenta (principal components)",
                tuple(scores["subject"].astype(str)),
                scores[["pc1", "pc2"]].to_numpy(),
                (axes[0], axes[1]),
                note,
            ),
        )
    with np.load(folder / "modes.npz", allow_pickle=False) as saved:
        steps, frames, explained = saved["steps"], saved["frames"], saved["explained"]
    modes = tuple(
        Mode(f"component {k + 1} ({percent(e)})", tuple(steps.tolist()), tuple(f))
        for k, (e, f) in enumerate(zip(explained, frames, strict=True))
    )
    return embeddings, modes


def load_fields(folder: Path, template: Shape | None) -> tuple[Field, ...]:
    """Group differences at the template's vertices."""
    if template is None or not (folder / "summary.csv").is_file():
        return ()
    summary, found = read_table(folder / "summary.csv"), []
    for row in summary.to_dict("records"):
        path = folder / f"difference_{file_name(str(row.get('label')))}.vtk"
        if not path.is_file():
            continue
        data, label = read_shape(path).point_data, f"{row['label']} ({row['difference']})"
        for name, title, unit, diverging, levels in _MAPS:
            if name in data and len(data[name]) == len(template.points):
                found.append(
                    Field(f"{label}: {title}", np.asarray(data[name], dtype=float).ravel(), unit, diverging, levels)
                )
    return tuple(found)


def load_findings(folder: Path) -> tuple[Finding, ...]:
    if not (folder / "summary.csv").is_file():
        return ()
    summary, tests = read_table(folder / "summary.csv"), read_table(folder / "tests.csv")
    scores = read_table(folder / "scores.csv")
    subjects = len(scores) or None
    findings = [_tests(tests, subjects)] if len(tests) else []
    if not len(scores):
        return (
            *findings,
            Finding("Statistics of the atlas", "There are none: they need an atlas of three subjects or more."),
        )
    findings += [f for f in [_prediction(summary, scores)] if f is not None]
    findings += [_outliers(scores), _model(summary, read_table(folder / "components.csv"))]
    return tuple(findings)


def _tests(tests: pd.DataFrame, subjects: int | None) -> Finding:
    found = tests[tests["q"] <= 0.05]
    text = (
        f"{len(found)} of {len(tests)} tests {'is' if len(found) == 1 else 'are'} significant at a false discovery rate of 5 % over the tests of this run"
        f"{': ' + '; '.join(f'{r.label} ({r.test})' for r in found.itertuples()) if len(found) else ''}. "
        "p-values are by permutation, exact where all arrangements were tried, and by Student's distribution where none was; "
        "runs of a sweep test the same question several times and are not corrected for that."
    )
    limited = tests[(tests["smallest_p"] > 0.01) & tests["exact"]]
    if len(limited):
        text += f" With {subjects or 'so few'} subjects some tests cannot give a p below {p_value(limited['smallest_p'].max())}, whatever the shapes."
    near = tests[tests["test"].str.startswith("nearest neighbour")]
    if len(near):
        said = [
            f"{percent(r.effect)} for {r.label} ({percent(r.reference)} if the largest group were always named)"
            for r in near.itertuples()
        ]
        text += f" The nearest neighbour has the same label in {'; '.join(said)}."
    shown = pd.DataFrame({
        "label": tests["label"], "test": tests["test"], "statistic": tests["statistic"],
        "effect": [_effect(r.effect_name, r.effect) for r in tests.itertuples()], "p": tests["p"], "q": tests["q"],
        "permutations": ["exact" if r.exact else cell(int(r.permutations)) if r.permutations else "none" for r in tests.itertuples()],
    })  # fmt: skip
    return Finding("Tests", text, shown, tuple(np.flatnonzero(tests["q"] <= 0.05).tolist()))


def _effect(name: str, value: float) -> str:
    """R² 57 %; Mahalanobis distance 21.1; a ratio less one, `control / case − 1`, as control −5.2 % against case."""
    if name.endswith(" − 1"):
        second, first = name.removesuffix(" − 1").split(" / ", 1)
        return f"{second} {'+' if value > 0 else ''}{percent(value)} against {first}"
    return f"{name} {percent(value) if name in ('R²', 'accuracy') else cell(float(value))}"


def _prediction(summary: pd.DataFrame, scores: pd.DataFrame) -> Finding | None:
    if "classification_accuracy" not in summary or not summary["classification_accuracy"].notna().any():
        return None
    known = summary.dropna(subset=["classification_accuracy"])
    sentences = []
    for row in known.itertuples():
        wrong = scores[
            scores[f"predicted_{row.label}"].notna()
            & (scores[f"predicted_{row.label}"].astype(str) != scores[row.label].astype(str))
        ]
        total = int(scores[f"predicted_{row.label}"].notna().sum())
        names = f" (wrong: {', '.join(wrong['subject'].astype(str))})" if 0 < len(wrong) <= 6 else ""
        sentences.append(
            f"{row.label}: {total - len(wrong)} of {total} subjects{names}, against {percent(row.majority_rate)} for always naming the largest group; "
            f"permutation p = {p_value(row.classification_p)}."
        )
    honest = (
        "Components and classifier (linear support vectors) are fitted without the subject that is predicted; the template has seen all shapes, "
        "without their labels."
    )
    text = " ".join([*sentences, honest])
    return Finding("Prediction of labels, leaving one out", text)


def _model(summary: pd.DataFrame, components: pd.DataFrame) -> Finding:
    row = summary.iloc[0]
    text = (
        f"{int(row['components'])} components hold 90 % of the variance. A subject left out is described by the others' components to "
        f"{cell(row['generalisation'])} {LENGTH} (generalisation); shapes drawn from the components lie {cell(row['specificity'])} {LENGTH} from "
        f"the nearest subject (specificity). Drawing the subjects anew keeps {percent(row['stability'])} of the components' space (stability, bootstrap)."
    )
    shown = components.head(8)[["component", "explained", "cumulative"]].copy()
    shown[["explained, %", "cumulative, %"]] = (100 * shown[["explained", "cumulative"]]).round(1)
    shown = shown.drop(columns=["explained", "cumulative"])
    return Finding("Components of the momenta", text, shown)


def _outliers(scores: pd.DataFrame) -> Finding:
    far = scores[scores["outlier"].astype(bool)]
    text = (
        f"Unlike the others (modified z above 3.5): {', '.join(far['subject'].astype(str))}."
        if len(far)
        else "No subject stands out (modified z above 3.5)."
    )
    shown = scores.sort_values("distance_to_mean", ascending=False, kind="stable").head(5)[
        ["subject", "distance_to_mean", "z"]
    ]
    return Finding(
        "Subjects farthest from the mean", text, shown.rename(columns={"distance_to_mean": "distance to the mean"})
    )
