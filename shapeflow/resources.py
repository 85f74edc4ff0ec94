"""Where files shipped beside the code are found: in a checkout at its top level, in an installed wheel inside the package."""

from __future__ import annotations

from pathlib import Path

from shapeflow.errors import ShapeflowError


def resource(name: str) -> Path:
    """Folder `name` ("kernels", "config" or "workflow") of the checkout or of the wheel.

    The wheel carries them as `shapeflow/_data/<name>`; a checkout has them beside the package.
    """
    here = Path(__file__).resolve().parent
    candidates = (here / "_data" / name, here.parent / name)
    for path in candidates:
        if path.is_dir():
            return path
    raise ShapeflowError(
        f"shapeflow's folder {name!r} is missing: looked in {', '.join(map(str, candidates))}. Reinstall the package."
    )
