"""The real data sets: what their sources say is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from shapeflow.io import read_shape
from shapeflow.io.raw import Raw
from shapeflow.prepare import Dataset, Limits, Prepare, load_cohort, prepare_cohort, procrustes, scan, validate_cohort
from shapeflow.prepare.clean import clean
from shapeflow.prepare.procrustes import pairwise_residuals
from shapeflow.resources import resource


def mandibles(data_root: Path) -> Dataset:
    folder = data_root / "mouse_mandible_dp1tyb"
    return Dataset(
        name="mandible", path=str(folder), pattern="*.vtk", labels="data.csv", landmarks="{id}.csv", unit="mm"
    )


def pairs(points: np.ndarray) -> float:
    """Mean landmark distance over all pairs of subjects, as they lie."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1).mean(-1)
    return float(distance[np.triu_indices(len(points), 1)].mean())


def test_the_mandibles_landmarks_after_alignment(data_root: Path, tmp_path: Path) -> None:
    prepare_cohort(mandibles(data_root), Prepare(n_points=500, keep_full=False), tmp_path, limits=Limits(workers=2))
    found = load_cohort(tmp_path)
    assert len(found.subjects) == 17 and all(s.n_points == 500 for s in found.shapes)
    assert list(found.table.GroupId).count(1) == 9 and list(found.table.Gender).count(1) == 10
    marks = np.stack([m for m in found.landmarks if m is not None])
    assert pairs(marks) == pytest.approx(0.277, abs=5e-4)  # mm, left by rigid alignment
    upper = np.triu_indices(17, 1)
    assert pairwise_residuals(list(marks))[upper].mean() == pytest.approx(0.277, abs=5e-4)
    assert pairwise_residuals(list(marks), similarity_fit=True)[upper].mean() == pytest.approx(0.191, abs=5e-4)
    quality = pd.read_csv(tmp_path / "quality.csv").set_index("subject")
    assert set(quality.index[quality.nonmanifold_edges == 0]) == {"09_4j", "09_4l"}
    assert (
        quality.nonmanifold_edges.max() == 22
        and quality.duplicate_simplices.max() == 12
        and quality.components.max() == 5
    )
    assert (quality.fixed_orient > 0).sum() == 1 and quality.resample_mean.max() < 0.02


def test_the_mandibles_without_landmarks(data_root: Path, tmp_path: Path) -> None:
    """Principal axes and closest points, judged by the landmarks that they did not see: 0.31 mm, of which 0.277 is shape."""
    few = ("07_5c", "08_6a", "09_4j", "09_4l", "13_5d")
    dataset = Dataset(**{**vars(mandibles(data_root)), "include": few})
    prepare_cohort(dataset, Prepare(n_points=300, align="pca_icp", keep_full=False), tmp_path, limits=Limits(workers=2))
    marks = np.stack([m for m in load_cohort(tmp_path).landmarks if m is not None])
    best = pairwise_residuals(list(marks))[np.triu_indices(len(few), 1)].mean()
    assert pairs(marks) < 1.25 * best


def test_faces_in_correspondence_stay_so(data_root: Path, tmp_path: Path) -> None:
    folder = data_root / "face_correspondence_ict"
    dataset = Dataset(path=str(folder), pattern="*.obj.gz", include=("generic_neutral_mesh", "jawOpen", "identity002"))
    options = Prepare(merge=False, components="all", orient=False, drop_duplicates=False, drop_degenerate=False, drop_unreferenced=False,
                      resample="none", n_points=None, align="gpa", keep_full=False)  # fmt: skip
    prepare_cohort(dataset, options, tmp_path, limits=Limits(workers=2))
    found = dict(zip(load_cohort(tmp_path).subjects, load_cohort(tmp_path).shapes, strict=True))
    neutral, jaw = found["generic_neutral_mesh"], found["jawOpen"]
    assert neutral.n_points == 26719 and np.array_equal(neutral.simplices, jaw.simplices)
    skin = slice(0, 9409)
    files = [read_shape(folder / f"{name}.obj.gz").points[skin] for name in ("generic_neutral_mesh", "jawOpen")]
    # vertex i is vertex i: what a rigid fit of the skin leaves is the same in the files and in the result
    left = [
        procrustes.residual(b, a, procrustes.fit(b, a)) for a, b in (files, (neutral.points[skin], jaw.points[skin]))
    ]
    assert left[0] == pytest.approx(left[1], rel=1e-6) and 0.3 < left[0] < 0.8  # cm


