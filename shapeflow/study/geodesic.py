"""Geodesic tools on a run's atlas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shapeflow.study.atlas_specs import atlas_spec
from shapeflow.study.files import load_config
from shapeflow.study.prepared import usable


def geodesic(
    config: str | Path,
    prepared: str | Path,
    device: str,
    backend: str,
    tool: str,
    what: Sequence[str],
    options: Mapping[str, Any],
    out: str | Path,
) -> None:
    """A geodesic tool on the atlas of a run: `regression` along a label, `shoot` of a momentum, `transport` of one along another."""
    from dataclasses import replace

    from shapeflow.statistics import regress_run, shoot_run, transport_run

    run, folder, times = Path(config).parent, Path(prepared), options["times"]
    if tool == "regression":
        names, subjects, _ = usable(folder)
        spec = replace(atlas_spec(load_config(config), folder, device, backend), max_iter=options["max_iter"])
        regress_run(run, what[0], {name: subjects.shape(name) for name in names}, spec, times, Path(out))
    elif tool == "shoot":
        shoot_run(run, what[0], times, Path(out))
    else:
        transport_run(run, what[0], what[1], options["steps"], times, Path(out))
