"""Results in a cloud's storage: a study is planned for Kubernetes, and one passes through a bucket of S3."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from .running import CLOCKS, ENVIRONMENT, TINY, planned, snakemake

OVERRIDES = [*TINY, "sigma=0.3"]


def needs(*modules: str) -> pytest.MarkDecorator:
    absent = [m for m in modules if find_spec(m) is None]
    return pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(m.replace('_', '-') for m in absent)}")


def shared(folder: Path) -> list[str]:
    """Local copies in one volume that every job mounts: shapes lie there beside the files that Snakemake carries."""
    prefix = str(folder / "volume")
    copies = ["--local-storage-prefix", prefix, "--remote-job-local-storage-prefix", prefix]
    return [*copies, "--keep-storage-local-copies", "--shared-fs-usage", "none"]


@needs("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs")
def test_a_study_is_planned_for_kubernetes(tmp_path: Path) -> None:
    storage = ["--default-storage-provider", "fs", "--default-storage-prefix", str(tmp_path / "bucket")]
    cluster = ["--executor", "kubernetes", "--jobs", "10", "--container-image", "example.org/shapeflow:0.1.0"]
    volume = ["--kubernetes-persistent-volumes", f"study:{tmp_path / 'volume'}"]
    jobs = planned(tmp_path, OVERRIDES, *cluster, *volume, *storage, *shared(tmp_path))
    assert jobs == planned(tmp_path, OVERRIDES), "the jobs are those of one machine"


@pytest.mark.slow
@needs("snakemake_storage_plugin_s3", "moto", "flask")
def test_a_study_through_a_bucket(tmp_path: Path) -> None:
    import boto3  # pyright: ignore[reportMissingImports]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    try:
        for _ in range(60):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=url, **keys)
        client.create_bucket(Bucket="bucket")
        storage = ["--default-storage-provider", "s3", "--default-storage-prefix", "s3://bucket/study"]
        access = ["--storage-s3-endpoint-url", url, "--storage-s3-access-key", "a", "--storage-s3-secret-key", "b"]
        there, here = tmp_path / "there", tmp_path / "here"
        there.mkdir()
        here.mkdir()
        snakemake(there, OVERRIDES, *storage, *access, *shared(there))
        snakemake(here, OVERRIDES)
        table = "results/demo/studies/default/tables/sweep.csv"
        client.download_file("bucket", f"study/{table}", str(tmp_path / "sweep.csv"))
        left, right = (
            pd.read_csv(p).drop(columns=list(CLOCKS), errors="ignore") for p in (tmp_path / "sweep.csv", here / table)
        )
        pd.testing.assert_frame_equal(left, right, check_exact=True)
    finally:
        server.terminate()
        server.wait()
