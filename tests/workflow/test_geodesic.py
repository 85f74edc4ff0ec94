"""The geodesic tools through Snakemake: asked for in the configuration, made once, shown on the page, refused before the first job."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapeflow.io import read_shape

from .running import TINY, planned, snakemake

ASKED = [
    *TINY, "sigma=0.3", "dataset.n_subjects=4", "solver.control_points=subsample", "solver.control_count=12", "match.enabled=false", "report.enabled=true",
    "geodesic.regression=[covariate]", "geodesic.shoot=[group,subject01]", "geodesic.transport=[[group,subject01]]", "geodesic.times=[-1,0,1]",
    "geodesic.max_iter=5",
]  # fmt: skip
ITEMS = {"regression-covariate", "shoot-group", "shoot-subject01", "transport-group-along-subject01"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("geodesic")
    snakemake(folder, ASKED)
    return folder


def test_every_tool_leaves_shapes_and_a_row(study: Path) -> None:
    (run,) = study.glob("results/demo/runs/*")
    assert {p.name for p in (run / "geodesic").iterdir()} == ITEMS
    atlas = read_shape(run / "atlas" / "template.vtk")
    rows = {name: pd.read_csv(run / "geodesic" / name / "summary.csv").iloc[0] for name in ITEMS}
    for name in ITEMS:
        folder = run / "geodesic" / name
        ends = [read_shape(folder / f"shape_{t}.vtk").points for t in ("-1", "+0", "+1")]
        assert all(e.shape == atlas.points.shape and np.isfinite(e).all() for e in ends)
        assert np.linalg.norm(ends[2] - ends[1], axis=1).max() > 1e-4, "the momentum moves the shape"
        assert read_shape(folder / "momentum.vtk").points.shape == (12, 2) and rows[name]["length"] > 0
    # what is shot as subject 1 is subject 1, and the difference of the groups is that of their means
    shot = read_shape(run / "geodesic/shoot-subject01/shape_+1.vtk").points
    np.testing.assert_allclose(shot, read_shape(run / "atlas/reconstructions/subject01.vtk").points, atol=1e-5)
    with np.load(run / "atlas/momenta.npz") as saved:
        p = dict(zip(saved["subjects"].tolist(), saved["momenta"], strict=True))
    labels = pd.read_csv(next(study.glob("results/demo/raw/*/labels.csv"))).set_index("subject")["group"]
    case, control = (np.mean([p[s] for s in p if labels[s] == g], axis=0) for g in ("case", "control"))
    difference = read_shape(run / "geodesic/shoot-group/momentum.vtk").point_data["momentum"]
    np.testing.assert_allclose(difference, control - case, atol=1e-6)
    # a transport starts where the geodesic ends, and keeps lengths
    moved = rows["transport-group-along-subject01"]
    assert moved["along"] == "subject01" and moved["length"] == pytest.approx(moved["length_before"], rel=1e-2)
    np.testing.assert_allclose(
        read_shape(run / "geodesic/transport-group-along-subject01/shape_+0.vtk").points, shot, atol=1e-5
    )
    trajectory = rows["regression-covariate"]
    assert trajectory["subjects"] == 4 and 0 < trajectory["explained"] < 1


def test_the_page_shows_them(study: Path) -> None:
    (page,) = study.glob("results/demo/studies/*/report.html")
    text = page.read_text(encoding="utf-8")
    assert (
        "Along covariate (" in text
        and "standard deviations of covariate" in text
        and "group: control less case, on subject01" in text
    )


def test_they_are_made_once_and_no_other_result_depends_on_them(study: Path) -> None:
    assert planned(study, ASKED) == {}
    more = [
        w.replace("[group,subject01]", "[group,subject01,subject02]") if w.startswith("geodesic.shoot") else w
        for w in ASKED
    ]
    assert planned(study, more) == {"shoot": 1, "study": 1, "tables": 1, "report": 1, "all": 1}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("geodesic.regression=[age]", "no label; the labels are group, density, covariate"),
        ("geodesic.shoot=[nobody]", "geodesic.shoot names 'nobody': write a subject (subject01"),
        ("geodesic.transport=[[subject01,nobody]]", "geodesic.transport names 'nobody'"),
        ("atlas.enabled=false", "works on the atlas"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_job(wrong: str, says: str) -> None:
    from shapeflow.config.plan import make
    from shapeflow.errors import ConfigError

    key = wrong.split("=")[0]
    with pytest.raises(ConfigError, match=re.escape(says)):
        make([*(w for w in ASKED if not w.startswith((key, "match.enabled"))), wrong])
