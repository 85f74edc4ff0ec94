"""One atlas in several processes: each evaluates its share of the subjects.

    E(t, p) = Σ_r (S_r / S) E_r(t, p_r),      E_r the mean over the S_r subjects of process r

E_r is an atlas energy itself. Process 0 searches: it alone holds L-BFGS and the preconditioner, sends the unknowns to
all and sums what comes back, the template's gradient over all, a subject's momenta from the one that has them. So no
two processes can decide differently, and the result is that of one process to rounding. What travels is float64, twice
the size of the unknowns an evaluation.

The others are fresh interpreters: they do not import the caller's script, and end with the caller however it ends.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from shapeflow.atlas.objective import AtlasObjective
from shapeflow.errors import ShapeflowError
from shapeflow.matching.energy import Problem
from shapeflow.shape import Shape

_log = logging.getLogger("shapeflow.atlas")

EVALUATE, RESTART, STOP = range(3)
_IDLE = timedelta(days=7)  # the others wait for as long as process 0 thinks; that it lives is seen otherwise
_PROGRAM = "from shapeflow.atlas.parallel import work; work()"


@dataclass(frozen=True)
class _Seat:
    """What a process needs to know: who it is, where the others are, its subjects first … last of `total`."""

    rank: int
    processes: int
    folder: str
    template: Shape
    problems: tuple[Problem, ...]
    template_width: float
    energy: bool
    first: int
    total: int

    def objective(self) -> AtlasObjective:
        subjects = [p.target for p in self.problems]
        return AtlasObjective(self.template, subjects, self.problems, self.template_width, self.energy)

    def join(self) -> None:
        """Waits for all."""
        device = self.problems[0].spec.torch_device()
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=(Path(self.folder) / "rendezvous").as_uri(),
            rank=self.rank,
            world_size=self.processes,
            timeout=_IDLE,
            device_id=torch.device("cuda", self.rank) if device.type == "cuda" else None,
        )

    def contribution(self, objective: AtlasObjective, message: Tensor) -> Tensor:
        """(S_r/S) E_r in the first entry, its gradient below, zero where other subjects' momenta are."""
        n, count = objective.n, len(self.problems)
        z, share = message[1:].to(objective.points), count / self.total
        size = objective.matching.q0.shape[0] // count
        mine = slice(n + self.first * size, n + (self.first + count) * size)
        value, gradient = objective.evaluate(torch.cat([z[:n], z[mine]]))
        out = torch.zeros_like(message)
        out[0, 0] = share * value[0]
        out[1 : 1 + n] = share * gradient[:n]
        out[1:][mine] = share * gradient[n:]
        return out


class SharedObjective(AtlasObjective):
    """The atlas energy of all subjects, evaluated by all processes. Process 0 has one."""

    def __init__(
        self, template: Shape, problems: Sequence[Problem], template_width: float, seat: _Seat, others: Sequence[_Other]
    ) -> None:
        super().__init__(template, [p.target for p in problems], problems, template_width, seat.energy)
        self.seat, self.own, self.others = seat, seat.objective(), others
        self.processes = seat.processes

    def evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        message = self._send(EVALUATE, z)
        total = self.seat.contribution(self.own, message)
        self._wait(lambda: dist.reduce(total, 0, async_op=True))
        return total[0, :1].clone(), total[1:].to(z)

    def restart(self) -> None:
        super().restart()
        self.own.restart()
        self._send(RESTART, torch.zeros_like(self.start()))

    def stop(self) -> None:
        self._send(STOP, torch.zeros_like(self.start()))

    def _send(self, order: int, z: Tensor) -> Tensor:
        message = torch.cat([z.new_full((1, z.shape[1]), order), z]).double()
        self._wait(lambda: dist.broadcast(message, 0, async_op=True))
        return message

    def _wait(self, begin) -> None:
        """For a collective operation, which never ends where a process has."""
        try:
            pending = begin()
            while not pending.is_completed():
                for other in self.others:
                    other.check()
                time.sleep(1e-4)
            pending.wait()
        except RuntimeError as error:  # gloo notices by itself that a connection is gone
            end = time.monotonic() + 5
            while time.monotonic() < end:
                for other in self.others:
                    other.check()
                time.sleep(0.05)
            raise ShapeflowError(f"the processes of the atlas lost each other: {error}") from error


