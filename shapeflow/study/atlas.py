"""A cohort to its atlas."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shapeflow.study.atlas_specs import atlas_spec
from shapeflow.study.files import load_config, write_npz
from shapeflow.study.prepared import labels_of, landmarks_of, usable
from shapeflow.study.rows import shared_columns, surface_errors

log = logging.getLogger("shapeflow.study")


def atlas(
    config: str | Path, prepared: str | Path, device: str, backend: str, out: str | Path, processes: int = 1
) -> None:
    """Template and momenta of the whole cohort in `out`, resumed from its checkpoint; meshes that ParaView opens, rows for the tables."""
    import numpy as np

    from shapeflow.atlas import TangentSpace, estimate_atlas, initial_template, template_landmarks
    from shapeflow.progress import progress

    run, settings, folder, out = Path(config).parent.name, load_config(config), Path(prepared), Path(out)
    names, subjects, failures = usable(folder)
    spec = atlas_spec(settings, folder, device, backend)
    shapes = [subjects.shape(name) for name in names]
    options = settings["atlas"]
    template, start = initial_template(
        options["template"], dict(zip(names, shapes, strict=True)), spec, options["template_points"]
    )
    log.info("atlas of %d subjects, starting from %s", len(names), start)
    checkpoint = out / "checkpoint.npz"
    with progress(f"atlas of {len(names)} subjects", spec.max_iter) as tell:
        result = estimate_atlas(
            template, shapes, spec, checkpoint=checkpoint, progress=lambda done, _: tell(done), processes=processes
        )
    # the normalized Hamiltonian's: the first template's, frozen; off the vertices every control point weighs the same
    count, on_vertices = len(result.control_points), spec.matching.control_points == "vertices"
    masses = template.masses() if on_vertices else np.full(count, 1 / count)
    space = TangentSpace.of(result.template, result.control_points, masses, spec.matching)
    marks = template_landmarks(space, result.momenta, [landmarks_of(folder, name) for name in names])
    _write_meshes(out, names, result, marks, on_vertices)
    _write_arrays(out, names, result, masses)
    shared = shared_columns(run, settings, folder)
    rows = [{**shared, **row} for row in _rows(names, shapes, result, marks)]
    rows += [{**shared, "subject": s, "status": f"failed: {why}", "distance": np.nan} for s, why in failures.items()]
    _write_table(out / "atlas.parquet", rows, folder)  # last: the others are complete when it is there
    checkpoint.unlink(missing_ok=True)


def _rows(names: Sequence[str], shapes: Sequence[Any], result: Any, marks: Any) -> Iterator[dict[str, Any]]:
    """A subject's numbers: those of its matching, and what the atlas leaves of its surface and its landmarks."""
    for i, (name, row, shape) in enumerate(zip(names, result.rows, result.reconstructions, strict=True)):
        known = {} if marks is None else {
            "landmark_error": marks.error[i], "landmark_error_before": marks.error_before[i], "landmark_size": marks.size[i]
        }  # fmt: skip
        yield {**row, "subject": name, **surface_errors(result.template, shape, shapes[i]), **known}


def _write_table(path: Path, rows: Sequence[dict[str, Any]], prepared: Path) -> None:
    """The rows with their subjects' labels."""
    import pandas as pd

    from shapeflow.tables import ATLAS, conform, write_parquet

    frame, labels = pd.DataFrame(rows), labels_of(prepared / "subjects.csv")
    for name in labels.columns:
        frame[name] = frame["subject"].map(labels[name])
    write_parquet(conform(frame, ATLAS, where="atlas rows"), path)


def _write_meshes(out: Path, names: Sequence[str], result: Any, marks: Any, on_vertices: bool) -> None:
    """The template, its landmarks, and for every subject the momenta on it and the shape that they make of it."""
    from shapeflow.io import write_landmarks, write_shape
    from shapeflow.shape import Shape

    controls = result.template if on_vertices else Shape(result.control_points)
    for name, momenta, shape in zip(names, result.momenta, result.reconstructions, strict=True):
        moved = {"displacement": shape.points - result.template.points} if on_vertices else {}
        write_shape(out / "subjects" / f"{name}.vtk", controls.replace(point_data={"momentum": momenta, **moved}))
        write_shape(out / "reconstructions" / f"{name}.vtk", shape)
    write_shape(out / "template.vtk", result.template)
    if marks is not None:
        write_landmarks(out / "template.landmarks.csv", marks.landmarks)


def _write_arrays(out: Path, names: Sequence[str], result: Any, masses: Any) -> None:
    """Momenta, the objective's history, and what a Bayesian atlas found."""
    import numpy as np
    import pandas as pd

    from shapeflow.tables import write_csv

    arrays = {"momenta": result.momenta, "control_points": result.control_points, "masses": masses}
    write_npz(out / "momenta.npz", {"subjects": np.array(names, dtype=str), **arrays})
    if result.bayesian is not None:
        write_npz(out / "bayesian.npz", {k: np.asarray(v) for k, v in vars(result.bayesian).items()})
    write_csv(pd.DataFrame(result.history), out / "history.csv")
