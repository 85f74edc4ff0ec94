"""Small shapes for tests."""

from __future__ import annotations

import numpy as np
import trimesh

from shapeflow.shape import Shape


def sphere(subdivisions: int = 2, radius: float = 1.0) -> Shape:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Shape(np.asarray(mesh.vertices), np.asarray(mesh.faces))


def ellipsoid(axes=(1.3, 1.0, 0.8), shift=(0.1, 0.0, 0.0), subdivisions: int = 2) -> Shape:
    base = sphere(subdivisions)
    return base.replace(points=base.points * np.array(axes) + np.array(shift))


def open_patch(n: int = 8) -> Shape:
    """A square sheet in 3-D: a surface with a boundary."""
    u, v = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")
    points = np.stack([u.ravel(), v.ravel(), 0.2 * np.sin(3 * u.ravel())], 1)
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + n, corner + 1], 1), np.stack([corner + 1, corner + n, corner + n + 1], 1)]
    )
    return Shape(points, faces)


def circle(n: int = 40, radius: float = 1.0, d: int = 2) -> Shape:
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    points = np.zeros((n, d))
    points[:, 0], points[:, 1] = radius * np.cos(t), radius * np.sin(t)
    return Shape(points, np.stack([np.arange(n), np.roll(np.arange(n), -1)], 1))


def cloud(n: int = 30, d: int = 3, seed: int = 0) -> Shape:
    return Shape(np.random.default_rng(seed).normal(size=(n, d)))
