"""Findings for a person at a terminal: what stops the study first, what somebody should decide, and in a few lines what is taken care of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shapeflow.prepare.findings import Finding
from shapeflow.prepare.wording import counted, listed

# findings of one check that are spelled out; of more, the first, and the names of the others
_SHOWN = {"error": 10, "warning": 3, "info": 0}


def text(findings: Sequence[Finding], n_subjects: int, *, remarks: bool = True) -> str:
    """Errors and warnings with their remedies; with `remarks` also one line for each kind of what is taken care of."""
    by = {s: [f for f in findings if f.severity == s] for s in ("error", "warning", "info")}
    lost = len({f.subject for f in by["error"]})
    head = f"{counted(n_subjects, 'subject')}: {counted(lost, 'subject')} cannot be used, {counted(len(by['warning']), 'warning')}"
    lines = [head]
    for severity in ("error", "warning"):
        for group in [part for g in by_check(by[severity]) for part in spelled_out(g)]:
            lines += [f"  {severity:<8} {_said(group[0])}", f"           -> {group[0].remedy}"]
            if len(group) > 1:
                lines.append(f"           and so with {others(group)}")
    if remarks:
        for group in by_check(by["info"]):
            more = f" (and so with {others(group)})" if len(group) > 1 else ""
            lines.append(f"  remark   {_said(group[0])}{more}: {group[0].remedy}")
    return "\n".join(lines)


def refusal(findings: Sequence[Finding], n_subjects: int, folder: Path) -> str:
    """Why a study stops: the subjects that cannot be used, what to do, and where the tables in `folder` say the rest."""
    wrong = {f.subject: f for f in findings if f.severity == "error"}
    names = "\n".join(f"  {i}: {f.sentence}" for i, f in list(wrong.items())[:10])
    more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
    return (
        f"{len(wrong)} of {n_subjects} subjects cannot be used:\n{names}{more}\n"
        f"Repair them, write {listed('dataset.exclude', wrong)}, or prepare.on_bad=skip to go on without them; "
        f"all findings are in {folder / 'findings.csv'}, one row a subject in {folder / 'quality.csv'}"
    )


def by_check(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of one check together; what readers had to say only where they said the same."""
    keys = [f.sentence if f.check == "reader" else f.check for f in findings]
    return [[f for f, k in zip(findings, keys, strict=True) if k == key] for key in dict.fromkeys(keys)]


def spelled_out(group: list[Finding]) -> list[list[Finding]]:
    """Errors and warnings of one check each on their own, if they are few; else together."""
    return [[f] for f in group] if len(group) <= _SHOWN[group[0].severity] else [group]


def _said(finding: Finding) -> str:
    return f"{finding.subject or 'the cohort'}: {finding.sentence}"


def others(group: Sequence[Finding], most: int = 6) -> str:
    """ "2 others: b, c", the subjects of all findings but the first."""
    names = [f.subject for f in group[1:]]
    return f"{counted(len(names), 'other')}: {', '.join(names[:most])}{' ...' if len(names) > most else ''}"
