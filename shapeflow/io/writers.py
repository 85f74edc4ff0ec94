"""Writing shapes by suffix: under a temporary name, renamed when complete, the same bytes for the same shape."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.io.files import replacing, suffix_of
from shapeflow.io.ply import TYPES
from shapeflow.io.vtkfiles import write_vtk
from shapeflow.shape import Shape

log = logging.getLogger("shapeflow.io")


def write_shape(path: str | Path, shape: Shape, *, binary: bool = True) -> None:
    """Write .vtk (legacy), .vtp, .ply or .obj with the per-vertex arrays; an OBJ has a place for `rgb` and `normals` only."""
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in (".vtk", ".vtp", ".ply", ".obj") or path.suffix.lower() == ".gz":
        raise MeshError(f"cannot write {path}: expected a name ending in .vtk, .vtp, .ply or .obj")
    with replacing(path) as temporary:
        if suffix in (".vtk", ".vtp"):
            write_vtk(temporary, shape, xml=suffix == ".vtp", binary=binary)
        elif suffix == ".ply":
            _write_ply(temporary, shape, binary)
        else:
            _write_obj(temporary, path.name, shape)


# NumPy's types by the names that every PLY reader knows; 64-bit integers have none
_PLY = {
    "f8": "double", "f4": "float", "i8": "int", "i4": "int", "i2": "short", "i1": "char", "u1": "uchar", "u2": "ushort", "u4": "uint", "b1": "uchar",
}  # fmt: skip


def _ply_type(values: np.ndarray) -> str:
    kind = _PLY.get(values.dtype.str[1:], "double")
    fits = kind != "int" or not values.size or -(2**31) <= values.min() <= values.max() < 2**31
    return kind if fits else "double"  # exact up to 2^53


def _write_ply(path: Path, shape: Shape, binary: bool) -> None:
    n, k = shape.n_points, shape.simplices.shape[1]
    xyz = np.zeros((n, 3))
    xyz[:, : shape.dimension] = shape.points
    columns: list[tuple[str, np.ndarray]] = [(a, xyz[:, i]) for i, a in enumerate("xyz")]
    for name, values in shape.point_data.items():
        flat = values.reshape(n, -1)
        label = "_".join(name.split())
        columns += [(label if flat.shape[1] == 1 else f"{label}_{i}", flat[:, i]) for i in range(flat.shape[1])]
    header = [
        "ply",
        f"format {'binary_little_endian' if binary else 'ascii'} 1.0",
        "comment shapeflow",
        f"element vertex {n}",
    ]
    kinds = []
    for name, values in columns:
        kind = _ply_type(values)
        header.append(f"property {kind} {name}")
        kinds.append((name, f"<{TYPES[kind]}"))
    table = np.empty(n, dtype=kinds)
    for name, values in columns:
        table[name] = values
    if k == 3:
        header += [f"element face {len(shape.simplices)}", "property list uchar int vertex_indices"]
        cells = np.empty(len(shape.simplices), dtype=[("n", "u1"), ("v", "<i4", 3)])
        cells["n"], cells["v"] = 3, shape.simplices
    else:
        cells = np.empty(len(shape.simplices) if k == 2 else 0, dtype=[("v", "<i4", 2)])
        if k == 2:
            header += [f"element edge {len(shape.simplices)}", "property int vertex1", "property int vertex2"]
            cells["v"] = shape.simplices
    start = ("\n".join([*header, "end_header"]) + "\n").encode("ascii", errors="replace")
    if binary:
        path.write_bytes(start + table.tobytes() + cells.tobytes())
        return
    lines = [" ".join(repr(v.item()) for v in row) for row in table]
    lines += [" ".join(["3"] * (k == 3) + [str(i) for i in row]) for row in (shape.simplices.tolist() if k > 1 else [])]
    path.write_bytes(start + ("\n".join(lines) + "\n").encode())


def _write_obj(path: Path, name: str, shape: Shape) -> None:
    """Vertices and simplices; of arrays what OBJ has a place for: `rgb (n, 3)` after the coordinates, `normals (n, 3)` as vn lines."""
    xyz = np.zeros((shape.n_points, 3))
    xyz[:, : shape.dimension] = shape.points
    rgb, normals = (_three(shape, key) for key in ("rgb", "normals"))
    lost = [
        n for n in shape.point_data if not (n == "rgb" and rgb is not None or n == "normals" and normals is not None)
    ]
    if lost:
        log.warning(
            "%s is written without %s: OBJ has no place for them; write .ply, .vtk or .vtp", name, ", ".join(lost)
        )
    rows = xyz if rgb is None else np.hstack([xyz, rgb])
    letter = {1: "p", 2: "l", 3: "f"}[shape.simplices.shape[1]]
    lines = ["# shapeflow", *("v " + " ".join(map(repr, row)) for row in rows.tolist())]
    if normals is not None:
        lines += ["vn " + " ".join(map(repr, row)) for row in normals.tolist()]
    corner = "{0}//{0}" if normals is not None and letter == "f" else "{0}"
    lines += [" ".join([letter, *(corner.format(i) for i in row)]) for row in (shape.simplices + 1).tolist()]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _three(shape: Shape, name: str) -> np.ndarray | None:
    """(n, 3) array of that name, if there is one; colours of bytes between 0 and 1, as OBJ has them."""
    values = shape.point_data.get(name)
    if values is None or values.shape != (shape.n_points, 3):
        return None
    return values / 255 if name == "rgb" and values.dtype == np.uint8 else values.astype(np.float64)
