"""A cohort to its atlas."""

from __future__ import annotations

import logging
from pathlib import Path

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
    import pandas as pd

    from shapeflow.atlas import TangentSpace, estimate_atlas, initial_template, template_landmarks
    from shapeflow.io import write_landmarks, write_shape
    from shapeflow.progress import progress
    from shapeflow.shape import Shape
    from shapeflow.tables import ATLAS, conform, write_csv, write_parquet

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
    on_vertices = len(result.control_points) == result.template.n_points
    # the normalized Hamiltonian's: the first template's, frozen; off the vertices every control point weighs the same
    count = len(result.control_points)
    masses = template.masses() if on_vertices else np.full(count, 1 / count)
    space = TangentSpace.of(result.template, result.control_points, masses, spec.matching)
    marks = template_landmarks(space, result.momenta, [landmarks_of(folder, name) for name in names])
    shared = shared_columns(run, settings, folder)
    rows = []
    for i, (name, row, shape) in enumerate(zip(names, result.rows, result.reconstructions, strict=True)):
        known = {} if marks is None else {
            "landmark_error": marks.error[i], "landmark_error_before": marks.error_before[i], "landmark_size": marks.size[i]
        }  # fmt: skip
        quality = surface_errors(result.template, shape, subjects.shape(name))
        rows.append({**shared, **row, "subject": name, **quality, **known})
    for name, why in failures.items():
        rows.append({**shared, "subject": name, "status": f"failed: {why}", "distance": float("nan")})
    frame = pd.DataFrame(rows)
    labels = labels_of(folder / "subjects.csv")
    for name in labels.columns:
        frame[name] = frame["subject"].map(labels[name])
    controls = result.template if on_vertices else Shape(result.control_points)
    for name, momenta, shape in zip(names, result.momenta, result.reconstructions, strict=True):
        moved = {"displacement": shape.points - result.template.points} if on_vertices else {}
        write_shape(out / "subjects" / f"{name}.vtk", controls.replace(point_data={"momentum": momenta, **moved}))
        write_shape(out / "reconstructions" / f"{name}.vtk", shape)
    arrays = {
        "subjects": np.array(names, dtype=str),
        "momenta": result.momenta,
        "control_points": result.control_points,
        "masses": masses,
    }
    write_npz(out / "momenta.npz", arrays)
    if result.bayesian is not None:
        write_npz(out / "bayesian.npz", {k: np.asarray(v) for k, v in vars(result.bayesian).items()})
    write_csv(pd.DataFrame(result.history), out / "history.csv")
    write_shape(out / "template.vtk", result.template)
    if marks is not None:
        write_landmarks(out / "template.landmarks.csv", marks.landmarks)
    write_parquet(conform(frame, ATLAS, where="atlas rows"), out / "atlas.parquet")
    checkpoint.unlink(missing_ok=True)
