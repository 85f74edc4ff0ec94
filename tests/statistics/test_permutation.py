"""Tests by permutation, against classical tests where those are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import f_oneway, linregress, ttest_ind

from shapeflow.errors import ShapeflowError
from shapeflow.statistics import hotelling, neighbours, permanova, regression
from shapeflow.statistics.permutation import _all, arrangements


def test_permanova_of_numbers_is_the_analysis_of_variance():
    rng = np.random.default_rng(1)
    groups = list("aaaaaaaaabbbbbbbbbbcccccc")
    x = rng.normal(size=25) + np.array([{"a": 0.0, "b": 0.4, "c": 1.0}[g] for g in groups])
    test = permanova(np.abs(x[:, None] - x[None]), groups, permutations=2000)
    anova = f_oneway(*[x[[h == g for h in groups]] for g in "abc"])
    assert test.statistic == pytest.approx(anova.statistic)
    assert test.p == pytest.approx(
        anova.pvalue, abs=0.03
    )  # 2000 draws: 0.01 of noise, and the data are not exactly normal


def test_p_is_uniform_when_labels_mean_nothing():
    """The level is held: of 200 null data sets about 5 % have p ≤ 0.05 (binomial, so at most 10 % with probability above 0.999)."""
    rng = np.random.default_rng(2)
    hits = 0
    for k in range(200):
        x = rng.normal(size=(8, 3))
        hits += permanova(cdist(x, x), list("aaaabbbb"), permutations=99, seed=k).p <= 0.05
    assert hits <= 20


def test_few_arrangements_are_all_tried():
    x = np.array([0.0, 0.1, 0.2, 9.0, 9.1, 9.3])
    test = permanova(np.abs(x[:, None] - x[None]), list("aaabbb"))
    assert (
        test.exact
        and test.permutations == 20
        and test.p == pytest.approx(2 / 20)
        and test.smallest_p == pytest.approx(2 / 20)
    )
    assert permanova(np.abs(x[:5, None] - x[None, :5]), list("aaabb")).p == pytest.approx(1 / 10)
    codes = np.array([0, 0, 1, 1, 2])
    found = [tuple(c) for c in _all(codes)]
    assert len(found) == len(set(found)) == arrangements(codes) == 30
    assert set(found) == set(itertools.permutations(codes.tolist()))


def test_same_seed_same_p():
    x = np.random.default_rng(3).normal(size=(14, 2))
    a, b = (permanova(cdist(x, x), list("ab" * 7), permutations=200, seed=5) for _ in range(2))
    assert a == b and not a.exact and a.smallest_p == pytest.approx(1 / 201)


def test_hotelling_of_one_score_is_students_t_squared():
    x = np.random.default_rng(4).normal(size=(9, 1)) + np.array([[0.0]] * 4 + [[1.5]] * 5)
    labels = list("aaaabbbbb")
    t = ttest_ind(x[:4, 0], x[4:, 0]).statistic
    test = hotelling(x, labels, permutations=200)
    assert test.statistic == pytest.approx(t**2)
    shear = np.array([[2.0, 1.0], [0.0, 3.0]])
    y = np.random.default_rng(5).normal(size=(9, 2))
    assert hotelling(y, labels, permutations=10).statistic == pytest.approx(
        hotelling(y @ shear + 7.0, labels, permutations=10).statistic
    )
    with pytest.raises(ShapeflowError, match="two groups"):
        hotelling(x, list("aaabbbccc"))
    with pytest.raises(ShapeflowError, match="at most 6 scores"):
        hotelling(np.zeros((9, 7)), labels)


def test_regression_of_numbers_is_the_coefficient_of_determination():
    rng = np.random.default_rng(6)
    age = rng.normal(size=12)
    x = 0.8 * age + rng.normal(size=12)
    test = regression(np.outer(x, x), age.tolist(), permutations=3000)
    fit = linregress(age, x)
    assert test.effect == pytest.approx(fit.rvalue**2)
    assert test.p == pytest.approx(fit.pvalue, abs=0.02)


def test_neighbours_of_two_clusters_are_all_of_one_label():
    x = np.array([0.0, 0.1, 0.2, 9.0, 9.1, 9.3])
    d = np.abs(x[:, None] - x[None])
    test = neighbours(d, list("aaabbb"))
    assert test.statistic == 1.0 and test.p == pytest.approx(2 / 20)
    assert neighbours(d, list("ababab")).p > 0.5
    assert test.reference == 0.5 and neighbours(d, list("aaaaab")).reference == pytest.approx(5 / 6)


def test_questions_without_an_answer_are_refused():
    d = np.ones((4, 4)) - np.eye(4)
    for labels, message in (
        (list("aaaa"), "two or more"),
        (list("abcd"), "several subjects"),
        (list("ab"), "2 labels for 4"),
    ):
        with pytest.raises(ShapeflowError, match=message):
            permanova(d, labels)
    with pytest.raises(ShapeflowError, match="distance zero"):
        permanova(np.zeros((4, 4)), list("aabb"))
    with pytest.raises(ShapeflowError, match="same for every subject"):
        regression(np.eye(3), [1.0, 1.0, 1.0])
