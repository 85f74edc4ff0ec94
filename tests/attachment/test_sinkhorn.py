"""The Sinkhorn divergence: closed forms, a dense twin, the envelope gradient, batches, unbalanced and partial shapes."""

import math

import numpy as np
import pytest
import torch

from shapeflow.attachment import SinkhornDivergence, compare, transport
from shapeflow.attachment.transport import Divergence, Points, Transport
from shapeflow.batch import ShapeBatch
from shapeflow.errors import ShapeflowError
from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.ops.bound import Kernel
from shapeflow.ragged import Ragged
from shapeflow.shape import Shape
from tests.shapes import circle, cloud, ellipsoid, open_patch, sphere

D = torch.float64
BACKENDS = ("native", "torch")


@pytest.fixture
def exact(monkeypatch):
    """Potentials to rounding rather than to the tolerance of a matching."""
    monkeypatch.setattr(transport, "TOLERANCE", 1e-11)
    monkeypatch.setattr(transport, "LONGEST", 3000)


def between(x, a, y, b, blur, reach=None, backend="native"):
    """S of two weighted clouds."""
    rows, columns = Ragged((0, len(x))), Ragged((0, len(y)))
    both = torch.cat([x, y])
    diameter = (both.amax(0) - both.amin(0)).norm().detach()[None]
    t = Transport.of(torch.full((1,), blur, dtype=D), reach, diameter, backend)
    return Divergence.apply(x, a, rows, t.target(Points(y, b, columns)), t)[0]


def clouds(n=30, m=40, mass=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, 2, generator=g, dtype=D) for k in (n, m))
    a, b = (0.1 + torch.rand(k, generator=g, dtype=D) for k in (n, m))
    return x, a / a.sum(), y + 0.3, mass * b / b.sum()


