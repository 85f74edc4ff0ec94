"""Every format: what other programs write is read, what is written reads back, what is wrong is refused with one sentence."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import meshio
import numpy as np
import pytest
import trimesh

from shapeflow.errors import MeshError
from shapeflow.io import READERS, read_raw, read_shape, write_shape
from shapeflow.io.files import replacing, suffix_of
from shapeflow.shape import Shape
from tests.io.shapes import loop, sphere, tetrahedron


def same(a: Shape, b: Shape, tolerance: float = 0.0) -> None:
    assert a.simplices.shape == b.simplices.shape and np.array_equal(a.simplices, b.simplices)
    assert np.allclose(a.points, b.points, rtol=0, atol=tolerance)


@pytest.mark.parametrize("suffix", [".vtk", ".vtp", ".ply", ".obj"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("make", [sphere, loop, lambda: Shape(loop().points), lambda: Shape(sphere().points)])
def test_what_is_written_reads_back_exactly(tmp_path: Path, suffix: str, binary: bool, make) -> None:
    shape = make()
    rng = np.random.default_rng(0)
    shape = shape.replace(
        point_data={
            "momentum": rng.normal(size=(shape.n_points, 3)),
            "label": np.arange(shape.n_points, dtype=np.int32),
        }
    )
    path = tmp_path / f"a{suffix}"
    write_shape(path, shape, binary=binary)
    back = read_shape(path)
    same(
        back, shape, tolerance=1e-9 if suffix in (".vtk", ".vtp") and not binary else 0.0
    )  # VTK's ASCII has ten digits or so
    if suffix in (".vtk", ".vtp"):
        assert np.allclose(back.point_data["momentum"], shape.point_data["momentum"], atol=1e-6)
        assert np.array_equal(back.point_data["label"], shape.point_data["label"])
    if suffix == ".ply":
        assert np.array_equal(back.point_data["momentum_1"], shape.point_data["momentum"][:, 1])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing temporary stays


@pytest.mark.parametrize("suffix", [".vtk", ".vtp", ".ply", ".obj"])
def test_the_same_shape_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        write_shape(tmp_path / f"{name}{suffix}", sphere(seed=1))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_other_libraries_open_what_is_written(tmp_path: Path) -> None:
    shape = sphere(seed=0)
    for suffix in (".ply", ".obj"):
        write_shape(tmp_path / f"a{suffix}", shape)
        other = trimesh.load(tmp_path / f"a{suffix}", process=False)
        assert np.allclose(other.vertices, shape.points) and np.array_equal(other.faces, shape.simplices)
    import pyvista

    write_shape(tmp_path / "a.vtk", shape.replace(point_data={"height": shape.points[:, 2]}))
    other = pyvista.read(tmp_path / "a.vtk")
    assert other.n_cells == len(shape.simplices) and np.array_equal(other.point_data["height"], shape.points[:, 2])


def test_arrays_are_opened_by_other_libraries(tmp_path: Path) -> None:
    """One array of each kind through pyvista (ParaView's and Slicer's VTK), trimesh and meshio (PLY, as MeshLab has it), and OBJ's two."""
    import pyvista

    shape = sphere(seed=0)
    rng = np.random.default_rng(0)
    arrays = {
        "height": shape.points[:, 2],
        "label": np.arange(shape.n_points, dtype=np.int32),
        "momentum": rng.normal(size=(shape.n_points, 3)),
    }
    shape = shape.replace(point_data=arrays)
    for name in ("a.vtk", "a.vtp", "a.ply"):
        write_shape(tmp_path / name, shape)
    for name in ("a.vtk", "a.vtp"):
        other = pyvista.read(tmp_path / name)
        assert np.array_equal(other.regular_faces, shape.simplices)
        assert all(np.array_equal(other.point_data[k], v) for k, v in arrays.items())
    other = meshio.read(tmp_path / "a.ply")
    assert np.array_equal(other.points, shape.points) and np.array_equal(other.cells_dict["triangle"], shape.simplices)
    assert np.array_equal(other.point_data["label"], arrays["label"])
    raw = trimesh.load(tmp_path / "a.ply", process=False).metadata["_ply_raw"]["vertex"]["data"]
    assert np.array_equal(raw["momentum_2"], arrays["momentum"][:, 2])


