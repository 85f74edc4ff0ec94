"""shapeflow's workflow as a module of another one: its rules under a prefix, its results an input of theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shapeflow.launch import snakefile

from .running import ENVIRONMENT, TINY

OUTER = """
module shapeflow:
    snakefile: "{snakefile}"
    config: config


use rule * from shapeflow as shapeflow_*


rule count:
    input: rules.shapeflow_tables.output.sweep.replace("{{dataset}}", "demo")
    output: "count.txt"
    default_target: True
    shell: "wc -l < {{input}} > {{output}}"
"""


def test_rules_are_used_from_another_workflow(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(OUTER.format(snakefile=snakefile()))
    overrides = " ".join([*TINY, "sigma=0.3", "atlas.enabled=false"])
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--config", f"overrides={overrides}"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "count.txt").read_text().strip() == "2", "a header and one run"
