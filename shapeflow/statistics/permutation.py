"""Tests by permutation: what the statistic would be if labels had nothing to do with shape.

p = (1 + #{permuted ≥ observed}) / (1 + permutations), which is never zero (Phipson and Smyth 2010). When there are few arrangements of the
labels all of them are enumerated, and p is exact: with 4 + 4 subjects it cannot be smaller than 2/70.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapeflow.errors import ShapeflowError
from shapeflow.statistics.embedding import checked_distances, gower
from shapeflow.statistics.vectors import centred


@dataclass(frozen=True)
class Test:
    """`statistic` with its `p`; `effect` is a share of variance (R²) unless `effect_name` says otherwise; `smallest_p` is what the sample allows;
    `reference` is what an accuracy stands beside: that of always naming the largest group."""

    name: str
    statistic: float
    p: float
    permutations: int
    exact: bool
    smallest_p: float
    effect: float = float("nan")
    effect_name: str = "R²"
    reference: float = float("nan")


def permanova(distances: NDArray, labels: Sequence[object], *, permutations: int = 9999, seed: int = 0) -> Test:
    """Permutational analysis of variance (Anderson 2001): pseudo-F of groups in any symmetric distance.

    F = (tr(HG)/(a − 1)) / (tr((1 − H)G)/(N − a)),   G Gower's matrix, H the projection on the groups
    """
    g, codes, count = gower(distances), *_codes(labels, len(distances))
    total, n = float(np.trace(g)), len(g)
    if total <= 0:
        raise ShapeflowError("all shapes are at distance zero of each other: there is no variance to explain")

    def between(c: NDArray) -> float:
        one_hot = np.eye(count)[c]  # (N, a)
        return float(((one_hot.T @ g @ one_hot).diagonal() / one_hot.sum(axis=0)).sum())

    explained = between(codes)
    f = (explained / (count - 1)) / max((total - explained) / (n - count), 1e-300)
    # F grows with the between-groups sum for fixed N and a, so the sum is what is permuted
    p, done, exact, least = permutation_p(between, explained, codes, permutations, seed)
    return Test("PERMANOVA", f, p, done, exact, least, explained / total)


def neighbours(distances: NDArray, labels: Sequence[object], *, permutations: int = 9999, seed: int = 0) -> Test:
    """How often the nearest neighbour has the same label, leaving one out."""
    d, (codes, _) = checked_distances(distances), _codes(labels, len(distances))
    nearest = np.argmin(d + np.diag(np.full(len(d), np.inf)), axis=1)

    def accuracy(c: NDArray) -> float:
        return float((c[nearest] == c).mean())

    observed = accuracy(codes)
    p, done, exact, least = permutation_p(accuracy, observed, codes, permutations, seed)
    majority = float(np.bincount(codes).max() / len(codes))
    return Test("nearest neighbour", observed, p, done, exact, least, observed, "accuracy", majority)


def hotelling(scores: NDArray, labels: Sequence[object], *, permutations: int = 9999, seed: int = 0) -> Test:
    """Hotelling's T² of two groups on scores (N, k), with its p by permutation: no normality is assumed."""
    x, (codes, count) = np.asarray(scores, dtype=np.float64), _codes(labels, len(scores))
    if count != 2:
        raise ShapeflowError(f"Hotelling's T² compares two groups; the label has {count}")
    if x.shape[1] > len(x) - 3:
        raise ShapeflowError(
            f"Hotelling's T² of {len(x)} subjects takes at most {len(x) - 3} scores; received {x.shape[1]}"
        )

    def t2(c: NDArray) -> float:
        a, b = x[c == 0], x[c == 1]
        within = ((a - a.mean(0)).T @ (a - a.mean(0)) + (b - b.mean(0)).T @ (b - b.mean(0))) / (len(x) - 2)
        difference = a.mean(0) - b.mean(0)
        return float(difference @ np.linalg.solve(within, difference) * len(a) * len(b) / len(x))

    observed = t2(codes)
    p, done, exact, least = permutation_p(t2, observed, codes, permutations, seed)
    a, b = (codes == 0).sum(), (codes == 1).sum()
    return Test(
        "Hotelling T²", observed, p, done, exact, least, math.sqrt(observed * len(x) / (a * b)), "Mahalanobis distance"
    )


