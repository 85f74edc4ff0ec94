"""What a workflow needs to know before its first job: runs, subjects, shards, digests of the code.

The head makes the plan and leaves it in a file; its jobs, which parse the Snakefile again, read that file. They start faster so, and a mesh
that is added while a study runs does not change the study under their feet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shapeflow.config.digest import PACKAGE, source_digest
from shapeflow.config.identity import digest
from shapeflow.config.study import Run, Study
from shapeflow.errors import ConfigError

STEPS = (
    "generate",
    "prepare",
    "check",
    "compile_kernels",
    "match",
    "distances",
    "atlas",
    "analyse",
    "geodesic",
    "tables",
    "report",
)


@dataclass(frozen=True)
class Cohort:
    """A prepared cohort. `files` are the inputs of its preparation, `config` its data set and its options."""

    dataset: str
    prepare_id: str
    raw_id: str | None
    subjects: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[str, ...]  # their names
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    study: Study
    cohorts: Mapping[str, Cohort]  # by "<dataset>/<prepare id>"
    code: Mapping[str, str]  # digest of each step's code

    def run(self, dataset: str, run: str) -> Run:
        return next(r for r in self.study.runs if r.dataset == dataset and r.id == run)

    def cohort(self, run: Run) -> Cohort:
        return self.cohorts[f"{run.dataset}/{run.prepare_id}"]


def make(
    overrides: Sequence[str], launched: Sequence[Sequence[str]] | None = None, config_dir: str | None = None
) -> Plan:
    """Compose, expand, validate, and list the subjects of every data set. `launched`: jobs that a sweeper made, instead of the grid."""
    from shapeflow.config.expand import expand, expand_jobs

    study = expand(overrides, config_dir) if launched is None else expand_jobs(launched, config_dir)
    cohorts: dict[str, Cohort] = {}
    for run in study.runs:
        cohorts.setdefault(f"{run.dataset}/{run.prepare_id}", _cohort(run))
    plan = Plan(study, cohorts, {step: source_digest(step) for step in STEPS})
    from shapeflow.config.geodesic import check
    from shapeflow.config.pairs import known_template, shards

    for run in study.runs:
        known_template(run.config["atlas"], plan.cohort(run).subjects)
        check(study.settings["geodesic"], plan.cohort(run).subjects, plan.cohort(run).labels)
        if run.config["match"]["enabled"]:
            shards(run.config["match"], plan.cohort(run).subjects)  # names that are no subjects stop here
    return plan


def asked(config: Mapping[str, Any]) -> tuple[list[str], list[list[str]] | None]:
    """Snakemake's `--config`: overrides="key=value key=value,value", or launch=FILE with the jobs that a sweeper made."""
    known = {"overrides", "launch", "config_dir", "device", "backend", "runtime"}
    unknown = sorted(set(config) - known)
    if unknown:
        raise ConfigError(
            f"--config {unknown[0]}=... is no key of the workflow (it knows overrides, device, backend and config_dir): "
            f'write --config overrides="{unknown[0]}={config[unknown[0]]}"'
        )
    for key, values in (("device", ("auto", "cpu", "cuda")), ("backend", ("auto", "native", "keops", "torch"))):
        if config.get(key, "auto") not in values:
            raise ConfigError(f"--config {key}={config[key]}: write one of {', '.join(values)}")
    if config.get("launch"):
        return [], json.loads(Path(config["launch"]).read_text(encoding="utf-8"))
    given = config.get("overrides") or ""
    if isinstance(given, str):
        from shapeflow.config.words import split_words

        return split_words(given, stripped=True), None
    if isinstance(given, Sequence):
        return [str(word) for word in given], None
    raise ConfigError(f'--config overrides={given!r} is not text: write --config overrides="sigma=1,2 kernel=gaussian"')


def kernels_id(run: Run) -> str:
    """Names what a run compiles: runs that differ by widths or iterations compile the same."""
    config = run.config
    what = [
        config["kernel"],
        config["normalization"]["name"],
        config["attachment"]["name"],
        config["attachment"]["kernel"],
    ]
    if config["attachment"].get("normal_length"):  # points of twice the dimension
        what.append("normals")
    return f"{config['kernel']['name']}-{digest([*what, config['solver']['dtype'], config['solver']['integrator']])}"


def remembered(path: Path, fresh: bool, *what: Any) -> Plan:
    """The plan of `make(*what)`: made and written when `fresh`, else read if it is there."""
    key = hashlib.sha256(json.dumps([str(PACKAGE), *what], default=str).encode()).hexdigest()[:16]
    file = path / f"plan-{key}.json"
    if not fresh and file.is_file():
        return _from_json(json.loads(file.read_text()))
    plan = make(*what)
    from shapeflow.io.files import replacing  # jobs, which only read, do not pay for it

    try:
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(asdict(plan)))
    except OSError:  # a full or read-only disk: every job makes its own, and must not read an earlier start's
        with suppress(OSError):
            file.unlink(missing_ok=True)
    return plan


def _cohort(run: Run) -> Cohort:
    config = {key: run.config[key] for key in ("dataset", "prepare")}
    data = dict(config["dataset"])
    if run.raw_id is not None:
        from shapeflow.demo import LABELS, DemoSpec, subjects

        spec = DemoSpec(**{k: v for k, v in data.items() if k not in ("name", "generator")})
        return Cohort(run.dataset, run.prepare_id, run.raw_id, tuple(subjects(spec)), (), LABELS, config)
    from shapeflow.prepare import Dataset, Prepare, scan

    Prepare(**config["prepare"])  # its own checks, before any job
    dataset = Dataset(**data)
    found = scan(dataset)
    if len(found) < 2:
        raise ConfigError(
            f"data set {run.dataset!r} has {len(found)} subject in {dataset.path}: a study compares two or more"
        )
    labels = [dataset.labels] if isinstance(dataset.labels, str) else list((dataset.labels or {}).values())
    files = {
        *(s.path for s in found),
        *(s.landmarks_path for s in found if s.landmarks_path),
        *(Path(dataset.path) / label for label in labels),
    }
    return Cohort(
        run.dataset, run.prepare_id, None, tuple(s.id for s in found), tuple(sorted(str(f) for f in files)),
        tuple(str(name) for name in found[0].labels), config,
    )  # fmt: skip


def _from_json(data: Mapping[str, Any]) -> Plan:
    runs = tuple(Run(**run) for run in data["study"]["runs"])
    cohorts = {
        k: Cohort(**{**c, "subjects": tuple(c["subjects"]), "files": tuple(c["files"]), "labels": tuple(c["labels"])})
        for k, c in data["cohorts"].items()
    }
    return Plan(Study(**{**data["study"], "runs": runs}), cohorts, data["code"])
