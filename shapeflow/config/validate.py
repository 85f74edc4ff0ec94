"""A configuration is refused before any job when a run could not use it. The schema is workflow/schemas/config.schema.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from shapeflow.config.geodesic import TOOLS
from shapeflow.errors import ConfigError
from shapeflow.resources import resource


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    return yaml.safe_load((resource("workflow") / "schemas" / "config.schema.yaml").read_text())


def schema_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with the kind of data set that this configuration has: generated, or a folder of meshes."""
    whole = schema()
    data = config.get("dataset")
    kind = "generated" if isinstance(data, Mapping) and "generator" in data else "folder"
    return {**whole, "properties": {**whole["properties"], "dataset": whole["$defs"][kind]}}


def schema_keys() -> list[str]:
    """Dotted names of every key."""
    whole = schema()

    def walk(node: Mapping[str, Any], prefix: str) -> list[str]:
        found = []
        for name, child in node.get("properties", {}).items():
            found += [f"{prefix}{name}", *walk(child, f"{prefix}{name}.")]
        return found

    return sorted(
        {*walk(whole, ""), *walk(whole["$defs"]["generated"], "dataset."), *walk(whole["$defs"]["folder"], "dataset.")}
    )


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """Validated, numbers of one kind, percentages spelled out: equal meanings become equal dictionaries."""
    config = _percent(dict(config))
    rules = schema_of(config)
    problem = best_match(Draft202012Validator(rules).iter_errors(config))
    if problem is not None:
        raise ConfigError(_sentence(problem))
    config = dict(_numbers(config, rules))
    _together(config)
    return config


def _percent(config: dict[str, Any]) -> dict[str, Any]:
    """sigma=10% is sigma=0.1 sigma_units=relative."""
    sigma = config.get("sigma")
    if isinstance(sigma, str) and sigma.strip().endswith("%"):
        try:
            return {**config, "sigma": float(f"{float(sigma.strip()[:-1]) / 100:.12g}"), "sigma_units": "relative"}
        except ValueError:
            pass
    return config


def _numbers(value: Any, rules: Mapping[str, Any]) -> Any:
    kinds = rules.get("type", ())
    if isinstance(value, Mapping):
        known = rules.get("properties", {})
        return {k: _numbers(v, known.get(k, {})) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(v, rules.get("items", {})) for v in value]
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and "number" in ([kinds] if isinstance(kinds, str) else kinds)
    ):
        return float(value)
    return value


def _together(config: Mapping[str, Any]) -> None:
    """What no single key can tell."""
    if config["sigma_units"] == "relative" and config["sigma"] > 2:
        raise ConfigError(
            f"sigma={config['sigma']:g} with sigma_units=relative is {config['sigma']:g} times the cohort's size: write a fraction such as "
            "sigma=0.1, or sigma_units=mesh if it is in the meshes' own unit"
        )
    if config["normalization"]["name"] == "sinkhorn_unrolled" and not config["normalization"]["iterations"]:
        raise ConfigError(
            "normalization=sinkhorn_unrolled needs a number of steps: write normalization.iterations=5, or normalization=sinkhorn to converge"
        )
    match = config["match"]
    if match["pairs"] == "list" and not match["list"]:
        raise ConfigError("match.pairs=list needs the pairs: write match.list=[[source,target],[source,target]]")
    if not match["enabled"] and not config["atlas"]["enabled"]:
        raise ConfigError("match.enabled and atlas.enabled are both false: a run would do nothing; set one to true")
    if (
        config["atlas"]["enabled"]
        and config["atlas"]["model"] == "bayesian"
        and config["attachment"]["name"] == "sinkhorn"
    ):
        raise ConfigError(
            "atlas.model=bayesian models the noise of a squared norm, and attachment=sinkhorn is none: write attachment=varifold (or another) or "
            "atlas.model=deterministic"
        )
    asked = [tool for tool in TOOLS if config["geodesic"][tool]]
    if asked and not config["atlas"]["enabled"]:
        raise ConfigError(f"geodesic.{asked[0]} works on the atlas, and atlas.enabled is false: set it to true")
    path = config["dataset"].get("path")
    if path is not None and not Path(path).exists():
        raise ConfigError(
            f"dataset.path={path} does not exist (data set {config['dataset']['name']!r}): write dataset.path=/folder/of/meshes, "
            "or set SHAPEFLOW_DATA to the folder that holds your data sets"
        )


def _sentence(problem: ValidationError) -> str:
    where = ".".join(str(part) for part in problem.absolute_path)
    if problem.validator == "additionalProperties":
        known = sorted(problem.schema.get("properties", {}))  # type: ignore[union-attr]
        unknown = sorted(set(dict(problem.instance)) - set(known))  # type: ignore[arg-type]
        name = f"{where}.{unknown[0]}" if where else unknown[0]
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {name!r}: {hint}{where or 'the top level'} knows {', '.join(known)}"
    if problem.validator == "required":
        return f"{where or 'the configuration'}: {problem.message}"
    meaning = problem.schema.get("description") if isinstance(problem.schema, Mapping) else None
    limit: Any = problem.validator_value
    wanted = {
        "exclusiveMinimum": lambda: f"write a number above {limit}",
        "minimum": lambda: f"write {limit} or more",
        "maximum": lambda: f"write {limit} or less",
        "enum": lambda: f"write one of {', '.join(map(str, limit))}",
        "minItems": lambda: f"write at least {limit} value{'s' if limit > 1 else ''}",
        "type": lambda: f"write {_kind(limit)}",
        "pattern": lambda: f"it must match {limit}",
    }.get(str(problem.validator), lambda: problem.message)()
    return f"{where}={_shown(problem.instance)}: {wanted}" + (f" ({meaning.strip()})" if meaning else "")


def _kind(names: Any) -> str:
    words = {"number": "a number", "integer": "a whole number", "string": "a text", "boolean": "true or false", "array": "a list [a,b]",
             "object": "a group of keys", "null": "null"}  # fmt: skip
    return " or ".join(words[n] for n in ([names] if isinstance(names, str) else names))


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else text[:57] + "..."
