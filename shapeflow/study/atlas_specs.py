"""A run's configuration as the specification of an atlas. A file of its own: no matching depends on the atlas's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shapeflow.study.specs import matching_spec


def atlas_spec(config: Mapping[str, Any], prepared: Path, device: str, backend: str) -> Any:
    from shapeflow.atlas import AtlasSpec

    matching, options = matching_spec(config, prepared, device, backend), config["atlas"]
    width = None if options["template_width"] is None else options["template_width"] * matching.sigma
    same = ("max_iter", "round_iter", "model", "momenta_prior", "momenta_std", "noise_prior", "noise_std")
    return AtlasSpec(matching, template_width=width, **{name: options[name] for name in same})
