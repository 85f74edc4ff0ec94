"""sigma=auto: the widths that are tried in its place.

Nobody knows a width before having seen what it does, so `auto` is a sweep: a run for each width of `sigma_auto`, fractions of the cohort's
size. Which of them is to be trusted is told from their results by the rule of `shapeflow.statistics.selection`, that of every sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shapeflow.errors import ConfigError

AUTO = "auto"


def alternatives(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Resolved configurations with a number for sigma: one for each width if it was `auto`, else the one that was given."""
    if config.get("sigma") != AUTO:
        return [dict(config)]
    widths = config.get("sigma_auto")
    if not isinstance(widths, list | tuple) or not widths:
        raise ConfigError(
            f"sigma=auto tries the widths of sigma_auto, fractions of the cohort's size; received {widths!r}: write sigma_auto=[0.1,0.2]"
        )
    return [{**config, "sigma": width, "sigma_units": "relative"} for width in widths]
