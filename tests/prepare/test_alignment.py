"""Alignment recovers known motions, never reflects, and can be undone."""

from __future__ import annotations

import numpy as np
import pytest

from shapeflow.errors import ConfigError, MeshError
from shapeflow.io import Landmarks
from shapeflow.io.isolated import Limits
from shapeflow.prepare import Prepare, icp, procrustes
from shapeflow.prepare.alignment import align_cohort
from shapeflow.prepare.outliers import of_alignment
from shapeflow.prepare.transform import Transform, load_transform, reflection, save_transform, similarity, translation
from shapeflow.shape import Shape
from tests.io.shapes import loop, rotation
from tests.prepare.folders import HERE, MARKS, bumpy


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_known_motion_is_recovered(d: int, scale: float) -> None:
    x = np.random.default_rng(0).normal(size=(9, d))
    truth = similarity(rotation(1, d), scale, np.arange(d) + 1.0)
    y = truth.apply(x)
    x[4] = np.nan  # a missing landmark
    found = procrustes.fit(x, y, similarity_fit=True)
    assert np.allclose(found.matrix, truth.matrix) and found.scale == pytest.approx(scale)
    assert np.allclose(found.inverse().apply(found.apply(y)), y)
    if scale == 1.0:
        assert np.allclose(procrustes.fit(x, y).matrix, truth.matrix)


@pytest.mark.parametrize("d", [2, 3])
def test_a_mirror_image_is_rotated_never_reflected(d: int) -> None:
    x = np.random.default_rng(0).normal(size=(9, d))
    mirrored = x * np.array([-1.0, *[1.0] * (d - 1)])
    found = procrustes.fit(x, mirrored)
    assert np.linalg.det(found.matrix[:d, :d]) == pytest.approx(1.0) and not found.reflects
    assert procrustes.residual(x, mirrored, found) > 0.3


def test_too_few_points_are_refused() -> None:
    with pytest.raises(MeshError, match="at least 3"):
        procrustes.fit(np.eye(3)[:2], np.eye(3)[:2])


def test_generalised_procrustes_does_not_depend_on_the_poses() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(12, 3))
    sets = [base + 0.1 * rng.normal(size=base.shape) for _ in range(6)]
    moved = [x @ rotation(i).T + i for i, x in enumerate(sets)]
    size = lambda m: np.linalg.norm(m - m.mean(0))  # noqa: E731
    spread = []
    for group in (sets, moved):
        mean, transforms = procrustes.generalised(group, start=0)
        aligned = np.stack([t.apply(x) for t, x in zip(transforms, group, strict=True)])
        assert np.allclose(aligned.mean(0), mean, atol=1e-8)
        spread.append((np.linalg.norm(aligned - mean, axis=2).mean(), size(mean)))
    assert np.allclose(spread[0], spread[1])


