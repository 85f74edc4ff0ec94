"""A cohort that shapeflow makes itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def generate(config: Mapping[str, Any], out: str | Path) -> None:
    """The cohort of a generated data set, with its truth, in the folder `out`."""
    from shapeflow import demo

    demo.generate(_demo_spec(config), Path(out))


def _demo_spec(config: Mapping[str, Any]) -> Any:
    from shapeflow.demo import DemoSpec

    return DemoSpec(**{key: value for key, value in config.items() if key not in ("name", "generator")})
