"""What the steps write of their own: plain text, YAML and arrays, each under a temporary name and renamed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load_config(path: str | Path) -> dict[str, Any]:
    """A run's resolved configuration, by YAML's safe loader."""
    import yaml

    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def write_text(path: str | Path, text: str) -> None:
    from shapeflow.io.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_npz(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Arrays only: they load with allow_pickle=False."""
    import numpy as np

    from shapeflow.io.files import replacing

    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
