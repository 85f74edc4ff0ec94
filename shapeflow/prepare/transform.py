"""Similarities of space, as 4x4 matrices: q -> s R q + t in homogeneous coordinates, saved beside every prepared mesh and invertible."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.io.files import replacing


@dataclass(frozen=True, eq=False)
class Transform:
    """`matrix (4, 4)`; planar points move within z = 0. Mesh units in, mesh units out."""

    matrix: np.ndarray = field(default_factory=lambda: np.eye(4))

    def apply(self, points: np.ndarray) -> np.ndarray:
        """(n, d) -> (n, d); NaN rows, such as missing landmarks, stay NaN."""
        d = points.shape[1]
        return points @ self.matrix[:d, :d].T + self.matrix[:d, 3]

    def after(self, first: Transform) -> Transform:
        """The transform that does `first`, then this."""
        return Transform(self.matrix @ first.matrix)

    def inverse(self) -> Transform:
        return Transform(np.linalg.inv(self.matrix))

    @property
    def scale(self) -> float:
        """Factor on lengths."""
        return float(abs(np.linalg.det(self.matrix[:3, :3])) ** (1 / 3))

    @property
    def reflects(self) -> bool:
        return bool(np.linalg.det(self.matrix[:3, :3]) < 0)


def similarity(rotation: np.ndarray, scale: float, translation: np.ndarray) -> Transform:
    """q -> scale * rotation q + translation, with rotation (d, d) and translation (d,). In the plane z is scaled alike, so that `scale` holds."""
    d = len(translation)
    matrix = np.eye(4)
    matrix[:d, :d] = scale * rotation
    matrix[d:3, d:3] *= scale
    matrix[:d, 3] = translation
    return Transform(matrix)


def translation(vector: np.ndarray) -> Transform:
    return similarity(np.eye(len(vector)), 1.0, np.asarray(vector, float))


def reflection() -> Transform:
    """x -> -x in the file's frame."""
    return Transform(np.diag([-1.0, 1.0, 1.0, 1.0]))


def save_transform(path: Path, transform: Transform, record: Mapping[str, Any]) -> None:
    """JSON: `matrix` takes the file's coordinates to the prepared ones, `inverse` back; `record` says how it came about."""
    content = {"matrix": transform.matrix.tolist(), "inverse": transform.inverse().matrix.tolist(), **record}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load_transform(path: str | Path) -> Transform:
    try:
        matrix = np.array(json.loads(Path(path).read_text(encoding="utf-8"))["matrix"], dtype=float)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MeshError(f"{path} is no transform written by shapeflow ({error}); prepare the cohort again") from error
    if matrix.shape != (4, 4):
        raise MeshError(f"{path}: the matrix is {matrix.shape}; expected 4 x 4")
    return Transform(matrix)
