"""One pass over the whole cohort: every file read in a process of its own, its facts, and what follows from them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from shapeflow.errors import ConfigError, few
from shapeflow.io.files import replacing
from shapeflow.io.isolated import Limits, run_each
from shapeflow.prepare import findings as judge
from shapeflow.prepare import outliers
from shapeflow.prepare.dataset import Dataset, Subject, scan, unmatched
from shapeflow.prepare.findings import Finding
from shapeflow.prepare.options import Prepare
from shapeflow.prepare.wording import listed

log = logging.getLogger("shapeflow.prepare")

_INTERNAL = ("centroid", "axis", "signature", "whole_coordinates")  # facts for comparisons within the cohort


class Tick(Protocol):
    def __call__(self, text: str = "") -> None: ...


@dataclass(frozen=True, eq=False)
class Pass:
    """The subjects in order; for each the facts (None: unreadable) and the record of its repairs (None: not prepared)."""

    subjects: tuple[Subject, ...]
    facts: tuple[Mapping[str, Any] | None, ...]
    records: tuple[Mapping[str, Any] | None, ...]
    findings: tuple[Finding, ...]

    def bad(self) -> tuple[str, ...]:
        """Subjects that cannot be used."""
        wrong = {f.subject for f in self.findings if f.severity == "error"}
        return tuple(s.id for s in self.subjects if s.id in wrong)


def validate_cohort(
    dataset: Dataset, options: Prepare | None = None, *, limits: Limits | None = None, progress: bool | None = None
) -> Pass:
    """Read and judge every subject, changing nothing. `options` say which findings preparation would take care of."""
    return one_pass(dataset, options or Prepare(), None, limits or Limits(), progress)


def one_pass(dataset: Dataset, options: Prepare, folder: Path | None, limits: Limits, progress: bool | None) -> Pass:
    """Facts and findings of all; with a `folder`, also the staged shapes in it."""
    subjects = scan(dataset)
    _check_names(options, [s.id for s in subjects])
    staging = options if folder is not None else None
    calls = [{"subject": s, "dataset": dataset, "options": staging, "folder": str(folder or "")} for s in subjects]
    answers: list[Any] = [None] * len(subjects)
    findings: list[Finding] = []
    with bar(f"{dataset.name}: read", len(calls), progress) as tick:
        for i, outcome in run_each("shapeflow.prepare.subject:work", calls, limits):
            answers[i] = outcome.value
            if outcome.error is not None:
                findings.append(_unusable(subjects[i], outcome.error, outcome.contained))
            elif "refused" in outcome.value:
                findings.append(_unusable(subjects[i], outcome.value["refused"], False))
            tick(subjects[i].id)
    known = [(s.id, a["facts"]) for s, a in zip(subjects, answers, strict=True) if a is not None]
    for subject, facts in known:
        findings += judge.of_subject(subject, facts, options)
    scaled = [_scaled(f, options.factor(i)) for i, f in known]
    for (_, f), unit in zip(known, outliers.unit_guesses(scaled, dataset.unit), strict=True):
        f["unit_guess"] = unit
    findings += outliers.of_cohort([i for i, _ in known], scaled, dataset.unit, options.align != "none")
    findings += judge.of_matching(unmatched(dataset))
    return Pass(
        subjects,
        tuple(a["facts"] if a else None for a in answers),
        tuple(a.get("record") if a else None for a in answers),
        tuple(findings),
    )


def _unusable(subject: Subject, error: str, contained: bool) -> Finding:
    text = error.replace(f"{subject.path} ", "").replace(f"{subject.path}: ", "")
    check = "reader_stopped" if contained else "unreadable"
    return Finding(
        subject.id,
        "error",
        check,
        f"{subject.path.name} {text}",
        f"repair it, write {listed('dataset.exclude', [subject.id])}, or prepare.on_bad=skip",
    )


def _scaled(facts: Mapping[str, Any], factor: float) -> Mapping[str, Any]:
    """Facts as they will be after prepare.scale, so that a unit that is already corrected is not reported again."""
    if factor == 1.0:
        return facts
    lengths = {k: facts[k] * factor for k in ("size", "centroid_size") if k in facts}
    lists = {k: [x * factor for x in facts[k]] for k in ("centroid", "signature") if k in facts}
    return {**facts, **lengths, **lists}


def _check_names(options: Prepare, ids: Sequence[str]) -> None:
    named = {"mirror": options.mirror, "scale": tuple(options.scale) if isinstance(options.scale, Mapping) else ()}
    for key, names in named.items():
        strangers = sorted(set(names) - set(ids))
        if strangers:
            raise ConfigError(f"prepare.{key} names {few(strangers)}, no subject; the subjects are {few(ids)}")


def quality_table(
    done: Pass, extra: Mapping[str, Mapping[str, Any]] | None = None, findings: Sequence[Finding] | None = None
) -> pd.DataFrame:
    """One row a subject: facts, repairs, `extra` columns by subject, the worst severity and the sentences."""
    rows = []
    for subject, facts, record in zip(done.subjects, done.facts, done.records, strict=True):
        mine = [f for f in (findings if findings is not None else done.findings) if f.subject == subject.id]
        row: dict[str, Any] = {"subject": subject.id, "file": subject.path.name, "severity": judge.worst(mine)}
        row |= {k: v for k, v in (facts or {}).items() if k not in _INTERNAL}
        row |= {**(record or {}), **(extra or {}).get(subject.id, {})}
        row["findings"] = "; ".join(f"{f.severity}: {f.sentence}" for f in mine)
        rows.append(row)
    return pd.DataFrame(rows).convert_dtypes()  # counts stay integers where some subjects have none


def write_quality(out: Path, table: pd.DataFrame, findings: Sequence[Finding]) -> None:
    """quality.csv, quality.parquet and findings.csv."""
    write_csv(out / "quality.csv", table)
    with replacing(out / "quality.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    write_csv(out / "findings.csv", judge.table(findings))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


@contextmanager
def bar(title: str, total: int, wanted: bool | None) -> Iterator[Tick]:
    """A progress bar on standard error; by default only when a person is looking."""
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield lambda text="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, text="")
        yield lambda text="": progress.update(task, advance=1, text=text)
