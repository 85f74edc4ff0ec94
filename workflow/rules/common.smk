import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from shapeflow import locking
from shapeflow.config import plan as planning
from shapeflow.config.geodesic import items
from shapeflow.config.identity import digest
from shapeflow.config.pairs import members, shards
from shapeflow.errors import ShapeflowError

min_version("9.0")


# what workflow/envs/Containerfile makes: a job needs shapeflow itself, whatever its rule
container: "docker://localhost/shapeflow:latest"


def make_plan():
    """Runs, subjects, shards and code digests; the head makes them, its jobs read them."""
    try:
        overrides, launched = planning.asked(config)
        return planning.remembered(
            Path(".snakemake", "shapeflow"), workflow.is_main_process, overrides, launched, config.get("config_dir")
        )
    except ShapeflowError as error:
        raise WorkflowError(f"the study cannot start. {error}") from None


PLAN = make_plan()
RESULTS = PLAN.study.results
STUDY = PLAN.study.name
# Named by the runs: another grid lacks this file. Snakemake would know of it by what it noted of the last job, but a results folder may come without notes.
GRID = f".grid-{digest([[run.dataset, run.id] for run in PLAN.study.runs])}"
CODE = PLAN.code
if workflow.is_main_process:
    locking.recover(RESULTS)
DEVICE = config.get("device", PLAN.study.settings["device"])
BACKEND = config.get("backend", PLAN.study.settings["backend"])
THREADS = PLAN.study.settings["threads"]
PROCESSES = PLAN.study.settings["processes"]
GEODESICS = items(PLAN.study.settings["geodesic"])
RUNS = {(run.dataset, run.id): run for run in PLAN.study.runs}
SHARDS = {
    key: shards(run.config["match"], PLAN.cohort(run).subjects) if run.config["match"]["enabled"] else {}
    for key, run in RUNS.items()
}
# what a script reads beside its inputs and parameters: no result depends on it, so it must not be a parameter
config["runtime"] = {"device": DEVICE, "backend": BACKEND}
config["processes"] = PROCESSES


wildcard_constraints:
    dataset="[^/]+",
    prepared="[^/]+",
    run="[^/]+",
    shard="[0-9-]+",
    study="[^/]+",


def run_of(wildcards):
    return RUNS[wildcards.dataset, wildcards.run]


def prepared_dir(run):
    return f"{RESULTS}/{run.dataset}/prepared/{run.prepare_id}"


def rule_name(step, cohort):
    return re.sub(r"\W", "_", f"{step}_{cohort.dataset}_{cohort.prepare_id}")


def run_dir(run):
    return f"{RESULTS}/{run.dataset}/runs/{run.id}"


def fingerprints(run, subjects):
    """What a job that reads these subjects depends on: files that change when a prepared shape does, however large that is."""
    return [f"{prepared_dir(run)}/fingerprints/{subject}.txt" for subject in subjects]


def compiled(run):
    return f"{RESULTS}/{run.dataset}/compiled/{run.prepare_id}/{planning.kernels_id(run)}.json"


def match_input(wildcards):
    run = run_of(wildcards)
    pairs = SHARDS[run.dataset, run.id][wildcards.shard]
    return fingerprints(run, members(pairs))


def run_results(run):
    """What matching and atlas leave of a run: its statistics read it."""
    atlas = [f"{run_dir(run)}/atlas/{name}" for name in ("atlas.parquet", "momenta.npz", "template.vtk")]
    match = [f"{run_dir(run)}/matching.parquet"] if run.config["match"]["enabled"] else []
    return match + (atlas if run.config["atlas"]["enabled"] else [])


def run_tables(run):
    """What a finished run leaves for the study's tables."""
    tables = [path for path in run_results(run) if path.endswith(".parquet")]
    return [*tables, f"{run_dir(run)}/statistics/summary.csv"]


def geodesic_tables(run):
    """What the geodesic tools of the study leave of a run."""
    return [f"{run_dir(run)}/geodesic/{item}/summary.csv" for item in GEODESICS]


def files_among(names):
    """Those of the configuration's values that are files of the user's: a job that reads one depends on it."""
    return [name for name in names if Path(name).is_file()]


def geodesic_options(*keys):
    """What a tool is told of the configuration: another key's change does not run it again."""
    return {key: PLAN.study.settings["geodesic"][key] for key in keys}


def geodesic_input(wildcards):
    """What a tool reads beside the atlas: a regression every subject, the others files of momenta."""
    tool, what = GEODESICS[wildcards.item]
    run = run_of(wildcards)
    return fingerprints(run, PLAN.cohort(run).subjects) if tool == "regression" else files_among(what)


def gpus(wildcards):
    """GPUs of a job: the resource that keeps two jobs off one device."""
    return 1 if DEVICE == "cuda" else 0


def study_dir(dataset):
    return f"{RESULTS}/{dataset}/studies/{STUDY}"


def targets():
    files = []
    for dataset in PLAN.study.datasets():
        folder = study_dir(dataset)
        # every table: sweep.csv alone says nothing, since runs refresh it as they finish
        names = ["matching.parquet", "matching.csv", "atlas.parquet", "atlas.csv", "sweep.csv"]
        files += [f"{folder}/{name}" for name in ("study.json", GRID, "selected.json")]
        files += [f"{folder}/tables/{name}" for name in names]
        files += [table for run in PLAN.study.of(dataset) for table in geodesic_tables(run)]
        files += [f"{folder}/report.html"] if PLAN.study.settings["report"]["enabled"] else []
    return files


onstart:
    global LOCK  # Snakemake makes a function of this block: a local name would free the lock as soon as it returns
    if workflow.is_main_process:
        try:
            LOCK = locking.begin(RESULTS)
        except ShapeflowError as error:
            raise WorkflowError(str(error)) from None


onsuccess:
    for dataset in PLAN.study.datasets():
        for result in (f"{study_dir(dataset)}/report.html", f"{study_dir(dataset)}/tables"):
            if Path(result).exists():
                print(f"Results of the study: {result}", file=sys.stderr)
                break
