"""One finished study for all tests that look at one or compare with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from .running import SWEPT, snakemake


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study, run once by snakemake. Nobody changes it."""
    folder = tmp_path_factory.mktemp("snakemake")
    snakemake(folder, SWEPT)
    return folder
