"""VTK's own formats, through VTK: legacy (ASCII, binary; polydata, unstructured) and XML (.vtp, .vtu).

Lines, polygons, strips and unstructured cells become edges and triangles on the file's own points: no vertex is merged, split or moved.
Only the parts of VTK that read and write are imported, and only when a file needs them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.io.files import read_bytes
from shapeflow.io.raw import Raw, make_raw, planar, triangulate
from shapeflow.shape import Shape

_DEFLATED = 1032  # times smaller that zlib can make a run of equal bytes, at most
_VTK_BYTES = {
    "float": 4,
    "double": 8,
    "int": 4,
    "unsigned_int": 4,
    "long": 8,
    "vtktypeint64": 8,
    "vtkidtype": 4,
    "short": 2,
    "char": 1,
}


def read_vtk_legacy(path: Path) -> Raw:
    from vtkmodules.vtkIOLegacy import vtkGenericDataObjectReader

    data = read_bytes(path)
    if not data.lstrip()[:5].lower() == b"# vtk":
        raise MeshError("is no legacy VTK file: its first line is not '# vtk DataFile Version ...'")
    _check_counts(data)
    reader = vtkGenericDataObjectReader()
    reader.ReadFromInputStringOn()
    # a bytes object may hold NUL bytes: its length must be given
    reader.SetBinaryInputString(data, len(data))  # pyright: ignore[reportArgumentType]
    for every in ("Scalars", "Vectors", "Normals", "TCoords", "Tensors", "Fields", "ColorScalars"):
        getattr(reader, f"ReadAll{every}On")()
    return _from_reader(reader)


def read_vtk_xml(path: Path) -> Raw:
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader, vtkXMLUnstructuredGridReader

    data = read_bytes(path)
    head = data[:4096]
    if b"<VTKFile" not in head:
        raise MeshError("is no VTK XML file: it has no <VTKFile ...> element")
    for name, count in re.findall(rb'NumberOf(\w+)\s*=\s*"\s*(\d+)\s*"', data):
        if int(count) > _DEFLATED * len(data):
            raise MeshError(
                f"promises {int(count)} {name.decode().lower()} in {len(data)} bytes: the header is wrong or the file is cut off; copy it again"
            )
    reader = vtkXMLUnstructuredGridReader() if b"UnstructuredGrid" in head else vtkXMLPolyDataReader()
    reader.ReadFromInputStringOn()
    reader.SetInputString(data)  # pyright: ignore[reportArgumentType]
    return _from_reader(reader)


def write_vtk(path: Path, shape: Shape, *, xml: bool, binary: bool = True) -> None:
    from vtkmodules.vtkIOLegacy import vtkPolyDataWriter
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

    writer: Any  # VTK's two have no common base that types know
    if xml:
        writer = vtkXMLPolyDataWriter()
        writer.SetDataModeToBinary() if binary else writer.SetDataModeToAscii()
    else:
        writer = vtkPolyDataWriter()
        writer.SetFileVersion(42)  # the layout that ParaView, Slicer, Deformetrica and VTK 6 read alike
        writer.SetHeader("shapeflow")
        writer.SetFileTypeToBinary() if binary else writer.SetFileTypeToASCII()
    # a disk that is full is then Python's error, with its number, and not a sentence of VTK's
    writer.SetWriteToOutputString(True)
    writer.SetInputData(polydata(shape))
    with _listening() as errors:
        done = writer.Write()
    if done != 1 or errors:
        raise MeshError(f"VTK could not write {path}: {'; '.join(errors) or 'no reason given'}")
    content = writer.GetOutputString() if xml else writer.GetOutputStdString()
    path.write_bytes(content.encode() if isinstance(content, str) else content)  # bytes where they are no UTF-8


def polydata(shape: Shape) -> Any:
    """A vtkPolyData of the shape; planar points get a third coordinate of zero."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    xyz = np.zeros((shape.n_points, 3))
    xyz[:, : shape.dimension] = shape.points
    points = vtkPoints()
    points.SetData(numpy_to_vtk(xyz, deep=True))
    cells = vtkCellArray()
    k = shape.simplices.shape[1]
    cells.SetData(k, numpy_to_vtkIdTypeArray(np.ascontiguousarray(shape.simplices).ravel(), deep=True))
    mesh = vtkPolyData()
    mesh.SetPoints(points)
    {1: mesh.SetVerts, 2: mesh.SetLines, 3: mesh.SetPolys}[k](cells)
    for name, values in shape.point_data.items():
        array = numpy_to_vtk(np.ascontiguousarray(_storable(values)).reshape(len(values), -1), deep=True)
        array.SetName(re.sub(r"\s+", "_", name))  # a legacy name ends at the first blank
        mesh.GetPointData().AddArray(array)
    return mesh


