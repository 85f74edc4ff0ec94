"""What a person should know before a study starts: findings, each with a severity, a sentence, and what will be done or what to write.

error     the subject cannot be used
warning   it can, but somebody should decide
info      preparation takes care of it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from shapeflow.prepare.dataset import Unmatched
from shapeflow.prepare.options import Prepare
from shapeflow.prepare.wording import counted, listed, simplex

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
    each = simplex(facts.get("kind"))

    def add(severity: str, check: str, sentence: str, remedy: str) -> None:
        out.append(Finding(subject, severity, check, sentence, remedy))

    def count(key: str) -> int:
        return int(facts.get(key) or 0)

    def repair(key: str, noun: str, what: str, check: str, switch: str, done: str, severity: str = "warning") -> None:
        """`what` begins with a verb in its plural: "lie exactly where others do"."""
        if n := count(key):
            verb, _, rest = what.partition(" ")
            on = bool(getattr(options, switch))
            remedy = done if on else f"write prepare.{switch}=true"
            add("info" if on else severity, check, f"{counted(n, noun, verb)} {rest}", remedy)

    kind = facts.get("kind")
    repair("nan_points", "vertex", "have coordinates that are no finite numbers", "not_finite", "drop_nan",
           "dropped, with the simplices there", "error")  # fmt: skip
    repair("degenerate_simplices", each, "have no extent", "degenerate", "drop_degenerate", "dropped")
    repair("duplicate_simplices", each, "have the corners of another", "duplicate", "drop_duplicates", "dropped")
    if kind != "points":
        repair("unreferenced_points", "vertex", f"belong to no {each}", "unreferenced", "drop_unreferenced", "dropped")
    if kind == "surfaces":
        repair("repeated_points", "vertex", "lie exactly where another does", "repeated", "merge", "merged")
        repair("misoriented_triangles", each, "face against the neighbours", "orientation", "orient", "turned")
        repair("inward_components", "closed component", "face inwards", "inward", "orient", "turned")
        _surface_findings(add, count, options)
    if kind == "curves":
        repair("clockwise_curves", "closed curve", "run clockwise", "clockwise", "orient", "turned anticlockwise")
        _curve_findings(add, count)
    wanted = options.n_points
    if wanted and options.resample == "decimate" and kind == "surfaces" and count("points") < wanted:
        add("warning", "coarse", f"has {counted(count('points'), 'vertex')}, fewer than the {wanted} wanted",
            "kept as it is; write a smaller prepare.n_points, or prepare.resample=remesh")  # fmt: skip
    if facts.get("notes"):
        add("info", "reader", str(facts["notes"]), "nothing to do if that is what you meant")
    return out


def _surface_findings(add: Callable[[str, str, str, str], None], count: Callable[[str], int], options: Prepare) -> None:
    if count("components") > 1:
        what = {"all": "all are kept", "largest": "the largest is kept"}.get(
            str(options.components), f"those under {options.components} of the largest one's area are dropped"
        )
        add("info", "components", f"has {count('components')} components",
            f"{what}; change prepare.components (all, largest or a share)")  # fmt: skip
    if n := count("nonmanifold_edges"):
        add("info", "nonmanifold", f"{counted(n, 'edge', 'belong')} to more than two triangles",
            "repeated triangles that make some are dropped; the rest is kept, nothing here needs a manifold")  # fmt: skip
    if n := count("boundary_edges"):
        add("info", "boundary", f"is open: {counted(n, 'boundary edge')}",
            "left open; to close small holes write prepare.fill_holes=<edges of the largest one>")  # fmt: skip
    if n := count("one_sided_triangles"):
        add("warning", "one_sided", f"{counted(n, 'triangle', 'lie')} on a one-sided patch, which has no inside",
            "nothing is turned there; attachments that use normals (current) will see it: use attachment=varifold")  # fmt: skip


def _curve_findings(add: Callable[[str, str, str, str], None], count: Callable[[str], int]) -> None:
    if n := count("branch_points"):
        add("error", "branching", f"its curves branch at {counted(n, 'vertex')}",
            "expected every vertex on at most two segments: split the curves, or write prepare.resample=none")  # fmt: skip
    if n := count("repeated_points"):
        add("info", "repeated", f"{counted(n, 'point', 'repeat')} others of the file",
            "neighbours are merged; where a curve comes back to a point it is left as it is")  # fmt: skip
    if n := count("self_crossings"):
        add("warning", "self_crossing", f"crosses itself at {counted(n, 'place')}",
            "kept as it is (its area counts loops with their sign): redraw it, or write dataset.exclude")  # fmt: skip
    elif n := count("self_contacts"):
        add("info", "self_contact", f"touches itself: {counted(n, 'pair')} of segments meet", "kept as it is")


def of_matching(missing: Unmatched) -> list[Finding]:
    """Labels, landmarks and meshes without a partner."""
    out = [Finding(i, "warning", "labels_without_mesh", f"the labels have a row for {i!r}, but there is no such mesh",
                   "add the mesh, or change dataset.stem so that its id matches") for i in missing.labels]  # fmt: skip
    out += [Finding("", "warning", "landmarks_without_mesh", f"the landmark file {f} belongs to no mesh",
                    "add the mesh, or change dataset.landmarks") for f in missing.landmarks]  # fmt: skip
    out += [Finding(i, "warning", "mesh_without_labels", "has no row in the labels",
                    f"its columns stay empty; add a row, or write {listed('dataset.exclude', [i])}") for i in missing.unlabelled]  # fmt: skip
    out += [Finding(i, "warning", "mesh_without_landmarks", "has no landmark file while dataset.landmarks names one",
                    f"add it, write {listed('dataset.exclude', [i])}, or prepare.align=pca_icp") for i in missing.unmarked]  # fmt: skip
    return out
