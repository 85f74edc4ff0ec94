"""Kernel products: the operator family that everything else is built on (docs/mathematics.md §1)."""

from shapeflow.ops.backend import BACKENDS, resolve
from shapeflow.ops.logsumexp import kernel_logsumexp
from shapeflow.ops.products import (
    KernelProduct,
    kernel_product,
    kernel_product_fused,
    kernel_product_grad,
    kernel_product_tangent,
)
from shapeflow.ops.radial import KERNELS, Radial, Term

__all__ = [
    "BACKENDS",
    "KERNELS",
    "KernelProduct",
    "Radial",
    "Term",
    "kernel_logsumexp",
    "kernel_product",
    "kernel_product_fused",
    "kernel_product_grad",
    "kernel_product_tangent",
    "resolve",
]
