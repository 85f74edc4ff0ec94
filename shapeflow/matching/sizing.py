"""How many matchings fit in memory at once.

Per problem of n momenta, m carried points and c simplices in d dimensions, in numbers of the working precision:

    2d + 2 + d       a field of the tape (q, p; λ, w, v), and as many cotangents and guesses    × fields of the trajectory
    2 d memory       the curvature pairs
    12 (d + 8) c     features of simplices, their sums, gradients and the graph between them
    60 (n + m) d     everything else that lives during an evaluation

and once a source, three times n · min(n, 2500) in double precision for the factor of its preconditioner and what makes it. An estimate from above
within a factor of about two, held against a share of what is free; what it misses is found by running out, and the batch is halved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from shapeflow.integrators import scheme
from shapeflow.matching.energy import Problem
from shapeflow.matching.precondition import EXACT
from shapeflow.memory import available

SHARE = 0.7  # of the memory that is free


def bytes_of(problem: Problem) -> int:
    """Of one matching in a batch, its source's factor apart."""
    spec, d, m = problem.spec, problem.source.points.shape[1], len(problem.source.points)
    n = _momenta(problem)
    carried = 0 if spec.control_points == "vertices" else m
    fields = spec.steps * len(scheme(spec.integrator).b)
    cells = len(problem.source.simplices) + len(problem.target.simplices)
    numbers = 2 * fields * ((3 * d + 4) * n + 2 * d * carried)
    numbers += 2 * d * spec.memory * n + 12 * (d + 8) * cells + 60 * (n + carried) * d
    return numbers * spec.torch_dtype().itemsize


def factor_bytes(problem: Problem) -> int:
    """Of what the problems of one source share."""
    n = _momenta(problem)
    return 3 * 8 * n * min(n, EXACT)


def batches(problems: Sequence[Problem], device: torch.device, limit: int | None = None) -> list[range]:
    """The problems in order, cut into batches that are estimated to fit in `limit` bytes (a share of what is free unless said)."""
    free = available(device)
    limit = limit if limit is not None else None if free is None else int(SHARE * free)
    if limit is None:
        return [range(len(problems))]
    out: list[range] = []
    begin, used, sources = 0, 0, set()
    for b, problem in enumerate(problems):
        key = (id(problem.source), problem.spec.sigma)
        size = bytes_of(problem) + (0 if key in sources else factor_bytes(problem))
        if b > begin and used + size > limit:
            out.append(range(begin, b))
            begin, used, sources = b, 0, set()
            size = bytes_of(problem) + factor_bytes(problem)
        used += size
        sources.add(key)
    return [*out, range(begin, len(problems))]


def _momenta(problem: Problem) -> int:
    """Momenta of a problem: those of a grid are counted from its box."""
    spec, points = problem.spec, problem.source.points
    if spec.control_points == "grid":
        extent = points.max(0) - points.min(0)
        return int((extent / (spec.control_spacing or spec.sigma) + 1).prod())
    if spec.control_points == "subsample":
        return min(len(points), spec.control_count or max(1, len(points) // 4))
    return len(points)
