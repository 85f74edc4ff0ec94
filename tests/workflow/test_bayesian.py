"""The Bayesian atlas as a study: beside a deterministic one in the same sweep, on the demo cohort."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from .running import TINY, planned, snakemake

STUDY = [
    *TINY, "sigma=0.4", "match.enabled=false", "report.enabled=true", "dataset.n_subjects=6", "solver.dtype=float64",
    "atlas.model=deterministic,bayesian", "atlas.max_iter=12", "atlas.round_iter=4",
]  # fmt: skip


@pytest.mark.slow
def test_a_bayesian_atlas_beside_a_deterministic_one(tmp_path: Path) -> None:
    snakemake(tmp_path, STUDY)
    runs = {(run / "atlas" / "bayesian.npz").is_file(): run for run in (tmp_path / "results/demo/runs").iterdir()}
    assert set(runs) == {True, False}
    atlas = runs[True] / "atlas"
    history, rows = pd.read_csv(atlas / "history.csv"), pd.read_parquet(atlas / "atlas.parquet")
    assert list(history) == ["iteration", "objective", "noise_std"] and (history["objective"].diff().dropna() < 0).all()
    assert history["noise_std"].nunique() >= 3 and history["noise_std"].iloc[-1] < history["noise_std"].iloc[0]
    with np.load(atlas / "bayesian.npz", allow_pickle=False) as found, np.load(atlas / "momenta.npz") as momenta:
        noise = float(found["noise_std"])
        assert found["factor"].shape == momenta["momenta"].shape and 0 < found["weight"] < 0.01
        # Γ = (ν G⁻¹ + Σ a aᵀ)/(N + ν), a = p/ρR
        scaled = momenta["momenta"] / found["unit"][:, None, None] / np.sqrt(6 * 1.001)
        np.testing.assert_allclose(found["factor"], scaled, rtol=1e-12)
    assert set(rows["noise_std"]) == {noise} == {history["noise_std"].iloc[-1]}
    np.testing.assert_allclose(rows["gamma"], 2 * noise**2)
    plain = pd.read_parquet(runs[False] / "atlas" / "atlas.parquet")
    assert plain["noise_std"].isna().all() and (plain["gamma"] == 0.01).all()
    page = (tmp_path / "results/demo/studies/default/report.html").read_text(encoding="utf-8")
    assert "noise_std" in page
    assert planned(tmp_path, STUDY) == {}
