"""Calls that may crash, hang or eat the memory, each in a process that can be thrown away.

Readers are other people's C++ fed with files that nobody vouches for. A worker is a fresh interpreter with a limit on its address space and, for
each call, on its CPU time; it answers in JSON over its own pipe (whatever a library prints goes elsewhere). A worker that dies or overruns costs the call
it was given, and is replaced. Arrays travel through files that the called function writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shapeflow.errors import ConfigError, ShapeflowError, disk_error


@dataclass(frozen=True)
class Limits:
    """workers: processes (None: one a CPU that this process may use; 0: no processes, everything in this one, nothing is contained).
    seconds and gigabytes: what one call may take."""

    workers: int | None = None
    seconds: float = 300.0
    gigabytes: float = 4.0

    def __post_init__(self) -> None:
        if (self.workers is not None and self.workers < 0) or self.seconds <= 0 or self.gigabytes <= 0:
            raise ConfigError(f"limits must be positive; received {self}")

    def count(self, calls: int) -> int:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(calls, available if self.workers is None else self.workers)


@dataclass(frozen=True)
class Outcome:
    """Of one call: its value, or the sentence that says why there is none. `contained` tells a crash, a hang or a flood from a refusal."""

    value: Any = None
    error: str | None = None
    contained: bool = False
    seconds: float = 0.0
    disk: int | None = None  # the number of an error of the disk: no fault of the call's, so that `run_each` raises it


def run_each(function: str, calls: Sequence[Mapping[str, Any]], limits: Limits) -> Iterator[tuple[int, Outcome]]:
    """Call "module:function" with each mapping of arguments; yields (index, outcome) as they end. The function must return JSON.

    Raises OSError when a call could not write because the disk is full or read-only.
    """
    workers = limits.count(len(calls))
    if limits.workers == 0:
        for i, call in enumerate(calls):
            start = time.perf_counter()
            yield i, _blameless(Outcome(**_call(function, call), seconds=time.perf_counter() - start))
        return
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Outcome] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    for i in range(len(calls)):
        todo.put(i)
    threads = [
        threading.Thread(target=_serve, args=(function, calls, limits, todo, done, stop), daemon=True)
        for _ in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in calls:
            item = done.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _blameless(outcome: Outcome) -> Outcome:
    if outcome.disk is not None:
        raise OSError(outcome.disk, os.strerror(outcome.disk))
    return outcome


def _serve(
    function: str, calls: Sequence[Mapping], limits: Limits, todo: Any, done: Any, stop: threading.Event
) -> None:
    """A thread that keeps one worker alive and feeds it."""
    worker: _Worker | None = None
    try:
        while not stop.is_set():
            try:
                i = todo.get_nowait()
            except queue.Empty:
                return
            if worker is None:
                worker = _Worker(limits)
            outcome = worker.ask(function, calls[i], stop)
            if outcome.contained:
                worker.end()
                worker = None
            done.put((i, _blameless(outcome)))
    except BaseException as error:  # the main thread raises it
        done.put(error)
    finally:
        if worker is not None:
            worker.end()


class _Worker:
    """A child interpreter, and the two pipes to talk to it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.noise: IO[bytes] = tempfile.TemporaryFile()
        root = str(Path(__file__).resolve().parents[2])
        one_thread = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VTK_SMP_MAX_THREADS"), "1"
        )
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "shapeflow.io.isolated", str(limits.gigabytes), str(limits.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.noise,
            env={**os.environ, **one_thread, "PYTHONPATH": path},
            start_new_session=True,  # an interrupt at the terminal is for the parent to handle
        )
        status, answer = self._receive(time.monotonic() + 120.0, threading.Event())
        if status != "answer" or answer != {"ready": True}:
            said = self._said()
            self.end()
            raise ShapeflowError(
                f"a reader process could not be started ({status}): {said or 'it said nothing'}. Limits(workers=0) reads in this process, without one"
            )

    def ask(self, function: str, call: Mapping[str, Any], stop: threading.Event) -> Outcome:
        start = time.perf_counter()
        payload = pickle.dumps((function, dict(call)))
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(struct.pack(">Q", len(payload)) + payload)
            self.process.stdin.flush()
        except OSError:
            return Outcome(error=f"the reader process had died: {self._death()}", contained=True)
        status, answer = self._receive(time.monotonic() + self.limits.seconds, stop)
        seconds = time.perf_counter() - start
        if status == "answer" and isinstance(answer, dict):
            return Outcome(**answer, seconds=seconds)
        if status == "late":
            why = f"did not end within {self.limits.seconds:g} s and was stopped; simplify the file, or raise the limit"
            return Outcome(error=why, contained=True, seconds=seconds)
        return Outcome(
            error=f"crashed its reader: {self._death()}; export the file again", contained=True, seconds=seconds
        )

    def _receive(self, deadline: float, stop: threading.Event) -> tuple[str, Any]:
        """("answer", value), or ("late" | "dead" | "stopped", None)."""
        assert self.process.stdout is not None
        handle = self.process.stdout.fileno()
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(handle, selectors.EVENT_READ)
            while True:
                if stop.is_set():
                    return "stopped", None
                if time.monotonic() > deadline:
                    return "late", None
                if not selector.select(0.2):
                    continue
                chunk = os.read(handle, 1 << 20)
                if not chunk:
                    return "dead", None
                buffer += chunk
                if len(buffer) >= 8 and len(buffer) >= 8 + (size := struct.unpack(">Q", buffer[:8])[0]):
                    try:
                        return "answer", json.loads(buffer[8 : 8 + size])
                    except ValueError:
                        return "dead", None

    def _death(self) -> str:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "its answer was garbled"
        if code == -signal.SIGXCPU:
            return f"it used more than its {self.limits.seconds:g} s"
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        flood = " (perhaps by asking for more than its memory limit)" if name in ("SIGABRT", "SIGKILL") else ""
        return name + flood

    def _said(self) -> str:
        self.noise.seek(0)
        return self.noise.read()[-400:].decode(errors="replace").strip()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.noise):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _call(function: str, call: Mapping[str, Any]) -> dict[str, Any]:
    """{"value": ...} or {"error": sentence}."""
    import importlib

    module, name = function.split(":")
    try:
        return {"value": getattr(importlib.import_module(module), name)(**call)}
    except ShapeflowError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "needs more memory than the limit; its header is damaged, or decimate it first"}
    except Exception as error:  # ours to fix, but it must cost one subject only; the type helps to report it
        if disk := disk_error(error):
            return {"error": str(disk), "disk": disk.errno}
        return {"error": f"stopped with {type(error).__name__}: {error}"}


