"""The OpenMP runtime that torch has loaded, so that our kernels run on torch's own threads."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import torch


@cache
def gomp_parallel() -> int | None:
    """Address of GOMP_parallel (GNU's entry point; LLVM's and Intel's runtimes offer it too), or None.

    Two runtimes in one process would each keep a set of threads spinning and halve each other's speed: only one already loaded is used.
    Without any, kernels/threads.h starts plain threads.
    """
    for path in _loaded():
        try:
            function = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW).GOMP_parallel
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value
    return None


def _loaded() -> list[Path]:
    """Candidates: what the process has mapped (Linux), else what torch ships."""
    names = ("libgomp", "libomp", "libiomp5")
    try:
        with open("/proc/self/maps", encoding="utf-8") as file:
            mapped = {line.split(None, 5)[5].strip() for line in file if "/" in line}
        return sorted((Path(p) for p in mapped if Path(p).name.startswith(names)), key=lambda p: "torch" not in p.parts)
    except OSError:
        return [p for p in (Path(torch.__file__).parent / "lib").glob("lib*omp*") if p.name.startswith(names)]
