"""The container recipe: what it names is there, and where an engine is given, it is built and a study runs in it.

    SHAPEFLOW_CONTAINER_BUILD="podman build" pytest -m slow tests/workflow/test_container.py

`docker build`, `buildah build`, and options of theirs are as good.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from shapeflow.config.expand import expand
from shapeflow.resources import resource

from .running import TINY

ROOT = resource("config").parent
RECIPE = ROOT / "workflow" / "envs" / "Containerfile"

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="an installed wheel has no pyproject")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instruction(name: str) -> str:
    """The arguments of the recipe's instructions of this name, continued lines joined."""
    text = RECIPE.read_text(encoding="utf-8").replace("\\\n", " ")
    return "\n".join(re.findall(rf"^{name} (.*)$", text, flags=re.M))


def test_its_python_is_one_that_the_package_supports() -> None:
    (version,) = re.findall(r"python:3\.(\d+)-slim", instruction("FROM"))
    low, high = re.findall(r"3\.(\d+)", project()["requires-python"])
    assert int(low) <= int(version) < int(high)


def test_what_it_installs_and_starts_is_there() -> None:
    (command,) = re.findall(r"pip (install .*)", instruction("RUN"))
    words = shlex.split(command)
    flags = subprocess.run([sys.executable, "-m", "pip", "install", "--help"], capture_output=True, text=True).stdout
    assert all(word in flags for word in words if word.startswith("--"))
    assert (ROOT / words[words.index("--constraint") + 1]).is_file()
    (extras,) = re.findall(r"^\.\[(.*)\]$", words[-1])
    assert set(extras.split(",")) <= set(project()["optional-dependencies"])
    assert set(json.loads(instruction("ENTRYPOINT"))) <= set(project()["scripts"])


def test_nothing_that_the_package_is_built_of_is_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    ignored = [line.removeprefix("**/") for line in lines if line and not line.startswith("#")]
    needed = ["pyproject.toml", "setup.py", "constraints.txt", "MANIFEST.in", project()["readme"], "Snakefile"]
    needed += ["shapeflow", "hydra_plugins", "kernels", "config", "workflow"]
    assert all((ROOT / name).exists() for name in needed)
    assert not [(name, rule) for name in needed for rule in ignored if fnmatch(name, rule)]


def test_the_command_in_its_head_composes(tmp_path: Path) -> None:
    (words,) = re.findall(r"^# podman run .* shapeflow run (.*?) -- ", RECIPE.read_text(encoding="utf-8"), flags=re.M)
    (tmp_path / "data").mkdir()
    assert expand(words.replace("/data", str(tmp_path / "data")).split()).runs


@pytest.mark.slow
@pytest.mark.skipif("SHAPEFLOW_CONTAINER_BUILD" not in os.environ, reason="SHAPEFLOW_CONTAINER_BUILD names no engine")
def test_a_study_runs_in_the_image(tmp_path: Path) -> None:
    """As one more step of a build: engines that cannot run a container where they build one are of use too."""
    build = shlex.split(os.environ["SHAPEFLOW_CONTAINER_BUILD"])
    words = [word for word in TINY if not word.startswith(("backend", "report"))]  # native kernels, and the page
    page = "results/demo/studies/default/report.html"
    again = tmp_path / "Containerfile"
    again.write_text(
        f"FROM localhost/shapeflow-test\nRUN shapeflow run {' '.join(words)} sigma=0.3 -- --cores 2 && test -s {page}\n",
        encoding="utf-8",
    )
    for recipe, tag, context in ((RECIPE, "shapeflow-test", ROOT), (again, "shapeflow-study", tmp_path)):
        done = subprocess.run(
            [*build, "-f", str(recipe), "-t", f"localhost/{tag}", str(context)], capture_output=True, text=True
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
