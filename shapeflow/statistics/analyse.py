"""Everything that is asked of one atlas: momenta and labels in, one frozen analysis out.

What is tested is decided here and not by looking at results: every categorical label is compared between groups, every measurement and the
shapes' size is regressed on, and the p-values of one run are corrected together (Benjamini and Hochberg).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeflow.atlas.tangent import TangentSpace
from shapeflow.errors import ShapeflowError
from shapeflow.shape import Shape
from shapeflow.statistics.classify import Classification, classify
from shapeflow.statistics.maps import DifferenceMap, difference_map, group_means
from shapeflow.statistics.outliers import outlier_table
from shapeflow.statistics.pca import (
    TangentPca,
    components_for,
    generalisation,
    mode_momenta,
    specificity,
    stability,
    tangent_pca,
)
from shapeflow.statistics.permutation import Test, hotelling, neighbours, permanova, regression
from shapeflow.statistics.vectors import squared_distances
from shapeflow.tables import DistanceMatrix, categorical_labels, is_measurement

TEST_COLUMNS = [
    "label",
    "test",
    "statistic",
    "effect",
    "effect_name",
    "reference",
    "p",
    "q",
    "permutations",
    "exact",
    "smallest_p",
]


@dataclass(frozen=True)
class Options:
    """`variance`: share of it that the components used for description hold; `modes` and `steps` (standard deviations) are drawn."""

    components: int = 5
    variance: float = 0.9
    modes: int = 3
    steps: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    permutations: int = 9999
    classifier_permutations: int = 199
    draws: int = 30
    seed: int = 0


@dataclass(frozen=True)
class Analysis:
    subjects: tuple[str, ...]
    labels: pd.DataFrame
    gram: NDArray[np.float64]
    pca: TangentPca
    kept: int  # components that hold `Options.variance`
    modes: tuple[tuple[Shape, ...], ...]  # a shape a step, for each mode
    steps: tuple[float, ...]
    tests: pd.DataFrame
    classifications: dict[str, Classification] = field(default_factory=dict)
    maps: dict[str, DifferenceMap] = field(default_factory=dict)
    means: dict[str, dict[str, Shape]] = field(default_factory=dict)  # of every group of every label
    outliers: pd.DataFrame = field(default_factory=pd.DataFrame)
    sizes: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # centroid size of every reconstruction
    generalisation: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    specificity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    stability: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def analyse(
    space: TangentSpace,
    momenta: NDArray,
    subjects: Sequence[str],
    labels: pd.DataFrame,
    distances: DistanceMatrix | None = None,
    options: Options = Options(),  # noqa: B008  frozen
    landmark_sizes: pd.Series | None = None,
) -> Analysis:
    """`momenta` (N, n, d) of `subjects`; `labels` indexed by subject; `distances` between subjects, when pairs were matched; `landmark_sizes`,
    centroid sizes of their landmarks indexed by subject, when they have some."""
    momenta = np.asarray(momenta, dtype=np.float64)
    subjects = tuple(str(s) for s in subjects)
    if len(subjects) != len(momenta) or len(subjects) < 3:
        raise ShapeflowError(
            f"statistics need three subjects or more with momenta each; received {len(subjects)} subjects and {len(momenta)} momenta"
        )
    labels = labels.reindex(list(subjects))
    gram = space.gram(momenta)
    pca = tangent_pca(gram)
    kept = components_for(pca.explained, options.variance)
    steps = np.asarray(options.steps)
    shown = min(options.modes, len(pca.variance))
    own = space.shapes(momenta)
    sizes = np.array([s.centroid_size() for s in own])
    groups = categorical_labels(labels)
    few = max(1, min(kept, options.components, len(subjects) - 3))
    marked = None if landmark_sizes is None else landmark_sizes.reindex(list(subjects)).to_numpy(dtype=np.float64)
    tests = _tests(gram, labels, groups, sizes, marked, distances, few, options)
    return Analysis(
        subjects=subjects,
        labels=labels,
        gram=gram,
        pca=pca,
        kept=kept,
        modes=tuple(tuple(space.shapes(mode_momenta(pca, momenta, k, steps))) for k in range(shown)),
        steps=tuple(options.steps),
        tests=tests,
        classifications=_classifications(gram, labels, groups, options),
        maps=_maps(space, momenta, labels, groups, own),
        means={
            name: group_means(space, momenta, [None if pd.isna(v) else str(v) for v in labels[name]]) for name in groups
        },
        outliers=outlier_table(gram, subjects),
        sizes=sizes,
        generalisation=generalisation(space, gram, momenta, min(kept, len(subjects) - 2), own),
        specificity=specificity(space, pca, momenta, kept, options.draws, options.seed, own),
        stability=stability(gram, kept, seed=options.seed),
    )


def _tests(
    gram: NDArray,
    labels: pd.DataFrame,
    groups: Sequence[str],
    sizes: NDArray,
    marked: NDArray | None,
    distances: DistanceMatrix | None,
    few: int,
    options: Options,
) -> pd.DataFrame:
    """`sizes` of the reconstructions, `marked` those of landmarks; `few` components go into Hotelling's T²."""
    keys = dict(permutations=options.permutations, seed=options.seed)
    found: list[tuple[str, Test]] = []
    for name in groups:
        known = labels[name].notna().to_numpy()
        values = labels[name][known].astype(str).tolist()
        tangent = np.sqrt(squared_distances(gram[np.ix_(known, known)]))
        np.fill_diagonal(tangent, 0.0)
        found.append((name, replace(permanova(tangent, values, **keys), name="PERMANOVA, momenta")))
        if distances is not None:
            found += [(name, test) for test in _of_distances(distances, labels[name], keys)]
        if len(set(values)) == 2:
            inner = tangent_pca(gram[np.ix_(known, known)], few)
            k = min(few, len(values) - 3)
            found.append(
                (name, replace(hotelling(inner.scores[:, :k], values, **keys), name=f"Hotelling T², {k} components"))
            )
            found.append((name, _size_test(sizes[known], values, "size, Welch t on log")))
            if marked is not None and np.isfinite(marked[known]).all():
                found.append((name, _size_test(marked[known], values, "size of landmarks, Welch t on log")))
    for name in labels.columns:
        if name in groups or not is_measurement(labels[name]):
            continue
        known = labels[name].notna().to_numpy()
        if labels[name][known].nunique() > 2 and known.sum() > 3:
            part = gram[np.ix_(known, known)]
            found.append(
                (
                    str(name),
                    regression(part, labels[name][known].astype(float).tolist(), name="regression of shape", **keys),
                )
            )
    if np.ptp(np.log(sizes)) > 1e-9:
        found.append(("size", regression(gram, np.log(sizes).tolist(), name="allometry: shape on log size", **keys)))
    return _corrected(found)


