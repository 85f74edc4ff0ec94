"""What a finding tells the user to write can be pasted as it stands, whatever the subject is called."""

from __future__ import annotations

import pytest

from shapeflow.config.expand import expand
from shapeflow.prepare import Prepare
from shapeflow.prepare.wording import counted, listed, scaled

NAMES = ("s07", "09_4j", "007", "12", "1e3", "1_2", "true", "nan", "é", "mouse.v2", "a+b-c", "_")


def composed(tmp_path, override: str) -> dict:
    return dict(
        expand(["dataset=folder", f"dataset.path={tmp_path}", "sigma=1", "kernel=gaussian", override]).runs[0].config
    )


@pytest.mark.parametrize("name", NAMES)
def test_lists_of_subjects(tmp_path, name: str) -> None:
    assert composed(tmp_path, listed("dataset.exclude", [name, "other"]))["dataset"]["exclude"] == [name, "other"]
    assert composed(tmp_path, listed("prepare.mirror", [name]))["prepare"]["mirror"] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_factors(tmp_path, name: str) -> None:
    words = scaled(name, 0.1)
    if words.startswith("prepare.scale="):
        override = words.split(" (")[0]
    else:  # only a YAML file can say it
        folder = tmp_path / "conf" / "experiment"
        folder.mkdir(parents=True)
        (folder / "mine.yaml").write_text(f"# @package _global_\n{words.split(' in a file')[0]}\n", encoding="utf-8")
        config = (
            expand(["dataset=folder", f"dataset.path={tmp_path}", "sigma=1", "experiment=mine"], str(tmp_path / "conf"))
            .runs[0]
            .config
        )
        assert Prepare(**config["prepare"]).factor(name) == 0.1
        return
    assert Prepare(**composed(tmp_path, override)["prepare"]).factor(name) == 0.1


def test_counted() -> None:
    assert counted(1, "vertex", "lie") == "1 vertex lies" and counted(2, "vertex", "lie") == "2 vertices lie"
    assert counted(1, "triangle", "have") == "1 triangle has" and counted(0, "subject") == "0 subjects"
