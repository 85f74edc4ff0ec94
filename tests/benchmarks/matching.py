"""Matchings on a CPU: one evaluation against Deformetrica's published objective, normalized against plain, and evaluations to an objective.

    python -m tests.benchmarks.matching --write        (SHAPEFLOW_DATA must hold mandible_pair)

Deformetrica 4.3 was measured apart, on two cores of the same kind of machine, on the same energy: 0.36 s (varifold) and 0.20 s (current) an
evaluation; J = 209.98 after 105 evaluations and 123.60 after 107.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from shapeflow.io import read_shape
from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.optimize import minimize
from tests.benchmarks.timing import ROOT, measure, place, section, table

OUT = ROOT / "docs" / "benchmarks" / "matching.md"
DEFORMETRICA = {"varifold": (0.36, 105, 209.98), "current": (0.20, 107, 123.60)}


def objective(attachment: str, dtype: str, **changes) -> MatchingObjective:
    pair = Path(os.environ["SHAPEFLOW_DATA"]) / "mandible_pair"
    source, target = (read_shape(pair / f"{name}_1000.vtk") for name in ("src", "tgt"))
    theirs = {
        "sigma": 1.0, "normalization": "none", "attachment": attachment, "attachment_widths": (0.5,), "attachment_weight": 1 / 0.05**2,
        "gamma": 2.0, "units": "mesh", "control_points": "grid", "control_spacing": 1.0, "integrator": "euler", "steps": 9,
        "memory": 20, "dtype": dtype,
    }  # fmt: skip
    return MatchingObjective([Problem(source, target, MatchingSpec(**(theirs | changes)))])


def deformetrica() -> str:
    rows = []
    for attachment, (seconds, count, value) in DEFORMETRICA.items():
        for dtype in ("float32", "float64"):
            o = objective(attachment, dtype)
            p = torch.zeros_like(o.q0)
            timing = measure(lambda o=o, p=p: o.evaluate(p), 3.0)
            reached = [float(minimize(o, p, max_iter=300, max_evaluations=n, tolerance=0.0).value) for n in (40, 105)]
            ratio = f"{seconds / timing.median:.1f} ×"
            rows.append(
                (attachment, dtype, timing, seconds, ratio, *(f"{j:.1f}" for j in reached), f"{value} ({count})")
            )
    header = (
        "attachment",
        "dtype",
        "an evaluation",
        "Deformetrica, s",
        "ratio",
        "J after 40",
        "J after 105",
        "Deformetrica's J (evaluations)",
    )
    return f"{place()} 315 control points, 1,000 vertices.\n\n" + table(header, rows)


def normalized() -> str:
    """One energy and gradient with momenta on the vertices, ten Ralston steps."""
    rows = []
    for dtype in ("float32", "float64"):
        times = {}
        for mode in ("none", "sinkhorn", "one_step"):
            o = objective(
                "varifold",
                dtype,
                control_points="vertices",
                normalization=mode,
                integrator="ralston",
                steps=10,
                units="relative",
            )
            p = -1e-3 * o.precondition(o.evaluate(torch.zeros_like(o.q0))[1])
            times[mode] = measure(lambda o=o, p=p: o.evaluate(p), 3.0)
        plain = times["none"].median
        rows.append(
            (
                dtype,
                times["none"],
                *(x for m in ("sinkhorn", "one_step") for x in (times[m], f"{times[m].median / plain:.1f} ×")),
            )
        )
    return f"{place()} 1,000 vertices.\n\n" + table(("dtype", "none", "sinkhorn", "/ none", "one_step", "/ none"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/matching.md")
    arguments = parser.parse_args()
    for title, part in (("The objective of Deformetrica", deformetrica), ("Normalized against plain", normalized)):
        text = part()
        print(f"\n## {title}\n\n{text}")
        if arguments.write:
            section(OUT, title, text)


if __name__ == "__main__":
    main()
