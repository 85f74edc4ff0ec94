"""`shapeflow`: a study from the command line.

shapeflow -m kernel=gaussian,cauchy sigma=5,10     a sweep, as one Snakemake DAG
shapeflow sigma=5                                  one run
shapeflow run [overrides] [-- snakemake options]   the configuration's grid, as `snakemake` runs it
shapeflow validate | expand | status | gc [overrides]
shapeflow keys                                     every key, with its values and its default

Each takes --config-dir FOLDER, with experiments and data sets of your own.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shapeflow import __version__
from shapeflow.errors import ShapeflowError, few


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {"run": _run, "validate": _validate, "expand": _expand, "status": _status, "gc": _gc, "keys": _keys}
    try:
        if arguments and arguments[0] in commands:
            commands[arguments[0]](arguments[1:])
        elif arguments and arguments[0] in ("--version", "-V"):
            print(f"shapeflow {__version__}")
        elif not arguments or arguments[0] in ("help", "--help", "-h"):
            print(__doc__)
        elif not arguments[0].startswith("-") and "=" not in arguments[0] and not arguments[0].startswith("~"):
            raise ShapeflowError(
                f"unknown command {arguments[0]!r}: write {', '.join(commands)}, or key=value overrides"
            )
        else:
            _hydra(arguments)
    except ShapeflowError as error:
        raise SystemExit(f"shapeflow: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("shapeflow: stopped; the same command resumes") from None


def _hydra(arguments: Sequence[str]) -> None:
    """Hydra reads the command line; a sweep goes through its launcher, a single run straight to Snakemake."""
    import hydra

    from shapeflow.config.compose import composed, composer, parsed
    from shapeflow.resources import resource

    multirun = any(a in ("-m", "--multirun") for a in arguments)
    folder = _config_dir(arguments)
    if folder is not None:
        os.environ["SHAPEFLOW_CONFIG_DIR"] = folder  # Snakemake composes the same runs: it must look where Hydra looks
    words = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    another = any(a.lstrip("+").startswith("hydra/sweeper=") and not a.endswith("=grid") for a in arguments)
    if multirun and another:
        # Optuna and its kin propose values as they go: each is checked when its trial is composed
        if any(a.endswith("hydra/sweeper=optuna") for a in arguments) and not find_spec("optuna"):
            raise ShapeflowError('Optuna is not installed: pip install "shapeflow[optuna]"')
        with composer():
            composed([o.input_line or "" for o in parsed(words) if not o.is_sweep_override()], folder)
    elif multirun:
        # Hydra would say the same after a traceback: refuse what no run could use before it starts
        _check(words, folder)
    else:
        swept = [o.key_or_group for o in parsed(words) if o.is_sweep_override()]
        if swept:
            raise ShapeflowError(f"{swept[0]} has several values: write shapeflow -m {' '.join(arguments)} to sweep")
        with composer():
            composed(words, folder)
    sys.argv = ["shapeflow", *(a for a in arguments if a not in words), *words]  # Hydra's parser wants options first
    decorated = hydra.main(config_path=str(resource("config")), config_name="config", version_base="1.3")
    decorated(_task)()


def _task(config: Any) -> float | None:
    """Hydra's task: makes sure that the run is there (a launcher has made it) and returns what a sweeper minimises."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from shapeflow.config.auto import alternatives
    from shapeflow.config.compose import resolved
    from shapeflow.config.identity import identify
    from shapeflow.config.validate import canonical

    tried = [canonical(plain) for plain in alternatives(resolved(config))]
    if HydraConfig.get().mode == RunMode.RUN:
        from shapeflow.launch import snakemake

        launcher = HydraConfig.get().launcher
        snakemake(
            [list(HydraConfig.get().overrides.task)],
            cores=str(launcher.get("cores", "all")),
            profile=launcher.get("profile"),
        )
    runs = [Path(plain["results"]) / run.dataset / "runs" / run.id for plain in tried for run in [identify(plain)]]
    found = [value for value in map(objective, runs) if value is not None]
    return min(found, default=None)  # of sigma=auto, the best that a width can do


