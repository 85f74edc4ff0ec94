"""One table from suffix to reader. Every reader takes a path and returns a `Raw`, or raises `MeshError` with what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from shapeflow.errors import MeshError
from shapeflow.io.files import suffix_of
from shapeflow.io.raw import Raw
from shapeflow.io.vtkfiles import read_vtk_legacy, read_vtk_xml
from shapeflow.shape import Shape

READERS: Mapping[str, Callable[[Path], Raw]] = {
    ".vtk": read_vtk_legacy,
    ".vtp": read_vtk_xml,
    ".vtu": read_vtk_xml,
}


def read_raw(path: str | Path) -> Raw:
    """What the file holds, judged only as far as its indices: points may be NaN, triangles degenerate."""
    path = Path(path)
    suffix = suffix_of(path)
    reader = READERS.get(suffix)
    if reader is None:
        raise MeshError(
            f"{path}: the suffix {suffix!r} is no format that shapeflow reads; expected one of {', '.join(sorted(READERS))}"
        )
    try:
        return reader(path)
    except MeshError as error:
        raise MeshError(f"{path} {error}") from error
    except MemoryError as error:
        raise MeshError(
            f"{path} asks for more memory than there is: its header is damaged, or it is too large; decimate it first"
        ) from error
    except Exception as error:  # a library's reader met something its authors did not foresee: a bad file, not a reason to stop a study
        raise MeshError(
            f"{path} cannot be read as {suffix}: {type(error).__name__}: {error}; export it again"
        ) from error


def read_shape(path: str | Path) -> Shape:
    """The shape in the file, in the file's vertex order. Refused when a vertex is not finite."""
    raw = read_raw(path)
    try:
        return raw.shape()
    except MeshError as error:
        raise MeshError(f"{path}: {error}") from error
