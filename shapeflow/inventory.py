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

DONE, PART, LEFT, FAILED = "done", "part", "left", "failed"


@dataclass(frozen=True)
class Progress:
    """A run's progress. `failures`: pairs or subjects whose row says failed, and logs of jobs that ended with an error."""

    run: Run
    shards_done: int
    shards: int
    atlas: bool | None  # None: no atlas is wanted
    failures: tuple[str, ...]

    @property
    def state(self) -> str:
        complete = self.shards_done == self.shards and self.atlas is not False
        if any(f.startswith("job") for f in self.failures) and not complete:
            return FAILED
        return DONE if complete else PART if self.shards_done or self.atlas else LEFT


def progress(plan: Plan, root: Path = Path(".")) -> list[Progress]:
    """One entry a run of the plan, in its order."""
    return [_progress(plan, run, root / plan.study.results) for run in plan.study.runs]


def running(plan: Plan, root: Path = Path(".")) -> bool:
    """Whether a Snakemake is at work on these results."""
    return locking.held(root / plan.study.results)


def orphans(results: Path, kept: Sequence[Run] = ()) -> list[Path]:
    """Folders of runs, prepared and raw cohorts and compiled stamps that no study.json and no run of `kept` names."""
    found: list[Path] = []
    for dataset in (
        sorted(p for p in results.iterdir() if p.is_dir() and not p.name.startswith(".")) if results.is_dir() else []
    ):
        named = [(e["run"], e["prepared"], e["raw"]) for e in _manifests(dataset)]
        named += [(r.id, r.prepare_id, r.raw_id) for r in kept if r.dataset == dataset.name]
        for kind, place in (("runs", 0), ("prepared", 1), ("compiled", 1), ("raw", 2)):
            wanted = {entry[place] for entry in named}
            folder = dataset / kind
            found += (
                [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name not in wanted] if folder.is_dir() else []
            )
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


def _progress(plan: Plan, run: Run, results: Path) -> Progress:
    folder = results / run.dataset / "runs" / run.id
    wanted = shards(run.config["match"], plan.cohort(run).subjects) if run.config["match"]["enabled"] else {}
    done = [name for name in wanted if (folder / "shards" / f"{name}.parquet").is_file()]
    atlas = (folder / "atlas" / "atlas.parquet").is_file() if run.config["atlas"]["enabled"] else None
    return Progress(
        run, len(done), len(wanted), atlas, tuple(_failures(folder, results / run.dataset / "logs", run.id))
    )


def _failures(folder: Path, logs: Path, run: str) -> Iterator[str]:
    for table in [*sorted((folder / "shards").glob("*.parquet")), folder / "atlas" / "atlas.parquet"]:
        if table.is_file():
            yield from _failed_rows(table)
    for log in sorted(logs.glob(f"*-{run}*.log")):
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if any(" ERROR shapeflow.job:" in line for line in last):
            reason = next(line for line in reversed(last) if line.strip())
            yield f"job {log.stem}: {reason.split(' ERROR shapeflow.job: ')[-1]} ({log})"


def _failed_rows(table: Path) -> Iterator[str]:
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(table).names
    names = [c for c in ("source", "target", "subject", "status") if c in schema]
    for row in parquet.read_table(table, columns=names).to_pylist():
        if str(row["status"]).lower().startswith("fail"):
            who = f"{row['source']} to {row['target']}" if "source" in row else f"atlas of {row['subject']}"
            yield f"{who}: {row['status']}"
