"""The geodesic tools that a study asks for, by the name of their folder in a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shapeflow.errors import ConfigError, few

TOOLS = ("regression", "shoot", "transport")


def items(settings: Mapping[str, Any]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """{"regression-age": ("regression", ("age",)), "transport-b-along-a": ("transport", ("b", "a")), …}"""
    found = {f"regression-{_word(label)}": ("regression", (label,)) for label in settings["regression"]}
    found |= {f"shoot-{_word(m)}": ("shoot", (m,)) for m in settings["shoot"]}
    return found | {f"transport-{_word(m)}-along-{_word(a)}": ("transport", (m, a)) for m, a in settings["transport"]}


def check(settings: Mapping[str, Any], subjects: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse what no run of this cohort could do, before its first job."""
    for label in settings["regression"]:
        if label not in labels:
            raise ConfigError(
                f"geodesic.regression names {label!r}, which is no label; the labels are {', '.join(labels) or 'none: write dataset.labels'}"
            )
    for key, name in [("shoot", m) for m in settings["shoot"]] + [
        ("transport", m) for pair in settings["transport"] for m in pair
    ]:
        if name not in subjects and name not in labels and not Path(name).is_file():
            raise ConfigError(
                f"geodesic.{key} names {name!r}: write a subject ({few(subjects)}), a label of two groups ({', '.join(labels) or 'there is none'}) "
                "or a mesh file with momenta on the atlas's control points"
            )


def _word(name: str) -> str:
    """A part of a folder's name: of a file, its stem."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", Path(name).stem if "/" in name else name)
