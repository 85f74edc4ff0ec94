"""A run's configuration as the specification of a matching."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shapeflow.study.prepared import cohort_size


def matching_spec(config: Mapping[str, Any], prepared: Path, device: str, backend: str) -> Any:
    from shapeflow.matching import MatchingSpec

    size = cohort_size(prepared)
    sigma = sigma_of(config, size)
    attachment, solver = config["attachment"], config["solver"]
    unit = size if attachment["units"] == "relative" else 1.0

    def scaled(key: str) -> float | None:
        return None if attachment.get(key) is None else attachment[key] * unit

    return MatchingSpec(
        kernel=config["kernel"]["formula"],
        sigma=sigma,
        normalization=config["normalization"]["name"],
        normalization_iterations=config["normalization"]["iterations"],
        attachment=attachment["name"],
        attachment_kernel=attachment["kernel"],
        attachment_widths=tuple(width * unit for width in attachment["widths"]),
        attachment_kappa=attachment.get("kappa", 1.0),
        attachment_reach=scaled("reach"),
        attachment_normal_length=scaled("normal_length"),
        attachment_weight=attachment["weight"],
        units=attachment["terms"],
        gamma=attachment["gamma"],
        control_spacing=None if solver["control_spacing"] is None else solver["control_spacing"] * sigma,
        device=device,
        backend=backend,
        **{key: value for key, value in solver.items() if key not in ("name", "control_spacing")},
    )


def sigma_of(config: Mapping[str, Any], size: float) -> float:
    return config["sigma"] * (size if config["sigma_units"] == "relative" else 1.0)
