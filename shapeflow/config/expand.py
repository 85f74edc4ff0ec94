"""The runs of a study: from overrides (the grid of the configuration applies) or from a list of jobs that a sweeper has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from shapeflow.config.auto import alternatives
from shapeflow.config.compose import composed, composer, parsed, resolved
from shapeflow.config.grid import grid_overrides, jobs
from shapeflow.config.identity import identify
from shapeflow.config.study import Run, Study
from shapeflow.config.validate import canonical
from shapeflow.errors import ConfigError

_SETTINGS = ("device", "backend", "geodesic", "report")


def expand(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Study:
    """Every run of the configuration's grid under `overrides`, as `shapeflow -m` would make them."""
    with composer():
        given = parsed(overrides)
        fixed = [o.input_line or "" for o in given if not o.is_sweep_override()]
        base = composed(fixed, config_dir)
        params = OmegaConf.to_container(base.hydra.sweeper.params, resolve=True) if base.hydra.sweeper.params else {}
        listed = OmegaConf.to_container(base.hydra.sweeper.runs, resolve=True) if base.hydra.sweeper.get("runs") else []
        made = jobs(grid_overrides(params), listed, given)  # type: ignore[arg-type]
        return _study(made, config_dir)


def expand_jobs(made: Sequence[Sequence[str]], config_dir: str | Path | None = None) -> Study:
    """One run for each list of overrides."""
    if not made:
        raise ConfigError("the sweep is empty: give every swept key at least one value, for example sigma=1,2")
    with composer():
        return _study(made, config_dir)


def _study(made: Sequence[Sequence[str]], config_dir: str | Path | None) -> Study:
    configs = []
    for job in made:
        own = [o for o in job if not o.lstrip("+~").startswith("hydra.")]
        searched = [o for o in job if o.lstrip("+").startswith("hydra.searchpath")]
        try:
            composition = resolved(composed([*own, *searched], config_dir))
            configs += [canonical(config) for config in alternatives(composition)]
        except ConfigError as error:
            where = f" [run {' '.join(own)}]" if len(made) > 1 and own else ""
            raise ConfigError(f"{error}{where}") from error
    return study_of(configs)


def study_of(configs: Sequence[Mapping[str, Any]]) -> Study:
    """A study of canonical configurations; equal runs count once."""
    first = configs[0]
    for key in ("study", "results", *_SETTINGS):
        values = {str(config[key]) for config in configs}
        if len(values) > 1:
            raise ConfigError(
                f"{key} cannot be swept (no run depends on it): received {', '.join(sorted(values))}; give one value"
            )
    runs: dict[tuple[str, str], Run] = {}
    for config in configs:
        run = identify(config)
        runs.setdefault((run.dataset, run.id), run)
    settings = {key: first[key] for key in _SETTINGS} | {
        "threads": {step: first[step]["threads"] for step in ("match", "atlas")},
        "processes": first["atlas"]["processes"],
    }
    return Study(str(first["study"]), str(first["results"]), tuple(runs.values()), settings)
