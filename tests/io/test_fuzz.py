"""Truncated and mutated files: a shape or a `MeshError`, never a crash, a hang, a flood, or any other exception.

In this process for the readers written here (a MemoryError or RecursionError would fail the test); in a process of their own for those that
run other people's C++, where a crash is contained and counts as an answer only of `run_each`, not of the reader.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shapeflow.errors import MeshError
from shapeflow.io import read_landmarks, read_raw, write_shape
from shapeflow.io.isolated import Limits, run_each
from shapeflow.shape import Shape
from tests.io.shapes import loop, tetrahedron

FAST = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@lru_cache(maxsize=1)
def corpus() -> dict[str, bytes]:
    """A small whole file of every format: what mutations start from."""
    out: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, shape, options in (
            ("surface.vtk", tetrahedron(), {}),
            ("ascii.vtk", tetrahedron(), {"binary": False}),
            ("curve.vtk", loop(6), {}),
            ("surface.vtp", tetrahedron(), {}),
            ("surface.ply", tetrahedron(), {}),
            ("ascii.ply", tetrahedron(), {"binary": False}),
            ("curve.ply", loop(6), {}),
            ("points.ply", Shape(tetrahedron().points), {}),
            ("surface.obj", tetrahedron(), {}),
        ):
            write_shape(Path(folder) / name, shape, **options)
            out[name] = (Path(folder) / name).read_bytes()
        np.save(Path(folder) / "a.npy", tetrahedron().points)
        out["points.npy"] = (Path(folder) / "a.npy").read_bytes()
    corners = tetrahedron().points[tetrahedron().simplices].astype("<f4").reshape(4, 9)
    stl = np.zeros(4, dtype=[("n", "<f4", 3), ("v", "<f4", 9), ("a", "<u2")])
    stl["v"] = corners
    out["surface.stl"] = b"x" * 80 + (4).to_bytes(4, "little") + stl.tobytes()
    out["surface.off"] = b"OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"
    out["curve.txt"] = b"0 0\n1 0\n1 1\n\n3 3\n4 4\n"
    out["curve.csv"] = b"x,y,w\n0,0,1\n1,0,1\n1,1,2\n"
    out["lh.pial"] = b"\xff\xff\xfemade\n\n" + np.array([4, 4], ">i4").tobytes()
    out["lh.pial"] += tetrahedron().points.astype(">f4").tobytes() + tetrahedron().simplices.astype(">i4").tobytes()
    return out


OURS = (
    "surface.ply",
    "ascii.ply",
    "curve.ply",
    "points.ply",
    "surface.obj",
    "points.npy",
    "surface.off",
    "curve.txt",
    "curve.csv",
)
THEIRS = ("surface.vtk", "ascii.vtk", "curve.vtk", "surface.vtp", "surface.stl", "lh.pial")


@st.composite
def mutations(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[str, bytes]:
    name = draw(st.sampled_from(names))
    content = bytearray(corpus()[name])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                del content[at:]
            case 1 if content:
                content[at] = draw(st.integers(0, 255))
            case 2:  # numbers grow: counts and indices are what headers lie about
                digits = [i for i, c in enumerate(content[:2000]) if chr(c).isdigit()]
                if digits:
                    i = digits[draw(st.integers(0, len(digits) - 1))]
                    content[i : i + 1] = draw(st.sampled_from([b"999999999", b"-1", b"nan", b"0", b"1e400"]))
            case 3:
                del content[at : at + draw(st.integers(1, 40))]
            case 4:
                content[at:at] = content[: draw(st.integers(1, 60))]
    return name, bytes(content)


def attempt(content: bytes, name: str, folder: Path) -> None:
    path = folder / name
    path.write_bytes(content)
    try:
        raw = read_raw(path)
    except MeshError as error:
        assert name in str(error)
        return
    assert raw.simplices.min() >= 0 and raw.simplices.max() < len(raw.points)
    assert len(raw.points) <= 100 * len(content) + 100  # nothing made out of a header's promise


@FAST
@given(mutations(OURS))
def test_our_readers_refuse_or_read(tmp_path_factory: pytest.TempPathFactory, mutated: tuple[str, bytes]) -> None:
    attempt(mutated[1], mutated[0], _folder(tmp_path_factory))


@FAST
@given(st.sampled_from([*OURS, "surface.vtk", "surface.stl", "lh.pial"]), st.binary(max_size=200))
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    attempt(content, name, _folder(tmp_path_factory))


@settings(FAST, max_examples=40)
@given(st.sampled_from(["a.csv", "a.fcsv", "a.mps"]), st.text(max_size=80), st.integers(0, 200))
def test_landmark_files(tmp_path_factory: pytest.TempPathFactory, name: str, text: str, cut: int) -> None:
    path = _folder(tmp_path_factory) / name
    whole = {
        "a.csv": "n,x,y,z\na,1,2,3\nb,4,5,6\n",
        "a.fcsv": "# columns = id,x,y,z\n1,1,2,3\n",
        "a.mps": "<p><point><x>1</x><y>1</y><z>2</z></point></p>",
    }
    path.write_text(whole[name][:cut] + text, encoding="utf-8")
    try:
        assert len(read_landmarks(path).points)
    except MeshError as error:
        assert name in str(error)


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.getbasetemp()


def read_many(contents: list[tuple[str, bytes]], folder: str) -> int:
    """In a worker: every file is read or refused; anything else is a failure that the caller sees as an error."""
    for name, content in contents:
        attempt(content, name, Path(folder))
    return len(contents)


def battery(names: tuple[str, ...], count: int, seed: int) -> list[tuple[str, bytes]]:
    """Deterministic mutations without hypothesis, to send in batches: cuts everywhere, flipped bytes, grown numbers."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        name = names[i % len(names)]
        content = bytearray(corpus()[name])
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, max(1, len(content))))
            kind = int(rng.integers(0, 4))
            if kind == 0:
                del content[at:]
            elif kind == 1 and content:
                content[min(at, len(content) - 1)] = int(rng.integers(0, 256))
            elif kind == 2:
                digits = [j for j, c in enumerate(content[:2000]) if chr(c).isdigit()]
                if digits:
                    j = digits[int(rng.integers(0, len(digits)))]
                    content[j : j + 1] = [b"999999999", b"-1", b"nan", b"7"][int(rng.integers(0, 4))]
            else:
                del content[at : at + int(rng.integers(1, 40))]
        out.append((name, bytes(content)))
    return out


