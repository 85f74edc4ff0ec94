"""What a run compiles, before the fan-out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shapeflow.study.atlas_specs import atlas_spec
from shapeflow.study.files import write_text
from shapeflow.study.prepared import facts_of
from shapeflow.study.rows import versions
from shapeflow.study.specs import matching_spec


def compile_kernels(
    config: Mapping[str, Any], prepared: str | Path, device: str, backend: str, out: str | Path
) -> None:
    """Everything that a run of this kind compiles, compiled once, by matching small shapes: no two jobs race to do it."""
    from filelock import FileLock

    from shapeflow.atlas import estimate_atlas
    from shapeflow.io import read_shape
    from shapeflow.matching import match as match_batch
    from shapeflow.ops.backends.native_cpu import FEWEST

    prepared = Path(prepared)
    example = read_shape(prepared / f"{facts_of(prepared)['example']}.vtk")
    solver = {**config["solver"], "max_iter": 1, "steps": 1, "control_count": None, "control_points": "vertices"}
    quick = {**config, "solver": solver, "atlas": {**config["atlas"], "max_iter": 1}}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(Path(out).parent / ".lock"):
        for simplices in (12, 4 * max(FEWEST.values())):  # few points and many are summed by different kernels
            shape = _piece(example, simplices)
            other = shape.replace(points=shape.points * 1.01)
            row = match_batch([shape, shape], [other, shape], matching_spec(quick, prepared, device, backend)).rows[0]
            if config["atlas"]["enabled"]:
                estimate_atlas(shape, [other, shape], atlas_spec(quick, prepared, device, backend))
    write_text(
        out, json.dumps({"device": row["device"], "backend": row["backend"], "versions": versions()}, indent=1) + "\n"
    )


def _piece(shape: Any, simplices: int) -> Any:
    """The first simplices of a shape, as a shape."""
    import numpy as np

    from shapeflow.shape import Shape

    kept = shape.simplices[:simplices]
    used, place = np.unique(kept, return_inverse=True)
    return Shape(shape.points[used], place.reshape(kept.shape))
