"""kernels/radial.h, the one place where the kernels' formulas are written for C++ and CUDA, against their Python twin."""

from __future__ import annotations

import ctypes
import subprocess

import pytest
import torch

from shapeflow.errors import BackendError
from shapeflow.ops import KERNELS
from shapeflow.ops.compile import host
from shapeflow.ops.compile.source import flatten
from shapeflow.ops.radial import Radial

# The platform that radial.h asks for, in its simplest form: scalars and the C library.
PLATFORM = """
#include <math.h>
#define SF_FN static inline
static inline double exp2_(double t) { return exp2(t); }
static inline double rsqrt_(double a) { return 1 / sqrt(a); }
static inline double rcp_(double a) { return 1 / a; }
#undef SF_FN
#define SF_FN inline
"""
EVALUATE = """
extern "C" void evaluate(long n, const double* r2, double sigma, const double* weights, const double* ratios, double epsilon, double* out) {
  Radial<double, TERMS> k;
  k.set(sigma, weights, ratios, epsilon);
  for (long i = 0; i < n; ++i) {
    double f0, f1, f2;
    k(r2[i], f0, f1, f2);
    out[3 * i] = k.scale_v * f0;
    out[3 * i + 1] = k.scale_g * f1;
    out[3 * i + 2] = k.scale_g * k.eta * f2;
  }
}
"""


@pytest.mark.parametrize("kernel", [*KERNELS, "0.5*gaussian@0.7", "0.3*laplacian@2.0 + 1.5*energy@0.5 + cauchy"])
def test_value_and_two_derivatives(kernel, tmp_path):
    """k = Σ w f(c r²), 2 ∂k/∂(r²) and 4 ∂²k/∂(r²)², from coincident points to 20 σ."""
    try:
        compiler = host.compiler()
    except BackendError as error:
        pytest.skip(str(error))
    radial, sigma = Radial.parse(kernel), 0.6
    source, library = tmp_path / "radial.cpp", tmp_path / "radial.so"
    source.write_text(PLATFORM + flatten("radial.h") + EVALUATE)
    terms = ",".join(t.name.upper() for t in radial.terms)
    subprocess.run(
        [*compiler, "-std=c++17", "-fPIC", "-shared", f"-DTERMS={terms}", str(source), "-o", str(library)], check=True
    )

    r2 = torch.cat([torch.zeros(1), torch.logspace(-8, 2.2, 200)]).double()
    out = torch.empty(len(r2), 3, dtype=torch.float64)
    weights, ratios = (
        (ctypes.c_double * len(radial.terms))(*v)
        for v in ([t.weight for t in radial.terms], [t.ratio for t in radial.terms])
    )
    ctypes.CDLL(str(library)).evaluate(
        ctypes.c_long(len(r2)), ctypes.c_void_p(r2.data_ptr()), ctypes.c_double(sigma), weights, ratios,
        ctypes.c_double(radial.epsilon), ctypes.c_void_p(out.data_ptr()),
    )  # fmt: skip

    s, c = r2 / sigma**2, 2 / sigma**2
    expected = torch.stack([radial.value(s), c * radial.slope(s), c**2 * radial.curvature(s)], dim=1)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-300)
