"""A folder in, a cohort out: the same bytes each time, everything recorded, bad subjects named before any result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from shapeflow.errors import ConfigError, MeshError
from shapeflow.io import Landmarks, read_landmarks, read_shape, write_landmarks, write_shape
from shapeflow.io.vtkfiles import polydata
from shapeflow.prepare import Limits, Prepare, load_cohort, load_transform, prepare_cohort, rehearse, validate_cohort
from shapeflow.prepare.dataset import Dataset
from shapeflow.prepare.outliers import of_alignment
from shapeflow.prepare.summary import text
from shapeflow.prepare.transform import reflection
from shapeflow.shape import Shape
from shapeflow.study.prepared import Subjects, labels_of
from tests.io.shapes import loop, rotation
from tests.prepare.folders import HERE, cohort, write
from tests.prepare.folders import bumpy as individual

QUICK = Prepare(n_points=80)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def findings(out: Path, check: str) -> list[str]:
    table = pd.read_csv(out / "findings.csv", keep_default_na=False)
    return list(table.subject[table.check == check])


def test_what_is_written(tmp_path: Path) -> None:
    prepare_cohort(cohort(tmp_path / "in"), QUICK, tmp_path / "out", limits=HERE)
    found = load_cohort(tmp_path / "out")
    assert list(found.table.columns) == [
        "subject",
        "group",
        "age",
        "n_points",
        "n_simplices",
        "kind",
        "dimension",
        "scale",
        "mirrored",
    ]
    assert found.subjects == tuple(f"s{i}" for i in range(6)) and list(found.table.group) == list("ABABAB")
    assert all(s.n_points == 80 for s in found.shapes) and all(
        m is not None and m.shape == (6, 3) for m in found.landmarks
    )
    quality = pd.read_parquet(tmp_path / "out" / "quality.parquet")
    assert {"severity", "components", "watertight", "resample_p95", "align_residual", "fixed_orient"} <= set(
        quality.columns
    )
    assert quality.watertight.all() and (quality.full_points == 290).all()
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]


def test_transforms_lead_from_the_file_to_the_result_and_back(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "in")
    prepare_cohort(
        dataset, Prepare(n_points=80, scale=0.5, similarity=True, mirror=("s2",)), tmp_path / "out", limits=HERE
    )
    for i in range(6):
        transform = load_transform(tmp_path / "out" / f"s{i}.transform.json")
        full = read_shape(tmp_path / "out" / f"s{i}.full.vtk")
        original = read_shape(tmp_path / "in" / f"s{i}.vtk")
        assert np.allclose(transform.apply(original.points), full.points)
        assert np.allclose(transform.inverse().apply(full.points), original.points)
        marks = read_landmarks(tmp_path / "in" / f"s{i}.landmarks.csv").points
        assert np.allclose(transform.apply(marks), read_landmarks(tmp_path / "out" / f"s{i}.landmarks.csv").points)
        assert transform.reflects == (i == 2)
    table = load_cohort(tmp_path / "out").table
    assert list(table.mirrored) == [False, False, True, False, False, False] and table.scale.between(0.3, 0.7).all()


def test_the_full_mesh_knows_where_it_lies_on_the_decimated_one(tmp_path: Path) -> None:
    prepare_cohort(cohort(tmp_path / "in", 3), QUICK, tmp_path / "out", limits=HERE)
    coarse, full = read_shape(tmp_path / "out" / "s1.vtk"), read_shape(tmp_path / "out" / "s1.full.vtk")
    on = np.einsum(
        "nk,nkd->nd", full.point_data["weights"], coarse.points[coarse.simplices[full.point_data["simplex"]]]
    )
    assert np.linalg.norm(on - full.points, axis=1).max() < 0.1 * full.size()


def test_twice_is_the_same_bytes_in_whatever_processes(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "in", 4)
    prepare_cohort(dataset, QUICK, tmp_path / "a", limits=HERE)
    prepare_cohort(dataset, QUICK, tmp_path / "b", limits=Limits(workers=2))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_vertices_in_correspondence_stay_so(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "in", 4, landmarks=False)
    options = Prepare(align="gpa", resample="none", n_points=None, merge=False, components="all")
    prepare_cohort(dataset, options, tmp_path / "out", limits=HERE)
    shapes = load_cohort(tmp_path / "out").shapes
    assert all(np.array_equal(s.simplices, shapes[0].simplices) for s in shapes)
    points = np.stack([s.points for s in shapes])
    assert np.linalg.norm(points - points.mean(0), axis=2).max() < 0.2
    assert not list((tmp_path / "out").glob("*.full.vtk"))


def test_bad_subjects_stop_everything_up_front_or_are_left_out(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "in", 5)
    (tmp_path / "in" / "s1.vtk").write_bytes((tmp_path / "in" / "s1.vtk").read_bytes()[:600])
    write_landmarks(tmp_path / "in" / "s3.landmarks.csv", Landmarks(("m", "n"), np.zeros((2, 2))))
    with pytest.raises(MeshError, match=r"(?s)2 of 5 subjects cannot be used.*s1: s1\.vtk promises.*on_bad=skip"):
        prepare_cohort(dataset, QUICK, tmp_path / "out", limits=HERE)
    quality = pd.read_csv(tmp_path / "out" / "quality.csv")
    assert (
        list(quality.subject[quality.severity == "error"]) == ["s1", "s3"]
        and not (tmp_path / "out" / "subjects.csv").exists()
    )
    prepare_cohort(dataset, Prepare(n_points=80, on_bad="skip"), tmp_path / "out", limits=HERE)
    assert load_cohort(tmp_path / "out").subjects == ("s0", "s2", "s4")
    assert len(pd.read_csv(tmp_path / "out" / "quality.csv")) == 5


def test_a_cohort_without_one_usable_subject_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.vtk").write_bytes(b"nothing")
    with pytest.raises(MeshError, match="1 of 1 subjects cannot be used"):
        prepare_cohort(Dataset(path=str(tmp_path)), Prepare(on_bad="skip"), tmp_path / "out", limits=HERE)


def test_a_mesh_that_kills_its_reader_costs_one_subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood stands in for the crash that a library may have tomorrow: a file whose reader needs more than the limit."""
    dataset = cohort(tmp_path / "in", 3)
    n = 60_000_000
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {n}\nproperty double x\nproperty double y\nproperty double z\nend_header\n"
    with (tmp_path / "in" / "s9.ply").open("wb") as file:
        file.write(header.encode())
        file.truncate(len(header) + 24 * n)  # sparse: 1.4 GB that take no disk
    both = Dataset(name="test", path=dataset.path, landmarks=dataset.landmarks)
    prepare_cohort(both, Prepare(n_points=80, on_bad="skip"), tmp_path / "out", limits=Limits(workers=1, gigabytes=1.0))
    assert load_cohort(tmp_path / "out").subjects == ("s0", "s1", "s2")
    quality = pd.read_csv(tmp_path / "out" / "quality.csv").set_index("subject")
    assert quality.severity["s9"] == "error" and "memory" in quality.findings["s9"]


