"""One function a rule of the workflow: files in, files out. The only glue between the package's layers and Snakemake.

Imports that cost something stand inside the functions: a job pays for what it uses, and `config.digest` reads from here which modules a
step depends on. Every file is written under a temporary name and renamed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shapeflow.errors import BackendError, ConfigError, ShapeflowError

log = logging.getLogger("shapeflow.study")


def load_config(path: str | Path) -> dict[str, Any]:
    """A run's resolved configuration, by YAML's safe loader."""
    import yaml

    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def configuration(config: Mapping[str, Any], out: str | Path) -> None:
    """runs/<id>/config.yaml: the resolved keys that the run's results depend on."""
    import yaml

    _write_text(out, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def generate(config: Mapping[str, Any], out: str | Path) -> None:
    """The cohort of a generated data set, with its truth, in the folder `out`."""
    from shapeflow import demo

    demo.generate(_demo_spec(config), Path(out))


def prepare(config: Mapping[str, Any], subjects: Sequence[str], out: str | Path, raw: str | Path | None = None) -> None:
    """Meshes ready to be matched, their tables, and for every subject a fingerprint that changes when its prepared files do."""
    from shapeflow.io import read_shape
    from shapeflow.prepare import Dataset, Prepare, prepare_cohort

    out = Path(out)
    data = dict(config["dataset"])
    if raw is not None:
        data = {
            "name": data["name"],
            "path": str(raw),
            "pattern": "*.vtk",
            "labels": "labels.csv",
            "landmarks": "{id}.landmarks.csv",
        }
    prepare_cohort(Dataset(**data), Prepare(**config["prepare"]), out)
    _tell(out)
    shapes = {name: read_shape(out / f"{name}.vtk") for name in subjects if (out / f"{name}.vtk").is_file()}
    if len(shapes) < 2:
        raise ShapeflowError(
            f"preparation left {len(shapes)} of {len(subjects)} subjects; a study compares two or more: see {out / 'quality.csv'}"
        )
    first = next(iter(shapes.values()))
    # two digits: a small edit of one mesh changes no width that is relative to the cohort's size
    size = float(f"{_median(_diagonal(s.points) for s in shapes.values()):.2g}")
    facts = {
        "size": size,
        "dimension": first.points.shape[1],
        "simplex": first.simplices.shape[1],
        "example": next(iter(shapes)),
    }
    _write_text(out / "cohort.json", json.dumps(facts, indent=1) + "\n")
    for name in subjects:
        _write_text(out / "fingerprints" / f"{name}.txt", _fingerprint(out, name) + "\n")


def _tell(out: Path) -> None:
    """The warnings of a preparation, on the terminal: what nobody reads in a table before a night's run."""
    import sys

    import pandas as pd

    from shapeflow.prepare import Finding, summary

    rows = pd.read_csv(out / "findings.csv", keep_default_na=False, dtype=str).to_dict("records")
    findings = [Finding(**{str(k): v for k, v in row.items()}) for row in rows]
    if any(f.severity != "info" for f in findings):
        n = len(pd.read_csv(out / "quality.csv", usecols=["subject"]))
        print(
            f"\nshapeflow: {summary.text(findings, n, remarks=False)}\n  all findings: {out / 'findings.csv'}\n",
            file=sys.stderr,
        )


def compile_kernels(
    config: Mapping[str, Any], prepared: str | Path, device: str, backend: str, out: str | Path
) -> None:
    """Everything that a run of this kind compiles, compiled once, by matching two small shapes: no two jobs race to do it."""
    from filelock import FileLock

    from shapeflow.atlas import estimate_atlas
    from shapeflow.io import read_shape
    from shapeflow.matching import match as match_batch

    prepared = Path(prepared)
    shape = _piece(read_shape(prepared / f"{_facts(prepared)['example']}.vtk"))
    other = shape.replace(points=shape.points * 1.01)
    solver = {**config["solver"], "max_iter": 1, "steps": 1, "control_count": None, "control_points": "vertices"}
    quick = {**config, "solver": solver, "atlas": {**config["atlas"], "max_iter": 1}}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(Path(out).parent / ".lock"):
        row = match_batch([shape, shape], [other, shape], _matching_spec(quick, prepared, device, backend)).rows[0]
        if config["atlas"]["enabled"]:
            estimate_atlas(shape, [other, shape], _atlas_spec(quick, prepared, device, backend))
    _write_text(
        out, json.dumps({"device": row["device"], "backend": row["backend"], "versions": versions()}, indent=1) + "\n"
    )


def match(
    config: str | Path,
    pairs: Sequence[Sequence[str]],
    prepared: str | Path,
    device: str,
    backend: str,
    rows: str | Path,
    momenta: str | Path,
    code: str = "",
) -> None:
    """A shard: its pairs as one batch; a row for each (a pair that fails says so in its row) and the momenta of those that did not."""
    import numpy as np
    import pandas as pd

    from shapeflow import keeping
    from shapeflow.tables import MATCHING, conform, write_parquet

    run, settings, folder = Path(config).parent.name, load_config(config), Path(prepared)
    names = sorted({name for pair in pairs for name in pair})
    prints = [(folder / "fingerprints" / f"{name}.txt").read_text(encoding="utf-8") for name in names]
    key = keeping.key_of(code, run, settings, [list(p) for p in pairs], prints, _facts(folder)["size"])
    if code and keeping.take(key, [rows, momenta]):
        return
    spec = _matching_spec(settings, folder, device, backend)
    constant = _constant(run, settings, folder)
    subjects = _Subjects(folder)
    ready, made = [], []
    for source, target in pairs:
        try:
            for name in (source, target):
                subjects.shape(name)
            ready.append((source, target))
        except ShapeflowError as error:
            made.append(({"source": source, "target": target, "status": f"failed: {error}"}, None))
    log.info("%d pairs at sigma %g, %s", len(ready), spec.sigma, spec.kernel)
    made += _solve(ready, subjects, spec)
    frame = pd.DataFrame([{"distance": np.nan, **constant, **row} for row, _ in made])
    write_parquet(conform(frame, MATCHING, where=f"shard {Path(rows).stem}"), Path(rows))
    kept = [(row, p) for row, p in made if p is not None]
    arrays = {f"momenta_{i:05d}": p for i, (_, p) in enumerate(kept)}
    arrays |= {end: np.array([row[end] for row, _ in kept], dtype=str) for end in ("source", "target")}
    _write_npz(momenta, arrays)
    if len(kept) == len(made):
        keeping.keep(key, [rows, momenta])


def distances(
    config: str | Path, subjects: str | Path, shards: Sequence[str | Path], matching: str | Path, out: str | Path
) -> None:
    """A run's matching rows with the subjects' labels, and its distance matrix as rows."""
    import pandas as pd

    from shapeflow.tables import MATCHING, conform, distances_table, read_table, write_parquet

    frames = [read_table(Path(shard)) for shard in shards]
    if not frames:
        raise ShapeflowError(
            f"run {Path(config).parent.name} has no pair to match: change match.subjects or match.pairs"
        )
    # an all-missing column of one shard must not decide the type of the whole
    records = [
        record for frame in frames for record in frame.astype(object).where(frame.notna(), None).to_dict("records")
    ]
    frame = pd.DataFrame(records)
    labels = _labels(Path(subjects))
    for end in ("source", "target"):
        for name in labels.columns:
            frame[f"{end}_{name}"] = frame[end].map(labels[name])
    frame = conform(frame.sort_values(["source", "target"], kind="stable"), MATCHING, where="matching rows")
    write_parquet(frame, Path(matching))
    write_parquet(distances_table(frame), Path(out))
    _refresh_sweeps(Path(config).parent)


def atlas(config: str | Path, prepared: str | Path, device: str, backend: str, out: str | Path) -> None:
    """Template and momenta of the whole cohort in `out`, resumed from its checkpoint; meshes that ParaView opens, rows for the tables."""
    import numpy as np
    import pandas as pd

    from shapeflow.atlas import TangentSpace, estimate_atlas, initial_template, template_landmarks
    from shapeflow.io import write_landmarks, write_shape
    from shapeflow.progress import progress
    from shapeflow.tables import ATLAS, conform, write_csv, write_parquet

    run, settings, folder, out = Path(config).parent.name, load_config(config), Path(prepared), Path(out)
    names, subjects, failures = _usable(folder)
    spec = _atlas_spec(settings, folder, device, backend)
    shapes = [subjects.shape(name) for name in names]
    options = settings["atlas"]
    template, start = initial_template(
        options["template"], dict(zip(names, shapes, strict=True)), spec, options["template_points"]
    )
    log.info("atlas of %d subjects, starting from %s", len(names), start)
    checkpoint = out / "checkpoint.npz"
    with progress(f"atlas of {len(names)} subjects", spec.max_iter) as tell:
        result = estimate_atlas(template, shapes, spec, checkpoint=checkpoint, progress=lambda done, _: tell(done))
    on_vertices = len(result.control_points) == result.template.n_points
    # the normalized Hamiltonian's: the first template's, frozen; off the vertices every control point weighs the same
    count = len(result.control_points)
    masses = template.masses() if on_vertices else np.full(count, 1 / count)
    space = TangentSpace.of(result.template, result.control_points, masses, spec.matching)
    marks = template_landmarks(space, result.momenta, [_landmarks(folder, name) for name in names])
    constant = _constant(run, settings, folder)
    rows = []
    for i, (name, row, shape) in enumerate(zip(names, result.rows, result.reconstructions, strict=True)):
        known = {} if marks is None else {
            "landmark_error": marks.error[i], "landmark_error_before": marks.error_before[i], "landmark_size": marks.size[i]
        }  # fmt: skip
        quality = _quality(result.template, shape, subjects.shape(name))
        rows.append({**constant, **row, "subject": name, **quality, **known})
    for name, why in failures.items():
        rows.append({**constant, "subject": name, "status": f"failed: {why}", "distance": float("nan")})
    frame = pd.DataFrame(rows)
    labels = _labels(folder / "subjects.csv")
    for name in labels.columns:
        frame[name] = frame["subject"].map(labels[name])
    controls = result.template if on_vertices else type(result.template)(points=result.control_points)
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
    _write_npz(out / "momenta.npz", arrays)
    write_csv(pd.DataFrame(result.history), out / "history.csv")
    write_shape(out / "template.vtk", result.template)
    if marks is not None:
        write_landmarks(out / "template.landmarks.csv", marks.landmarks)
    write_parquet(conform(frame, ATLAS, where="atlas rows"), out / "atlas.parquet")
    checkpoint.unlink(missing_ok=True)


def manifest(
    name: str, dataset: str, runs: Sequence[Sequence[str | None]], geodesics: Sequence[str], out: str | Path
) -> None:
    """studies/<study>/study.json: the runs that the study consists of; `shapeflow status` and `gc` read it. `geodesics` are folders of each."""
    entries = [{"run": run, "prepared": prepared, "raw": raw} for run, prepared, raw in runs]
    facts = {"study": name, "dataset": dataset, "runs": entries, "geodesics": list(geodesics)}
    _write_text(out, json.dumps(facts, indent=1) + "\n")


def analyse(run: str | Path) -> None:
    """What the momenta of a run's atlas say: components, tests, predictions, maps of the differences between groups."""
    from shapeflow.statistics import analyse_run

    analyse_run(Path(run))


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
        names, subjects, _ = _usable(folder)
        spec = replace(_atlas_spec(load_config(config), folder, device, backend), max_iter=options["max_iter"])
        regress_run(run, what[0], {name: subjects.shape(name) for name in names}, spec, times, Path(out))
    elif tool == "shoot":
        shoot_run(run, what[0], times, Path(out))
    else:
        transport_run(run, what[0], what[1], options["steps"], times, Path(out))


def tables(runs: Sequence[str | Path], label: str | None, out: str | Path) -> None:
    """The study's tables, from the folders of its runs and no other."""
    from shapeflow.statistics import mark_chosen, selected
    from shapeflow.tables import atlas_table, matching_table, study_sweep, write_csv, write_table

    folders = [Path(run) for run in runs]
    write_table(matching_table([f for f in folders if (f / "matching.parquet").is_file()]), Path(out) / "matching")
    write_table(atlas_table(folders), Path(out) / "atlas")
    sweep = study_sweep(folders, label)
    _write_text(Path(out).parent / "selected.json", json.dumps(selected(sweep), indent=1, ensure_ascii=False) + "\n")
    write_csv(mark_chosen(sweep), Path(out) / "sweep.csv")


def report(study_dir: str | Path, settings: Mapping[str, Any]) -> None:
    """The study's page."""
    from shapeflow.report import report_study

    report_study(Path(study_dir), title=settings["title"], label=settings["label"])


def _refresh_sweeps(run: Path) -> None:
    """sweep.csv of the studies that this run belongs to, over the runs that are done: a sweep can be watched. The rule `tables` has the last word."""
    from shapeflow.tables import atlas_table, matching_table, sweep_table, write_csv

    for path in sorted(run.parents[1].glob("studies/*/study.json")):
        names = [entry["run"] for entry in json.loads(path.read_text(encoding="utf-8"))["runs"]]
        done = [run.parent / name for name in names if (run.parent / name / "matching.parquet").is_file()]
        if run.name in names:
            try:
                write_csv(sweep_table(matching_table(done), atlas_table(done)), path.parent / "tables" / "sweep.csv")
            except (ShapeflowError, OSError) as error:
                log.warning("%s is not refreshed: %s", path.parent / "tables" / "sweep.csv", error)


def versions() -> str:
    """What computed a row, in one line."""
    import importlib.metadata as metadata
    import platform

    names = ("shapeflow", "torch", "numpy")
    return "; ".join([*(f"{name} {metadata.version(name)}" for name in names), f"python {platform.python_version()}"])


def cohort_size(prepared: str | Path) -> float:
    """Median diagonal of the cohort's bounding boxes, mesh units, two digits: the unit of relative widths."""
    return float(_facts(Path(prepared))["size"])


def _landmarks(folder: Path, name: str) -> Any:
    """A prepared subject's landmarks, None if it has none."""
    from shapeflow.io import read_landmarks

    path = folder / f"{name}.landmarks.csv"
    return read_landmarks(path) if path.is_file() else None


class _Subjects:
    """Prepared shapes and landmarks, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: dict[str, Any] = {}
        self.marks: dict[str, Any] = {}

    def shape(self, name: str) -> Any:
        from shapeflow.io import read_shape

        if name not in self.shapes:
            path = self.folder / f"{name}.vtk"
            if not path.is_file():
                raise ShapeflowError(f"{name} was left out by the preparation: see {self.folder / 'quality.csv'}")
            self.shapes[name] = read_shape(path)
        return self.shapes[name]

    def landmarks(self, name: str) -> Any:
        if name not in self.marks:
            found = _landmarks(self.folder, name)
            self.marks[name] = None if found is None else found.points
        return self.marks[name]


def _solve(pairs: Sequence[tuple[str, str]], subjects: _Subjects, spec: Any) -> list[tuple[dict[str, Any], Any]]:
    """Rows and momenta of a batch. A batch that cannot be solved as one is cut in halves, down to the pair that is to blame."""
    import torch

    from shapeflow.matching import match as match_batch
    from shapeflow.progress import progress

    if not pairs:
        return []
    sources, targets = [subjects.shape(s) for s, _ in pairs], [subjects.shape(t) for _, t in pairs]
    marks = [_common(subjects.landmarks(s), subjects.landmarks(t)) for s, t in pairs]
    try:
        with progress(f"matching {len(pairs)} pairs", len(pairs)) as tell:
            result = match_batch(
                sources,
                targets,
                spec,
                source_landmarks=[m[0] for m in marks],
                target_landmarks=[m[1] for m in marks],
                progress=lambda done, _: tell(done),
            )
    except (ConfigError, BackendError):
        raise  # nothing of these pairs: no half would do better
    except (ShapeflowError, RuntimeError) as error:  # torch's linear algebra and memory raise RuntimeErrors
        memory = isinstance(error, torch.cuda.OutOfMemoryError)
        if memory:
            torch.cuda.empty_cache()
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reason = "the GPU is out of memory: write match.shard_size smaller, or prepare.n_points" if memory else first
        if len(pairs) == 1:
            log.error("%s to %s failed: %s", *pairs[0], reason, exc_info=not isinstance(error, ShapeflowError))
            return [({"source": pairs[0][0], "target": pairs[0][1], "status": f"failed: {reason}"}, None)]
        log.warning("a batch of %d pairs failed (%s); its halves are tried", len(pairs), reason)
        half = len(pairs) // 2
        return _solve(pairs[:half], subjects, spec) + _solve(pairs[half:], subjects, spec)
    done = []
    for i, (source, target) in enumerate(pairs):
        row = {
            **result.rows[i],
            "source": source,
            "target": target,
            **_quality(sources[i], result.deformed[i], targets[i]),
        }
        row |= _landmark_errors(marks[i], result.carried[i])
        if row["status"] == "diverged":
            row["status"] = (
                "failed: diverged, no step lowers the energy by a finite amount; is the mesh or sigma in another unit?"
            )
        done.append((row, result.momenta[i] if row["evaluations"] else None))  # none where it was not even tried
    return done


def _quality(before: Any, after: Any, target: Any) -> dict[str, float]:
    """Surface distances after and before; NaN where the deformed shape is not finite."""
    from shapeflow.evaluation import surface_distance

    try:
        mean, p95 = surface_distance(after, target)
        return {"surface_mean": mean, "surface_p95": p95, "surface_mean_before": surface_distance(before, target)[0]}
    except ShapeflowError as error:
        log.warning("no surface distance: %s", error)
        return {}


def _common(source: Any, target: Any) -> tuple[Any, Any]:
    """Landmarks that both subjects have; (None, None) when there is none."""
    import numpy as np

    if source is None or target is None or len(source) != len(target):
        return None, None
    known = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1)
    return (source[known], target[known]) if known.any() else (None, None)


def _landmark_errors(marks: tuple[Any, Any], carried: Any) -> dict[str, float]:
    from shapeflow.evaluation import landmark_error

    if marks[0] is None or carried is None:
        return {}
    return {
        "landmark_error": landmark_error(carried, marks[1]),
        "landmark_error_before": landmark_error(marks[0], marks[1]),
    }


def _matching_spec(config: Mapping[str, Any], prepared: Path, device: str, backend: str) -> Any:
    from shapeflow.matching import MatchingSpec

    size = cohort_size(prepared)
    sigma = _sigma(config, size)
    attachment, solver = config["attachment"], config["solver"]
    unit = size if attachment["units"] == "relative" else 1.0

    def scaled(key: str) -> float | None:
        return None if attachment.get(key) is None else attachment[key] * unit

    return MatchingSpec(
        kernel=config["kernel"]["formula"],
        sigma=sigma,
        normalization=config["normalization"]["name"],
        normalization_iterations=config["normalization"]["iterations"],
        attachment=attachment["name"],
        attachment_kernel=attachment["kernel"],
        attachment_widths=tuple(width * unit for width in attachment["widths"]),
        attachment_kappa=attachment.get("kappa", 1.0),
        attachment_reach=scaled("reach"),
        attachment_normal_length=scaled("normal_length"),
        attachment_weight=attachment["weight"],
        units=attachment["terms"],
        gamma=attachment["gamma"],
        control_spacing=None if solver["control_spacing"] is None else solver["control_spacing"] * sigma,
        device=device,
        backend=backend,
        **{key: value for key, value in solver.items() if key not in ("name", "control_spacing")},
    )


def _atlas_spec(config: Mapping[str, Any], prepared: Path, device: str, backend: str) -> Any:
    from shapeflow.atlas import AtlasSpec

    matching, options = _matching_spec(config, prepared, device, backend), config["atlas"]
    width = None if options["template_width"] is None else options["template_width"] * matching.sigma
    return AtlasSpec(matching, max_iter=options["max_iter"], round_iter=options["round_iter"], template_width=width)


def _sigma(config: Mapping[str, Any], size: float) -> float:
    return config["sigma"] * (size if config["sigma_units"] == "relative" else 1.0)


def _constant(run: str, config: Mapping[str, Any], prepared: Path) -> dict[str, Any]:
    """Columns that every row of a run shares."""
    return {
        "run": run,
        "config_hash": run.rsplit("-", 1)[-1],
        "kernel": config["kernel"]["name"],
        "sigma": _sigma(config, cohort_size(prepared)),
        "normalization": config["normalization"]["name"],
        "gamma": config["attachment"]["gamma"],
        "versions": versions(),
    }


def _demo_spec(config: Mapping[str, Any]) -> Any:
    from shapeflow.demo import DemoSpec

    return DemoSpec(**{key: value for key, value in config.items() if key not in ("name", "generator")})


def _labels(path: Path) -> Any:
    """Columns of subjects.csv that describe subjects, not files: index is the subject."""
    import pandas as pd

    from shapeflow.prepare.labels import RESERVED

    table = pd.read_csv(path, dtype={"subject": str}).set_index("subject")
    return table[[c for c in table.columns if c not in RESERVED]]


def _usable(folder: Path) -> tuple[list[str], _Subjects, dict[str, str]]:
    """Subjects whose prepared shape can be read, and why the others cannot."""
    subjects, good, failures = _Subjects(folder), [], {}
    for name in sorted(p.stem for p in (folder / "fingerprints").glob("*.txt")):
        try:
            subjects.shape(name)
            good.append(name)
        except ShapeflowError as error:
            failures[name] = str(error)
    return good, subjects, failures


def _facts(prepared: Path) -> dict[str, Any]:
    return json.loads((prepared / "cohort.json").read_text(encoding="utf-8"))


def _piece(shape: Any, simplices: int = 12) -> Any:
    """A few simplices of a shape, as a shape."""
    import numpy as np

    kept = shape.simplices[:simplices]
    used, place = np.unique(kept, return_inverse=True)
    return type(shape)(points=shape.points[used], simplices=place.reshape(kept.shape))


def _diagonal(points: Any) -> float:
    extent = points.max(axis=0) - points.min(axis=0)
    return float((extent @ extent) ** 0.5)


def _median(values: Any) -> float:
    import statistics

    return statistics.median(values)


def _fingerprint(folder: Path, name: str) -> str:
    """SHA-256 of what a matching reads of a subject, or that there is nothing to read."""
    import hashlib

    files = [folder / f"{name}.vtk", folder / f"{name}.landmarks.csv"]
    if not files[0].is_file():
        return "left out"
    return hashlib.sha256(b"".join(f.read_bytes() for f in files if f.is_file())).hexdigest()


def _write_npz(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Arrays only: they load with allow_pickle=False."""
    import numpy as np

    from shapeflow.io.files import replacing

    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def _write_text(path: str | Path, text: str) -> None:
    from shapeflow.io.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