def distance_tests(distances: DistanceMatrix, labels: pd.DataFrame, options: Options) -> pd.DataFrame:
    """What can be asked without an atlas: the groups of every categorical label in the pairwise distances."""
    keys = dict(permutations=options.permutations, seed=options.seed)
    known = labels.reindex(list(distances.names))
    return _corrected(
        [(name, test) for name in categorical_labels(known) for test in _of_distances(distances, known[name], keys)]
    )


def _of_distances(distances: DistanceMatrix, labels: pd.Series, keys: dict) -> list[Test]:
    both = [s for s, v in labels.dropna().items() if s in distances.names]
    part, values = distances.restricted(both), labels.loc[both].astype(str).tolist()
    if not part.complete or not 2 <= len(set(values)) < len(values):
        return []
    return [
        replace(f(part.values, values, **keys), name=f"{name}, pairwise distances")
        for f, name in ((permanova, "PERMANOVA"), (neighbours, "nearest neighbour"))
    ]


def _size_test(sizes: NDArray, values: list[str], name: str) -> Test:
    """Welch's t on the centroid sizes of two groups; the effect is the relative difference, second group less first."""
    from scipy.stats import ttest_ind

    first, second = sorted(set(values))
    a, b = (np.log(sizes[np.array(values) == g]) for g in (first, second))
    result = ttest_ind(b, a, equal_var=False)
    return Test(
        name,
        float(result.statistic),
        float(result.pvalue),
        0,
        False,
        0.0,
        float(np.exp(b.mean() - a.mean()) - 1.0),
        f"{second} / {first} − 1",
    )


def _corrected(found: list[tuple[str, Test]]) -> pd.DataFrame:
    """The tests as a table, with q: the false discovery rate over all tests of this run."""
    if not found:
        return pd.DataFrame(columns=TEST_COLUMNS)
    from statsmodels.stats.multitest import multipletests

    q = multipletests([t.p for _, t in found], method="fdr_bh")[1]
    rows = [
        [
            label,
            t.name,
            t.statistic,
            t.effect,
            t.effect_name,
            t.reference,
            t.p,
            q[i],
            t.permutations,
            t.exact,
            t.smallest_p,
        ]
        for i, (label, t) in enumerate(found)
    ]
    return pd.DataFrame(rows, columns=TEST_COLUMNS)


def _classifications(gram, labels, groups, options) -> dict[str, Classification]:
    done = {}
    for name in groups:
        known = labels[name].notna().to_numpy()
        part, values = gram[np.ix_(known, known)], labels[name][known].astype(str).tolist()
        done[name] = classify(
            part, values, components=options.components, permutations=options.classifier_permutations, seed=options.seed
        )
    return done


def _maps(space, momenta, labels, groups, own) -> dict[str, DifferenceMap]:
    done = {}
    for name in groups:
        values = labels[name].astype("string")
        found = sorted(values.dropna().unique())
        if len(found) == 2:
            first, second = ((values == g).fillna(False).to_numpy(dtype=bool) for g in found)
            done[name] = difference_map(space, momenta, first, second, (str(found[0]), str(found[1])), own)
    return done