class _Other:
    """One of the other processes, as process 0 sees it."""

    def __init__(self, seat: _Seat, threads: int) -> None:
        self.seat, self.errors = seat, Path(seat.folder) / f"{seat.rank}.stderr"
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path},
            )
        try:
            pickle.dump(seat, self._stdin)
            self._stdin.flush()
        except BrokenPipeError:
            self._lost()

    @property
    def _stdin(self) -> Any:
        return self.process.stdin

    def ready(self) -> None:
        """Waits until it has made its objective."""
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            self._lost()

    def check(self) -> None:
        if self.process.poll() is not None:
            self._lost()

    def _lost(self) -> None:
        code, lines = self.process.wait(), self.said().splitlines()
        raise ShapeflowError(
            f"process {self.seat.rank + 1} of the {self.seat.processes} of the atlas ended (exit code {code}): "
            f"{lines[-1] if lines else 'without a word, as one does that is killed'}. The last checkpoint is kept: "
            "the same command resumes, with fewer processes too"
        )

    def said(self) -> str:
        return self.errors.read_text(errors="replace").strip()

    def end(self, patience: float) -> None:
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        if said := self.said():
            _log.warning("process %d of the atlas said:\n%s", self.seat.rank + 1, said)


@contextmanager
def shared_objective(
    template: Shape, problems: Sequence[Problem], template_width: float, processes: int, energy: bool = True
) -> Iterator[AtlasObjective]:
    """The objective of `problems`, evaluated by as many processes of this machine (no more than there are subjects) while the
    block runs: on the CPU, which they share, through gloo; on CUDA, a GPU each, through NCCL.
    """
    processes = min(processes, len(problems))
    if processes == 1:
        yield AtlasObjective(template, [p.target for p in problems], problems, template_width, energy)
        return
    _can(problems[0].spec.torch_device(), processes)
    before = torch.get_num_threads()
    threads = max(1, before // processes)
    others: list[_Other] = []
    with tempfile.TemporaryDirectory(prefix="shapeflow-atlas-") as folder:
        seats = list(_seats(template, problems, template_width, energy, processes, folder))
        patience = 0.0
        try:
            torch.set_num_threads(threads)
            others += (_Other(seat, threads) for seat in seats[1:])
            for other in others:
                other.ready()
            seats[0].join()
            objective = SharedObjective(template, problems, template_width, seats[0], others)
            _log.info("atlas: %d subjects in %d processes, through %s", len(problems), processes, dist.get_backend())
            yield objective
            objective.stop()
            patience = 30.0
        finally:
            torch.set_num_threads(before)
            for other in others:
                other.end(patience)
            if dist.is_initialized():
                dist.destroy_process_group()


def _can(device: torch.device, processes: int) -> None:
    if dist.is_initialized():
        raise ShapeflowError(
            "an atlas in several processes makes its own process group, and this program has one already"
        )
    if device.type == "cuda" and torch.cuda.device_count() < processes:
        raise ShapeflowError(
            f"atlas.processes={processes} needs a GPU for each, and torch sees {torch.cuda.device_count()}: ask for fewer processes"
        )


def _seats(
    template: Shape, problems: Sequence[Problem], width: float, energy: bool, processes: int, folder: str
) -> Iterator[_Seat]:
    """Neighbouring subjects, as many for each process, give or take one."""
    bounds = [len(problems) * r // processes for r in range(processes + 1)]
    for rank, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
        yield _Seat(rank, processes, folder, template, tuple(problems[first:last]), width, energy, first, len(problems))


def work() -> None:
    """What the others run: told by process 0 through the standard input, which closes when that one is gone."""
    seat: _Seat = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_caller, daemon=True).start()
    if seat.problems[0].spec.torch_device().type == "cuda":
        torch.cuda.set_device(seat.rank)
    objective = seat.objective()
    print("ready", flush=True)
    seat.join()
    message = torch.zeros(1 + objective.n + objective.matching.q0.shape[0] // len(seat.problems) * seat.total,
                          objective.points.shape[1], dtype=torch.float64, device=objective.points.device)  # fmt: skip
    while True:
        dist.broadcast(message, 0)
        order = int(message[0, 0])
        if order == STOP:
            break
        if order == RESTART:
            objective.restart()
        else:
            dist.reduce(seat.contribution(objective, message), 0)
    dist.destroy_process_group()


def _end_with_caller() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not through the buffer, whose lock would be held when this process ends
        pass
    os._exit(1)
