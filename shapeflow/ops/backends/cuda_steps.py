"""The update of a pair of states on CUDA in one launch (kernels/steps.cu)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from shapeflow.errors import BackendError, CompileError
from shapeflow.ops.backends.cuda import check
from shapeflow.ops.backends.native_call import REAL
from shapeflow.ops.compile import nvrtc
from shapeflow.ops.compile.launch import Launch, architecture, current_stream

THREADS, MOST = 256, 4  # mirrors kernels/steps.cu

Pair = tuple[Tensor, Tensor]


def suits(like: Tensor, count: int) -> bool:
    """Whether `combine` can run on tensors like this one; plain torch can always."""
    return like.is_cuda and count <= MOST and like.dtype in REAL and _works(like.device.index)


def combine(base: Pair | None, terms: Sequence[tuple[float, Pair]], sign: int) -> Pair:
    """(x + Σ c f, y + sign Σ c g) for base (x, y) or zero and terms (c, (f, g))."""
    like = terms[0][1][0]
    out = torch.empty_like(like), torch.empty_like(like)
    if like.numel() == 0:
        return out
    tensors = [[t.contiguous() for t in pair] for pair in ((base,) if base else ()) + tuple(p for _, p in terms)]
    points = [[t.data_ptr() for t in pair] for pair in tensors]
    head = points.pop(0) if base else [0, 0]
    with torch.cuda.device(like.device):
        launch = _launch(like.dtype, len(terms), architecture(like.device.index), like.numel())
        launch.fix(0, like.numel(), float(sign), out[0].data_ptr(), out[1].data_ptr(), *head)
        for k, ((weight, _), pair) in enumerate(zip(terms, points, strict=True)):
            launch.fix(6 + 3 * k, float(weight), *pair)
        launch(current_stream(like.device.index))
    return out


def instance(dtype: torch.dtype, count: int) -> str:
    return f"shapeflow_combine<{REAL[dtype]}, {count}>"


@cache
def _works(index: int | None) -> bool:
    try:
        check()
        for dtype in REAL:
            for count in range(1, MOST + 1):
                _kernel(dtype, count, architecture(index or 0))
    except (BackendError, CompileError, ImportError):  # the backend's own choice has said so already
        return False
    return True


@cache
def _kernel(dtype: torch.dtype, count: int, arch: str) -> Any:
    return nvrtc.kernel("steps.cu", instance(dtype, count), arch)


@cache
def _launch(dtype: torch.dtype, count: int, arch: str, n: int) -> Launch:
    return Launch(_kernel(dtype, count, arch), (-(-n // THREADS), 1), THREADS)
