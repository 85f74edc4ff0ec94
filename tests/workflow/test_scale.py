"""A large study stays hundreds of jobs: 100 subjects, 4,950 pairs (9,900 matchings), 12 runs."""

from __future__ import annotations

from pathlib import Path

from .running import planned


def test_a_hundred_subjects_and_twelve_runs_are_hundreds_of_jobs(tmp_path: Path) -> None:
    overrides = ["dataset.n_subjects=100", "sigma=0.1,0.2,0.3,0.4", "kernel=gaussian,cauchy,energy"]
    jobs = planned(tmp_path, overrides, "--scheduler", "greedy")
    assert jobs["atlas"] == 12 and 12 <= jobs["match"] < 1000
