"""Calling Snakemake on shapeflow's workflow, from the command line or from Hydra's launcher."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from shapeflow.errors import ShapeflowError
from shapeflow.io.files import replacing
from shapeflow.resources import resource


class StudyFailed(ShapeflowError):
    """Snakemake ended with an error; it has said which jobs failed."""


def snakefile() -> Path:
    """The workflow's Snakefile, in the checkout or in the wheel."""
    return resource("workflow").parent / "Snakefile"


def snakemake(
    jobs: Sequence[Sequence[str]] | None = None,
    *,
    cores: str = "all",
    profile: str | None = None,
    args: Sequence[str] = (),
) -> None:
    """One Snakemake DAG for all `jobs` (lists of overrides), or for the configuration's grid."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile()), "--cores", cores]
    command += ["--workflow-profile", str(_profile("default"))]
    if profile is not None:
        command += ["--profile", str(_profile(profile))]
    if jobs is not None:
        own = os.environ.get("SHAPEFLOW_CONFIG_DIR")
        command += ["--config", f"launch={_remember(jobs)}", *([f"config_dir={own}"] if own else [])]
    status = subprocess.run([*command, *args], env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode
    if status != 0:
        raise StudyFailed(
            f"snakemake stopped with status {status}: what failed stands above, with its log. What is done stays; `shapeflow status` lists it, "
            "and the same command resumes"
        )


def _profile(name: str) -> Path | str:
    """A profile's folder: as named, or one that shapeflow ships (gpu, slurm)."""
    shipped = resource("workflow") / "profiles" / name
    return shipped if not Path(name).exists() and shipped.is_dir() else name


def _remember(jobs: Sequence[Sequence[str]]) -> Path:
    """The jobs in a file that is named by their content: Snakemake's own jobs read it too."""
    plain = [
        [word for word in job if not word.lstrip("+~").startswith("hydra.") or word.startswith("hydra.searchpath")]
        for job in jobs
    ]
    text = json.dumps(plain)
    path = Path(".snakemake", "shapeflow", f"launch-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json")
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
