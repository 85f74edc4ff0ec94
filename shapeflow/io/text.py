"""Text tables of coordinates: curves (ordered points, a blank line between curves) and point sets."""

from __future__ import annotations

import re


def count_curves(data: bytes) -> int:
    """Blocks of lines separated by blank ones."""
    return len(blocks(data))


def blocks(data: bytes) -> list[list[str]]:
    """Non-blank lines, comments taken off, grouped by the blank lines between them."""
    found: list[list[str]] = [[]]
    for line in data.decode("utf-8-sig", errors="replace").splitlines():
        text = line.split("#", 1)[0].strip()
        if text:
            found[-1].append(text)
        elif not line.strip() and found[-1]:
            found.append([])
    return [b for b in found if b]


_SPLIT = re.compile(r"[,;\s]+")