def _storable(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8) if values.dtype == bool else values


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What VTK complains about, from whatever reader inside a reader: it goes to a global window, which is replaced while we listen."""
    from vtkmodules.vtkCommonCore import vtkLogger, vtkOutputWindow, vtkStringOutputWindow

    before, window = vtkOutputWindow.GetInstance(), vtkStringOutputWindow()
    messages: list[str] = []
    vtkOutputWindow.SetInstance(window)
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    try:
        yield messages
    finally:
        vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_INFO)  # VTK's default; there is no getter
        vtkOutputWindow.SetInstance(before)
        messages += [
            _plain(part) for part in re.split(r"(?=ERROR: |Warning: )", window.GetOutput() or "") if part.strip()
        ]


def _plain(text: str) -> str:
    """VTK's "ERROR: In vtkFoo.cxx, line 12 / vtkFoo (0x55..): message" without the addresses."""
    return re.sub(r"\s+", " ", re.sub(r"^.*?\(0x[0-9a-f]+\):", "", text, count=1, flags=re.S)).strip()


def _from_reader(reader: Any) -> Raw:
    with _listening() as errors:
        reader.Update()
    data = reader.GetOutputDataObject(0)
    if errors:
        raise MeshError(f"cannot be read by VTK: {errors[0]}")
    if data is None or not data.IsA("vtkPointSet"):
        kind = "nothing" if data is None else data.GetClassName().removeprefix("vtk")
        raise MeshError(f"holds {kind}; expected polygonal data or an unstructured grid")
    if data.GetNumberOfPoints() == 0:
        raise MeshError("holds no points")
    notes: tuple[str, ...] = ()
    if data.IsA("vtkUnstructuredGrid"):
        simplices, notes = _grid_simplices(data, _coordinates(data))
    elif data.IsA("vtkPolyData"):
        simplices = _polydata_simplices(data, _coordinates(data))
    else:
        raise MeshError(
            f"holds {data.GetClassName().removeprefix('vtk')}; expected polygonal data or an unstructured grid"
        )
    return planar(make_raw(*_points_and_arrays(data, simplices), notes=notes))


