"""CUDA C++ to a loaded kernel by NVRTC through cuda.core: no nvcc, no host compiler, no toolkit headers, and no GPU to compile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from shapeflow.errors import BackendError, CompileError
from shapeflow.ops.compile import cache as disk
from shapeflow.ops.compile.source import flatten

STANDARD = "c++17"


@cache
def _core() -> Any:
    try:
        import cuda.core
    except ImportError as error:
        raise BackendError(
            f"the CUDA kernels need cuda.core, which cannot be imported ({error}). Install the extra that matches torch's CUDA: "
            "pip install 'shapeflow[cuda12]' or 'shapeflow[cuda13]'."
        ) from error
    if not hasattr(cuda.core, "Program"):
        raise BackendError(
            "this cuda.core is too old (it keeps its interface under cuda.core.experimental): pip install -U cuda-core"
        )
    return cuda.core


@cache
def compiler_version() -> tuple[int, int]:
    """NVRTC's version; raises BackendError when the library is missing."""
    _core()
    try:
        from cuda.bindings import nvrtc

        status, major, minor = nvrtc.nvrtcVersion()
    except Exception as error:  # cuda.bindings raises its own kinds when libnvrtc cannot be loaded
        raise BackendError(
            f"NVRTC, the CUDA run-time compiler, cannot be loaded ({error}). Install the extra that matches torch's CUDA: "
            "pip install 'shapeflow[cuda12]' or 'shapeflow[cuda13]'."
        ) from error
    if int(status) != 0:
        raise BackendError(f"NVRTC answered status {status} when asked for its version")
    return int(major), int(minor)


class _Log:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str | bytes) -> None:
        self.text += text if isinstance(text, str) else text.decode(errors="replace")


def cubin(
    source: str, names: Sequence[str], arch: str, options: Sequence[str] = ()
) -> tuple[bytes, dict[str, str], str]:
    """Compile template instances `names` of kernels/`source` for `arch` ("sm_90"): machine code, mangled names, ptxas' log."""
    core, log = _core(), _Log()
    compiler_version()
    settings = core.ProgramOptions(std=STANDARD, arch=arch, ptxas_options=list(options) or None)
    try:
        program = core.Program(flatten(source), "c++", settings)
        compiled = program.compile("cubin", name_expressions=tuple(names), logs=log)
    except Exception as error:  # cuda.core raises RuntimeError subclasses of several versions
        text = "\n".join(part for part in (str(error), log.text) if part)
        raise CompileError(
            f"NVRTC refused kernels/{source} for {arch}.\ninstances: {', '.join(names)}\n{text}"
        ) from error
    mangled = {name: m.decode() if isinstance(m, bytes) else m for name, m in compiled.symbol_mapping.items()}
    return bytes(compiled.code), mangled, log.text


def kernel(source: str, name: str, arch: str) -> Any:
    """The loaded cuda.core kernel `name` of kernels/`source`; compiled at most once for each content and architecture."""
    core = _core()
    key = disk.key_of(flatten(source), name, arch, STANDARD, compiler_version())
    found = disk.find(key, ".cubin")
    if found:
        path, note = found
        code, mangled = path.read_bytes(), note["mangled"]
    else:
        code, mangled, _ = cubin(source, (name,), arch)
        disk.store(key, ".cubin", code, mangled=mangled, source=source, name=name, arch=arch)
    # By its mangled name: what a symbol map may hold differs between versions of cuda.core.
    return core.ObjectCode.from_cubin(code).get_kernel(mangled[name])