def test_files_that_crash_and_hang_their_reader_cost_one_subject_each(tmp_path: Path) -> None:
    """Not stand-ins: one digit of an offset in a raw .vtp takes VTK's XML reader down, and a legacy file whose metadata promise more lines than
    follow keeps its legacy reader busy for ever (VTK 9.7; should a later one refuse them, they are bad files all the same)."""
    folder = tmp_path / "in"
    dataset = replace(cohort(folder, 3, labels=False), pattern=None)
    (folder / "crash.vtp").write_bytes(raw_vtp(individual(7)).replace(b'offset="', b'offset="9'))
    (folder / "hang.vtk").write_bytes(endless_vtk())
    limits = Limits(workers=1, seconds=3.0)
    prepare_cohort(dataset, replace(QUICK, on_bad="skip"), tmp_path / "out", limits=limits)
    assert load_cohort(tmp_path / "out").subjects == ("s0", "s1", "s2")
    wrong = pd.read_csv(tmp_path / "out" / "findings.csv").query("severity == 'error'").set_index("subject")
    assert set(wrong.index) == {"crash", "hang"}
    if (wrong.check == "reader_stopped").all():
        assert "SIG" in wrong.sentence["crash"] and "3 s" in wrong.sentence["hang"]


def raw_vtp(shape: Shape) -> bytes:
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

    writer = vtkXMLPolyDataWriter()
    writer.SetDataModeToAppended()
    writer.SetEncodeAppendedData(0)
    writer.SetInputData(polydata(shape))
    writer.WriteToOutputStringOn()
    writer.Write()
    return writer.GetOutputString()


def endless_vtk() -> bytes:
    head = "# vtk DataFile Version 5.1\nx\nASCII\nDATASET POLYDATA\nPOINTS 3 double\n0 0 0 1 0 0 0 1 0\n"
    return (head + "METADATA\nINFORMATION 7\nNAME L2_NORM_RANGE LOCATION vtkDataArray\nDATA nan 0 1").encode()


