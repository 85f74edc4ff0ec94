"""Many problems of different sizes in one tensor.

A study is thousands of matchings of a few hundred to a few thousand points. They are concatenated along the first axis; `offsets` says where
each begins: problem `b` owns rows `offsets[b] : offsets[b + 1]`. The offsets live on the host, because tile counts, empty problems and
error messages must not wait for a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from shapeflow.errors import ShapeflowError
from shapeflow.replay import held


@dataclass(frozen=True)
class Ragged:
    """Layout of B concatenated problems; `offsets` has B + 1 entries, starts at zero and never decreases."""

    offsets: tuple[int, ...]

    def __post_init__(self) -> None:
        o = self.offsets
        if len(o) < 2 or o[0] != 0 or any(b < a for a, b in zip(o, o[1:], strict=False)):
            raise ShapeflowError(
                f"offsets must start at 0 and never decrease, with one more entry than problems; received {o}"
            )

    @classmethod
    def of_sizes(cls, sizes: Iterable[int]) -> Ragged:
        offsets = [0]
        for n in sizes:
            offsets.append(offsets[-1] + int(n))
        return cls(tuple(offsets))

    @property
    def count(self) -> int:
        """B, the number of problems."""
        return len(self.offsets) - 1

    @property
    def total(self) -> int:
        """Number of rows of the concatenated tensors."""
        return self.offsets[-1]

    @cached_property
    def shared(self) -> Ragged:
        """The one object that stands for every layout with these offsets: what depends on a layout is kept by its identity."""
        return layout(self.offsets)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in zip(self.offsets, self.offsets[1:], strict=False))

    @cached_property
    def largest(self) -> int:
        """Rows of the largest problem; 0 where there is none."""
        return max(self.sizes, default=0)

    def slices(self) -> Iterator[slice]:
        for a, b in zip(self.offsets, self.offsets[1:], strict=False):
            yield slice(a, b)

    def owner(self, device: torch.device | str = "cpu") -> Tensor:
        """(total,) index of the problem that each row belongs to."""
        return held(_owner(self, torch.device(device)))

    def starts(self, device: torch.device | str = "cpu") -> Tensor:
        """(B + 1,) int64: `offsets` on a device."""
        return held(_offsets(self, torch.device(device)))

    def spread(self, per_problem: Tensor) -> Tensor:
        """(B, …) values repeated over the rows of their problem: (total, …)."""
        return _Spread.apply(per_problem, self)

    def sum(self, per_row: Tensor) -> Tensor:
        """(total, …) values added within each problem, in row order: (B, …).

        Rows are contiguous, so a segmented reduction does it without atomics: same inputs, same bits.
        """
        return _Sum.apply(per_row, self)

    def mean(self, per_row: Tensor) -> Tensor:
        """(B, …) mean over the rows of each problem; zero for an empty one."""
        return self.sum(per_row) / held(_sizes(self, per_row.device)).view(-1, *[1] * (per_row.ndim - 1))

    def select(self, problems: Iterable[int]) -> tuple[Ragged, Tensor]:
        """Layout of a subset of problems and the rows that make it up, in the given order."""
        kept = list(problems)
        rows = [torch.arange(self.offsets[b], self.offsets[b + 1]) for b in kept]
        layout = Ragged.of_sizes(self.sizes[b] for b in kept)
        return layout, torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long)


@lru_cache(maxsize=1024)
def layout(offsets: tuple[int, ...]) -> Ragged:
    """Offsets cross the operators' schema as integers; the validated object is shared."""
    return Ragged(offsets)


@lru_cache(maxsize=256)
def _owner(layout: Ragged, device: torch.device) -> Tensor:
    sizes = torch.tensor(layout.sizes, dtype=torch.long)
    return torch.repeat_interleave(torch.arange(layout.count), sizes).to(device)


@lru_cache(maxsize=256)
def _offsets(layout: Ragged, device: torch.device) -> Tensor:
    return torch.tensor(layout.offsets, dtype=torch.long, device=device)


@lru_cache(maxsize=256)
def _sizes(layout: Ragged, device: torch.device) -> Tensor:
    return torch.tensor(layout.sizes, device=device).clamp(min=1)


class _Sum(torch.autograd.Function):
    """Segmented sum; its derivative is `_Spread` and conversely, so both are differentiable as often as one likes."""

    @staticmethod
    def forward(ctx, per_row: Tensor, layout: Ragged) -> Tensor:
        ctx.layout = layout
        if layout.count == 1:
            return per_row.sum(0, keepdim=True)
        return torch.segment_reduce(per_row, "sum", offsets=layout.starts(per_row.device), axis=0, initial=0.0)

    @staticmethod
    def backward(ctx, cotangent: Tensor):
        return _Spread.apply(cotangent, ctx.layout), None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx, per_problem: Tensor, layout: Ragged) -> Tensor:
        ctx.layout = layout
        if layout.count == 1:
            return per_problem.expand(layout.total, *per_problem.shape[1:]).contiguous()
        return per_problem.index_select(0, layout.owner(per_problem.device))

    @staticmethod
    def backward(ctx, cotangent: Tensor):
        return _Sum.apply(cotangent.contiguous(), ctx.layout), None
