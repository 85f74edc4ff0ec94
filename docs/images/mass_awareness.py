"""What normalization does: the figure of docs/mathematics.md §3 and its numbers.

    python docs/images/mass_awareness.py        writes mass_awareness.png beside itself

The same motion c(x) is asked of a shape sampled evenly and of the same shape with one half sampled ten times as densely.
Every particle gets the momentum of its mass, p = μ c: the vertex's share of length, or one share each for points and
without normalization, which knows no masses. What is compared are the ends of the two geodesics.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from shapeflow import Flow, MatchingSpec, Shape
from shapeflow.figures import PALETTE

MODES = {"none": "without: a velocity is a sum", "sinkhorn": "with: a velocity is an average"}
EVEN, DENSE = "black", PALETTE[4]


def geodesic(shape: Shape, velocity: np.ndarray, mode: str, sigma: float, speed: float = 1.0) -> Flow:
    """The flow that starts with momenta μ c."""
    spec = MatchingSpec(sigma=sigma, normalization=mode, steps=20, device="cpu")
    masses = shape.masses() if mode != "none" else np.full(shape.n_points, 1 / shape.n_points)
    return Flow.of(shape, shape.points, speed * masses[:, None] * velocity, spec)


def blobs(left: int, right: int) -> Shape:
    """Points of two discs of radius 0.5 about (∓1.2, 0)."""
    k = [np.arange(n) + 0.5 for n in (left, right)]
    disc = [0.5 * np.sqrt(i / n)[:, None] * spiral(i) for i, n in zip(k, (left, right), strict=True)]
    return Shape(np.concatenate([disc[0] - [1.2, 0], disc[1] + [1.2, 0]]))


def spiral(i: np.ndarray) -> np.ndarray:
    angle = np.pi * (3 - np.sqrt(5)) * i
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def ring(left: int, right: int) -> Shape:
    """An ellipse with `left` vertices where x < 0 and `right` where x > 0."""
    t = np.concatenate([np.pi / 2 + np.pi * np.arange(left) / left, -np.pi / 2 + np.pi * np.arange(right) / right])
    points = np.stack([1.6 * np.cos(t), 0.9 * np.sin(t)], 1)
    return Shape(points, np.stack([np.arange(len(t)), np.roll(np.arange(len(t)), -1)], 1))


def up(points: np.ndarray) -> np.ndarray:
    return np.tile([0.0, 1.0], (len(points), 1))


def bend(points: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros(len(points)), 0.9 * np.cos(np.pi * points[:, 0] / 1.6)], 1)


CASES = {
    "two blobs, 20:20 and 200:20 points": (blobs(20, 20), blobs(200, 20), up, 0.6),
    "a curve, 60:60 and 600:60 vertices": (ring(60, 60), ring(600, 60), bend, 0.7),
}


def ends(case: str, mode: str) -> tuple[Flow, Flow, np.ndarray, np.ndarray, float]:
    """Both flows, where they take the even shape's points, and their mean distance there as a share of the mean displacement."""
    even, dense, motion, sigma = CASES[case]
    speed = 1.0
    if mode == "none":  # an arbitrary unit: let the even shape move as far as c at first
        v = geodesic(even, motion(even.points), mode, sigma).path(even.points)
        speed = 1 / (
            np.linalg.norm(v[1] - v[0], axis=1).mean() * 20 / np.linalg.norm(motion(even.points), axis=1).mean()
        )
    flows = [geodesic(s, motion(s.points), mode, sigma, speed) for s in (even, dense)]
    a, b = (f.forward(even.points) for f in flows)
    return *flows, a, b, float(np.linalg.norm(b - a, axis=1).mean() / np.linalg.norm(a - even.points, axis=1).mean())


def percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share > 1e-5 else "less than 0.001 %"


def main() -> None:
    figure, axes = plt.subplots(2, 2, figsize=(8.4, 6.2), dpi=90, layout="constrained")
    for row, (case, (even, dense, _, _)) in zip(axes, CASES.items(), strict=True):
        for axis, (mode, title) in zip(row, MODES.items(), strict=True):
            first, second, a, b, apart = ends(case, mode)
            print(f"{case:36s} {mode:9s} ends apart by {percent(apart)} of the displacement")
            curve = len(even.simplices) and even.simplices.shape[1] == 2
            loop = (lambda x: np.concatenate([x, x[:1]])) if curve else (lambda x: x)
            style = {"linestyle": "-", "marker": ""} if curve else {"linestyle": "", "marker": "o", "markersize": 4}
            axis.plot(*loop(dense.points).T, color="0.75", **({**style, "markersize": 2} if not curve else style))
            if curve:
                axis.plot(*dense.points.T, ".", color="0.6", markersize=2.5)
            some = even.points[:: max(1, len(even.points) // 20)]
            for flow, colour in ((first, EVEN), (second, DENSE)):
                for path in flow.path(some).transpose(1, 0, 2):
                    axis.plot(*path.T, color=colour, linewidth=0.7, alpha=0.7)
            axis.plot(*loop(a).T, color=EVEN, label="sampled evenly", linewidth=2.2, **style)
            axis.plot(
                *loop(b).T,
                color=DENSE,
                label="left half ten times denser",
                linewidth=1.4,
                **({**style, "markersize": 2.4} if not curve else {"linestyle": "--"}),
            )
            axis.set_title(f"{title}\nends apart by {percent(apart)} of the displacement", fontsize=10)
            axis.set_aspect("equal")
            axis.set_xlim(-2.2, 2.2)
            axis.tick_params(labelsize=7)
        row[0].set_ylabel(case, fontsize=9)
        low, high = (f(axis.get_ylim()[k] for axis in row) for k, f in enumerate((min, max)))
        for axis in row:
            axis.set_ylim(low, high)
    axes[1, 1].legend(fontsize=8, loc="lower right", frameon=False)
    figure.savefig(Path(__file__).with_suffix(".png"), metadata={"Software": None})


if __name__ == "__main__":
    main()
