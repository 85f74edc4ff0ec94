"""One Snakemake a results folder, and nothing to clean by hand after a kill.

Snakemake's own lock and its marks of unfinished files stay behind when it is killed, and it then asks for --unlock and --rerun-incomplete.
shapeflow holds a lock that the system frees with the process. When that lock is free, no Snakemake is alive here, so what the dead one left is
removed: its lock, its marks, and the files that they mark. The same command then resumes.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from shapeflow.errors import ShapeflowError

log = logging.getLogger("shapeflow.locking")


class Busy(ShapeflowError):
    """Another Snakemake writes to the same results."""


def hold(results: str | Path) -> Any:
    """The lock of a results folder, held as long as the returned object lives."""
    lock = FileLock(_path(results))
    try:
        Path(results).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(
            f"another snakemake is writing to {results}/: wait until it ends, or give this study a folder of its own with "
            '--config overrides="results=results2"'
        ) from None
    except OSError as error:
        raise ShapeflowError(
            f"{results}/ cannot be written ({error}): make it writable, or write results=/another/folder"
        ) from error
    return lock


def begin(results: str | Path) -> Any:
    """`hold`, for a Snakemake that starts its jobs now."""
    lock = hold(results)
    with suppress(OSError):
        _started(results).touch()
    return lock


def since(results: str | Path) -> float:
    """When the last Snakemake began, in seconds of the file system's clock; 0 if none ever did."""
    try:
        return _started(results).stat().st_mtime
    except OSError:
        return 0.0


def held(results: str | Path) -> bool:
    """Whether a Snakemake is at work on these results."""
    if not _path(results).is_file():
        return False
    try:
        lock = hold(results)
    except Busy:
        return True
    except ShapeflowError:
        return False
    lock.release()
    return False


def recover(results: str | Path, state: str | Path = ".snakemake") -> int:
    """Remove what a killed Snakemake left in its `state` folder; returns how many unfinished files will be made again. Nothing, when one is alive."""
    if not _path(results).is_file():
        return 0
    try:
        lock = hold(results)
    except ShapeflowError:
        return 0
    try:
        for leftover in Path(state, "locks").glob("*.lock"):
            leftover.unlink(missing_ok=True)
        marked = list(_marked(Path(state, "incomplete"), Path(results)))
        for mark, file in marked:
            file.unlink(missing_ok=True)
            mark.unlink(missing_ok=True)
    except OSError as error:
        log.warning(
            "could not clean up after a killed snakemake (%s): use snakemake --unlock and --rerun-incomplete", error
        )
        return 0
    finally:
        lock.release()
    return len(marked)


def _path(results: str | Path) -> Path:
    return Path(results) / ".shapeflow.lock"


def _started(results: str | Path) -> Path:
    return Path(results) / ".shapeflow.started"


def _marked(folder: Path, results: Path) -> Iterator[tuple[Path, Path]]:
    """Snakemake's marks of files below `results`: base64 of the path, long names cut into folders that begin with @."""
    for mark in folder.rglob("*"):
        if mark.is_file():
            parts = mark.relative_to(folder).parts
            try:
                file = Path(base64.urlsafe_b64decode("".join(p.removeprefix("@") for p in parts)).decode())
            except (binascii.Error, UnicodeDecodeError, ValueError):
                continue
            if file.is_relative_to(results):
                yield mark, file
