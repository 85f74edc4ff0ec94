"""A function of one tensor, recorded as a CUDA graph and replayed.

An evaluation is hundreds of short launches; asked for one by one they wait for the host. The first call runs as it is (it compiles kernels, plans layouts
and allocates what is kept), the second records, and every later one is a copy of the argument and one launch. A recording belongs to its shapes: another batch
is another `Replay`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

_log = logging.getLogger("shapeflow.replay")


class Replay:
    """`function(z)` -> tensors, which must not look at values while it is recorded. On a CPU, or where recording fails, it is just called."""

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]], never: str | None = None) -> None:
        """`never` says why there is nothing to record, where the function has to look at values."""
        self.function = function
        self.calls = 0
        self.failure = never  # why there is no recording
        self._graph: torch.cuda.CUDAGraph | None = None
        self._argument: Tensor | None = None
        self._results: tuple[Tensor, ...] = ()

    def __call__(self, z: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        if not z.is_cuda or self.calls == 1 or self.failure is not None:
            return self.function(z)
        if self._graph is None:
            self._record(z)
        if self._graph is None or self._argument is None:
            return self.function(z)
        self._argument.copy_(z)
        self._graph.replay()
        return tuple(t.clone() for t in self._results)

    @property
    def replays(self) -> bool:
        return self._graph is not None

    def note(self, z: Tensor) -> str:
        """For a result's row: how evaluations at tensors like z ran. Empty on a CPU, which records nothing."""
        if not z.is_cuda:
            return ""
        return "recorded" if self.failure is None else f"launch by launch: {self.failure}"

    def _record(self, z: Tensor) -> None:
        graph, argument = torch.cuda.CUDAGraph(), z.detach().clone()
        try:
            with torch.cuda.device(z.device), torch.cuda.graph(graph):
                results = self.function(argument)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # torch raises plain RuntimeError for whatever cannot be recorded
            first: BaseException = error  # ending a broken recording raises again
            while first.__context__ is not None:
                first = first.__context__
            self.failure = f"{type(first).__name__}: {first}".split("\n")[0]
            _log.warning(
                "an evaluation could not be recorded as a CUDA graph and runs launch by launch: %s", self.failure
            )
            torch.cuda.synchronize(z.device)
            return
        self._graph, self._argument, self._results = graph, argument, results
