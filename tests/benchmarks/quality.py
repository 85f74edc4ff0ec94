"""How well matchings find what is known: all ordered pairs of 17 mandibles by landmarks, faces by exact correspondence.

    python -m tests.benchmarks.quality prepare CACHE           meshes from SHAPEFLOW_DATA, once, on a CPU: two .npz files
    python -m tests.benchmarks.quality run CACHE [--write] [--device cpu|cuda] [--vertices 2500] [--pairs N] [--faces N] [--batch 34]

`run` needs numpy and torch only. Mandibles: 17 manual landmarks, rigidly aligned on them, are carried by the flow from source to target; a
similarity fit alone leaves 0.191 mm. Faces: some vertices of the neutral skin are matched to those of each identity, as a varifold, which is
told nothing of what corresponds; all 9,409 ride along, and vertex i belongs at vertex i. Configurations were chosen on the pairs in CHOSEN_ON
and FACES_CHOSEN_ON, at 500 vertices, and frozen. Writes docs/benchmarks/quality.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from shapeflow.matching import MatchingSpec, match
from shapeflow.shape import Shape
from tests.benchmarks.timing import ROOT, place, publish, table

OUT = ROOT / "docs" / "benchmarks" / "quality.md"
SIMILARITY = 0.191  # mm, what is left of the landmarks' distances after the best similarity of each pair
CHOSEN_ON = (("09_4j", "09_4l"), ("07_5c", "13_5d"), ("08_6b", "11_4g"))
COMMON = {"integrator": "ralston", "steps": 5, "max_iter": 60, "tolerance": 1e-4, "memory": 8, "dtype": "float32"}
MANDIBLE = {"kernel": "cauchy", "sigma": 1.0, "attachment_widths": (1.0, 0.5), "gamma": 0.3}  # mm
FACE = {"kernel": "cauchy", "sigma": 3.0, "attachment_widths": (2.0, 1.0), "gamma": 0.1}  # cm
SKIN, NEUTRAL = 9409, "generic_neutral_mesh"
IDENTITIES = ("identity000", "identity001", "identity002", "identity003", "identity004")
EXPRESSIONS = ("jawOpen", "mouthPucker")
FACES_CHOSEN_ON = ("identity000", "identity002", "identity004")


# Preparation


def prepare(cache: Path, vertices: int) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ["SHAPEFLOW_DATA"])
    np.savez(cache / f"mandibles_{vertices}.npz", **_mandibles(data / "mouse_mandible_dp1tyb", vertices, cache))
    np.savez(cache / f"faces_{vertices}.npz", **_faces(data / "face_correspondence_ict", vertices))


def _mandibles(folder: Path, vertices: int, cache: Path) -> dict[str, np.ndarray]:
    """Cleaned, decimated and rigidly aligned on their landmarks, as a study does it."""
    from shapeflow.io import read_landmarks, read_shape
    from shapeflow.prepare import Dataset, Prepare, prepare_cohort

    out = cache / f"prepared_{vertices}"
    dataset = Dataset(
        name="mandible", path=str(folder), pattern="*.vtk", labels="data.csv", label_id="id", landmarks="{id}.csv"
    )
    prepare_cohort(dataset, Prepare(n_points=vertices, components=0.01, keep_full=False), out)
    arrays = {}
    for path in sorted(out.glob("*.vtk")):
        shape = read_shape(path)
        arrays |= {f"{path.stem}.points": shape.points, f"{path.stem}.simplices": shape.simplices}
        arrays[f"{path.stem}.landmarks"] = read_landmarks(out / f"{path.stem}.landmarks.csv").points
    return arrays


def _faces(folder: Path, vertices: int) -> dict[str, np.ndarray]:
    """The skin in the files' frame and vertex order: as `name`, vertices that are the same everywhere; as `name, apart`, decimated on its own."""
    from shapeflow.io import read_shape
    from shapeflow.prepare.decimate import decimate

    arrays, shared = {}, None
    for name in (NEUTRAL, *IDENTITIES, *EXPRESSIONS):
        whole = read_shape(folder / f"{name}.obj.gz")
        skin = Shape(whole.points[:SKIN], whole.simplices[(whole.simplices < SKIN).all(1)])
        apart = decimate(skin, vertices)[0]
        if shared is None:
            shared = _own_vertices(apart.points, skin.points), apart.simplices
        small = {name: Shape(skin.points[shared[0]], shared[1]), f"{name}, apart": apart}
        for key, shape in small.items():
            arrays |= {
                f"{key}.points": shape.points,
                f"{key}.simplices": shape.simplices,
                f"{key}.landmarks": skin.points,
            }
    return arrays


