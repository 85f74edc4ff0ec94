"""Which backend runs: chosen once per kind of device, logged, recorded in results, and overridable.

Order of preference: `native` (our kernels), then `keops` on CUDA, then `torch` (tiles; no compiler needed). On a CPU
a missing compiler rules out KeOps as well as ours, so torch follows native there.
"""

from __future__ import annotations

import logging
import os
from functools import lru_cache

import torch

from shapeflow.errors import BackendError
from shapeflow.ops.registry import backend_module

BACKENDS = ("native", "keops", "torch")
_PREFERENCE = {"cpu": ("native", "torch"), "cuda": ("native", "keops", "torch")}
_log = logging.getLogger("shapeflow.ops")


def resolve(backend: str | None, device: torch.device | str) -> str:
    """The backend that will run on `device`: the one asked for, else SHAPEFLOW_BACKEND, else the best that works
    here.
    """
    wanted = backend or os.environ.get("SHAPEFLOW_BACKEND") or "auto"
    if wanted == "auto":
        return _best(device.type if isinstance(device, torch.device) else torch.device(device).type)
    if wanted not in BACKENDS:
        raise BackendError(
            f"unknown backend {wanted!r}: write one of auto, {', '.join(BACKENDS)} (argument `backend` or SHAPEFLOW_BACKEND)"
        )
    return wanted


@lru_cache(maxsize=8)
def _best(device_type: str) -> str:
    for name in _PREFERENCE.get(device_type, ("torch",)):
        try:
            check = getattr(backend_module(name, device_type), "check", None)
            if check is not None:
                check()
        except (BackendError, ImportError) as error:
            _log.warning("kernel products: the %s backend cannot run on %s, falling back. %s", name, device_type, error)
            continue
        _log.info("kernel products on %s run on the %s backend", device_type, name)
        return name
    raise BackendError(f"no backend can run on a {device_type} device")
