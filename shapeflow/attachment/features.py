"""Simplices as weighted, oriented points: the features whose kernel norms compare shapes (docs/attachments.md).

For a simplex with centre c, measure m = |n| (1, length or area) and, for curves the tangent, for surfaces the normal
n:

    measure    m                          e = 1        where there is shape
    current    n                          e = d        … and how it is oriented (opposite sheets cancel)
    varifold   m · vec(u ⊗ u), u = n/m    e = d(d+1)/2 … up to orientation: ⟨u, v⟩² by Cauchy–Binet, off-diagonals × √2

Oriented varifolds and optimal transport keep the feature m and look at u as d more coordinates of the position.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shapeflow.errors import ShapeflowError

_TINY = 1e-30  # keeps the square root of a degenerate simplex differentiable; its features are zero all the same


def centres_and_normals(points: Tensor, simplices: Tensor) -> tuple[Tensor, Tensor | None]:
    """Centres (M, d), and tangents of length |edge| or normals of length area (M, d); None for points."""
    corners = _take(points, 0, simplices.reshape(-1)).view(*simplices.shape, -1)  # (M, k, d)
    centre = corners.mean(1)
    k, d = corners.shape[1:]
    if k == 1:
        return centre, None
    edge = corners[:, 1] - corners[:, 0]
    if k == 2:
        return centre, edge
    if d == 2:
        raise ShapeflowError("triangles need points in 3-D; received 2-D points")
    return centre, 0.5 * torch.linalg.cross(edge, corners[:, 2] - corners[:, 0])


def _length(normals: Tensor) -> Tensor:
    return normals.square().sum(1, keepdim=True).clamp(min=_TINY).sqrt()


def directions(normals: Tensor | None, name: str) -> Tensor:
    """u = n/|n| (M, d); zero, with zero derivative, where a simplex has no extent."""
    n = _oriented(normals, name)
    some = n.square().sum(1, keepdim=True) > _TINY
    return torch.where(some, n, 0.0) / _length(n)


def measure(centres: Tensor, normals: Tensor | None) -> Tensor:
    return centres.new_ones(centres.shape[0], 1) if normals is None else _length(normals)


def current(centres: Tensor, normals: Tensor | None) -> Tensor:
    return _oriented(normals, "current")


def varifold(centres: Tensor, normals: Tensor | None) -> Tensor:
    n = _oriented(normals, "varifold")
    i, j = torch.triu_indices(n.shape[1], n.shape[1], device=n.device)
    twice = torch.where(i == j, 1.0, 2.0).to(n.dtype).sqrt()
    return _take(n, 1, i) * _take(n, 1, j) * twice / _length(n)


def _take(t: Tensor, dim: int, index: Tensor) -> Tensor:
    """`t` at these places of a dimension.

    Indexing by tensors opens an OpenMP region on a CPU even for a thousand numbers, 20 µs that become milliseconds on a busy machine; on CUDA the derivative
    of index_select adds by atomics, so that no two runs would agree.
    """
    if t.is_cuda:
        return t[index] if dim == 0 else t[:, index]
    return t.index_select(dim, index)


def _oriented(normals: Tensor | None, name: str) -> Tensor:
    if normals is None:
        raise ShapeflowError(
            f"{name} needs curves or surfaces, and these shapes are points: use attachment=measure, sinkhorn or landmarks"
        )
    return normals


FEATURES: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "measure": measure,
    "current": current,
    "varifold": varifold,
}
