"""A bar at a terminal, plain lines in a log, and one bar at a time."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time

import pytest

from shapeflow.progress import progress

pty = pytest.importorskip("pty", reason="POSIX terminals")

# Ten steps of some hundredths of a second: `python -c … label seconds`.
PROGRAM = """
import sys, time
from shapeflow.progress import progress
with progress(sys.argv[1], 10) as tell:
    for done in range(1, 11):
        time.sleep(float(sys.argv[2]) / 10)
        tell(done)
"""


def drawn(*jobs: tuple[str, float]) -> str:
    """What jobs that share a terminal write to it; each begins when the one before has drawn."""
    head, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    running, text, end = [], b"", time.monotonic() + 60
    for label, seconds in jobs:
        command = [sys.executable, "-c", PROGRAM, label, str(seconds)]
        running.append(subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment))
        while len(running) == 1 and label.encode() not in text:
            text += os.read(head, 65536)
            assert time.monotonic() < end
    os.set_blocking(head, False)
    while any([job.poll() is None for job in running]):
        assert time.monotonic() < end
        time.sleep(0.05)
        text += read(head)
    text += read(head)
    for end_of_it in (terminal, head):
        os.close(end_of_it)
    assert all(job.returncode == 0 for job in running), text.decode()
    return text.decode()


def read(head: int) -> bytes:
    try:
        return os.read(head, 1 << 20)
    except BlockingIOError:
        return b""


def test_a_bar_with_the_time_left_at_a_terminal() -> None:
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", drawn(("matching", 2.0)))
    shares = [int(s) for s in re.findall(r"matching [━╸╺ ]+ +(\d+)%", text)]
    assert shares[0] == 0 and shares == sorted(shares) and len(set(shares)) > 4
    assert re.search(r"\d+% 0:00:0[1-9]", text), "an estimate"


def test_jobs_that_share_a_terminal_draw_in_turn() -> None:
    """The second draws nothing while the first does, and its own bar afterwards."""
    text = drawn(("first", 3.0), ("second", 5.0))
    assert text.rindex("first") < text.index("second")


def test_no_terminal_no_bar_but_plain_lines_in_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "shapeflow.progress"):
        with progress("atlas", 4, every=0.0) as tell:
            time.sleep(0.01)
            tell(1.5)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "atlas: 0% after 0 s"
    assert re.fullmatch(r"atlas: 38% after 0 s, about 0 s left at most", lines[1])
    assert re.fullmatch(r"atlas: done in 0\.\d s", lines[2]) and len(lines) == 3
    assert capfd.readouterr().err == ""
