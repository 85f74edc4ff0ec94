"""Pictures of shapes without a graphics driver."""

from __future__ import annotations

from shapeflow.figures.picture import PALETTE, frame, picture, view

__all__ = ["PALETTE", "frame", "picture", "view"]
