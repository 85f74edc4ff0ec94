"""What all tests share. Real data is found through SHAPEFLOW_DATA alone; a test that needs it skips, with the reason, when it is unset."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYKEOPS_VERBOSE", "0")

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The studies first where processes share the tests: they are the longest, and what ends last should be short."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: "workflow" not in item.path.parts)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets."""
    folder = os.environ.get("SHAPEFLOW_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SHAPEFLOW_DATA names no folder of data sets")
    return Path(folder)
