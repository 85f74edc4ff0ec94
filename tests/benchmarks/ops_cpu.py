"""CPU kernels against PyKeOps and torch tiles, side by side in one run: `python -m tests.benchmarks.ops_cpu [--write]`.

Writes docs/benchmarks/cpu.md. PyKeOps compiles its formulas on the first run (half a minute).
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Iterable

os.environ.setdefault("PYKEOPS_VERBOSE", "0")

import torch

from shapeflow.ops import kernel_product
from shapeflow.ops.backends import native_cpu, tiled
from shapeflow.ops.bound import Kernel
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import KERNELS, Radial
from shapeflow.ragged import Ragged
from tests.benchmarks.ops_problems import WORK, Points, backend_call, keops_call
from tests.benchmarks.timing import ROOT, measure, place, publish, relative_error, table
from tests.benchmarks.timing import compare as together

SIZES = (1_000, 4_000, 16_000)
DOCUMENT = ROOT / "docs" / "benchmarks" / "cpu.md"


def compare(work: str, keops: bool, tiles_up_to: int, sizes: Iterable[int]) -> str:
    rows = []
    for n in sizes:
        t = Points.random(n)
        ours = backend_call(native_cpu, work, t)
        exact = backend_call(native_cpu, work, t.double())()
        calls = {"native": ours} | ({"keops": keops_call(work, t)} if keops else {})
        if n <= tiles_up_to:
            calls["tiles"] = backend_call(tiled, work, t)
        times = together(calls, 2.0, 2)
        mine, tiles, theirs = times["native"], times.get("tiles"), times.get("keops")
        ratio = f"{theirs.median / mine.median:.0f} × ({theirs.best / mine.best:.0f} ×)" if theirs else "–"
        rows.append(
            (
                f"{n:,}", mine, f"{n * n / mine.best:.2e}", f"{relative_error(ours(), exact):.1e}", theirs or "–", ratio,
                tiles or "–", f"{tiles.median / mine.median:.0f} ×" if tiles else "–",
            )
        )  # fmt: skip
    return table(
        (
            "n",
            "native",
            "pairs/s at best",
            "error",
            "PyKeOps",
            "PyKeOps / native: medians (bests)",
            "torch tiles",
            "tiles / native",
        ),
        rows,
    )


def check_oracle() -> str:
    """The float64 native result that errors are measured against, against torch tiles in float64."""
    t = Points.random(1_000, dtype=torch.float64)
    worst = max(relative_error(backend_call(native_cpu, w, t)(), backend_call(tiled, w, t)()) for w in WORK)
    return f"Errors are against the float64 kernel, which agrees with float64 torch tiles to {worst:.0e} at n = 1,000."


def kernels() -> str:
    rows, n = [], 4_000
    for dtype in (torch.float32, torch.float64):
        t = Points.random(n, dtype=dtype)
        for name in (*KERNELS, "0.5*gaussian + 0.5*gaussian@4.0"):
            layout = Ragged((0, n))
            problem = Problem(Radial.parse(name), torch.full((1,), 0.2, dtype=dtype), layout, layout)
            calls = (
                lambda t=t, p=problem: native_cpu.product(t.q, t.q, t.p, p),
                lambda t=t, p=problem: native_cpu.fused(t.p, t.q, t.q, t.p, p),
                lambda t=t, p=problem: native_cpu.tangent(t.q, t.h, t.p, t.V, t.q, t.h, t.p, t.V, p),
            )
            rows.append((name, str(dtype)[6:], *(f"{n * n / measure(c, 0.4).best:.2e}" for c in calls)))
    return table(("kernel", "dtype", "product, pairs/s at best", "fused", "tangent"), rows)


def batches() -> str:
    rows = []
    for count, n in ((1, 4_000), (16, 1_000), (64, 500), (1_000, 100)):
        layout, t = Ragged.of_sizes([n] * count), Points.random(count * n)
        one = measure(backend_call(native_cpu, "fused", t, layout), 0.7)
        rows.append((f"{count:,}", f"{n:,}", one, f"{count * n * n / one.best:.2e}"))
    return table(("problems", "points each", "fused", "pairs/s at best"), rows)


def nearby() -> str:
    """Cost against n where every point has as many neighbours: σ = 2 n^(-1/3), points of the unit cube."""
    rows = []
    for n in (10_000, 30_000, 100_000, 300_000, 1_000_000):
        t = Points.random(n)
        layout = Ragged((0, n))
        problem = Problem(Radial.parse("gaussian"), torch.full((1,), 2 * n ** (-1 / 3)), layout, layout)
        once = {}
        for mode in ("0", "1") if n <= 100_000 else ("1",):
            os.environ["SHAPEFLOW_NEARBY"] = mode
            native_cpu.fused(t.p, t.q, t.q, t.p, problem)
            once[mode] = measure(lambda t=t, p=problem: native_cpu.fused(t.p, t.q, t.q, t.p, p), 1.0, 2)
        del os.environ["SHAPEFLOW_NEARBY"]
        near, dense = once["1"], once.get("0")
        rows.append(
            (
                f"{n:,}",
                near,
                f"{near.best / n * 1e6:.2f} µs",
                dense or "–",
                f"{dense.best / near.best:.1f} ×" if dense else "–",
            )
        )
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    text = table(("n", "fused, far blocks skipped", "a point, at best", "every pair", "gain at best"), rows)
    return f"{text}\n\nThe whole process, n = 1,000,000 included, held {used:.2f} GB at most (0.24 GB of it from importing torch)."


def compile_times() -> str:
    from shapeflow.ops.compile import host
    from shapeflow.ops.compile.source import flatten

    rows = []
    for spec in native_cpu.specializations("gaussian", d=3, features=(3,)):
        if spec.mask not in (0, 15):
            continue
        start = time.perf_counter()
        host._compile(flatten(spec.source), spec.source, spec.macros())
        built = time.perf_counter() - start
        host.library(spec.source, spec.macros())
        found = min(_seconds(lambda s=spec: host.library(s.source, s.macros())) for _ in range(5))
        rows.append((f"{spec.op}{', each pair once' * spec.mutual}", f"{built:.2f} s", f"{found * 1e3:.2f} ms"))
    t = Points.random(8)
    overhead = measure(backend_call(native_cpu, "product", t), 0.3)
    return (
        table(("operator", "compile", "found in the cache"), rows)
        + f"\n\nA call on 8 points takes {overhead} in the backend, and from where it can be called:\n\n"
        + table(("call", "time"), doors(t))
    )


def doors(t: Points) -> list[tuple[str, object]]:
    """The overhead of the ways in, on points too few to cost anything."""
    layout, sigma = Ragged((0, t.q.shape[0])), torch.full((1,), 0.2)
    bound, leaf, q, p = Kernel("gaussian", sigma, "native"), t.q.clone().requires_grad_(), t.q.numpy(), t.p.numpy()

    def backward():
        kernel_product(leaf, t.q, t.p, sigma=0.2).sum().backward()
        leaf.grad = None

    calls = {
        "the matching engine's Kernel.product": lambda: bound.product(t.q, layout, t.q, layout, t.p),
        "kernel_product, tensors": lambda: kernel_product(t.q, t.q, t.p, sigma=0.2),
        "kernel_product, NumPy arrays": lambda: kernel_product(q, q, p, sigma=0.2),
        "kernel_product, with a gradient to come": lambda: kernel_product(leaf, t.q, t.p, sigma=0.2),
        "… its sum and backward pass, too": backward,
    }
    return [(name, measure(call, 0.3)) for name, call in calls.items()]


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks/cpu.md")
    parser.add_argument("--no-keops", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument(
        "--tiles-up-to", type=int, default=4_000, help="largest n for torch's tiles, which take seconds beyond"
    )
    parser.add_argument("--only", nargs="*", default=[*WORK, "kernels", "batches", "nearby", "compile"])
    options = parser.parse_args()
    titles = {
        "product": "Gaussian sum, d = e = 3, float32",
        "fused": "v and ∂qH in one pass",
        "vjp": "The VJP of v and ∂qH",
    }
    parts = {"kernels": ("Every kernel, n = 4,000", kernels), "batches": ("Batches of small problems", batches)}
    parts["nearby"] = ("Far blocks skipped, fixed neighbours a point", nearby)
    parts["compile"] = ("Compile times and overhead", compile_times)
    for name in options.only:
        where = place()
        title, text = (
            (titles[name], compare(name, not options.no_keops, options.tiles_up_to, options.sizes))
            if name in titles
            else (parts[name][0], parts[name][1]())
        )
        if name == "product":
            text += "\n\n" + check_oracle()
        text = f"{where} Medians (quartiles; best).\n\n{text}"
        publish(DOCUMENT, title, text, options.write)


if __name__ == "__main__":
    main()
