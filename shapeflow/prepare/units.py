"""Which unit a cohort may be in. Mesh files seldom say, so this is a guess from the size alone, and every sentence that uses it says so.

With L the median diagonal of the bounding boxes, in the file's own unit: things that are scanned are millimetres to metres across, and most scanners
write millimetres. Whole coordinates are pixels or voxels; a diagonal near one is a cohort that somebody scaled to unit size.
"""

from __future__ import annotations

import math

METRES = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "nm": 1e-9, "inch": 0.0254, "in": 0.0254}
RATIOS = (10.0, 100.0, 1e3, 1e4, 1e6, 2.54, 25.4)  # between the units that meshes come in, either way
_NAMES = ("m", "dm", "cm", "mm", "um", "nm", "inch")
_GUESSES = ((0.005, 0.5, "m"), (0.5, 3.5, ""), (3.5, 3e3, "mm"), (3e3, 3e6, "um"))


def guess(size: float, whole: bool = False) -> str | None:
    """ "mm", "m", "um" or "pixel"; "" for shapes of about unit size; None when no unit makes the size plausible."""
    if whole and size >= 8:
        return "pixel"
    return next((unit for low, high, unit in _GUESSES if low <= size < high), None)


def ratio(factor: float, tolerance: float) -> float | None:
    """The ratio of two common units that `factor` is, within a relative tolerance of its logarithm; above or below one."""
    near = [r for u in RATIOS for r in (u, 1 / u) if abs(math.log(factor / r)) < tolerance]
    return min(near, key=lambda r: abs(math.log(factor / r)), default=None)


def beside(unit: str | None, times: float) -> str:
    """The unit of a subject whose numbers are `times` those of a cohort in `unit`: mm and 0.1 make cm. In words when it has no name."""
    if unit in METRES:
        for name in _NAMES:
            if abs(METRES[unit] / times / METRES[name] - 1) < 1e-6:
                return name
    return f"{1 / times:.4g} {unit or 'of the unit'}"


def plausible(size: float, unit: str) -> bool:
    """Between 10 nm and 10 m across; a unit that is not a length (pixel) is not judged."""
    return unit not in METRES or 1e-8 <= size * METRES[unit] <= 10.0
