"""One energy and gradient of the problem of KeOps's LDDMM surface example, ours beside KeOps, on the same random closed surfaces.

    python -m tests.benchmarks.lddmm_keops [--write] [--device cpu|cuda] [--sizes 662 1654 6611] [--no-keops]

A Gaussian Hamiltonian of width 20, ten Ralston steps, a varifold attachment of triangles exp(−|c − c'|²/20²) ⟨u, u'⟩²; the gradient in momenta. The
KeOps side is written here from its public interface, in the manner its documentation teaches: LazyTensor formulas, Hamiltonian equations by autograd.
Writes docs/benchmarks/lddmm.md.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("PYKEOPS_VERBOSE", "0")

import torch
from torch import Tensor

from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import MatchingObjective, Problem
from tests.benchmarks.surfaces import star
from tests.benchmarks.timing import ROOT, compare, place, publish, relative_error, table

OUT = ROOT / "docs" / "benchmarks" / "lddmm.md"
WIDTH, STEPS, GAMMA = 20.0, 10, 1.0


def ours(n: int, device: str, dtype: str = "float32") -> MatchingObjective:
    spec = MatchingSpec(
        sigma=WIDTH, normalization="none", attachment="varifold", attachment_widths=(WIDTH,), gamma=GAMMA, units="mesh",
        integrator="ralston", steps=STEPS, dtype=dtype, device=device,
    )  # fmt: skip
    return MatchingObjective([Problem(star(n, 0), star(n, 1), spec)])


class Keops:
    """The same energy through PyKeOps: K(x, y) b as a LazyTensor reduction, everything else by torch's autograd."""

    def __init__(self, n: int, device: str) -> None:
        source, target = star(n, 0), star(n, 1)
        self.q = torch.as_tensor(source.points, dtype=torch.float32, device=device)
        self.faces = torch.as_tensor(source.simplices.astype("int64"), device=device)
        goal = torch.as_tensor(target.points, dtype=torch.float32, device=device)
        goal_faces = torch.as_tensor(target.simplices.astype("int64"), device=device)
        self.target = self._triangles(goal, goal_faces)
        self.norm = self._pairing(*self.target, *self.target)

    @staticmethod
    def _triangles(x: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b, c = x[faces[:, 0]], x[faces[:, 1]], x[faces[:, 2]]
        normal = 0.5 * torch.linalg.cross(b - a, c - a)
        area = normal.square().sum(1, keepdim=True).sqrt()
        return (a + b + c) / 3, area, normal / area

    @staticmethod
    def _kernel(x: Tensor, y: Tensor, b: Tensor) -> Tensor:
        from pykeops.torch import LazyTensor

        x_i, y_j, b_j = LazyTensor(x[:, None, :] / WIDTH), LazyTensor(y[None, :, :] / WIDTH), LazyTensor(b[None, :, :])
        return ((-((x_i - y_j) ** 2).sum(-1)).exp() * b_j).sum(1)

    @staticmethod
    def _pairing(c: Tensor, area: Tensor, u: Tensor, c2: Tensor, area2: Tensor, u2: Tensor) -> Tensor:
        from pykeops.torch import LazyTensor

        x_i, y_j = LazyTensor(c[:, None, :] / WIDTH), LazyTensor(c2[None, :, :] / WIDTH)
        u_i, v_j, b_j = LazyTensor(u[:, None, :]), LazyTensor(u2[None, :, :]), LazyTensor(area2[None, :, :])
        k = (-((x_i - y_j) ** 2).sum(-1)).exp() * ((u_i * v_j).sum(-1) ** 2)
        return (area * (k * b_j).sum(1)).sum()

    def _field(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        hamiltonian = 0.5 * (p * self._kernel(q, q, p)).sum()
        dq, dp = torch.autograd.grad(hamiltonian, (q, p), create_graph=True)
        return dp, -dq

    def evaluate(self, p0: Tensor) -> tuple[Tensor, Tensor]:
        p0 = p0.detach().clone().requires_grad_()
        q, p, h = self.q.clone().requires_grad_(), p0, 1 / STEPS
        energy = 0.5 * (p * self._kernel(q, q, p)).sum()
        for _ in range(STEPS):
            v, f = self._field(q, p)
            v2, f2 = self._field(q + 2 / 3 * h * v, p + 2 / 3 * h * f)
            q, p = q + h * (0.25 * v + 0.75 * v2), p + h * (0.25 * f + 0.75 * f2)
        mine = self._triangles(q, self.faces)
        value = GAMMA * energy + self._pairing(*mine, *mine) - 2 * self._pairing(*mine, *self.target) + self.norm
        (gradient,) = torch.autograd.grad(value, p0)
        return value.detach(), gradient


def rows(sizes: list[int], device: str, keops: bool, seconds: float) -> list[tuple]:
    out = []
    for n in sizes:
        problem = ours(n, device)
        p = _momenta(n).to(problem.q0)
        exact = ours(n, device, "float64").evaluate(p.double())
        calls = {"ours": lambda o=problem, p=p: o.evaluate(p)}
        if keops:
            theirs_at = Keops(n, device)
            calls["keops"] = lambda k=theirs_at, p=p: k.evaluate(p)
        for _ in range(2):  # the first call compiles and plans, the second records the graph
            mine = calls["ours"]()
        times = compare(calls, seconds, 3, device)
        theirs = times.get("keops")
        errors = [f"{relative_error(r[1], exact[1]):.1e}" for r in (mine, calls["keops"]() if keops else mine)]
        out.append(
            (
                f"{n:,}", times["ours"], errors[0], theirs or "–", errors[1] if keops else "–",
                f"{theirs.median / times['ours'].median:.0f} ×" if theirs else "–",
                "replayed" if problem.replay.replays else problem.replay.note(p) or "–",
            )
        )  # fmt: skip
        print(out[-1], flush=True)
    return out


def _momenta(n: int) -> Tensor:
    """A deformation of some units of length, smooth enough to be one."""
    g = torch.Generator().manual_seed(n)
    return 0.2 * torch.randn(n, 3, generator=g)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--sizes", type=int, nargs="*")
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing a size")
    parser.add_argument("--no-keops", action="store_true")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/lddmm.md")
    arguments = parser.parse_args()
    sizes = arguments.sizes or ([662, 1654, 6611] if arguments.device == "cuda" else [162, 662])
    found = rows(sizes, arguments.device, not arguments.no_keops, arguments.seconds)
    header = ("vertices", "ours", "error of ∇E", "PyKeOps", "its error", "PyKeOps / ours", "CUDA graph")
    text = f"{place(arguments.device)} Seconds of one energy and gradient: median (quartiles; best); float32, errors against ours in float64.\n\n"
    text += table(header, found)
    publish(OUT, "On a GPU" if arguments.device == "cuda" else "On a CPU", text, arguments.write)


if __name__ == "__main__":
    main()