def objective(run_dir: Path) -> float | None:
    """Mean surface distance that the run's matchings (or its atlas) leave, mesh units; a failed row counts as infinitely far."""
    import pyarrow.parquet as parquet

    for table in (run_dir / "matching.parquet", run_dir / "atlas" / "atlas.parquet"):
        if table.is_file():
            values = parquet.read_table(table, columns=["surface_mean"]).column("surface_mean").to_pylist()
            numbers = [v for v in values if v is not None and v == v]
            return sum(numbers) / len(numbers) if len(numbers) == len(values) and numbers else float("inf")
    return None


def _run(arguments: Sequence[str]) -> None:
    from shapeflow.config.plan import make
    from shapeflow.launch import snakemake

    cut = list(arguments).index("--") if "--" in arguments else len(arguments)
    args = _parser("run", "The configuration's grid, as snakemake runs it.").parse_intermixed_args(arguments[:cut])
    extra = list(arguments[cut + 1 :])
    make(args.overrides, None, args.config_dir)
    counted = any(a.split("=")[0] in ("--cores", "-j", "--jobs") or a.startswith("-c") for a in extra)
    keys = [f"config_dir={args.config_dir}"] if args.config_dir else []
    keys += [f"overrides={' '.join(args.overrides)}"] if args.overrides else []
    snakemake(cores="1" if counted else "all", args=[*extra, *(["--config", *keys] if keys else [])])


def _check(overrides: Sequence[str], config_dir: str | None) -> None:
    from shapeflow.config.plan import make

    make([o for o in overrides if not o.lstrip("+~").startswith("hydra/")], None, config_dir)


def _config_dir(arguments: Sequence[str]) -> str | None:
    """The folder of Hydra's --config-dir (or -cd), if it is given."""
    for i, word in enumerate(arguments):
        name, _, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            value = value or (arguments[i + 1] if i + 1 < len(arguments) else "")
            return str(Path(value).resolve())
    return None


def _parser(name: str, text: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"shapeflow {name}", description=text)
    parser.add_argument("overrides", nargs="*", help="key=value or key=value,value, as for snakemake and shapeflow -m")
    parser.add_argument("--config-dir", help="a folder with your own experiment/, dataset/, ... files")
    return parser


def _validate(arguments: Sequence[str]) -> None:
    parser = _parser("validate", "Check a configuration, then every mesh that it names, before any job.")
    parser.add_argument("--config-only", action="store_true", help="do not read the meshes")
    args = parser.parse_intermixed_args(arguments)
    from shapeflow.config.plan import make

    plan = make(args.overrides, None, args.config_dir)
    subjects = {c.dataset: len(c.subjects) for c in plan.cohorts.values()}
    cohorts = ", ".join(f"{n} subjects of {name}" for name, n in subjects.items())
    print(f"the configuration is good: study {plan.study.name!r}, {len(plan.study.runs)} runs, {cohorts}", flush=True)
    if args.config_only:
        return
    from shapeflow.prepare import Dataset, Prepare, rehearse, summary

    lost = 0
    for cohort in (c for c in plan.cohorts.values() if c.raw_id is None):  # generated meshes are good by construction
        out = Path(plan.study.results) / cohort.dataset / "validation" / cohort.prepare_id
        options = Prepare(**cohort.config["prepare"])
        findings = rehearse(Dataset(**cohort.config["dataset"]), options, out)
        print(f"{cohort.dataset}: {summary.text(findings, len(cohort.subjects))}")
        print(f"all of it is in {out / 'findings.csv'}, one row a subject in {out / 'quality.csv'}")
        lost += len({f.subject for f in findings if f.severity == "error"}) if options.on_bad == "stop" else 0
    if lost:
        raise SystemExit(
            f"shapeflow: the study would stop at {lost} of its subjects; with prepare.on_bad=skip it goes on without them"
        )


