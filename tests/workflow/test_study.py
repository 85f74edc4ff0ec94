"""A tiny study through Snakemake and through Hydra: the same runs, the same bytes, and nothing done twice."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from shapeflow.tables import ATLAS, DISTANCES, MATCHING, SWEEP

from .running import ENVIRONMENT, SWEPT, TINY, assert_same_results, planned, run_ids, shapeflow, snakemake


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by `shapeflow -m`: killed (kill -9, its whole process group) while it works, then started again."""
    folder = tmp_path_factory.mktemp("launched")
    command = [sys.executable, "-m", "shapeflow.cli", "-m", *SWEPT, "hydra.launcher.cores=2"]
    with (folder / "killed.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while not list(folder.glob("results/demo/runs/*/shards/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not list(folder.glob("results/demo/studies/*/tables/sweep.csv")), (
        "it had already ended: nothing was interrupted"
    )
    done = shapeflow(folder, "-m", *SWEPT, "hydra.launcher.cores=2")
    (folder / "resumed.log").write_text(done.stdout + done.stderr)
    return folder


def test_the_outputs_are_there_and_documented(study: Path) -> None:
    assert len(run_ids(study)) == 2
    for run in study.glob("results/demo/runs/*"):
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert run.name.startswith(f"gaussian-s{config['sigma']:g}-none-")
        matching = pd.read_parquet(run / "matching.parquet")
        assert {c.name for c in MATCHING} <= set(matching.columns)
        assert len(matching) == 6 and set(matching["run"]) == {run.name} and set(matching["sigma"]) == {config["sigma"]}
        assert {"source_group", "target_group", "source_covariate"} <= set(matching.columns), "labels are carried"
        for column in ("hamiltonian", "distance", "surface_mean", "landmark_error", "jacobian_min", "seconds"):
            assert np.isfinite(matching[column]).all()
        assert np.allclose(matching["distance"], np.sqrt(2 * matching["hamiltonian"]))
        assert set(matching["backend"]) == {"torch"} and matching["versions"].str.contains("shapeflow").all()
        assert {c.name for c in DISTANCES} <= set(pd.read_parquet(run / "distances.parquet").columns)
        atlas = pd.read_parquet(run / "atlas" / "atlas.parquet")
        assert {c.name for c in ATLAS} <= set(atlas.columns)
        assert (atlas[["landmark_error", "landmark_error_before"]] > 0).all(axis=None)
        assert len(pd.read_csv(run / "atlas" / "template.landmarks.csv")) == 3
    tables = study / "results/demo/studies/default/tables"
    sweep = pd.read_csv(tables / "sweep.csv")
    assert {c.name for c in SWEEP} <= set(sweep.columns) and set(sweep["run"]) == run_ids(study)
    assert np.isfinite(sweep["atlas_landmark_error"]).all()
    assert len(pd.read_csv(tables / "matching.csv")) == 12


def test_arrays_load_without_pickle_and_meshes_in_vtk(study: Path) -> None:
    from shapeflow.io import read_shape

    for run in study.glob("results/demo/runs/*"):
        (shard,) = (run / "momenta").glob("*.npz")
        with np.load(shard, allow_pickle=False) as data:
            assert len(data["source"]) == len(data["target"]) == 6
            assert all(np.isfinite(data[f"momenta_{i:05d}"]).all() for i in range(6))
        template = read_shape(run / "atlas" / "template.vtk")
        meshes = sorted((run / "atlas" / "subjects").glob("*.vtk"))
        assert len(meshes) == 3
        assert read_shape(meshes[0]).point_data["momentum"].shape == template.points.shape


def test_snakemakes_own_report_has_captions_and_categories(study: Path) -> None:
    snakemake(study, SWEPT, "--report", "snakemake.html")
    page = (study / "snakemake.html").read_text(encoding="utf-8")
    for words in ("One row a run", "What preparation found", '"Sweep": {', '"Quality": {', "quality.csv"):
        assert words in page, words


def test_a_second_run_has_nothing_to_do(study: Path) -> None:
    assert planned(study, SWEPT) == {}


