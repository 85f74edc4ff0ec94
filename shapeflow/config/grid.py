"""The runs of a study from its grid. `hydra.sweeper.params` is the grid, and the command line's keys replace those of the grid.

`jobs` is the one function that Snakemake's side and the sweeper plugin share, so that both expand to the same runs in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from shapeflow.config.compose import parsed
from shapeflow.config.words import split_words
from shapeflow.errors import ConfigError


def jobs(grid: Sequence[Override], listed: Sequence[Any], command_line: Sequence[Override]) -> list[list[str]]:
    """Overrides of every job: the product of the grid, once for each listed run whose keys replace the grid's."""
    entries: list[list[Override]] = [parsed(_words(entry)) for entry in listed] or [[]]
    out = []
    for entry in entries:
        try:
            out += BasicSweeper.split_arguments([*grid, *entry, *command_line], None)[0]
        except HydraException as error:
            raise ConfigError(f"cannot expand the sweep: {error}. Write key=value,value or key=range(1,4)") from error
    if not out:
        raise ConfigError("the sweep is empty: give every swept key at least one value, for example sigma=1,2")
    return out


def grid_overrides(params: Mapping[str, Any] | None) -> list[Override]:
    """`hydra.sweeper.params` as overrides."""
    for key, value in (params or {}).items():
        if value is None or str(value).strip() in ("", "[]"):
            raise ConfigError(
                f"the sweep over {key} is empty: write hydra.sweeper.params.{key}=a,b or {key}=a,b with at least one value"
            )
    return parsed([f"{key}={value}" for key, value in (params or {}).items()])


def _words(entry: Any) -> list[str]:
    """A listed run: 'kernel=gaussian sigma=1', ['kernel=gaussian', 'sigma=1'] or {kernel: gaussian, sigma: 1}."""
    if isinstance(entry, str):
        return split_words(entry)
    if isinstance(entry, Mapping):
        return [f"{key}={value}" for key, value in entry.items()]
    if isinstance(entry, Sequence):
        return [str(word) for word in entry]
    raise ConfigError(f"a listed run is overrides such as 'kernel=gaussian sigma=1'; received {entry!r}")