def contained(batches: list[list[tuple[str, bytes]]], folder: Path) -> list:
    calls = [{"contents": b, "folder": str(folder)} for b in batches]
    return [o for _, o in run_each("tests.io.test_fuzz:read_many", calls, Limits(workers=1, seconds=60, gigabytes=2))]


def test_readers_of_other_libraries_on_mutated_files(tmp_path: Path) -> None:
    """VTK's XML reader is known to abort on some damaged headers: that is what the process is for. The others must not crash at all."""
    files = battery(THEIRS, 360, seed=1)
    outcomes = contained([[f for f in files if f[0].endswith(".vtp")][i : i + 1] for i in range(60)], tmp_path)
    assert all(o.error is None or o.contained for o in outcomes)
    outcomes = contained([[f for f in files if not f[0].endswith(".vtp")]], tmp_path)
    assert [o.error for o in outcomes] == [None]


def test_a_damaged_file_that_crashes_vtk_is_refused_before(tmp_path: Path) -> None:
    """One byte in a polygon's number of corners: VTK reads beyond the array and takes the interpreter with it."""
    content = bytearray(corpus()["surface.vtk"])
    at = content.index(b"POLYGONS")
    content[content.index(b"\n", at) + 1 + 16] = 0x57
    (tmp_path / "a.vtk").write_bytes(content)
    with pytest.raises(MeshError, match="do not add up"):
        read_raw(tmp_path / "a.vtk")


@pytest.mark.slow
def test_readers_on_many_mutated_files(tmp_path: Path) -> None:
    files = battery(THEIRS + OURS, 6000, seed=2)
    outcomes = contained([[f] for f in files], tmp_path)
    assert all(o.error is None or o.contained for o in outcomes)
    assert sum(o.contained for o in outcomes) < 60  # VTK's XML reader: some in a thousand


def test_real_files_cut_and_flipped(tmp_path: Path, data_root: Path) -> None:
    zoo = data_root / "format_zoo_trimesh"
    rng = np.random.default_rng(0)
    files = [
        p for p in zoo.rglob("*") if p.suffix.lower() in (".obj", ".ply", ".stl", ".off") and p.stat().st_size < 60_000
    ]
    files.append(data_root / "mouse_mandible_dp1tyb" / "09_4l.vtk")
    contents = []
    for path in sorted(files):
        whole = path.read_bytes()
        for _ in range(3):
            content = bytearray(whole[: int(rng.integers(0, len(whole) + 1))])
            for _ in range(3):
                if content:
                    content[int(rng.integers(0, min(len(content), 400)))] = int(rng.integers(0, 256))
            contents.append((f"{path.stem}{path.suffix}", bytes(content)))
    assert [o.error for o in contained([contents], tmp_path)] == [None]