def test_obj_has_a_place_for_colours_and_normals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shape = sphere(seed=0)
    rgb = np.random.default_rng(0).integers(0, 256, (shape.n_points, 3)).astype(np.uint8)
    normals = shape.points / np.linalg.norm(shape.points, axis=1, keepdims=True)
    write_shape(tmp_path / "a.obj", shape.replace(point_data={"rgb": rgb, "normals": normals}))
    assert not caplog.records
    other = trimesh.load(tmp_path / "a.obj", process=False)
    assert np.array_equal(other.faces, shape.simplices) and np.array_equal(other.visual.vertex_colors[:, :3], rgb)
    assert np.allclose(other.vertex_normals, normals)
    back = read_shape(tmp_path / "a.obj")
    same(back, shape)
    assert np.allclose(back.point_data["rgb"] * 255, rgb)
    write_shape(tmp_path / "b.obj", shape.replace(point_data={"height": shape.points[:, 2]}))
    assert "b.obj is written without height" in caplog.text
    same(read_shape(tmp_path / "b.obj"), shape)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.vtk"
    write_shape(path, tetrahedron())
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "file_format", "options"),
    [
        ("a.vtk", "vtk", {"binary": False}),  # unstructured, ASCII
        ("a.vtk", "vtk42", {"binary": True}),
        ("a.vtu", "vtu", {"binary": True}),
        ("a.vtu", "vtu", {"binary": False}),
        ("a.ply", "ply", {"binary": True}),
        ("a.ply", "ply", {"binary": False}),
        ("a.off", "off", {}),
        ("a.obj", "obj", {}),
        ("a.msh", "gmsh", {}),
        ("a.mesh", "medit", {}),
        ("a.inp", "abaqus", {}),
    ],
)
def test_what_meshio_writes_is_read(tmp_path: Path, name: str, file_format: str, options: dict) -> None:
    shape = sphere(seed=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meshio._common.Console", _Quiet, raising=False)  # it warns about 64-bit integers on the terminal
        meshio.write(
            tmp_path / name,
            meshio.Mesh(shape.points, [("triangle", shape.simplices)]),
            file_format=file_format,
            **options,
        )
    same(read_shape(tmp_path / name), shape, tolerance=1e-9)


class _Quiet:
    def __init__(self, *_: object, **__: object) -> None: ...

    def print(self, *_: object, **__: object) -> None: ...


@pytest.mark.parametrize("file_type", ["stl", "stl_ascii"])
def test_stl_is_merged_in_the_order_of_appearance(tmp_path: Path, file_type: str) -> None:
    shape = sphere(seed=3)
    content = trimesh.Trimesh(shape.points, shape.simplices, process=False).export(file_type=file_type)
    path = tmp_path / "A.STL"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_shape(path)
    assert found.n_points == shape.n_points and len(found.simplices) == len(shape.simplices)
    corners = shape.points[shape.simplices]
    assert np.allclose(found.points[found.simplices], corners, atol=1e-6)
    assert found.simplices[0].tolist() == [0, 1, 2]


def test_big_endian_ply(tmp_path: Path) -> None:
    shape = tetrahedron()
    header = "ply\nformat binary_big_endian 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\nproperty uchar red\n"
    header += "element face 4\nproperty uchar flags\nproperty list uchar int vertex_index\nend_header\n"
    body = b"".join(p.astype(">f4").tobytes() + bytes([200 + i]) for i, p in enumerate(shape.points))
    body += b"".join(bytes([9, 3]) + t.astype(">i4").tobytes() for t in shape.simplices)
    (tmp_path / "a.ply").write_bytes(header.encode() + body)
    found = read_shape(tmp_path / "a.ply")
    same(found, shape)
    assert found.point_data["red"].tolist() == [200, 201, 202, 203]  # unsigned


@pytest.mark.parametrize("ascii_", [True, False])
def test_ply_of_mixed_polygons(tmp_path: Path, ascii_: bool) -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0], [2, 2, 1]])
    faces = [[0, 1, 2, 3], [1, 4, 2]]
    kind = "ascii" if ascii_ else "binary_little_endian"
    header = f"ply\nformat {kind} 1.0\ncomment x\nelement vertex 6\nproperty double x\nproperty double y\nproperty double z\n"
    header += "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    if ascii_:
        body = "\n".join(" ".join(map(str, p)) for p in points.tolist()) + "\n4 0 1 2 3\r\n3 1 4 2\n"
        (tmp_path / "a.ply").write_bytes((header + body).encode())
    else:
        body_ = points.tobytes() + b"".join(bytes([len(f)]) + np.array(f, "<i4").tobytes() for f in faces)
        (tmp_path / "a.ply").write_bytes(header.encode() + body_)
    found = read_shape(tmp_path / "a.ply")
    assert len(found.simplices) == 3 and found.measures().sum() == pytest.approx(
        1 + Shape(points, np.array([[1, 4, 2]])).measures().sum()
    )


