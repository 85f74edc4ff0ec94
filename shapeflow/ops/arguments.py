"""What the public operators are given: arrays or tensors, layouts, widths; checked, so that a refusal names the argument at fault."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from shapeflow.errors import KernelError
from shapeflow.ops import registry
from shapeflow.ragged import Ragged, layout
from shapeflow.replay import held, is_recorded

Array = TypeVar("Array", Tensor, np.ndarray)  # in and out
Offsets = Ragged | Sequence[int] | Tensor | None


def tensor_of(name: str, value: Any) -> Tensor | None:
    """The argument as a floating-point tensor; None for a tangent that is not given, which is zero."""
    if value is None:
        if name in ("dx", "da", "dy", "db"):
            return None
        raise KernelError(f"`{name}` is missing")
    try:
        tensor = value if isinstance(value, Tensor) else _from_numpy(value)
    except (TypeError, ValueError) as error:  # text, ragged lists, a table with columns of other kinds
        raise KernelError(f"`{name}` must be an array of numbers; received {type(value).__name__} ({error})") from error
    if not tensor.is_floating_point():
        raise KernelError(f"`{name}` must hold floating-point numbers; received {tensor.dtype}")
    return tensor


def _from_numpy(value: Any) -> Tensor:
    """Shares memory where torch can; what is read-only (pandas, memory maps) or of foreign byte order (files) is copied."""
    array = np.asarray(value)
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def check(tensors: Mapping[str, Any]) -> None:
    """Shapes, dtypes and devices that fit together; the message names the tensor at fault.

    By name: x (N, d), y (M, d), a (N, e), b (M, e), their tangents dx … db, and h (M,).
    """
    x, y, b = tensors["x"], tensors["y"], tensors.get("b")
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise KernelError(
            f"x and y must be (N, d) and (M, d) with one d; received {tuple(x.shape)} and {tuple(y.shape)}"
        )
    (n, d), m, e = x.shape, y.shape[0], 1 if b is None or not b.ndim else b.shape[-1]
    dtype, device = x.dtype, x.device
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        last = name[-1]  # of a tangent, what it is the tangent of
        expected = (m,) if last == "h" else (m if last in "yb" else n, d if last in "xy" else e)
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


def layouts_of(x: Tensor, y: Tensor, rows: Offsets, columns: Offsets) -> tuple[Ragged, Ragged]:
    """Layouts of x and y: one problem unless offsets say otherwise, and those of one side for both."""
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


def widths_of(sigma: Any, count: int, like: Tensor) -> Tensor:
    """σ (B,) in mesh units, on the points' device and in their dtype."""
    if sigma is None:
        raise KernelError("`sigma`, the kernel's width in mesh units, is missing")
    if isinstance(sigma, int | float):
        if not 0 < sigma < math.inf:
            raise KernelError(f"`sigma` must be positive and finite; received {sigma}")
        return _width(float(sigma), count, like)
    try:
        width = torch.as_tensor(sigma, dtype=like.dtype, device=like.device)
    except (TypeError, ValueError) as error:
        raise KernelError(f"`sigma` must be a number, the kernel's width in mesh units; received {sigma!r}") from error
    if width.ndim == 0:
        width = width.expand(count)
    if width.shape != (count,):
        many = "" if count == 1 else f", or {count} of them, one a problem"
        batch = " (several problems in one call are told apart by `rows` and `columns`)" if count == 1 else ""
        raise KernelError(f"`sigma` must be one number{many}; received shape {tuple(width.shape)}{batch}")
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
        return held(width)
    with torch.inference_mode(False):  # a kept tensor may be saved for a backward pass later
        width = torch.full((count,), sigma, dtype=like.dtype, device=like.device)
    if registry.watched((like,)) or is_recorded(like):
        return width
    if like.is_cuda:
        torch.cuda.current_stream(like.device).synchronize()  # once: the next call may come on another stream
    if len(_widths) >= 256:
        _widths.clear()
    _widths[key] = width
    return width
