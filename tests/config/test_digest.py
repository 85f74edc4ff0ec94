"""Editing the package reruns what it must: digests follow the imports of a step, however deep."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shapeflow
from shapeflow.config.digest import source_digest, step_modules
from shapeflow.config.plan import STEPS
from shapeflow.errors import ShapeflowError

PACKAGE = Path(shapeflow.__file__).parent


def digests(package: Path) -> dict[str, str]:
    """Digests of all steps as a copy of the package computes them."""
    code = "from shapeflow.config.digest import source_digest as d; from shapeflow.config.plan import STEPS; print([d(s) for s in STEPS])"
    environment = {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=package.parent, env=environment, capture_output=True, text=True, check=True
    )
    return dict(zip(STEPS, eval(done.stdout), strict=True))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    package = tmp_path / "shapeflow"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("kernels", "workflow", "config"):
        shutil.copytree(PACKAGE.parent / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def test_what_the_steps_depend_on() -> None:
    assert "shapeflow.matching.match" in step_modules("match")
    assert {"shapeflow.ops.radial", "shapeflow.ops.backends.keops"} <= set(step_modules("match"))
    assert {"shapeflow.study.match", "shapeflow.study.specs", "shapeflow.study.rows"} <= set(step_modules("match"))
    assert "shapeflow.atlas.estimate" in step_modules("atlas")
    assert not any("atlas" in m.split(".")[1:2] or m.endswith("atlas_specs") for m in step_modules("match"))
    assert not any("statistics" in module for module in step_modules("atlas")), (
        "no atlas is estimated again for a new test"
    )
    assert not any(m.startswith("shapeflow.report") for m in step_modules("match"))
    assert not any(m.startswith(("shapeflow.matching", "shapeflow.ops")) for m in step_modules("prepare"))


def test_an_edit_reaches_the_steps_that_use_it_and_no_other(copy: Path) -> None:
    before = digests(copy)
    assert before == {step: source_digest(step) for step in STEPS}
    kernel = copy / "ops" / "radial.py"
    kernel.write_text(kernel.read_text() + "\nNEW = 1\n")
    after = digests(copy)
    changed = {step for step in STEPS if before[step] != after[step]}
    assert {"match", "atlas", "compile_kernels"} <= changed
    assert not {"generate", "prepare"} & changed


def test_an_edit_of_what_steps_share_reaches_each_of_them(copy: Path) -> None:
    before = digests(copy)
    shared = copy / "study" / "rows.py"
    shared.write_text(shared.read_text().replace('"gamma": config', '"gamma": 2 * config'))
    after = digests(copy)
    assert {step for step in STEPS if before[step] != after[step]} == {"compile_kernels", "match", "atlas"}


def test_comments_and_docstrings_change_nothing(copy: Path) -> None:
    before = digests(copy)
    for path in (copy / "ops" / "radial.py", copy / "study" / "match.py", copy / "matching" / "match.py"):
        path.write_text("# a comment\n" + path.read_text().replace('"""', '"""Differently: ', 1))
    assert digests(copy) == before


def test_a_kernel_source_reaches_the_steps_that_compile_it(copy: Path) -> None:
    before = digests(copy)
    header = sorted((copy.parent / "kernels").glob("*.h"))[0]
    header.write_text(header.read_text() + "\n#define NEW 1\n")
    after = digests(copy)
    assert before["match"] != after["match"]
    assert before["prepare"] == after["prepare"]


def test_a_step_that_is_none() -> None:
    with pytest.raises(ShapeflowError, match="no step.*prepare"):
        source_digest("frobnicate")
