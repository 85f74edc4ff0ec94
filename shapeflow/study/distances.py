"""Shards to a run's matching table and distance matrix."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from shapeflow.errors import ShapeflowError
from shapeflow.study.prepared import labels_of

log = logging.getLogger("shapeflow.study")


def distances(
    config: str | Path, subjects: str | Path, shards: Sequence[str | Path], matching: str | Path, out: str | Path
) -> None:
    """A run's matching rows with the subjects' labels, and its distance matrix as rows."""
    import pandas as pd

    from shapeflow.tables import MATCHING, conform, distances_table, read_table, write_parquet

    frames = [read_table(Path(shard)) for shard in shards]
    if not frames:
        raise ShapeflowError(
            f"run {Path(config).parent.name} has no pair to match: change match.subjects or match.pairs"
        )
    # an all-missing column of one shard must not decide the type of the whole
    records = [
        record for frame in frames for record in frame.astype(object).where(frame.notna(), None).to_dict("records")
    ]
    frame = pd.DataFrame(records)
    labels = labels_of(Path(subjects))
    for end in ("source", "target"):
        for name in labels.columns:
            frame[f"{end}_{name}"] = frame[end].map(labels[name])
    frame = conform(frame.sort_values(["source", "target"], kind="stable"), MATCHING, where="matching rows")
    write_parquet(frame, Path(matching))
    write_parquet(distances_table(frame), Path(out))
    _refresh_sweeps(Path(config).parent)


def _refresh_sweeps(run: Path) -> None:
    """sweep.csv of the studies that this run belongs to, over the runs that are done: a sweep can be watched. The rule `tables` has the last word."""
    from shapeflow.tables import study_sweep, write_csv

    for path in sorted(run.parents[1].glob("studies/*/study.json")):
        names = [entry["run"] for entry in json.loads(path.read_text(encoding="utf-8"))["runs"]]
        done = [run.parent / name for name in names if (run.parent / name / "matching.parquet").is_file()]
        if run.name in names:
            try:
                write_csv(study_sweep(done), path.parent / "tables" / "sweep.csv")
            except (ShapeflowError, OSError) as error:
                log.warning("%s is not refreshed: %s", path.parent / "tables" / "sweep.csv", error)