def dense(x, a, y, b, blur, reach=None):
    """The definition, minimised over potentials on dense matrices, and its value written as GeomLoss writes it."""
    eps, rho = blur**2, math.inf if reach is None else reach**2
    damp = 1 / (1 + eps / rho)

    def solve(x, a, y, b):
        cost = 0.5 * torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
        f, g = torch.zeros_like(a), torch.zeros_like(b)
        for _ in range(1500):
            f = -damp * eps * (b.log() + (g - cost) / eps).logsumexp(1)
            g = -damp * eps * (a.log() + (f - cost.T) / eps).logsumexp(1)
        return f, g

    (f, g), (fa, ga), (fb, gb) = solve(x, a, y, b), solve(x, a, x, a), solve(y, b, y, b)
    fa, fb = 0.5 * (fa + ga), 0.5 * (fb + gb)
    if reach is None:
        return float((a * (f - fa)).sum() + (b * (g - fb)).sum())
    phi = lambda f: (-f / rho).exp()  # noqa: E731
    return float((rho + eps / 2) * ((a * (phi(fa) - phi(f))).sum() + (b * (phi(fb) - phi(g))).sum()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reach, mass", [(None, 1.0), (1.0, 1.0), (0.5, 2.5), (2.0, 0.4)])
@pytest.mark.parametrize("blur", [0.3, 1.0])
def test_against_the_dense_twin(exact, backend, blur, reach, mass):
    x, a, y, b = clouds(mass=mass)
    assert float(between(x, a, y, b, blur, reach, backend)) == pytest.approx(dense(x, a, y, b, blur, reach), rel=1e-8)


@pytest.mark.parametrize("reach, mass", [(None, 1.0), (1.0, 1.0), (0.5, 2.5)])
def test_an_error_of_the_marginals_costs_its_square(reach, mass):
    """At the tolerance of a matching, 1e-4: the value to 1e-5 of itself."""
    x, a, y, b = clouds(mass=mass)
    assert float(between(x, a, y, b, 0.3, reach)) == pytest.approx(dense(x, a, y, b, 0.3, reach), rel=1e-5)


@pytest.mark.parametrize("reach", [None, 0.7])
def test_zero_at_the_target_positive_and_symmetric(exact, reach):
    x, a, y, b = clouds(mass=1.0 if reach is None else 1.7)
    there, back = float(between(x, a, y, b, 0.4, reach)), float(between(y, b, x, a, 0.4, reach))
    assert there > 1e-2 and back == pytest.approx(there, rel=1e-9)
    assert abs(float(between(x, a, x.clone(), a, 0.4, reach))) < 1e-10
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert abs(float(between(x, a, x[order], a[order], 0.4, reach))) < 1e-10


def test_a_translation_costs_half_its_square(exact):
    """S(α, α + c) = ½|c|², whatever the blur, and every point is pulled by its weight times −c."""
    x, a, _, _ = clouds()
    c = torch.tensor([0.7, -1.1], dtype=D)
    for blur in (0.2, 1.0, 5.0):
        leaf = x.clone().requires_grad_()
        s = between(leaf, a, x + c, a, blur)
        (gradient,) = torch.autograd.grad(s, leaf)
        assert float(s.detach()) == pytest.approx(0.5 * float(c.square().sum()), rel=1e-8)
        torch.testing.assert_close(gradient, -a[:, None] * c, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("blur", [0.01, 0.5, 3.0])
def test_two_points(exact, blur):
    """Balanced ½|x − y|²; with a reach (2ρ + ε)(1 − exp(−½|x − y|²/(2ρ + ε))), which no distance makes larger than 2ρ + ε."""
    one = torch.ones(1, dtype=D)
    x, y = torch.zeros(1, 3, dtype=D), torch.tensor([[1.0, 2.0, -2.0]], dtype=D)
    assert float(between(x, one, y, one, blur)) == pytest.approx(4.5, rel=1e-9)
    unit = 2 * 0.8**2 + blur**2
    want = unit * (1 - math.exp(-4.5 / unit))
    assert float(between(x, one, y, one, blur, reach=0.8)) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("blur", [0.3, 1.0])
def test_two_gaussians(exact, blur):
    """Janati, Muzellec, Peyré, Cuturi (2020), in one dimension, on a fine grid."""
    t = torch.linspace(-12, 13, 321, dtype=D)

    def law(mean, deviation):
        w = (-0.5 * ((t - mean) / deviation).square()).exp()
        return t[:, None], w / w.sum()

    def ot(s, r):
        e = blur**2
        root = math.sqrt(4 * s**2 * r**2 + e**2)
        return 0.5 * (s**2 + r**2 - root + e * (1 - math.log(2 * e)) + e * math.log(root + e))

    s, r = 0.8, 1.5
    want = 0.5 * 0.7**2 + ot(s, r) - 0.5 * ot(s, s) - 0.5 * ot(r, r)
    assert float(between(*law(0.0, s), *law(0.7, r), blur)) == pytest.approx(want, rel=1e-7)


@pytest.mark.parametrize("reach", [None, 0.8])
@pytest.mark.parametrize("normal_length", [None, 0.5])
@pytest.mark.parametrize(
    "source, target", [(circle(12), circle(9, 1.3)), (sphere(0), ellipsoid(subdivisions=0)), (open_patch(3), sphere(0))]
)
def test_the_envelope_gradient_against_finite_differences(exact, source, target, reach, normal_length):
    attachment, points = attach(source, target, 0.4, reach=reach, normal_length=normal_length)
    leaf = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(attachment(leaf).sum(), leaf)
    for seed in range(2):
        u = torch.randn(points.shape, generator=torch.Generator().manual_seed(seed), dtype=D)
        line = [float(attachment(points + t * 1e-3 * u)) for t in (-2, -1, 1, 2)]
        slope = (line[0] - 8 * line[1] + 8 * line[2] - line[3]) / 1.2e-2
        assert float((gradient * u).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-9)


def attach(source, target, blur, dtype=D, kernel="gaussian", backend="native", **more):
    sources, targets = (ShapeBatch.of(s if isinstance(s, list) else [s], dtype) for s in (source, target))
    sigma = torch.as_tensor(blur, dtype=dtype).reshape(-1)
    return compare("sinkhorn", Kernel(kernel, sigma, backend), sources, targets, **more), sources.points


@pytest.mark.parametrize("reach", [None, 0.8])
def test_a_batch_is_its_problems_one_by_one(reach):
    sources, targets, blurs = (
        [sphere(1), ellipsoid(), sphere(2)],
        [ellipsoid(), sphere(1), ellipsoid()],
        [0.3, 0.5, 1.0],
    )
    attachment, points = attach(sources, targets, blurs, reach=reach)
    leaf = points.clone().requires_grad_()
    whole = attachment(leaf)
    (gradient,) = torch.autograd.grad(whole.sum(), leaf)
    at = 0
    for k in range(3):
        alone, q = attach(sources[k], targets[k], blurs[k], reach=reach)
        q = q.clone().requires_grad_()
        value = alone(q)
        (g,) = torch.autograd.grad(value.sum(), q)
        assert float(whole[k].detach()) == pytest.approx(float(value.detach()), rel=1e-6)
        torch.testing.assert_close(gradient[at : at + len(q)], g, rtol=1e-3, atol=1e-7)
        at += len(q)


def test_several_blurs_are_averaged():
    pair = sphere(1), ellipsoid(subdivisions=1)
    both, points = attach(*pair, 0.3, kernel="0.5*gaussian + 0.5*gaussian@2.0")
    singles = [float(attach(*pair, w)[0](points)) for w in (0.3, 0.6)]
    assert float(both(points)) == pytest.approx(sum(singles) / 2, rel=1e-12)
    assert float(both.reference()) == pytest.approx(float(attach(*pair, 0.3)[0].reference()))


def test_single_precision_points_keep_double_potentials():
    pair = sphere(2), ellipsoid()
    (double, x), (single, y) = attach(*pair, 0.2), attach(*pair, 0.2, torch.float32)
    value = single(y.requires_grad_())
    (gradient,) = torch.autograd.grad(value.sum(), y)
    assert value.dtype == D and gradient.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(float(double(x)), rel=1e-5)


def test_far_from_the_origin_and_far_apart():
    pair = sphere(1), ellipsoid(subdivisions=1)
    near = float(attach(*pair, 0.3)[0](torch.as_tensor(pair[0].points)))
    moved = [s.replace(points=s.points + 1e4) for s in pair]
    assert float(attach(*moved, 0.3)[0](torch.as_tensor(moved[0].points))) == pytest.approx(near, rel=1e-6)
    away = pair[0].replace(points=pair[0].points + [30.0, 0, 0])
    assert float(attach(pair[0], away, 0.3)[0](torch.as_tensor(pair[0].points))) == pytest.approx(450, rel=1e-6)


def test_what_is_out_of_reach_is_left_alone():
    """A source with a part that the target lacks: with a reach the part is not pulled, and the rest as if it were not there."""
    whole, lump = sphere(1), sphere(1, 0.5)
    both = Shape(
        np.concatenate([whole.points, lump.points + [8.0, 0, 0]]),
        np.concatenate([whole.simplices, lump.simplices + len(whole.points)]),
    )
    target = ellipsoid(subdivisions=1)

    def force(shape, reach):
        attachment, points = attach(shape, target, 0.3, reach=reach)
        leaf = points.clone().requires_grad_()
        return torch.autograd.grad(attachment(leaf).sum(), leaf)[0]

    alone, partial, balanced = force(whole, 0.5), force(both, 0.5), force(both, None)
    n = len(whole.points)
    torch.testing.assert_close(partial[:n], alone, rtol=1e-2, atol=1e-4)
    # nothing pulls the lump across; that it costs its area makes it shrink, no more
    assert float(partial[n:].sum(0).norm()) < 1e-5 < 1e-1 < float(balanced[n:].sum(0).norm())


def test_degenerate_simplices_weigh_nothing_and_do_not_poison():
    base, target = sphere(1), ellipsoid(subdivisions=1)
    spoiled = Shape(base.points, np.concatenate([base.simplices, [[0, 0, 1], [2, 2, 2]]]))
    out = []
    for shape in (base, spoiled):
        attachment, points = attach(shape, target, 0.4, normal_length=0.3)
        leaf = points.clone().requires_grad_()
        value = attachment(leaf)
        out.append((float(value.detach()), torch.autograd.grad(value.sum(), leaf)[0]))
    assert out[1][0] == pytest.approx(out[0][0], rel=1e-6)
    torch.testing.assert_close(out[1][1], out[0][1], rtol=1e-3, atol=1e-6)


def test_normals_tell_opposite_sheets_apart():
    sheet = open_patch(5)
    flipped = Shape(sheet.points, sheet.simplices[:, ::-1])
    points = torch.as_tensor(sheet.points)
    assert float(attach(sheet, flipped, 0.1)[0](points)) == pytest.approx(0, abs=1e-6)
    # every normal turned over: a distance of 2ℓ for all the mass
    assert float(attach(sheet, flipped, 0.1, normal_length=0.5)[0](points)) == pytest.approx(0.5, rel=0.05)


def test_points_have_weights_but_no_normals():
    attachment, points = attach(cloud(), cloud(25, seed=1), 0.5)
    assert isinstance(attachment.parts[0], SinkhornDivergence) and float(attachment(points)) > 0.01
    with pytest.raises(ShapeflowError, match="needs curves or surfaces"):
        attach(cloud(), cloud(), 0.5, normal_length=1.0)


def test_stopping_early_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(transport, "LONGEST", 3)
    attachment, points = attach(sphere(1), ellipsoid(), 0.02)
    attachment(points)
    assert "optimal transport stopped after 3 steps" in caplog.text


def test_a_lost_problem_does_not_stop_the_others():
    sources, targets = [sphere(1), sphere(1)], [ellipsoid(), ellipsoid()]
    attachment, points = attach(sources, targets, [0.4, 0.4])
    spoiled = points.clone()
    spoiled[0, 0] = torch.nan
    value = attachment(spoiled)
    assert bool(value[0].isnan()) and float(value[1]) == pytest.approx(float(attachment(points)[1]), rel=1e-9)


def test_says_why_it_cannot_be_recorded():
    spec = MatchingSpec(sigma=0.6, attachment="sinkhorn", attachment_widths=(0.4,), device="cpu")
    objective = MatchingObjective([Problem(sphere(0), sphere(0), spec)])
    assert objective.replay.failure == "optimal transport takes as many steps as its marginals need"
    assert (
        attach(sphere(0), sphere(0), 0.4)[0].waits()
        and not compare(
            "varifold", Kernel("gaussian", torch.ones(1, dtype=D), "native"), *2 * [ShapeBatch.of([sphere(0)])]
        ).waits()
    )
