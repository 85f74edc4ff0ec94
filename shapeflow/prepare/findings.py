"""What a person should know before a study starts: findings, each with a severity, a sentence, and what will be done or what to write.

error     the subject cannot be used
warning   it can, but somebody should decide
info      preparation takes care of it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from shapeflow.prepare.dataset import Unmatched
from shapeflow.prepare.options import Prepare

SEVERITIES = ("info", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """`subject` is empty when the cohort as a whole is meant; `check` is a stable name to filter by."""

    subject: str
    severity: str
    check: str
    sentence: str
    remedy: str


def table(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row a finding, errors first."""
    rows = sorted(findings, key=lambda f: (-SEVERITIES.index(f.severity), f.check, f.subject))
    return pd.DataFrame([asdict(f) for f in rows], columns=list(Finding.__dataclass_fields__))


def worst(findings: Sequence[Finding]) -> str:
    return max((f.severity for f in findings), key=SEVERITIES.index, default="ok")


def of_subject(subject: str, facts: Mapping[str, Any], options: Prepare) -> list[Finding]:
    """What one mesh's facts say, given the switches."""
    out: list[Finding] = []

    def add(severity: str, check: str, sentence: str, remedy: str) -> None:
        out.append(Finding(subject, severity, check, sentence, remedy))

    def count(key: str) -> int:
        return int(facts.get(key) or 0)

    def repair(key: str, check: str, what: str, switch: str, done: str, severity: str = "warning") -> None:
        n = count(key)
        if n:
            on = bool(getattr(options, switch))
            add(
                "info" if on else severity,
                check,
                what.format(n=n),
                done.format(n=n) if on else f"write prepare.{switch}=true",
            )

    repair(
        "nan_points",
        "not_finite",
        "{n} vertices are not finite numbers",
        "drop_nan",
        "they are dropped with the simplices at them",
        "error",
    )
    repair("degenerate_simplices", "degenerate", "{n} simplices have no extent", "drop_degenerate", "they are dropped")
    repair("duplicate_simplices", "duplicate", "{n} simplices repeat others", "drop_duplicates", "they are dropped")
    if facts.get("kind") != "points":
        repair(
            "unreferenced_points",
            "unreferenced",
            "{n} vertices belong to no simplex",
            "drop_unreferenced",
            "they are dropped",
        )
    if facts.get("kind") == "surfaces":
        repair("repeated_points", "repeated", "{n} vertices lie exactly where others do", "merge", "they are merged")
        repair(
            "misoriented_triangles",
            "orientation",
            "{n} triangles face against their neighbours",
            "orient",
            "they are turned",
        )
        repair("inward_components", "inward", "{n} closed components face inwards", "orient", "they are turned")
    if facts.get("kind") == "curves" and count("repeated_points"):
        add("info", "repeated", f"{count('repeated_points')} points repeat others of the curve, or it touches itself",
            "neighbours are merged; where a curve touches itself it is left as it is")  # fmt: skip
    repair(
        "clockwise_curves", "clockwise", "{n} closed curves run clockwise", "orient", "they are turned anticlockwise"
    )
    _shape_findings(add, count, facts, options)
    if facts.get("notes"):
        add("info", "reader", str(facts["notes"]), "nothing to do if that is what you meant")
    return out


def _shape_findings(add: Any, count: Any, facts: Mapping[str, Any], options: Prepare) -> None:
    parts = count("components")
    if facts.get("kind") == "surfaces" and parts > 1:
        what = {"all": "all are kept", "largest": "the largest is kept"}.get(
            str(options.components), f"those under {options.components} of the largest one's area are dropped"
        )
        add(
            "info",
            "components",
            f"has {parts} components",
            f"{what}; change prepare.components (all, largest or a share)",
        )
    if count("nonmanifold_edges"):
        add("info", "nonmanifold", f"{count('nonmanifold_edges')} edges belong to more than two triangles",
            "repeated triangles that make some are dropped; the rest is kept, nothing here needs a manifold")  # fmt: skip
    if count("boundary_edges"):
        add("info", "boundary", f"is open: {count('boundary_edges')} boundary edges",
            "left open; to close small holes write prepare.fill_holes=<edges of the largest one>")  # fmt: skip
    if count("one_sided_triangles"):
        add("warning", "one_sided", f"{count('one_sided_triangles')} triangles lie on a one-sided patch, which has no inside",
            "nothing is turned there; attachments that use normals (current) will see it: use attachment=varifold")  # fmt: skip
    if count("branch_points"):
        add("error", "branching", f"its curves branch at {count('branch_points')} vertices",
            "expected every vertex on at most two edges: split the curves, or write prepare.resample=none")  # fmt: skip
    wanted = options.n_points
    if wanted and options.resample == "decimate" and facts.get("kind") == "surfaces" and count("points") < wanted:
        add("warning", "coarse", f"has {count('points')} vertices, fewer than the {wanted} wanted",
            "it is kept as it is; write a smaller prepare.n_points, or prepare.resample=remesh")  # fmt: skip


def of_matching(missing: Unmatched) -> list[Finding]:
    """Labels, landmarks and meshes without a partner."""
    out = [Finding(i, "warning", "labels_without_mesh", f"the labels have a row for {i!r}, but there is no such mesh",
                   "add the mesh, or change dataset.stem so that its id matches") for i in missing.labels]  # fmt: skip
    out += [Finding("", "warning", "landmarks_without_mesh", f"the landmark file {f} belongs to no mesh",
                    "add the mesh, or change dataset.landmarks") for f in missing.landmarks]  # fmt: skip
    out += [Finding(i, "warning", "mesh_without_labels", "has no row in the labels", "its columns stay empty; add a row, or write dataset.exclude")
            for i in missing.unlabelled]  # fmt: skip
    out += [Finding(i, "warning", "mesh_without_landmarks", "has no landmark file while dataset.landmarks names one",
                    "add it, write dataset.exclude, or prepare.align=pca_icp") for i in missing.unmarked]  # fmt: skip
    return out
