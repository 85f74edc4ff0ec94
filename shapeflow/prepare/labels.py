"""Labels: columns of a table, one row a subject, carried through to every table of the study."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapeflow.errors import ConfigError, few
from shapeflow.prepare.sheet import read_sheet

UNLABELLED = None
# columns of subjects.csv that are ours
RESERVED = ("subject", "n_points", "n_simplices", "kind", "dimension", "scale", "mirrored")


@dataclass(frozen=True)
class Labels:
    ids: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Any]]
    empty: Mapping[str, Any]  # the row of a subject that the table does not know


def read_labels(
    source: str | Mapping[str, str] | None, id_column: str | None, folder: Path, subjects: Sequence[str]
) -> Labels:
    """Rows by subject's id: the column `id_column`, else "subject", else the first. An id may carry mesh suffixes or lack them; it must be unique."""
    if source is None:
        return Labels((), {}, {})
    if not isinstance(source, str):
        return _from_lines(source, folder, subjects)
    path = _existing(folder, source)
    table, column = read_sheet(path, id_column)
    clash = [c for c in table.columns if c in RESERVED and c != column]
    if clash:
        raise ConfigError(
            f"dataset.labels: {path} has columns named {', '.join(clash)}, which shapeflow's own tables use; rename them"
        )
    ids = [_matching(i, subjects) for i in table[column]]
    repeated = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
    if repeated:
        named = "" if id_column or column == "subject" else ", the first, since none is called subject"
        raise ConfigError(
            f"dataset.labels: {path} has several rows for {few(repeated)} in its column of ids ({column}{named}); expected one row a subject. "
            "Remove what repeats, or write dataset.label_id=<column> for another column"
        )
    others = [c for c in table.columns if c != column]
    records = table[others].astype(object).where(table[others].notna(), UNLABELLED).to_dict("records")
    return Labels(tuple(ids), dict(zip(ids, records, strict=True)), dict.fromkeys(others, UNLABELLED))


def _from_lines(source: Mapping[str, str], folder: Path, subjects: Sequence[str]) -> Labels:
    columns = {}
    for name, file in source.items():
        if name in RESERVED:
            raise ConfigError(f"dataset.labels: {name!r} is a column of shapeflow's own tables; choose another name")
        lines = _existing(folder, file).read_text(encoding="utf-8").splitlines()
        if len(lines) != len(subjects):
            raise ConfigError(
                f"dataset.labels.{name}: {file} has {len(lines)} lines for {len(subjects)} subjects; expected one a subject, in their order"
            )
        columns[name] = [line.strip() for line in lines]
    return Labels(
        tuple(subjects),
        {s: {c: v[i] for c, v in columns.items()} for i, s in enumerate(subjects)},
        dict.fromkeys(columns, UNLABELLED),
    )


def _existing(folder: Path, name: str) -> Path:
    path = folder / Path(name).expanduser()
    if not path.is_file():
        near = (
            ", ".join(sorted(p.name for p in folder.glob(f"*{path.suffix}"))[:5]) or f"no {path.suffix or 'such file'}"
        )
        inside = f". Write dataset.labels={path.name}" if (folder / path.name).is_file() else ""
        raise ConfigError(
            f"dataset.labels: {path} does not exist; the folder has {near}. "
            f"Expected a file relative to dataset.path ({folder}), or an absolute path{inside}"
        )
    return path


def _matching(label_id: str, subjects: Sequence[str]) -> str:
    """The subject that an id of the table means: itself, or the id without what looks like mesh suffixes."""
    if label_id in subjects:
        return label_id
    from shapeflow.prepare.dataset import subject_id

    shorter = subject_id(Path(re.sub(r".*[/\\]", "", label_id)), None) if label_id else label_id
    return shorter if shorter in subjects else label_id
