"""Every family of CUDA specialisations compiles for three generations of cards on a machine that has none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from shapeflow.errors import BackendError, CompileError
from shapeflow.ops.backends import cuda
from shapeflow.ops.backends.native_cpu import MASKS, Specialization
from shapeflow.ops.compile import nvrtc

try:
    nvrtc.compiler_version()
except BackendError as error:
    pytest.skip(f"NVRTC is not installed: {error}", allow_module_level=True)

KERNELS = ("gaussian", "laplacian", "cauchy", "inverse_multiquadric", "energy")
SUM = ("gaussian", "laplacian", "cauchy")


def _matrix() -> list[Specialization]:
    f32, f64 = torch.float32, torch.float64
    specs = [Specialization(op, (k,), f32, 3, 3) for op in ("product", "gradient", "fused") for k in KERNELS]
    specs += [Specialization("tangent", (k,), f32, 3, 3, 15) for k in KERNELS]
    specs += [Specialization("tangent", ("gaussian",), f32, 3, 3, mask) for mask in MASKS]
    specs += [Specialization("fused", SUM, f32, 3, 3), Specialization("tangent", SUM, f64, 3, 3, 15)]
    specs += [Specialization("fused", ("gaussian",), f32, d, e) for d in (1, 2, 3) for e in (1, 2, 4, 5, 6, 7, 8)]
    specs += [
        Specialization(op, ("gaussian",), f64, 3, 5, 15 * (op == "tangent")) for op in ("product", "fused", "tangent")
    ]
    return [*specs, Specialization("product", ("gaussian",), f32, 12, 16)]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_the_matrix_compiles(arch):
    names: dict[str, list[str]] = {
        "cuda.cu": ["shapeflow_reduce<float>", "shapeflow_reduce<double>"],
        "gaussian.cu": [],
    }
    for spec in _matrix():
        tensor = cuda.on_tensor_cores(spec, arch)
        r = cuda.rows_a_thread(spec, tensor)[-1]
        names["gaussian.cu" if tensor else "cuda.cu"].append(cuda.instance(spec, r, tensor))
    for source, wanted in names.items():
        code, mangled, _ = nvrtc.cubin(source, wanted, arch)
        assert code[:4] == b"\x7fELF"
        assert set(mangled) == set(wanted)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("op", "e"),
    [("product", 1), ("product", 3), ("product", 6), ("fused", 3), ("fused", 6), ("gradient", 5), ("gradient", 10)],
)
def test_tensor_tiles_stay_in_registers(arch, op, e):
    """Totals are meant to live in local memory, in a stack frame; nothing else is spilled there."""
    spec = Specialization(op, ("gaussian",), torch.float32, 3, e)
    for r in cuda.rows_a_thread(spec, tensor=True):
        _, _, log = nvrtc.cubin("gaussian.cu", [cuda.instance(spec, r, True)], arch, options=["-v"])
        assert "0 bytes spill stores, 0 bytes spill loads" in log


def test_what_runs_on_tensor_cores():
    spec = Specialization("fused", ("gaussian",), torch.float32, 3, 3)
    assert (
        cuda.on_tensor_cores(spec, "sm_90")
        and cuda.on_tensor_cores(spec, "sm_120")
        and not cuda.on_tensor_cores(spec, "sm_75")
    )
    assert cuda.on_tensor_cores(replace(spec, op="gradient", e=10), "sm_90")
    for other in (
        {"e": 7},
        {"dtype": torch.float64},
        {"d": 4},
        {"op": "product", "e": 7},
        {"op": "tangent", "mask": 15},
        {"terms": ("cauchy",)},
    ):
        assert not cuda.on_tensor_cores(replace(spec, **other), "sm_90")


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("op", "mask", "dtype"),
    [
        ("product", 0, torch.float32),
        ("fused", 0, torch.float32),
        ("tangent", 15, torch.float32),
        ("fused", 0, torch.float64),
    ],
)
def test_rows_stay_in_registers(arch, op, mask, dtype):
    """The choices of R are only as many as spill nothing: a spilled tile would be silently slow."""
    spec = Specialization(op, ("gaussian",), dtype, 3, 3, mask)
    for r in cuda.rows_a_thread(spec):
        _, _, log = nvrtc.cubin("cuda.cu", [cuda.instance(spec, r)], arch, options=["-v"])
        assert "0 bytes spill stores, 0 bytes spill loads" in log


def test_a_compile_error_carries_the_log():
    with pytest.raises(CompileError, match=r"(?s)NVRTC refused kernels/cuda\.cu for sm_90.*NOTHING"):
        nvrtc.cubin("cuda.cu", ["shapeflow_tile<PRODUCT, float, 3, 3, 0, 1, NOTHING>"], "sm_90")


def test_cut_columns_cover_every_pair_once():
    """The tile map is a partition of rows × columns, whatever R and the cuts."""
    from shapeflow.ragged import Ragged

    rows, columns = Ragged.of_sizes((1, 0, 700, 129, 3)), Ragged.of_sizes((500, 4, 1000, 0, 65))
    for r in (1, 2, 4):
        for length in (64, 100, 5000):
            items, cut, spans = cuda.tile_map(rows, columns, r, length)
            seen = torch.zeros(rows.total, columns.total, dtype=torch.int)
            for p, row, row_end, j, j_end, _, block in items.tolist():
                assert rows.offsets[p] <= row < row_end <= rows.offsets[p + 1]
                assert row_end - row <= r * cuda.THREADS and j_end - j < length + cuda.UNIT
                assert j == j_end or spans[block, 0] <= j < spans[block, 1]
                seen[row:row_end, j:j_end] += 1
            expected = torch.zeros_like(seen)
            for a, b in zip(rows.slices(), columns.slices(), strict=True):
                expected[a, b] = 1
            assert torch.equal(seen, expected)
            slots = [i[5] for i in items.tolist() if i[5] >= 0]
            assert slots == list(range(len(slots))) and len(slots) == cut[:, 3].sum()


@pytest.mark.parametrize("tile", [cuda.GENERAL, cuda.TENSOR])
@pytest.mark.parametrize(("n", "batch"), [(1000, 1), (4000, 1), (100_000, 1), (1000, 1000), (700, 64)])
def test_the_card_is_kept_busy(n, batch, tile):
    """The chosen tiling keeps at least 60 % of a 132-multiprocessor card computing, by the model, once there is enough to do."""
    from shapeflow.ragged import Ragged

    layout, sms = Ragged.of_sizes([n] * batch), 132
    r, length = cuda.choose(tile, (1, 2, 4), layout.sizes, layout.sizes, sms)
    items, *_ = cuda.tile_map(layout, layout, r, length)
    places = sms * tile.resident
    busy = (batch * n * n) / (-(-len(items) // places) * places * r * cuda.THREADS * (items[:, 4] - items[:, 3]).max())
    assert busy > (0.6 if n * batch >= 40_000 else 0.4 if n >= 4000 else 0.15)
