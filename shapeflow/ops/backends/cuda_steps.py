"""The update of a pair of states on CUDA in one launch (kernels/steps.cu)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from shapeflow.errors import BackendError, CompileError
from shapeflow.ops.backends.cuda import _arch, _stream, check
from shapeflow.ops.compile import nvrtc

THREADS, MOST = 256, 4  # mirrors kernels/steps.cu

Pair = tuple[Tensor, Tensor]


def suits(like: Tensor, count: int) -> bool:
    """Whether `combine` can run on tensors like this one; plain torch can always."""
    return like.is_cuda and count <= MOST and like.dtype in (torch.float32, torch.float64) and _works(like.device.index)


def combine(base: Pair | None, terms: Sequence[tuple[float, Pair]], sign: int) -> Pair:
    """(x + Σ c f, y + sign Σ c g) for base (x, y) or zero and terms (c, (f, g))."""
    from cuda.core import launch

    like = terms[0][1][0]
    out = torch.empty_like(like), torch.empty_like(like)
    if like.numel() == 0:
        return out
    tensors = [[t.contiguous() for t in pair] for pair in ((base,) if base else ()) + tuple(p for _, p in terms)]
    points = [[t.data_ptr() for t in pair] for pair in tensors]
    head = points.pop(0) if base else [0, 0]
    slots = [(c, *pair) for (c, _), pair in zip(terms, points, strict=True)] + [(0.0, 0, 0)] * (MOST - len(terms))
    with torch.cuda.device(like.device):
        stream = _stream(torch.cuda.current_stream(like.device).cuda_stream)
        kernel = _kernel(like.dtype, len(terms), _arch(like.device.index))
        arguments = [value for slot in slots for value in (float(slot[0]), *slot[1:])]
        launch(
            stream, _config(like.numel()), kernel, like.numel(), float(sign), out[0].data_ptr(), out[1].data_ptr(), *head, *arguments
        )  # fmt: skip
    return out


def instance(dtype: torch.dtype, count: int) -> str:
    return f"shapeflow_combine<{'float' if dtype == torch.float32 else 'double'}, {count}>"


@cache
def _works(index: int | None) -> bool:
    try:
        check()
        for dtype in (torch.float32, torch.float64):
            for count in range(1, MOST + 1):
                _kernel(dtype, count, _arch(index or 0))
    except (BackendError, CompileError, ImportError):  # the backend's own choice has said so already
        return False
    return True


@cache
def _kernel(dtype: torch.dtype, count: int, arch: str) -> Any:
    return nvrtc.kernel("steps.cu", instance(dtype, count), arch)


@cache
def _config(n: int) -> Any:
    from cuda.core import LaunchConfig

    return LaunchConfig(grid=-(-n // THREADS), block=THREADS)
