"""The log-sum-exp product against PyKeOps and torch tiles, side by side in one run: `python -m tests.benchmarks.lse [--device cuda] [--write]`.

    l_i = log Σ_j exp(h_j − |x_i − y_j|²/σ²)       n points of the unit cube on either side, σ = 0.2, h normal, d = 3, float32

Three tables: the product itself; the product with its derivatives in x, y and h; and ten iterations of Sinkhorn, which is what it is for.
Writes a section of docs/benchmarks/cpu.md or cuda.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("PYKEOPS_VERBOSE", "0")

import torch
from torch import Tensor

from shapeflow.ops.logsumexp import kernel_logsumexp
from tests.benchmarks.ops_cuda import RECORDED, _graph
from tests.benchmarks.timing import ROOT, Timing, compare, place, publish, relative_error, table

SIGMA, ITERATIONS = 0.2, 10
SIZES = {"cpu": (1_000, 4_000, 16_000), "cuda": (1_000, 4_000, 16_000, 100_000)}
TILES_UP_TO, ERROR_ROWS = {"cpu": 4_000, "cuda": 16_000}, 1_000
TITLE = "Log-sum-exp"


@dataclass(frozen=True)
class Clouds:
    x: Tensor
    y: Tensor
    h: Tensor
    sigma: Tensor  # (1,): a number would be copied to the device at every call

    @staticmethod
    def random(n: int, device: str) -> Clouds:
        g = torch.Generator().manual_seed(0)
        tensors = torch.rand(n, 3, generator=g), torch.rand(n, 3, generator=g), torch.randn(n, generator=g)
        return Clouds(*(t.to(device) for t in (*tensors, torch.full((1,), SIGMA))))


Product = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(t: Clouds, backend: str) -> Product:
    return lambda x, y, h: kernel_logsumexp(x, y, h, t.sigma, backend=backend)


def keops(t: Clouds) -> Product:
    from pykeops.torch import Vi, Vj

    scale = 1 / SIGMA**2
    return lambda x, y, h: (Vj(h[:, None]) - ((Vi(x) - Vj(y)) ** 2).sum(-1) * scale).logsumexp(1)[:, 0]


def value(product: Product, t: Clouds) -> Callable[[], Tensor]:
    return lambda: product(t.x, t.y, t.h)


def derivatives(product: Product, t: Clouds) -> Callable[[], tuple[Tensor, ...]]:
    leaves = [s.detach().clone().requires_grad_() for s in (t.x, t.y, t.h)]
    return lambda: torch.autograd.grad(product(*leaves).sum(), leaves)


def sinkhorn(product: Product, t: Clouds) -> Callable[[], Tensor]:
    """Alternating scaling of two uniform clouds at temperature σ²; logarithms of both scalings, with the weights in them."""

    def run() -> Tensor:
        f = g = torch.zeros_like(t.h)
        for _ in range(ITERATIONS):
            f = -product(t.x, t.y, g)
            g = -product(t.y, t.x, f)
        return g

    return run


def errors(results: dict[str, Tensor], t: Clouds) -> dict[str, str]:
    """Relative error of the first rows against float64 torch."""
    rows = min(t.x.shape[0], ERROR_ROWS)
    x, y, h = t.x[:rows].double().cpu(), t.y.double().cpu(), t.h.double().cpu()
    exact = kernel_logsumexp(x, y, h, float(t.sigma), backend="torch")
    return {name: f"{relative_error(out[:rows].cpu(), exact):.1e}" for name, out in results.items()}


def contenders(t: Clouds, device: str, with_keops: bool, tiles: bool) -> dict[str, Product]:
    found = {"native": ours(t, "native")}
    if with_keops:
        found["PyKeOps"] = keops(t)
    if tiles and t.x.shape[0] <= TILES_UP_TO[device]:
        found["torch tiles"] = ours(t, "torch")
    return found


def rows(work, sizes: tuple[int, ...], device: str, with_keops: bool, pairs: int, check: bool) -> str:
    """One table: `work(product, clouds)` for every contender and size; `pairs` passes over the n² pairs a call, 0 for none to count."""
    lines = []
    for n in sizes:
        t = Clouds.random(n, device)
        products = contenders(t, device, with_keops, work is not sinkhorn)
        calls = {name: work(product, t) for name, product in products.items()}
        if device == "cuda" and work is not derivatives:
            calls["in a CUDA graph"] = _graph(calls["native"])
        found = errors({name: calls[name]() for name in products}, t) if check else {}
        times = compare(calls, 1.0, 3, device)
        if "in a CUDA graph" in times:
            times["in a CUDA graph"] = times["in a CUDA graph"].shared(RECORDED)
        lines.append((f"{n:,}", *_row(times, found, n, pairs)))
        print(lines[-1], flush=True)
    head = (
        "n",
        "native",
        "in a CUDA graph",
        "pairs/s at best",
        "error",
        "PyKeOps",
        "its error",
        "PyKeOps / native: medians (bests)",
    )
    return table((*head, "torch tiles"), lines)  # fmt: skip


def _row(times: dict[str, Timing], found: dict[str, str], n: int, pairs: int) -> tuple[object, ...]:
    mine, captured, theirs = times["native"], times.get("in a CUDA graph"), times.get("PyKeOps")
    best = (captured or mine).best
    ratio = f"{theirs.median / mine.median:.1f} × ({theirs.best / mine.best:.1f} ×)" if theirs else "–"
    return (
        mine, captured or "–", f"{pairs * n * n / best:.2e}" if pairs else "–", found.get("native", "–"),
        theirs or "–", found.get("PyKeOps", "–"), ratio, times.get("torch tiles", "–"),
    )  # fmt: skip


def report(device: str, with_keops: bool = True, sizes: tuple[int, ...] | None = None) -> str:
    """The three tables as text."""
    sizes = sizes or SIZES[device]
    small = tuple(n for n in sizes if n <= (16_000 if device == "cuda" else 4_000)) or sizes[:1]
    parts = (
        ("The product.", rows(value, sizes, device, with_keops, 1, True)),
        ("With its derivatives in x, y and h.", rows(derivatives, sizes, device, with_keops, 0, False)),
        (f"{ITERATIONS} iterations of Sinkhorn.", rows(sinkhorn, small, device, with_keops, 2 * ITERATIONS, False)),
    )
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--write", action="store_true", help=f"write the section {TITLE!r} of docs/benchmarks/")
    parser.add_argument("--no-keops", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+")
    options = parser.parse_args()
    where = place(options.device)
    tables = report(options.device, not options.no_keops, tuple(options.sizes) if options.sizes else None)
    work = f"log Σ_j exp(h_j − |x_i − y_j|²/σ²): σ = {SIGMA} in the unit cube, d = 3, float32; `python -m tests.benchmarks.lse`."
    text = f"{where} Medians (quartiles; best).\n\n{work}\n\n{tables}"
    publish(ROOT / "docs" / "benchmarks" / f"{options.device}.md", TITLE, text, options.write)


if __name__ == "__main__":
    main()