def _expand(arguments: Sequence[str]) -> None:
    parser = _parser("expand", "List the runs of a study.")
    parser.add_argument("--json", action="store_true", help="with every resolved key")
    args = parser.parse_intermixed_args(arguments)
    from shapeflow.config.expand import expand

    study = expand(args.overrides, args.config_dir)
    if args.json:
        print(
            json.dumps(
                [
                    {"id": r.id, "dataset": r.dataset, "prepare_id": r.prepare_id, "config": dict(r.config)}
                    for r in study.runs
                ],
                indent=1,
            )
        )
    else:
        print("\n".join(f"{run.dataset}/{run.id}" for run in study.runs))


def _status(arguments: Sequence[str]) -> None:
    parser = _parser("status", "What is done, running, failed and left.")
    args = parser.parse_intermixed_args(arguments)
    from rich.console import Console
    from rich.table import Table

    from shapeflow import inventory
    from shapeflow.config.plan import make

    plan = make(args.overrides, None, args.config_dir)
    busy = inventory.running(plan)
    entries = inventory.progress(plan)
    table = Table(title=f"study {plan.study.name}: {'a snakemake is at work' if busy else 'nothing is running'}")
    for column in ("run", "state", "shards", "atlas", "failures"):
        table.add_column(column, justify="right" if column in ("shards", "failures") else "left", overflow="fold")
    for entry in entries:
        atlas = {True: "done", False: "left", None: "-"}[entry.atlas]
        table.add_row(
            f"{entry.run.dataset}/{entry.run.id}",
            entry.state,
            f"{entry.shards_done}/{entry.shards}",
            atlas,
            str(len(entry.failures)),
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for entry in entries:
        for line in _grouped(entry.failures):
            print(f"{entry.run.id}: {line}")
    troubles = inventory.troubles(plan)
    print("".join(f"{line}\n" for line in _grouped(troubles)), end="")
    done = sum(entry.state == inventory.DONE for entry in entries)
    given = _given(args.overrides, args.config_dir)
    print(f"{done} of {len(entries)} runs are done.")
    if not busy and (done < len(entries) or troubles):
        print(f"Next: snakemake --cores all {given}".rstrip())
    elif not busy and any(entry.failures for entry in entries):
        # shards without a failed row are kept, and taken as they are
        print(
            f"To try what failed again, when it is mended: snakemake --cores all --forcerun match atlas {given}".rstrip()
        )


def _given(overrides: Sequence[str], config_dir: str | None) -> str:
    """The `--config` of a command that a shell reads, with these overrides; readable as long as no sign needs more than double quotes."""
    keys = [shlex.quote(f"config_dir={config_dir}")] if config_dir else []
    words = " ".join(overrides)
    if words:
        keys.append(shlex.quote(f"overrides={words}") if set('"`$') & set(words) else f'overrides="{words}"')
    return " ".join(["--config", *keys]) if keys else ""


def _grouped(failures: Sequence[tuple[str, str]], most: int = 3) -> list[str]:
    """One line a reason: a mesh that cannot be read fails every pair that it is in."""
    lines = []
    for reason in dict.fromkeys(why for _, why in failures):
        lines.append(f"{few((name for name, why in failures if why == reason), most)}: {reason}")
    return lines


def _keys(arguments: Sequence[str]) -> None:
    from shapeflow.config.document import markdown

    sys.stdout.write(markdown())


def _gc(arguments: Sequence[str]) -> None:
    parser = _parser(
        "gc", "List, and with --yes remove, results that no study refers to. The runs of the overrides are kept too."
    )
    parser.add_argument("--yes", action="store_true", help="remove them")
    args = parser.parse_intermixed_args(arguments)
    from shapeflow import inventory
    from shapeflow.config.plan import make

    plan = make(args.overrides, None, args.config_dir)
    results = Path(plan.study.results)
    folders = inventory.orphans(results, plan.study.runs)
    for folder in folders:
        print(f"{inventory.size(folder) / 1e6:10.1f} MB  {folder}")
    if not folders:
        print("nothing to remove: every result belongs to a study")
    elif not args.yes:
        print(f"{len(folders)} folders belong to no study. shapeflow gc --yes removes them")
    elif inventory.running(plan):
        raise ShapeflowError("a snakemake is at work on these results: wait until it ends, then remove")
    else:
        inventory.remove(folders)
        print(f"removed {len(folders)} folders")


if __name__ == "__main__":
    main()
