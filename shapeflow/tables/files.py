"""Tables on disk. Every file is written under a temporary name and renamed: a reader sees the old table or the new one, never half of one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from shapeflow.errors import ShapeflowError
from shapeflow.io.files import replacing


def write_table(frame: pd.DataFrame, stem: Path) -> tuple[Path, Path]:
    """Write `<stem>.parquet` and `<stem>.csv`."""
    stem = Path(stem)
    return write_parquet(frame, stem.parent / f"{stem.name}.parquet"), write_csv(
        frame, stem.parent / f"{stem.name}.csv"
    )


def write_parquet(frame: pd.DataFrame, path: Path) -> Path:
    """Same frame, same bytes: the row index is dropped and nothing of the time or the machine is stored."""
    with replacing(path) as temporary:
        frame.reset_index(drop=True).to_parquet(temporary, index=False, engine="pyarrow")
    return Path(path)


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Numbers with as many digits as give them back exactly; empty cells for what is missing."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
    return Path(path)


def read_table(path: Path) -> pd.DataFrame:
    path = Path(path)
    if not path.is_file():
        raise ShapeflowError(f"no table at {path}; run the study again: snakemake makes what is missing")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path, engine="pyarrow")
        return pd.read_csv(path, keep_default_na=False, na_values=[""])  # as written: a group called None is a group
    except (OSError, ValueError) as error:
        raise ShapeflowError(f"{path} is not a readable table ({error}); delete it and run the study again") from error
