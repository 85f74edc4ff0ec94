"""A call that crashes, hangs or floods costs itself, and nothing else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from shapeflow.errors import ConfigError, MeshError
from shapeflow.io.isolated import Limits, run_each

HERE = "tests.io.test_isolated"


def twice(x: float) -> float:
    print("a library that talks")
    return 2 * x


def crash(x: float) -> float:
    if x == 1:
        os.abort()
    return x


def segfault(x: float) -> float:
    if x == 1:
        import ctypes

        ctypes.string_at(0)
    return x


def hang(x: float) -> float:
    while x == 1:
        pass
    return x


def flood(x: float) -> float:
    return float(np.ones(int(3e9))[0]) if x == 1 else x  # 24 GB


def refuse(x: float) -> float:
    raise MeshError("x is no mesh")


def bug(x: float) -> float:
    return x + {}  # type: ignore[operator]


def full(x: float) -> float:
    if x == 1:
        raise OSError(errno.ENOSPC, "No space left on device")
    return x


def answers(function: str, n: int = 3, **limits: float) -> list:
    out: list = [None] * n
    for i, outcome in run_each(f"{HERE}:{function}", [{"x": x} for x in range(n)], Limits(**limits)):  # type: ignore[arg-type]
        out[i] = outcome
    return out


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_values_come_back_whatever_the_number_of_processes(workers: int, capfd: pytest.CaptureFixture) -> None:
    assert [o.value for o in answers("twice", 5, workers=workers)] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(("function", "says"), [("crash", "SIGABRT"), ("segfault", "SIGSEGV")])
def test_a_crash_costs_one_call(function: str, says: str) -> None:
    found = answers(function, workers=1)
    assert [o.value for o in found] == [0, None, 2]
    assert found[1].contained and says in found[1].error


def test_an_endless_loop_is_stopped() -> None:
    start = time.monotonic()
    found = answers("hang", workers=1, seconds=1.0)
    assert [o.value for o in found] == [0, None, 2] and "1 s" in found[1].error
    assert time.monotonic() - start < 30


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux enforces a limit on the address space")
def test_a_flood_is_refused_by_the_limit() -> None:
    found = answers("flood", workers=1, gigabytes=2.0)
    assert [o.value for o in found] == [0, None, 2] and "memory" in found[1].error


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux enforces a limit on the address space")
def test_a_limit_that_is_there_already_stays() -> None:
    """A batch system's: only root could raise it, so that asking for more would leave a worker without any limit."""
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 42, 1 << 42))\n"
        "from shapeflow.io.isolated import _limit_memory; _limit_memory(2.0)\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_AS); print(soft < 1 << 38, hard == 1 << 42)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


@pytest.mark.parametrize("workers", [0, 1])
def test_refusals_and_bugs_are_sentences(workers: int) -> None:
    assert {o.error for o in answers("refuse", workers=workers)} == {"x is no mesh"}
    found = answers("bug", workers=workers)
    assert all("TypeError" in o.error and not o.contained for o in found)


def test_stopping_early_leaves_no_process() -> None:
    import psutil

    calls = run_each(f"{HERE}:twice", [{"x": x} for x in range(100)], Limits(workers=2))
    next(calls)
    calls.close()
    assert not [c for c in psutil.Process().children() if "shapeflow.io.isolated" in " ".join(c.cmdline())]


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="positive"):
        Limits(seconds=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_no_fault_of_a_call(workers: int) -> None:
    """Taken for a bad mesh, it would leave out a subject that is good."""
    with pytest.raises(OSError, match="No space left") as caught:
        answers("full", workers=workers)
    assert caught.value.errno == errno.ENOSPC
