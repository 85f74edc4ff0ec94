"""A CUDA backend module whose launches are run on the CPU, through cuda_emulator.h."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from shapeflow.ops.backends.plans import Plans
from shapeflow.ops.compile import host
from shapeflow.ops.compile.launch import Launch
from shapeflow.ops.compile.source import flatten

HERE = Path(__file__).parent
# Every argument of a launch is 8 bytes wide; the kernel's own signature says what they are.
RUN = """
#include <string.h>
#include <utility>
template <class A> static A read(long long n) {
  A a;
  memcpy(&a, &n, sizeof a);
  return a;
}
template <class... A, size_t... I>
static void unpack(Index grid, int threads, size_t shared, int resident, void (*kernel)(A...), const long long* n, std::index_sequence<I...>) {
  emulate(grid, threads, shared, resident, kernel, read<A>(n[I])...);
}
template <class... A> static void unpack(Index grid, int threads, size_t shared, int resident, void (*kernel)(A...), const long long* n) {
  unpack(grid, threads, shared, resident, kernel, n, std::index_sequence_for<A...>());
}
extern "C" void run(unsigned x, unsigned y, unsigned threads, unsigned shared, unsigned resident, const long long* n) {
  unpack({x, y}, threads, shared, resident, INSTANCE, n);
}
"""


def library(folder: Path, source: str, name: str) -> ctypes.CDLL:
    """The template instance `name` of kernels/`source`, for the CPU."""
    number = len(list(folder.iterdir()))
    written, out = folder / f"{number}.cpp", folder / f"{number}.so"
    written.write_text(
        f'#define SF_EMULATED\n#include "cuda_emulator.h"\n{flatten(source)}\nstatic const auto INSTANCE = &{name};\n{RUN}'
    )
    command = [*host.compiler(), "-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-pthread", f"-I{HERE}"]
    subprocess.run([*command, str(written), "-o", str(out)], check=True)
    return ctypes.CDLL(str(out))


def launcher(get: Callable[[Any], ctypes.CDLL], together: bool = False) -> type[Launch]:
    """A Launch that calls what `get` makes of its kernel; `together` if kernels keep nothing in static shared memory, so that blocks can wait for others."""

    class Emulated(Launch):
        def __init__(
            self, kernel: Any, grid: tuple[int, int], block: int, cooperative: bool = False, shared: int = 0
        ) -> None:
            assert together or not cooperative, "blocks run one after the other: they cannot wait for each other"
            super().__init__(SimpleNamespace(handle=0), grid, block)
            self.library, self.shared = get(kernel), shared
            self.resident = grid[0] * grid[1] if cooperative else 1

        def _launch(self, stream: int) -> int:
            self.library.run(*self.grid, self.block, self.shared, self.resident, self._buffer)
            return 0

    return Emulated


class Emulator:
    """Kernels of the CUDA sources, each compiled once into `folder`, for as many tests as want them."""

    def __init__(self, folder: Path) -> None:
        self.get = cache(lambda kernel: library(folder, *kernel))

    def patch(
        self,
        backend: ModuleType,
        monkeypatch,
        kernel: Callable[..., tuple[str, str]],
        sms: int = 2,
        together: bool = False,
    ) -> None:
        """Make `backend` plan for a card of `sms` multiprocessors and launch here; `kernel` names source and instance of what it would load."""
        card = SimpleNamespace(multi_processor_count=sms, shared_memory_per_block_optin=1 << 17)
        monkeypatch.setattr(backend, "Launch", launcher(self.get, together))
        monkeypatch.setattr(backend, "current_stream", lambda index: 0)
        monkeypatch.setattr(backend, "architecture", lambda index: "sm_90")
        monkeypatch.setattr(backend, "_kernel", kernel)
        monkeypatch.setattr(backend, "_plans", Plans("an emulated kernel", most=100))
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: None)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
