"""How much memory there is, and whether an error says that there was not enough."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from shapeflow.errors import BackendError

_PHRASES = ("out of memory", "can't allocate memory", "cannot allocate memory")


def available(device: torch.device) -> int | None:
    """Bytes that a new batch may use on `device`; None where nobody says."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    machine = _meminfo(Path("/proc/meminfo"))
    group = _control_groups(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    return min((n for n in (machine, group) if n is not None), default=None)


def is_exhausted(error: BaseException) -> bool:
    """Whether the error is that of an allocator, on the host or on a device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, BackendError)) and any(p in str(error).lower() for p in _PHRASES)


def release() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _meminfo(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _control_groups(root: Path, membership: Path) -> int | None:
    """What is left of the tightest limit on this process (control groups, version 2): a container's is that of the root it sees, a batch
    system's that of a group below."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    own = root / path
    left = [_left(folder) for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return min((n for n in left if n is not None), default=None)


def _left(group: Path) -> int | None:
    """Of a group's limit, None without one. Cached pages of files are dropped when memory is asked for, so they are not used."""
    try:
        limit, used, stat = (
            (group / f"memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current", "stat")
        )
    except OSError:
        return None
    if limit == "max":
        return None
    cached = next((int(line.split()[1]) for line in stat.splitlines() if line.startswith("inactive_file ")), 0)
    return max(0, int(limit) - int(used) + cached)
