"""Sheets as spreadsheets write them: what is told from the text, and what is refused with the words that mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shapeflow.errors import ConfigError
from shapeflow.prepare.labels import read_labels

SUBJECTS = ("s01", "s02", "s03")


def rows(folder: Path, content: str | bytes, column: str | None = None) -> dict[str, Any]:
    data = content.encode() if isinstance(content, str) else content
    (folder / "data.csv").write_bytes(data)
    return {i: dict(row) for i, row in read_labels("data.csv", column, folder, SUBJECTS).rows.items()}


@pytest.mark.parametrize(
    "content",
    [
        "subject,group,kg\ns01,a b,1.5\ns02,c,2\n",
        "subject;group;kg\ns01;a b;1,5\ns02;c;2,0\n",
        "subject\tgroup\tkg\ns01\ta b\t1.5\ns02\tc\t2\n",
        "subject\tgroup\tkg\ns01\ta b\t1,5\ns02\tc\t2\n",
        'subject group kg\ns01 "a b" 1.5\ns02 c 2\n',
        "\ufeffsubject,group,kg\r\ns01,a b,1.5\r\ns02,c,2\r\n",
        "subject,group,kg\ns01,a b,1.5\ns02,c,2".encode("utf-16"),
        "subject,group,kg,\ns01, a b ,1.5,\ns02,c,2,\n,,,\n\n,,,\n",
        "group,subject,kg\na b,s01,1.5\nc,s02,2\n",
        '"","group","kg"\n"s01","a b",1.5\n"s02","c",2\n',
        ",subject,group,kg\n0,s01,a b,1.5\n1,s02,c,2\n",
    ],
)
def test_one_sheet_as_many_programs_write_it(tmp_path: Path, content: str | bytes) -> None:
    found = rows(tmp_path, content)
    assert [{k: row[k] for k in ("group", "kg")} for row in found.values()] == [
        {"group": "a b", "kg": 1.5},
        {"group": "c", "kg": 2.0},
    ]
    assert list(found) == ["s01", "s02"]


def test_a_sheet_of_ids_only_has_no_columns(tmp_path: Path) -> None:
    assert rows(tmp_path, "subject\ns01\ns02\n") == {"s01": {}, "s02": {}}


def test_a_group_called_none_is_a_group(tmp_path: Path) -> None:
    found = rows(tmp_path, "subject,drug\ns01,None\ns02,NA\ns03,yes\n")
    assert [row["drug"] for row in found.values()] == ["None", None, "yes"]


def test_thousands_are_not_taken_for_a_decimal_comma(tmp_path: Path) -> None:
    assert rows(tmp_path, "subject\tn\ns01\t1,234\ns02\t2,345\n")["s01"]["n"] == "1,234"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("subject,group\n", "no row below its header"),
        ("subject,group\ns01,ä\n".encode("latin-1"), "line 2.*CSV UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08", "Excel.*CSV"),
        ("subject,group\ns01,a\ns01,b\n", "several rows for s01 in its column of ids .subject.; .*Remove what repeats"),
        ("group,mouse\na,s01\na,s02\n", "several rows for a in its column of ids .group, the first.*dataset.label_id="),
        ("subject,group\ns01,a\n,b\n", "line 3 has no id"),
        ("subject,group,group\ns01,a,b\n", "2 columns named 'group'"),
        ("subject,group\ns01,a\ns02,b,c\n", "line 3 has 3 values under 2 columns"),
        ("My sheet,,\nsubject,group,kg\ns01,a,1\n", "column 2 has no name.*first line"),
    ],
)
def test_what_is_no_sheet_is_refused_by_line(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        rows(tmp_path, content)


def test_a_sheet_that_lies_elsewhere_is_told_where_it_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("subject,group\ns01,a\n")
    with pytest.raises(ConfigError, match="relative to dataset.path.*dataset.labels=data.csv"):
        read_labels("meshes/data.csv", None, tmp_path, SUBJECTS)
