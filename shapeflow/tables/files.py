"""Tables on disk. Every file is written under a temporary name and renamed: a reader sees the old table or the new one, never half of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from shapeflow.errors import ShapeflowError


def write_table(frame: pd.DataFrame, stem: Path) -> tuple[Path, Path]:
    """Write `<stem>.parquet` and `<stem>.csv`."""
    stem = Path(stem)
    return write_parquet(frame, stem.parent / f"{stem.name}.parquet"), write_csv(
        frame, stem.parent / f"{stem.name}.csv"
    )


def write_parquet(frame: pd.DataFrame, path: Path) -> Path:
    """Same frame, same bytes: the row index is dropped and nothing of the time or the machine is stored."""
    return _renamed(
        Path(path), lambda temporary: frame.reset_index(drop=True).to_parquet(temporary, index=False, engine="pyarrow")
    )


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Numbers with as many digits as give them back exactly; empty cells for what is missing."""
    return _renamed(Path(path), lambda temporary: frame.to_csv(temporary, index=False, lineterminator="\n"))


def read_table(path: Path) -> pd.DataFrame:
    path = Path(path)
    if not path.is_file():
        raise ShapeflowError(f"no table at {path}; run the study again: snakemake makes what is missing")
    try:
        return pd.read_parquet(path, engine="pyarrow") if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ShapeflowError(f"{path} is not a readable table ({error}); delete it and run the study again") from error


def _renamed(path: Path, write: Callable[[Path], None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
