"""Geodesic tools on a run's atlas, as files.

<out>/summary.csv        one row: what was done, its length, how well it fits
<out>/momentum.vtk       the momentum, on the points where it lives
<out>/shape_-1.vtk …     the shape at every time asked for
<out>/frames.npz         the same as frames (times, n, d), for the report

A momentum is named by a subject (the one that takes the template to it), by a label of two groups (the difference of their mean momenta, the
second group in order of name less the first), or by a mesh file with point data `momentum` on the atlas's control points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeflow.atlas import AtlasSpec
from shapeflow.atlas.tangent import TangentSpace
from shapeflow.errors import ShapeflowError, few
from shapeflow.io import read_shape, write_shape
from shapeflow.io.files import replacing
from shapeflow.shape import Shape
from shapeflow.statistics.files import load_space
from shapeflow.statistics.trajectory import geodesic_regression
from shapeflow.statistics.transport import parallel_transport, transported_space
from shapeflow.tables import atlas_table, subject_labels, write_csv


def regress_run(
    run_dir: Path, label: str, shapes: Mapping[str, Shape], spec: AtlasSpec, times: Sequence[float], out: Path
) -> None:
    """The trajectory of the atlas's subjects along the measurement `label`; `shapes` are what the atlas was estimated from."""
    space, subjects, _ = load_space(run_dir)
    values = pd.to_numeric(_labels(run_dir, label), errors="coerce").reindex(list(subjects))
    known = [s for s in subjects if np.isfinite(values[s])]
    if len(known) < 3:
        raise ShapeflowError(
            f"geodesic.regression: {label!r} is a number for {len(known)} of {len(subjects)} subjects; a trajectory needs three or more"
        )
    found = geodesic_regression(space.template, [shapes[s] for s in known], [float(values[s]) for s in known], spec)
    facts = {
        "subjects": len(known),
        "mean": found.mean,
        "deviation": found.deviation,
        "explained": found.explained,
        "status": found.status,
        "iterations": len(found.history) - 1,
    }
    title, unit = f"{label}: {found.mean:.3g} ± {found.deviation:.3g}", f"standard deviations of {label}"
    _write(out, "regression", label, found.space, found.momentum, times, title, unit, facts)


def shoot_run(run_dir: Path, momentum: str, times: Sequence[float], out: Path) -> None:
    """The geodesic of a momentum, from the template."""
    space, p, words = _momentum(run_dir, momentum)
    _write(out, "shoot", momentum, space, p, times, words, "times the momentum", {})


def transport_run(run_dir: Path, momentum: str, along: str, steps: int, times: Sequence[float], out: Path) -> None:
    """A momentum, carried along the geodesic of another and shot from where that ends."""
    space, p, words = _momentum(run_dir, momentum)
    _, direction, way = _momentum(run_dir, along)
    carried = parallel_transport(space, direction, p, steps=steps)
    there = transported_space(space, carried)
    facts = {"along": along, "steps": steps, "length_before": _length(space, p)}
    _write(
        out, "transport", momentum, there, carried.momentum, times, f"{words}, on {way}", "times the momentum", facts
    )


def _momentum(run_dir: Path, name: str) -> tuple[TangentSpace, NDArray[np.float64], str]:
    """The run's space, the momentum (n, d) that a name means, and what to call it."""
    space, subjects, momenta = load_space(run_dir)
    if name in subjects:
        return space, momenta[subjects.index(name)], name
    labels = subject_labels(atlas_table([run_dir])).reindex(list(subjects))
    if name in labels.columns:
        groups = labels[name].astype("string")
        found = sorted(groups.dropna().unique())
        if len(found) != 2:
            raise ShapeflowError(
                f"the momentum {name!r} is a difference of two groups, and the label has {len(found)}: {few(found)}"
            )
        first, second = (momenta[(groups == g).fillna(False).to_numpy(dtype=bool)].mean(axis=0) for g in found)
        return space, second - first, f"{name}: {found[1]} less {found[0]}"
    if not Path(name).is_file():
        raise ShapeflowError(
            f"{name!r} is no subject of the atlas, no label and no file; its subjects are {few(subjects)}"
        )
    mesh = read_shape(name)
    if "momentum" not in mesh.point_data:
        raise ShapeflowError(f"{name} has no point data named momentum; it has {', '.join(mesh.point_data) or 'none'}")
    size = float(np.ptp(space.control_points, axis=0).max())
    if (
        mesh.points.shape != space.control_points.shape
        or np.abs(mesh.points - space.control_points).max() > 1e-5 * size
    ):
        raise ShapeflowError(
            f"{name} has momenta on {len(mesh.points)} points that are not the {len(space.control_points)} control points of this atlas: "
            f"write them on those of {run_dir / 'atlas' / 'momenta.npz'}"
        )
    return space, np.asarray(mesh.point_data["momentum"], dtype=np.float64), Path(name).stem


def _labels(run_dir: Path, label: str) -> pd.Series:
    labels = subject_labels(atlas_table([run_dir]))
    if label not in labels.columns:
        raise ShapeflowError(f"{label!r} is no label; the labels are {', '.join(map(str, labels.columns)) or 'none'}")
    return labels[label]


def _length(space: TangentSpace, p: NDArray) -> float:
    return float(np.sqrt(max(space.gram(p[None])[0, 0], 0.0)))


def _write(
    out: Path,
    tool: str,
    what: str,
    space: TangentSpace,
    p: NDArray,
    times: Sequence[float],
    title: str,
    unit: str,
    facts: Mapping[str, Any],
) -> None:
    steps = np.asarray(sorted(times), dtype=np.float64)
    shapes = space.shapes(steps[:, None, None] * p)
    controls = space.template if space.on_vertices else Shape(space.control_points)
    write_shape(out / "momentum.vtk", controls.replace(point_data={"momentum": p}))
    for t, shape in zip(steps, shapes, strict=True):
        write_shape(out / f"shape_{t:+g}.vtk", shape)
    with replacing(out / "frames.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream, title=np.array(title), unit=np.array(unit), steps=steps, frames=np.stack([s.points for s in shapes])
        )
    row = {"tool": tool, "what": what, "length": _length(space, p), **facts}
    write_csv(pd.DataFrame([row]), out / "summary.csv")  # last: the others are complete when it is there
