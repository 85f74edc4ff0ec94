"""Can the group be told from the shape? Leave-one-out, with everything that is fitted fitted inside the fold.

In a fold, principal components of the training subjects' momenta (from their Gram matrix alone), scores divided by the first component's
standard deviation, a linear support vector machine on them. The components know no label, so a permutation of the labels refits the
classifier only. What the folds share is the template, which was estimated from all subjects without their labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapeflow.errors import ShapeflowError
from shapeflow.statistics.permutation import permutation_p


@dataclass(frozen=True)
class Classification:
    """`predicted` of every subject when it was left out; `majority` is the accuracy of always naming the largest group."""

    accuracy: float
    balanced_accuracy: float
    majority: float
    p: float
    permutations: int
    exact: bool
    components: int
    predicted: tuple[str, ...]


def classify(
    gram: NDArray,
    labels: Sequence[object],
    *,
    components: int = 5,
    c: float = 1.0,
    permutations: int = 199,
    seed: int = 0,
) -> Classification:
    """Accuracy of leave-one-out prediction, with the permutation p of the balanced accuracy."""
    truth = np.array([str(v) for v in labels])
    if len(truth) != len(gram):
        raise ShapeflowError(f"{len(truth)} labels for {len(gram)} subjects: one a subject is needed")
    found, counts = np.unique(truth, return_counts=True)
    if len(found) < 2 or counts.min() < 2:
        raise ShapeflowError(
            f"a classification needs two groups of two subjects or more; received {dict(zip(found.tolist(), counts.tolist(), strict=True))}"
        )
    components = min(components, len(truth) - 2)
    folds = [fold_scores(gram, i, components) for i in range(len(truth))]
    codes = np.searchsorted(found, truth)
    predicted = _predict(folds, codes, c)
    balanced = _balanced(predicted, codes)
    p, done, exact, _ = permutation_p(
        lambda y: _balanced(_predict(folds, y, c), y), balanced, codes, permutations, seed
    )
    accuracy, majority = float((predicted == codes).mean()), float(counts.max() / len(truth))
    return Classification(
        accuracy, balanced, majority, p, done, exact, components, tuple(str(v) for v in found[predicted])
    )


def fold_scores(gram: NDArray, left_out: int, components: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the training subjects (N − 1, k) and of the one left out (k,), by components fitted to the former."""
    from sklearn.decomposition import KernelPCA

    rest = np.delete(np.arange(len(gram)), left_out)
    pca = KernelPCA(n_components=components, kernel="precomputed", eigen_solver="dense")
    train = pca.fit_transform(gram[np.ix_(rest, rest)])
    test = pca.transform(gram[[left_out]][:, rest])[0]
    scale = max(float(train[:, 0].std()), 1e-300)
    return train / scale, test / scale


def _predict(folds: list[tuple[NDArray, NDArray]], codes: NDArray, c: float) -> NDArray[np.int64]:
    from sklearn import config_context
    from sklearn.svm import SVC

    predicted = np.empty_like(codes)
    # thousands of tiny fits: the checks would cost more than the fits
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for i, (train, test) in enumerate(folds):
            rest = np.delete(codes, i)
            if (rest == rest[0]).all():  # only possible when a permutation leaves one group in the fold
                predicted[i] = rest[0]
            else:
                predicted[i] = SVC(kernel="linear", C=c).fit(train, rest).predict(test[None])[0]
    return predicted


def _balanced(predicted: NDArray, truth: NDArray) -> float:
    return float(np.mean([(predicted[truth == g] == g).mean() for g in np.unique(truth)]))