def test_a_sweep_that_runs_have_refreshed_is_no_finished_study(study: Path, tmp_path: Path) -> None:
    """Killed between the first run's end and the tables: sweep.csv is there, nothing else is."""
    shutil.copytree(study, tmp_path / "copy")
    folder = tmp_path / "copy/results/demo/studies/default"
    for path in (*folder.glob("tables/matching.*"), *folder.glob("tables/atlas.*"), folder / "selected.json"):
        path.unlink()
    assert (folder / "tables" / "sweep.csv").is_file()
    assert planned(tmp_path / "copy", SWEPT) == {"tables": 1, "all": 1}


def test_keys_that_matter_to_no_result_start_nothing(study: Path) -> None:
    assert planned(study, [*SWEPT, "match.threads=2", "backend=auto"]) == {}
    assert planned(study, [*TINY, "sigma=0.30,0.60"]) == {}


def test_a_new_width_starts_its_own_jobs_only(study: Path) -> None:
    assert planned(study, [*TINY, "sigma=0.3,0.6,0.9"]) == {
        "configuration": 1, "match": 1, "distances": 1, "atlas": 1, "statistics": 1, "study": 1, "tables": 1, "all": 1,
    }  # fmt: skip


def test_another_study_shares_the_runs(study: Path) -> None:
    assert planned(study, [*TINY, "sigma=0.3", "study=second"]) == {"study": 1, "tables": 1, "all": 1}


def test_editing_a_prepared_input_reaches_what_depends_on_it(study: Path, tmp_path: Path) -> None:
    """A folder of meshes: one subject's file changes, and its own tiles are matched again."""
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    (raw,) = study.glob("results/demo/raw/*")
    for path in sorted(raw.glob("subject*.vtk")):
        (meshes / path.name).write_bytes(path.read_bytes())
    overrides = [
        *(o for o in TINY if not o.startswith("dataset.")), "dataset=folder", f"dataset.path={meshes}", "prepare.align=none",
        "match.shard_size=2", "atlas.enabled=false", "sigma=0.3",
    ]  # fmt: skip
    said = snakemake(tmp_path, overrides).stderr
    assert re.search(r"^Results of the study: results/folder/studies/\w+/tables$", said, re.M), said[-500:]
    assert planned(tmp_path, overrides) == {}
    before = {p.name: p.read_bytes() for p in tmp_path.glob("results/folder/runs/*/shards/*.parquet")}
    assert len(before) == 3
    text = (meshes / "subject01.vtk").read_bytes()
    from shapeflow.io import read_shape, write_shape

    shape = read_shape(meshes / "subject01.vtk")
    write_shape(meshes / "subject01.vtk", shape.replace(points=shape.points * 1.001))
    assert (meshes / "subject01.vtk").read_bytes() != text
    snakemake(tmp_path, overrides)
    after = {p.name: p.read_bytes() for p in tmp_path.glob("results/folder/runs/*/shards/*.parquet")}
    assert {name for name in after if after[name] != before[name]} == {"000-001.parquet", "000-002.parquet"}
    (untouched,) = tmp_path.glob("results/folder/logs/match-*-001-002.log")
    assert "kept files taken" in untouched.read_text(), "the third tile reads neither edited mesh"
    assert planned(tmp_path, overrides) == {}


def test_multirun_gives_the_same_runs_and_bytes_after_a_kill(study: Path, launched: Path) -> None:
    assert run_ids(launched) == run_ids(study)
    assert_same_results(study, launched)


def test_a_resumed_study_keeps_what_was_done(launched: Path) -> None:
    """The log of the second start: it did not begin again."""
    text = (launched / "resumed.log").read_text()
    assert "rule generate" not in text and "rule prepare" not in text
    assert "Traceback" not in text and "--unlock" not in text


def test_after_multirun_snakemake_has_nothing_to_do(launched: Path) -> None:
    assert planned(launched, SWEPT) == {}


@pytest.mark.parametrize(
    ("command", "summary"), [("-m", ["hydra.launcher.args=[--summary]"]), ("run", ["--", "--summary"])]
)
def test_a_sweep_over_a_folder_of_ones_own_experiments(tmp_path: Path, command: str, summary: list[str]) -> None:
    """`--config-dir`: Snakemake finds the experiment where Hydra did."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nstudy: mine\nhydra:\n  sweeper:\n    params:\n      sigma: 3,4\n"
    )
    text = shapeflow(tmp_path, command, "experiment=mine", "--config-dir", "conf", "kernel=energy", *summary)
    assert "energy-s3-" in text.stdout + text.stderr and "studies/mine" in text.stdout + text.stderr
