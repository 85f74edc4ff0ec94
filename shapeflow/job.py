"""The frame of a workflow job: a log file with plain lines, threads and a GPU of its own, errors that read as a sentence.

A script enters `job(snakemake)` before it imports anything heavy: the number of threads and the visible GPU are fixed when torch loads.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from shapeflow.errors import FULL, ShapeflowError, disk_error

log = logging.getLogger("shapeflow.job")


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run the block as the job of a Snakemake rule. A failure is one sentence in the log and on the terminal, and exit status 1."""
    name = f"{snakemake.rule} {' '.join(f'{k}={v}' for k, v in dict(snakemake.wildcards).items())}".strip()
    path = Path(str(snakemake.log[0])) if snakemake.log else None
    handler = _to_file(path)
    started = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)
    try:
        with ExitStack() as stack:
            if (gpus := int(snakemake.resources.get("gpu", 0) or 0)) > 0:
                stack.enter_context(gpu_slot(count=gpus))
            yield
        log.info("done in %.1f s", time.perf_counter() - started)
    except Exception as error:
        ours = isinstance(error, ShapeflowError)
        log.error("%s", error if ours else traceback.format_exc())
        _stop(name, _disk(error) or (str(error) if ours else f"{type(error).__name__}: {error}"), path)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _stop(name: str, message: str, path: Path | None) -> None:
    where = f" Its log is {path}." if path else ""
    print(
        f"\nshapeflow: {name} failed. {message}\n{where} Run the same command again when it is mended: what is done stays.\n",
        file=sys.stderr,
    )
    raise SystemExit(1)


def _disk(error: Exception) -> str | None:
    """What a full or closed disk asks for; None if `error` is no such thing."""
    behind = disk_error(error) or error
    if not isinstance(behind, OSError):
        return None
    where = f" ({behind.filename})" if behind.filename else ""
    if behind.errno in FULL:
        return f"The disk is full{where}: free some space, or write results=/another/disk."
    if behind.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"The results cannot be written{where}: {behind.strerror}. Make the folder writable, or write results=/another/folder."
    return None


class _Log(logging.FileHandler):
    """A log on a disk that may be full: lines are lost there, and nothing else is."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _to_file(path: Path | None) -> logging.Handler:
    handler: logging.Handler = logging.NullHandler()
    if path is not None:
        with suppress(OSError):  # what fills the disk says so where it writes its results
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = _Log(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("shapeflow").setLevel(logging.INFO)
    logging.captureWarnings(True)
    return handler


@contextmanager
def gpu_slot(folder: Path | None = None, poll: float = 0.5, count: int = 1) -> Iterator[str | None]:
    """A GPU of this machine that no other job of ours holds, or `count` of them, as CUDA_VISIBLE_DEVICES for this process.

    A scheduler such as Slurm has already said which are ours; among those, they are taken by file locks, which end with the process
    however it ends: all at once, so that two jobs never wait for each other's. With too few GPUs nothing is set, and the device's
    own error says what is missing.
    """
    from filelock import FileLock, Timeout

    ids = visible_gpus()
    if len(ids) < 2 or len(ids) < count:
        yield ",".join(ids) or None
        return
    import tempfile

    folder = folder or Path(tempfile.gettempdir()) / f"shapeflow-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    locks = {gpu: FileLock(folder / f"{gpu.replace('/', '_')}.lock") for gpu in ids}
    while True:
        taken: list[str] = []
        try:
            for gpu, lock in locks.items():
                if len(taken) < count:
                    with suppress(Timeout):
                        lock.acquire(timeout=0)
                        taken.append(gpu)
            if len(taken) == count:
                before = os.environ.get("CUDA_VISIBLE_DEVICES")
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
                log.info("on GPU %s of %s", ", ".join(taken), ", ".join(ids))
                try:
                    yield ",".join(taken)
                finally:
                    if before is None:
                        del os.environ["CUDA_VISIBLE_DEVICES"]
                    else:
                        os.environ["CUDA_VISIBLE_DEVICES"] = before
                return
        finally:
            for gpu in taken:
                locks[gpu].release()
        time.sleep(poll * random.uniform(0.5, 1))  # two jobs that took half each do not meet again


def visible_gpus() -> list[str]:
    """Ids that CUDA_VISIBLE_DEVICES allows, or all that the driver lists; empty without a driver."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [gpu.strip() for gpu in allowed.split(",") if gpu.strip() and gpu.strip() != "-1"]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()] if listed.returncode == 0 else []