def test_obj_keeps_the_order_of_v_lines_across_seams(tmp_path: Path) -> None:
    text = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 1\nvn 0 0 1\nf 1/1/1 2/2/1 3/1\\\n/1 4/2/1\nf 1/2/1 3/1/1 4//1 # again\n"
    (tmp_path / "a.obj").write_text(text)
    found = read_shape(tmp_path / "a.obj")
    assert found.points.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert found.simplices.tolist() == [[0, 2, 3], [0, 1, 2], [0, 2, 3]]


def test_obj_negative_indices_count_from_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 5 0 0\nv 6 0 0\nv 5 1 0\nf -3 -2 -1\n")
    assert read_shape(tmp_path / "a.obj").simplices.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_concave_polygon_keeps_its_area(tmp_path: Path) -> None:
    # an L of six corners, whose fan from the first would cover the notch
    (tmp_path / "a.obj").write_text("v 1 2 0\nv 0 2 0\nv 0 0 0\nv 2 0 0\nv 2 1 0\nv 1 1 0\nf 1 2 3 4 5 6\n")
    assert read_shape(tmp_path / "a.obj").measures().sum() == pytest.approx(3.0)


def test_vtk_lines_strips_and_planes(tmp_path: Path) -> None:
    head = "# vtk DataFile Version 3.0\nx\nASCII\nDATASET POLYDATA\n"
    (tmp_path / "lines.vtk").write_text(
        head + "POINTS 5 float\n0 0 0 1 0 0 1 1 0 3 3 0 4 4 0\nLINES 2 7\n3 0 1 2\n2 3 4\n"
    )
    lines = read_shape(tmp_path / "lines.vtk")
    assert lines.dimension == 2 and lines.simplices.tolist() == [[0, 1], [1, 2], [3, 4]]
    (tmp_path / "strip.vtk").write_text(
        head + "POINTS 4 float\n0 0 0 1 0 0 0 1 0 1 1 0\nTRIANGLE_STRIPS 1 5\n4 0 1 2 3\n"
    )
    strip = read_shape(tmp_path / "strip.vtk")
    assert strip.dimension == 3 and strip.simplices.tolist() == [[0, 1, 2], [2, 1, 3]]
    grid = "# vtk DataFile Version 3.0\nx\nASCII\nDATASET UNSTRUCTURED_GRID\nPOINTS 4 float\n0 0 0 1 0 0 0 1 0 0 0 1\nCELLS 1 5\n4 0 1 2 3\nCELL_TYPES 1\n10\n"
    (tmp_path / "volume.vtk").write_text(grid)
    with pytest.raises(MeshError, match="extract the surface"):
        read_shape(tmp_path / "volume.vtk")


def test_gifti_and_freesurfer(tmp_path: Path) -> None:
    import nibabel

    shape = sphere(seed=5)
    arrays = [
        nibabel.gifti.GiftiDataArray(shape.points.astype("f4"), "NIFTI_INTENT_POINTSET"),
        nibabel.gifti.GiftiDataArray(shape.simplices.astype("i4"), "NIFTI_INTENT_TRIANGLE"),
    ]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), tmp_path / "a.surf.gii")
    same(read_shape(tmp_path / "a.surf.gii"), shape, tolerance=1e-6)
    nibabel.freesurfer.write_geometry(str(tmp_path / "lh.pial"), shape.points, shape.simplices, create_stamp="a test")
    same(read_shape(tmp_path / "lh.pial"), shape, tolerance=1e-6)


