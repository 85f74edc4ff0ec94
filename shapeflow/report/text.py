"""Sentences and numbers of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from shapeflow.tables import LENGTH, categorical_labels, failed

_THIN, _MINUS = "\u202f", "\u2212"


def sentence(study: Mapping, sweep: pd.DataFrame, labels: pd.DataFrame | None) -> str:
    """The study in a sentence: cohort, sweep, outcome."""
    n = subjects(study, sweep) or (len(labels) if labels is not None else 0)
    cohort = f"{n} shapes of the data set {study.get('dataset', '')}".rstrip()
    groups = categorical_labels(labels) if labels is not None else []
    label = study.get("label") if study.get("label") in groups else next(iter(groups), None)
    if label is not None and labels is not None:
        counts = labels[label].dropna().map(cell).value_counts().sort_index()
        named = [f"{n} with {g}" if g.lstrip(_MINUS).isdigit() else f"{n} {g}" for g, n in counts.items()]
        cohort += f" ({label}: {join(named) if len(named) <= 6 else f'{len(named)} groups'})"
    pairs, failures = _total(sweep, "pairs"), _total(sweep, "failures")
    matched = f"{cell(pairs)} matchings" if pairs else "an atlas"
    unit = f" {study.get('unit') or LENGTH}"
    varied = (
        ("kernel", "kernel", "", ""),
        ("sigma", "width", "σ = ", unit),
        ("normalization", "normalization", "", ""),
        ("settings", "setting", "", ""),
    )
    over = ", ".join(filter(None, [listed(sweep, *words) for words in varied]))
    runs = f"{len(sweep)} runs over" if len(sweep) != 1 else "one run with"
    ending = f"{failures} of them failed" if failures else "none failed"
    return f"{cohort} were compared in {runs} {over}: {matched}, {ending}."


def provenance(study: Mapping, seconds: float) -> str:
    """What it was computed with, on what, and for how long; empty where the tables do not say."""
    programs = [part.strip() for part in str(study.get("versions") or "").split(";") if part.strip()]
    parts = [
        f"with {join(list(dict.fromkeys(programs)))}" if programs else "",
        f"on {str(study['device']).replace('cpu', 'the CPU')}" if study.get("device") else "",
        f"({study['backend']} kernels)" if study.get("backend") else "",
        f"in {duration(seconds)} of computing time" if seconds > 0 else "",
        f"; finished {study['finished']}" if study.get("finished") else "",
    ]
    said = " ".join(filter(None, parts)).replace(" ;", ";")
    return f"Computed {said}." if said else ""


def outcome(rows: pd.DataFrame, noun: str, limit: str) -> str:
    """How solutions ended: 20 of 56 matchings converged, 36 stopped by solver.max_iter."""
    status, bad = rows["status"].astype(str), failed(rows)
    done, stopped = ~bad & (status == "converged"), ~bad & (status == "max_iter")
    rest = ~(bad | done | stopped)
    ends = (
        (stopped, f"stopped by {limit}"),
        (bad, "failed"),
        (rest, f"ended as {', '.join(sorted(status[rest].unique()))}"),
    )
    others = [f"{cell(int(which.sum()))} {words}" for which, words in ends if which.any()]
    return f"{join([f'{cell(int(done.sum()))} of {cell(len(rows))} {noun} converged', *others])}."


def subjects(study: Mapping, sweep: pd.DataFrame) -> int:
    return int(study.get("subjects") or (sweep["subjects"].max() if len(sweep) else 0))


def listed(sweep: pd.DataFrame, column: str, singular: str, prefix: str = "", suffix: str = "") -> str:
    values = [cell(v, 4) for v in sorted(sweep[column].dropna().unique())] if column in sweep and len(sweep) else []
    if not values:
        return ""
    if len(values) > 6:
        return f"{len(values)} {singular}s from {prefix}{values[0]} to {values[-1]}{suffix}"
    return f"{singular}{'s' if len(values) > 1 else ''} {prefix}{join(values)}{suffix}"


def join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def cell(value: object, digits: int = 3, zeros: bool = False) -> str:
    """A value in a sentence: whole numbers whole, others to so many digits or to the unit, nothing for what is missing."""
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer) or (isinstance(value, float) and abs(value) >= 10**digits - 0.5):
        text = f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.0f}"
        return text.replace(",", _THIN).replace("-", _MINUS)
    return _digits(value, digits, zeros) if isinstance(value, float) else str(value)


def p_value(value: object) -> str:
    """Two digits, however small: 0.029, 1.7e−6."""
    return cell(value, 2)


def written(column: object, value: object) -> str:
    """A value of a column by this name: all of a column have as many digits, 0.0140 below 0.0138."""
    p = str(column) in ("p", "q") or str(column).endswith("_p")
    return cell(value, 2 if p else 3, zeros=True)


def percent(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:g}{_THIN}%".replace("-", _MINUS) if math.isfinite(share) else ""


def _digits(value: float, digits: int, zeros: bool) -> str:
    keep = "#" if zeros and value != int(value) else ""
    mantissa, _, exponent = f"{value:{keep}.{digits}g}".partition("e")
    mantissa = mantissa.removesuffix(".")
    return (f"{mantissa}e{int(exponent)}" if exponent else mantissa).replace("-", _MINUS)


def _total(sweep: pd.DataFrame, column: str) -> int:
    return int(sweep[column].fillna(0).sum()) if column in sweep else 0
