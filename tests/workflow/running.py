"""Running small real studies, and comparing what they leave."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from shapeflow.launch import snakefile

# Three planar curves of 24 points: a study of seconds, with everything that a large one has.
TINY = (
    "dataset.kind=curves dataset.n_subjects=3 dataset.n_points=24 dataset.n_landmarks=3 dataset.dense=false prepare.n_points=null "
    "prepare.keep_full=false kernel=gaussian normalization=none solver.max_iter=3 solver.steps=2 atlas.max_iter=2 backend=torch "
    "report.enabled=false"
).split()  # fmt: skip
SWEPT = [*TINY, "sigma=0.3,0.6"]  # two runs: the fixture `study` is this one
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
CLOCKS = ("seconds",)  # the columns that the clock writes


def snakemake(
    folder: Path, overrides: Sequence[str] = TINY, *options: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(overrides, *options), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"snakemake failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return done


def command(overrides: Sequence[str] = TINY, *options: str) -> list[str]:
    base = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile()), "--cores", "2"]
    return [*base, *options, "--config", f"overrides={' '.join(overrides)}"]


def shapeflow(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "shapeflow.cli", *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )
    if check and done.returncode != 0:
        raise AssertionError(f"shapeflow failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return done


def planned(folder: Path, overrides: Sequence[str] = TINY, *options: str) -> dict[str, int]:
    """Jobs of each rule that a dry run would start; empty: nothing to do."""
    text = snakemake(folder, overrides, "--dry-run", *options).stdout
    if "Nothing to be done" in text:
        return {}
    table = text[text.rindex("Job stats:") :].split("\n\n")[0]
    return {
        name: int(count)
        for name, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.M)
        if name not in ("total", "count")
    }


def run_ids(folder: Path) -> set[str]:
    return {p.name for p in folder.glob("results/*/runs/*")}


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Results with their final names: not logs, not locks, not what the clock alone distinguishes."""
    root = folder / "results"
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_file() and "/logs/" not in f"/{name}" and not hidden:
            yield name, path


def assert_same_results(a: Path, b: Path) -> None:
    """Every file of both trees is byte for byte the same; of tables, every column but those of the clock."""
    first, second = dict(files(a)), dict(files(b))
    assert set(first) == set(second)
    for name, path in first.items():
        if path.suffix in (".parquet", ".csv") and ("runs/" in name or "studies/" in name):
            read = pd.read_parquet if path.suffix == ".parquet" else pd.read_csv
            left, right = (read(p).drop(columns=list(CLOCKS), errors="ignore") for p in (path, second[name]))
            pd.testing.assert_frame_equal(left, right, check_exact=True, obj=name)
        else:
            assert path.read_bytes() == second[name].read_bytes(), f"{name} differs"
