"""CUDA kernels against PyKeOps and torch tiles, side by side in one run: `python -m tests.benchmarks.ops_cuda [--write]`.

Writes docs/benchmarks/cuda.md.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("PYKEOPS_VERBOSE", "0")

import torch

from shapeflow.ops.backends import cuda, native_cpu, tiled
from shapeflow.ops.compile.launch import architecture
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged
from tests.benchmarks.ops_problems import WORK, Points, backend_call, keops_call
from tests.benchmarks.timing import ROOT, compare, measure, place, publish, relative_error, table

SIZES = (1_000, 4_000, 16_000, 100_000, 400_000)
TILES_UP_TO, ERROR_ROWS = 16_000, 2_000
RECORDED = 10  # calls in a CUDA graph: a recorded evaluation holds a hundred, and launching a graph costs the host more than a short call takes
DOCUMENT = ROOT / "docs" / "benchmarks" / "cuda.md"


def against(work: str, keops: bool) -> str:
    rows = []
    for n in SIZES:
        t = Points.random(n, device="cuda")
        ours = backend_call(cuda, work, t)
        calls = {"native": ours, "graph": _graph(ours)}
        if keops:
            calls["keops"] = keops_call(work, t)
        if n <= TILES_UP_TO:
            calls["tiles"] = backend_call(tiled, work, t)
        times = compare(calls, 0.5, 3, "cuda")
        times["graph"] = times["graph"].shared(RECORDED)
        mine, theirs, tiles = times["native"], times.get("keops"), times.get("tiles")
        fastest = min(mine.median, times["graph"].median)
        keops_error = f"{_error(work, calls['keops'](), t):.1e}" if keops else "–"
        rows.append(
            (
                f"{n:,}", mine, times["graph"], f"{n * n / fastest:.2e}", f"{_error(work, ours(), t):.1e}", theirs or "–",
                keops_error, f"{theirs.median / mine.median:.1f} × ({theirs.median / fastest:.1f} ×)" if theirs else "–", tiles or "–",
            )
        )  # fmt: skip
        print(rows[-1], flush=True)
    return table(
        (
            "n",
            "native",
            "in a CUDA graph",
            "pairs/s (faster of both)",
            "error",
            "PyKeOps",
            "its error",
            "PyKeOps / native (/ faster of both)",
            "torch tiles",
        ),
        rows,
    )


def _graph(call):
    """RECORDED calls captured once; what is timed is their replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(RECORDED):
            call()
    return graph.replay


def _error(work: str, result: object, t: Points) -> float:
    """Relative error of the first rows against float64 (the CPU kernel; every row would take hours at n = 400,000)."""
    from tests.benchmarks.ops_problems import SIGMA

    n = t.q.shape[0]
    m = min(n, ERROR_ROWS)
    q, p, V, h = (s.double().cpu() for s in (t.q, t.p, t.V, t.h))
    problem = Problem(
        Radial.parse("gaussian"), torch.full((1,), SIGMA, dtype=torch.float64), Ragged((0, m)), Ragged((0, n))
    )
    if work == "product":
        exact = (native_cpu.product(q[:m], q, p, problem),)
    elif work == "fused":
        exact = native_cpu.fused(p[:m], q[:m], q, p, problem)
    else:
        exact = native_cpu.tangent(q[:m], h[:m], p[:m], V[:m], q, h, p, V, problem)
    got = [result] if isinstance(result, torch.Tensor) else list(result)
    return relative_error([g[:m].cpu() for g in got], exact)


def batches() -> str:
    rows = []
    for count, n in ((1, 100_000), (1_000, 1_000), (1_000, 500), (100, 5_000)):
        layout, t = Ragged.of_sizes([n] * count), Points.random(count * n, device="cuda")
        times = {w: measure(_graph(backend_call(cuda, w, t, layout)), 0.3, 3, "cuda").shared(RECORDED) for w in WORK}
        rows.append((f"{count:,}", f"{n:,}", *(f"{x} {count * n * n / x.median:.2e}/s" for x in times.values())))
    return table(("problems", "points each", *WORK), rows)


def nearby() -> str:
    """Cost against n where every point has as many neighbours, σ = 2 n^(-1/3): far blocks are skipped from the size on where sorting pays."""
    rows = []
    for n in (30_000, 100_000, 300_000, 1_000_000):
        t = Points.random(n, device="cuda")
        width = 2 * n ** (-1 / 3)
        layout = Ragged((0, n))
        problem = Problem(Radial.parse("gaussian"), torch.full((1,), width, device="cuda"), layout, layout)
        cells = []
        for op in (lambda: cuda.product(t.q, t.q, t.p, problem), lambda: cuda.fused(t.p, t.q, t.q, t.p, problem)):  # noqa: B023
            time_ = measure(op, 0.3, 3, "cuda")
            cells += [time_, f"{time_.median / n * 1e9:.1f} ns"]
        rows.append((f"{n:,}", f"{width:.3f}", *cells))
    return table(("n", "σ", "product", "a point", "fused", "a point"), rows)


def host_time() -> str:
    """Microseconds of Python and driver a call, with nothing to compute, beside those of torch's own addition."""
    t = Points.random(64, device="cuda")
    rows = []
    for work, call in [("torch's x + y", lambda: t.q + t.p), *((w, backend_call(cuda, w, t)) for w in WORK)]:
        for _ in range(100):
            call()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(1000):
            call()
        rows.append((work, f"{(time.perf_counter() - start) * 1e3:.1f} µs"))
        torch.cuda.synchronize()
    return table(("operator", "host time a call"), rows)


def memory() -> str:
    n = 1_000_000
    t = Points.random(n, device="cuda")
    call = backend_call(cuda, "fused", t)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    used = torch.cuda.max_memory_allocated() - before
    return (
        f"fused, n = 1,000,000: {seconds:.2f} s ({n * n / seconds:.2e} pairs/s), {used / 1e6:.0f} MB beyond the inputs."
    )


def compile_times() -> str:
    from shapeflow.ops.compile import nvrtc

    rows = []
    for spec in native_cpu.specializations("gaussian", d=3, features=(3,)):
        if spec.mask not in (0, 15) or spec.mutual:
            continue
        tensor = cuda.on_tensor_cores(spec, architecture(0))
        name = cuda.instance(spec, cuda.rows_a_thread(spec, tensor)[-1], tensor)
        start = time.perf_counter()
        _, _, log = nvrtc.cubin("gaussian.cu" if tensor else "cuda.cu", [name], architecture(0), options=["-v"])
        used = next((line.strip() for line in log.splitlines() if "registers" in line), "")
        rows.append((name, f"{time.perf_counter() - start:.2f} s", used))
    return table(("instance", "compile", "ptxas"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks/cuda.md")
    parser.add_argument("--no-keops", action="store_true")
    options = parser.parse_args()
    cuda.check()
    parts = {
        "Gaussian sum, d = e = 3, float32": lambda: against("product", not options.no_keops),
        "v and ∂qH in one pass": lambda: against("fused", not options.no_keops),
        "The VJP of v and ∂qH": lambda: against("vjp", not options.no_keops),
        "Batches": batches,
        "Far blocks skipped, fixed neighbours a point": nearby,
        "Host time a call": host_time,
        "Memory": memory,
        "Compile times": compile_times,
    }
    for title, part in parts.items():
        text = f"{place('cuda')} Medians (quartiles; best).\n\n{part()}"
        publish(DOCUMENT, title, text, options.write)


if __name__ == "__main__":
    main()
