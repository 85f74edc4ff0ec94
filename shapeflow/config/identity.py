"""Names by content: id = readable prefix + the first 8 hex digits of SHA-256 over the resolved keys that the results depend on.

What does not change a result is left out: where it runs (device, backend, threads, processes), how it is shown (report), under which name (study).
`0.10` and `0.1` are one number and one id, and so are `5` and `5.0`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from shapeflow.config.study import Run

RUN_KEYS = (
    "dataset",
    "prepare",
    "sigma",
    "sigma_units",
    "kernel",
    "normalization",
    "attachment",
    "solver",
    "match",
    "atlas",
)
PREPARE_KEYS = ("dataset", "prepare")
FREE = {"match": ("threads",), "atlas": ("threads", "processes")}


def is_free(key: str) -> bool:
    """Whether no result depends on the key of this dotted name."""
    group, _, name = key.partition(".")
    return group not in RUN_KEYS or name in FREE.get(group, ())


def identify(config: Mapping[str, Any]) -> Run:
    """The run of a validated, canonical configuration."""
    kept = {key: _without(config[key], FREE.get(key, ())) for key in RUN_KEYS}
    dataset = str(config["dataset"]["name"])
    unit = "" if config["sigma_units"] == "mesh" else "r"
    prefix = f"{config['kernel']['name']}-s{config['sigma']:g}{unit}-{config['normalization']['name']}"
    prepared = digest({key: config[key] for key in PREPARE_KEYS})
    target = config["prepare"].get("n_points")
    raw = f"{config['dataset']['kind']}-{digest(config['dataset'])}" if "generator" in config["dataset"] else None
    return Run(
        id=f"{prefix}-{digest(kept)}",
        dataset=dataset,
        prepare_id=f"{f'v{target}' if target else 'full'}-{prepared}",
        raw_id=raw,
        config=kept,
    )


def digest(value: Any) -> str:
    """8 hex digits of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _without(value: Any, names: tuple[str, ...]) -> Any:
    return {k: v for k, v in value.items() if k not in names} if isinstance(value, Mapping) else value