def regression(
    gram: NDArray, values: Sequence[float], *, permutations: int = 9999, seed: int = 0, name: str = "regression"
) -> Test:
    """Shape against one measurement: the share of variance (in the metric of `gram`) that its linear effect explains."""
    x = np.asarray(values, dtype=np.float64)
    if x.shape != (len(gram),) or not np.isfinite(x).all():
        raise ShapeflowError(
            f"a regression needs one finite number a subject; received {x.shape} for {len(gram)} subjects"
        )
    x = x - x.mean()
    norm = float(x @ x)
    if norm <= 0:
        raise ShapeflowError("the measurement is the same for every subject: nothing can be regressed on it")
    g = centred(gram)
    total = float(np.trace(g))

    def explained(order: NDArray) -> float:
        y = x[order]
        return float(y @ g @ y) / norm

    observed = explained(np.arange(len(x)))
    p, done, exact, least = permutation_p(explained, observed, np.arange(len(x)), permutations, seed, groups=False)
    f = observed / max((total - observed) / (len(x) - 2), 1e-300)
    return Test(name, f, p, done, exact, least, observed / total)


def permutation_p(
    statistic: Callable[[NDArray], float],
    observed: float,
    codes: NDArray,
    permutations: int,
    seed: int,
    *,
    groups: bool = True,
) -> tuple[float, int, bool, float]:
    """(p, arrangements tried, whether they were all there are, the smallest p there could be).

    With `groups`, codes name groups and the statistic does not care which is called which: groups of one size can be exchanged.
    """
    count = arrangements(codes)
    sizes = np.unique(codes, return_counts=True)[1]
    same = math.prod(math.factorial(int(m)) for m in np.unique(sizes, return_counts=True)[1]) if groups else 1
    # rounding must not make an arrangement that equals the observed one count as smaller
    threshold = observed - 1e-9 * abs(observed)
    if count <= permutations + 1:
        hits = sum(statistic(c) >= threshold for c in _all(codes))
        return hits / count, count, True, same / count
    rng = np.random.default_rng(seed)
    hits = sum(statistic(rng.permutation(codes)) >= threshold for _ in range(permutations))
    return (1 + hits) / (1 + permutations), permutations, False, 1.0 / (1 + permutations)


def arrangements(codes: NDArray) -> int:
    """How many different orders the labels have."""
    result = math.factorial(len(codes))
    for c in np.unique(codes, return_counts=True)[1]:
        result //= math.factorial(int(c))
    return result


def _all(codes: NDArray) -> Iterator[NDArray[np.int64]]:
    """Every different order of the labels, once."""
    n, groups = len(codes), np.unique(codes, return_counts=True)

    def fill(free: tuple[int, ...], left: list[tuple[int, int]], made: NDArray) -> Iterator[NDArray]:
        if not left:
            yield made.copy()
            return
        (value, count), rest = left[0], left[1:]
        for chosen in itertools.combinations(free, count):
            made[list(chosen)] = value
            yield from fill(tuple(i for i in free if i not in chosen), rest, made)

    yield from fill(
        tuple(range(n)), [(int(v), int(c)) for v, c in zip(*groups, strict=True)], np.zeros(n, dtype=np.int64)
    )


def _codes(labels: Sequence[object], n: int) -> tuple[NDArray[np.int64], int]:
    names = [str(v) for v in labels]
    if len(names) != n:
        raise ShapeflowError(f"{len(names)} labels for {n} subjects: one a subject is needed")
    found, codes, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if not 2 <= len(found) < n:
        raise ShapeflowError(
            f"groups are compared when there are two or more, some with several subjects; received {dict(zip(found.tolist(), sizes.tolist(), strict=True))}"
        )
    return codes.astype(np.int64), len(found)
