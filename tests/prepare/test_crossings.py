"""Curves that touch or cross themselves, against all pairs of segments in whole numbers."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from shapeflow.prepare.crossings import self_meetings


def ring(points: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    n = len(points)
    return np.array(points, float), np.stack([np.arange(n), np.roll(np.arange(n), -1)], 1)


@pytest.mark.parametrize(
    ("points", "crosses"),
    [
        ([(0, 0), (1, 0), (1, 1), (0, 1)], 0),
        ([(0, 0), (2, 2), (2, 0), (0, 2)], 1),  # a bow tie
        ([(0, 0), (1, 1), (2, 2), (2, 0), (1, 1), (0, 2)], 1),  # the same, through a vertex of both
        ([(0, 0), (1, 1), (2, 0), (2, 2), (1, 1), (0, 2)], 0),  # two corners that kiss
        ([(0, 0), (4, 0), (4, 4), (2, 0), (0, 4)], 0),  # a corner on a side
    ],
)
def test_crossing_is_told_from_touching(points: list[tuple[float, float]], crosses: int) -> None:
    for turned in (points, points[::-1], [(y, x) for x, y in points], points[2:] + points[:2]):
        meets, found = self_meetings(*ring(turned))
        assert found == crosses
        assert (meets > 0) == (points[1:] != [(1, 0), (1, 1), (0, 1)])


def meet(a, b, c, d) -> bool:
    """Two closed segments of whole coordinates share a point, by exact arithmetic."""

    def side(p, q, r):
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    det = (b[0] - a[0]) * (d[1] - c[1]) - (b[1] - a[1]) * (d[0] - c[0])
    if det == 0:
        if side(a, b, c) != 0:
            return False
        k = 0 if a[0] != b[0] else 1
        return max(min(a[k], b[k]), min(c[k], d[k])) <= min(max(a[k], b[k]), max(c[k], d[k]))
    s = Fraction(side(c, d, a), side(c, d, a) - side(c, d, b))
    t = Fraction(side(a, b, c), side(a, b, c) - side(a, b, d))
    return 0 <= s <= 1 and 0 <= t <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_sweep_finds_what_all_pairs_find(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.unique(rng.integers(0, 30, (40, 2)), axis=0)
    points = points[rng.permutation(len(points))]
    p, edges = ring([(int(x), int(y)) for x, y in points])
    corners = [[tuple(map(int, points[v])) for v in e] for e in edges]
    apart = [(i, j) for i, j in combinations(range(len(edges)), 2) if not set(edges[i]) & set(edges[j])]
    assert self_meetings(p, edges)[0] == sum(meet(*corners[i], *corners[j]) for i, j in apart)


def test_open_curves_and_several_at_once() -> None:
    points = np.array([[0, 0], [2, 2], [0, 2], [2, 0], [5, 5], [6, 6]], float)
    assert self_meetings(points, np.array([[0, 1], [2, 3], [4, 5]])) == (1, 1)
    assert self_meetings(points, np.array([[4, 5]])) == (0, 0)
