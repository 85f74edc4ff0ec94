"""What goes wrong on real machines: a poisoned mesh, memory, half-written files, stale locks, kills."""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from shapeflow import keeping, locking
from shapeflow.config.expand import expand
from shapeflow.errors import ShapeflowError
from shapeflow.io import read_shape
from shapeflow.study.atlas import atlas
from shapeflow.study.check import check
from shapeflow.study.distances import distances
from shapeflow.study.files import load_config
from shapeflow.study.generate import generate
from shapeflow.study.match import match
from shapeflow.study.prepare import prepare
from shapeflow.study.prepared import usable
from shapeflow.study.records import configuration

from .running import ENVIRONMENT, TINY, assert_same_results, command, planned, snakemake

PAIRS = [("subject01", "subject02"), ("subject01", "subject03"), ("subject02", "subject03"), ("subject03", "subject01")]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared tiny cohort and a run's configuration, made by the steps themselves."""
    folder = tmp_path_factory.mktemp("cohort")
    run = expand([*TINY, "sigma=0.3"]).runs[0]
    generate(run.config["dataset"], folder / "raw")
    prepare(run.config, folder / "prepared", folder / "raw")
    check(run.config, [f"subject0{i}" for i in (1, 2, 3)], folder / "prepared")
    configuration(run.config, folder / "runs" / run.id / "config.yaml")
    return folder


