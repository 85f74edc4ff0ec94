"""A small cohort on disk, dirty where a test asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shapeflow.io import Landmarks, write_landmarks, write_shape
from shapeflow.io.isolated import Limits
from shapeflow.prepare import Dataset
from shapeflow.shape import Shape
from tests.io.shapes import rotation, sphere

HERE = Limits(workers=0)  # in this process: a test of what is done, not of where
MARKS = (3, 40, 77, 120, 200, 260)


def bumpy(seed: int) -> Shape:
    """One individual of a family of lopsided ellipsoids (no symmetry, so that a mirror image can be told)."""
    base = sphere(12, seed=7)
    rng = np.random.default_rng(seed)
    return base.replace(points=base.points + 0.05 * np.sin(base.points @ rng.normal(size=(3, 3)) + rng.normal(size=3)))


def cohort(folder: Path, n: int = 6, *, posed: bool = True, landmarks: bool = True, labels: bool = True) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        shape = bumpy(i)
        linear, shift = (
            (rotation(i), 5.0 * np.random.default_rng(i).normal(size=3)) if posed else (np.eye(3), np.zeros(3))
        )
        write(folder, f"s{i}", shape.replace(points=shape.points @ linear.T + shift), landmarks)
    if labels:
        rows = [f"s{i},{'AB'[i % 2]},{20 + i}" for i in range(n)]
        (folder / "labels.csv").write_text("\n".join(["id,group,age", *rows]) + "\n")
    return Dataset(
        name="test",
        path=str(folder),
        pattern="*.vtk",
        labels="labels.csv" if labels else None,
        landmarks="{id}.landmarks.csv" if landmarks else None,
    )


def write(folder: Path, name: str, shape: Shape, landmarks: bool = True) -> None:
    write_shape(folder / f"{name}.vtk", shape)
    if landmarks:
        write_landmarks(
            folder / f"{name}.landmarks.csv", Landmarks(tuple(f"m{j}" for j in MARKS), shape.points[list(MARKS)])
        )
