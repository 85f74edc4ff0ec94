"""A large study plans in seconds: 100 subjects, 4,950 pairs (9,900 matchings), 12 runs."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

from .running import ENVIRONMENT, command


def test_a_hundred_subjects_and_twelve_runs_plan_quickly(tmp_path: Path) -> None:
    overrides = ["dataset.n_subjects=100", "sigma=0.1,0.2,0.3,0.4", "kernel=gaussian,cauchy,energy"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command(overrides, "--dry-run", "--quiet", "all", "--scheduler", "greedy")],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-3000:]
    # processor time: what the wall clock shows on a machine that has a core to spare
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 10, f"planning took {seconds:.1f} s of processor time"
    assert os.path.isdir(tmp_path / ".snakemake")