def _points_and_arrays(data: Any, simplices: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    arrays = data.GetPointData()
    found = {}
    for i in range(arrays.GetNumberOfArrays()):
        array = arrays.GetArray(i)  # None for arrays of strings
        if array is not None:
            found[array.GetName() or f"array{i}"] = vtk_to_numpy(array).copy()
    return _coordinates(data), simplices, found


def _coordinates(data: Any) -> np.ndarray:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(data.GetPoints().GetData()).astype(np.float64)


def _polydata_simplices(data: Any, points: np.ndarray) -> np.ndarray:
    """(m, k) of the highest dimension the file has: triangles, else edges, else nothing (a point set)."""
    parts = []
    if data.GetNumberOfPolys():
        parts.append(triangulate(_by_size(*_cells(data.GetPolys())), points))
    if data.GetNumberOfStrips():
        parts.append(_strips(*_cells(data.GetStrips())))
    if parts:
        return np.concatenate(parts)
    if data.GetNumberOfLines():
        return _edges(*_cells(data.GetLines()))
    return np.empty((0, 1), np.int64)


# VTK's cell types and the corners of their simplices: triangle, strip, polygon, pixel, quad; line, polyline; vertex, vertices
_FLAT = {**dict.fromkeys((5, 6, 7, 8, 9), 3), **dict.fromkeys((3, 4), 2), **dict.fromkeys((1, 2), 1)}


def _grid_simplices(data: Any, points: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    types = vtk_to_numpy(_cell_types(data)) if data.GetNumberOfCells() else np.empty(0, np.uint8)
    unknown = sorted({int(t) for t in np.unique(types)} - set(_FLAT))
    if unknown:
        raise MeshError(
            f"holds volume or curved cells (VTK cell types {unknown}); expected lines, triangles or polygons: extract the surface first, "
            "for example with ParaView's 'Extract Surface'"
        )
    offsets, connectivity = _cells(data.GetCells())
    top = max((_FLAT[int(t)] for t in np.unique(types)), default=1)
    keep = np.isin(types, [t for t, k in _FLAT.items() if k == top])
    dropped = int((~keep).sum())
    notes = (f"{dropped} cells of lower dimension than the rest were left out",) if dropped else ()
    if top == 1:
        return np.empty((0, 1), np.int64), notes
    if top == 2:
        return _edges(*_select(offsets, connectivity, keep)), notes
    parts = [triangulate(_by_size(*_select(offsets, connectivity, np.isin(types, (5, 7, 9)))), points)]
    parts.append(_strips(*_select(offsets, connectivity, types == 6)))
    pixels = _by_size(*_select(offsets, connectivity, types == 8))
    parts.append(triangulate([p[:, [0, 1, 3, 2]] for p in pixels], points))  # their corners go row by row, not around
    return np.concatenate(parts), notes


def _cell_types(grid: Any) -> Any:
    from vtkmodules.vtkCommonCore import vtkVersion

    recent = (vtkVersion.GetVTKMajorVersion(), vtkVersion.GetVTKMinorVersion()) >= (9, 6)
    return grid.GetCellTypes() if recent else grid.GetCellTypesArray()  # renamed in VTK 9.6


def _cells(cells: Any) -> tuple[np.ndarray, np.ndarray]:
    """(offsets (m + 1,), connectivity) of a vtkCellArray."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    offsets = vtk_to_numpy(cells.GetOffsetsArray()).astype(np.int64)
    connectivity = vtk_to_numpy(cells.GetConnectivityArray()).astype(np.int64)
    if len(offsets) and (np.any(np.diff(offsets) < 0) or offsets[0] != 0 or offsets[-1] > len(connectivity)):
        raise MeshError("has cells whose offsets do not fit its connectivity: the file is damaged")
    return offsets, connectivity


def _select(offsets: np.ndarray, connectivity: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.diff(offsets)
    return np.concatenate([[0], np.cumsum(sizes[keep])]), connectivity[: offsets[-1]][np.repeat(keep, sizes)]


def _by_size(offsets: np.ndarray, connectivity: np.ndarray) -> list[np.ndarray]:
    """Cells grouped by their number of corners: a list of (m_s, s). Cells of one size, the usual case, keep the file's order."""
    sizes = np.diff(offsets)
    return [connectivity[offsets[:-1][sizes == s][:, None] + np.arange(s)] for s in np.unique(sizes) if s >= 3]


def _edges(offsets: np.ndarray, connectivity: np.ndarray) -> np.ndarray:
    """(m, 2) consecutive pairs of every polyline."""
    inside = np.ones(len(connectivity), bool)
    inside[offsets[1:-1]] = False  # a pair must not join the end of one line to the start of the next
    if len(connectivity):
        inside[0] = False
    ends = np.flatnonzero(inside)
    return np.stack([connectivity[ends - 1], connectivity[ends]], 1)


def _strips(offsets: np.ndarray, connectivity: np.ndarray) -> np.ndarray:
    """(m, 3) triangles of strips; every second one is turned, so that all face the same way."""
    out = []
    for a, b in zip(offsets[:-1], offsets[1:], strict=True):
        s = connectivity[a:b]
        t = np.stack([s[:-2], s[1:-1], s[2:]], 1)
        t[1::2] = t[1::2, [1, 0, 2]]
        out.append(t)
    return np.concatenate(out) if out else np.empty((0, 3), np.int64)


def _check_counts(data: bytes) -> None:
    """A header that promises more than the file can hold is refused before VTK allocates for it."""
    binary = data[:1024].split(b"\n", 3)[2:3] == [b"BINARY"] or b"BINARY" in data[:1024].upper().split()
    for match in re.finditer(
        rb"(?im)^\s*(POINTS|VERTICES|LINES|POLYGONS|TRIANGLE_STRIPS|CELLS|CELL_TYPES|POINT_DATA)[ \t]+(-?\d+)(?:[ \t]+([\w]+))?",
        data,
    ):
        word, count, rest = match[1].decode().upper(), int(match[2]), (match[3] or b"").decode().lower()
        if word == "POINTS":
            need = 3 * count * (_VTK_BYTES.get(rest, 1) if binary else 2)
        elif rest.isdigit():
            need = int(rest) * (4 if binary else 2)
        else:
            need = count
        # a binary file may by chance hold these words inside its numbers, followed by digits: never in practice at a line's start
        if count < 0 or (need > len(data) - match.end() + 2 and word != "POINT_DATA"):
            raise MeshError(
                f"promises {word} {count} {rest} in {len(data)} bytes: the header is wrong or the file is cut off; copy it again"
            )
        if word in ("VERTICES", "LINES", "POLYGONS", "TRIANGLE_STRIPS", "CELLS"):
            if not rest.isdigit():
                raise MeshError(
                    f"has the line {word} {count} {rest}; expected two numbers: the file is damaged; export it again"
                )
            _check_cells(data, match.end(), word, count, int(rest), binary)


def _check_cells(data: bytes, at: int, word: str, count: int, size: int, binary: bool) -> None:
    """Cells as VTK wrote them before 5.0, (corners, index, index, ...) one after another: VTK trusts each number of corners and would read
    beyond the array. It also trusts the version on the first line to say which layout follows."""
    start = data.find(b"\n", at) + 1
    new = data[start : start + 7].upper() == b"OFFSETS"
    stated = re.match(rb"\s*# vtk DataFile Version\s+(\d{1,2})\.\d{1,2}\b", data[:256], re.I)
    if count and new != (stated is not None and int(stated[1]) >= 5):
        says = (
            f"says version {stated[1].decode()}"
            if stated
            else "does not say its version as '# vtk DataFile Version 5.1'"
        )
        raise MeshError(
            f"{says}, but has {word} in the layout of version {5 if new else 4}: the header is damaged; export it again"
        )
    if new or start == 0:
        return
    if binary:
        numbers = np.frombuffer(data, ">i4", size, start) if start + 4 * size <= len(data) else np.empty(0, ">i4")
    else:
        numbers = _integers(data[start : start + 24 * size], size)
    first = int(numbers[0]) if len(numbers) else 0
    if count * (first + 1) == size == len(numbers) and (numbers[:: first + 1] == first).all():
        return  # cells of one size
    position = 0
    for _ in range(count):
        if position >= len(numbers) or numbers[position] < 0:
            break
        position += int(numbers[position]) + 1
    if position != size:
        raise MeshError(
            f"has {word} whose numbers of corners do not add up to the {size} integers it promises: the file is damaged; copy it again"
        )


def _integers(text: bytes, count: int) -> np.ndarray:
    """The first `count` integers of a text, as many as there are before something else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's word for "the text ended in something else"
        return np.fromstring(text, dtype=np.int64, sep=" ", count=count)