def test_the_cohort_tells_units_duplicates_mirrors_and_strays(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    dataset = cohort(folder, 6)
    tenfold = individual(20)
    write(folder, "tenfold", tenfold.replace(points=10 * tenfold.points))
    other = individual(21)
    write(
        folder, "mirrored", other.replace(points=reflection().apply(other.points), simplices=other.simplices[:, ::-1])
    )
    again = read_shape(folder / "s3.vtk")
    write(folder, "again", again.replace(points=again.points @ rotation(9).T + 7))
    (folder / "ghost.landmarks.csv").write_text("a,0,0,0\n")
    out = tmp_path / "landmarks"
    prepare_cohort(dataset, QUICK, out, limits=Limits(workers=2))
    assert findings(out, "unit") == ["tenfold"]
    assert findings(out, "duplicate_subject") == ["s3"]  # of "again", which comes first
    assert findings(out, "mirror") == ["mirrored"]
    assert findings(out, "mesh_without_labels") == ["again", "mirrored", "tenfold"]
    assert len(findings(out, "landmarks_without_mesh")) == 1
    assert findings(out, "frames") == [""]
    assert not load_cohort(out).table.mirrored.any()
    remedy = pd.read_csv(tmp_path / "landmarks" / "findings.csv").set_index("check").remedy
    assert "prepare.scale={tenfold:0.1}" in remedy["unit"] and "prepare.mirror=[mirrored]" in remedy["mirror"]
    cured = Prepare(n_points=80, scale={"tenfold": 0.1}, mirror=("mirrored",))
    prepare_cohort(dataset, cured, tmp_path / "cured", limits=HERE)
    assert not findings(tmp_path / "cured", "unit") and not findings(tmp_path / "cured", "mirror")


def test_validation_changes_nothing_and_says_what_preparation_would_do(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "in", 4)
    shape = individual(0)
    dirty = np.concatenate([shape.simplices[:, [0, 2, 1]], shape.simplices[:2]])
    write(tmp_path / "in", "s0", shape.replace(simplices=dirty))
    done = validate_cohort(dataset, limits=HERE)
    mine = {f.check: f for f in done.findings if f.subject == "s0"}
    assert {"duplicate", "nonmanifold"} <= set(mine) and mine["duplicate"].severity == "info"
    assert "dropped" in mine["duplicate"].remedy and done.bad() == ()
    done = validate_cohort(dataset, Prepare(drop_duplicates=False), limits=HERE)
    assert next(f for f in done.findings if f.check == "duplicate").remedy == "write prepare.drop_duplicates=true"


def test_landmarks_in_another_frame_are_noticed(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "in", 3)
    marks = read_landmarks(tmp_path / "in" / "s1.landmarks.csv")
    write_landmarks(tmp_path / "in" / "s1.landmarks.csv", Landmarks(marks.names, marks.points * [-1, -1, 1] + 40))
    prepare_cohort(dataset, QUICK, tmp_path / "out", limits=HERE)
    assert findings(tmp_path / "out", "landmarks_far") == ["s1"]


def test_a_landmark_that_one_subject_lacks_is_told_and_compared_by_name(tmp_path: Path) -> None:
    """s1 lacks its second landmark, s2 its last and has the others in another order: as many rows, which correspond by name only."""
    dataset = cohort(tmp_path / "in", 4, posed=False)
    marks = {i: read_landmarks(tmp_path / "in" / f"s{i}.landmarks.csv") for i in (1, 2)}
    for i, kept in ((1, [0, *range(2, len(marks[1].names))]), (2, list(range(len(marks[2].names) - 1))[::-1])):
        path = tmp_path / "in" / f"s{i}.landmarks.csv"
        write_landmarks(path, Landmarks(tuple(marks[i].names[j] for j in kept), marks[i].points[kept]))
    options = replace(QUICK, align="none")
    prepare_cohort(dataset, options, tmp_path / "out", limits=HERE)
    assert findings(tmp_path / "out", "landmarks_missing") == ["s1", "s2"]
    subjects = Subjects(tmp_path / "out")
    a, b = subjects.common_landmarks("s1", "s2")
    shared = [0, *range(2, len(marks[1].names) - 1)]
    np.testing.assert_allclose(a, marks[1].points[shared], atol=1e-12)
    np.testing.assert_allclose(b, marks[2].points[shared], atol=1e-12)
    a, b = subjects.common_landmarks("s0", "s1")
    assert len(a) == len(b) == len(marks[1].names) - 1


def test_a_row_left_out_of_landmarks_without_names_is_said_to_shift_the_others(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "in", 3)
    for i in range(3):
        path = tmp_path / "in" / f"s{i}.landmarks.csv"
        np.savetxt(path, read_landmarks(path).points[i == 1 :])
    done = rehearse(dataset, QUICK, tmp_path / "out", limits=HERE)
    said = [f for f in done if f.check == "landmarks_missing"]
    assert [f.subject for f in said] == ["s1"] and "nan nan nan" in said[0].remedy


def test_a_group_called_none_stays_one(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "in", 3)
    (tmp_path / "in" / "labels.csv").write_text("id,drug\ns0,None\ns1,yes\ns2,\n")
    prepare_cohort(dataset, QUICK, tmp_path / "out", limits=HERE)
    assert labels_of(tmp_path / "out" / "subjects.csv")["drug"].fillna("missing").tolist() == ["None", "yes", "missing"]


def test_a_misfit_is_judged_beside_the_others_without_the_reference() -> None:
    """Landmarks a tenth as large: near the middle of their mesh, not far from it. The reference differs from itself by rounding."""
    residuals = (0.0345, 0.0108, 0.339, 0.0243, 5.8e-17, 0.0282, 0.0253)
    found = of_alignment(
        [f"s{i}" for i in range(7)], SimpleNamespace(method="landmarks", residuals=residuals, mirrored=(np.nan,) * 7)
    )
    assert [(f.check, f.subject) for f in found] == [("misfit", "s2")]


def test_a_mirror_image_is_noticed_where_nothing_is_aligned(tmp_path: Path) -> None:
    """In one frame already, with vertices that correspond or not; and reflected by nobody."""
    dataset = cohort(tmp_path / "in", 6, posed=False, landmarks=False)
    other = individual(2)
    flipped = reflection().apply(other.points * [1.02, 0.98, 1.0])
    write(tmp_path / "in", "mirrored", other.replace(points=flipped), False)
    for name, options in (("decimated", QUICK), ("corresponding", Prepare(resample="none", orient=False))):
        prepare_cohort(dataset, replace(options, align="none"), tmp_path / name, limits=Limits(workers=2))
        assert findings(tmp_path / name, "mirror") == ["mirrored"]
        assert np.isnan(pd.read_parquet(tmp_path / name / "quality.parquet").align_residual).all()
        transform = load_transform(tmp_path / name / "mirrored.transform.json")
        assert np.array_equal(transform.matrix, np.eye(4))


def test_a_rehearsal_finds_what_preparation_would_and_writes_no_shape(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "in", 5)
    (tmp_path / "in" / "s1.vtk").write_bytes(b"# vtk DataFile Version 3.0")
    found = rehearse(dataset, QUICK, tmp_path / "out", limits=HERE)
    assert [f.subject for f in found if f.severity == "error"] == ["s1"]
    assert sorted(contents(tmp_path / "out")) == ["findings.csv", "quality.csv", "quality.parquet"]
    quality = pd.read_csv(tmp_path / "out" / "quality.csv").set_index("subject")
    assert quality.resample_p95.notna().sum() == 4 and quality.align_residual.notna().sum() == 4
    told = text(found, 5)
    assert told.startswith("5 subjects: 1 subject cannot be used, 0 warnings")
    assert "error    s1: s1.vtk" in told and "prepare.on_bad=skip" in told and "remark   the cohort: " in told
    assert "remark" not in text(found, 5, remarks=False)


def test_planar_curves(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(4):
        write_shape(folder / f"c{i}.vtk", loop(90 + 10 * i, clockwise=i == 2))
    prepare_cohort(Dataset(path=str(folder)), Prepare(n_points=40, align="none"), tmp_path / "out", limits=HERE)
    found = load_cohort(tmp_path / "out")
    assert {(s.n_points, s.dimension, s.kind) for s in found.shapes} == {(40, 2, "curves")}
    for shape in found.shapes:
        a, b = shape.points[shape.simplices[:, 0]], shape.points[shape.simplices[:, 1]]
        assert (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() > 0
    assert findings(tmp_path / "out", "clockwise") == ["c2"]


def test_names_that_are_no_subjects(tmp_path: Path) -> None:
    dataset = cohort(tmp_path / "in", 3)
    with pytest.raises(ConfigError, match="prepare.mirror names z, no subject; the subjects are s0, s1, s2"):
        prepare_cohort(dataset, Prepare(mirror=("z",)), tmp_path / "out", limits=HERE)
    with pytest.raises(MeshError, match="Run the prepare step first"):
        load_cohort(tmp_path)


def test_a_bar_for_a_person_none_for_a_log(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    dataset = cohort(tmp_path / "in", 3)
    validate_cohort(dataset, limits=HERE)
    assert capsys.readouterr().err == ""
    validate_cohort(dataset, limits=HERE, progress=True)
    assert "3/3" in capsys.readouterr().err
