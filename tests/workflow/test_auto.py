"""sigma=auto through Snakemake, on a cohort whose width is known: 0.3, of shapes about as long as the unit."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from .running import TINY, planned, snakemake

AUTO = [
    *TINY, "sigma=auto", "sigma_auto=[0.025,0.25,2]", "dataset.n_subjects=4", "dataset.n_points=40", "dataset.n_landmarks=8",
    "solver.max_iter=30", "attachment.widths=[0.15]", "attachment.units=mesh", "attachment.gamma=0.001", "atlas.enabled=false",
    "report.enabled=true",
]  # fmt: skip


def test_auto_tries_widths_picks_the_true_one_and_the_page_shows_it_first(tmp_path: Path) -> None:
    """A tenth of the true width carries points between landmarks astray, ten times it cannot follow."""
    import re

    snakemake(tmp_path, AUTO)
    study = tmp_path / "results/demo/studies/default"
    sweep, chosen = pd.read_csv(study / "tables" / "sweep.csv"), json.loads((study / "selected.json").read_text())
    assert len(sweep) == 3 and sweep["chosen"].sum() == 1
    row = sweep[sweep["chosen"]].iloc[0]
    assert (
        chosen["run"] == row["run"]
        and chosen["criterion"] == "landmark_error"
        and chosen["value"] == row["landmark_error"]
    )
    assert chosen["sigma"] == sorted(sweep["sigma"])[1] and 0.2 < chosen["sigma"] < 0.45
    page = (study / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'data-run="([^"]+)"', page)[0] == chosen["run"]
    assert planned(tmp_path, AUTO) == {}
