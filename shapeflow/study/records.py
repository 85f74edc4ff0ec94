"""What a study writes down of itself: the keys of each run, and which runs it consists of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shapeflow.study.files import write_text


def configuration(config: Mapping[str, Any], out: str | Path) -> None:
    """runs/<id>/config.yaml: the resolved keys that the run's results depend on."""
    import yaml

    write_text(out, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def manifest(
    name: str,
    dataset: str,
    runs: Sequence[Sequence[str | None]],
    geodesics: Sequence[str],
    out: str | Path,
    grid: str | Path,
) -> None:
    """studies/<study>/study.json: the runs that the study consists of; `shapeflow status` and `gc` read it. `geodesics` are folders of each.

    `grid` is an empty file that is named by the runs: one of an earlier grid goes, so that asking for that grid again is seen.
    """
    entries = [{"run": run, "prepared": prepared, "raw": raw} for run, prepared, raw in runs]
    facts = {"study": name, "dataset": dataset, "runs": entries, "geodesics": list(geodesics)}
    write_text(out, json.dumps(facts, indent=1) + "\n")
    for earlier in Path(grid).parent.glob(".grid-*"):
        earlier.unlink()
    write_text(grid, "")
