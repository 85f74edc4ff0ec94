"""Trajectories, shot momenta and transported ones, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from shapeflow.report.view import Finding, Mode
from shapeflow.tables import read_table


def load_geodesic(folder: Path) -> Mode:
    """The shapes of `runs/<run>/geodesic/<item>` as frames to move through."""
    with np.load(folder / "frames.npz", allow_pickle=False) as saved:
        return Mode(str(saved["title"]), tuple(saved["steps"].tolist()), tuple(saved["frames"]), str(saved["unit"]))


def geodesic_findings(folders: Sequence[Path]) -> tuple[Finding, ...]:
    if not folders:
        return ()
    rows = pd.DataFrame([read_table(folder / "summary.csv").iloc[0] for folder in folders])
    sentences = [
        f"Along {r.what} ({r.mean:.3g} ± {r.deviation:.3g}, {r.subjects:.0f} subjects) one geodesic explains {100 * r.explained:.0f} % of what "
        f"the mean shape leaves of the attachment; no test says whether that is more than chance, the regression in the table of tests does."
        for r in rows[rows["tool"] == "regression"].itertuples()
    ]
    text = " ".join(
        [*sentences, "Choose one as the mode of the template to see it move; lengths are in the kernel metric."]
    )
    shown = rows[[c for c in ("tool", "what", "along", "length", "explained", "status") if c in rows]]
    return (Finding("Geodesics", text, shown.reset_index(drop=True)),)
