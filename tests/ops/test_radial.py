"""The radial formulas: derivatives against autograd, text round trips, refusals."""

import pytest
import torch

from shapeflow.errors import KernelError
from shapeflow.ops import KERNELS, Radial, Term

ALL = [*KERNELS, "0.3*gaussian@0.5 + 2.0*cauchy@3.0", "laplacian + energy@2.0 ; 0.01"]


@pytest.mark.parametrize("name", ALL)
def test_slope_and_curvature_are_the_derivatives_of_the_value(name):
    radial = Radial.parse(name)
    s = torch.linspace(0, 9, 50, dtype=torch.float64, requires_grad=True)
    f = radial.value(s)
    (df,) = torch.autograd.grad(f.sum(), s, create_graph=True)
    (ddf,) = torch.autograd.grad(df.sum(), s)
    torch.testing.assert_close(radial.slope(s), df, rtol=1e-12, atol=1e-12)
    # ε = 1e-3 makes the laplacian's second derivative 1/(4ε³) at 0: the scale is in the rtol
    torch.testing.assert_close(radial.curvature(s), ddf, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_is_one_at_zero_and_decreases(name):
    f = Radial.parse(name).value(torch.linspace(0, 50, 200, dtype=torch.float64))
    assert f[0] == 1 and bool((f[1:] < f[:-1]).all()) and bool((f > 0).all())


@pytest.mark.parametrize("name", ALL)
def test_text_is_read_back(name):
    radial = Radial.parse(name)
    assert Radial.parse(str(radial)) == radial
    assert sum(t.weight for t in radial.terms) == pytest.approx(
        float(radial.value(torch.zeros((), dtype=torch.float64)))
    )


@pytest.mark.parametrize(
    "text, said",
    [
        ("gausian", "unknown kernel 'gausian'"),
        ("2 gaussian", "cannot read"),
        ("", "cannot read"),
        ("-1*gaussian", "weight"),
        ("0.5.3*gaussian", "cannot read .* '0.5.3' is no number"),
        ("gaussian@1e", "'1e' is no number"),
        ("laplacian ; small", "'small' is no number"),
        ("laplacian ; 0", "ε of the laplacian must be a positive number"),
    ],
)
def test_refuses_what_it_cannot_read(text, said):
    with pytest.raises(KernelError, match=said):
        Radial.parse(text)


def test_refuses_weights_and_widths_that_are_not_positive():
    with pytest.raises(KernelError, match="weight"):
        Term("gaussian", 0.0)
    with pytest.raises(KernelError, match="width ratio"):
        Term("gaussian", 1.0, -2.0)
