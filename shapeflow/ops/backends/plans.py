"""What a CUDA backend prepares once for a layout: its launches, and the tensors and objects that must outlive them.

Made at the first call, on the host; never while a stream is recorded as a CUDA graph, since making one compiles and copies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from shapeflow import replay
from shapeflow.errors import BackendError
from shapeflow.ops.radial import Radial

P = TypeVar("P")


def constants(radial: Radial, device: torch.device) -> Tensor:
    """(2 m,) float64: weights and width ratios of the m terms, as `Radial::set` of kernels/radial.h reads them."""
    numbers = [t.weight for t in radial.terms] + [t.ratio for t in radial.terms]
    return torch.tensor(numbers, dtype=torch.float64, device=device)


class Plans(Generic[P]):
    """Plans by key, the least recently used of more than `most` forgotten. A recording keeps the plans that it replays (`replay.keep`).

    Layouts are in a key by identity: hashing a thousand offsets costs more than a launch. A plan therefore keeps the objects of its key alive, so
    that none of their identities can come to mean another object.
    """

    def __init__(self, what: str, most: int) -> None:
        """`what` is planned, for an error message."""
        self.what, self.most = what, most
        self._made: OrderedDict[tuple, P] = OrderedDict()

    def get(self, key: tuple, make: Callable[..., P], *arguments: object) -> P:
        """The plan of `key`; `make(*arguments)` if there is none yet."""
        recorded = torch.cuda.is_current_stream_capturing()
        plan = self._made.get(key)
        if plan is None:
            if recorded:
                raise BackendError(
                    f"{self.what} for this layout is not compiled and planned yet, which a CUDA graph cannot capture: "
                    "call it once with the same shapes before capturing"
                )
            plan = self._made[key] = make(*arguments)
            if len(self._made) > self.most:
                self._made.popitem(last=False)
        elif len(self._made) > self.most // 2:  # far from full, which was used last does not matter
            self._made.move_to_end(key)
        if recorded:
            replay.keep(plan)
        return plan
