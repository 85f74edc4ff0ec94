"""The page of a study's folder: `results/<dataset>/studies/<study>/report.html`, from what lies beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import yaml

from shapeflow.errors import ShapeflowError
from shapeflow.report.load import load_run
from shapeflow.report.meshes import load_findings, load_quality
from shapeflow.report.page import write_report
from shapeflow.tables import atlas_table, matching_table, study_sweep


def report_study(
    study_dir: Path, *, title: str | None = None, label: str | None = None, command: str | None = None
) -> Path:
    """Write `study_dir/report.html` for the runs that `study_dir/study.json` names."""
    study_dir = Path(study_dir).resolve()
    manifest = _manifest(study_dir / "study.json")
    root, page = study_dir.parent.parent, study_dir / "report.html"
    run_dirs = [root / "runs" / entry["run"] for entry in manifest["runs"]]
    if gone := [d.name for d in run_dirs if not d.is_dir()]:
        raise ShapeflowError(
            f"the study's runs {', '.join(gone)} are not in {root / 'runs'}: run the study again, snakemake makes what is missing"
        )
    matching, atlas = matching_table([d for d in run_dirs if (d / "matching.parquet").is_file()]), atlas_table(run_dirs)
    both = pd.concat(
        [part[["device", "backend", "versions"]] for part in (matching, atlas) if len(part)] or [pd.DataFrame()]
    )
    known = {name: "; ".join(sorted(both[name].dropna().unique())) for name in both.columns}
    facts = {
        "name": manifest["study"],
        "dataset": manifest["dataset"],
        "title": title,
        "label": label,
        "command": command,
        "unit": _unit(run_dirs),
        **known,
    }
    prepared = [root / "prepared" / p for p in dict.fromkeys(e.get("prepared") for e in manifest["runs"]) if p]
    views = [load_run(d, page=page, geodesics=manifest["geodesics"]) for d in run_dirs]
    return write_report(
        page,
        study={k: v for k, v in facts.items() if v},
        sweep=study_sweep(run_dirs, label),
        runs=views,
        quality=load_quality(prepared),
        findings=load_findings(prepared),
        tables={
            p.name: f"tables/{p.name}"
            for p in sorted((study_dir / "tables").glob("*"))
            if p.suffix in (".csv", ".parquet")
        },
    )


def _unit(run_dirs: list[Path]) -> str | None:
    """The unit that the data set's configuration names; two of them are none."""
    configs = [yaml.safe_load(p.read_text(encoding="utf-8")) for d in run_dirs if (p := d / "config.yaml").is_file()]
    units = {str(c.get("dataset", {}).get("unit") or "") for c in configs if c}
    return units.pop() or None if len(units) == 1 else None


def _manifest(path: Path) -> dict:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return {
            "study": str(manifest["study"]),
            "dataset": str(manifest["dataset"]),
            "runs": [dict(e) for e in manifest["runs"]],
            "geodesics": [str(name) for name in manifest.get("geodesics", ())],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShapeflowError(
            f"{path} does not name the study's runs ({error!r}); delete it and run the study again"
        ) from error
