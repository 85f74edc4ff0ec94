"""What a study could not use stops before any job, in a sentence, on both sides."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from shapeflow.io import write_shape
from tests.io.shapes import loop

from .running import TINY, planned, shapeflow, snakemake


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sigma=-1"], "write a number above 0"),
        (["dataset=folder", "dataset.path=/no/such/folder"], "write dataset.path="),
    ],
)
def test_snakemake_and_multirun_refuse_alike(tmp_path: Path, overrides: list[str], words: str) -> None:
    left = snakemake(tmp_path, [*overrides], check=False)
    right = shapeflow(tmp_path, "-m", *overrides, check=False)
    for done in (left, right):
        assert done.returncode != 0
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("results/*/*")), "a job has run"


def test_a_workflow_key_that_is_none(tmp_path: Path) -> None:
    import subprocess

    from .running import ENVIRONMENT, command

    done = subprocess.run(
        [*command(TINY)[:-1], "sigma=3"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert 'overrides="sigma=3"' in done.stdout + done.stderr


@pytest.mark.skipif(find_spec("optuna") is not None, reason="Optuna is installed")
def test_a_sweep_by_optuna_without_optuna_says_what_to_install(tmp_path: Path) -> None:
    done = shapeflow(tmp_path, "-m", "hydra/sweeper=optuna", *TINY, check=False)
    assert done.returncode != 0 and 'pip install "shapeflow[optuna]"' in done.stderr and "Traceback" not in done.stderr


def test_two_snakemakes_at_once(tmp_path: Path) -> None:
    from shapeflow import locking

    held = locking.hold(tmp_path / "results")
    try:
        done = snakemake(tmp_path, [*TINY, "sigma=0.3"], check=False)
        assert done.returncode != 0
        assert "another snakemake is writing" in done.stdout + done.stderr
        assert snakemake(tmp_path, [*TINY, "sigma=0.3"], "--dry-run").returncode == 0, "looking is allowed"
    finally:
        held.release()
    assert not locking.held(tmp_path / "results")


def test_validate_reads_the_meshes_before_any_job(tmp_path: Path) -> None:
    """One command shows all there is to mend, leaves the tables and no other result, and says by its status whether a study would stop."""
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    for i, shape in enumerate((loop(40), loop(50, clockwise=True), loop(60))):
        write_shape(meshes / f"c{i}.vtk", shape)
    (meshes / "c3.vtk").write_bytes(b"# vtk")
    words = [
        "dataset=folder",
        f"dataset.path={meshes}",
        f"results={tmp_path / 'results'}",
        "sigma=1",
        "prepare.n_points=20",
    ]
    for on_bad, status in (("stop", 1), ("skip", 0)):
        done = shapeflow(tmp_path, "validate", *words, f"prepare.on_bad={on_bad}", check=False)
        assert done.returncode == status, done.stderr
        assert "4 subjects: 1 subject cannot be used, 0 warnings" in done.stdout
        assert "c3: c3.vtk" in done.stdout and "c1: 1 closed curve runs clockwise: turned anticlockwise" in done.stdout
        assert ("would stop at 1 of its subjects" in done.stderr) == bool(status)
    written = {p.name for p in (tmp_path / "results").rglob("*") if p.is_file()}
    assert written == {"findings.csv", "quality.csv", "quality.parquet"}


def test_a_bad_mesh_stops_the_study_and_its_table_stays(tmp_path: Path) -> None:
    """The rows that say what to mend outlive the job that stops; nothing is read twice for the same answer; mending one mesh resumes."""
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    for i, n in enumerate((40, 50, 60)):
        write_shape(meshes / f"c{i}.vtk", loop(n))
    whole = (meshes / "c1.vtk").read_bytes()
    (meshes / "c1.vtk").write_bytes(whole[:300])
    words = [*(w for w in TINY if not w.startswith("dataset.")), "dataset=folder", f"dataset.path={meshes}", "prepare.align=none"]  # fmt: skip
    words += ["sigma=1", "atlas.enabled=false"]
    done = snakemake(tmp_path, words, check=False)
    (table,) = tmp_path.glob("results/folder/prepared/*/quality.csv")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "1 of 3 subjects cannot be used" in said and "Traceback" not in said
    assert (
        str(table.relative_to(tmp_path)) in said and str(table.with_name("findings.csv").relative_to(tmp_path)) in said
    )
    rows = pd.read_csv(table).set_index("subject")
    assert rows.severity["c1"] == "error" and set(rows.index) == {"c0", "c1", "c2"}
    assert not list(tmp_path.glob("results/folder/runs/*/shards/*"))
    told = shapeflow(tmp_path, "status", *words).stdout
    assert "1 of 3 subjects cannot be used" in told and "c1.vtk" in told and "Next: snakemake" in told
    left = planned(tmp_path, words)
    assert not any(rule.startswith("prepare") for rule in left) and any(rule.startswith("check") for rule in left)
    (meshes / "c1.vtk").write_bytes(whole)
    snakemake(tmp_path, words)
    assert set(pd.read_csv(table).severity) <= {"ok", "info"}
    assert planned(tmp_path, words) == {}
