"""Where groups differ: mean shapes of two groups, and a test at every vertex of the template.

A group's mean shape is the template carried by the mean of its momenta. The signed normal displacement of a subject is its reconstruction
less the template, along the template's outward normal; Welch's t compares it between the groups at each vertex, and the false discovery
rate over the vertices is held by Benjamini and Hochberg's procedure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapeflow.atlas.tangent import TangentSpace
from shapeflow.shape import Shape


@dataclass(frozen=True)
class DifferenceMap:
    """Second group less first, at the template's vertices. `normal` (n,) mesh units; `area` (n,) log₂ ratio of local area (length);
    `t`, `p`, `q` (n,) of the vertex tests, q the false discovery rate at which the vertex is found."""

    groups: tuple[str, str]
    means: tuple[Shape, Shape]
    displacement: NDArray[np.float64]
    normal: NDArray[np.float64]
    area: NDArray[np.float64]
    t: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]


def group_means(space: TangentSpace, momenta: NDArray, values: Sequence[str | None]) -> dict[str, Shape]:
    """Mean shape of every group: the template carried by the mean of its momenta."""
    names = sorted({v for v in values if v is not None})
    means = [momenta[[v == name for v in values]].mean(axis=0) for name in names]
    return dict(zip(names, space.shapes(np.stack(means)), strict=True)) if names else {}


def difference_map(
    space: TangentSpace,
    momenta: NDArray,
    first: NDArray,
    second: NDArray,
    groups: tuple[str, str],
    own: list[Shape] | None = None,
) -> DifferenceMap:
    """`first` and `second` are boolean masks of the subjects; `own` their reconstructions, if they are known already."""
    from scipy.stats import ttest_ind
    from statsmodels.stats.multitest import multipletests

    means = space.shapes(np.stack([momenta[first].mean(axis=0), momenta[second].mean(axis=0)]))
    displacement = means[1].points - means[0].points
    normals = vertex_normals(space.template)
    individual = np.stack([s.points - space.template.points for s in own or space.shapes(momenta)])
    along = _along(individual, normals)
    # a vertex that moves in no subject has no variance: it cannot differ, and its p is one
    still = along.std(axis=0) < 1e-12 * max(float(np.abs(along).max()), 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        result = ttest_ind(along[second] + 0.0, along[first] + 0.0, axis=0, equal_var=False)
    t = np.where(still, 0.0, np.nan_to_num(np.asarray(result.statistic), nan=0.0))
    p = np.where(still, 1.0, np.nan_to_num(np.asarray(result.pvalue), nan=1.0))
    q = np.asarray(multipletests(p, method="fdr_bh")[1])
    area = np.log2(local_measure(means[1]) / local_measure(means[0]))
    return DifferenceMap(
        groups, (means[0], means[1]), displacement, _along(displacement[None], normals)[0], area, t, p, q
    )


def _along(displacements: NDArray, normals: NDArray) -> NDArray[np.float64]:
    """(N, n, d) · (n, d) -> (N, n); without normals, the length of the displacement."""
    if not normals.any():
        return np.linalg.norm(displacements, axis=2)
    return np.einsum("snd,nd->sn", displacements, normals)


def vertex_normals(shape: Shape) -> NDArray[np.float64]:
    """Unit normals (n, d), area- or length-weighted over the simplices around a vertex; zeros where there is none (points, curves in space)."""
    x, cells = shape.points, shape.simplices
    normals = np.zeros_like(x)
    if cells.shape[1] == 3 and x.shape[1] == 3:
        each = np.cross(x[cells[:, 1]] - x[cells[:, 0]], x[cells[:, 2]] - x[cells[:, 0]])
    elif cells.shape[1] == 2 and x.shape[1] == 2:
        along = x[cells[:, 1]] - x[cells[:, 0]]
        each = np.stack([along[:, 1], -along[:, 0]], axis=1)  # outwards of a counterclockwise curve
    else:
        return normals
    for corner in cells.T:
        np.add.at(normals, corner, each)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)


def local_measure(shape: Shape) -> NDArray[np.float64]:
    """Area or length around each vertex (n,), in mesh units to the power of the dimension."""
    return np.clip(shape.masses() * shape.measures().sum(), 1e-300, None)
