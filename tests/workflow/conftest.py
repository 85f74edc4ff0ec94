"""One finished study for all tests that look at one or compare with one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from .running import SWEPT, snakemake


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study, run once by snakemake, whichever of pytest's processes asks first. Nobody changes it.

    Each process looks at a copy of its own: even a dry run writes below .snakemake, and a test that copies must not see that come and go.
    """
    folder = tmp_path_factory.getbasetemp() / "study"
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder.mkdir()
        snakemake(folder, SWEPT)
        return folder
    shared = tmp_path_factory.getbasetemp().parent / "study"
    with FileLock(f"{shared}.lock"):
        if not shared.is_dir():
            made = shared.with_name("study-in-the-making")
            made.mkdir(exist_ok=True)
            snakemake(made, SWEPT)
            made.rename(shared)
    shutil.copytree(shared, folder)
    return folder
