"""The frame of a job: its log, its GPU, its errors."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import queue
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from shapeflow.errors import ShapeflowError
from shapeflow.job import gpu_slot, job, visible_gpus


def rule(tmp_path: Path, **resources: int) -> SimpleNamespace:
    return SimpleNamespace(
        rule="match", wildcards={"run": "r1"}, log=[str(tmp_path / "logs" / "job.log")], threads=1, resources=resources
    )


def test_a_failure_is_a_sentence_on_the_terminal_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        with job(rule(tmp_path)):
            raise ShapeflowError("subject a: triangle 3 has index 9")
    shown = capsys.readouterr().err
    assert "match run=r1 failed" in shown and "subject a: triangle 3" in shown and "Run the same command again" in shown
    assert "Traceback" not in shown
    assert "subject a: triangle 3" in (tmp_path / "logs" / "job.log").read_text()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written"), (errno.EACCES, "Make the folder writable")],
)
def test_disks(tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, words: str) -> None:
    with pytest.raises(SystemExit):
        with job(rule(tmp_path)):
            raise OSError(number, os.strerror(number), "results/x.parquet")
    assert words in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_log_that_finds_no_room_hides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = rule(tmp_path)
    full.log = ["/dev/full"]
    with job(full):
        logging.getLogger("shapeflow.somewhere").info("half of it")
    with pytest.raises(SystemExit), job(full):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            raise ValueError("Can't close the ZIP file while there is an open writing handle on it")
    shown = capsys.readouterr().err
    assert "The disk is full: free some space" in shown and "Traceback" not in shown and "ZIP" not in shown


def test_a_mesh_that_may_not_be_read_is_no_fault_of_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit), job(rule(tmp_path)):
        raise ShapeflowError("a.vtk cannot be opened: Permission denied") from OSError(errno.EACCES, "", "a.vtk")
    assert "a.vtk cannot be opened" in (shown := capsys.readouterr().err) and "results cannot" not in shown


def test_plain_lines_in_the_log(tmp_path: Path) -> None:
    with job(rule(tmp_path)):
        logging.getLogger("shapeflow.somewhere").info("half of it")
    text = (tmp_path / "logs" / "job.log").read_text()
    assert "INFO shapeflow.somewhere: half of it" in text and "done in" in text


def _take(folder: Path, allowed: str, out: multiprocessing.Queue, seconds: float, count: int = 1) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = allowed
    with gpu_slot(folder, poll=0.02, count=count) as gpu:
        out.put((gpu, os.environ["CUDA_VISIBLE_DEVICES"], time.monotonic()))
        time.sleep(seconds)
        out.put((gpu, "left", time.monotonic()))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
def test_no_two_jobs_share_a_gpu(tmp_path: Path) -> None:
    """Four jobs on GPUs 2 and 5 (what a scheduler allowed): each sees one alone, and never two at a time the same."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    jobs = [context.Process(target=_take, args=(tmp_path, "2,5", out, 0.3)) for _ in range(4)]
    for process in jobs:
        process.start()
    events = sorted((out.get(timeout=60) for _ in range(8)), key=lambda e: e[2])
    for process in jobs:
        process.join()
    busy: set[str] = set()
    for gpu, what, _ in events:
        if what == "left":
            busy.remove(gpu)
        else:
            assert what == gpu and gpu not in busy
            busy.add(gpu)
    assert {gpu for gpu, _, _ in events} == {"2", "5"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
def test_a_job_of_several_gpus_takes_them_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    with gpu_slot(tmp_path, poll=0.02, count=2) as pair:
        assert pair == os.environ["CUDA_VISIBLE_DEVICES"] == "2,5"
        context = multiprocessing.get_context("spawn")
        out = context.Queue()
        other = context.Process(target=_take, args=(tmp_path, "2,5,7", out, 0.0, 2))
        other.start()
        with pytest.raises(queue.Empty):  # one is free, two are asked for
            out.get(timeout=3)
    assert out.get(timeout=60)[0] == "2,5"
    other.join()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,5,7"
    with gpu_slot(tmp_path, count=4) as few:
        assert few == "2,5,7"


def test_a_killed_job_frees_its_gpu(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    held = context.Process(target=_take, args=(tmp_path, "0,1", out, 60))
    held.start()
    assert out.get(timeout=60)[0] == "0"
    held.kill()
    held.join()
    fresh = context.Queue()  # the killed process may have died with the first queue's lock
    again = context.Process(target=_take, args=(tmp_path, "0,1", fresh, 0))
    again.start()
    assert fresh.get(timeout=60)[0] == "0"
    again.join()


def test_what_the_scheduler_allows_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 4")
    assert visible_gpus() == ["3", "4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []
