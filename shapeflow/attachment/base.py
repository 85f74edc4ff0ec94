"""The interface of an attachment."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Attachment(ABC):
    """A(q, target) for B problems, differentiable in q; zero where the deformed shape meets its target."""

    @abstractmethod
    def __call__(self, points: Tensor) -> Tensor:
        """(B,) float64 attachments of the deformed sources, whose points (N, d) are laid out as the sources were."""

    @abstractmethod
    def reference(self) -> Tensor:
        """(B,) the attachment's natural unit, ‖T‖²: what would be left of it if the source were empty."""
