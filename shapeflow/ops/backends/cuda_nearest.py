"""The nearest particle of lost points on CUDA in one launch that waits for nobody (kernels/nearest.cu)."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from shapeflow.ops.backends.native_call import REAL
from shapeflow.ops.compile import nvrtc
from shapeflow.ops.compile.launch import Launch, architecture, current_stream
from shapeflow.ragged import Ragged

THREADS = 128  # mirrors kernels/nearest.cu


def nearest(x: Tensor, lost: Tensor, rows: Ragged, q: Tensor, columns: Ragged) -> Tensor:
    """(N',) int64: for each point of x (N', d) that is `lost` the place in q (N, d) of its problem's nearest particle; 0 for the others."""
    found = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    if not x.shape[0]:
        return found
    held = x.contiguous(), lost.contiguous(), rows.owner(x.device), columns.starts(x.device), q.contiguous()
    with torch.cuda.device(x.device):
        launch = Launch(_kernel(x.dtype, architecture(x.device.index)), (-(-x.shape[0] // THREADS), 1), THREADS)
        launch.fix(0, *x.shape, *(t.data_ptr() for t in held), found.data_ptr())
        launch(current_stream(x.device.index))
    return found


def instance(dtype: torch.dtype) -> str:
    return f"shapeflow_nearest<{REAL[dtype]}>"


@cache
def _kernel(dtype: torch.dtype, arch: str) -> Any:
    return nvrtc.kernel("nearest.cu", instance(dtype), arch)
