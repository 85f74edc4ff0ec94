"""Runs to the study's tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from shapeflow.study.files import write_text


def tables(runs: Sequence[str | Path], label: str | None, out: str | Path) -> None:
    """The study's tables, from the folders of its runs and no other."""
    from shapeflow.statistics import mark_chosen, selected
    from shapeflow.tables import atlas_table, matching_table, study_sweep, write_csv, write_table

    folders = [Path(run) for run in runs]
    write_table(matching_table([f for f in folders if (f / "matching.parquet").is_file()]), Path(out) / "matching")
    write_table(atlas_table(folders), Path(out) / "atlas")
    sweep = study_sweep(folders, label)
    write_text(Path(out).parent / "selected.json", json.dumps(selected(sweep), indent=1, ensure_ascii=False) + "\n")
    write_csv(mark_chosen(sweep), Path(out) / "sweep.csv")
