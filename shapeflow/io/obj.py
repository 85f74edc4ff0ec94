"""OBJ in the file's vertex order.

The libraries at hand split vertices at texture seams or write one vertex a corner, and index correspondence is lost. Here vertex i is the i-th
`v` line, whatever texture and normal indices say. Faces of any size are triangulated; negative indices count back from the line they stand on.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.io.files import read_bytes
from shapeflow.io.raw import Raw, floats, make_raw, planar, triangulate


def read_obj(path: Path) -> Raw:
    data = re.sub(rb"\\\r?\n", b" ", read_bytes(path))  # a backslash continues the line
    if b"\0" in data[:4096]:
        raise MeshError("is no OBJ file: it holds binary data")
    lines = [line.split(b"#", 1)[0] for line in data.splitlines()]
    words = [line[:2].strip() if line[:1] in b"vflp" else line.lstrip()[:2].strip() for line in lines]
    kinds = np.array([_KINDS.get(w, 0) for w in words], np.int8)
    vertices = [lines[i].split(None, 1) for i in np.flatnonzero(kinds == 1)]
    if not vertices:
        raise MeshError("holds no points: it has no 'v' lines")
    points, colours = _points([v[1] if len(v) > 1 else b"" for v in vertices])
    arrays = {} if colours is None else {"rgb": colours}
    before = np.cumsum(kinds == 1)  # vertices above each line: what negative indices count back from
    notes: list[str] = []
    for kind, least in ((2, 3), (3, 2)):
        at = np.flatnonzero(kinds == kind)
        if not len(at):
            continue
        groups = _indices([lines[i] for i in at], before[at], len(points))
        short = sum(len(g) for g in groups if g.shape[1] < least)
        groups = [g for g in groups if g.shape[1] >= least]
        if short and kind == 2:
            notes.append(f"{short} faces of fewer than three corners were left out")
        if kind == 2 and groups:
            return make_raw(points, triangulate(groups, points), arrays, tuple(notes))
        if groups:
            edges = np.concatenate([np.stack([g[:, i], g[:, i + 1]], 1) for g in groups for i in range(g.shape[1] - 1)])
            return planar(make_raw(points, edges, arrays, tuple(notes)))
    if notes:
        raise MeshError(f"holds no usable face: {notes[0]}")
    return planar(make_raw(points, None, arrays))


_KINDS = {b"v": 1, b"f": 2, b"l": 3}


def _points(lines: list[bytes]) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates (n, 3), and colours (n, 3) where every vertex has six numbers."""
    numbers = _floats(b" ".join(lines))
    if len(lines) and len(numbers) % len(lines) == 0 and (n := len(numbers) // len(lines)) in (3, 4, 6, 7):
        # equal rows throughout? A short and a long line could cancel out, so the counts are checked one by one
        if all(len(line.split()) == n for line in lines):
            table = numbers.reshape(len(lines), n)
            return np.ascontiguousarray(table[:, :3]), np.ascontiguousarray(table[:, n - 3 :]) if n >= 6 else None
    rows = [line.split() for line in lines]
    if any(len(r) < 3 for r in rows):
        i = next(i for i, r in enumerate(rows) if len(r) < 3)
        raise MeshError(f"has {len(rows[i])} coordinates on its 'v' line {i + 1}; expected 3")
    return _floats(b" ".join(b" ".join(r[:3]) for r in rows)).reshape(-1, 3), None


def _floats(text: bytes) -> np.ndarray:
    return floats(text, "has something on its 'v' lines that is no number; export it again")


def _indices(lines: list[bytes], above: np.ndarray, n_points: int) -> list[np.ndarray]:
    """Zero-based indices of every line, grouped by their number: a list of (m_s, s), in the order of the file within a size."""
    bodies = [line.split(None, 1)[1] if len(line.split(None, 1)) > 1 else b"" for line in lines]
    plain = [re.sub(rb"/\S*", b"", body) for body in bodies] if any(b"/" in b for b in bodies) else bodies
    rows = [body.split() for body in plain]
    sizes = np.array([len(r) for r in rows])
    try:
        flat = np.array([int(x) for r in rows for x in r], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise MeshError(f"has a face or line whose indices are no integers ({error}); export it again") from error
    if (flat == 0).any():
        raise MeshError("has a face with index 0, but OBJ counts from 1; add one to every index")
    base = np.repeat(above, sizes)
    flat = np.where(flat > 0, flat - 1, base + flat)
    if len(flat) and (flat.min() < 0 or flat.max() >= n_points):
        wrong = int(flat.max()) + 1 if flat.max() >= n_points else int(flat.min())
        raise MeshError(f"has a face that refers to vertex {wrong}, but {n_points} vertices")
    start = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    return [flat[start[sizes == s][:, None] + np.arange(s)] for s in np.unique(sizes) if s > 0]
