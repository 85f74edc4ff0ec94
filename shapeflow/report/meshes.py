"""The page's part on the meshes: what somebody should decide first, then what was taken care of, then one row a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from shapeflow.prepare.findings import SEVERITIES, Finding
from shapeflow.prepare.summary import by_check, others, spelled_out
from shapeflow.report.text import cell
from shapeflow.tables import read_table

_ELSEWHERE = (
    "findings",
    "checksum",
    "severity",
)  # columns that the page says otherwise, or that say nothing to a reader
_DONE = ("fixed_", "resample_")  # how columns of what was done to a mesh begin
POWERS = {  # of the meshes' unit
    "size": 1, "centroid_size": 1, "length": 1, "area": 2, "volume": 3, "resample_mean": 1, "resample_p95": 1, "resample_max": 1,
    "align_residual": 1, "align_mirrored_residual": 1,
}  # fmt: skip


def load_quality(prepared: Sequence[Path]) -> pd.DataFrame | None:
    """What the preparations measured; with several preparations, a column says which."""
    return _gathered(prepared, "quality.csv")


def load_findings(prepared: Sequence[Path]) -> tuple[Finding, ...]:
    """What they found, worst first. Preparations of one study find much the same: what repeats is said once."""
    table = _gathered(prepared, "findings.csv")
    if table is None:
        return ()
    rows = table[list(Finding.__dataclass_fields__)].fillna("").astype(str).drop_duplicates().to_dict("records")
    return tuple(Finding(**{str(k): v for k, v in row.items()}) for row in rows)


def _gathered(prepared: Sequence[Path], name: str) -> pd.DataFrame | None:
    frames = {p.name: read_table(p / name) for p in prepared if (p / name).is_file()}
    if len(frames) < 2:
        return next(iter(frames.values()), None)
    return pd.concat([frame.assign(prepared=key) for key, frame in frames.items()], ignore_index=True)


def findings_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """Whom it concerns, what the first of them shows, what is done or what to write; many findings of one check are one row."""
    rows = []
    groups = [part for group in by_check(findings) for part in spelled_out(group)]
    for group in sorted(groups, key=lambda g: -SEVERITIES.index(g[0].severity)):
        first = group[0]
        who = first.subject or "the cohort"
        rows.append({
            "severity": first.severity,
            "mesh": f"{who} and {others(group)}" if len(group) > 1 else who,
            "what was found": f"{first.subject}: {first.sentence}" if len(group) > 1 and first.subject else first.sentence,
            "what is done, or what to write": first.remedy,
        })  # fmt: skip
    return pd.DataFrame(rows)


def facts_table(quality: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """(the columns that tell meshes apart; what all of them share, in sentences)."""
    frame = quality.drop(columns=[c for c in _ELSEWHERE if c in quality]).convert_dtypes()
    measured = [c for c in frame if pd.api.types.is_float_dtype(frame[c])]
    for c in measured:  # a residual of 1e-16 beside others of 0.02 is none
        frame[c] = frame[c].mask(frame[c].abs() < 1e-9 * frame[c].abs().max(), 0.0)
    nothing = [c for c in frame if pd.api.types.is_numeric_dtype(frame[c]) and not frame[c].dropna().astype(bool).any()]
    frame = frame.drop(columns=nothing)
    alike = [
        c for c in frame if c != "subject" and len(frame) > 1 and frame[c].notna().all() and frame[c].nunique() == 1
    ]
    said = (
        ("All meshes alike", [f"{spoken(c)} {cell(frame[c].iloc[0])}" for c in alike]),
        ("In no mesh", [spoken(c) for c in nothing if not str(c).startswith(_DONE)]),
        ("Not needed", [spoken(c).removeprefix("fixed ") for c in nothing if str(c).startswith(_DONE)]),
    )
    return frame.drop(columns=alike), [f"{head}: {', '.join(words)}." for head, words in said if words]


def spoken(column: object) -> str:
    return str(column).replace("_", " ")
