"""One frame for the cohort. The method that was used, the reference and every subject's residual are returned to be recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shapeflow.errors import ConfigError, few
from shapeflow.io.isolated import Limits
from shapeflow.io.landmarks import Landmarks
from shapeflow.prepare import icp, procrustes
from shapeflow.prepare.options import Prepare
from shapeflow.prepare.transform import Transform, translation
from shapeflow.shape import Shape

log = logging.getLogger("shapeflow.prepare")


@dataclass(frozen=True)
class Alignment:
    method: str  # what was done; never "auto"
    reference: str | None
    transforms: tuple[Transform, ...]
    # mean distance to the reference (landmarks, gpa: of the points; pca_icp: of nearest vertices)
    residuals: tuple[float, ...]
    mirrored: tuple[float, ...]  # the residual that the best fit of its mirror image would leave


def align_cohort(
    ids: Sequence[str],
    shapes: Sequence[Shape],
    landmarks: Sequence[Landmarks | None],
    options: Prepare,
    limits: Limits,
    tick: Callable[..., object] = lambda *_: None,
) -> Alignment:
    """Transforms that bring every subject into the reference's frame, its centroid at the origin."""
    method = _method(ids, landmarks, options)
    if options.reference is not None and options.reference not in ids:
        raise ConfigError(f"prepare.reference is {options.reference!r}; expected one of the subjects {few(ids)}")
    nothing = (float("nan"),) * len(ids)
    if method == "none":
        for _ in ids:
            tick()
        return Alignment("none", None, (Transform(),) * len(ids), nothing, nothing)
    fixed = None if options.reference is None else list(ids).index(options.reference)
    if method == "pca_icp":
        index, transforms, residuals, mirrored = _by_closest_points(shapes, fixed, options.similarity, limits, tick)
    else:
        sets = _corresponding(ids, shapes, landmarks, method)
        index = procrustes.medoid(sets, similarity_fit=options.similarity) if fixed is None else fixed
        if method == "gpa":
            target, transforms = procrustes.generalised(sets, start=index, similarity_fit=options.similarity)
        else:
            target = sets[index]
            transforms = [procrustes.fit(x, target, similarity_fit=options.similarity) for x in sets]
        residuals = [procrustes.residual(x, target, t) for x, t in zip(sets, transforms, strict=True)]
        mirrored = [_mirrored_residual(x, target, options.similarity) for x in sets]
    if method != "pca_icp":
        for _ in ids:
            tick()
    home = translation(-transforms[index].apply(shapes[index].points).T @ shapes[index].masses())
    return Alignment(method, ids[index], tuple(home.after(t) for t in transforms), tuple(residuals), tuple(mirrored))


def _mirrored_residual(points: np.ndarray, target: np.ndarray, scaled: bool) -> float:
    """How well the mirror image would fit: only to report a subject of the other side."""
    reflected = points * np.array([-1.0, *[1.0] * (points.shape[1] - 1)])
    return procrustes.residual(reflected, target, procrustes.fit(reflected, target, similarity_fit=scaled))


def _method(ids: Sequence[str], landmarks: Sequence[Landmarks | None], options: Prepare) -> str:
    without = [i for i, mark in zip(ids, landmarks, strict=True) if mark is None]
    if options.align == "landmarks" and without:
        raise ConfigError(
            f"prepare.align=landmarks, but {len(without)} of {len(ids)} subjects have none: {few(without)}. Write dataset.landmarks='{{id}}.csv' "
            "(with your names), exclude these subjects, or write prepare.align=pca_icp"
        )
    if options.align == "auto":
        chosen = "pca_icp" if without else "landmarks"
        log.info(
            "prepare.align=auto is %s: %d of %d subjects have landmarks", chosen, len(ids) - len(without), len(ids)
        )
        return chosen
    return options.align


def _corresponding(
    ids: Sequence[str], shapes: Sequence[Shape], landmarks: Sequence[Landmarks | None], method: str
) -> list[np.ndarray]:
    """Points that correspond by row: landmarks by name (NaN where a subject lacks one), else the vertices of meshes with one connectivity."""
    marks = [m for m in landmarks if m is not None]
    if len(marks) == len(ids):
        names = list(dict.fromkeys(n for m in marks for n in m.names))
        sets = []
        for subject, m in zip(ids, marks, strict=True):
            table = dict(zip(m.names, m.points, strict=True))
            points = np.stack([table.get(n, np.full(m.points.shape[1], np.nan)) for n in names])
            known = int(np.isfinite(points).all(1).sum())
            if known < procrustes.FEWEST[points.shape[1]]:
                raise ConfigError(
                    f"{subject} has {known} landmarks with coordinates; expected at least {procrustes.FEWEST[points.shape[1]]}. Exclude it"
                )
            sets.append(points)
        return sets
    if correspond(shapes):
        return [s.points for s in shapes]
    raise ConfigError(
        f"prepare.align={method} needs landmarks for every subject ({len(marks)} of {len(ids)} have them) or meshes of one connectivity with "
        "prepare.resample=none. Write dataset.landmarks, or prepare.align=pca_icp"
    )


def correspond(shapes: Sequence[Shape]) -> bool:
    """Whether all have one connectivity, so that vertex i belongs to vertex i."""
    first = shapes[0]
    return all(s.points.shape == first.points.shape and np.array_equal(s.simplices, first.simplices) for s in shapes)


def _by_closest_points(
    shapes: Sequence[Shape], fixed: int | None, scaled: bool, limits: Limits, tick: Callable[..., object]
) -> tuple[int, list[Transform], list[float], list[float]]:
    """Fits to the reference; without one, to the subject of median size, and again to whichever subject turns out nearest to the mean."""
    samples = [icp.sample(s) for s in shapes]
    index = fixed
    if index is None:
        sizes = np.array([s.centroid_size() for s in shapes])
        index = int(np.argsort(sizes, kind="stable")[len(sizes) // 2])
        first = [f.transform for f in icp.align_each(samples, index, scaled, False, limits, lambda *_: None)]
        index = _nearest_to_mean(samples, first, index)
    fits = icp.align_each(samples, index, scaled, True, limits, tick)
    return index, [f.transform for f in fits], [f.residual for f in fits], [f.mirrored_residual for f in fits]


def _nearest_to_mean(samples: Sequence[np.ndarray], transforms: Sequence[Transform], index: int) -> int:
    """Subject whose offsets from the reference's points are nearest to the mean offsets: the medoid, without all pairs."""
    from scipy.spatial import cKDTree

    base = samples[index][: icp.QUERY]
    offsets = []
    for points, transform in zip(samples, transforms, strict=True):
        moved = transform.apply(points)
        offsets.append(moved[cKDTree(moved).query(base)[1]] - base)
    stack = np.stack(offsets)
    return int(np.argmin(np.linalg.norm(stack - stack.mean(0), axis=2).mean(1)))
