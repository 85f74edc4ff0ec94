"""Results on a disk that fills up, or that turns read-only while a study runs: a sentence says so, and the same command goes on when it is mended."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shapeflow import locking

from .running import ENVIRONMENT, SWEPT, assert_same_results, command, planned, snakemake


def mount(*arguments: str) -> bool:
    return (
        shutil.which("mount") is not None and subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    )


def resize(disk: Path, kilobytes: int) -> None:
    assert mount("-o", f"remount,size={kilobytes}k", str(disk))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or not mount("-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)):
        pytest.skip("needs the right to mount a file system (root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def on(disk: Path) -> list[str]:
    return [*SWEPT, f"results={disk / 'results'}"]


def failed(folder: Path, overrides: list[str]) -> str:
    """What a study that had to stop said; a person can read it."""
    done = snakemake(folder, overrides, check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in said, said[-4000:]
    return said


def test_a_full_disk_stops_a_study_and_more_of_it_resumes(tmp_path: Path, study: Path, disk: Path) -> None:
    """Filled up when matchings and atlases want to be written; what was finished before is not made again."""
    resize(disk, 190)
    said = failed(tmp_path, on(disk))
    assert "The disk is full" in said and "free some space, or write results=/another/disk" in said
    finished = set(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", said))
    assert {"generate", "configuration"} <= finished
    resize(disk, 4000)
    left = planned(tmp_path, on(disk))
    assert not set(left) & {"generate", "configuration"}
    snakemake(tmp_path, on(disk))
    assert_same_results(study, disk)


@pytest.mark.slow
@pytest.mark.parametrize("everything", [False, True], ids=["results", "everything"])
def test_a_disk_that_is_full_again_and_again(tmp_path: Path, study: Path, disk: Path, everything: bool) -> None:
    """At every few kB from the first file to the last; with Snakemake's own files on the same disk its message may come first."""
    folder, overrides, size = (disk, SWEPT, 96) if everything else (tmp_path, on(disk), 32)
    resize(disk, size)
    while (done := snakemake(folder, overrides, check=False)).returncode != 0:
        said = done.stdout + done.stderr
        assert "The disk is full" in said or (everything and "No space left on device" in said), said[-4000:]
        assert everything or "Traceback" not in said, said[-4000:]
        size += 96 if everything else 16
        assert size < 4000, "it never had enough"
        resize(disk, size)
    assert_same_results(study, disk)


def test_results_that_may_not_be_written_are_refused_before_any_job(tmp_path: Path, disk: Path) -> None:
    assert mount("-o", "remount,ro", str(disk))
    said = failed(tmp_path, on(disk))
    assert "cannot be written" in said and "make it writable, or write results=/another/folder" in said
    assert "rule generate" not in said


@pytest.mark.slow
def test_a_disk_that_turns_read_only_stops_a_study_and_writable_it_resumes(
    tmp_path: Path, study: Path, disk: Path
) -> None:
    """As a file server does that has lost its own disk: the folder of runs, when the first matchings begin."""
    runs = tmp_path / "results/demo/runs"
    runs.mkdir(parents=True)
    assert mount("--bind", str(disk), str(runs))
    try:
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(command(SWEPT), cwd=tmp_path, env=ENVIRONMENT, stdout=log, stderr=log)
            try:
                while len(list(runs.glob("*/*/"))) < 2:  # Snakemake has made the folders of the first jobs' outputs
                    assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
                    time.sleep(0.05)
                while not mount("-o", "remount,bind,ro", str(runs)):  # refused while a file there is open for writing
                    assert process.poll() is None, "it ended before the disk was closed"
                    time.sleep(0.01)
                assert process.wait(timeout=300) != 0
            finally:
                process.kill()
                process.wait()
        said = (tmp_path / "log").read_text()
        assert "The results cannot be written" in said and "Make the folder writable" in said, said[-4000:]
        assert mount("-o", "remount,bind,rw", str(runs)) and not locking.held(tmp_path / "results")
        assert not set(planned(tmp_path, SWEPT)) & {"generate", "configuration", "compile_kernels"}
        snakemake(tmp_path, SWEPT)
        assert_same_results(study, tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", str(runs)], check=True)
