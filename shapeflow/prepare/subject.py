"""One subject, from its file to a clean decimated shape: the part of preparation that needs nobody else, so that it can run in its own process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shapeflow.closest import closest_points
from shapeflow.errors import MeshError
from shapeflow.io.raw import Raw
from shapeflow.io.readers import read_raw
from shapeflow.prepare.clean import clean
from shapeflow.prepare.dataset import Dataset, Subject
from shapeflow.prepare.options import Prepare
from shapeflow.prepare.quality import facts
from shapeflow.prepare.resample import resample
from shapeflow.prepare.transform import Transform, reflection, similarity
from shapeflow.shape import KINDS, Shape


@dataclass(frozen=True)
class Staged:
    """What one subject's own steps gave; `full` and `where` are None unless vertices were taken away and the full mesh is kept."""

    shape: Shape
    full: Shape | None
    where: tuple[np.ndarray, np.ndarray] | None  # simplex (n,), weights (n, k) of every full vertex on `shape`
    transform: Transform  # file -> staged coordinates: mirror and scale
    record: dict[str, Any]


def work(subject: Subject, dataset: Dataset, options: Prepare | None, folder: str) -> dict[str, Any]:
    """The whole of one subject in one call, for a process of its own: facts of the file, and with `options` the staged shapes in `folder`."""
    raw = read_subject(subject, dataset)
    answer: dict[str, Any] = {"facts": facts(raw)}
    if options is not None:
        try:
            staged = stage(raw, subject.id, options)
        except MeshError as error:  # the file can be read and judged, but not used
            return {**answer, "refused": str(error)}
        save_staged(Path(folder), subject.id, staged)
        answer["record"] = staged.record
    return answer


def read_subject(subject: Subject, dataset: Dataset) -> Raw:
    raw = read_raw(subject.path, kind=dataset.kind, closed=dataset.closed, part=subject.part)
    found = KINDS[raw.simplices.shape[1]]
    if dataset.kind not in ("auto", found):
        raise MeshError(
            f"{subject.path} holds {found}, but dataset.kind={dataset.kind}; write dataset.kind={found} or exclude {subject.id}"
        )
    return raw


def own_transform(subject: str, options: Prepare) -> Transform:
    """Reflection and unit factor, as the options ask for this subject."""
    factor = options.factor(subject)
    scaled = similarity(np.eye(3), factor, np.zeros(3))
    return scaled.after(reflection()) if subject in options.mirror else scaled


def stage(raw: Raw, subject: str, options: Prepare) -> Staged:
    """Scale, mirror, clean, resample; with the two-way distance between the clean mesh and the resampled one."""
    transform = own_transform(subject, options)
    moved = raw._replace(points=transform.apply(raw.points))
    if transform.reflects and raw.simplices.shape[1] == 3:
        moved = moved._replace(simplices=moved.simplices[:, [0, 2, 1]])  # a reflection turns triangles inside out
    full, repairs = clean(moved, options)
    coarse, made_by = resample(full, options.n_points, options.resample)
    record: dict[str, Any] = {
        "full_points": full.n_points,
        **{f"fixed_{k}": v for k, v in repairs.items()},
        "resampled_by": made_by,
    }
    if coarse is full:
        return Staged(
            full, None, None, transform, {**record, "resample_mean": 0.0, "resample_p95": 0.0, "resample_max": 0.0}
        )
    there = closest_points(full.points, coarse)
    back = closest_points(coarse.points, full)
    record |= _errors(there.distance, full.masses(), back.distance, coarse.masses())
    if not options.keep_full:
        return Staged(coarse, None, None, transform, record)
    return Staged(coarse, full, (there.simplex, there.weights), transform, record)


def _errors(there: np.ndarray, w: np.ndarray, back: np.ndarray, v: np.ndarray) -> dict[str, float]:
    """Geometric error of resampling, both ways, weighted by area: mean, 95 % quantile and the largest, in (scaled) mesh units."""
    distance, weight = np.concatenate([there, back]), np.concatenate([w, v]) / 2
    order = np.argsort(distance, kind="stable")
    at = min(int(np.searchsorted(np.cumsum(weight[order]), 0.95)), len(order) - 1)
    return {
        "resample_mean": float(weight @ distance),
        "resample_p95": float(distance[order[at]]),
        "resample_max": float(distance.max()),
    }


def save_staged(folder: Path, subject: str, staged: Staged) -> None:
    arrays = {"matrix": staged.transform.matrix, **_pack("shape", staged.shape)}
    np.savez(folder / f"{subject}.npz", **arrays)  # pyright: ignore[reportArgumentType]
    if staged.full is not None and staged.where is not None:
        # on its own, so that aligning a cohort does not read what only writing needs
        np.savez(
            folder / f"{subject}.full.npz",
            simplex=staged.where[0],
            weights=staged.where[1],
            **_pack("full", staged.full),  # pyright: ignore[reportArgumentType]
        )


def load_staged(folder: Path, subject: str, *, full: bool = False) -> Staged:
    with np.load(folder / f"{subject}.npz", allow_pickle=False) as file:
        shape, transform = _unpack("shape", file), Transform(file["matrix"])
    path = folder / f"{subject}.full.npz"
    if not full or not path.exists():
        return Staged(shape, None, None, transform, {})
    with np.load(path, allow_pickle=False) as file:
        return Staged(shape, _unpack("full", file), (file["simplex"], file["weights"]), transform, {})


def _pack(prefix: str, shape: Shape) -> dict[str, np.ndarray]:
    data = {f"{prefix}/data/{k}": v for k, v in shape.point_data.items() if v.dtype != object}
    return {f"{prefix}/points": shape.points, f"{prefix}/simplices": shape.simplices, **data}


def _unpack(prefix: str, file: Any) -> Shape:
    head = f"{prefix}/data/"
    return Shape(
        file[f"{prefix}/points"],
        file[f"{prefix}/simplices"],
        {k.removeprefix(head): file[k] for k in file.files if k.startswith(head)},
    )