def test_curves_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# two curves\n0 0\n1 0\n1 1\n0 1\n\n5 5\n6 5\n20 5\n")
    found = read_shape(tmp_path / "a.txt")
    assert found.simplices.tolist() == [
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 0],
        [4, 5],
        [5, 6],
    ]  # the first closes, the second does not
    assert len(read_shape(tmp_path / "a.txt", closed=False).simplices) == 5
    assert read_shape(tmp_path / "a.txt", kind="points").kind == "points"
    (tmp_path / "b.csv").write_text("x;y;z;width\n0;0;0;1\n1;0;0;2\n2;0;1;3\n")
    found = read_shape(tmp_path / "b.csv")
    assert found.kind == "curves" and found.dimension == 3 and found.point_data["width"].tolist() == [1, 2, 3]
    assert "dataset.closed" in read_raw(tmp_path / "a.txt").notes[0]


def test_point_sets(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(7, 3))
    np.savetxt(tmp_path / "a.xyz", points)
    np.save(tmp_path / "b.npy", points)
    for name in ("a.xyz", "b.npy"):
        found = read_shape(tmp_path / name)
        assert found.kind == "points" and np.array_equal(found.points, points)


def test_svg_paths(tmp_path: Path) -> None:
    pytest.importorskip("svgelements")
    (tmp_path / "a.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg"><g transform="translate(10,0)"><path d="M0 0 L4 0 L4 3 Z"/></g><circle cx="0" cy="0" r="2"/></svg>'
    )
    found = read_shape(tmp_path / "a.svg")
    assert found.dimension == 2 and found.points[:3].tolist() == [[10, 0], [14, 0], [14, 3]]
    assert found.measures().sum() == pytest.approx(12 + 4 * np.pi, rel=1e-3)


@pytest.mark.parametrize(
    "suffix", [".msh", ".mesh", ".inp", ".gii", ".svg", ".npy", ".csv", ".off", ".stl", ".vtu", ".pial"]
)
def test_any_format_may_be_compressed(tmp_path: Path, suffix: str) -> None:
    import nibabel

    shape = tetrahedron()
    plain = tmp_path / f"plain{suffix}"
    if suffix in (".msh", ".mesh", ".inp", ".vtu"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("meshio._common.Console", _Quiet, raising=False)
            meshio.write(plain, meshio.Mesh(shape.points, [("triangle", shape.simplices)]))
    elif suffix == ".gii":
        kinds = (("f4", "NIFTI_INTENT_POINTSET", shape.points), ("i4", "NIFTI_INTENT_TRIANGLE", shape.simplices))
        nibabel.save(
            nibabel.gifti.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(x.astype(t), k) for t, k, x in kinds]), plain
        )
    elif suffix == ".pial":
        nibabel.freesurfer.write_geometry(str(plain), shape.points, shape.simplices, create_stamp="a test")
    elif suffix == ".npy":
        np.save(plain, shape.points)
    elif suffix in (".off", ".stl"):
        content = trimesh.Trimesh(shape.points, shape.simplices, process=False).export(file_type=suffix[1:])
        plain.write_bytes(content if isinstance(content, bytes) else content.encode())
    else:
        plain.write_text(
            {
                ".svg": "<svg xmlns='http://www.w3.org/2000/svg'><path d='M0 0 L4 0 L4 3 Z'/></svg>",
                ".csv": "0,0\n1,0\n1,1\n",
            }[suffix]
        )
    packed = tmp_path / f"A.v2{suffix.upper()}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    same(read_shape(packed), read_shape(plain))


@pytest.mark.parametrize("name", ["a.vtk.gz", "A_r.VTK.VTK", "a.ply.GZ"])
def test_suffixes_doubled_upper_case_and_compressed(tmp_path: Path, name: str) -> None:
    plain = tmp_path / f"plain{suffix_of(name)}"
    write_shape(plain, tetrahedron())
    content = plain.read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    same(read_shape(tmp_path / name), tetrahedron())


def _cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


