"""One table from suffix to reader. Every reader takes a path and returns a `Raw`, or raises `MeshError` with what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from shapeflow.errors import MeshError
from shapeflow.io.files import suffix_of
from shapeflow.io.obj import read_obj
from shapeflow.io.others import read_freesurfer, read_gifti, read_meshio, read_off, read_stl, read_svg
from shapeflow.io.ply import read_ply
from shapeflow.io.raw import Raw
from shapeflow.io.text import read_table
from shapeflow.io.vtkfiles import read_vtk_legacy, read_vtk_xml
from shapeflow.shape import Shape

READERS: Mapping[str, Callable[[Path], Raw]] = {
    ".vtk": read_vtk_legacy,
    ".vtp": read_vtk_xml,
    ".vtu": read_vtk_xml,
    ".ply": read_ply,
    ".obj": read_obj,
    ".stl": read_stl,
    ".off": read_off,
    ".gii": read_gifti,
    **dict.fromkeys((".pial", ".white", ".inflated", ".orig", ".sphere", ".smoothwm"), read_freesurfer),
    **dict.fromkeys((".msh", ".mesh", ".inp"), read_meshio),
    ".svg": read_svg,
    **dict.fromkeys((".csv", ".txt", ".xyz", ".npy"), read_table),
}


def read_raw(path: str | Path, *, kind: str = "auto", closed: bool | None = None, part: int | None = None) -> Raw:
    """What the file holds, judged only as far as its indices: points may be NaN, triangles degenerate.

    For tables of coordinates `kind` says "curves" or "points" and `closed` whether curves close (None: by the gap); `part` is the number of one
    curve in a file of several. Other formats know what they hold.
    """
    path = Path(path)
    suffix = suffix_of(path)
    reader = READERS.get(suffix)
    if reader is None:
        raise MeshError(
            f"{path}: the suffix {suffix!r} is no format that shapeflow reads; expected one of {', '.join(sorted(READERS))}"
        )
    try:
        return read_table(path, kind, closed, part) if reader is read_table else reader(path)
    except MeshError as error:
        raise MeshError(f"{path} {error}") from error
    except MemoryError as error:
        raise MeshError(
            f"{path} asks for more memory than there is: its header is damaged, or it is too large; decimate it first"
        ) from error
    except ImportError as error:
        raise MeshError(
            f"{path}: reading {suffix} needs a package that cannot be imported ({error}): install it"
        ) from error
    except Exception as error:  # a library's reader met something its authors did not foresee: a bad file, not a reason to stop a study
        raise MeshError(
            f"{path} cannot be read as {suffix}: {type(error).__name__}: {error}; export it again"
        ) from error


def read_shape(path: str | Path, *, kind: str = "auto", closed: bool | None = None) -> Shape:
    """The shape in the file, in the file's vertex order. Refused when a vertex is not finite."""
    raw = read_raw(path, kind=kind, closed=closed)
    try:
        return raw.shape()
    except MeshError as error:
        raise MeshError(f"{path}: {error}") from error
