"""Tables of coordinates: CSV, TXT, XYZ and NPY, of ordered points (curves, a blank line between two) or of point sets."""

from __future__ import annotations

import io
import math
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.io.files import read_bytes, suffix_of
from shapeflow.io.raw import Raw, make_raw

_SPLIT = re.compile(r"[,;\s]+")


def read_table(path: Path, kind: str = "auto", closed: bool | None = None, part: int | None = None) -> Raw:
    """Rows of 2 or 3 coordinates. `kind` "auto": curves in .csv and .txt, points in .xyz and .npy. `part`: only this curve of the file."""
    suffix = suffix_of(path)
    if kind == "surfaces":
        raise MeshError("is a table of coordinates and holds no triangles; write dataset.kind=curves or points")
    if kind == "auto":
        kind = "points" if suffix in (".xyz", ".npy") else "curves"
    if suffix == ".npy":
        tables, arrays = [_array(read_bytes(path))], [{}]
    else:
        stat = path.stat() if path.is_file() else None
        found = _file_blocks(path, stat and (stat.st_mtime_ns, stat.st_size))
        if part is not None:
            if part >= len(found):
                raise MeshError(
                    f"has {len(found)} curves; curve {part + 1} was asked for: the file changed, scan the folder again"
                )
            found = [found[part]]
        header, found = _split_header(found)
        tables, arrays = map(list, zip(*(_numbers(b, header) for b in found), strict=True)) if found else ([], [])
    if not tables or not sum(map(len, tables)):
        raise MeshError("holds no points")
    widths = {t.shape[1] for t in tables}
    if len(widths) > 1:
        raise MeshError(
            f"has curves of {' and '.join(map(str, sorted(widths)))} coordinates; expected the same number throughout"
        )
    data = {name: np.concatenate([a[name] for a in arrays]) for name in arrays[0]}
    if kind == "points":
        return make_raw(np.concatenate(tables), None, data)
    return _curves(tables, data, closed)


def _curves(tables: list[np.ndarray], data: dict[str, np.ndarray], closed: bool | None) -> Raw:
    edges, start, loops, guessed = [], 0, 0, 0
    for t in tables:
        loop, guess = (closed, False) if closed is not None else looks_closed(t)
        index = np.arange(len(t)) + start
        start += len(t)
        if loop and len(t) > 2 and np.array_equal(t[0], t[-1]):
            index = index[:-1]  # the last point repeats the first; it stays as an unreferenced vertex, to be dropped
        if len(index) > 1:
            edges.append(np.stack([index, np.roll(index, -1)], 1)[: None if loop and len(index) > 2 else -1])
        loops += loop
        guessed += guess
    notes = (
        f"{guessed} curves were closed because the gap is no longer than their longest step; else write dataset.closed=false",
    )
    return make_raw(np.concatenate(tables), np.concatenate(edges) if edges else None, data, notes if guessed else ())


def looks_closed(points: np.ndarray) -> tuple[bool, bool]:
    """(closed, guessed): the ends coincide, or are no farther apart than the longest step along the curve."""
    if len(points) < 4:
        return False, False
    if np.array_equal(points[0], points[-1]):
        return True, False
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    closes = bool(np.linalg.norm(points[0] - points[-1]) <= steps.max())
    return closes, closes


def count_curves(data: bytes) -> int:
    """Curves of a table: blocks of lines separated by blank ones."""
    return len(blocks(data))


@lru_cache(maxsize=1)
def _file_blocks(path: Path, _version: object) -> list[list[str]]:
    """Blocks of a file; kept, because a file of many subjects is asked for once a subject."""
    return blocks(read_bytes(path))


def blocks(data: bytes) -> list[list[str]]:
    """Non-blank lines, comments taken off, grouped by the blank lines between them."""
    if b"\0" in data[:4096]:
        raise MeshError("is no text: it holds binary data")
    found: list[list[str]] = [[]]
    for line in data.decode("utf-8-sig", errors="replace").splitlines():
        text = line.split("#", 1)[0].strip()
        if text:
            found[-1].append(text)
        elif not line.strip() and found[-1]:
            found.append([])
    return [b for b in found if b]


def _split_header(found: list[list[str]]) -> tuple[list[str] | None, list[list[str]]]:
    """Names of the columns, if the first line has them."""
    if not found or all(_is_number(w) for w in _SPLIT.split(found[0][0].strip(",; "))):
        return None, found
    names = [w.strip("\"'").lower() for w in _SPLIT.split(found[0][0].strip(",; "))]
    rest = [found[0][1:], *found[1:]]
    if names[:2] != ["x", "y"] and len(found[0]) == 1 and len(found) == 1:
        raise MeshError(f"starts with {found[0][0][:50]!r}; expected rows of 2 or 3 coordinates")
    if not {"x", "y"} <= set(names):
        raise MeshError(f"has the columns {', '.join(names[:6])}; expected x, y and perhaps z among them, or no header")
    return names, [b for b in rest if b]


def _numbers(block: list[str], names: list[str] | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rows = [_SPLIT.split(line.strip(",; ")) for line in block]
    width = len(rows[0])
    for line, row in zip(block, rows, strict=True):
        if len(row) != width:
            raise MeshError(f"has the row {line[:50]!r} of {len(row)} numbers among rows of {width}")
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise MeshError(f"has a row that is no list of numbers ({error})") from error
    if width < 2:
        raise MeshError("has rows of one number; expected 2 or 3 coordinates")
    names = names or (["x", "y"] if width == 2 else ["x", "y", "z", *(f"column{i}" for i in range(4, width + 1))])
    if len(names) != width:
        raise MeshError(f"names {len(names)} columns but has rows of {width} numbers")
    axes = [names.index(a) for a in "xyz" if a in names]
    return table[:, axes], {n: table[:, i] for i, n in enumerate(names) if i not in axes}


def _array(data: bytes) -> np.ndarray:
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if math.prod(shape) * dtype.itemsize > len(data) - file.tell():  # NumPy would reserve it all before it looks
            raise MeshError(
                f"promises an array of shape {shape} in {len(data)} bytes: the header is wrong or the file is cut off"
            )
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise MeshError(f"is no NumPy array of numbers ({error})") from error
    if array.ndim != 2 or array.shape[1] not in (2, 3) or array.dtype.kind not in "fiu":
        raise MeshError(
            f"holds an array of shape {array.shape} and type {array.dtype}; expected (n, 2) or (n, 3) numbers"
        )
    return array.astype(np.float64)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
