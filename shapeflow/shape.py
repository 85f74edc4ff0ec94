"""A shape: points, simplices and what is known at every vertex.

With q the points (n, d) and t the simplices (m, k): k = 1 a point set, 2 a curve, 3 a triangle mesh; d = 2 or 3.

    measure of a simplex    |t| = 1, |q_1 - q_0|, 1/2 |(q_1 - q_0) x (q_2 - q_0)|
    mass of a vertex        mu_i = (1/k) sum_{t contains i} |t| / sum_t |t|          so that sum_i mu_i = 1

The masses are the shares of length or area that the normalized Hamiltonian and the measures weigh vertices with. Points are in mesh units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as _replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from shapeflow.errors import MeshError

KINDS = {1: "points", 2: "curves", 3: "surfaces"}


@dataclass(frozen=True, eq=False)
class Shape:
    """Finite points, simplices that exist, arrays of one row a vertex. Anything else is refused with a sentence."""

    points: Float[np.ndarray, "n d"]
    simplices: Int[np.ndarray, "m k"] = None  # type: ignore[assignment]  # None: a point set
    point_data: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        points = np.ascontiguousarray(self.points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] not in (2, 3):
            raise MeshError(f"points must be (n, 2) or (n, 3); received an array of shape {points.shape}")
        simplices = np.arange(len(points))[:, None] if self.simplices is None else np.asarray(self.simplices)
        if simplices.dtype.kind not in "iu":
            raise MeshError(
                f"simplices must be integers; received dtype {simplices.dtype}: convert them with .astype(int)"
            )
        simplices = np.ascontiguousarray(simplices, dtype=np.int64)
        if simplices.ndim != 2 or simplices.shape[1] not in KINDS:
            raise MeshError(
                f"simplices must be (m, 1) points, (m, 2) edges or (m, 3) triangles; received {simplices.shape}"
            )
        if not len(points) or not len(simplices):
            raise MeshError(
                f"a shape needs points and simplices; received {len(points)} points and {len(simplices)} simplices"
            )
        _check_points(points)
        _check_indices(simplices, len(points))
        data = {str(name): np.asarray(values) for name, values in dict(self.point_data).items()}
        for name, values in data.items():
            if values.ndim < 1 or len(values) != len(points):
                raise MeshError(
                    f"point_data[{name!r}] needs {len(points)} rows, one a point; received shape {values.shape}"
                )
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "simplices", simplices)
        object.__setattr__(self, "point_data", data)

    @property
    def n_points(self) -> int:
        return len(self.points)

    @property
    def dimension(self) -> int:
        """d, of the space around the shape."""
        return self.points.shape[1]

    @property
    def kind(self) -> str:
        """ "points", "curves" or "surfaces"."""
        return KINDS[self.simplices.shape[1]]

    def measures(self) -> Float[np.ndarray, " m"]:
        """(m,) lengths of edges, areas of triangles; 1 for points."""
        return simplex_measures(self.points, self.simplices)

    def masses(self) -> Float[np.ndarray, " n"]:
        """(n,) vertex shares of the length or area (of points: equal), summing to one."""
        k = self.simplices.shape[1]
        measures = self.measures()
        total = measures.sum()
        if not total > 0:
            raise MeshError(f"the {self.kind} have no {'area' if k == 3 else 'length'}: every simplex is degenerate")
        shares = np.repeat(measures / (k * total), k)
        return np.bincount(self.simplices.ravel(), weights=shares, minlength=self.n_points)

    def size(self) -> float:
        """Diagonal of the bounding box, in mesh units."""
        return float(np.linalg.norm(np.ptp(self.points, axis=0)))

    def centroid(self) -> Float[np.ndarray, " d"]:
        """(d,) barycentre of the vertices weighted by mass: it does not depend on the sampling."""
        return self.masses() @ self.points

    def centroid_size(self) -> float:
        """Square root of the mass-weighted mean squared distance to the centroid, in mesh units."""
        return float(np.sqrt(self.masses() @ ((self.points - self.centroid()) ** 2).sum(1)))

    def replace(self, **changes: Any) -> Shape:
        """A copy with some of points, simplices and point_data replaced, and validated again."""
        return _replace(self, **changes)

    def __repr__(self) -> str:
        names = f", {', '.join(self.point_data)}" if self.point_data else ""
        return f"Shape({self.n_points} points in {self.dimension}-D, {len(self.simplices)} {self.kind}{names})"


def simplex_measures(points: np.ndarray, simplices: np.ndarray) -> np.ndarray:
    """(m,) lengths of edges, areas of triangles; 1 for points. NaN where a corner is."""
    if simplices.shape[1] == 1:
        return np.ones(len(simplices))
    a = points[simplices[:, 1]] - points[simplices[:, 0]]
    if simplices.shape[1] == 2:
        return np.linalg.norm(a, axis=1)
    b = points[simplices[:, 2]] - points[simplices[:, 0]]
    # Lagrange's identity holds in any dimension but cancels for slivers: in 2-D and 3-D the cross product is exact enough
    if points.shape[1] == 2:
        return 0.5 * np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    return 0.5 * np.linalg.norm(np.cross(a, b), axis=1)


def check_shapes(**arguments: Sequence[Any]) -> None:
    """Refuse what is no sequence of shapes of one dimension, by the argument's name."""
    for name, shapes in arguments.items():
        if isinstance(shapes, Shape):
            raise MeshError(f"`{name}` is one Shape; expected a list of them: write [{name[:-1]}]")
        for i, shape in enumerate(shapes):
            if not isinstance(shape, Shape):
                raise MeshError(
                    f"`{name}`[{i}] is a {type(shape).__name__}; expected a shapeflow.Shape: write Shape(points, simplices) or read_shape(path)"
                )
    dimensions = {shape.dimension for shapes in arguments.values() for shape in shapes}
    if len(dimensions) > 1:
        raise MeshError(
            f"{' and '.join(arguments)} must lie in one space; received shapes in {' and '.join(f'{d}-D' for d in sorted(dimensions))}"
        )


def _check_points(points: np.ndarray) -> None:
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise MeshError(
            f"{int(bad.sum())} of {len(points)} points are not finite, the first is point {first}: {points[first].tolist()}; "
            "drop them with prepare.drop_nan=true"
        )


def _check_indices(simplices: np.ndarray, n: int) -> None:
    low, high = int(simplices.min()), int(simplices.max())
    if low < 0 or high >= n:
        wrong = high if high >= n else low
        hint = "; check for 1-based indices" if high == n and low >= 1 else ""
        raise MeshError(f"simplices have index {wrong} but there are {n} points (0 to {n - 1}){hint}")
