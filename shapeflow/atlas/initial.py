"""Where an atlas begins: a mesh that is given, a subject, the subject nearest to all others, or an average of all.

The average needs no correspondence. A mesh x (the nearest subject's) moves by what separates it from the subjects y_s, seen from both sides,

    x_i ← x_i + Σ_z k(x_i, z) m_z u_z / Σ_z k(x_i, z) m_z,      k Gaussian, over all s of
        z = x_j,       u = π_s(x_j) − x_j,      m = μ_j         from a vertex of x to the nearest point of the subject
        z = π_x(y_j),  u = y_j − π_x(y_j),      m = ν_sj        to a vertex of the subject from the nearest point of x

a few times. One side alone would shrink what is thin: no vertex of x is nearest to a tip that lies beyond it. Smoothing by the width of the
template's gradient moves the mesh as a surface and keeps its triangles; the result may be decimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from shapeflow.atlas.estimate import closest_subject
from shapeflow.atlas.spec import AtlasSpec
from shapeflow.closest import closest_points
from shapeflow.errors import ConfigError, ShapeflowError, few
from shapeflow.io import read_shape
from shapeflow.ops import resolve
from shapeflow.ops.bound import Kernel
from shapeflow.prepare.resample import resample
from shapeflow.ragged import Ragged
from shapeflow.shape import Shape

AVERAGE, CLOSEST = "average", "closest"


def initial_template(
    choice: str, subjects: Mapping[str, Shape], spec: AtlasSpec, n_points: int | None = None
) -> tuple[Shape, str]:
    """The template to begin with and what to call it. `choice`: closest, average, a subject's name, or a mesh file in the subjects'
    frame. An average or a file with more than `n_points` vertices is decimated."""
    names = list(subjects)
    if choice in subjects:
        return subjects[choice], choice
    if choice in (CLOSEST, AVERAGE):
        nearest = names[closest_subject(list(subjects.values()), spec.matching)]
        if choice != AVERAGE:
            return subjects[nearest], f"{nearest}, the nearest to all others"
        found = average(subjects[nearest], list(subjects.values()), spec.template_width or spec.matching.sigma)
        return resample(found, n_points, "decimate")[0], f"the average, on the mesh of {nearest}"
    if not Path(choice).is_file():
        raise ConfigError(
            f"atlas.template={choice}: write closest, average, a subject ({few(names)}) or a mesh file in the prepared subjects' frame"
        )
    given, like = read_shape(choice), subjects[names[0]]
    if given.kind != like.kind or given.dimension != like.dimension:
        raise ShapeflowError(
            f"atlas.template={choice} has {given.kind} in {given.dimension}-D; the subjects are {like.kind} in {like.dimension}-D"
        )
    return resample(given.replace(point_data={}), n_points, "decimate")[0], choice


def average(start: Shape, subjects: Sequence[Shape], width: float, rounds: int = 5) -> Shape:
    """`start` moved to the middle of `subjects`, smoothly over `width` (mesh units)."""
    kernel = Kernel("gaussian", torch.tensor([width], dtype=torch.float64), resolve(None, torch.device("cpu")))
    rows, shape = Ragged((0, start.n_points)), start.replace(point_data={})
    for _ in range(rounds):
        q, sums = torch.as_tensor(shape.points), torch.zeros(start.n_points, start.dimension + 1, dtype=torch.float64)
        for subject in subjects:
            there = closest_points(shape.points, subject).carry(subject.simplices, subject.points)
            foot = closest_points(subject.points, shape).carry(shape.simplices, shape.points)
            z = np.concatenate([shape.points, foot])
            u = np.concatenate([there - shape.points, subject.points - foot])
            m = np.concatenate([start.masses(), subject.masses()])[:, None]
            weighed = torch.as_tensor(np.concatenate([m * u, m], axis=1))
            sums += kernel.product(q, rows, torch.as_tensor(z), Ragged((0, len(z))), weighed)
        shape = shape.replace(points=(q + sums[:, :-1] / sums[:, -1:]).numpy())
    return shape
