"""A still picture of a shape, drawn by the painter's algorithm through Matplotlib: the same everywhere, no OpenGL, no display.

The view looks along the axis of least extent, with the longest axis across the page: most anatomies show their side that way.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from shapeflow.shape import Shape

# Okabe and Ito's colours: told apart with any colour vision, and in grey
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
BODY = np.array([0.80, 0.84, 0.88])
LIGHT = np.array([-0.35, 0.55, 0.76])


def picture(
    shape: Shape,
    values: NDArray | None = None,
    *,
    width: float = 4.8,
    height: float = 3.6,
    dpi: int = 120,
    diverging: bool = False,
) -> bytes:
    """PNG of the shape, coloured by `values (n,)` at its vertices if given."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    axes.set_aspect("equal")
    axes.set_axis_off()
    colours = None if values is None else _colours(np.asarray(values, dtype=np.float64), diverging)
    x = view(shape.points)
    {1: _dots, 2: _lines, 3: _faces}[shape.simplices.shape[1]](axes, x, shape.simplices, colours)
    low, high = x[:, :2].min(axis=0), x[:, :2].max(axis=0)
    margin = 0.04 * max(float((high - low).max()), 1e-12)
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(low[1] - margin, high[1] + margin)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None}, transparent=True)
    return stream.getvalue()


def view(points: NDArray) -> NDArray[np.float64]:
    """Points (n, 3) in the picture's axes: across, up, towards the eye. Planar points keep their axes."""
    if points.shape[1] == 2:
        return np.column_stack([points, np.zeros(len(points))])
    return (points - points.mean(axis=0)) @ frame(points).T


def frame(points: NDArray) -> NDArray[np.float64]:
    """Rows across, up and towards the eye (3, 3): a rotation whose last row is the axis of least extent."""
    centred = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    rows = axes[:, ::-1].T.copy()  # long, middle, short
    for row in rows:  # an eigenvector has no sign: point each along the coordinate it is nearest to
        if row[np.argmax(np.abs(row))] < 0:
            row *= -1.0
    if np.linalg.det(rows) < 0:
        rows[2] *= -1.0
    return rows


def _faces(axes, x: NDArray, faces: NDArray, colours: NDArray | None) -> None:
    from matplotlib.collections import PolyCollection

    corners = x[faces]  # (m, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    normals *= np.where(normals[:, 2:] < 0, -1.0, 1.0)  # open surfaces are seen from both sides
    light = LIGHT / np.linalg.norm(LIGHT)
    shade = 0.35 + 0.65 * np.clip(normals @ light, 0.0, 1.0)
    base = BODY[None] if colours is None else colours[faces].mean(axis=1)
    order = np.argsort(corners[:, :, 2].mean(axis=1), kind="stable")
    face_colours = np.clip(base * shade[:, None], 0.0, 1.0)
    face_colours = np.broadcast_to(face_colours, (len(faces), 3))[order]
    # edges in the faces' own colours close the hairlines that antialiasing leaves between neighbours
    axes.add_collection(
        PolyCollection(list(corners[order][:, :, :2]), facecolors=face_colours, edgecolors=face_colours, linewidths=0.4)
    )


def _lines(axes, x: NDArray, edges: NDArray, colours: NDArray | None) -> None:
    from matplotlib.collections import LineCollection

    ink = "#31587a" if colours is None else colours[edges].mean(axis=1)
    axes.add_collection(LineCollection(list(x[edges][:, :, :2]), colors=ink, linewidths=2.0, capstyle="round"))


def _dots(axes, x: NDArray, points: NDArray, colours: NDArray | None) -> None:
    axes.scatter(x[:, 0], x[:, 1], s=9, c="#31587a" if colours is None else colours, linewidths=0)


def _colours(values: NDArray, diverging: bool) -> NDArray[np.float64]:
    from matplotlib import colormaps

    finite = values[np.isfinite(values)]
    high = float(np.abs(finite).max()) if len(finite) else 1.0
    low = -high if diverging else (float(finite.min()) if len(finite) else 0.0)
    scaled = np.clip((np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-30), 0.0, 1.0)
    return colormaps["RdBu_r" if diverging else "viridis"](scaled)[:, :3]
