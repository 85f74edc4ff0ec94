"""The public kernel products: tensors or NumPy arrays in, the same kind out.

    kernel_product        v_i = Σ_j k(x_i, y_j) b_j
    kernel_product_grad   g_i = Σ_j ⟨a_i, b_j⟩ ∇₁k(x_i, y_j)
    kernel_product_fused  both in one pass over the pairs
    kernel_product_tangent  their directional derivative

Shapes: x (N, d), y (M, d) positions; a (N, e), b (M, e) features; v (N, e), g (N, d). σ in mesh units: a number, or
one for each of B problems. No N × M matrix is ever stored. Everything is differentiable in every tensor and in σ, as
often as the family closes (twice from `kernel_product`); one step further raises DerivativeError.

A batch of B problems is concatenated along the first axis: `rows` and `columns` are the B + 1 offsets of x and y
(`columns` defaults to `rows`). Rows of a problem see the columns of the same problem.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from shapeflow.ops import registry
from shapeflow.ops.arguments import Array, Offsets, check, layouts_of, tensor_of, widths_of
from shapeflow.ops.backend import resolve
from shapeflow.ops.radial import Radial


def kernel_product(
    x: Array,
    y: Array,
    b: Array,
    kernel: str | Radial = "gaussian",
    sigma: Any = None,
    *,
    rows: Offsets = None,
    columns: Offsets = None,
    backend: str | None = None,
) -> Array:
    """v_i = Σ_j k(x_i, y_j) b_j, (N, e).

    x (N, d), y (M, d) positions and b (M, e) features, in float32 or float64: tensors or NumPy arrays in, the same kind out. A
    one-dimensional `b` (M,) is one feature and gives (N,). `kernel` is a name of KERNELS or a sum of them (`Radial.parse`), `sigma` its width
    in mesh units: a number, or one for each problem of a batch, whose offsets are `rows` and `columns`. `backend`: native, keops, torch, or
    auto. KernelError names an argument that does not fit.
    """
    return _call(registry.product, {"x": x, "y": y, "b": b}, kernel, sigma, rows, columns, backend)


def kernel_product_grad(
    a: Array,
    x: Array,
    y: Array,
    b: Array,
    kernel: str | Radial = "gaussian",
    sigma: Any = None,
    *,
    rows: Offsets = None,
    columns: Offsets = None,
    backend: str | None = None,
) -> Array:
    """g_i = Σ_j ⟨a_i, b_j⟩ ∇₁k(x_i, y_j), (N, d): a (N, e), the rest as for `kernel_product`."""
    return _call(registry.gradient, {"a": a, "x": x, "y": y, "b": b}, kernel, sigma, rows, columns, backend)


def kernel_product_fused(
    a: Array,
    x: Array,
    y: Array,
    b: Array,
    kernel: str | Radial = "gaussian",
    sigma: Any = None,
    *,
    rows: Offsets = None,
    columns: Offsets = None,
    backend: str | None = None,
) -> tuple[Array, Array]:
    """(v, g) of `kernel_product(x, y, b)` and `kernel_product_grad(a, x, y, b)`, each pair's r² and f computed once."""
    return _call(registry.fused, {"a": a, "x": x, "y": y, "b": b}, kernel, sigma, rows, columns, backend)


def kernel_product_tangent(
    x: Array,
    dx: Array | None,
    a: Array,
    da: Array | None,
    y: Array,
    dy: Array | None,
    b: Array,
    db: Array | None,
    kernel: str | Radial = "gaussian",
    sigma: Any = None,
    *,
    rows: Offsets = None,
    columns: Offsets = None,
    backend: str | None = None,
) -> tuple[Array, Array]:
    """(v̇, ġ): the derivative of `kernel_product_fused` along (dx, da, dy, db), each of which may be None (zero)."""
    tensors = {"x": x, "dx": dx, "a": a, "da": da, "y": y, "dy": dy, "b": b, "db": db}
    return _call(registry.tangent, tensors, kernel, sigma, rows, columns, backend)


class KernelProduct:
    """The operator under the name and argument order of J. Feydy's talk of 2017 (docs/mathematics.md §4): `KernelProduct.apply(s, x, y, b, "gaussian")`,
    s = σ.
    """

    @staticmethod
    def apply(s: Any, x: Array, y: Array, b: Array, kernel: str = "gaussian") -> Array:
        return kernel_product(x, y, b, kernel, s)


def _call(
    op: Callable,
    arguments: dict[str, Any],
    kernel: str | Radial,
    sigma: Any,
    rows: Offsets,
    columns: Offsets,
    backend: str | None,
) -> Any:
    numpy, flat = True, False
    tensors: dict[str, Any] = {}
    for name, value in arguments.items():
        numpy = numpy and not isinstance(value, Tensor)
        tensors[name] = tensor = tensor_of(name, value)
        if tensor is not None and tensor.ndim == 1 and name[-1] in "ab":
            tensors[name] = tensor[:, None]
            flat = flat or name == "b"
    check(tensors)
    x, y = tensors["x"], tensors["y"]
    n, m = layouts_of(x, y, rows, columns)
    width = widths_of(sigma, n.count, x)
    out = op(*tensors.values(), width, n, m, Radial.parse(kernel), resolve(backend, x.device))
    if isinstance(out, Tensor):
        # Where b was flat, so is the result that has its features.
        out = out[:, 0] if flat and op is not registry.gradient else out
        return out.numpy() if numpy else out
    first, second = (out[0][:, 0] if flat else out[0]), out[1]
    return (first.numpy(), second.numpy()) if numpy else (first, second)