def test_a_similarity_fit_keeps_the_mean_size() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(size=(12, 3))
    sets = [f * base @ rotation(i).T for i, f in enumerate((0.5, 1.0, 1.5))]
    mean, transforms = procrustes.generalised(sets, start=0, similarity_fit=True)
    size = lambda x: np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean())  # noqa: E731
    assert size(mean) == pytest.approx(np.mean([size(x) for x in sets]))
    assert all(procrustes.residual(x, mean, t) < 1e-8 for x, t in zip(sets, transforms, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_closest_points_find_any_pose(seed: int) -> None:
    fixed, shape = icp.sample(bumpy(0)), bumpy(0)
    truth = similarity(rotation(seed), 1.0, np.array([10.0, -20.0, 5.0]))
    found = icp.align(icp.sample(shape.replace(points=truth.apply(shape.points))), fixed)
    assert np.allclose(found.transform.after(truth).matrix, np.eye(4), atol=1e-3)
    assert found.residual < 1e-3 < found.mirrored_residual


def test_closest_points_in_the_plane() -> None:
    egg = loop(60)
    truth = similarity(rotation(3, 2), 1.0, np.array([4.0, 4.0]))
    found = icp.align(icp.sample(egg.replace(points=truth.apply(egg.points))), icp.sample(egg))
    assert np.abs(found.transform.after(truth).apply(egg.points) - egg.points).max() < 1e-3


def test_a_mirrored_subject_fits_better_reflected_and_is_not_reflected() -> None:
    shape = bumpy(0)
    found = icp.align(icp.sample(shape.replace(points=reflection().apply(shape.points))), icp.sample(shape))
    assert found.mirrored_residual < 0.05 * found.residual and not found.transform.reflects


def cohort(n: int = 5) -> tuple[list[str], list[Shape], list[Landmarks | None]]:
    shapes = [bumpy(i) for i in range(n)]
    moved = [s.replace(points=s.points @ rotation(i).T + 3.0 * i) for i, s in enumerate(shapes)]
    marks: list[Landmarks | None] = [Landmarks(tuple(map(str, MARKS)), s.points[list(MARKS)]) for s in moved]
    return [f"s{i}" for i in range(n)], moved, marks


@pytest.mark.parametrize("method", ["landmarks", "gpa", "pca_icp", "auto"])
def test_methods_bring_the_cohort_together(method: str) -> None:
    ids, shapes, marks = cohort()
    found = align_cohort(ids, shapes, marks, Prepare(align=method), HERE)
    points = np.stack([t.apply(s.points) for t, s in zip(found.transforms, shapes, strict=True)])
    assert found.method == ("landmarks" if method == "auto" else method)
    assert np.linalg.norm(points - points.mean(0), axis=2).mean() < 0.05  # vertices correspond; the bumps are 0.05 high
    home = ids.index(found.reference)
    assert np.allclose(shapes[home].masses() @ points[home], 0, atol=1e-9)
    assert not any(t.reflects for t in found.transforms) and all(t.scale == pytest.approx(1) for t in found.transforms)


def test_closest_points_report_the_subject_of_the_other_side() -> None:
    ids, shapes, _ = cohort(4)
    mirrored = shapes[1].replace(points=reflection().apply(shapes[1].points))
    found = align_cohort(
        ids, [shapes[0], mirrored, *shapes[2:]], [None] * 4, Prepare(align="pca_icp", reference="s0"), HERE
    )
    assert [(f.subject, f.check) for f in of_alignment(ids, found)] == [("s1", "mirror")]
    assert not any(t.reflects for t in found.transforms)


def test_processes_change_nothing() -> None:
    ids, shapes, marks = cohort(2)
    one, two = (align_cohort(ids, shapes, marks, Prepare(align="pca_icp"), Limits(workers=w)) for w in (0, 2))
    assert one.reference == two.reference
    assert all(np.array_equal(a.matrix, b.matrix) for a, b in zip(one.transforms, two.transforms, strict=True))


def test_the_reference_can_be_named() -> None:
    ids, shapes, marks = cohort()
    assert align_cohort(ids, shapes, marks, Prepare(align="landmarks", reference="s3"), HERE).reference == "s3"
    with pytest.raises(ConfigError, match="one of the subjects s0, s1"):
        align_cohort(ids, shapes, marks, Prepare(reference="x"), HERE)


def test_what_is_missing_is_said() -> None:
    ids, shapes, marks = cohort()
    with pytest.raises(ConfigError, match="1 of 5 subjects have none: s0"):
        align_cohort(ids, shapes, [None, *marks[1:]], Prepare(align="landmarks"), HERE)
    assert (
        align_cohort(ids[:2], shapes[:2], [None, marks[1]], Prepare(align="auto", reference="s1"), HERE).method
        == "pca_icp"
    )
    different = [shapes[0].replace(simplices=shapes[0].simplices[::-1]), *shapes[1:]]
    with pytest.raises(ConfigError, match="one connectivity"):
        align_cohort(ids, different, [None] * 5, Prepare(align="gpa"), HERE)


def test_landmarks_are_matched_by_name_not_by_row() -> None:
    ids, shapes, marks = cohort()
    shuffled = [Landmarks(m.names[::-1], m.points[::-1]) if i % 2 else m for i, m in enumerate(marks) if m is not None]
    found = align_cohort(ids, shapes, shuffled, Prepare(align="landmarks"), HERE)
    assert max(found.residuals) < 0.1


def test_transforms_are_saved_exactly(tmp_path) -> None:
    transform = similarity(rotation(5), 1.0 / 3.0, np.array([1e-9, 2.0, 3e9])).after(translation(np.ones(3)))
    save_transform(tmp_path / "a.json", transform, {"align": "gpa"})
    assert np.array_equal(load_transform(tmp_path / "a.json").matrix, transform.matrix)
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(MeshError, match="no transform"):
        load_transform(tmp_path / "b.json")
    assert Transform().apply(np.ones((2, 2))).tolist() == [[1, 1], [1, 1]]
