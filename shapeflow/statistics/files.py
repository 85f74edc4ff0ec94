"""An analysis on disk, and the folder of a run that it is made from.

statistics/summary.csv               a row a label (or one): what the sweep table shows
statistics/tests.csv                 every test with p, q and effect
statistics/scores.csv                a row a subject: scores, size, distance to the mean, predictions
statistics/components.csv            variance explained
statistics/modes.npz                 frames (modes, steps, n, d) and the steps, in standard deviations
statistics/modes/pc1_+2.vtk …        the same as meshes
statistics/means/<label>_<group>.vtk the mean shape of a group
statistics/difference_<label>.vtk    the template with the group difference, t, p and q at its vertices
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from shapeflow.atlas.tangent import TangentSpace
from shapeflow.errors import ShapeflowError
from shapeflow.io import read_shape, write_shape
from shapeflow.io.files import replacing
from shapeflow.statistics.analyse import TEST_COLUMNS, Analysis, Options, analyse, distance_tests
from shapeflow.tables import DistanceMatrix, atlas_table, distance_matrix, matching_table, subject_labels, write_csv

_log = logging.getLogger("shapeflow.statistics")


def analyse_run(run_dir: Path, out: Path | None = None, options: Options = Options()) -> Analysis | None:  # noqa: B008  frozen
    """Statistics of `results/<dataset>/runs/<id>`, from its atlas and its distances, into `out` (`statistics/` beside them)."""
    run_dir = Path(run_dir)
    out = Path(out) if out is not None else run_dir / "statistics"
    matched = (run_dir / "matching.parquet").is_file()
    matching = matching_table([run_dir]) if matched else pd.DataFrame()
    if not (run_dir / "atlas" / "momenta.npz").is_file():
        if not len(matching):
            raise ShapeflowError(
                f"{run_dir} has neither an atlas nor matchings: statistics need one; set atlas.enabled=true or match.enabled=true"
            )
        return _write_tests_only(out, run_dir.name, matching, options)
    space, subjects, momenta = load_space(run_dir)
    rows = atlas_table([run_dir])
    labels = subject_labels(matching if len(matching) else rows)
    if len(subjects) < 3:
        _log.warning("%s: an atlas of %d subjects has no statistics; three are the least", run_dir.name, len(subjects))
        return _write_tests_only(out, run_dir.name, matching, options)
    marked = rows.set_index("subject")["landmark_size"]
    analysis = analyse(
        space, momenta, subjects, labels, _complete(matching), options, marked if marked.notna().any() else None
    )
    write_analysis(analysis, space, out, run_dir.name)
    return analysis


def _write_tests_only(out: Path, run: str, matching: pd.DataFrame, options: Options) -> None:
    """Without momenta to analyse: the tests that pairwise distances allow, and the other files without rows."""
    distances = _complete(matching)
    tests = (
        distance_tests(distances, subject_labels(matching), options)
        if distances is not None
        else pd.DataFrame(columns=TEST_COLUMNS)
    )
    write_csv(pd.DataFrame(columns=["subject", "outlier"]), out / "scores.csv")
    write_csv(pd.DataFrame(columns=["component", "explained", "cumulative"]), out / "components.csv")
    write_csv(tests, out / "tests.csv")
    with replacing(out / "modes.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, steps=np.zeros(0), frames=np.zeros((0, 0, 0, 0)), explained=np.zeros(0))
    rows = [{"run": run, "label": name, **_of_tests(tests, name)} for name in dict.fromkeys(tests["label"])]
    write_csv(pd.DataFrame(rows or [{"run": run, "label": None}]), out / "summary.csv")


def load_space(run_dir: Path) -> tuple[TangentSpace, tuple[str, ...], np.ndarray]:
    """The tangent space of a run's atlas, its subjects and their momenta (N, n, d)."""
    folder = Path(run_dir) / "atlas"
    for name in ("template.vtk", "momenta.npz", "atlas.parquet"):
        if not (folder / name).is_file():
            raise ShapeflowError(
                f"{folder / name} is missing: statistics need an atlas; set atlas.enabled=true and run the study again"
            )
    template = read_shape(folder / "template.vtk")
    with np.load(folder / "momenta.npz", allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    points = arrays.get("control_points", template.points)
    config = yaml.safe_load((Path(run_dir) / "config.yaml").read_text(encoding="utf-8")) or {}
    normalization, solver = config.get("normalization") or {}, config.get("solver") or {}
    kernel = config.get("kernel")
    space = TangentSpace(
        template=template,
        control_points=np.asarray(points, dtype=np.float64),
        masses=np.asarray(arrays["masses"] if "masses" in arrays else _masses(template, points), dtype=np.float64),
        kernel=kernel["formula"] if isinstance(kernel, dict) else str(kernel),
        sigma=float(atlas_table([run_dir])["sigma"].iloc[0]),
        normalization=normalization.get("name", "none") if isinstance(normalization, dict) else str(normalization),
        normalization_iterations=int(normalization.get("iterations") or 5) if isinstance(normalization, dict) else 5,
        steps=int(solver.get("steps", 10)),
        integrator=str(solver.get("integrator", "ralston")),
    )
    return space, tuple(str(s) for s in arrays["subjects"]), np.asarray(arrays["momenta"], dtype=np.float64)


def _masses(template, points) -> np.ndarray:
    """An atlas that does not say its masses: the shares of the final template's vertices, near those of the first."""
    if len(points) == len(template.points):
        return template.masses()
    return np.full(len(points), 1.0 / len(points))


def _complete(matching: pd.DataFrame) -> DistanceMatrix | None:
    """The distance matrix when every pair is there."""
    if not len(matching):
        return None
    matrix = distance_matrix(matching)
    if not matrix.complete:
        _log.warning(
            "%d of the pairwise distances are missing: no test is made of them", int(np.isnan(matrix.values).sum()) // 2
        )
        return None
    return matrix


def write_analysis(analysis: Analysis, space: TangentSpace, out: Path, run: str) -> None:
    write_csv(_scores(analysis), out / "scores.csv")
    write_csv(_components(analysis), out / "components.csv")
    write_csv(analysis.tests, out / "tests.csv")
    steps = np.asarray(analysis.steps)
    frames = np.array([[shape.points for shape in mode] for mode in analysis.modes])
    with replacing(out / "modes.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, steps=steps, frames=frames, explained=analysis.pca.explained[: len(frames)])
    for k, mode in enumerate(analysis.modes):
        for step, shape in zip(analysis.steps, mode, strict=True):
            write_shape(out / "modes" / f"pc{k + 1}_{step:+g}.vtk", shape)
    for name, means in analysis.means.items():
        for group, shape in means.items():
            write_shape(out / "means" / f"{file_name(name)}_{file_name(group)}.vtk", shape)
    for name, found in analysis.maps.items():
        data = {
            "displacement": found.displacement, "normal_displacement": found.normal, "log2_area_ratio": found.area, "t": found.t,
            "p": found.p, "q": found.q,
        }  # fmt: skip
        write_shape(out / f"difference_{file_name(name)}.vtk", space.template.replace(point_data=data))
    write_csv(summary(analysis, run), out / "summary.csv")  # last: the others are complete when it is there


def summary(analysis: Analysis, run: str) -> pd.DataFrame:
    """One row for every label that makes groups; one without a label when there is none."""
    shared = {
        "run": run,
        "components": analysis.kept,
        "generalisation": float(analysis.generalisation.mean()),
        "specificity": float(analysis.specificity.mean()),
        "stability": float(analysis.stability.mean()),
        "outliers": int(analysis.outliers["outlier"].sum()),
    }
    rows = []
    for name, c in analysis.classifications.items():
        row = {
            **shared,
            "label": name,
            "classification_accuracy": c.accuracy,
            "classification_p": c.p,
            "majority_rate": c.majority,
        }
        row |= _of_tests(analysis.tests, name)
        if name in analysis.maps:
            row["difference"] = " − ".join(reversed(analysis.maps[name].groups))
            row["vertices_found"] = float((analysis.maps[name].q <= 0.05).mean())
        rows.append(row)
    return pd.DataFrame(rows or [{**shared, "label": None}])


def _of_tests(tests: pd.DataFrame, label: str) -> dict[str, float]:
    """p and effect of a label's tests that the sweep table shows; those of the momenta, or without an atlas those of the distances."""
    own = tests[tests["label"] == label].set_index("test")
    found = {}
    for test, prefix in (("PERMANOVA, pairwise distances", "permanova"), ("PERMANOVA, momenta", "permanova")):
        if test in own.index:
            found |= {f"{prefix}_p": own.loc[test, "p"], f"{prefix}_r2": own.loc[test, "effect"]}
    return found


def _scores(analysis: Analysis) -> pd.DataFrame:
    frame = pd.DataFrame({"subject": analysis.subjects, "size": analysis.sizes})
    for name in analysis.labels.columns:
        frame[str(name)] = analysis.labels[name].to_numpy()
    for k in range(min(analysis.pca.scores.shape[1], 10)):
        frame[f"pc{k + 1}"] = analysis.pca.scores[:, k]
    frame["generalisation"] = analysis.generalisation
    for name, c in analysis.classifications.items():
        known = analysis.labels[name].notna().to_numpy()
        predicted = np.full(len(frame), None, dtype=object)
        predicted[known] = c.predicted
        frame[f"predicted_{name}"] = predicted
    table = analysis.outliers.set_index("subject")
    return frame.join(table[["distance_to_mean", "z", "outlier"]], on="subject")


def _components(analysis: Analysis) -> pd.DataFrame:
    e = analysis.pca.explained
    return pd.DataFrame(
        {
            "component": np.arange(1, len(e) + 1),
            "variance": analysis.pca.variance,
            "explained": e,
            "cumulative": np.cumsum(e),
        }
    )


def file_name(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in label)
