"""The normalized field and its adjoint on CUDA, one launch each (kernels/field.cu), for problems so few and small that shared memory holds their matrices.

A problem is a team of blocks, resident together, each with its rows of the matrix. They write to each other through `Mail`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from shapeflow.ops.backends.native_call import REAL, at
from shapeflow.ops.backends.plans import Plans, constants
from shapeflow.ops.compile import nvrtc
from shapeflow.ops.compile.launch import Launch, architecture, current_stream
from shapeflow.ops.problem import Problem
from shapeflow.warm import Guess, Room, Warm

THREADS, WARPS, GROUP, SUMS, FEWEST_ROWS = 512, 16, 8, 4, 8  # mirror kernels/shared_matrix.h
MOST_PER_THREAD = 5  # elements of a vector; shared memory of an H100 holds no larger matrix
MOST_DIMENSIONS = 3


def suits(problem: Problem, dtype: torch.dtype, d: int) -> bool:
    """Whether the matrices of the batch fit in the shared memory of blocks that are all resident at once."""
    device, layout = problem.sigma.device, problem.rows
    if device.type != "cuda" or d > MOST_DIMENSIONS or dtype not in REAL or not layout.total:
        return False
    card = torch.cuda.get_device_properties(device)
    if layout.count > card.multi_processor_count or layout.largest > MOST_PER_THREAD * THREADS:
        return False
    team = team_size(layout.sizes, card.multi_processor_count)
    return shared_bytes(layout.sizes, team, dtype, d) <= card.shared_memory_per_block_optin


def team_size(sizes: tuple[int, ...], sms: int) -> int:
    """Blocks a problem: a block holds at least FEWEST_ROWS rows, and there is one to a multiprocessor."""
    return max(1, min(sms // max(len(sizes), 1), -(-max(sizes, default=1) // FEWEST_ROWS)))


def shared_bytes(sizes: tuple[int, ...], team: int, dtype: torch.dtype, d: int) -> int:
    """Dynamic shared memory of a block: `begin` of kernels/shared_matrix.h."""
    columns = d + 2

    def numbers(n: int) -> int:
        share = max(-(-n // team), FEWEST_ROWS)
        padded, row = -(-share // GROUP) * GROUP, 2 * (d + columns)
        return 2 * WARPS * padded * columns + (1 + (share >= n)) * n * columns + share * (row + n)

    return 16 * WARPS * SUMS + dtype.itemsize * max(map(numbers, sizes))


def instance(what: str, dtype: torch.dtype, d: int, per: int, terms: tuple[str, ...]) -> str:
    """The template instance: `what` is field or adjoint."""
    return f"shapeflow_{what}<{REAL[dtype]}, {d}, {per}, {', '.join(t.upper() for t in terms)}>"


def value(
    x: Tensor, masses: Tensor, p: Tensor, problem: Problem, warm: Warm, left: Tensor, numbers: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(v, ∂H/∂q, ℓ, u) with w = √μ u. `left` (B,) float64 grows to the residual of a problem that misses the tolerance."""
    plan = _plan(problem, x)
    v, g, log_scale, u = torch.empty_like(x), torch.empty_like(x), torch.empty_like(masses), torch.empty_like(masses)
    solved = _solved(warm, ("log_scale", "w"), masses)
    mail, first_round = _mail(warm, plan, x, 3 * int(numbers[-1]))
    plan.value.fix(30, *numbers, plan.team, masses.shape[0])
    places = (x, masses, p, log_scale, u, v, g, mail)
    _launch(plan.value, problem, places, first_round, left, *solved)
    return v, g, log_scale, u


