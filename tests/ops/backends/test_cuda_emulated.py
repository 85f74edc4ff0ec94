"""The CUDA kernels run by threads of the CPU: their arithmetic, tiles, cuts and NaN, checked where there is no GPU."""

from __future__ import annotations

import pytest
import torch
from emulated_launches import Emulator
from kernel_cases import TOLERANCE, call, case, error, reference

from shapeflow.ops.backends import cuda, nearby


@pytest.fixture(scope="module")
def emulator(tmp_path_factory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def emulated(emulator, monkeypatch):
    """shapeflow.ops.backends.cuda with its launches run by threads; `emulated(r, length)` fixes the tiles."""
    emulator.patch(cuda, monkeypatch, lambda source, name, arch: (source, name))
    monkeypatch.setattr(cuda, "WORTH", dict.fromkeys(cuda.WORTH, 0))  # small problems use tensor cores, too

    def fix(r: int | None = None, length: int | None = None):
        if r is not None:
            monkeypatch.setattr(cuda, "choose", lambda choices, *_: (r, length))
        return cuda

    return fix


# Every operator, both dtypes, one and several rows a thread, one term and a sum, features that do not fill a 16-byte load, cut and whole columns.
CASES = [
    ("product", "gaussian", torch.float32, 3, 3, 2, 1000),
    ("product", "gaussian", torch.float32, 1, 1, 4, 100),
    ("gradient", "cauchy", torch.float32, 2, 5, 1, 1000),
    ("fused", "0.7*gaussian + 0.2*laplacian@2.0 + cauchy@0.5", torch.float32, 3, 3, 2, 130),
    ("fused", "energy", torch.float64, 3, 4, 1, 1000),
    ("tangent", "laplacian", torch.float64, 3, 3, 1, 100),
    ("tangent", "inverse_multiquadric", torch.float32, 30, 2, 1, 1000),
    # on tensor cores: every layout of moments, brackets of one and two matrix products, coordinates that leave slots empty, several chunks of columns
    ("product", "gaussian", torch.float32, 3, 6, 2, 1000),
    ("product", "gaussian", torch.float32, 2, 3, 4, 64),
    ("fused", "2.5*gaussian", torch.float32, 3, 1, 2, 1000),
    ("fused", "gaussian", torch.float32, 2, 2, 2, 1000),
    ("fused", "gaussian", torch.float32, 3, 3, 2, 280),
    ("gradient", "gaussian", torch.float32, 1, 5, 2, 1000),
    ("gradient", "gaussian", torch.float32, 3, 10, 2, 1000),
    ("fused", "0.5*gaussian", torch.float32, 3, 5, 2, 280),
    ("fused", "gaussian", torch.float32, 2, 6, 2, 1000),
]


@pytest.mark.parametrize(("op", "kernel", "dtype", "d", "e", "r", "length"), CASES)
def test_against_the_oracle(emulated, op, kernel, dtype, d, e, r, length):
    tensors, problem = case(kernel, d=d, e=e, dtype=dtype, rows=(1, 0, 129, 300, 3), columns=(7, 3, 300, 129, 0))
    assert error(call(emulated(r, length), op, tensors, problem), reference(op, tensors, problem)) < TOLERANCE[
        dtype
    ] * max(1, d / 3)


@pytest.mark.parametrize("length", [1000, 100])
def test_nonfinite(emulated, length):
    """Rows that a bad number touches are NaN, all others keep their bits; also through the cuts' second pass."""
    tensors, problem = case(rows=(5, 3, 4), columns=(30, 300, 9))
    backend = emulated(1, length)
    clean = call(backend, "fused", tensors, problem)
    for name, index, touched in (
        ("x", 1, slice(1, 2)),
        ("a", 9, slice(9, 10)),
        ("y", 200, slice(5, 8)),
        ("b", 31, slice(5, 8)),
    ):
        spoiled = {k: t.clone() for k, t in tensors.items()}
        spoiled[name][index, 0] = float("inf")
        other = torch.ones(12, dtype=torch.bool)
        other[touched] = False
        for out, before in zip(call(backend, "fused", spoiled, problem), clean, strict=True):
            assert torch.isnan(out[touched]).all()
            assert torch.equal(out[other], before[other])


@pytest.mark.parametrize("op", ["fused", "gradient"])
def test_chosen_tiles_and_slices_of_features(emulated, op):
    """19 features = 16 + 3, with R and cuts as the cost model picks them."""
    tensors, problem = case(e=19, dtype=torch.float64, rows=(200, 2), columns=(150, 400))
    assert error(call(emulated(), op, tensors, problem), reference(op, tensors, problem)) < TOLERANCE[torch.float64]


def test_absent_tangents(emulated):
    tensors, problem = case(rows=(20,), columns=(30,))
    zeroed = {**tensors, "dx": torch.zeros_like(tensors["dx"]), "db": torch.zeros_like(tensors["db"])}
    given = {k: t for k, t in tensors.items() if k not in ("dx", "db")}
    assert (
        error(call(emulated(), "tangent", given, problem), reference("tangent", zeroed, problem))
        < TOLERANCE[torch.float32]
    )


# Rows in the general tile (laplacian, float64), on tensor cores, and in tiles too wide for tensor cores.
@pytest.mark.parametrize(
    ("op", "kernel", "dtype", "stretch"),
    [
        ("fused", "gaussian", torch.float32, 5),
        ("product", "gaussian", torch.float32, 5),
        ("fused", "gaussian", torch.float32, 40),
        ("product", "laplacian", torch.float64, 40),
    ],
)
def test_far_columns_are_skipped(emulated, monkeypatch, op, kernel, dtype, stretch):
    """Sorted points with their far blocks left out give the sum over all pairs; a NaN in a block that is far is still seen."""
    monkeypatch.setenv("SHAPEFLOW_NEARBY", "1")
    tensors, problem = case(kernel, dtype=dtype, rows=(300, 20), columns=(2500, 30))
    tensors |= {"x": tensors["x"] * stretch, "y": tensors["y"] * stretch}
    backend = emulated(2, 1500)
    assert error(call(backend, op, tensors, problem), reference(op, tensors, problem)) < TOLERANCE[dtype]
    tensors["y"][2499, 0] = float("nan")
    assert all(
        torch.isnan(out[:300]).all() and torch.isfinite(out[300:]).all() for out in call(backend, op, tensors, problem)
    )


@pytest.mark.parametrize("e", [4, 5, 7])
def test_many_features_of_sorted_rows(emulated, monkeypatch, e):
    """More moments than a register file holds twice: one row a thread, on tensor cores once rows are sorted."""
    monkeypatch.setenv("SHAPEFLOW_NEARBY", "1")
    tensors, problem = case(e=e, rows=(300, 20), columns=(500, 30))
    assert (
        error(call(emulated(1, 1500), "gradient", tensors, problem), reference("gradient", tensors, problem))
        < TOLERANCE[torch.float32]
    )


@pytest.mark.parametrize(
    ("d", "dtype"), [(1, torch.float64), (2, torch.float32), (3, torch.float32), (5, torch.float64)]
)
def test_codes_of_sorted_points(emulated, d, dtype):
    """In one launch what nearby.morton does in many: also outside the box, and where a coordinate is not finite."""
    points = torch.randn(300, d, dtype=dtype)
    points[7, 0], points[8, 0], points[9, -1] = float("nan"), float("inf"), -float("inf")
    low, scale = [-1.5] * min(d, 3), 400.0
    codes = emulated()._morton(points, low, scale)
    assert torch.equal(codes, nearby.morton(points, low, scale)) and codes.unique().numel() > 200


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_extent_of_points(emulated, dtype):
    x, y, sigma = torch.randn(9000, 2, dtype=dtype), 5 + torch.randn(300, 2, dtype=dtype), torch.rand(7, dtype=dtype)
    for points in ((y,), (x, y)):
        assert emulated()._extent(points, sigma) == nearby.extent(points, sigma)
