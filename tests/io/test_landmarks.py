"""Landmarks: one shape of answer from many shapes of file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shapeflow.errors import MeshError
from shapeflow.io import Landmarks, read_landmarks, write_landmarks

FCSV = """# Markups fiducial file version = 4.11
# CoordinateSystem = LPS
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,9.5,-2.25,1e1,0,0,0,1,1,1,0,condyle,,
2,1,2,3,0,0,0,1,1,1,0,angle,,
"""
MPS = """<?xml version="1.0"?><point_set_file><point_set><time_series>
<point><id>7</id><x>9.5</x><y>-2.25</y><z>10</z></point><point><id>9</id><x>1</x><y>2</y><z>3</z></point>
</time_series></point_set></point_set_file>"""


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.csv", "9.5 -2.25 10\n1 2 3\n", ("1", "2")),
        ("a.csv", "name,x,y,z\ncondyle,9.5,-2.25,10\nangle,1,2,3\n", ("condyle", "angle")),
        ("a.csv", '"left condyle";9.5;-2.25;10\n"angle";1;2;3\n', ("left condyle", "angle")),
        ("a.txt", "# two\n7\t9.5\t-2.25\t10\n9\t1\t2\t3\n", ("7", "9")),
        ("a.fcsv", FCSV, ("condyle", "angle")),
        ("a.mps", MPS, ("7", "9")),
    ],
)
def test_formats(tmp_path: Path, name: str, text: str, names: tuple[str, ...]) -> None:
    (tmp_path / name).write_text(text)
    found = read_landmarks(tmp_path / name)
    assert found.names == names and found.points.tolist() == [[9.5, -2.25, 10.0], [1.0, 2.0, 3.0]]


@pytest.mark.parametrize("d", [2, 3])
def test_written_landmarks_read_back_exactly(tmp_path: Path, d: int) -> None:
    points = np.random.default_rng(0).normal(size=(5, d))
    points[2] = np.nan
    marks = Landmarks(("a", "b c", "3", "d", "e"), points)
    write_landmarks(tmp_path / "a.csv", marks)
    back = read_landmarks(tmp_path / "a.csv")
    assert back.names == marks.names and np.array_equal(back.points, points, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "", "no landmarks"),
        ("a.csv", "1 2 3\nx y\n", "line 2"),
        ("a.csv", "a,1,2,3\na,4,5,6\n", "repeat"),
        ("a.mps", "<point_set>", "no MITK"),
        ("a.mps", "<!DOCTYPE x [<!ENTITY a 'b'>]><p/>", "entities"),
        ("a.mps", "<p><point><x>1</x></point></p>", "without numbers"),
        ("a.fcsv", "# columns = id,x,y,z\n1,2,3\n", "expected the columns"),
    ],
)
def test_refusals(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MeshError, match=says) as caught:
        read_landmarks(tmp_path / name)
    assert name in str(caught.value)


def test_both_landmark_files_of_a_mandible(data_root: Path) -> None:
    folder = data_root / "mouse_mandible_dp1tyb"
    manual, alignment = read_landmarks(folder / "07_5c.csv"), read_landmarks(folder / "07_5c.mps")
    assert manual.points.shape == (17, 3) and alignment.points.shape == (12, 3)
    assert np.linalg.norm(manual.points[0] - alignment.points[0]) < 0.6  # the same place, set by hand twice, in mm
