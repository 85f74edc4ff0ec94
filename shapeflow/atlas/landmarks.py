"""Landmarks of the template, and how far the atlas carries them astray.

    ξ_sk = φ_s⁻¹(x_sk)                             landmark k of subject s, pulled back to the template
    ξ_k  = mean_s ξ_sk                             the template's landmark
    e_s  = mean_k |φ_s(mean_{r≠s} ξ_rk) − x_sk|    a subject's error, from the landmarks of the others

A subject's own landmarks have no part in what is carried to it, and no landmark has a part in the estimation: the error is one of
prediction. With one subject marked there is nothing to predict from, and no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapeflow.atlas.tangent import TangentSpace
from shapeflow.errors import ShapeflowError
from shapeflow.io import Landmarks


@dataclass(frozen=True)
class TemplateLandmarks:
    """`landmarks` of the template, mesh units, those that some subject has; `error` (N,) of every subject and `error_before` (N,), without the
    deformation; `size` (N,), the centroid size of a subject's own, root of the summed squares. NaN where nothing is known."""

    landmarks: Landmarks
    error: NDArray[np.float64]
    error_before: NDArray[np.float64]
    size: NDArray[np.float64]


def template_landmarks(
    space: TangentSpace, momenta: NDArray, subjects: Sequence[Landmarks | None]
) -> TemplateLandmarks | None:
    """From the landmarks of every subject, matched by name; None where nobody has any."""
    if len(subjects) != len(momenta):
        raise ShapeflowError(
            f"landmarks of {len(subjects)} subjects for the momenta of {len(momenta)}: one entry a subject"
        )
    names, x = _by_name(subjects, space.template.points.shape[1])
    if not names:
        return None
    there = np.asarray(np.isfinite(x).all(axis=2))  # (N, L)
    pulled = _moved(space.pull_back, momenta, x, there)
    total, count = pulled.sum(axis=0), there.sum(axis=0)
    others = count - there  # (N, L): how many of the other subjects have the landmark
    rest = (total - pulled) / np.maximum(others, 1)[..., None]
    judged = np.asarray(there & (others > 0))
    carried = _moved(space.carry, momenta, rest, judged)
    return TemplateLandmarks(
        Landmarks(names, total / count[:, None]),
        _mean_distance(carried, x, judged),
        _mean_distance(rest, x, judged),
        np.sqrt(((x - x.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2))),
    )


def _by_name(subjects: Sequence[Landmarks | None], d: int) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names that at least one subject has, in order of appearance, and the points (N, L, d), NaN where one is missing."""
    known: dict[str, dict[int, NDArray]] = {}
    for s, marks in enumerate(subjects):
        for name, point in zip(marks.names, marks.points, strict=True) if marks is not None else ():
            if np.isfinite(point).all():
                known.setdefault(name, {})[s] = point
    x = np.full((len(subjects), len(known), d), np.nan)
    for k, points in enumerate(known.values()):
        for s, point in points.items():
            x[s, k] = point
    return tuple(known), x


def _moved(flow, momenta: NDArray, points: NDArray, which: NDArray) -> NDArray[np.float64]:
    """Points (N, L, d) after the flow where `which`, each subject's through its own; zero elsewhere."""
    out = np.zeros_like(points)
    for s, end in enumerate(flow(momenta, [p[w] for p, w in zip(points, which, strict=True)])):
        out[s, which[s]] = end
    return out


def _mean_distance(a: NDArray, b: NDArray, which: NDArray) -> NDArray[np.float64]:
    distance = np.where(which, np.linalg.norm(np.where(which[..., None], a - b, 0.0), axis=2), 0.0)
    count = which.sum(axis=1)
    return np.where(count > 0, distance.sum(axis=1) / np.maximum(count, 1), np.nan)
