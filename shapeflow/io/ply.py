"""PLY, ASCII and binary of either byte order: vertices with all their numbers, faces (polygons are triangulated), edges.

A reader of our own, because the libraries at hand lose something here: edges, `vertex_index` beside `vertex_indices`, unsigned bytes, or the
vertex order at texture seams. Whatever the header promises is compared with the bytes there are before anything is allocated.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.io.files import read_bytes
from shapeflow.io.raw import Raw, floats, make_raw, planar, triangulate

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "long": "i8", "int64": "i8", "uint64": "u8",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


class _Property(NamedTuple):
    name: str
    kind: str
    count: str | None  # type of a list's length; None: one number


class _Element(NamedTuple):
    name: str
    size: int
    properties: list[_Property]


Column = np.ndarray | list[np.ndarray]  # one number a row, or a list a row


def read_ply(path: Path) -> Raw:
    data = read_bytes(path)
    order, elements, start = _header(data)
    body = memoryview(data)[start:]
    columns: dict[str, dict[str, Column]] = {}
    if order is None:
        numbers, at = floats(bytes(body), "holds something between its numbers that is no number; export it again"), 0
        for element in elements:
            columns[element.name], at = _read_ascii(numbers, at, element)
    else:
        at = 0
        for element in elements:
            columns[element.name], at = _read_binary(body, at, element, order)
    return _assemble(columns)


def _header(data: bytes) -> tuple[str | None, list[_Element], int]:
    """(byte order or None for ASCII, elements, where the body starts)."""
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0 or end > 1 << 20:
        raise MeshError("is no PLY file: it must start with 'ply' and its header end with 'end_header'")
    after = end + len(b"end_header")
    newline = data.find(b"\n", after)
    start = newline + 1 if 0 <= newline <= after + 2 else (after + 1 if data[after : after + 1] == b"\r" else len(data))
    order: str | None = "?"
    elements: list[_Element] = []
    for line in data[:end].decode("ascii", errors="replace").splitlines()[1:]:
        words = line.split()
        try:
            match words:
                case ["format", kind, *_]:
                    order = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}[kind]
                case ["element", name, size]:
                    elements.append(_Element(name, int(size), []))
                case ["property", "list", count, kind, name]:
                    elements[-1].properties.append(_Property(name, TYPES[kind], TYPES[count]))
                case ["property", kind, name]:
                    elements[-1].properties.append(_Property(name, TYPES[kind], None))
        except (KeyError, ValueError, IndexError) as error:
            raise MeshError(f"has the header line {line[:60]!r}, which no PLY file has; export it again") from error
    if order == "?":
        raise MeshError("has no 'format' line in its header; export it again")
    for element in elements:
        least = (
            sum(np.dtype(p.count or p.kind).itemsize for p in element.properties)
            if order
            else 2 * len(element.properties)
        )
        if element.size < 0 or element.size * max(1, least) > len(data) - start + 2:
            raise MeshError(
                f"promises {element.size} of {element.name!r} in {len(data) - start} bytes: the header is wrong or the file is cut off"
            )
    return order, elements, start


def _read_ascii(numbers: np.ndarray, at: int, element: _Element) -> tuple[dict[str, Column], int]:
    properties, n = element.properties, element.size
    lists = [i for i, p in enumerate(properties) if p.count is not None]
    if not lists:
        block = _take(numbers, at, n * len(properties), element).reshape(n, len(properties))
        return {p.name: block[:, i] for i, p in enumerate(properties)}, at + block.size
    if len(lists) == 1 and n:
        i = lists[0]
        length = _length(_take(numbers, at + i, 1, element)[0], element)
        width = len(properties) + length
        if at + n * width <= len(numbers):
            block = numbers[at : at + n * width].reshape(n, width)
            if (block[:, i] == length).all():  # the usual case: triangles throughout
                out: dict[str, Column] = {
                    p.name: block[:, j if j < i else j + length] for j, p in enumerate(properties)
                }
                out[properties[i].name] = block[:, i + 1 : i + 1 + length]
                return out, at + block.size
    rows: dict[str, list] = {p.name: [] for p in properties}
    for _ in range(n):
        for p in properties:
            if p.count is None:
                rows[p.name].append(_take(numbers, at, 1, element)[0])
                at += 1
            else:
                length = _length(_take(numbers, at, 1, element)[0], element)
                rows[p.name].append(_take(numbers, at + 1, length, element))
                at += 1 + length
    return {p.name: rows[p.name] if p.count else np.array(rows[p.name]) for p in properties}, at


def _length(value: float, element: _Element) -> int:
    if not 0 <= value < 1 << 20 or value != int(value):
        raise MeshError(
            f"has a list of {value:g} entries among its {element.name!r}: the file is damaged or a number is missing before"
        )
    return int(value)


def _take(numbers: np.ndarray, at: int, count: int, element: _Element) -> np.ndarray:
    if at + count > len(numbers):
        raise MeshError(f"ends within its {element.name!r}, of which it promises {element.size}; copy it again")
    return numbers[at : at + count]


def _read_binary(body: memoryview, at: int, element: _Element, order: str) -> tuple[dict[str, Column], int]:
    properties, n = element.properties, element.size
    if not n or not properties:
        return {p.name: np.empty(0) for p in properties}, at
    fixed = _fixed_type(body, at, properties, order)
    if fixed is not None and at + n * fixed.itemsize <= len(body):
        table = np.frombuffer(body, fixed, n, at)
        lists = [(p, f"#{i}") for i, p in enumerate(properties) if p.count is not None]
        if all((table[count] == table[count][0]).all() for _, count in lists):
            return {p.name: table[f"_{i}"] for i, p in enumerate(properties)}, at + n * fixed.itemsize
    rows: dict[str, list] = {p.name: [] for p in properties}
    for _ in range(n):
        for p in properties:
            length = 1
            if p.count is not None:
                length = int(_frombuffer(body, order + p.count, 1, at, element)[0])
                at += np.dtype(p.count).itemsize
            values = _frombuffer(body, order + p.kind, length, at, element)
            at += values.nbytes
            rows[p.name].append(values if p.count else values[0])
    return {p.name: rows[p.name] if p.count else np.array(rows[p.name]) for p in properties}, at


def _fixed_type(body: memoryview, at: int, properties: list[_Property], order: str) -> np.dtype | None:
    """A row's layout, if every list were as long as in the first row."""
    fields: list[tuple] = []
    for i, p in enumerate(properties):
        if p.count is None:
            fields.append((f"_{i}", order + p.kind))
            continue
        offset = at + np.dtype(fields).itemsize if fields else at
        size = np.dtype(p.count).itemsize
        if offset + size > len(body):
            return None
        length = int(np.frombuffer(body, order + p.count, 1, offset)[0])
        if not 0 < length < 1 << 16:
            return None
        fields += [(f"#{i}", order + p.count), (f"_{i}", order + p.kind, (length,))]
    return np.dtype(fields)


