"""The cohort: a template, two modes of variation, a deformation of each subject's own, and meshes that hide the correspondence.

Subject i leaves the template with momenta  p_i = g_i·effect·M_group + c_i·covariate_effect·M_covariate + noise·R_i,  g_i in {0, 1},
where each field M, R is scaled so that its largest initial speed on the template is one mesh unit. The group's mode pulls one end of the
shape, the covariate's widens it. Every mesh lists its vertices in an order of its own; `truth.npz` knows which is which.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shapeflow.demo.flow import shoot, velocity
from shapeflow.demo.spec import DemoSpec
from shapeflow.demo.templates import chart, embed, refine_half
from shapeflow.io import Landmarks, write_landmarks, write_shape
from shapeflow.io.files import replacing
from shapeflow.sampling import farthest_points
from shapeflow.shape import Shape

GROUPS = ("control", "case")
DENSITIES = ("even", "half_dense")
LABELS = ("group", "density", "covariate")


@dataclass(frozen=True)
class Truth:
    """What the generator knows. `correspondence[i, j]` is the vertex of subject i that template vertex j became."""

    subjects: tuple[str, ...]
    group: tuple[str, ...]
    density: tuple[str, ...]
    covariate: NDArray  # (N,)
    points: NDArray  # (n, d) template, mesh units
    simplices: NDArray  # (m, k)
    momenta: NDArray  # (N, n, d)
    carried: NDArray  # (N, n, d) where the template's vertices are in each subject, in the subject's frame
    group_mode: NDArray  # (n, d)
    covariate_mode: NDArray  # (n, d)
    correspondence: NDArray  # (N, n)
    landmark_vertices: NDArray  # (L,)
    sigma: float


@dataclass(frozen=True)
class Plan:
    """Labels of the subjects, in their order."""

    group: tuple[str, ...]
    density: tuple[str, ...]
    covariate: NDArray[np.float64]


def subjects(spec: DemoSpec) -> tuple[str, ...]:
    """Names of the subjects, known before anything is generated (a workflow plans its jobs by them)."""
    width = max(2, len(str(spec.n_subjects)))
    return tuple(f"subject{i + 1:0{width}d}" for i in range(spec.n_subjects))


def plan(spec: DemoSpec) -> Plan:
    """Labels of the subjects: groups alternate, densities and covariate are balanced between the groups."""
    i = np.arange(spec.n_subjects)
    rng = np.random.default_rng([spec.seed, 1])
    covariate = np.zeros(spec.n_subjects)
    for g in (0, 1):
        members = np.flatnonzero(i % 2 == g)
        covariate[members] = (
            rng.permutation(np.round(np.linspace(-1.5, 1.5, len(members)), 4)) if len(members) > 1 else 0.0
        )
    density = (i // 2) % 2 if spec.dense else np.zeros_like(i)
    return Plan(tuple(GROUPS[g] for g in i % 2), tuple(DENSITIES[k] for k in density), covariate)


def generate(spec: DemoSpec, out: Path) -> Path:
    """Write the cohort into the folder `out`: <subject>.vtk, <subject>.landmarks.csv, labels.csv and truth.npz. Same spec, same bytes."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names, labels = subjects(spec), plan(spec)
    c, cells = chart(spec.kind, spec.n_points)
    c_dense, cells_dense = refine_half(spec.kind, c, cells)
    q = embed(spec.kind, c)
    n, d = q.shape
    group_mode, covariate_mode = _modes(spec, q)
    marks = farthest_points(q, spec.n_landmarks, first=int(np.argmax(q[:, 0])))  # from the tip on

    momenta = np.zeros((spec.n_subjects, n, d))
    carried = np.zeros_like(momenta)
    correspondence = np.zeros((spec.n_subjects, n), dtype=np.int64)
    for i, name in enumerate(names):
        rng = np.random.default_rng([spec.seed, 2, i])
        momenta[i] = (
            (labels.group[i] == GROUPS[1]) * spec.effect * group_mode
            + labels.covariate[i] * spec.covariate_effect * covariate_mode
            + spec.noise * _own_mode(spec, q, rng)
        )
        dense = labels.density[i] == DENSITIES[1]
        x, simplices = (embed(spec.kind, c_dense), cells_dense) if dense else (q, cells)
        rotation, shift = _pose(d, spec.pose, rng)
        x = shoot(x, q, momenta[i], spec.sigma) @ rotation.T + shift
        order = rng.permutation(len(x))  # new position j holds old vertex order[j]
        place = np.argsort(order)
        carried[i], correspondence[i] = x[:n], place[:n]
        write_shape(out / f"{name}.vtk", Shape(points=x[order], simplices=place[simplices], point_data={}))
        write_landmarks(
            out / f"{name}.landmarks.csv", Landmarks(tuple(f"L{j + 1}" for j in range(len(marks))), x[marks])
        )

    _write_labels(out / "labels.csv", names, labels)
    _write_npz(
        out / "truth.npz",
        subjects=np.array(names), group=np.array(labels.group), density=np.array(labels.density),
        covariate=labels.covariate, points=q, simplices=cells, momenta=momenta, carried=carried, group_mode=group_mode,
        covariate_mode=covariate_mode, correspondence=correspondence, landmark_vertices=marks, sigma=np.array(spec.sigma),
    )  # fmt: skip
    return out


