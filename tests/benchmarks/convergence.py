"""Evaluations, the price of a matching: ours to the objective that SciPy's L-BFGS-B has after 100, and Deformetrica's objective after 40 and 120.

    python -m tests.benchmarks.convergence [--write] [--vertices 500]        (SHAPEFLOW_DATA must hold the mandibles)

SciPy starts cold, on the same energy in double precision, with a memory of 20 pairs (twice its default) and no tolerance; every call of the
energy is counted, ours and its. The pairs are rigidly aligned on their landmarks. Writes docs/benchmarks/convergence.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize as scipy_minimize

from shapeflow.io import read_shape
from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.optimize import Objective, minimize
from shapeflow.shape import Shape
from tests.benchmarks.timing import ROOT, place, publish, table

OUT = ROOT / "docs" / "benchmarks" / "convergence.md"
PAIRS = (("09_4j", "09_4l"), ("07_5c", "13_5d"), ("08_6b", "11_4g"), ("13_5a", "08_6g"))
SPEC = MatchingSpec(sigma=1.0, attachment_widths=(1.0, 0.5), steps=5, dtype="float64", memory=10)
# H of momenta without masses is about as many times larger as a point has neighbours: gamma is smaller by as much, for deformations of the same size
ENERGIES = {
    "none": replace(SPEC, normalization="none", gamma=0.01),
    "sinkhorn": replace(SPEC, gamma=0.1),
    "sinkhorn, cauchy": replace(SPEC, gamma=0.1, kernel="cauchy"),
}


class Counted(Objective):
    """An objective of one problem that keeps the value of every evaluation."""

    def __init__(self, base: MatchingObjective) -> None:
        self.base, self.rows, self.values = base, base.rows, []
        for name in ("noise", "precondition", "learn", "restart", "first_step"):
            setattr(self, name, getattr(base, name))

    def evaluate(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, gradient = self.base.evaluate(z)
        self.values.append(float(value))
        return value, gradient

    def select(self, problems) -> Counted:
        return self

    def best(self) -> np.ndarray:
        return np.minimum.accumulate(self.values)


def scipy_best(objective: MatchingObjective, evaluations: int = 100) -> float:
    """The least value of SciPy's first `evaluations`, from zero.

    With masses it is given p/μ, a velocity: its first step has length one, which would be a momentum that overflows.
    """
    seen: list[float] = []
    unit = objective.metric.masses[:, None] if objective.spec.normalization != "none" else torch.ones_like(objective.q0)

    class Enough(Exception):
        pass

    def f(v: np.ndarray) -> tuple[float, np.ndarray]:
        if len(seen) == evaluations:
            raise Enough
        value, gradient = objective.evaluate(unit * torch.as_tensor(v).view_as(objective.q0))
        seen.append(float(value))
        return seen[-1], (unit * gradient).numpy().ravel()

    try:
        options = {"maxiter": 10**6, "maxfun": 10**6, "ftol": 0.0, "gtol": 0.0, "maxcor": 20}
        scipy_minimize(f, np.zeros(objective.q0.numel()), jac=True, method="L-BFGS-B", options=options)
    except Enough:
        pass
    return min(seen)


def reached(values: np.ndarray, goal: float) -> int | None:
    """Evaluations to a value of at most `goal`."""
    below = np.flatnonzero(values <= goal)
    return int(below[0]) + 1 if len(below) else None


def ours(objective: MatchingObjective, evaluations: int = 100, start: torch.Tensor | None = None):
    counted = Counted(objective)
    begin = torch.zeros_like(objective.q0) if start is None else start
    minimum = minimize(
        counted, begin, max_iter=10**4, max_evaluations=evaluations, tolerance=0.0, memory=objective.spec.memory
    )
    return counted.best(), minimum


def mandibles(vertices: int) -> dict[str, Shape]:
    """Cleaned, aligned on their landmarks and decimated, as a study does it."""
    from shapeflow.prepare import Dataset, Prepare, prepare_cohort

    dataset = Dataset(
        name="mandible", path=str(Path(os.environ["SHAPEFLOW_DATA"]) / "mouse_mandible_dp1tyb"), pattern="*.vtk", labels="data.csv",
        label_id="id", landmarks="{id}.csv",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        prepare_cohort(dataset, Prepare(n_points=vertices, components=0.01, keep_full=False), Path(folder))
        return {name: read_shape(Path(folder) / f"{name}.vtk") for name in {n for pair in PAIRS for n in pair}}


def against_scipy(shapes: dict[str, Shape], vertices: int) -> str:
    rows = []
    for name, spec in ENERGIES.items():
        for source, target in PAIRS:
            problem = [Problem(shapes[source], shapes[target], spec)]
            goal = scipy_best(MatchingObjective(problem))
            values, _ = ours(MatchingObjective(problem))
            start = values[0]
            rows.append(
                (
                    name,
                    f"{source} → {target}",
                    f"{start:.5g}",
                    f"{goal:.5g}",
                    reached(values, goal),
                    f"{values[39]:.5g}",
                    f"{values[-1]:.5g}",
                )
            )
            print(*rows[-1], flush=True)
    header = ("energy", "pair", "at zero", "SciPy after 100", "ours reach it after", "ours after 40", "ours after 100")
    return f"{place()} {vertices} vertices, double precision.\n\n" + table(header, rows)


def deformetrica() -> str:
    from tests.benchmarks.matching import objective

    rows = []
    for attachment, published in {"varifold": "209.98 (105)", "current": "123.60 (107)"}.items():
        base = objective(attachment, "float32")
        began = time.perf_counter()
        base.precondition(torch.zeros_like(base.q0))
        setup = time.perf_counter() - began
        values, _ = ours(base, 120)
        goal = float(published.split()[0])
        rows.append(
            (
                attachment,
                *(f"{values[k - 1]:.1f}" for k in (10, 20, 40, 105, 120)),
                published,
                reached(values, goal),
                f"{setup * 1e3:.0f} ms",
            )
        )
    header = (
        "attachment",
        "J after 10",
        "20",
        "40",
        "105",
        "120",
        "Deformetrica's J (evaluations)",
        "ours reach it after",
        "inverse Hessian, once",
    )
    return f"{place()} mandible_pair, 1,000 vertices, 315 control points, float32.\n\n" + table(header, rows)


def warm(shapes: dict[str, Shape], vertices: int) -> str:
    """Each σ from what was found for its neighbour, against cold: evaluations to within 5 % of the best value known.

    A wider kernel takes the momenta as they are. For a narrower one they would overflow (momenta of smooth velocities grow with the kernel's
    smoothness), so it takes the momenta that give the same velocities at the start.
    """
    rows, energy = [], replace(ENERGIES["sinkhorn"], dtype="float32")
    for pair in PAIRS[:2]:
        cold = {}
        for sigma in (0.5, 1.0, 2.0):
            base = MatchingObjective([Problem(shapes[pair[0]], shapes[pair[1]], replace(energy, sigma=sigma))])
            cold[sigma] = (base, *ours(base, 60))
        for before, after in ((0.5, 1.0), (1.0, 2.0), (2.0, 1.0), (1.0, 0.5)):
            (base, _, found), (other, values, _) = cold[before], cold[after]
            start = found.z if before < after else _same_velocity(base, found.z, other)
            warmed, _ = ours(other, 60, start)
            goal = 1.05 * min(values[-1], warmed[-1])
            share = f"{warmed[0] / values[0]:.2f}"
            rows.append((f"{pair[0]} → {pair[1]}", before, after, share, reached(values, goal), reached(warmed, goal)))
            print(*rows[-1], flush=True)
    header = ("pair", "σ before, mm", "σ", "value at the start, of that at zero", "evaluations cold", "warm")
    return f"{place()} {vertices} vertices, sinkhorn, float32, 60 evaluations each.\n\n" + table(header, rows)


def _same_velocity(base: MatchingObjective, p: torch.Tensor, other: MatchingObjective) -> torch.Tensor:
    hessian = other.hessian()
    hessian.restart()
    hessian.kappa.fill_(2.0**40)  # the inverse metric alone
    return hessian(base.metric.velocity(base.q0, base.rows, base.q0, p))


def widths(shapes: dict[str, Shape], vertices: int) -> str:
    """The first evaluations with a wider attachment, against none: evaluations in all, to within 10 % and 3 % of the best value known."""
    rows = []
    for narrow in ((1.0, 0.5), (0.25,)):
        for pair in PAIRS[:2]:
            spec = replace(ENERGIES["sinkhorn"], dtype="float32", attachment_widths=narrow)
            make = lambda spec, pair=pair: MatchingObjective([Problem(shapes[pair[0]], shapes[pair[1]], spec)])  # noqa: E731
            runs = {"none": ours(make(spec), 60)[0]}
            for factor, count in ((2, 6), (4, 6)):
                wide = ours(make(replace(spec, attachment_widths=tuple(factor * w for w in narrow))), count)[1]
                runs[f"{count} at {factor} ×"] = np.concatenate(
                    [[np.inf] * count, ours(make(spec), 60 - count, wide.z)[0]]
                )
            best = min(values[-1] for values in runs.values())
            for name, values in runs.items():
                counts = (reached(values, 1.1 * best) or "> 60", reached(values, 1.03 * best) or "> 60")
                rows.append((narrow, f"{pair[0]} → {pair[1]}", name, *counts, f"{values[-1]:.5g}"))
                print(*rows[-1], flush=True)
    header = ("widths, mm", "pair", "wider at first", "evaluations to 10 %", "to 3 %", "value after 60")
    return f"{place()} {vertices} vertices, sinkhorn, float32.\n\n" + table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vertices", type=int, default=500)
    parser.add_argument("--only", choices=("scipy", "deformetrica", "warm", "widths"), default=None)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/convergence.md")
    arguments = parser.parse_args()
    shapes = {} if arguments.only == "deformetrica" else mandibles(arguments.vertices)
    parts = {
        "scipy": ("Against SciPy's L-BFGS-B", lambda: against_scipy(shapes, arguments.vertices)),
        "deformetrica": ("Deformetrica's objective", deformetrica),
        "warm": ("Warm starts across σ", lambda: warm(shapes, arguments.vertices)),
        "widths": ("Coarse to fine in the attachment's width", lambda: widths(shapes, arguments.vertices)),
    }
    for name, (title, part) in parts.items():
        if arguments.only in (None, name):
            text = part()
            publish(OUT, title, text, arguments.write)


if __name__ == "__main__":
    main()
