"""Timing and tables shared by the benchmarks: medians with their spread, and where and when they were measured."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the best, the median and the quartiles around it."""

    best: float
    median: float
    low: float
    high: float
    count: int

    def shared(self, calls: int) -> Timing:
        """Of each of `calls` that were timed as one."""
        return Timing(self.best / calls, self.median / calls, self.low / calls, self.high / calls, self.count)

    def __str__(self) -> str:
        unit, scale = ("s", 1.0) if self.median >= 1 else ("ms", 1e3) if self.median >= 1e-3 else ("µs", 1e6)
        return f"{self.median * scale:.3g} {unit} ({self.low * scale:.3g}–{self.high * scale:.3g}; {self.best * scale:.3g})"


def measure(call: Callable[[], object], seconds: float = 1.0, least: int = 5, device: str = "cpu") -> Timing:
    """Warm up once, then repeat for about `seconds` (at least `least` times). On CUDA each call is timed between two events."""
    return compare({"": call}, seconds, least, device)[""]


def compare(
    calls: dict[str, Callable[[], object]], seconds: float = 1.0, least: int = 5, device: str = "cpu"
) -> dict[str, Timing]:
    """Time several calls in turn, round after round, so that a machine's changing load falls on all of them alike.

    A call takes as many repetitions a round as fit in the time of the slowest, 100 at most.
    """
    clock = _cuda if device == "cuda" else _cpu
    once = {}
    for name, call in calls.items():
        call()
        once[name] = clock(call)
    slowest = max(once.values())
    repeat = {name: max(1, min(100, int(slowest / max(t, 1e-7)))) for name, t in once.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < least or time.perf_counter() < end:
        rounds += 1
        for name, call in calls.items():
            times[name] += [clock(call) for _ in range(repeat[name])]
    return {name: _summary(t) for name, t in times.items()}


def _summary(times: list[float]) -> Timing:
    quartiles = statistics.quantiles(times, n=4)
    return Timing(min(times), statistics.median(times), quartiles[0], quartiles[2], len(times))


def _cpu(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _cuda(call: Callable[[], object]) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def relative_error(got: Tensor | Iterable[Tensor], exact: Tensor | Iterable[Tensor]) -> float:
    """Largest ‖got − exact‖ / ‖exact‖ of the results, in float64."""
    got, exact = ([t] if isinstance(t, Tensor) else list(t) for t in (got, exact))
    return max(float((g.double() - e.double()).norm() / e.double().norm()) for g, e in zip(got, exact, strict=True))


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    header = list(header)
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines)


def place(device: str = "cpu") -> str:
    """Machine, versions, date and commit, for the head of a table."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"{_cpu_name()}, {torch.get_num_threads()} threads"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return (
        f"{name}; torch {torch.__version__}, Python {platform.python_version()}; {datetime.date.today()}, "
        f"commit {commit.stdout.strip() or 'unknown'}; load average at the start {os.getloadavg()[0]:.1f}."
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def publish(path: Path, title: str, text: str, write: bool) -> None:
    """Print a section `## title`; `write` it to a document too, where it replaces the one so called and leaves the others alone."""
    print(f"\n## {title}\n\n{text}", flush=True)
    if not write:
        return
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    head, *parts = ("\n" + old).split("\n## ")
    kept = {part.split("\n", 1)[0]: part for part in parts}
    kept[title] = f"{title}\n\n{text.strip()}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        (head.strip() + "\n\n" if head.strip() else "") + "\n".join(f"## {p.strip()}\n" for p in kept.values()),
        encoding="utf-8",
    )
