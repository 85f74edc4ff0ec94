"""A published study, from its data: mouse mandibles, Dp1Tyb against wild type (Toussaint et al., Development 2021)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from shapeflow.io import read_landmarks
from shapeflow.statistics import classify, permanova

FOLDER = Path(os.environ.get("SHAPEFLOW_DATA", "")) / "mouse_mandible_dp1tyb"
pytestmark = pytest.mark.skipif(
    not os.environ.get("SHAPEFLOW_DATA") or not FOLDER.is_dir(),
    reason="needs SHAPEFLOW_DATA with mouse_mandible_dp1tyb",
)


@pytest.fixture(scope="module")
def carriers() -> pd.Series:
    table = pd.read_csv(FOLDER / "data.csv", dtype={"id": str}).set_index("id")
    return table["GroupId"] == 1


def test_carriers_are_smaller_by_their_landmarks(carriers):
    """Centroid size 4.204 against 4.502 mm, 6.6 % smaller, p = 1.8e-6."""
    sizes = []
    for name in carriers.index:
        x = read_landmarks(FOLDER / f"{name}.csv").points
        sizes.append(np.sqrt(((x - x.mean(0)) ** 2).sum(axis=1).mean()))
    sizes = np.array(sizes)
    a, b = sizes[carriers], sizes[~carriers]
    scale = 4.204 / a.mean()  # the paper's centroid size is a sum, ours a mean over landmarks: the ratio is the finding
    assert scale * b.mean() == pytest.approx(4.502, abs=0.01)
    assert a.mean() / b.mean() - 1 == pytest.approx(-0.066, abs=0.002)
    assert ttest_ind(a, b).pvalue == pytest.approx(1.8e-6, rel=0.3)


@pytest.mark.parametrize(("atlas", "least"), [("atlas-rigid", 17), ("atlas-simil", 16)])
def test_published_momenta_tell_the_genotype(carriers, atlas, least):
    """Leave-one-out, five components fitted in the fold: 17 of 17 after rigid, 16 of 17 after similarity alignment. The published momenta
    live on control points spaced by the kernel's width, so their plain inner product stands in for the metric's, as in the paper."""
    lines = (FOLDER / atlas / "Atlas_Momentas.txt").read_text().splitlines()
    count, controls, d = map(int, lines[0].split())
    momenta = np.array([[float(v) for v in line.split()] for line in lines[1:] if line.strip()]).reshape(
        count, controls * d
    )
    gram = momenta @ momenta.T
    found = classify(gram, carriers.tolist(), components=5, permutations=39)
    assert round(found.accuracy * 17) >= least and found.p == pytest.approx(1 / 40)
    square = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
    distances = np.sqrt(np.clip(0.5 * (square + square.T), 0, None))
    np.fill_diagonal(distances, 0.0)
    assert permanova(distances, carriers.tolist(), permutations=199).p <= 0.01
