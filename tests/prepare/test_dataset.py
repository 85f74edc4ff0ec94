"""Listing a folder: ids, labels, landmarks, and what to write when they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from shapeflow.errors import ConfigError
from shapeflow.prepare import Dataset, scan, unmatched


def touch(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return str(folder)


def ids(dataset: Dataset) -> list[str]:
    return [s.id for s in scan(dataset)]


def test_the_default_id_loses_every_mesh_suffix_and_nothing_else(tmp_path: Path) -> None:
    path = touch(
        tmp_path,
        "subject_1_r.vtk.vtk",
        "identity000.obj.gz",
        "mouse.v2.PLY",
        "a b.stl",
        "notes.md",
        ".hidden.vtk",
        "table.csv",
    )
    assert ids(Dataset(path=path)) == ["a_b", "identity000", "mouse.v2", "subject_1_r"]


def test_a_stem_rule_may_use_the_folder(tmp_path: Path) -> None:
    path = touch(tmp_path, "p1/left.ply", "p2/left.ply")
    assert ids(Dataset(path=path, pattern="*/left.ply", stem=r"^(?P<id>[^/]+)/")) == ["p1", "p2"]
    with pytest.raises(ConfigError, match="several files.*dataset.stem"):
        scan(Dataset(path=path, pattern="*/left.ply"))
    with pytest.raises(ConfigError, match="finds nothing"):
        scan(Dataset(path=path, pattern="*/left.ply", stem=r"(\d{7})"))


def test_include_and_exclude_take_ids_and_globs(tmp_path: Path) -> None:
    path = touch(tmp_path, "a1.vtk", "a2.vtk", "b1.vtk")
    assert ids(Dataset(path=path, include=("a*",), exclude=("a2",))) == ["a1"]
    assert ids(Dataset(path=path, exclude="b1")) == ["a1", "a2"]
    with pytest.raises(ConfigError, match="exclude names 'c1'.*a1, a2, b1"):
        scan(Dataset(path=path, exclude=("c1",)))
    with pytest.raises(ConfigError, match="leave none"):
        scan(Dataset(path=path, exclude=("*",)))


def test_labels_keep_their_types_and_text_ids(tmp_path: Path) -> None:
    path = touch(tmp_path, "007.vtk", "008.vtk", "009.vtk")
    (tmp_path / "data.csv").write_text("mouse;sex;weight\n007.vtk;f;20.5\n008;m;\n010;m;3\n")
    found = scan(Dataset(path=path, labels="data.csv"))
    assert [dict(s.labels) for s in found] == [
        {"sex": "f", "weight": 20.5},
        {"sex": "m", "weight": None},
        {"sex": None, "weight": None},
    ]
    left = unmatched(Dataset(path=path, labels="data.csv"))
    assert left.labels == ("010",) and left.unlabelled == ("009",)


def test_labels_of_one_line_a_subject(tmp_path: Path) -> None:
    (tmp_path / "cells.txt").write_text("0 0\n1 0\n1 1\n\n5 5\n6 5\n6 6\n\n")
    (tmp_path / "line.txt").write_text("dunn\ndlm8\n")
    dataset = Dataset(path=str(tmp_path), pattern="cells.txt", split=True, labels={"line": "line.txt"})
    found = scan(dataset)
    assert [(s.id, s.part, s.labels["line"]) for s in found] == [("cells_0001", 0, "dunn"), ("cells_0002", 1, "dlm8")]
    (tmp_path / "line.txt").write_text("dunn\n")
    with pytest.raises(ConfigError, match="1 lines for 2 subjects"):
        scan(dataset)


def test_landmarks_are_matched_and_strays_listed(tmp_path: Path) -> None:
    path = touch(tmp_path, "a.vtk", "b.vtk", "a.mps", "z.mps")
    dataset = Dataset(path=path, landmarks="{id}.mps")
    assert [s.landmarks_path and s.landmarks_path.name for s in scan(dataset)] == ["a.mps", None]
    assert unmatched(dataset).landmarks == ("z.mps",) and unmatched(dataset).unmarked == ("b",)


def test_landmarks_may_be_named_as_the_mesh_is(tmp_path: Path) -> None:
    path = touch(tmp_path, "Maus 1 [links].vtk", "Maus 1 [links].csv", "maus_2.vtk", "maus_2.csv")
    dataset = Dataset(path=path, landmarks="{id}.csv")
    assert [(s.id, s.landmarks_path and s.landmarks_path.name) for s in scan(dataset)] == [
        ("Maus_1__links_", "Maus 1 [links].csv"),
        ("maus_2", "maus_2.csv"),
    ]
    assert unmatched(dataset).landmarks == ()


def test_landmarks_may_lie_elsewhere(tmp_path: Path) -> None:
    path = touch(tmp_path / "meshes", "a.vtk", "b.vtk")
    touch(tmp_path / "marks", "a.csv", "z.csv")
    dataset = Dataset(path=path, landmarks=str(tmp_path / "marks" / "{id}.csv"))
    assert [s.landmarks_path and s.landmarks_path.name for s in scan(dataset)] == ["a.csv", None]
    assert unmatched(dataset).landmarks == (str(tmp_path / "marks" / "z.csv"),)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": ""}, "dataset.path=/folder"),
        ({"path": "nowhere"}, "does not exist"),
        ({"pattern": "*.ply"}, "1 .vtk.*dataset.pattern"),
        ({"pattern": "*.md"}, "no mesh"),
        ({"labels": "none.csv"}, "does not exist; the folder has data.csv"),
        ({"labels": "data.csv"}, "no id of data.csv"),
        ({"labels": "data.csv", "label_id": "name"}, "its columns are id, n_points"),
        ({"landmarks": "a.csv"}, r"\{id\}"),
        ({"stem": "["}, "no regular expression"),
        ({"stem": "abc"}, "a group"),
        ({"kind": "volumes"}, "auto, points, curves or surfaces"),
    ],
)
def test_refusals_say_what_to_write(tmp_path: Path, options: dict, says: str) -> None:
    touch(tmp_path, "a.vtk")
    (tmp_path / "data.csv").write_text("id,n_points\nq,1\n" if "label_id" in options else "id,x\nq,1\n")
    with pytest.raises(ConfigError, match=says):
        scan(Dataset(**{"path": str(tmp_path), **options}))


def test_a_label_column_may_not_take_a_name_of_ours(tmp_path: Path) -> None:
    touch(tmp_path, "a.vtk")
    (tmp_path / "data.csv").write_text("id,n_points\na,1\n")
    with pytest.raises(ConfigError, match="rename"):
        scan(Dataset(path=str(tmp_path), labels="data.csv"))