def test_the_faces_of_the_experiment_are_skin_and_sockets(data_root: Path) -> None:
    """Lashes and lids lie on the skin: merged with it they would be a quarter of what is compared."""
    options = yaml.safe_load((resource("config") / "experiment" / "faces.yaml").read_text(encoding="utf-8"))["prepare"]
    file = read_shape(data_root / "face_correspondence_ict" / "identity000.obj.gz")
    head, _ = clean(Raw(file.points, file.simplices, {}), Prepare(**options))
    assert np.array_equal(head.points, file.points[:14062])


def cells(data_root: Path, **more: object) -> Dataset:
    return Dataset(
        name="cells",
        path=str(data_root / "osteosarcoma_cells_2d"),
        pattern="cells.txt",
        split=True,
        kind="curves",
        closed=True,
        labels={"line": "cell_lines.txt", "treatment": "treatments.txt"},
        **more,  # type: ignore[arg-type]
    )


def test_the_cell_outlines(data_root: Path) -> None:
    subjects = scan(cells(data_root))
    assert len(subjects) == 650
    labels = pd.DataFrame([s.labels for s in subjects]).value_counts()
    assert labels["dunn", "control"] == 204 and labels["dlm8", "jasp"] == 62
    done = validate_cohort(cells(data_root), Prepare(align="none"), limits=Limits(workers=2))
    checks = [f.check for f in done.findings]
    assert checks.count("repeated") == 304 and checks.count("duplicate_subject") == 2 and done.bad() == ()
    points = [f["points"] for f in done.facts if f is not None]
    assert (min(points), max(points), np.median(points)) == (20, 1759, 240)
    # SOURCE.txt counts 370 that touch or cross themselves; on the pixel grid every one is a touch
    known = [f for f in done.facts if f is not None]
    assert sum(f["self_contacts"] > 0 for f in known) == 370 and sum(f["self_crossings"] for f in known) == 0
    assert {f["unit_guess"] for f in known} == {"pixel"}
    # by signed area none runs clockwise in the file's axes (x right, y up)
    assert sum(f.get("clockwise_curves", 0) for f in done.facts if f is not None) == 0


def test_cells_are_resampled_and_turned_anticlockwise(data_root: Path, tmp_path: Path) -> None:
    prepare_cohort(
        cells(data_root, include=("cells_000*",)),
        Prepare(n_points=60, align="none"),
        tmp_path,
        limits=Limits(workers=0),
    )
    found = load_cohort(tmp_path)
    assert len(found.subjects) == 9 and set(found.table.treatment) == {"control"}
    assert all((s.n_points, s.dimension, s.kind) == (60, 2, "curves") for s in found.shapes)


def test_the_zoo_as_a_cohort(data_root: Path, tmp_path: Path) -> None:
    dataset = Dataset(path=str(data_root / "format_zoo_trimesh"), pattern="**/*.*[!dt]", stem=r"(.+)$")
    assert len(scan(dataset)) == 37
    prepare_cohort(
        dataset,
        Prepare(on_bad="skip", n_points=None, align="none", resample="none"),
        tmp_path,
        limits=Limits(workers=2),
    )
    quality = pd.read_csv(tmp_path / "quality.csv").set_index("subject")
    assert len(quality) == 37 and len(load_cohort(tmp_path).subjects) == 21
    assert quality.findings[quality.severity == "error"].str.len().min() > 20
    bunny = quality.loc["bunny.ply"]
    assert (bunny.nonmanifold_edges, bunny.duplicate_simplices, bunny.unreferenced_points, bunny.boundary_edges) == (
        150,
        87,
        25,
        123,
    )
    assert quality.components["soup.stl"] == 100 and not quality.watertight["soup.stl"]
