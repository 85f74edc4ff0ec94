"""shapeflow: from a folder of meshes to a shape study.

The names below are loaded at first use, so that `import shapeflow` costs nothing: a job that only reads meshes never pays for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for editors and type checkers
    from shapeflow.atlas import AtlasResult, AtlasSpec, estimate_atlas
    from shapeflow.io import read_shape, write_shape
    from shapeflow.matching import Flow, MatchingResult, MatchingSpec, match
    from shapeflow.ops import (
        KernelProduct,
        kernel_logsumexp,
        kernel_product,
        kernel_product_fused,
        kernel_product_grad,
        kernel_product_tangent,
    )
    from shapeflow.shape import Shape

__version__ = "0.1.0"

_EXPORTS = {
    "KernelProduct": "ops",
    "kernel_logsumexp": "ops",
    "kernel_product": "ops",
    "kernel_product_fused": "ops",
    "kernel_product_grad": "ops",
    "kernel_product_tangent": "ops",
    "Shape": "shape",
    "read_shape": "io",
    "write_shape": "io",
    "MatchingSpec": "matching",
    "MatchingResult": "matching",
    "match": "matching",
    "Flow": "matching",
    "AtlasSpec": "atlas",
    "AtlasResult": "atlas",
    "estimate_atlas": "atlas",
}

__all__ = [
    "AtlasResult",
    "AtlasSpec",
    "Flow",
    "KernelProduct",
    "MatchingResult",
    "MatchingSpec",
    "Shape",
    "__version__",
    "estimate_atlas",
    "kernel_logsumexp",
    "kernel_product",
    "kernel_product_fused",
    "kernel_product_grad",
    "kernel_product_tangent",
    "match",
    "read_shape",
    "write_shape",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'shapeflow' has no attribute {name!r}")
    return getattr(import_module(f"shapeflow.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