@pytest.fixture
def work(cohort: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(cohort, tmp_path / "work")
    return tmp_path / "work"


def solve(work: Path, code: str = "") -> pd.DataFrame:
    (config,) = work.glob("runs/*/config.yaml")
    rows = config.parent / "shards" / "000.parquet"
    match(config, PAIRS, work / "prepared", "cpu", "torch", rows, config.parent / "momenta" / "000.npz", code)
    return pd.read_parquet(rows).set_index(["source", "target"])


@pytest.mark.parametrize("poison", ["not a mesh", "", None])
def test_a_poisoned_mesh_fails_its_own_rows_only(work: Path, poison: str | None) -> None:
    whole = solve(work)
    mesh = work / "prepared" / "subject02.vtk"
    mesh.unlink() if poison is None else mesh.write_text(poison)
    rows = solve(work)
    bad = [pair for pair in PAIRS if "subject02" in pair]
    assert rows.loc[bad, "status"].str.startswith("failed").all() and rows.loc[bad, "distance"].isna().all()
    good = [pair for pair in PAIRS if "subject02" not in pair]
    assert np.allclose(rows.loc[good, "distance"], whole.loc[good, "distance"], rtol=1e-6)
    (momenta,) = work.glob("runs/*/momenta/000.npz")
    with np.load(momenta, allow_pickle=False) as data:
        assert list(zip(data["source"], data["target"], strict=True)) == good


def test_a_mesh_of_numbers_that_are_none_is_refused_at_its_row(work: Path) -> None:
    mesh = work / "prepared" / "subject03.vtk"
    from shapeflow.io import read_shape, write_shape

    shape = read_shape(mesh)
    write_shape(mesh, shape.replace(points=shape.points * 1e60))
    rows = solve(work)
    assert rows.loc[("subject01", "subject02"), "status"] in ("converged", "max_iter")
    bad = [pair for pair in PAIRS if "subject03" in pair]
    assert rows.loc[bad, "status"].str.startswith("failed").all(), rows["status"].to_dict()


def test_a_subject_that_is_bad_by_now_leaves_no_shape_of_before(work: Path) -> None:
    """Meshes are prepared again into the same folder: what an earlier preparation left must not be matched."""
    config = load_config(next(work.glob("runs/*/config.yaml")))
    config["prepare"]["on_bad"] = "skip"
    names = [f"subject0{i}" for i in (1, 2, 3)]
    (work / "raw" / "subject02.vtk").write_bytes(b"# vtk")
    prepare(config, work / "prepared", work / "raw")
    check(config, names, work / "prepared")
    assert not (work / "prepared" / "subject02.vtk").exists()
    good, _, failures = usable(work / "prepared")
    assert good == ["subject01", "subject03"] and "left out" in failures["subject02"]
    (work / "raw" / "subject02.vtk").unlink()
    prepare(config, work / "prepared", work / "raw")
    check(config, good, work / "prepared")
    assert usable(work / "prepared")[0] == good and not usable(work / "prepared")[2]


def test_as_many_control_points_as_vertices_are_no_vertices(work: Path) -> None:
    """Momenta of an atlas are written where they live, though there could be one for each vertex of the template."""
    run = expand([*TINY, "sigma=0.3", "solver.control_points=subsample", "solver.control_count=24"]).runs[0]
    config, out = work / "runs" / run.id / "config.yaml", work / "runs" / run.id / "atlas"
    configuration(run.config, config)
    atlas(config, work / "prepared", "cpu", "torch", out)
    template, subject = read_shape(out / "template.vtk"), read_shape(out / "subjects" / "subject01.vtk")
    with np.load(out / "momenta.npz") as saved:
        assert saved["control_points"].shape == template.points.shape
        assert np.abs(saved["control_points"] - template.points).max() > 0.1, (
            "in another order, or the test says nothing"
        )
        np.testing.assert_array_equal(saved["masses"], np.full(24, 1 / 24))
        np.testing.assert_allclose(subject.points, saved["control_points"], atol=1e-12)
        np.testing.assert_allclose(subject.point_data["momentum"], saved["momenta"][0], atol=1e-12)
    assert "displacement" not in subject.point_data


def test_a_batch_that_fails_as_one_is_halved_down_to_the_pair_to_blame(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shapeflow.matching as matching

    whole, real, sizes = solve(work), matching.match, []

    def singular(sources, *args, **kwargs):
        sizes.append(len(sources))
        if len(sources) > 1 or len(sizes) == 3:
            raise RuntimeError("linalg.cholesky: the input is not positive-definite")
        return real(sources, *args, **kwargs)

    monkeypatch.setattr(matching, "match", singular)
    rows = solve(work)
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    lost = rows["status"].str.startswith("failed: linalg.cholesky")
    assert lost.sum() == 1 and np.allclose(rows["distance"][~lost], whole["distance"][~lost], rtol=1e-5)


def test_a_truncated_shard_is_named(work: Path) -> None:
    solve(work)
    (shard,) = work.glob("runs/*/shards/000.parquet")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(ShapeflowError, match="000.parquet.*delete it"):
        distances(shard.parents[1] / "config.yaml", work / "prepared" / "subjects.csv", [shard], work / "m.parquet", work / "d.parquet")  # fmt: skip


def test_kept_files_are_taken_whole_or_not_at_all(work: Path) -> None:
    first = solve(work, code="c")
    assert solve(work, code="c").equals(first), "even the seconds: nothing was computed"
    assert not solve(work, code="other")["seconds"].equals(first["seconds"])
    (kept,) = work.glob("runs/*/shards/.kept/000.parquet")
    kept.unlink()
    kept.write_bytes(b"truncated")
    again = solve(work, code="other")
    assert (again["distance"] == first["distance"]).all()


def test_keeping_survives_a_note_that_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(b"content")
    keeping.keep("k", [file])
    file.unlink()
    assert keeping.take("k", [file]) and file.read_bytes() == b"content"
    (tmp_path / ".kept" / "a.json").write_text("{")
    assert not keeping.take("k", [file])
    assert not keeping.take("other", [file])


def test_a_dead_snakemake_is_cleaned_up_and_a_live_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results, half = Path("results"), Path("results/demo/runs/r/shards/000.parquet")
    half.parent.mkdir(parents=True)
    half.write_text("half")
    other = Path("elsewhere.txt")
    other.write_text("not ours")
    marks = Path(".snakemake/incomplete")
    marks.mkdir(parents=True)
    for path in (half, other):
        (marks / base64.urlsafe_b64encode(str(path).encode()).decode()).write_text("{}")
    (Path(".snakemake/locks")).mkdir()
    Path(".snakemake/locks/0.output.lock").write_text(str(half))
    held = locking.hold(results)
    assert locking.recover(results) == 0 and half.exists(), "a live one is left alone"
    held.release()
    assert locking.recover(results) == 1
    assert not half.exists() and other.exists()
    assert len(list(marks.iterdir())) == 1 and not list(Path(".snakemake/locks").iterdir())


def test_a_second_snakemake_is_refused_and_the_first_finishes(tmp_path: Path) -> None:
    """Snakemake's own lock sees a working directory; ours sees the results that two of them may share."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir(), elsewhere.mkdir()
    overrides = [*TINY, "sigma=0.3,0.6", f"results={tmp_path / 'results'}"]
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(command(overrides), cwd=here, env=ENVIRONMENT, stdout=log, stderr=log)
        try:
            while not locking.held(tmp_path / "results"):
                assert first.poll() is None, "it ended without ever holding its results"
                time.sleep(0.2)
            for folder, sentence in (
                (elsewhere, "another snakemake is writing to"),
                (here, "Directory cannot be locked"),
            ):
                second = snakemake(folder, overrides, "--rerun-incomplete", check=False)  # as the profiles have it
                assert second.returncode != 0 and sentence in second.stdout + second.stderr
            assert first.wait(timeout=300) == 0, (tmp_path / "log").read_text()[-3000:]
        finally:
            first.kill()
            first.wait()
    assert planned(here, overrides) == {}


def test_configurations_load_by_the_safe_loader(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("sigma: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(yaml.YAMLError):
        load_config(path)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[*TINY, "sigma=0.3,0.6"], ["report.enabled=false"]], ids=["tiny", "demo"])
def test_twenty_kills_change_nothing(tmp_path: Path, overrides: list[str]) -> None:
    """kill -9 of the whole process group at twenty random moments, each while a study is at work: it always ends as the undisturbed one does."""
    calm, harried = tmp_path / "calm", tmp_path / "harried"
    calm.mkdir(), harried.mkdir()
    began = time.monotonic()
    snakemake(calm, overrides)
    longest = time.monotonic() - began
    clock, kills = random.Random(0), 0
    while True:
        seconds = clock.uniform(1, min(longest / 2, 45)) if kills < 20 else None
        with (harried / "log").open("a") as log:
            process = subprocess.Popen(
                command(overrides), cwd=harried, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
            )
            try:
                status = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                continue
        assert status == 0, (harried / "log").read_text()[-3000:]
        assert_same_results(calm, harried)
        if kills == 20:
            return
        shutil.rmtree(harried / "results")  # it got through: the next kills meet it at its beginning again
