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

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shapeflow.errors import KernelError
from shapeflow.ops import registry
from shapeflow.ops.backend import resolve
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged, layout

Offsets = Ragged | Sequence[int] | Tensor | None


def kernel_product(
    x,
    y,
    b,
    kernel: str | Radial = "gaussian",
    sigma: Any = None,
    *,
    rows: Offsets = None,
    columns: Offsets = None,
    backend: str | None = None,
):
    """v_i = Σ_j k(x_i, y_j) b_j, (N, e).

    A one-dimensional `b` (M,) is one feature and gives (N,).
    """
    return _call(registry.product, {"x": x, "y": y, "b": b}, kernel, sigma, rows, columns, backend)


def kernel_product_grad(
    a,
    x,
    y,
    b,
    kernel: str | Radial = "gaussian",
    sigma: Any = None,
    *,
    rows: Offsets = None,
    columns: Offsets = None,
    backend: str | None = None,
):
    """g_i = Σ_j ⟨a_i, b_j⟩ ∇₁k(x_i, y_j), (N, d)."""
    return _call(registry.gradient, {"a": a, "x": x, "y": y, "b": b}, kernel, sigma, rows, columns, backend)


def kernel_product_fused(
    a,
    x,
    y,
    b,
    kernel: str | Radial = "gaussian",
    sigma: Any = None,
    *,
    rows: Offsets = None,
    columns: Offsets = None,
    backend: str | None = None,
):
    """(v, g) of `kernel_product(x, y, b)` and `kernel_product_grad(a, x, y, b)`, each pair's r² and f computed
    once.
    """
    return _call(registry.fused, {"a": a, "x": x, "y": y, "b": b}, kernel, sigma, rows, columns, backend)


def kernel_product_tangent(
    x,
    dx,
    a,
    da,
    y,
    dy,
    b,
    db,
    kernel: str | Radial = "gaussian",
    sigma: Any = None,
    *,
    rows: Offsets = None,
    columns: Offsets = None,
    backend: str | None = None,
):
    """(v̇, ġ): the derivative of `kernel_product_fused` along (dx, da, dy, db), each of which may be None (zero)."""
    tensors = {"x": x, "dx": dx, "a": a, "da": da, "y": y, "dy": dy, "b": b, "db": db}
    return _call(registry.tangent, tensors, kernel, sigma, rows, columns, backend)


class KernelProduct:
    """The operator under the name and argument order of the 2017 talk: `KernelProduct.apply(s, x, y, b, "gaussian")`,
    s = σ.
    """

    @staticmethod
    def apply(s, x, y, b, kernel: str = "gaussian"):
        return kernel_product(x, y, b, kernel, s)


def _call(
    op: Callable,
    arguments: dict[str, Any],
    kernel: str | Radial,
    sigma: Any,
    rows: Offsets,
    columns: Offsets,
    backend: str | None,
):
    numpy, flat = True, False
    tensors: dict[str, Any] = {}
    for name, value in arguments.items():
        numpy = numpy and not isinstance(value, Tensor)
        tensors[name] = tensor = _tensor(name, value)
        if tensor is not None and tensor.ndim == 1 and name[-1] in "ab":
            tensors[name] = tensor[:, None]
            flat = flat or name == "b"
    _check(tensors)
    x, y = tensors["x"], tensors["y"]
    n, m = _layouts(x, y, rows, columns)
    width = _sigma(sigma, n.count, x)
    out = op(*tensors.values(), width, n, m, Radial.parse(kernel), resolve(backend, x.device))
    if isinstance(out, Tensor):
        # Where b was flat, so is the result that has its features.
        out = out[:, 0] if flat and op is not registry.gradient else out
        return out.numpy() if numpy else out
    first, second = (out[0][:, 0] if flat else out[0]), out[1]
    return (first.numpy(), second.numpy()) if numpy else (first, second)


def _tensor(name: str, value: Any) -> Tensor | None:
    if value is None:
        if name in ("dx", "da", "dy", "db"):
            return None
        raise KernelError(f"`{name}` is missing")
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
    if not tensor.is_floating_point():
        raise KernelError(f"`{name}` must hold floating-point numbers; received {tensor.dtype}")
    return tensor


