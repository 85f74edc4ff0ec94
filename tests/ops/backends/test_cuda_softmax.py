"""kernels/lse.cu: compiled for three generations of cards, and run by threads of the CPU."""

from __future__ import annotations

import pytest
import torch
from emulated_launches import Emulator
from softmax_cases import check, dense, weighted

from shapeflow.errors import BackendError
from shapeflow.ops import registry
from shapeflow.ops.backends import cuda_softmax
from shapeflow.ops.backends.cuda_softmax import LOGSUMEXP, SOFTMAX
from shapeflow.ops.backends.plans import Plans
from shapeflow.ops.compile import nvrtc
from shapeflow.ops.problem import Problem
from shapeflow.ops.radial import Radial
from shapeflow.ragged import Ragged

F32, F64 = torch.float32, torch.float64
INSTANCES = [(LOGSUMEXP, F32, d, 0) for d in (1, 2, 3, 20)] + [(LOGSUMEXP, F64, d, 0) for d in (2, 3)]
INSTANCES += [(SOFTMAX, F32, 3, e) for e in (1, 3, 4, 8)] + [(SOFTMAX, F64, 3, 3), (SOFTMAX, F32, 12, 16)]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_every_instance_compiles_and_stays_in_registers(arch):
    try:
        nvrtc.compiler_version()
    except BackendError as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    names = [cuda_softmax.instance(*i, r) for i in INSTANCES for r in cuda_softmax.rows_a_thread(*i)]
    names += [f"shapeflow_lse_reduce<{which}, {real}>" for which in (0, 1) for real in ("float", "double")]
    code, mangled, log = nvrtc.cubin("lse.cu", names, arch, options=["-v"])
    assert code[:4] == b"\x7fELF"
    assert set(mangled) == set(names)
    spills = [line for line in log.splitlines() if "spill" in line]
    assert len(spills) == len(names)
    assert all("0 bytes spill stores, 0 bytes spill loads" in line for line in spills)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    return Emulator(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def emulated(emulator, monkeypatch):
    """The backend with its launches run here; `emulated(r, length)` fixes the tiles."""
    emulator.patch(cuda_softmax, monkeypatch, lambda name, arch: ("lse.cu", name))

    def fix(r: int | None = None, length: int | None = None):
        if r is not None:
            monkeypatch.setattr(cuda_softmax, "choose", lambda *_: (r, length))
            monkeypatch.setattr(cuda_softmax, "_plans", Plans("a product", most=100))
        return cuda_softmax

    return fix


# Both dtypes, one and several rows a thread, features that do not fill a 16-byte load, cut and whole columns, chunks that are and are not full.
@pytest.mark.parametrize(
    ("dtype", "d", "e", "r", "length"),
    [(F32, 3, 3, 2, 1000), (F32, 3, 4, 4, 100), (F32, 1, 1, 1, 64), (F64, 2, 5, 2, 1000), (F64, 3, 3, 1, 100), (F32, 30, 2, 1, 130)],
)  # fmt: skip
def test_against_dense_torch(emulated, dtype, d, e, r, length):
    check(emulated(r, length), *weighted(d, e, dtype))


def test_chosen_tiles_and_slices_of_features(emulated):
    """19 features = 16 + 3, with R and cuts as the cost model picks them."""
    check(emulated(), *weighted(e=19, dtype=F64, rows=(200, 2), columns=(150, 400)))


@pytest.mark.parametrize("dtype", [F32, F64])
def test_a_rising_maximum(emulated, dtype):
    """Columns that come nearer by hundreds of powers of two from chunk to chunk, forwards and backwards, and a weight of zero first."""
    n = 600
    y = torch.linspace(0, 60, n, dtype=F64)[:, None]
    for order in (torch.arange(n), torch.arange(n).flip(0)):
        h = torch.zeros(n, dtype=F64)
        h[:130] = -torch.inf
        t = {
            "x": torch.tensor([[60.0], [30.0], [-20.0]]),
            "y": y[order],
            "h": h,
            "b": torch.ones(n, 1),
            "u": torch.zeros(3),
        }
        problem = Problem(Radial.parse("gaussian"), torch.ones(1, dtype=dtype), Ragged((0, 3)), Ragged((0, n)))
        t = {k: s.to(dtype) for k, s in t.items()}
        for length in (1000, 150):
            got = emulated(1, length).logsumexp(t["x"], t["y"], t["h"], problem)
            torch.testing.assert_close(
                got.double(), dense(t, problem)[0], rtol=1e-6 if dtype == F32 else 1e-14, atol=1e-6
            )


@pytest.mark.parametrize("length", [1000, 32])
def test_extreme_logarithms(emulated, length):
    """h = −∞ is a weight of zero, large and small h neither overflow nor vanish, a row without weights is −∞, a wide σ counts nothing twice."""
    x, y = torch.zeros(3, 2), torch.zeros(160, 2)
    h = torch.full((160,), -torch.inf)
    h[:2], h[125], h[145] = 1e4, -3e4, 5.0
    problem = Problem(Radial.parse("gaussian"), torch.ones(3), Ragged((0, 1, 2, 3)), Ragged((0, 60, 80, 130)))
    got = emulated(1, length).logsumexp(x, y[:130], h[:130], problem)
    torch.testing.assert_close(got, torch.tensor([1e4 + 0.6931, -torch.inf, -3e4]), rtol=1e-6, atol=0)
    wide = Problem(Radial.parse("gaussian"), torch.full((1,), 1e15), Ragged((0, 3)), Ragged((0, 160)))
    got = emulated(1, length).logsumexp(x, y, h, wide)
    torch.testing.assert_close(got, torch.full((3,), 1e4 + 0.6931), rtol=1e-6, atol=0)


@pytest.mark.parametrize("length", [1000, 100])
def test_nonfinite(emulated, length):
    """Rows that a bad number touches are NaN, all others keep their bits; −∞ in h and u is a weight of zero; also through the second kernel."""
    t, problem = weighted(rows=(5, 3, 4), columns=(30, 300, 9))
    backend = emulated(1, length)
    clean = check(backend, t, problem)
    row, second = slice(6, 7), slice(5, 8)
    for name, index, bad, touched in (
        ("x", 6, torch.nan, row), ("u", 6, torch.inf, row), ("u", 6, torch.nan, row), ("y", 200, torch.inf, second),
        ("y", 200, -torch.inf, second), ("h", 40, torch.nan, second), ("h", 40, torch.inf, second), ("b", 31, torch.nan, second),
    ):  # fmt: skip
        spoiled = {k: s.clone() for k, s in t.items()}
        spoiled[name][index] = bad
        other = torch.ones(12, dtype=torch.bool)
        other[touched] = False
        results = (
            backend.logsumexp(spoiled["x"], spoiled["y"], spoiled["h"], problem),
            backend.softmax_product(*(spoiled[k] for k in ("u", "x", "y", "h", "b")), problem),
        )
        for out, before, skip in zip(results, clean, (name in "ub", False), strict=True):
            assert skip or torch.isnan(out[touched]).all()
            assert torch.equal(out[other], before[other])


def test_a_bad_width_is_nan(emulated):
    t, problem = weighted(rows=(5, 3), columns=(30, 20))
    for width in (0.0, -1.0, torch.nan, torch.inf):
        spoiled = Problem(problem.radial, torch.tensor([1.0, width]), problem.rows, problem.columns)
        got = emulated(1, 1000).logsumexp(t["x"], t["y"], t["h"], spoiled)
        assert torch.isnan(got[5:]).all()
        assert not torch.isnan(got[:5]).any()


def test_nothing_to_do(emulated):
    t, problem = weighted(rows=(0,), columns=(5,))
    backend = emulated()
    assert backend.logsumexp(t["x"], t["y"], t["h"], problem).shape == (0,)
    t, problem = weighted(rows=(4,), columns=(0,))
    assert torch.equal(backend.logsumexp(t["x"], t["y"], t["h"], problem), torch.full((4,), -torch.inf))
    args = (t["u"], t["x"], t["y"], t["h"])
    assert torch.equal(backend.softmax_product(*args, t["b"], problem), torch.zeros(4, 3))
    assert backend.softmax_product(*args, t["b"][:, :0], problem).shape == (4, 0)


def test_the_native_backend_on_cuda():
    for name in ("logsumexp", "softmax_product"):
        assert registry.implementation(name, "native", "cuda") is getattr(cuda_softmax, name)
