"""Launching a CUDA kernel in about two microseconds: its arguments lie in one buffer, of which a call rewrites what changed.

cuda.core's `launch` inspects and converts every argument anew, which costs more than a kernel of 1,000 points. Every argument of our kernels is 8 bytes
wide (an address, a 64-bit integer or a double), so the buffer needs no types.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache
from typing import Any

import torch

from shapeflow.errors import BackendError

MOST_ARGUMENTS = 48
_LEGACY_STREAM = 1  # the driver's explicit name (CU_STREAM_LEGACY) for the default stream, which torch calls 0
_NO_CONTEXT = 201  # CUDA_ERROR_INVALID_CONTEXT: a thread that has not used CUDA yet


def current_stream(index: int) -> int:
    """The handle of torch's current stream on a device."""
    return torch._C._cuda_getCurrentRawStream(index) or _LEGACY_STREAM


@cache
def architecture(index: int | None) -> str:
    """A device's, as NVRTC names it: "sm_90"."""
    major, minor = torch.cuda.get_device_capability(index)
    return f"sm_{major}{minor}"


@cache
def _driver(cooperative: bool) -> Any:
    """cuLaunchKernel, called with Python's lock held: a launch does not wait, and no other thread may touch the buffer meanwhile."""
    try:
        library = ctypes.PyDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(f"the CUDA driver's library cannot be loaded ({error}): install the driver") from error
    function = library.cuLaunchCooperativeKernel if cooperative else library.cuLaunchKernel
    function.argtypes = (ctypes.c_void_p, *(ctypes.c_uint,) * 7, *(ctypes.c_void_p,) * (2 if cooperative else 3))
    return function


_shared: dict[tuple[int, int], int] = {}  # by kernel and device: the most dynamic shared memory it may be launched with
_SHARED_WITHOUT_ASKING = 48 << 10
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


def _allow(handle: int, size: int) -> None:
    """Let a kernel have `size` bytes of dynamic shared memory on the current device."""
    key = handle, torch.cuda.current_device()
    if size <= _shared.get(key, _SHARED_WITHOUT_ASKING):
        return
    driver, device = ctypes.PyDLL("libcuda.so.1"), ctypes.c_int()
    driver.cuKernelSetAttribute.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    status = driver.cuDeviceGet(ctypes.byref(device), key[1])
    status = status or driver.cuKernelSetAttribute(_MAX_DYNAMIC_SHARED, size, handle, device)
    if status:
        raise BackendError(f"the CUDA driver refused a kernel {size} bytes of shared memory: error {status}")
    _shared[key] = size


class Launch:
    """A kernel with its grid, block, arguments and bytes of dynamic shared memory. The blocks of a `cooperative` one are resident together, so they may
    wait for each other."""

    def __init__(
        self, kernel: Any, grid: tuple[int, int], block: int, cooperative: bool = False, shared: int = 0
    ) -> None:
        self.kernel, self.grid, self.block, self.cooperative, self.shared = kernel, grid, block, cooperative, shared
        self._buffer = ctypes.create_string_buffer(8 * MOST_ARGUMENTS)
        start = ctypes.addressof(self._buffer)
        self._pointers = (ctypes.c_void_p * MOST_ARGUMENTS)(*(start + 8 * k for k in range(MOST_ARGUMENTS)))
        self._handle = int(kernel.handle)
        if shared > _SHARED_WITHOUT_ASKING:
            _allow(self._handle, shared)

    def fix(self, first: int, *values: int | float) -> None:
        """Set arguments from number `first` on, once for all calls."""
        for k, value in enumerate(values, start=first):
            struct.pack_into("<d" if isinstance(value, float) else "<q", self._buffer, 8 * k, value)

    def __call__(self, stream: int, *changes: tuple[int, ...]) -> None:
        """Launch on `stream`; each change is the number of an argument and the integers from there on."""
        for first, *values in changes:
            struct.pack_into(f"<{len(values)}q", self._buffer, 8 * first, *values)
        status = self._launch(stream)
        if status == _NO_CONTEXT:
            torch.cuda.set_device(torch.cuda.current_device())
            status = self._launch(stream)
        if status:
            raise BackendError(
                f"the CUDA driver refused to launch a kernel: error {status} (grid {self.grid}, block {self.block})"
            )

    def _launch(self, stream: int) -> int:
        extra = () if self.cooperative else (None,)
        return _driver(self.cooperative)(
            self._handle, *self.grid, 1, self.block, 1, 1, self.shared, stream, self._pointers, *extra
        )
