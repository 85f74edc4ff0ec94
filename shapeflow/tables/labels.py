"""Labels of subjects, as the tables carry them."""

from __future__ import annotations

import pandas as pd

from shapeflow.tables.schema import ATLAS, MATCHING

_KNOWN = {c.name for c in (*MATCHING, *ATLAS)}


def label_names(rows: pd.DataFrame) -> list[str]:
    """Labels of a matching table (`source_x` with `target_x`) or of an atlas table (every column that the schema does not know)."""
    if "source" in rows.columns:
        names = [str(c)[len("source_") :] for c in rows.columns if str(c).startswith("source_")]
        return [name for name in names if f"target_{name}" in rows.columns]
    return [str(c) for c in rows.columns if c not in _KNOWN]


def subject_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a subject, in order of name: index `subject`, a column a label."""
    names = label_names(rows)
    if "source" in rows.columns:
        parts = [
            rows[[end, *(f"{end}_{n}" for n in names)]].set_axis(["subject", *names], axis=1)
            for end in ("source", "target")
        ]
        both = pd.concat(parts, ignore_index=True)
    else:
        both = rows[["subject", *names]]
    return both.drop_duplicates("subject").sort_values("subject", kind="stable").set_index("subject")


def categorical_labels(labels: pd.DataFrame) -> list[str]:
    """Labels that make groups: two or more values, each named by two subjects or more; of numbers, at most five whole ones.

    A measurement (age, size) is no group, and neither is a label that names every subject by itself.
    """
    found = []
    for name in labels.columns:
        values = labels[name].dropna()
        counts = values.astype(str).value_counts()
        if len(counts) < 2 or counts.min() < 2:
            continue
        if is_measurement(values):
            continue
        found.append(str(name))
    return found


def is_measurement(values: pd.Series) -> bool:
    """Whether a label measures something (age, size), rather than names groups by numbers (1, −1)."""
    known = values.dropna()
    if not pd.api.types.is_numeric_dtype(known) or pd.api.types.is_bool_dtype(known):
        return False
    return known.nunique() > 5 or bool((known.astype(float) % 1 != 0).any())
