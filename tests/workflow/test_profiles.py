"""Profiles and checks: lint, formatting, and what the shipped profiles plan."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shapeflow.launch import snakefile
from shapeflow.resources import resource

from .running import ENVIRONMENT, TINY, snakemake


def test_lint_finds_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile()), "--lint"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_formatted() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", str(snakefile()), str(resource("workflow"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["default", "gpu", "slurm"])
def test_profiles_are_read(name: str) -> None:
    data = yaml.safe_load((resource("workflow") / "profiles" / name / "config.yaml").read_text())
    assert data["scheduler"] == "greedy" and data["rerun-incomplete"] and data["keep-going"]


def test_the_default_profile_plans(tmp_path: Path) -> None:
    profile = str(resource("workflow") / "profiles" / "default")
    assert snakemake(tmp_path, [*TINY, "sigma=0.3"], "--dry-run", "--workflow-profile", profile).returncode == 0


def test_the_gpu_profile_asks_for_one_gpu_a_job(tmp_path: Path) -> None:
    profile = resource("workflow") / "profiles" / "gpu"
    text = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "snakemake",
                "--snakefile",
                str(snakefile()),
                "--cores",
                "4",
                "--profile",
                str(profile),
            ),
            *("--dry-run", "--config", "device=cuda", f"overrides={' '.join([*TINY, 'sigma=0.3'])}"),
        ],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    ).stdout
    jobs = [block for block in text.split("rule ") if block.startswith(("match:", "atlas:", "compile_kernels:"))]
    assert len(jobs) == 3
    assert all("gpu=1" in job for job in jobs)


def test_the_entry_of_the_workflow_catalog() -> None:
    """https://snakemake.github.io/snakemake-workflow-catalog reads this file of a repository, and shows its sentences."""
    path = snakefile().parent / ".snakemake-workflow-catalog.yml"
    if not path.is_file():
        pytest.skip("an installed wheel carries none")
    usage = yaml.safe_load(path.read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"} and usage["report"] is True
    assert set(usage["software-stack-deployment"]) == {"conda", "apptainer", "apptainer+conda"}
    profiles = re.findall(r"workflow/profiles/(\w+)", usage["mandatory-flags"]["desc"])
    assert profiles and all((resource("workflow") / "profiles" / name).is_dir() for name in profiles)
