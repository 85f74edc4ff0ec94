"""One configuration from groups and overrides, by Hydra's compose, its errors turned into sentences that say what to write."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from shapeflow.config.validate import schema_keys
from shapeflow.errors import ConfigError
from shapeflow.resources import resource

GROUPS = ("dataset", "kernel", "normalization", "attachment", "solver", "prepare", "experiment")
_OPENING = "[{(\"'"  # how a value begins that is no plain text
_LOGGING = {"logging.StreamHandler", "logging.FileHandler", "logging.Formatter", "colorlog.ColoredFormatter"}


@contextmanager
def composer() -> Iterator[None]:
    """Hydra initialised on shapeflow's config/; what was initialised before (a Hydra application's) comes back afterwards."""
    with initialize_config_dir(config_dir=str(resource("config")), version_base="1.3", job_name="shapeflow"):
        yield


def composed(overrides: Sequence[str], config_dir: str | Path | None = None) -> DictConfig:
    """The configuration with its `hydra` node. Call inside `composer()`. `config_dir` adds the user's own groups and experiments."""
    search = []
    if config_dir is not None:
        folder = Path(config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError(
                f"config_dir={config_dir} is no folder: give the folder that holds your own experiment/ or dataset/ files"
            )
        search = [f"hydra.searchpath=[file://{folder}]"]
    try:
        config = compose("config", overrides=[*overrides, *search], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error
    _refuse_code(config.hydra)
    return config


def _refuse_code(hydra: DictConfig) -> None:
    """Hydra calls what its own node names: launcher, sweeper, callbacks, handlers of logs. A file of somebody's experiments must not choose that:
    only what an installed plugin has registered, and the standard handlers, may stand there.
    """
    registered = {name for _, name in _called(_nodes(ConfigStore.instance().repo["hydra"]))}
    for path, name in _called(OmegaConf.to_container(hydra, resolve=False), "hydra"):
        if name not in registered | _LOGGING:
            raise ConfigError(f"{path} would call {name}: a configuration is data and calls nothing. Remove it")


def _nodes(repo: Any) -> Any:
    """Hydra's store of configurations, as plain dicts."""
    if isinstance(repo, dict):
        return {key: _nodes(value) for key, value in repo.items()}
    return OmegaConf.to_container(repo.node, resolve=False) if OmegaConf.is_config(repo.node) else None


def _called(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where a callable is named, by Hydra's word or those of logging's dictConfig, and which."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key in ("_target_", "()", "class"):
            yield f"{path}.{key}", str(value)
        else:
            yield from _called(value, f"{path}.{key}")


def parsed(overrides: Sequence[str]) -> list[Override]:
    """Overrides read by Hydra's own grammar, so that quoting, range(), glob() and choice() mean what they mean to Hydra."""
    # glob() looks into groups
    loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    parser, found = OverridesParser.create(config_loader=loader), []
    for word in overrides:
        try:
            found += parser.parse_overrides([word])
        except HydraException as error:
            key, _, value = word.partition("=")
            said = f"cannot read the override {word!r}: {str(error).splitlines()[0]}. Write key=value, or key=value,value to sweep"
            if value[:1] not in ("", *_OPENING):
                quote = '"' if "'" in value else "'"
                said += f". Signs other than letters a to z need quotes of their own, within the shell's: {key}={quote}{value}{quote}"
            raise ConfigError(said) from error
    return found


def resolved(config: DictConfig) -> dict[str, Any]:
    """Plain dicts and lists without the `hydra` node; every interpolation resolved."""
    plain = {key: config._get_node(key) for key in config if key != "hydra"}
    try:
        return {
            str(key): OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
            if OmegaConf.is_config(node)
            else config[key]
            for key, node in plain.items()
        }
    except (OmegaConfBaseException, HydraException) as error:
        raise ConfigError(explain(error)) from error


def explain(error: BaseException) -> str:
    """A sentence a user can act on."""
    text = str(error).strip()
    cause = " ".join([text, str(error.__cause__ or ""), str(error.__context__ or "")])
    if found := re.search(r"Environment variable '(\w+)' not found", cause):
        return (
            f"the configuration reads the environment variable {found[1]}, which is not set. Write export {found[1]}=/folder/with/your/data sets, "
            "or name the folder itself: dataset.path=/data/meshes"
        )
    if isinstance(error, MissingMandatoryValue) or "Missing mandatory value" in text:
        key = re.search(r"full_key: ([\w.]+)", text) or re.search(r"Missing mandatory value: ([\w.]+)", text)
        name = key[1] if key else "a key"
        return f"{name} has no value: write {name}=<value> on the command line or in an experiment file"
    if isinstance(error, InterpolationKeyError | InterpolationResolutionError):
        return f"the configuration cannot be resolved: {text.splitlines()[0]}"
    if found := re.search(r"Could not override '([^']+)'", text):
        return f"unknown key {found[1]!r}{_near(found[1], schema_keys())}. `shapeflow keys` describes them all"
    if found := re.search(r"Could not find '(\w+)/(\S+)'", text):
        group, name = found.groups()
        there = sorted(p.stem for p in (resource("config") / group).glob("*.yaml"))
        return (
            f"unknown {group} {name!r}{_near(name, there)}. config/{group}/ has {', '.join(there) or 'nothing'}; "
            "a file of your own is found with --config-dir FOLDER"
        )
    if "Could not find" in text or "Could not load" in text:
        return " ".join(
            line.strip()
            for line in text.splitlines()
            if line.strip() and "Config search path" not in line and "provider=" not in line
        )
    return f"{text} ({error.__cause__})" if error.__cause__ else text


def _near(name: str, known: Sequence[str]) -> str:
    inside = [k for k in known if "." in k and k.rsplit(".", 1)[0] == name.rsplit(".", 1)[0]] if "." in name else known
    close = (
        difflib.get_close_matches(name, inside, n=1)
        or [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    )
    return f" (did you mean {close[0]!r}?)" if close else ""