def _work(gigabytes: float, seconds: float) -> None:
    """The child's loop: read a request, call, answer; until the pipe closes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    _limit_memory(gigabytes)
    _send(answers, {"ready": True})
    while header := sys.stdin.buffer.read(8):
        function, call = pickle.loads(sys.stdin.buffer.read(struct.unpack(">Q", header)[0]))
        _limit_time(seconds)
        _send(answers, _call(function, call))


def _send(pipe: IO[bytes], answer: Any) -> None:
    data = json.dumps(answer).encode()
    pipe.write(struct.pack(">Q", len(data)) + data)
    pipe.flush()


def _limit_memory(gigabytes: float) -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + int(gigabytes * 2**30))
        _lower(resource.RLIMIT_CORE, 0)
    except (ImportError, OSError, ValueError):
        pass  # a system without such limits: time is still bounded, and a crash still costs one call


def _limit_time(seconds: float) -> None:
    """An orphan must end by itself: the limit on CPU time moves ahead with every call."""
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 2)
    except (ImportError, OSError, ValueError):
        pass


def _lower(limit: int, value: int) -> None:
    """The soft limit, below the hard one, which somebody (`ulimit`, a batch system) may have set and only root may raise."""
    import resource

    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    _work(float(sys.argv[1]), float(sys.argv[2]))
