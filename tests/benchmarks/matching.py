"""Matchings beside Deformetrica's published figures: an evaluation of its objective, evaluations to an objective, its atlas of 17; and normalized
against plain.

    python -m tests.benchmarks.matching --write [--device cpu|cuda] [--parts deformetrica atlas normalized]

SHAPEFLOW_DATA must hold the mandibles. Deformetrica 4.3 was measured apart on the same energy, on two cores of the same kind of CPU: 0.36 s (varifold)
and 0.20 s (current) an evaluation, J = 209.98 after 105 evaluations and 123.60 after 107, 5.4 s an iteration of the atlas; and on an H200: 27 ms
(varifold), 0.41 s. The atlas starts from the template 09_4j, all 17 rigidly aligned on landmarks.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from itertools import cycle
from pathlib import Path

import torch

from shapeflow.atlas.objective import AtlasObjective
from shapeflow.evaluation import landmark_error
from shapeflow.io import read_landmarks, read_shape
from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.normalization import MODES, Normalization
from shapeflow.optimize import minimize
from shapeflow.prepare import Dataset, Limits, Prepare, load_cohort, prepare_cohort
from shapeflow.ragged import Ragged
from shapeflow.shooting import Carried
from tests.benchmarks.timing import ROOT, compare, measure, place, publish, table

OUT = ROOT / "docs" / "benchmarks" / "matching.md"
DEFORMETRICA = {"varifold": (105, 209.98), "current": (107, 123.60)}
SECONDS = {("cpu", "varifold"): 0.36, ("cpu", "current"): 0.20, ("cuda", "varifold"): 0.027}
BESIDE = ("Deformetrica, s", "ratio")
ATLAS_SECONDS = {"cpu": 5.4, "cuda": 0.41}


def spec(attachment: str, dtype: str, device: str, **changes) -> MatchingSpec:
    theirs = {
        "sigma": 1.0, "normalization": "none", "attachment": attachment, "attachment_widths": (0.5,), "attachment_weight": 1 / 0.05**2,
        "gamma": 2.0, "units": "mesh", "control_points": "grid", "control_spacing": 1.0, "integrator": "euler", "steps": 9,
        "memory": 20, "dtype": dtype, "device": device,
    }  # fmt: skip
    return MatchingSpec(**(theirs | changes))


def objective(attachment: str, dtype: str, device: str = "cpu", **changes) -> MatchingObjective:
    pair = Path(os.environ["SHAPEFLOW_DATA"]) / "mandible_pair"
    source, target = (read_shape(pair / f"{name}_1000.vtk") for name in ("src", "tgt"))
    return MatchingObjective([Problem(source, target, spec(attachment, dtype, device, **changes))])


def ready(o: MatchingObjective | AtlasObjective, z: torch.Tensor):
    """A call to time, after the first (which compiles and plans) and the second (which records a CUDA graph).

    Every call is at another point, some per cent from the last as the steps of an optimiser are: at the same point the
    guesses for what is solved would be perfect.
    """
    points = cycle([(1 + f) * z for f in (0.0, 0.02, 0.05, 0.03, -0.01)])
    for _ in range(2):
        o.evaluate(next(points))
    return lambda: o.evaluate(next(points))


def landmarks(o: MatchingObjective, p: torch.Tensor) -> float:
    """Mean distance of the carried landmarks to the target's, mm."""
    pair = Path(os.environ["SHAPEFLOW_DATA"]) / "mandible_pair"
    source, target = (read_landmarks(pair / f"{name}_lmk.txt").points for name in ("src", "tgt"))
    with torch.no_grad():
        shot = o.shoot(p, (Carried(torch.as_tensor(source).to(o.q0), Ragged((0, len(source)))),))
    return landmark_error(shot.carried[-1].double().cpu().numpy(), target)