def _own_vertices(points: np.ndarray, among: np.ndarray) -> np.ndarray:
    """(n,) for each point the nearest of `among` that no other point has taken."""
    from scipy.spatial import cKDTree

    distance, nearest = cKDTree(among).query(points, k=12)
    chosen, taken = np.full(len(points), -1), set()
    for i in np.argsort(distance[:, 0], kind="stable"):
        chosen[i] = next(j for j in nearest[i] if j not in taken)
        taken.add(chosen[i])
    return chosen


# Matching


@dataclass(frozen=True)
class Cohort:
    """Shapes by name, and points of theirs that correspond."""

    shapes: dict[str, Shape]
    known: dict[str, np.ndarray]

    @staticmethod
    def load(path: Path) -> Cohort:
        if not path.is_file():
            raise SystemExit(f"{path} is missing: run `python -m tests.benchmarks.quality prepare {path.parent}` first")
        with np.load(path) as arrays:
            names = sorted({key.rsplit(".", 1)[0] for key in arrays})
            shapes = {name: Shape(arrays[f"{name}.points"], arrays[f"{name}.simplices"]) for name in names}
            return Cohort(shapes, {name: arrays[f"{name}.landmarks"] for name in names})

    def solve(self, pairs: list[tuple[str, str]], spec: MatchingSpec, batch: int) -> list[dict]:
        """A row a pair: errors of the known points before and after, in mesh units, and what `match` says."""
        rows = []
        for first in range(0, len(pairs), batch):
            some = pairs[first : first + batch]
            sources, targets = zip(*some, strict=True)
            result = match(
                [self.shapes[s] for s in sources],
                [self.shapes[t] for t in targets],
                spec,
                source_landmarks=[self.known[s] for s in sources],
                target_landmarks=[self.known[t] for t in targets],
            )
            for (s, t), row, carried in zip(some, result.rows, result.carried, strict=True):
                before, after = (np.linalg.norm(x - self.known[t], axis=1) for x in (self.known[s], carried))
                rows.append(
                    row
                    | {"source": s, "target": t, "before": before.mean(), "after": after.mean(), "worst": after.max()}
                )
        return rows


def mandibles(cache: Path, vertices: int, device: str, batch: int, limit: int | None) -> str:
    cohort = Cohort.load(cache / f"mandibles_{vertices}.npz")
    pairs = list(permutations(sorted(cohort.shapes), 2))[:limit]
    began = time.perf_counter()
    rows = cohort.solve(pairs, MatchingSpec(**COMMON, **MANDIBLE, device=device), batch)
    seconds = time.perf_counter() - began
    after, before, jacobian = (np.array([row[name] for row in rows]) for name in ("after", "before", "jacobian_min"))
    unseen = np.array([(r["source"], r["target"]) not in CHOSEN_ON for r in rows])
    status = ", ".join(f"{n} {name}" for name, n in Counter(row["status"] for row in rows).most_common())
    header = (
        "pairs", "landmarks before, mm", "after, mm", "median", "largest", "after, pairs not chosen on", "improved", f"below {SIMILARITY}",
        "smallest Jacobian", "folded", "evaluations a pair", "status", "seconds",
    )  # fmt: skip
    row = (
        len(rows), f"{before.mean():.4f}", f"{after.mean():.4f}", f"{np.median(after):.4f}", f"{after.max():.4f}",
        f"{after[unseen].mean():.4f}" if unseen.any() else "",
        f"{(after < before).mean():.1%}", f"{(after < SIMILARITY).mean():.1%}", f"{jacobian.min():.3f}", int((jacobian <= 0).sum()),
        f"{np.mean([r['evaluations'] for r in rows]):.1f}", status, f"{seconds:.1f}",
    )  # fmt: skip
    text = f"{place(device)} {vertices} vertices, {_words(MANDIBLE)}; one configuration for all, chosen on {_pairs(CHOSEN_ON)}.\n\n"
    return text + table(header, [row]) + "\n\n" + _failures(rows)


