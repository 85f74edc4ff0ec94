"""A small finished study, written by hand: run folders as the workflow leaves them, without waiting for an optimiser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from shapeflow.demo import DemoSpec, Truth, generate, load_truth
from shapeflow.demo.flow import velocity
from shapeflow.io import write_shape
from shapeflow.shape import Shape
from shapeflow.tables import distances_table, write_parquet


def write_study(root: Path, spec: DemoSpec, kernels=("gaussian", "cauchy"), sigmas=(0.2, 0.4)) -> list[Path]:
    """`root/runs/<id>` for every kernel and width; momenta and distances are the demo's truth, disturbed a little by the run."""
    truth = load_truth(generate(spec, root / "meshes") / "truth.npz")
    return [
        _write_run(root / "runs", truth, kernel, sigma, k)
        for k, (kernel, sigma) in enumerate((a, b) for a in kernels for b in sigmas)
    ]


def _write_run(runs: Path, truth: Truth, kernel: str, sigma: float, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    run = runs / f"{kernel}-s{sigma:g}-none-{seed:08d}"
    q, n = truth.points, len(truth.subjects)
    momenta = truth.momenta + 0.02 * np.abs(truth.momenta).mean() * rng.normal(size=truth.momenta.shape)
    shared = {
        "run": run.name, "kernel": kernel, "sigma": sigma, "normalization": "none", "gamma": 0.01, "iterations": 12, "evaluations": 15,
        "status": "converged", "seconds": 0.4, "device": "cpu", "backend": "torch", "versions": "shapeflow 0.1",
    }  # fmt: skip
    rows, labels = (
        [],
        [
            dict(group=g, density=k, covariate=c)
            for g, k, c in zip(truth.group, truth.density, truth.covariate, strict=True)
        ],
    )
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            p = momenta[j] - momenta[i]
            energy = 0.5 * float((p * velocity(q, q, p, truth.sigma)).sum()) * (1.02 if i < j else 0.98)
            rows.append({
                "source": truth.subjects[i], "target": truth.subjects[j], **{f"source_{k}": v for k, v in labels[i].items()},
                **{f"target_{k}": v for k, v in labels[j].items()}, **shared, **_measures(energy, sigma, rng),
            })  # fmt: skip
    matching = pd.DataFrame(rows)
    write_parquet(matching, run / "matching.parquet")
    write_parquet(distances_table(matching), run / "distances.parquet")
    write_shape(run / "atlas" / "template.vtk", Shape(q, truth.simplices))
    energies = [0.5 * float((p * velocity(q, q, p, truth.sigma)).sum()) for p in momenta]
    atlas = [
        {"subject": s, **labels[i], **shared, **_measures(energies[i], sigma, rng)}
        for i, s in enumerate(truth.subjects)
    ]
    write_parquet(pd.DataFrame(atlas), run / "atlas" / "atlas.parquet")
    steps = np.arange(12)
    history = pd.DataFrame(
        {"iteration": steps, "objective": 2.0 * np.exp(-steps / 3) + 0.1, "gradient_norm": np.exp(-steps / 2.0)}
    )
    write_parquet(history, run / "atlas" / "history.parquet")
    np.savez(run / "atlas" / "momenta.npz", momenta=momenta, points=q, subjects=np.array(truth.subjects))
    (run / "config.yaml").write_text(f"kernel: {kernel}\nsigma: {sigma}\n")
    return run


def _measures(energy: float, sigma: float, rng: np.random.Generator) -> dict:
    return {
        "hamiltonian": energy, "attachment": 0.001, "objective": 0.01 * energy + 0.001, "distance": float(np.sqrt(2 * energy)),
        "surface_mean": 0.01 * (1 + sigma), "surface_p95": 0.03 * (1 + sigma), "surface_mean_before": 0.06, "jacobian_min": 0.6 + sigma / 4,
        "landmark_error": 0.02 * (1 + abs(sigma - 0.3)) * float(rng.uniform(0.98, 1.02)), "landmark_error_before": 0.08,
    }  # fmt: skip
