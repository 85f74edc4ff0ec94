"""Some of many points, spread evenly."""

from __future__ import annotations

import numpy as np


def farthest_points(points: np.ndarray, count: int, first: int | None = None) -> np.ndarray:
    """(count,) indices of `points (n, d)`, at most n: each the point farthest from those before, from `first` on, or from the point nearest
    to the mean. Even, deterministic, and nested: a smaller count is a prefix.
    """
    if first is None:
        first = int(((points - points.mean(0)) ** 2).sum(1).argmin())
    chosen, distance = [first], ((points - points[first]) ** 2).sum(1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return np.array(chosen)