def deformetrica(device: str) -> str:
    rows = []
    for attachment, (count, value) in DEFORMETRICA.items():
        seconds = SECONDS.get((device, attachment))
        for dtype in ("float32", "float64"):
            o = objective(attachment, dtype, device)
            p = torch.zeros_like(o.q0)
            timing = measure(ready(o, p), 3.0, device=device)
            ends = [minimize(o, p, max_iter=300, max_evaluations=n, tolerance=0.0) for n in (40, 105)]
            ratio = f"{seconds / timing.median:.1f} ×" if seconds else "–"
            found = (*(f"{float(end.value):.1f}" for end in ends), f"{landmarks(o, ends[-1].z):.3f}")
            rows.append((attachment, dtype, timing, seconds or "–", ratio, *found, f"{value} ({count})"))
            print(*rows[-1], sep=" | ", flush=True)
    header = (
        "attachment",
        "dtype",
        "an evaluation",
        *BESIDE,
        "J after 40",
        "J after 105",
        "its landmarks, mm",
        "Deformetrica's J (evaluations)",
    )
    return f"{place(device)} 315 control points, 1,000 vertices.\n\n" + table(header, rows)


def atlas(device: str) -> str:
    """Seconds an iteration of the atlas of 17 mandibles of 1,000 vertices, and of one evaluation of its objective."""
    folder = Path(os.environ["SHAPEFLOW_DATA"]) / "mouse_mandible_dp1tyb"
    data = Dataset(
        name="mandible", path=str(folder), pattern="*.vtk", labels="data.csv", landmarks="{id}.csv", unit="mm"
    )
    with tempfile.TemporaryDirectory() as out:
        prepare_cohort(data, Prepare(n_points=1000, keep_full=False), Path(out), limits=Limits(workers=2))
        cohort = load_cohort(Path(out))
    shapes = list(cohort.shapes)
    template = shapes[list(cohort.subjects).index("09_4j")]
    rows = []
    for dtype in ("float32", "float64"):
        problems = [Problem(template, s, spec("varifold", dtype, device)) for s in shapes]
        o = AtlasObjective(template, shapes, problems, 1.0)
        z = o.start()
        timing = measure(ready(o, z), 3.0, 3, device)
        iterations = 50 if device == "cuda" else 10
        minimize(o, z, max_iter=2, tolerance=0.0)
        began = time.perf_counter()
        minimum = minimize(o, z, max_iter=iterations, tolerance=0.0)
        each = (time.perf_counter() - began) / max(1, minimum.iterations[0])
        value = float(minimum.value[0]) * len(shapes)
        rows.append(
            (dtype, timing, f"{each:.3g} s", ATLAS_SECONDS[device], f"{ATLAS_SECONDS[device] / each:.1f} ×", minimum.iterations[0], f"{value:.0f}")
        )  # fmt: skip
        print(*rows[-1], sep=" | ", flush=True)
    header = ("dtype", "an evaluation", "an iteration", *BESIDE, "iterations", "J summed over subjects")
    return f"{place(device)} 17 subjects, 1,000 vertices, 315 control points.\n\n" + table(header, rows)


def normalized(device: str) -> str:
    """One energy and gradient with momenta on the vertices, ten Ralston steps; modes in turn, so that a ratio is of one moment of the machine."""
    rows = []
    for dtype in ("float32", "float64"):
        calls = {}
        for mode in MODES:
            changes = {
                "control_points": "vertices",
                "normalization": mode,
                "integrator": "ralston",
                "units": "relative",
            }
            o = objective("varifold", dtype, device, steps=10, **changes)
            calls[mode] = ready(o, -1e-3 * o.precondition(o.evaluate(torch.zeros_like(o.q0))[1]))
        times = compare(calls, 6.0, device=device)
        plain, *others = (times[mode] for mode in MODES)
        rows.append((dtype, plain, *(x for t in others for x in (t, f"{t.median / plain.median:.1f} ×"))))
        print(*rows[-1], sep=" | ", flush=True)
    header = ("dtype", MODES[0], *(x for mode in MODES[1:] for x in (mode, f"/ {MODES[0]}")))
    return f"{place(device)} 1,000 vertices; sinkhorn_unrolled takes {Normalization().iterations} steps.\n\n" + table(
        header, rows
    )


PARTS = {
    "deformetrica": ("The objective of Deformetrica", deformetrica),
    "atlas": ("An atlas of 17 mandibles", atlas),
    "normalized": ("Normalized against plain", normalized),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/matching.md")
    arguments = parser.parse_args()
    for name in arguments.parts:
        title, part = PARTS[name]
        text = part(arguments.device)
        publish(OUT, title if arguments.device == "cpu" else f"{title}, on a GPU", text, arguments.write)


if __name__ == "__main__":
    main()
