"""How much memory a process may use, where a container or a batch system says."""

from __future__ import annotations

from pathlib import Path

import pytest

from shapeflow.memory import _control_groups


def group(folder: Path, limit: str, used: int, cached: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"max": limit, "current": str(used), "stat": f"anon 5\ninactive_file {cached}\nactive_file 7"}
    for name, text in contents.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    path = tmp_path / "membership"
    path.write_text("0::/slurmstepd.scope/job_7/step_0\n")
    return path


def test_without_a_limit_nobody_says(tmp_path: Path, membership: Path) -> None:
    assert _control_groups(tmp_path / "nowhere", membership) is None
    group(tmp_path / "root", "max", 100)
    assert _control_groups(tmp_path / "root", membership) is None


def test_a_container_limits_the_root_that_it_shows(tmp_path: Path) -> None:
    group(tmp_path / "root", "1000", 300)
    assert _control_groups(tmp_path / "root", tmp_path / "nowhere") == 700


def test_a_batch_system_limits_a_group_below_and_the_tightest_counts(tmp_path: Path, membership: Path) -> None:
    root = tmp_path / "root"
    group(root / "slurmstepd.scope" / "job_7", "1000", 400)
    group(root / "slurmstepd.scope" / "job_7" / "step_0", "max", 10)
    assert _control_groups(root, membership) == 600
    group(root, "500", 450)
    assert _control_groups(root, membership) == 50
    group(root, "500", 600)
    assert _control_groups(root, membership) == 0


def test_cached_files_count_as_free(tmp_path: Path) -> None:
    group(tmp_path / "root", "1000", 990, cached=600)
    assert _control_groups(tmp_path / "root", tmp_path / "nowhere") == 610
