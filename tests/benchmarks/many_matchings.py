"""All pairs of a cohort at once: 100 demo surfaces of 1,000 vertices are 4,950 matchings of ten steps, each to convergence.

    python -m tests.benchmarks.many_matchings [--write] [--device cpu|cuda] [--subjects 100] [--vertices 1000] [--modes none sinkhorn]

Solver seconds are those of `shapeflow.match`: batching, every evaluation and line search, and the last shot with its Jacobians. Pairs a second count
the kernel evaluations of a plain Hamiltonian, (2 × fields × n² + 2 × triangles²) an evaluation, whatever the mode. Writes docs/benchmarks/many.md.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from itertools import combinations

import numpy as np
import torch

from shapeflow.demo.templates import chart, embed
from shapeflow.matching import MatchingSpec, match
from shapeflow.shape import Shape
from tests.benchmarks.timing import ROOT, place, publish, table

OUT = ROOT / "docs" / "benchmarks" / "many.md"
STEPS = 10


def cohort(count: int, vertices: int, seed: int = 0) -> list[Shape]:
    """The demo's closed template under smooth random deformations of about a tenth of its length."""
    chart_points, triangles = chart("closed", vertices)
    template = embed("closed", chart_points)
    rng, shapes = np.random.default_rng(seed), []
    for _ in range(count):
        centres = template[rng.integers(0, len(template), 6)]
        pushes = 0.06 * rng.standard_normal((6, 3))
        square = ((template[:, None] - centres) ** 2).sum(2)
        shapes.append(Shape(template + np.exp(-square / 0.3**2) @ pushes, triangles))
    return shapes


def run(shapes: list[Shape], mode: str, device: str, max_iter: int, tolerance: float) -> tuple:
    spec = MatchingSpec(
        sigma=0.3, normalization=mode, attachment="varifold", attachment_widths=(0.2,), gamma=0.01, integrator="ralston", steps=STEPS,
        dtype="float32", device=device, max_iter=max_iter, tolerance=tolerance,
    )  # fmt: skip
    pairs = list(combinations(shapes, 2))
    # what is compiled, and the allocator's first requests, are not the solver's
    match([pairs[0][0]] * 2, [pairs[0][1]] * 2, MatchingSpec(**{**vars(spec), "max_iter": 2}))
    began = time.perf_counter()
    result = match([a for a, _ in pairs], [b for _, b in pairs], spec)
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    rows = result.rows
    evaluations = np.array([row["evaluations"] for row in rows])
    n, cells = len(shapes[0].points), len(shapes[0].simplices)
    kernels = float(evaluations.sum()) * (2 * 2 * STEPS * n * n + 2 * cells * cells)
    left = np.median([row["attachment"] / (row["attachment"] + row["hamiltonian"]) for row in rows])
    status = ", ".join(f"{count} {name}" for name, count in Counter(row["status"] for row in rows).most_common())
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else "–"
    row = (
        mode, len(pairs), f"{seconds:.1f} s", f"{evaluations.mean():.1f} ({evaluations.min()}–{evaluations.max()})", f"{kernels / seconds:.2e}", status,
        f"{min(row['jacobian_min'] for row in rows):.2f}", f"{rows[0].get('batch', len(pairs))}", rows[0].get("replay", ""), memory,
    )  # fmt: skip
    print(*row, f"median share of the attachment {left:.3f}", sep=" | ", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--subjects", type=int, default=100)
    parser.add_argument("--vertices", type=int, default=1000)
    parser.add_argument("--modes", nargs="*", default=["none", "sinkhorn"])
    parser.add_argument("--max-iter", type=int, default=100)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative decrease that counts as converged")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/many.md")
    arguments = parser.parse_args()
    shapes = cohort(arguments.subjects, arguments.vertices)
    found = [run(shapes, mode, arguments.device, arguments.max_iter, arguments.tolerance) for mode in arguments.modes]
    header = (
        "normalization", "matchings", "solver", "evaluations (least–most)", "pairs/s", "status", "smallest Jacobian", "batch", "evaluation", "memory",
    )  # fmt: skip
    size = f"{arguments.subjects} surfaces of {len(shapes[0].points)} vertices, {len(shapes[0].simplices)} triangles"
    text = f"{place(arguments.device)} {size}, {STEPS} Ralston steps, float32, tolerance {arguments.tolerance:g}.\n\n{table(header, found)}"
    publish(
        OUT, f"All pairs of {arguments.subjects} surfaces of {len(shapes[0].points)} vertices", text, arguments.write
    )


if __name__ == "__main__":
    main()
