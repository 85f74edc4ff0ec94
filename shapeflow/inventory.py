"""What a results tree holds: which runs are done, running, failed or left, and what no study refers to.

Everything is read from the tree and from the plan; nothing is computed and no mesh or table is opened beyond a table's status column.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shapeflow import locking
from shapeflow.config.pairs import shards
from shapeflow.config.plan import Plan
from shapeflow.config.study import Run

DONE, RUNNING, PART, LEFT, FAILED = "done", "running", "part", "left", "failed"
_ERROR = " ERROR shapeflow.job: "


@dataclass(frozen=True)
class Progress:
    """A run's progress. `finished`: all that the study's tables read of it is there. `active`: jobs at work on it now.
    `failures`: who (a job that ended with an error, a pair or a subject whose row says failed) and why."""

    run: Run
    shards_done: int
    shards: int
    atlas: bool | None  # None: no atlas is wanted
    finished: bool
    active: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]

    @property
    def state(self) -> str:
        if self.active:
            return RUNNING
        if self.finished:
            return DONE
        if any(who.startswith("job") for who, _ in self.failures):
            return FAILED
        return PART if self.shards_done or self.atlas else LEFT


def progress(plan: Plan, root: Path = Path(".")) -> list[Progress]:
    """One entry a run of the plan, in its order."""
    busy = running(plan, root)
    return [_progress(plan, run, root / plan.study.results, busy) for run in plan.study.runs]


def troubles(plan: Plan, root: Path = Path(".")) -> list[tuple[str, str]]:
    """Jobs of no single run (preparation, tables, report) that ended with an error."""
    found: list[tuple[str, str]] = []
    for cohort in plan.cohorts.values():
        logs = root / plan.study.results / cohort.dataset / "logs"
        names = [
            f"generate-{cohort.raw_id}",
            *(f"{step}-{cohort.prepare_id}*" for step in ("prepare", "check", "compile")),
        ]
        found += [failure for name in names for failure in _failed_jobs(logs, name)]
    for dataset in plan.study.datasets():
        logs = root / plan.study.results / dataset / "logs"
        found += [f for step in ("tables", "report") for f in _failed_jobs(logs, f"{step}-{plan.study.name}")]
    return found


def running(plan: Plan, root: Path = Path(".")) -> bool:
    """Whether a Snakemake is at work on these results."""
    return locking.held(root / plan.study.results)


def orphans(results: Path, kept: Sequence[Run] = ()) -> list[Path]:
    """Folders of runs, prepared and raw cohorts and compiled stamps that no study.json and no run of `kept` names."""
    found: list[Path] = []
    for dataset in sorted(p for p in results.glob("[!.]*") if p.is_dir()):
        named = [(e["run"], e["prepared"], e["raw"]) for e in _manifests(dataset)]
        named += [(r.id, r.prepare_id, r.raw_id) for r in kept if r.dataset == dataset.name]
        for kind, place in (("runs", 0), ("prepared", 1), ("compiled", 1), ("raw", 2)):
            wanted = {entry[place] for entry in named}
            found += [p for p in sorted((dataset / kind).glob("*")) if p.is_dir() and p.name not in wanted]
    return found


def remove(folders: Sequence[Path]) -> None:
    """Remove orphans: renamed first, so that a kill leaves nothing that looks whole."""
    for folder in folders:
        doomed = folder.with_name(f".removed-{folder.name}")
        folder.rename(doomed)
        shutil.rmtree(doomed)


def size(folder: Path) -> int:
    """Bytes below a folder."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file())


def _manifests(dataset: Path) -> Iterator[dict]:
    for path in sorted(dataset.glob("studies/*/study.json")):
        yield from json.loads(path.read_text(encoding="utf-8"))["runs"]


def _progress(plan: Plan, run: Run, results: Path, busy: bool) -> Progress:
    folder, logs = results / run.dataset / "runs" / run.id, results / run.dataset / "logs"
    wanted = shards(run.config["match"], plan.cohort(run).subjects) if run.config["match"]["enabled"] else {}
    done = [name for name in wanted if (folder / "shards" / f"{name}.parquet").is_file()]
    atlas = (folder / "atlas" / "atlas.parquet").is_file() if run.config["atlas"]["enabled"] else None
    tables = [folder / "matching.parquet"] if wanted else []
    tables += [folder / "statistics" / "summary.csv"]
    finished = len(done) == len(wanted) and atlas is not False and all(table.is_file() for table in tables)
    active = tuple(_active_jobs(logs, f"*-{run.id}*", locking.since(results))) if busy else ()
    rows = [*sorted((folder / "shards").glob("*.parquet")), folder / "atlas" / "atlas.parquet"]
    failures = [failure for table in rows if table.is_file() for failure in _failed_rows(table)]
    failures += _failed_jobs(logs, f"*-{run.id}*")
    return Progress(run, len(done), len(wanted), atlas, finished, active, tuple(failures))


def _failed_jobs(logs: Path, name: str) -> Iterator[tuple[str, str]]:
    for log in sorted(logs.glob(f"{name}.log")):
        reason = log.read_text(encoding="utf-8", errors="replace").partition(_ERROR)[2].strip()
        if reason:
            said = reason.splitlines()[-1] if reason.startswith("Traceback") else reason
            yield f"job {log.stem}", f"{said} ({log})"


def _active_jobs(logs: Path, name: str, since: float) -> Iterator[str]:
    """Logs that the Snakemake at work has begun and no job has ended."""
    for log in sorted(logs.glob(f"{name}.log")):
        text = log.read_text(encoding="utf-8", errors="replace")
        if log.stat().st_mtime >= since and _ERROR not in text and " shapeflow.job: done in " not in text:
            yield log.stem


def _failed_rows(table: Path) -> Iterator[tuple[str, str]]:
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(table).names
    names = [c for c in ("source", "target", "subject", "status") if c in schema]
    for row in parquet.read_table(table, columns=names).to_pylist():
        if str(row["status"]).lower().startswith("fail"):
            who = f"{row['source']} to {row['target']}" if "source" in row else f"atlas of {row['subject']}"
            yield who, row["status"]
