"""What the page's script receives: plain JSON, with meshes as base64 integers.

A vertex coordinate is stored in 16 bits of its bounding box: half a pixel of a full-screen picture. A mesh larger than its share of the
page's budget is decimated for display only.
"""

from __future__ import annotations

import base64
import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeflow.figures import frame
from shapeflow.report.view import Field, Mode, RunView
from shapeflow.shape import Shape
from shapeflow.statistics import cluster_order
from shapeflow.tables import is_measurement

MESH_BUDGET = 6_000_000  # bytes of base64 for all meshes, modes and fields of the page
MAX_VERTICES, MIN_VERTICES = 6000, 200


def run_payload(view: RunView, max_vertices: int) -> dict:
    return {
        "run": view.run,
        "title": view.title,
        "labels": labels_payload(view.labels),
        "matrix": _matrix(view),
        "matrix_note": view.matrix_note,
        "scene": scene_payload(view.template, view.modes, view.fields, max_vertices)
        if view.template is not None
        else None,
        "history": _history(view.history),
        "history_note": view.history_note,
        "embeddings": [
            {
                "title": e.title,
                "names": list(e.names),
                "xy": numbers(e.coordinates),
                "axes": list(e.axes),
                "note": e.note,
            }
            for e in view.embeddings
        ],
    }


def vertices_for(views: list[RunView]) -> int:
    """How many vertices a displayed template may have so that the page keeps its size."""
    cost = 0
    for view in views:
        if view.template is None:
            continue
        d = view.template.points.shape[1]
        # coordinates 2 bytes each, two faces a vertex of three 4-byte indices, fields 4 bytes; base64 adds a third
        frames = 1 + sum(len(m.frames) for m in view.modes)
        cost += math.ceil(4 / 3 * (2 * d * frames + 24 + 4 * len(view.fields)))
    return int(np.clip(MESH_BUDGET // max(cost, 1), MIN_VERTICES, MAX_VERTICES))


def scene_payload(shape: Shape, modes: tuple[Mode, ...], fields: tuple[Field, ...], max_vertices: int) -> dict:
    kept, cells = for_display(shape, max_vertices)
    frames = [np.asarray(f)[kept] for mode in modes for f in mode.frames]
    everything = np.concatenate([shape.points[kept], *frames])
    low = everything.min(axis=0)
    scale = float(np.ptp(everything, axis=0).max()) or 1.0
    return {
        "d": shape.points.shape[1],
        "k": cells.shape[1],
        "low": numbers(low),
        "scale": scale,
        "points": _quantized(shape.points[kept], low, scale),
        "cells": _b64(cells.astype("<u4")),
        "camera": numbers(frame(shape.points)) if shape.points.shape[1] == 3 else None,
        "decimated": len(kept) < len(shape.points),
        "vertices": len(shape.points),
        "modes": [
            {
                "title": m.title,
                "unit": m.unit,
                "steps": list(m.steps),
                "frames": [_quantized(np.asarray(f)[kept], low, scale) for f in m.frames],
            }
            for m in modes
        ],
        "fields": [
            {
                "title": f.title,
                "unit": f.unit,
                "diverging": f.diverging,
                "levels": list(f.levels),
                "values": _b64(np.asarray(f.values)[kept].astype("<f4")),
            }
            for f in fields
        ],
    }


def for_display(shape: Shape, max_vertices: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the vertices shown and the cells between them. Shown vertices are vertices of the shape, so modes and fields are theirs."""
    n, cells = len(shape.points), shape.simplices
    if n <= max_vertices or cells.shape[1] != 3:
        return np.arange(n), cells
    import fast_simplification
    from scipy.spatial import cKDTree

    points, faces = fast_simplification.simplify(
        shape.points.astype(np.float32), cells.astype(np.int32), target_reduction=1 - max_vertices / n
    )
    nearest = cKDTree(shape.points).query(points)[1]
    cells = nearest[faces]
    cells = cells[(cells[:, 0] != cells[:, 1]) & (cells[:, 1] != cells[:, 2]) & (cells[:, 2] != cells[:, 0])]
    kept, renumbered = np.unique(cells, return_inverse=True)
    return kept, renumbered.reshape(cells.shape)


def labels_payload(labels: pd.DataFrame | None) -> dict:
    """Labels by name: {"subjects": […], "columns": {name: {"numeric": bool, "values": […]}}}."""
    if labels is None:
        return {"subjects": [], "columns": {}}
    columns = {}
    for name in labels.columns:
        values = labels[name]
        numeric = is_measurement(values)
        columns[str(name)] = {
            "numeric": numeric,
            "values": numbers(values.to_numpy(dtype=float))
            if numeric
            else [None if pd.isna(v) else _name(v) for v in values],
        }
    return {"subjects": [str(s) for s in labels.index], "columns": columns}


def _name(value: object) -> str:
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def _matrix(view: RunView) -> dict | None:
    """Distances in 16 bits of the largest, 65535 for a missing one: a thousand subjects stay under 3 MB."""
    if view.matrix is None:
        return None
    d = view.matrix.values
    known = np.isfinite(d)
    largest = float(d[known].max()) if known.any() else 0.0
    steps = np.where(known, np.round(np.where(known, d, 0.0) / (largest or 1.0) * 65534.0), 65535)
    return {
        "names": list(view.matrix.names),
        "largest": largest,
        "values": _b64(steps.astype("<u2")),
        "order": cluster_order(d).tolist(),
    }


def _history(history: pd.DataFrame | None) -> dict | None:
    """Curves against the iteration: every column of numbers that varies."""
    if history is None or not len(history):
        return None
    numeric = history.select_dtypes("number")
    x = numeric.pop("iteration") if "iteration" in numeric else pd.Series(np.arange(len(history)))
    curves = {str(c): numbers(numeric[c].to_numpy(dtype=float)) for c in numeric if numeric[c].nunique() > 1}
    return {"x": numbers(x.to_numpy(dtype=float)), "curves": curves} if curves else None


def numbers(values: NDArray) -> list:
    """Nested lists with six significant digits, None for what is not finite (JSON has no NaN)."""
    a = np.asarray(values, dtype=np.float64)
    if a.ndim > 1:
        return [numbers(row) for row in a]
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in a.tolist()]


def _quantized(points: NDArray, low: NDArray, scale: float) -> str:
    return _b64(np.round((points - low) / scale * 65535.0).clip(0, 65535).astype("<u2"))


def _b64(a: NDArray) -> str:
    return base64.b64encode(np.ascontiguousarray(a).tobytes()).decode("ascii")
