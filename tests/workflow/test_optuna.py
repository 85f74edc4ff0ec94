"""Values that Optuna proposes: each batch of trials is one Snakemake DAG, and what it minimises is what the tables say."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import yaml

from .running import TINY, run_ids, shapeflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("optuna") is None, reason='Optuna is not installed: pip install "shapeflow[optuna]"'),
]


def test_trials_run_through_snakemake_and_the_smallest_objective_is_best(tmp_path: Path) -> None:
    shapeflow(
        tmp_path,
        "-m",
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.sampler.seed=1",
        "hydra.sweeper.params.sigma='interval(0.1,0.8)'",
        "hydra.launcher.cores=2",
        "atlas.enabled=false",
        *TINY,
    )
    sweep = pd.read_csv(tmp_path / "results/demo/studies/default/tables/sweep.csv")
    assert set(sweep.run) == run_ids(tmp_path) and len(sweep) == 4, "the tables hold the trials of both batches"
    assert sweep.sigma.between(0.1, 0.8).all() and sweep.sigma.nunique() == 4
    assert len(list((tmp_path / ".snakemake/log").glob("*.snakemake.log"))) == 2, "two trials are one DAG"
    (path,) = tmp_path.rglob("optimization_results.yaml")
    best = yaml.safe_load(path.read_text(encoding="utf-8"))
    chosen = sweep.loc[sweep.surface_mean.idxmin()]
    assert best["best_value"] == pytest.approx(chosen.surface_mean, rel=1e-12)
    assert best["best_params"]["sigma"] == pytest.approx(chosen.sigma, rel=1e-12)