def _check(tensors: dict[str, Any]) -> None:
    """Shapes, dtypes and devices that fit together; the message names the tensor at fault."""
    x, y, b = tensors["x"], tensors["y"], tensors["b"]
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise KernelError(
            f"x and y must be (N, d) and (M, d) with one d; received {tuple(x.shape)} and {tuple(y.shape)}"
        )
    (n, d), m, e = x.shape, y.shape[0], b.shape[-1] if b.ndim else 1
    dtype, device = x.dtype, x.device
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        last = name[-1]  # of x, y, a, b and their tangents
        expected = (m if last in "yb" else n, d if last in "xy" else e)
        if tensor.shape != expected:
            raise KernelError(
                f"`{name}` must be {expected} to go with x {(n, d)}, y {(m, d)}; received {tuple(tensor.shape)}"
            )
        if tensor.dtype != dtype or tensor.device != device:
            raise KernelError(
                f"`{name}` is {tensor.dtype} on {tensor.device} but x is {dtype} on {device}: convert one of them"
            )
    if dtype not in (torch.float32, torch.float64):
        raise KernelError(f"kernel products run in float32 or float64; received {dtype}")


def _layouts(x: Tensor, y: Tensor, rows: Offsets, columns: Offsets) -> tuple[Ragged, Ragged]:
    if rows is None and columns is None:
        return layout((0, x.shape[0])), layout((0, y.shape[0]))
    n, m = _offsets(rows if rows is not None else columns), _offsets(columns if columns is not None else rows)
    if n.count != m.count or n.total != x.shape[0] or m.total != y.shape[0]:
        raise KernelError(
            f"`rows` describe {n.count} problems of {n.total} points and `columns` {m.count} of {m.total}, but x has {x.shape[0]} points and "
            f"y {y.shape[0]}: give the B + 1 offsets of each"
        )
    return n, m


def _offsets(offsets: Offsets) -> Ragged:
    if isinstance(offsets, Ragged):
        return offsets
    assert offsets is not None
    return layout(tuple(int(o) for o in offsets))


def _sigma(sigma: Any, count: int, like: Tensor) -> Tensor:
    if sigma is None:
        raise KernelError("`sigma`, the kernel's width in mesh units, is missing")
    if isinstance(sigma, int | float):
        if not 0 < sigma < math.inf:
            raise KernelError(f"`sigma` must be positive and finite; received {sigma}")
        return _width(float(sigma), count, like)
    width = torch.as_tensor(sigma, dtype=like.dtype, device=like.device)
    if width.ndim == 0:
        width = width.expand(count)
    if width.shape != (count,):
        raise KernelError(f"`sigma` must be one number or {count}, one a problem; received shape {tuple(width.shape)}")
    # A width computed on a device is not looked at (that would wait for the device), nor one that is being traced.
    if not (width.is_cuda or registry.watched((width,))) and not (
        0 < width.item() < math.inf if count == 1 else bool(((width > 0) & torch.isfinite(width)).all())
    ):
        raise KernelError(f"`sigma` must be positive and finite; received {sigma}")
    return width.contiguous()


_widths: dict[tuple, Tensor] = {}


def _width(sigma: float, count: int, like: Tensor) -> Tensor:
    """(count,) equal widths. Kept from call to call: to make a tensor costs as much as to use it, and on CUDA more."""
    key = (sigma, count, like.dtype, like.device)
    width = _widths.get(key)
    if width is not None and not registry.watched((like,)):
        return width
    with torch.inference_mode(False):  # a kept tensor may be saved for a backward pass later
        width = torch.full((count,), sigma, dtype=like.dtype, device=like.device)
    if registry.watched((like,)) or (like.is_cuda and torch.cuda.is_current_stream_capturing()):
        return width
    if like.is_cuda:
        torch.cuda.current_stream(like.device).synchronize()  # once: the next call may come on another stream
    if len(_widths) >= 256:
        _widths.clear()
    _widths[key] = width
    return width
