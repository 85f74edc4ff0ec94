"""`shapeflow status` and `gc`: what a person sees of a results tree, and what is removed from it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from shapeflow import locking

from .running import ENVIRONMENT, SWEPT, TINY, assert_same_results, command, planned, run_ids, shapeflow, snakemake

FOUR = [*TINY, "sigma=0.3,0.6,0.9,1.2"]


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    """A finished study that a test may change."""
    shutil.copytree(study, tmp_path / "copy")
    return tmp_path / "copy"


def states(text: str) -> dict[str, str]:
    """State of each run, by its sigma, as the table shows it."""
    return dict(re.findall(r"gaussian-s([\d.]+)-none-\w+ +│ (\w+)", text))


def run_of(folder: Path, sigma: str) -> Path:
    (run,) = folder.glob(f"results/demo/runs/gaussian-s{sigma}-none-*")
    return run


def test_done_running_failed_and_left(copy: Path) -> None:
    """One run of each; a job that a kill cut short before the Snakemake at work began is not running."""
    results, logs = copy / "results", copy / "results/demo/logs"
    assert states(shapeflow(copy, "status", *SWEPT).stdout) == {"0.3": "done", "0.6": "done"}
    (run_of(copy, "0.6") / "atlas" / "atlas.parquet").unlink()
    log = logs / f"atlas-{run_of(copy, '0.6').name}.log"
    log.write_text("2026-01-01 00:00:00 ERROR shapeflow.job: subject03 has no point left\n")
    identity = re.findall(r"gaussian-s0\.9-none-\w+", shapeflow(copy, "expand", *FOUR).stdout)[0]
    begun = logs / f"match-{identity}-000-000.log"
    begun.write_text("2026-01-01 00:00:00 INFO shapeflow.study: 6 pairs at sigma 0.9, gaussian\n")
    os.utime(begun, (1, 1))
    told = shapeflow(copy, "status", *FOUR).stdout
    assert states(told) == {"0.3": "done", "0.6": "failed", "0.9": "left", "1.2": "left"}
    assert f"job {log.stem}: subject03 has no point left ({log.relative_to(copy)})" in told
    assert (
        "1 of 4 runs are done." in told and f'Next: snakemake --cores all --config overrides="{" ".join(FOUR)}"' in told
    )
    held = locking.begin(results)
    try:
        assert states(shapeflow(copy, "status", *FOUR).stdout)["0.9"] == "left"
        begun.touch()
        told = shapeflow(copy, "status", *FOUR).stdout
        assert states(told) == {"0.3": "done", "0.6": "failed", "0.9": "running", "1.2": "left"}
        assert "a snakemake is at work" in told and "Next:" not in told
    finally:
        held.release()


def test_a_pair_that_failed_is_named_once_a_reason_and_tried_again(copy: Path) -> None:
    """With the command that status gives: only the shard with the failed rows is computed."""
    words = [*TINY, "sigma=0.3", "atlas.enabled=false", "study=pairs", "match.shard_size=2"]
    snakemake(copy, words)
    (mesh,) = copy.glob("results/demo/prepared/*/subject02.vtk")
    whole = mesh.read_bytes()
    mesh.write_bytes(b"junk")
    run = next(p.parents[1] for p in copy.glob("results/demo/runs/*/shards/001-002.parquet"))
    shutil.rmtree(run / "shards" / ".kept")
    snakemake(copy, words, "--forcerun", "match")
    told = shapeflow(copy, "status", *words).stdout
    assert re.search(
        r"subject01 to subject02, subject02 to subject01, subject02 to subject03 and 1 more: failed: .*subject02\.vtk",
        told,
    )
    again = re.findall(r"when it is mended: snakemake --cores all (--forcerun match atlas) --config", told)
    assert len(again) == 1
    mesh.write_bytes(whole)
    snakemake(copy, words, *again[0].split())
    assert (pd.read_parquet(run / "matching.parquet")["status"] != "failed").all()
    assert "failed" not in shapeflow(copy, "status", *words).stdout


def test_a_width_that_is_taken_out_leaves_the_tables_at_once_and_its_results_with_gc(copy: Path, study: Path) -> None:
    narrow, tables = [*TINY, "sigma=0.3"], copy / "results/demo/studies/default/tables"
    assert planned(copy, narrow) == {"study": 1, "tables": 1, "all": 1}
    snakemake(copy, narrow)
    kept, dropped = run_of(copy, "0.3").name, run_of(copy, "0.6").name
    for table in ("sweep", "matching", "atlas"):
        assert set(pd.read_csv(tables / f"{table}.csv")["run"]) == {kept}, "an orphan row"
    assert "nothing to remove" in shapeflow(copy, "gc", *SWEPT).stdout, "what the words given would run is kept"
    listed = shapeflow(copy, "gc", *narrow).stdout
    assert dropped in listed and kept not in listed and "--yes" in listed
    assert run_ids(copy) == {kept, dropped}, "listing removes nothing"
    assert "removed 1 folders" in shapeflow(copy, "gc", "--yes", *narrow).stdout
    assert run_ids(copy) == {kept} and planned(copy, narrow) == {}
    snakemake(copy, SWEPT)
    assert_same_results(study, copy)


def test_results_that_came_without_snakemakes_notes_follow_a_new_grid(study: Path, tmp_path: Path) -> None:
    """Copied to another machine, or named by an absolute path from elsewhere: what is there stands, what is asked for beyond it is computed."""
    shutil.copytree(study / "results", tmp_path / "with blanks" / "résultats")
    (tmp_path / "elsewhere").mkdir()
    place = f"results='{tmp_path / 'with blanks' / 'résultats'}'"
    wider, narrower = [*TINY, "sigma=0.3,0.6,0.9", place], [*TINY, "sigma=0.3", place]
    assert planned(tmp_path / "elsewhere", [*SWEPT, place]) == {}
    assert planned(tmp_path / "elsewhere", narrower) == {"study": 1, "tables": 1, "all": 1}
    plan = planned(tmp_path / "elsewhere", wider)
    assert plan["match"] == plan["atlas"] == plan["tables"] == 1
    wider[-1] = place.replace("'", '"')
    told = shapeflow(tmp_path / "elsewhere", "status", *wider).stdout
    assert "2 of 3 runs are done" in told
    assert shlex.split(told.partition("Next: ")[2])[-1] == f"overrides={' '.join(wider)}", "what the shell makes of it"


def test_gc_waits_for_a_snakemake_at_work(copy: Path) -> None:
    (copy / "results/demo/runs/gaussian-s9-none-00000000").mkdir()
    held = locking.hold(copy / "results")
    try:
        done = shapeflow(copy, "gc", "--yes", *SWEPT, check=False)
        assert done.returncode != 0 and "wait until it ends" in done.stderr
    finally:
        held.release()
    assert "removed 1 folders" in shapeflow(copy, "gc", "--yes", *SWEPT).stdout


@pytest.mark.slow
def test_the_sweep_table_grows_while_a_study_runs(tmp_path: Path) -> None:
    sweep, seen = tmp_path / "results/demo/studies/default/tables/sweep.csv", [0]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command([*FOUR, "atlas.enabled=false"]), cwd=tmp_path, env=ENVIRONMENT, stdout=log, stderr=log)  # fmt: skip
        while process.poll() is None:
            rows = len(pd.read_csv(sweep)) if sweep.is_file() else 0
            seen += [rows] if rows != seen[-1] else []
            time.sleep(0.1)
    assert process.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    grown = seen[: seen.index(4) + 1]  # then Snakemake takes the table away for the moment in which it is made for good
    assert grown == sorted(grown) and len(grown) >= 4 and len(pd.read_csv(sweep)) == 4, seen
