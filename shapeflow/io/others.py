"""Formats that a library reads well: STL by trimesh, GIFTI and FreeSurfer by nibabel, SVG by svgelements, finite elements by meshio. And OFF."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from shapeflow.errors import MeshError
from shapeflow.io.files import read_bytes, suffix_of
from shapeflow.io.raw import Raw, make_raw, planar, triangulate


def read_stl(path: Path) -> Raw:
    """STL repeats a vertex for every triangle: those at identical coordinates become one, in the order of their first appearance."""
    from trimesh.exchange.stl import load_stl

    data = read_bytes(path)
    if len(data) < 15:
        raise MeshError(f"is no STL file: it has {len(data)} bytes")
    found = load_stl(io.BytesIO(data))
    if not found or ("vertices" not in found and not found.get("geometry")):
        raise MeshError("holds no triangles")
    if "vertices" not in found:  # several solids in one file
        parts = list(found["geometry"].values())
        corners = np.concatenate([np.asarray(p["vertices"])[np.asarray(p["faces"])].reshape(-1, 3) for p in parts])
    else:
        corners = np.asarray(found["vertices"])[np.asarray(found["faces"], np.int64)].reshape(-1, 3)
    if not len(corners):
        raise MeshError("holds no triangles")
    points, triangles = merge_corners(np.asarray(corners, np.float64))
    return make_raw(points, triangles, notes=(f"{len(corners)} corners were merged to {len(points)} vertices",))


def merge_corners(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct points of (3 m, 3) corners, by first appearance, and the (m, 3) triangles on them. NaN corners stay apart."""
    _, firsts, inverse = np.unique(corners + 0.0, axis=0, return_index=True, return_inverse=True, equal_nan=False)
    rank = np.empty(len(firsts), np.int64)
    order = np.argsort(firsts, kind="stable")
    rank[order] = np.arange(len(firsts))
    return corners[firsts[order]], rank[inverse.ravel()].reshape(-1, 3)


def read_off(path: Path) -> Raw:
    """OFF with comments and any line ends. Faces of any size; colours are ignored."""
    lines = [line.split("#", 1)[0].split() for line in read_bytes(path).decode("ascii", errors="replace").splitlines()]
    lines = [line for line in lines if line]
    if not lines or not lines[0][0].upper().endswith("OFF"):
        raise MeshError("is no OFF file: its first line is not 'OFF'")
    head = lines[0][0].upper()
    if head not in ("OFF", "COFF", "NOFF", "CNOFF", "STOFF"):
        raise MeshError(f"is of the kind {head}; expected OFF with three coordinates a vertex")
    rest = ([lines[0][1:]] if len(lines[0]) > 1 else []) + lines[1:]  # the counts may stand on the first line
    try:
        n, m = int(rest[0][0]), int(rest[0][1])
        if n < 0 or m < 0 or n + m > len(rest) - 1:
            raise MeshError(
                f"promises {n} vertices and {m} faces on {len(rest) - 1} lines: the header is wrong or the file is cut off"
            )
        points = np.array([[float(x) for x in line[:3]] for line in rest[1 : n + 1]]).reshape(n, 3)
        faces = [line[1 : 1 + int(line[0])] for line in rest[n + 1 : n + 1 + m]]
        short = sum(len(f) != int(line[0]) for f, line in zip(faces, rest[n + 1 :], strict=False))
        if short:
            raise MeshError(f"has {short} faces with fewer indices than they announce; export it again")
        sizes = np.array([len(f) for f in faces])
        groups = [np.array([f for f in faces if len(f) == s]).astype(np.int64) for s in np.unique(sizes) if s >= 3]
    except MeshError:
        raise
    except (ValueError, IndexError) as error:
        raise MeshError(f"has a line that is no list of numbers ({error}); export it again") from error
    if not n:
        raise MeshError("holds no points")
    if not groups:
        return make_raw(points, None)
    # indices are checked before polygons are cut into triangles
    make_raw(points, np.concatenate([g.ravel() for g in groups])[:, None])
    return make_raw(points, triangulate(groups, points))