def _frombuffer(body: memoryview, kind: str, count: int, at: int, element: _Element) -> np.ndarray:
    if count < 0 or at + count * np.dtype(kind).itemsize > len(body):
        raise MeshError(f"ends within its {element.name!r}, of which it promises {element.size}; copy it again")
    return np.frombuffer(body, kind, count, at)


def _assemble(columns: dict[str, dict[str, Column]]) -> Raw:
    vertex = columns.get("vertex", {})
    if not {"x", "y", "z"} <= set(vertex) or not len(vertex["x"]):
        raise MeshError("holds no points: it has no 'vertex' elements with x, y and z")
    points = np.stack([np.asarray(vertex[a], np.float64) for a in "xyz"], 1)
    arrays = {
        k: np.ascontiguousarray(v).astype(v.dtype.newbyteorder("="))
        for k, v in vertex.items()
        if k not in "xyz" and not isinstance(v, list)
    }
    face, edge = columns.get("face", {}), columns.get("edge", {})
    corners = face.get("vertex_indices", face.get("vertex_index"))
    notes: tuple[str, ...] = ()
    if corners is not None and len(corners):
        groups = _by_size(corners)
        short = sum(len(g) for g in groups if g.shape[1] < 3)
        if short:
            notes = (f"{short} faces of fewer than three corners were left out",)
        return make_raw(points, triangulate([g for g in groups if g.shape[1] >= 3], points), arrays, notes)
    if "tristrips" in columns and len(next(iter(columns["tristrips"].values()), ())):
        raise MeshError("holds triangle strips; expected faces: open it in MeshLab and save it again")
    if {"vertex1", "vertex2"} <= set(edge) and len(edge["vertex1"]):
        edges = np.stack([np.asarray(edge["vertex1"]), np.asarray(edge["vertex2"])], 1).astype(np.int64)
        return planar(make_raw(points, edges, arrays))
    return planar(make_raw(points, None, arrays))


def _by_size(corners: Column) -> list[np.ndarray]:
    if isinstance(corners, np.ndarray):
        return [corners.astype(np.int64).reshape(len(corners), -1)]
    sizes = np.array([len(c) for c in corners])
    return [np.array([c for c in corners if len(c) == s], np.int64).reshape(-1, s) for s in np.unique(sizes)]