def _failures(rows: list[dict]) -> str:
    """Every pair that matching did not improve, or that folds; and the subjects that the largest errors share."""
    failed = [
        r
        for r in rows
        if r["after"] >= r["before"] or r["jacobian_min"] <= 0 or r["status"] not in ("converged", "max_iter")
    ]
    lines = ["Every pair improves, none folds."]
    if failed:
        cells = [
            (
                r["source"],
                r["target"],
                f"{r['before']:.3f}",
                f"{r['after']:.3f}",
                f"{r['worst']:.3f}",
                f"{r['jacobian_min']:.2f}",
                r["status"],
            )
            for r in sorted(failed, key=lambda r: r["before"] - r["after"])
        ]
        lines = [
            f"{len(failed)} pairs that do not improve, or fold. Before matching they are {np.mean([r['before'] for r in failed]):.3f} mm apart, "
            f"all pairs {np.mean([r['before'] for r in rows]):.3f}:\n",
            table(("source", "target", "before", "after", "worst landmark", "smallest Jacobian", "status"), cells),
        ]
    subjects = sorted({r["source"] for r in rows} | {r["target"] for r in rows})
    mean = {s: np.mean([r["after"] for r in rows if s in (r["source"], r["target"])]) for s in subjects}
    before = {s: np.mean([r["before"] for r in rows if s in (r["source"], r["target"])]) for s in subjects}
    ranked = sorted(subjects, key=lambda s: -mean[s])
    lines.append(
        "\nBy subject, mean over the pairs it is in (mm, before → after): "
        + ", ".join(f"{s} {before[s]:.3f} → {mean[s]:.3f}" for s in ranked)
        + "."
    )
    return "\n".join(lines)


def faces(cache: Path, vertices: int, device: str, limit: int | None) -> str:
    cohort, spec = Cohort.load(cache / f"faces_{vertices}.npz"), MatchingSpec(**COMMON, **FACE, device=device)
    header = (
        "neutral to",
        "do nothing, cm",
        "mean vertex error, cm",
        "ratio",
        "worst vertex",
        "smallest Jacobian",
        "evaluations",
        "status",
    )
    parts = []
    for suffix in ("", ", apart"):
        pairs = [(NEUTRAL, name + suffix) for name in (*IDENTITIES, *EXPRESSIONS)][:limit]
        cells = [
            (r["target"], f"{r['before']:.4f}", f"{r['after']:.4f}", f"{r['after'] / r['before']:.2f}", f"{r['worst']:.3f}", f"{r['jacobian_min']:.3f}",
             r["evaluations"], r["status"])
            for r in cohort.solve(pairs, spec, len(pairs))
        ]  # fmt: skip
        parts.append(table(header, cells))
    together, apart = parts
    return (
        f"{place(device)} {vertices} vertices matched, {SKIN} carried, {_words(FACE)}; chosen on {', '.join(FACES_CHOSEN_ON)}.\n"
        "The expressions open and close the mouth: what is hidden in the neutral face has nothing to be matched to.\n\n"
        f"{together}\n\n"
        "The same with every target decimated on its own. Identities move the skin by less than an edge of such a mesh, and the two sides are\n"
        "then sampled differently by as much: what a varifold sees is mostly that.\n\n"
        f"{apart}"
    )


def _words(choice: dict) -> str:
    return ", ".join(f"{key}={value}" for key, value in choice.items())


def _pairs(pairs) -> str:
    return ", ".join(f"{a} → {b}" for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "run"))
    parser.add_argument("cache", type=Path)
    parser.add_argument("--vertices", type=int, default=2500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=34, help="pairs of one batch")
    parser.add_argument("--pairs", type=int, default=None, help="the first so many pairs only")
    parser.add_argument("--faces", type=int, default=None, help="the first so many faces only")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/quality.md")
    arguments = parser.parse_args()
    if arguments.step == "prepare":
        prepare(arguments.cache, arguments.vertices)
        return
    parts = (
        (
            "Mandibles",
            lambda: mandibles(arguments.cache, arguments.vertices, arguments.device, arguments.batch, arguments.pairs),
        ),
        ("Faces", lambda: faces(arguments.cache, arguments.vertices, arguments.device, arguments.faces)),
    )
    for title, part in parts:
        text = part()
        publish(OUT, title, text, arguments.write)


if __name__ == "__main__":
    main()
