"""Even triangles: approximated centroidal Voronoi clusters of the vertices (Valette and Chassery 2004), by pyacvd.

Decimation follows the geometry and leaves long triangles on flat parts; remeshing spreads `n_points` vertices evenly over the area, as a
discretisation of a measure wants them, and can also add vertices. Its triangles are clusters' neighbourhoods, so thin parts may lose detail:
the geometric error is in the quality table.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.shape import Shape

_OVERSAMPLING = 10  # fine vertices a cluster needs for its centroid to mean something


def remesh(shape: Shape, n_points: int) -> Shape:
    """The surface with about `n_points` evenly spread vertices. Drops point_data."""
    if shape.kind != "surfaces" or shape.dimension != 3:
        raise MeshError(
            f"remeshing needs surfaces in 3-D; received {shape.kind} in {shape.dimension}-D: write prepare.resample=decimate"
        )
    try:
        import pyacvd
        import pyvista
        from pyvista.core.errors import PyVistaDeprecationWarning
    except ImportError as error:
        raise MeshError("prepare.resample=remesh needs pyacvd and pyvista: pip install 'shapeflow[remesh]'") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # pyacvd's use of pyvista, not ours to change
        warnings.filterwarnings("ignore", category=PyVistaDeprecationWarning)
        made = _clustered(pyacvd, pyvista, shape, n_points)
    triangles = np.asarray(made.faces).reshape(-1, 4)[:, 1:]
    used = np.unique(triangles)
    if not len(used):
        raise MeshError(
            f"remeshing to {n_points} vertices left no triangle; write a larger prepare.n_points, or prepare.resample=decimate"
        )
    points = np.asarray(made.points, np.float64)[used]
    return Shape(points, np.searchsorted(used, triangles))


def _clustered(pyacvd: Any, pyvista: Any, shape: Shape, n_points: int) -> Any:
    clusters = pyacvd.Clustering(pyvista.PolyData.from_regular_faces(shape.points, shape.simplices))
    rounds = 0
    while shape.n_points * 4**rounds < _OVERSAMPLING * n_points:
        rounds += 1
    if rounds:
        clusters.subdivide(rounds)
    clusters.cluster(n_points)
    return clusters.create_mesh()
