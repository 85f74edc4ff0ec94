"""What distinguishes the runs of a study beside kernel, width, normalization and gamma: `prepare.similarity=true`, say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

_OWN_COLUMNS = ("kernel", "sigma", "sigma_units", "normalization", "attachment.gamma")


def varied_settings(run_dirs: Iterable[Path]) -> dict[str, str]:
    """For each run's name, the settings of its config.yaml that are not the same in all; of a group that was exchanged (solver=exact), its name."""
    found = {Path(d).name: _flat(_config(Path(d) / "config.yaml")) for d in run_dirs}
    keys = sorted({key for flat in found.values() for key in flat})
    differs = {key for key in keys if len({str(flat.get(key)) for flat in found.values()}) > 1}
    named = {key.removesuffix(".name") for key in differs if key.endswith(".name")}
    shown = [
        key
        for key in keys
        if key in differs
        and not key.startswith(_OWN_COLUMNS)
        and (key.endswith(".name") or key.split(".")[0] not in named)
    ]
    return {
        run: " ".join(f"{key.removesuffix('.name')}={_text(flat.get(key))}" for key in shown)
        for run, flat in found.items()
    }


def _config(path: Path) -> Mapping[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _text(value: Any) -> str:
    """As YAML writes it: null, true; 1 stays 1."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
