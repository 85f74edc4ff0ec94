"""What the configuration becomes: a study is a name and its runs; a run is an id and the resolved keys it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """One point of the sweep. Two runs with equal ids have equal results, whichever study asked for them."""

    id: str
    dataset: str  # the folder under results/
    prepare_id: str
    raw_id: str | None  # the generated cohort's, for data sets that shapeflow makes itself
    config: Mapping[str, Any]  # resolved and canonical: what runs/<id>/config.yaml holds


@dataclass(frozen=True)
class Study:
    """`settings` are the keys that no result depends on: device, backend, threads, report."""

    name: str
    results: str
    runs: tuple[Run, ...]
    settings: Mapping[str, Any]

    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.dataset for run in self.runs))

    def of(self, dataset: str) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.dataset == dataset)
