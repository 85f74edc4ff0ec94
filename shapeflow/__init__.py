"""shapeflow: from a folder of meshes to a shape study.

The names below are loaded at first use, so that `import shapeflow` costs nothing: a job that only reads meshes never pays for torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "KernelProduct": "ops",
    "kernel_logsumexp": "ops",
    "kernel_product": "ops",
    "kernel_product_fused": "ops",
    "kernel_product_grad": "ops",
    "kernel_product_tangent": "ops",
    "Shape": "shape",
    "MatchingSpec": "matching",
    "match": "matching",
    "Flow": "matching",
    "AtlasSpec": "atlas",
    "estimate_atlas": "atlas",
}

__all__ = ["__version__", *_EXPORTS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'shapeflow' has no attribute {name!r}")
    return getattr(import_module(f"shapeflow.{_EXPORTS[name]}"), name)