def load_truth(path: Path) -> Truth:
    """Read `truth.npz` (arrays only: no pickle)."""
    with np.load(path, allow_pickle=False) as data:
        fields = {name: data[name] for name in data.files}
    for name in ("subjects", "group", "density"):
        fields[name] = tuple(str(v) for v in fields[name])
    return Truth(**{**fields, "sigma": float(fields["sigma"])})


def _modes(spec: DemoSpec, q: NDArray) -> tuple[NDArray, NDArray]:
    """The group's mode (one end is pulled out and up) and the covariate's (the shape widens across its long axis)."""
    d = q.shape[1]
    tip = q[np.argmax(q[:, 0])]
    pull = np.array([1.0, 0.6, 0.8])[:d]
    group = _bump(q, tip, 0.25)[:, None] * pull / np.linalg.norm(pull)
    widen = np.zeros_like(q)
    widen[:, 1] = q[:, 1] - q[:, 1].mean()
    return _unit_speed(spec, q, group), _unit_speed(spec, q, widen)


def _own_mode(spec: DemoSpec, q: NDArray, rng: np.random.Generator) -> NDArray:
    """A subject's own deformation: four bumps at vertices drawn at random, in directions drawn at random."""
    centres = rng.choice(len(q), size=4, replace=False)
    directions = rng.normal(size=(4, q.shape[1]))
    bumps = np.stack([_bump(q, q[c], 0.3) for c in centres], axis=1)  # (n, 4)
    return _unit_speed(spec, q, np.einsum("nc,cd->nd", bumps, directions))


def _bump(q: NDArray, centre: NDArray, width: float) -> NDArray:
    return np.exp(-((q - centre) ** 2).sum(axis=1) / width**2)


def _unit_speed(spec: DemoSpec, q: NDArray, p: NDArray) -> NDArray:
    """Momenta scaled so that the fastest vertex leaves at one mesh unit per unit of time."""
    return p / np.linalg.norm(velocity(q, q, p, spec.sigma), axis=1).max()


def _pose(d: int, degrees: float, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """A rotation by at most `degrees` about a random axis (in the plane: about its normal), and a shift of as many hundredths."""
    angle = np.deg2rad(degrees) * rng.uniform(-1.0, 1.0)
    axis = rng.normal(size=3)
    shift = 0.01 * degrees * rng.uniform(-1.0, 1.0, size=d)
    if d == 2:
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), shift
    a = axis / np.linalg.norm(axis)
    cross = np.array([[0.0, -a[2], a[1]], [a[2], 0.0, -a[0]], [-a[1], a[0], 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross, shift


def _write_labels(path: Path, names: tuple[str, ...], labels: Plan) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["subject", *LABELS])
        for row in zip(names, labels.group, labels.density, labels.covariate, strict=True):
            writer.writerow([*row[:3], f"{row[3]:.4f}"])


def _write_npz(path: Path, **arrays: NDArray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # pyright: ignore[reportArgumentType]  a key is no option
