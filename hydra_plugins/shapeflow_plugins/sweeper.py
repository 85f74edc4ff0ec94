"""Hydra's basic sweeper, with runs that are no product of values (`hydra.sweeper.runs`). It expands by the function that Snakemake's side uses."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override


@dataclass
class GridSweeperConf:
    _target_: str = "hydra_plugins.shapeflow_plugins.sweeper.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None
    runs: list[Any] = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="shapeflow")


class GridSweeper(BasicSweeper):
    def __init__(
        self, max_batch_size: int | None, params: dict[str, str] | None = None, runs: Sequence[Any] = ()
    ) -> None:
        super().__init__(max_batch_size, params)
        self.runs = runs

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:  # type: ignore[override]
        from omegaconf import OmegaConf

        from shapeflow.config.grid import grid_overrides, jobs

        grid = grid_overrides(self.params)
        listed = OmegaConf.to_container(self.runs) if OmegaConf.is_config(self.runs) else list(self.runs)
        made = jobs(grid, listed, overrides[len(grid) :])  # type: ignore[arg-type]
        return list(self.split_overrides_to_chunks(made, max_batch_size))  # type: ignore[arg-type]
