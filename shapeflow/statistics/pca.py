"""Principal components of momenta in the kernel metric, and how well they describe shapes.

With C the centred Gram matrix, C = U diag(l) Uᵀ. Component k is the momentum direction Σ_s (u_sk / √l_k)(p_s − p̄), of unit length in the
metric; the scores of the subjects on it are u_k √l_k, with variance l_k/(N − 1).

    compactness      share of the variance in the first k components
    generalisation   a subject left out, described by the components of the others: how far off, in mesh units
    specificity      a shape drawn at random from the components: how far from the nearest subject, in mesh units
    stability        how far the space of the first components turns when the subjects are drawn anew: 1 not at all, 0 into another
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapeflow.atlas.tangent import TangentSpace
from shapeflow.errors import ShapeflowError
from shapeflow.shape import Shape
from shapeflow.statistics.vectors import centred, combine, rms_distance


@dataclass(frozen=True)
class TangentPca:
    """`scores` (N, k); `variance` (k,) of the scores; `explained` (k,) shares of the total; `weights` (k, N): component = weights · (p − p̄)."""

    scores: NDArray[np.float64]
    variance: NDArray[np.float64]
    explained: NDArray[np.float64]
    weights: NDArray[np.float64]


def tangent_pca(gram: NDArray, components: int | None = None) -> TangentPca:
    """Components of positive variance, at most N − 1, largest first; each points so that its largest score is positive."""
    n = len(gram)
    if n < 2:
        raise ShapeflowError(f"principal components need two subjects or more; received {n}")
    values, vectors = np.linalg.eigh(centred(gram))
    order = np.argsort(values)[::-1][: n - 1]
    order = order[values[order] > 1e-12 * max(values.max(), 1e-300)][:components]
    l, u = values[order], vectors[:, order]  # noqa: E741  the letter of the equation above
    u = u * np.where(u[np.argmax(np.abs(u), axis=0), np.arange(u.shape[1])] < 0, -1.0, 1.0)
    total = np.clip(values, 0.0, None).sum()
    return TangentPca(u * np.sqrt(l), l / (n - 1), l / total, (u / np.sqrt(l)).T)


def mode_momenta(pca: TangentPca, momenta: NDArray, component: int, steps: NDArray) -> NDArray[np.float64]:
    """p̄ + k·sd·component for every k of `steps`: (len(steps), n, d)."""
    mean = momenta.mean(axis=0)
    direction = combine(pca.weights[component], momenta - mean)[0]
    return mean + np.asarray(steps)[:, None, None] * np.sqrt(pca.variance[component]) * direction


def components_for(explained: NDArray, share: float = 0.9) -> int:
    """How many components hold `share` of the variance."""
    return int(min(np.searchsorted(np.cumsum(explained), share - 1e-12) + 1, len(explained)))


def left_out_momenta(gram: NDArray, momenta: NDArray, components: int) -> NDArray[np.float64]:
    """Every subject as the others' mean and their first components describe it: (N, n, d)."""
    n = len(gram)
    described = np.zeros_like(momenta)
    for i in range(n):
        rest = np.delete(np.arange(n), i)
        inner = gram[np.ix_(rest, rest)]
        pca = tangent_pca(inner, components)
        # ⟨p_i − p̄, p_s − p̄⟩ over the others s, from the Gram matrix alone
        row = gram[i, rest] - gram[i, rest].mean() - inner.mean(axis=0) + inner.mean()
        mean = momenta[rest].mean(axis=0)
        coefficients = pca.weights.T @ (pca.weights @ row)  # (N − 1,)
        described[i] = mean + combine(coefficients, momenta[rest] - mean)[0]
    return described


def generalisation(
    space: TangentSpace, gram: NDArray, momenta: NDArray, components: int, own: list[Shape] | None = None
) -> NDArray[np.float64]:
    """For each subject, the distance (mesh units) between its reconstruction and the one from the other subjects' components.

    `own` are the reconstructions of `momenta`, if they are known already.
    """
    own = own or space.shapes(momenta)
    others = space.shapes(left_out_momenta(gram, momenta, components))
    mu = space.template.masses()
    return np.array([rms_distance(a, b, mu) for a, b in zip(own, others, strict=True)])


def specificity(
    space: TangentSpace,
    pca: TangentPca,
    momenta: NDArray,
    components: int,
    draws: int,
    seed: int,
    own: list[Shape] | None = None,
) -> NDArray[np.float64]:
    """For each of `draws` shapes from the normal law of the first components, the distance (mesh units) to the nearest subject."""
    rng = np.random.default_rng(seed)
    mean = momenta.mean(axis=0)
    scores = rng.normal(size=(draws, components)) * np.sqrt(pca.variance[:components])
    drawn = space.shapes(mean + combine(scores @ pca.weights[:components], momenta - mean))
    own, mu = own or space.shapes(momenta), space.template.masses()
    return np.array([min(rms_distance(a, b, mu) for b in own) for a in drawn])


def stability(gram: NDArray, components: int, draws: int = 100, seed: int = 0) -> NDArray[np.float64]:
    """Bootstrap: for each of `draws` samples of N subjects with replacement, the mean squared cosine of the principal angles between the first
    components of the sample and those of all subjects."""
    n = len(gram)
    centring = np.eye(n) - 1.0 / n
    everyone = tangent_pca(gram, components).weights @ centring  # (k, N) coefficients of the vectors themselves
    rng, shares = np.random.default_rng(seed), []
    while len(shares) < draws:
        sample = rng.integers(n, size=n)
        if len(np.unique(sample)) < 3:
            continue  # of three subjects or four: no plane to compare
        drawn = tangent_pca(gram[np.ix_(sample, sample)], components).weights
        others = np.zeros((len(drawn), n))
        np.add.at(others.T, sample, (drawn @ centring).T)
        cosines = everyone @ gram @ others.T  # components are orthonormal in the metric
        shares.append(float((cosines**2).sum()) / len(everyone))
    return np.array(shares)
