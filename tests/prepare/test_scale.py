"""A thousand files in minutes; a million vertices in less than two gigabytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shapeflow.io import write_shape
from shapeflow.prepare import Dataset, Limits, validate_cohort
from shapeflow.shape import Shape
from tests.io.shapes import sphere

pytestmark = pytest.mark.slow

PREPARE = """
import resource, sys
from shapeflow.prepare import Dataset, Prepare, prepare_cohort
prepare_cohort(Dataset(path=sys.argv[1]), Prepare(n_points=1000, align="none"), sys.argv[2])
print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20)
"""


def test_a_thousand_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = sphere(50, seed=0)  # 5002 vertices
    for i in range(1000):
        write_shape(
            tmp_path / f"s{i:04d}.vtk", base.replace(points=base.points @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))))
        )
    done = validate_cohort(Dataset(path=str(tmp_path)), limits=Limits(workers=2))
    assert len(done.subjects) == 1000 and done.bad() == ()


def test_a_million_vertices(tmp_path: Path) -> None:
    side = 1000
    x, y = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    points = np.stack([x, y, 20 * np.sin(x / 90) * np.cos(y / 70)], -1).reshape(-1, 3).astype(float)
    i = np.arange(side * side).reshape(side, side)
    upper = np.stack([i[:-1, :-1], i[1:, :-1], i[1:, 1:]], -1).reshape(-1, 3)
    lower = np.stack([i[:-1, :-1], i[1:, 1:], i[:-1, 1:]], -1).reshape(-1, 3)
    (tmp_path / "in").mkdir()
    write_shape(tmp_path / "in" / "sheet.vtk", Shape(points, np.concatenate([upper, lower])))
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2], check=True
    )
    assert float(done.stdout) < 2.0  # GB, of the larger of the two processes
