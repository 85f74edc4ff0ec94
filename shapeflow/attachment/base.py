"""The interface of an attachment, and a mixture of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


class Attachment(ABC):
    """A(q, target) for B problems, differentiable in q; zero where the deformed shape meets its target."""

    @abstractmethod
    def __call__(self, points: Tensor) -> Tensor:
        """(B,) float64 attachments of the deformed sources, whose points (N, d) are laid out as the sources were."""

    @abstractmethod
    def reference(self) -> Tensor:
        """(B,) the attachment's natural unit, ‖T‖²: what would be left of it if the source were empty."""

    def waits(self) -> str | None:
        """Why an evaluation looks at values on the device and cannot be recorded as a CUDA graph; none where it does not."""
        return None


@dataclass(frozen=True)
class Mixture(Attachment):
    """Σ_m w_m A_m, where the widths of a multi-scale attachment cannot share a pass over the pairs."""

    weights: tuple[float, ...]
    parts: tuple[Attachment, ...]

    def __call__(self, points: Tensor) -> Tensor:
        return self._sum(part(points) for part in self.parts)

    def reference(self) -> Tensor:
        return self._sum(part.reference() for part in self.parts)

    def waits(self) -> str | None:
        return next((reason for part in self.parts if (reason := part.waits())), None)

    def _sum(self, values: Iterable[Tensor]) -> Tensor:
        return torch.stack([w * value for w, value in zip(self.weights, values, strict=True)]).sum(0)
