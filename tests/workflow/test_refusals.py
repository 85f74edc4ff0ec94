"""What a study could not use stops before any job, in a sentence, on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from .running import TINY, shapeflow, snakemake


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
