"""What the page shows of a run. Everything but the run's name may be missing: a page is written for what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeflow.errors import ShapeflowError
from shapeflow.report.text import cell
from shapeflow.shape import Shape
from shapeflow.tables import DistanceMatrix


@dataclass(frozen=True)
class Embedding:
    """Subjects as points of a plane: `coordinates` (N, 2) in the order of `names`."""

    title: str
    names: tuple[str, ...]
    coordinates: NDArray[np.float64]
    axes: tuple[str, str]
    note: str = ""


@dataclass(frozen=True)
class Mode:
    """A mode of variation: the template's vertices (n, d) at each of `steps`, the middle one the template itself."""

    title: str
    steps: tuple[float, ...]
    frames: tuple[NDArray[np.float64], ...]
    unit: str = "standard deviations"

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.frames) or len(self.steps) < 2:
            raise ShapeflowError(
                f"mode {self.title!r} has {len(self.steps)} steps and {len(self.frames)} frames: one a step, two or more"
            )


@dataclass(frozen=True)
class Field:
    """A number at every vertex of the template, such as how far two groups' mean shapes are apart; with `levels`, up to three, a colour each."""

    title: str
    values: NDArray[np.float64]
    unit: str = ""
    diverging: bool = False
    levels: tuple[float, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A statistic in words, with the table that it rests on; `marked` are the rows of it that stand out."""

    title: str
    text: str
    table: pd.DataFrame | None = None
    marked: tuple[int, ...] = ()


@dataclass(frozen=True)
class RunView:
    """A run as the page shows it; `links` are paths relative to the page."""

    run: str
    kernel: str = ""
    sigma: float = float("nan")
    normalization: str = ""
    labels: pd.DataFrame | None = None  # index: subject
    matrix: DistanceMatrix | None = None
    matrix_note: str = ""
    template: Shape | None = None
    history: pd.DataFrame | None = None
    history_note: str = ""
    embeddings: tuple[Embedding, ...] = ()
    modes: tuple[Mode, ...] = ()
    fields: tuple[Field, ...] = ()
    findings: tuple[Finding, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return run_title(self.kernel, self.sigma, self.normalization) or self.run


def run_title(
    kernel: object = None, sigma: float | None = None, normalization: object = None, settings: object = None
) -> str:
    """gaussian · σ = 0.4 · sinkhorn, of what is given."""
    width = "" if sigma is None or pd.isna(sigma) else f"σ = {cell(float(sigma), 4)}"
    words = ["" if word is None or pd.isna(word) else str(word) for word in (kernel, normalization, settings)]
    return " · ".join(filter(None, [words[0], width, *words[1:]]))
