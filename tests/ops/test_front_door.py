"""What a caller sees: kinds of input, names, refusals, the backend that is chosen."""

import logging

import numpy as np
import pytest
import torch

import shapeflow
from shapeflow.errors import BackendError, KernelError
from shapeflow.ops import (
    backend,
    kernel_product,
    kernel_product_fused,
    kernel_product_grad,
    kernel_product_tangent,
    resolve,
)
from tests.ops.cases import case


def test_arrays_as_files_and_pandas_give_them():
    """Big-endian (VTK, NIfTI), read-only (pandas, memory maps), reversed: copied, not refused and not warned about."""
    c = case(rows=(6,), columns=(8,))
    x, y, b = (t.numpy() for t in (c.x, c.y, c.b))
    expected = kernel_product(x, y, b, "cauchy", 0.7)
    frozen = x.copy()
    frozen.setflags(write=False)
    for other in (x.astype(">f8"), frozen, np.asfortranarray(x), x[::-1].copy()[::-1]):
        np.testing.assert_array_equal(kernel_product(other, y, b, "cauchy", 0.7), expected)


def test_numpy_goes_in_and_comes_out():
    c = case(rows=(6,), columns=(8,))
    x, y, b, a = (t.numpy() for t in (c.x, c.y, c.b, c.a))
    got = kernel_product(x, y, b, "cauchy", 0.7)
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, kernel_product(c.x, c.y, c.b, "cauchy", 0.7).numpy())
    dense = 1 / (1 + ((x[:, None] - y[None]) ** 2).sum(-1) / 0.49)
    np.testing.assert_allclose(got, dense @ b, rtol=1e-12)
    v, g = kernel_product_fused(a, x, y, b, sigma=0.7)
    np.testing.assert_allclose(g, kernel_product_grad(a, x, y, b, sigma=0.7), rtol=1e-12)


def test_one_feature_may_be_flat():
    c = case(rows=(6,), columns=(8,))
    flat = kernel_product(c.x, c.y, c.b[:, 0], sigma=1.0)
    assert flat.shape == (6,)
    torch.testing.assert_close(flat, kernel_product(c.x, c.y, c.b[:, :1], sigma=1.0)[:, 0])


def test_the_talk_of_2017_runs_as_written():
    c = case(rows=(6,), columns=(8,))
    s = torch.tensor([0.7], dtype=torch.float64)
    torch.testing.assert_close(
        shapeflow.KernelProduct.apply(s, c.x, c.y, c.b, "gaussian"),
        kernel_product(c.x, c.y, c.b, "gaussian", sigma=0.7),
    )


def test_a_batch_is_its_problems_one_by_one():
    c = case("energy", rows=(4, 9), columns=(6, 5))
    whole = kernel_product(c.x, c.y, c.b, "energy", c.problem.sigma, rows=[0, 4, 13], columns=[0, 6, 11])
    parts = [
        kernel_product(c.x[:4], c.y[:6], c.b[:6], "energy", float(c.problem.sigma[0])),
        kernel_product(c.x[4:], c.y[6:], c.b[6:], "energy", float(c.problem.sigma[1])),
    ]
    torch.testing.assert_close(whole, torch.cat(parts))


def test_tangent_takes_none_for_zero():
    c = case(rows=(6,), columns=(8,))
    z = torch.zeros_like
    some = kernel_product_tangent(c.x, c.dx, c.a, None, c.y, None, c.b, c.db, sigma=1.0)
    full = kernel_product_tangent(c.x, c.dx, c.a, z(c.a), c.y, z(c.y), c.b, c.db, sigma=1.0)
    for s, f in zip(some, full, strict=True):
        torch.testing.assert_close(s, f)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"sigma": None}, "`sigma`.* is missing"),
        ({"sigma": -1.0}, "positive and finite"),
        ({"sigma": [1.0, 2.0]}, "one number; received shape .2,. .several problems"),
        ({"y": torch.zeros(8, 2, dtype=torch.float64)}, "one d"),
        ({"b": torch.zeros(7, 2, dtype=torch.float64)}, r"`b` must be \(8, 2\)"),
        ({"b": torch.zeros(8, 2)}, "float32"),
        ({"b": torch.zeros(8, 2, dtype=torch.long)}, "floating-point"),
        ({"x": None}, "`x` is missing"),
        ({"x": np.array([["a", 1.0]], object)}, "`x` must be an array of numbers; received ndarray"),
        ({"b": [[1.0], [1.0, 2.0]]}, "`b` must be an array of numbers; received list"),
        ({"sigma": "0.3"}, "`sigma` must be a number.*received '0.3'"),
        ({"rows": [0, 5], "columns": [0, 8]}, "offsets"),
        ({"rows": [0, 3, 2, 6], "columns": [0, 1, 2, 8]}, "never decrease"),
        ({"kernel": "gauss"}, "unknown kernel"),
        ({"backend": "cuda"}, "unknown backend"),
    ],
)
def test_refusals_name_the_argument(change, said):
    c = case(rows=(6,), columns=(8,))
    arguments = {"x": c.x, "y": c.y, "b": c.b, "sigma": 1.0} | change
    with pytest.raises(ValueError, match=said):
        kernel_product(**arguments)


def test_half_precision_is_refused():
    x = torch.zeros(3, 3, dtype=torch.float16)
    with pytest.raises(KernelError, match="float32 or float64"):
        kernel_product(x, x, x, sigma=1.0)


def test_the_environment_chooses_the_backend(monkeypatch):
    monkeypatch.setenv("SHAPEFLOW_BACKEND", "torch")
    assert resolve(None, "cpu") == "torch"
    assert resolve("keops", "cpu") == "keops"


def test_a_fallback_is_logged_once_and_says_why(monkeypatch, caplog):
    from shapeflow.ops.backends import native_cpu

    def missing():
        raise BackendError("no C++ compiler: install g++")

    monkeypatch.delenv("SHAPEFLOW_BACKEND", raising=False)
    monkeypatch.setattr(native_cpu, "check", missing)
    backend._best.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "shapeflow.ops"):
            assert resolve(None, "cpu") == "torch" and resolve("auto", "cpu") == "torch"
        assert [r for r in caplog.records if "install g++" in r.getMessage()] == caplog.records and len(
            caplog.records
        ) == 1
    finally:
        backend._best.cache_clear()