def adjoint(
    x: Tensor, masses: Tensor, p: Tensor, kept: Sequence[Tensor], V: Tensor, h: Tensor, problem: Problem, warm: Warm, numbers: Sequence[float]
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(q̄, p̄) of cotangents V of v and h of ∂H/∂q; `kept` are (ℓ, u, v) of `value`."""
    plan = _plan(problem, x)
    q_bar, p_bar = torch.empty_like(x), torch.empty_like(x)
    solved = _solved(warm, ("log_rate", "w_rate"), masses)
    *_, tolerance, _, steps = numbers
    mail, first_round = _mail(warm, plan, x, 3 * int(steps))
    plan.adjoint.fix(32, tolerance, steps, plan.team, masses.shape[0])
    _launch(plan.adjoint, problem, (x, masses, p, *kept, V, h, q_bar, p_bar, mail), first_round, *solved)
    return q_bar, p_bar


@dataclass(frozen=True)
class _Plan:
    """One layout on one device: the launches, and the tensors and objects that must outlive them."""

    team: int  # blocks a problem
    letters: int  # words of mail
    value: Launch
    adjoint: Launch
    alive: tuple[Any, ...] = field(repr=False)


_plans: Plans[_Plan] = Plans("the normalized field of this kernel", most=512)


def _plan(problem: Problem, x: Tensor) -> _Plan:
    key = (x.dtype, x.shape[1], id(problem.radial), id(problem.rows), x.device.index)
    return _plans.get(key, _make_plan, problem, x)


def _make_plan(problem: Problem, x: Tensor) -> _Plan:
    layout, names, d = problem.rows, tuple(t.name for t in problem.radial.terms), x.shape[1]
    team = team_size(layout.sizes, torch.cuda.get_device_properties(x.device).multi_processor_count)
    per = -(-layout.largest // THREADS)
    shared = shared_bytes(layout.sizes, team, x.dtype, d)
    offsets = torch.tensor(layout.offsets, dtype=torch.long, device=x.device)
    numbers = constants(problem.radial, x.device)

    def launch(what: str) -> Launch:
        kernel = _kernel(instance(what, x.dtype, d, per, names), architecture(x.device.index))
        made = Launch(kernel, (layout.count * team, 1), THREADS, cooperative=team > 1, shared=shared)
        made.fix(0, offsets.data_ptr())
        made.fix(2, numbers.data_ptr(), problem.radial.epsilon)
        return made

    letters = 2 * layout.total * (d + 2) * (x.dtype.itemsize // 4) if team > 1 else 1
    alive = (problem.radial, layout, offsets, numbers)
    with torch.cuda.device(x.device):
        return _Plan(team, letters, launch("field"), launch("adjoint"), alive)


@cache
def _kernel(name: str, arch: str) -> Any:
    return nvrtc.kernel("field.cu", name, arch)


@dataclass
class Mail:
    """Letters between blocks, and the rounds that launches before this one may have used. No round is used twice until the memory is zero again."""

    words: Tensor
    rounds: int = 0


MOST_ROUNDS = 1 << 31


def _mail(warm: Warm, plan: _Plan, x: Tensor, rounds: int) -> tuple[Tensor, int]:
    """The trajectory's, with what the next launch may use beyond: two rounds for each of `rounds` and some products."""
    mail, rounds = warm.mail, rounds + 16
    if (
        not isinstance(mail, Mail)
        or mail.words.device != x.device
        or len(mail.words) != plan.letters
        or mail.rounds + rounds > MOST_ROUNDS
    ):
        mail = warm.mail = Mail(torch.zeros(plan.letters, dtype=torch.long, device=x.device))
    first, mail.rounds = mail.rounds, mail.rounds + rounds
    return mail.words, first


def _solved(warm: Warm, names: tuple[str, str], like: Tensor) -> list[tuple[Guess, Room]]:
    """What is known of the quantities, and where they are remembered."""
    return [(warm.terms(name), warm.room(name, like)) for name in names]


def _launch(
    launch: Launch, problem: Problem, places: tuple[Tensor, ...], *rest: int | Tensor | tuple[Guess, Room]
) -> None:
    changes: list[int] = [t.data_ptr() for t in places]
    for item in rest:
        if isinstance(item, tuple):
            guess, room = item
            *terms, weight = guess
            (bits,) = struct.unpack("<q", struct.pack("<d", weight))
            changes += [*map(at, terms), bits, *map(at, room)]
        else:
            changes.append(item if isinstance(item, int) else item.data_ptr())
    with torch.cuda.device(places[0].device):
        launch(current_stream(places[0].device.index), (1, problem.sigma.data_ptr()), (4, *changes))
