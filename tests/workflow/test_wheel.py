"""The wheel alone, outside the checkout: it brings kernels, configuration and workflow, and runs a study."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import shapeflow

from .running import TINY

CHECKOUT = Path(shapeflow.__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHECKOUT / "pyproject.toml").is_file(), reason="these tests run beside an installed wheel"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = {".git", ".venv", ".snakemake", "results", "build", "__pycache__", "shapeflow.egg-info"}
    import shutil

    shutil.copytree(CHECKOUT, source, ignore=lambda _, names: ignored & set(names))
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--wheel-dir",
        str(folder),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_carries_everything(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "Snakefile",
        "config/config.yaml",
        "config/experiment/widths.yaml",
        "workflow/rules/match.smk",
        "workflow/scripts/match.py",
    ):
        assert f"shapeflow/_data/{needed}" in names
    assert any(name.startswith("shapeflow/_data/kernels/") for name in names)
    assert any(name.startswith("shapeflow/report/templates/") for name in names), "the page's template"
    assert "hydra_plugins/shapeflow_plugins/launcher.py" in names
    assert not any(name.startswith("tests/") or "__pycache__" in name for name in names)


def test_a_study_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """A clean environment that has the dependencies (through PYTHONPATH, which reads no .pth) and the wheel, and no checkout."""
    env = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
    python = env / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True, capture_output=True
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
        "OMP_NUM_THREADS": "1",
    }
    where = subprocess.run(
        [
            str(python),
            "-c",
            "import shapeflow; from shapeflow.resources import resource; print(shapeflow.__file__, resource('kernels'))",
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(CHECKOUT) not in where and where.count(str(env)) == 2
    overrides = [
        o for o in TINY if not o.startswith(("backend", "report"))
    ]  # the native backend from the wheel's kernels, and the page
    done = subprocess.run(
        [str(env / "bin" / "shapeflow"), "-m", *overrides, "sigma=0.3", "hydra.launcher.cores=2"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert list(tmp_path.glob("results/demo/studies/default/report.html"))
