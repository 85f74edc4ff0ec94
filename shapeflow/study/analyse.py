"""A run's atlas to its statistics."""

from __future__ import annotations

from pathlib import Path


def analyse(run: str | Path) -> None:
    """What the momenta of a run's atlas say: components, tests, predictions, maps of the differences between groups."""
    from shapeflow.statistics import analyse_run

    analyse_run(Path(run))
