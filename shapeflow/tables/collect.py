"""The study's tables, gathered from the folders of its runs. A table holds the runs it is given and no other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from shapeflow.tables.files import read_table
from shapeflow.tables.schema import ATLAS, MATCHING, Column, conform


def matching_table(run_dirs: Iterable[Path]) -> pd.DataFrame:
    """`matching.parquet` of every run, in order of run, source and target."""
    return _gather([Path(d) / "matching.parquet" for d in run_dirs], MATCHING, ["run", "source", "target"])


def atlas_table(run_dirs: Iterable[Path]) -> pd.DataFrame:
    """`atlas/atlas.parquet` of every run that has one, in order of run and subject."""
    paths = [Path(d) / "atlas" / "atlas.parquet" for d in run_dirs]
    return _gather([p for p in paths if p.is_file()], ATLAS, ["run", "subject"])


def _gather(paths: Sequence[Path], schema: Sequence[Column], order: list[str]) -> pd.DataFrame:
    frames = [conform(read_table(path), schema, where=str(path)) for path in paths]
    # an empty or all-missing column would make the result's type depend on which runs are there: the schema decides instead
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return conform(pd.DataFrame({c.name: [] for c in schema}), schema)
    columns = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    joined = {
        name: [v for f in frames for v in (f[name] if name in f.columns else [None] * len(f))] for name in columns
    }
    table = conform(pd.DataFrame(joined), schema, where="the runs' tables together")
    return table.sort_values(order, kind="stable").reset_index(drop=True)


def summary_table(run_dirs: Iterable[Path]) -> pd.DataFrame:
    """`statistics/summary.csv` of every run that has one: a row a run and label."""
    frames = [read_table(path) for path in (Path(d) / "statistics" / "summary.csv" for d in run_dirs) if path.is_file()]
    rows = [row for frame in frames for row in frame.to_dict("records")]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["run", "label"])