def read_meshio(path: Path) -> Raw:
    """Formats of finite elements (Gmsh .msh, Medit .mesh, Abaqus .inp) through meshio: triangles and quads, else lines, else points."""
    import contextlib
    import tempfile

    import meshio

    try:
        # by name only, and in the format that the suffix says: what is packed, doubled or upper-case goes through a plain name
        with tempfile.NamedTemporaryFile(suffix=suffix_of(path)) as file, contextlib.redirect_stdout(io.StringIO()):
            file.write(read_bytes(path))
            file.flush()
            found = meshio.read(file.name)
    except SystemExit as error:  # how meshio ends on some files, when it runs as a command or not
        raise MeshError("is refused by meshio") from error
    cells: dict[str, list[np.ndarray]] = {}
    for block in found.cells:
        cells.setdefault(block.type, []).append(np.asarray(block.data, np.int64))
    points = np.asarray(found.points, np.float64)
    faces = [np.concatenate(cells[kind]) for kind in ("triangle", "quad") if kind in cells]
    volumes = sorted(set(cells) - {"triangle", "quad", "line", "vertex"})
    if not faces and volumes:
        raise MeshError(f"holds {', '.join(volumes)} cells only; expected triangles: extract the surface first")
    notes = (f"cells of the kinds {', '.join(volumes)} were left out",) if volumes else ()
    if faces:
        make_raw(points, np.concatenate([f.ravel() for f in faces])[:, None])
        return make_raw(points, triangulate(faces, points), dict(found.point_data), notes)
    return planar(make_raw(points, np.concatenate(cells["line"]) if "line" in cells else None, dict(found.point_data)))


def read_gifti(path: Path) -> Raw:
    """The first surface of a GIFTI file; per-vertex arrays with it."""
    from nibabel.gifti.gifti import GiftiImage

    image: Any = GiftiImage.from_bytes(read_bytes(path))
    points = image.agg_data("NIFTI_INTENT_POINTSET")
    triangles = image.agg_data("NIFTI_INTENT_TRIANGLE")
    if not isinstance(points, np.ndarray) or not isinstance(triangles, np.ndarray):
        raise MeshError("holds no single surface: expected one POINTSET and one TRIANGLE array (a .surf.gii)")
    arrays = {f"gifti{i}": np.asarray(a.data) for i, a in enumerate(image.darrays) if len(np.shape(a.data)) == 1}
    return make_raw(points, triangles, arrays)


def read_freesurfer(path: Path) -> Raw:
    """FreeSurfer's binary triangle surfaces (lh.pial and the like), in surface coordinates (mm)."""
    import tempfile

    from nibabel.freesurfer.io import read_geometry

    data = read_bytes(path)
    if data[:3] != b"\xff\xff\xfe":
        raise MeshError("is no FreeSurfer triangle surface")
    ends = data.find(b"\n\n", 0, 4096)
    if ends >= 0:
        n, m = (int(x) for x in np.frombuffer(data[ends + 2 : ends + 10].ljust(8, b"\0"), ">i4"))
        if n < 0 or m < 0 or 12 * (n + m) > len(data):
            raise MeshError(f"promises {n} vertices and {m} triangles in {len(data)} bytes: the file is cut off")
    with tempfile.NamedTemporaryFile() as file:  # nibabel reads by name only
        file.write(data)
        file.flush()
        points, triangles = (np.asarray(a) for a in read_geometry(file.name)[:2])
    return make_raw(points, triangles)


_BEZIER = 24  # points on a curved segment


def read_svg(path: Path) -> Raw:
    """Every path and basic shape of an SVG as planar curves, in user units, transforms applied; the axes are the file's (y points down)."""
    try:
        from svgelements import SVG, Close, Line, Move, Path as SvgPath, Shape as SvgShape  # noqa: I001
    except ImportError as error:
        raise MeshError("is an SVG, which needs the package svgelements: pip install svgelements") from error
    data = read_bytes(path)
    if b"<!ENTITY" in data:
        raise MeshError("declares XML entities; save it as plain SVG")
    if b"<svg" not in data:
        raise MeshError("is no SVG: it has no <svg> element")
    points: list[np.ndarray] = []
    edges: list[np.ndarray] = []
    count = 0
    for element in SVG.parse(io.BytesIO(data), reify=True).elements(lambda e: isinstance(e, SvgShape)):
        for sub in SvgPath(element).as_subpaths():
            row: list[tuple[float, float]] = []
            closed = False
            for segment in sub:
                if isinstance(segment, Move):
                    row.append((segment.end.x, segment.end.y))
                elif isinstance(segment, Close):
                    closed = True
                elif isinstance(segment, Line):
                    row.append((segment.end.x, segment.end.y))
                else:
                    row += [(float(p[0]), float(p[1])) for p in segment.npoint(np.linspace(0, 1, _BEZIER + 1)[1:])]
            if len(row) > 1:
                closed = closed or row[0] == row[-1]
                line = np.array(row[:-1] if row[0] == row[-1] and len(row) > 2 else row)
                index = np.arange(len(line)) + count
                points.append(line)
                edges.append(np.stack([index, np.roll(index, -1)], 1)[: None if closed else -1])
                count += len(line)
    if not points:
        raise MeshError("holds no path")
    return planar(make_raw(np.concatenate(points), np.concatenate(edges)))
