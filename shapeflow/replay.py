"""A function of one tensor, recorded as a CUDA graph and replayed.

An evaluation is hundreds of short launches; asked for one by one they wait for the host. The first call runs as it is (it compiles kernels, plans layouts
and allocates what is kept), the second records, and every later one is a copy of the argument and one launch. A recording belongs to its function and shapes:
another batch is another `Replay`. What it reads on the device beside its own memory lives as long as it does: `keep`.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_log = logging.getLogger("shapeflow.replay")
_recording: set[Replay] = set()  # by whatever thread: backward passes run in one of their own
_for_good: dict[int, object] = {}


def keep(used: object) -> None:
    """Keep what is used while a stream is recorded as long as the recording can be replayed.

    Of a recording that is not a `Replay`, the caller's own torch.cuda.graph, nobody tells when it ends: what it uses is kept for good.
    """
    for kept in [replay.kept for replay in _recording] or [_for_good]:
        kept[id(used)] = used


def held(tensor: Tensor) -> Tensor:
    """A tensor of a cache that forgets some: a recording that uses it keeps it."""
    if is_recorded(tensor):
        keep(tensor)
    return tensor


def is_recorded(tensor: Tensor) -> bool:
    """Whether what is done with this tensor now is recorded as a CUDA graph: then nobody may look at values, or sort by them."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


class Replay:
    """`replay(function, z)` -> function(z), a tuple of tensors; function must not look at values while it is recorded.

    On a CPU, or where recording fails, the function is just called. It is given anew with each call and not kept, since it usually is a method of what owns
    this recording: a cycle, whose graph and memory would outlive it until the next garbage collection.
    """

    def __init__(self, never: str | None = None, failures: list[str] | None = None) -> None:
        """`never` says why there is nothing to record, where the function has to look at values; failures go to the end of `failures`."""
        self.calls = 0
        self.never = never
        self.failure = never  # why there is no recording
        self.failures = [] if failures is None else failures
        self._graph: torch.cuda.CUDAGraph | None = None
        self._argument: Tensor | None = None
        self._results: tuple[Tensor, ...] = ()
        self.kept: dict[int, object] = {}  # by identity: the graph reads their memory

    def __call__(self, function: Callable[[Tensor], tuple[Tensor, ...]], z: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        if not z.is_cuda or self.calls == 1 or self.failure is not None:
            return function(z)
        if self._graph is None:
            self._record(function, z)
        if self._graph is None or self._argument is None:
            return function(z)
        self._argument.copy_(z)
        self._graph.replay()
        return tuple(t.clone() for t in self._results)

    @property
    def replays(self) -> bool:
        return self._graph is not None

    def again(self) -> Replay:
        """A recording still to be made, of the same function at other shapes, say; its failures are told with those of this one."""
        return Replay(self.never, self.failures)

    def note(self, z: Tensor) -> str:
        """For a result's row: how evaluations at tensors like z ran. Empty on a CPU, which records nothing."""
        if not z.is_cuda:
            return ""
        if self.failure is not None:
            return f"launch by launch: {self.failure}"
        return f"recorded, but for some: {self.failures[0]}" if self.failures else "recorded"

    def _record(self, function: Callable[[Tensor], tuple[Tensor, ...]], z: Tensor) -> None:
        graph, argument = torch.cuda.CUDAGraph(), z.detach().clone()
        _recording.add(self)
        try:
            with torch.cuda.device(z.device), _no_garbage_collection(), torch.cuda.graph(graph):
                results = function(argument)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # torch raises plain RuntimeError for whatever cannot be recorded
            first: BaseException = error  # ending a broken recording raises again
            while first.__context__ is not None:
                first = first.__context__
            self.failure = f"{type(first).__name__}: {first}".split("\n")[0]
            self.failures.append(self.failure)
            _log.warning(
                "an evaluation could not be recorded as a CUDA graph and runs launch by launch: %s", self.failure
            )
            torch.cuda.synchronize(z.device)
            self.kept.clear()
            return
        finally:
            _recording.discard(self)
        self._graph, self._argument, self._results = graph, argument, results


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """While a stream is recorded, nothing may be freed on the device, which a collection of Python's garbage can do at any moment."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
