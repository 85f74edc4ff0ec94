"""A study through a real Slurm: a job that is cancelled is tried again, a head that is killed is resumed, and the results are those of one machine.

`tests/workflow/slurm.sh start` starts a Slurm of one node on Debian (slurm-wlm, munge; as root); the plugin is the extra `slurm`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shapeflow.launch import snakefile
from shapeflow.resources import resource

from .running import ENVIRONMENT, TINY, assert_same_results, snakemake

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("sbatch") is None, reason="no Slurm here: tests/workflow/slurm.sh starts one on Debian"
    ),
]
OVERRIDES = [*TINY, "sigma=0.3"]
COMMAND = [
    *(sys.executable, "-m", "snakemake", "--snakefile", str(snakefile()), "--jobs", "4"),
    *("--profile", str(resource("workflow") / "profiles" / "slurm"), "--latency-wait", "5"),
    *("--slurm-no-account", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3"),
    *("--config", f"overrides={' '.join(OVERRIDES)}"),
]


def queued(rule: str) -> list[str]:
    """Ids of the running jobs of a rule: the plugin writes it into the job's comment."""
    lines = subprocess.run(
        ["squeue", "--noheader", "--states=running", "--format=%i %k"], capture_output=True, text=True
    ).stdout
    return [line.split()[0] for line in lines.splitlines() if f"rule_{rule}" in line]


def wait(condition, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.1)


def controller() -> str | None:
    """Why no job can be given to Slurm; None when one can. Without a controller its commands try for long and a study would wait in vain."""
    try:
        asked = subprocess.run(["sinfo", "--noheader", "--format=%t"], capture_output=True, text=True, timeout=5)
    except subprocess.TimeoutExpired:
        return "sinfo does not answer"
    if asked.returncode:
        return f"sinfo says: {asked.stderr.strip()}"
    states = set(asked.stdout.split())
    return None if states & {"idle", "mix", "alloc"} else f"no node takes jobs: {', '.join(states) or 'there is none'}"


def test_cancelled_jobs_and_killed_heads(tmp_path: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_slurm", reason='needs the plugin: pip install "shapeflow[slurm]"')
    if why := controller():
        pytest.skip(f"Slurm is installed and not running ({why}): tests/workflow/slurm.sh starts one on Debian")
    local, cluster = tmp_path / "local", tmp_path / "cluster"
    local.mkdir(), cluster.mkdir()
    snakemake(local, OVERRIDES)
    with (cluster / "first.log").open("w") as log:
        head = subprocess.Popen(COMMAND, cwd=cluster, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    wait(lambda: queued("match"))
    for job in queued("match"):
        subprocess.run(["scancel", "--signal=KILL", job], check=True)
    wait(lambda: "Trying to restart job" in (cluster / "first.log").read_text())
    wait(lambda: list(cluster.glob("results/demo/runs/*/shards/*.parquet")))
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    assert not list(cluster.glob("results/demo/studies/default/tables/matching.csv")), "it had already ended"
    done = subprocess.run(COMMAND, cwd=cluster, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "rule generate" not in done.stderr, "what was done stays"
    assert_same_results(local, cluster)
