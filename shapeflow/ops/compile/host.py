"""C++ to a loaded shared library, by whatever compiler the system has."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from shapeflow.errors import BackendError, CompileError
from shapeflow.ops.compile import cache as disk
from shapeflow.ops.compile.source import flatten

# No -ffast-math: NaN must stay NaN. Contraction to fused multiply-adds is exact where it matters and asked for by name.
FLAGS = (
    "-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
    "-fvisibility=hidden", "-fPIC", "-shared", "-pthread", "-w",
)  # fmt: skip
ARCHITECTURE_FLAGS = (("-march=native",), ("-mcpu=native",), ())  # tried in this order


@cache
def compiler() -> tuple[str, ...]:
    """The command of a C++ compiler: CXX if set, else the first of g++, clang++, c++ on the path."""
    wanted = os.environ.get("CXX")
    names = [wanted] if wanted else ["g++", "clang++", "c++"]
    for name in names:
        command = shlex.split(name)
        found = shutil.which(command[0]) if command else None
        if found:
            return found, *command[1:]
    raise BackendError(
        f"no C++ compiler was found (looked for {', '.join(map(str, names))}), so the fast CPU kernels cannot be built. "
        "Install one (Debian/Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install; conda: cxx-compiler) "
        "or set CXX to its path."
    )


@cache
def _identity() -> tuple[str, ...]:
    """Compiler and processor, without running the compiler: a cached kernel must be found in milliseconds."""
    command = compiler()
    real = Path(command[0]).resolve()
    status = real.stat()
    return (
        *command,
        str(real),
        str(status.st_size),
        str(status.st_mtime_ns),
        platform.system(),
        platform.machine(),
        _processor(),
    )


def _processor() -> str:
    """What -march=native depends on: a cache in a home folder may serve machines of several kinds."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            block = []
            for line in file:
                if not line.strip():
                    break
                if line.split(":")[0].strip() in ("model name", "flags", "Features", "CPU part", "cpu"):
                    block.append(line.strip())
            return "\n".join(block)
    except OSError:
        return platform.processor()


def library(source: str, macros: Mapping[str, str]) -> ctypes.CDLL:
    """kernels/`source` compiled with `macros`, loaded. Compiles at most once for each content."""
    text = flatten(source)
    key = disk.key_of(text, dict(macros), FLAGS, ARCHITECTURE_FLAGS, _identity())
    suffix = ".dylib" if platform.system() == "Darwin" else ".so"
    found = disk.find(key, suffix)
    if found:
        path, _ = found
    else:
        path = disk.store(key, suffix, _compile(text, source, macros), source=source, macros=dict(macros))
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendError(
            f"the compiled kernel {path} cannot be loaded: {error}. Delete it, or point SHAPEFLOW_CACHE elsewhere."
        ) from error


def _compile(text: str, name: str, macros: Mapping[str, str]) -> bytes:
    defines = [f"-D{key}={value}" for key, value in macros.items()]
    with tempfile.TemporaryDirectory(prefix="shapeflow-") as folder:
        file, out = Path(folder, name), Path(folder, "kernel.so")
        file.write_text(text, encoding="utf-8")
        for arch in ARCHITECTURE_FLAGS:
            command = [*compiler(), *FLAGS, *arch, *defines, str(file), "-o", str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return out.read_bytes()
            # A compiler for another family of processors refuses one spelling of "this processor" and takes the next.
            if not (arch and arch[0].split("=")[0] in done.stderr):
                break
    raise CompileError(
        f"the C++ compiler refused kernels/{name}.\ncommand: {shlex.join(command)}\n{done.stderr.strip()}"
    )
