"""Which run to trust: the rule behind `sigma: auto` and behind the star in the report.

1. Runs with a failed matching, or whose flow folds (smallest Jacobian not above zero), are out, unless no run is left.
2. The criterion is the landmark error if every run has one (landmarks are not what the matching minimises, so it cannot be bought by
   overfitting); else the leave-one-out generalisation error of the atlas; else the surface distance that is left.
3. Among the runs within `tolerance` of the best that leave no more than twice the surface distance of the closest of them, the widest kernel:
   the smoothest deformation that explains the data as well. A handful of landmarks does not tell errors apart that differ by a few per cent,
   and a kernel so wide that surfaces stay apart may still carry landmarks well.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from shapeflow.errors import ShapeflowError

_log = logging.getLogger("shapeflow.statistics")

CRITERIA = (
    ("landmark_error", "landmark error"),
    ("atlas_landmark_error", "landmark error of the atlas"),
    ("generalisation", "leave-one-out generalisation error"),
    ("surface_mean", "surface distance left"),
    ("atlas_surface_mean", "surface distance left by the atlas"),
)


@dataclass(frozen=True)
class Choice:
    run: str
    criterion: str  # a column of the sweep table
    value: float
    reason: str  # a sentence for people


TOLERANCE = 0.1


def choose_run(sweep: pd.DataFrame, tolerance: float = TOLERANCE) -> Choice:
    """The run of a sweep table that the rule picks, with the reason in words."""
    if not len(sweep):
        raise ShapeflowError("there is no run to choose from: the sweep table is empty")
    sound = sweep[(sweep["failures"].fillna(0) == 0) & ~(sweep["jacobian_min"].astype("float64") <= 0)]
    excluded = len(sweep) - len(sound)
    candidates = sound if len(sound) else sweep
    found = next(
        ((c, words) for c, words in CRITERIA if c in candidates and np.isfinite(candidates[c].astype("float64")).all()),
        None,
    )
    if found is None:
        raise ShapeflowError(f"no criterion is known for every run; one of {', '.join(c for c, _ in CRITERIA)} must be")
    column, words = found
    values = candidates[column].astype("float64")
    near = candidates[values <= values.min() + tolerance * abs(values.min())]
    near = near[_follows(near)]
    chosen = (
        near.assign(_value=values)
        .sort_values(["sigma", "_value", "run"], ascending=[False, True, True], kind="stable")
        .iloc[0]
    )
    reason = f"{words} {chosen[column]:.3g} mesh units"
    best = candidates.loc[values.idxmin()]
    if chosen[column] == best[column]:
        reason += ", the smallest of the sweep" if len(candidates) > 1 else ""
    else:
        reason += f", within {tolerance:.0%} of the smallest ({values.min():.3g})"
        reason += (
            " with a wider kernel, that is a smoother deformation"
            if chosen["sigma"] > best["sigma"]
            else ", whose kernel is too wide for the surfaces to come as close"
        )
    before = chosen.get(f"{column}_before")
    if pd.notna(before) and chosen[column] >= before:
        reason += f"; beware: it was {before:.3g} before matching"
    tried = sorted(set(candidates["sigma"].astype("float64")))
    if len(tried) > 2 and chosen["sigma"] in (tried[0], tried[-1]):
        reason += f"; no {'narrower' if chosen['sigma'] == tried[0] else 'wider'} kernel was tried"
    if excluded and len(sound):
        reason += f"; {excluded} run{'s' if excluded > 1 else ''} left out because matchings failed or folded"
    elif excluded:
        reason += "; beware: every run has failed or folded matchings"
    return Choice(str(chosen["run"]), column, float(chosen[column]), reason)


def _follows(runs: pd.DataFrame) -> pd.Series:
    """Which runs leave at most twice the smallest surface distance among them; all, where it is not known."""
    for name in ("surface_mean", "atlas_surface_mean"):
        if name in runs and np.isfinite(left := runs[name].astype("float64")).all():
            return left <= 2 * left.min()
    return pd.Series(True, index=runs.index)


def selected(sweep: pd.DataFrame, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """What `selected.json` of a study says: the run that the rule picks, what it is made of, and why; run is null when there is none to pick."""
    try:
        choice = choose_run(sweep, tolerance)
    except ShapeflowError as error:
        return {"run": None, "reason": str(error)}
    row = sweep[sweep["run"].astype(str) == choice.run].iloc[0]
    known = {name: row[name] for name in ("kernel", "sigma", "normalization", "settings") if name in row}
    plain = {name: None if pd.isna(v) else float(v) if name == "sigma" else str(v) for name, v in known.items()}
    return {"run": choice.run, **plain, "criterion": choice.criterion, "value": choice.value, "reason": choice.reason}


def mark_chosen(sweep: pd.DataFrame, tolerance: float = TOLERANCE) -> pd.DataFrame:
    """The sweep table with a column `chosen`, true for the run that the rule picks, and `choice`, the reason in its row."""
    try:
        choice = choose_run(sweep, tolerance)
    except ShapeflowError as error:
        _log.warning("no run is chosen: %s", error)
        return sweep.assign(chosen=False, choice=None)
    chosen = sweep["run"].astype(str) == choice.run
    return sweep.assign(chosen=chosen, choice=[choice.reason if c else None for c in chosen])