@pytest.mark.parametrize("suffix", [".vtk", ".vtp", ".ply", ".obj", ".stl", ".off", ".npy"])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, suffix: str) -> None:
    shape = sphere(seed=4)
    path = tmp_path / f"a{suffix}"
    if suffix in (".vtk", ".vtp", ".ply", ".obj"):
        write_shape(path, shape)
    elif suffix == ".npy":
        np.save(path, shape.points)
    else:
        content = trimesh.Trimesh(shape.points, shape.simplices, process=False).export(file_type=suffix[1:])
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.write_bytes(_cut(path.read_bytes()))
    if suffix == ".obj":  # a text of independent lines: what is left is a smaller mesh, or ends in half a line
        try:
            assert len(read_shape(path).simplices) < len(shape.simplices)
        except MeshError:
            pass
        return
    with pytest.raises(MeshError) as caught:
        read_shape(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.xyzzy", b"", "no format"),
        ("a.vtk", b"", "no legacy VTK"),
        ("a.vtk", b"# vtk DataFile Version 3.0\nx\nBINARY\nDATASET POLYDATA\nPOINTS 900000000 double\n", "promises"),
        (
            "a.vtk",
            b"# vtk DataFile Version 3.0\nx\nASCII\nDATASET STRUCTURED_POINTS\nDIMENSIONS 2 2 2\nORIGIN 0 0 0\nSPACING 1 1 1\n",
            "expected polygonal",
        ),
        (
            "a.ply",
            b"ply\nformat ascii 1.0\nelement vertex 4000000000\nproperty float x\nend_header\n1 2 3\n",
            "promises",
        ),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 2\nproperty quark x\nend_header\n", "quark"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "counts from 1"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "refers to vertex 9"),
        ("a.obj", b"v 0 0 0\nv 1 0\nv 0 1 0\nf 1 2 3\n", "coordinates"),
        ("a.off", b"OFF\n900000000 9 9\n", "promises"),
        ("a.off", b"OFF\r\n3 1 0\r\n0 0 0\r\n1 0 0\r\n0 1 0\r\n3 0 1 7\r\n", "refers to point 7"),
        ("a.npy", b"\x93NUMPY", "no NumPy"),
        (
            "a.npy",
            b"\x93NUMPY\x01\x00v\x00"
            + b"{'descr': '<f8', 'fortran_order': False, 'shape': (400000000, 3), }".ljust(117)
            + b"\n",
            "promises",
        ),
        (
            "a.vtu",
            b'<VTKFile type="UnstructuredGrid"><UnstructuredGrid><Piece NumberOfPoints="900000000" NumberOfCells="1"/>',
            "promises 900000000 points",
        ),
        ("a.csv", b"name,size\nx,1\ny,2\n", "columns"),
        ("a.txt", b"1 2\n3 4 5\n", "among rows"),
        ("a.obj.gz", b"\x1f\x8bnonsense", "damaged gzip"),
        ("a.svg", b"<svg><!ENTITY a 'b'></svg>", "entities"),
        ("a.gii", b"<GIFTI>", "a.gii"),
        ("lh.pial", b"\xff\xff\xfe hello\n\n\x7f\xff\xff\xff\x7f\xff\xff\xff", "promises"),
    ],
)
def test_refusals_name_the_file_and_what_is_wrong(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MeshError, match=says) as caught:
        read_shape(tmp_path / name)
    assert name in str(caught.value)


def test_a_pickle_in_an_npy_is_not_loaded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "a.npy").write_bytes(buffer.getvalue())
    with pytest.raises(MeshError, match="no NumPy array of numbers"):
        read_shape(tmp_path / "a.npy")


def test_missing_files(tmp_path: Path) -> None:
    for suffix in READERS:
        with pytest.raises(MeshError, match="does not exist"):
            read_shape(tmp_path / f"nothing{suffix}")


def test_not_finite_vertices_are_kept_raw_and_refused_as_a_shape(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv nan 1 0\nv 0 1 0\nf 1 2 3\nf 1 2 4\n")
    assert np.isnan(read_raw(tmp_path / "a.obj").points).sum() == 1
    with pytest.raises(MeshError, match="drop_nan"):
        read_shape(tmp_path / "a.obj")


@pytest.mark.parametrize("binary", [True, False])
def test_whole_numbers_that_a_ply_integer_cannot_hold_are_kept(tmp_path, binary) -> None:
    shape = Shape(np.eye(3), np.array([[0, 1, 2]]), {"label": np.array([7, 2**31, -(2**40)])})
    write_shape(tmp_path / "a.ply", shape, binary=binary)
    np.testing.assert_array_equal(read_shape(tmp_path / "a.ply").point_data["label"], shape.point_data["label"])
