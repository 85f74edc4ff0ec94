"""Attachments: zero at the target, blind to what they should not see, differentiable, the same in a batch."""

import numpy as np
import pytest
import torch

from shapeflow.attachment import Landmarks, compare
from shapeflow.batch import ShapeBatch
from shapeflow.errors import ShapeflowError
from shapeflow.ops.bound import Kernel
from shapeflow.shape import Shape
from tests.shapes import circle, cloud, ellipsoid, open_patch, sphere

KINDS = {
    "surface": (sphere(1), ellipsoid(subdivisions=1)),
    "open": (open_patch(), sphere(1)),
    "curve2": (circle(), circle(30, 1.3)),
    "curve3": (circle(d=3), circle(30, 1.3, 3)),
}
NAMES = ("measure", "current", "varifold", "oriented_varifold")
KAPPA = 0.8
CASES = [(name, kind) for name in NAMES for kind in KINDS] + [("measure", "points")]
KINDS["points"] = (cloud(), cloud(25, seed=1))


def norm(name, source, target, widths=(0.5,), backend="native", kernel="gaussian", **more):
    sources, targets = (ShapeBatch.of(s if isinstance(s, list) else [s]) for s in (source, target))
    sigma = torch.tensor(widths, dtype=torch.float64)
    return compare(name, Kernel(kernel, sigma, backend), sources, targets, kappa=KAPPA, **more), sources.points


def value(name, source, target, **more):
    attachment, points = norm(name, source, target, **more)
    return float(attachment(points))


@pytest.mark.parametrize("name, kind", CASES)
def test_zero_at_the_target_and_positive_elsewhere(name, kind):
    source, target = KINDS[kind]
    unit = float(norm(name, source, target)[0].reference())
    assert abs(value(name, target, target)) < 1e-12 * unit
    assert value(name, source, target) > 1e-3 * unit
    assert value(name, source, target) == pytest.approx(value(name, target, source), rel=1e-10)  # a distance


@pytest.mark.parametrize("name, kind", CASES)
def test_against_the_sum_over_pairs_of_simplices(name, kind):
    source, target = KINDS[kind]

    def parts(shape):
        corners = shape.points[shape.simplices]
        c, k = corners.mean(1), corners.shape[1]
        if k == 1:
            return c, np.ones(len(c)), None
        n = (
            corners[:, 1] - corners[:, 0]
            if k == 2
            else np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
        )
        m = np.linalg.norm(n, axis=1)
        return c, m, n / m[:, None]

    def inner(a, b):
        (c, m, u), (c2, m2, u2) = parts(a), parts(b)
        k = np.exp(-((c[:, None] - c2[None]) ** 2).sum(-1) / 0.25) * m[:, None] * m2[None]
        angle = {
            "measure": lambda: 1,
            "current": lambda: u @ u2.T,
            "varifold": lambda: (u @ u2.T) ** 2,
            "oriented_varifold": lambda: np.exp(2 * (u @ u2.T - 1) / KAPPA**2),
        }
        return float((k * angle[name]()).sum())

    want = inner(source, source) + inner(target, target) - 2 * inner(source, target)
    assert value(name, source, target) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("name, kind", CASES)
def test_gradient(name, kind):
    attachment, points = norm(name, *KINDS[kind])
    assert torch.autograd.gradcheck(
        attachment, points[:, :].clone().requires_grad_(), rtol=1e-6, atol=1e-8, fast_mode=True
    )


@pytest.mark.parametrize("name", NAMES)
def test_rigid_motions_of_both_change_nothing(name):
    source, target = KINDS["surface"]
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1.0]])
    moved = [s.replace(points=s.points @ turn.T + np.array([3.0, -1, 2])) for s in (source, target)]
    assert value(name, *moved) == pytest.approx(value(name, source, target), rel=1e-9)


def test_who_hears_orientation():
    source, target = KINDS["surface"]
    flipped = Shape(target.points, target.simplices[:, ::-1])
    assert value("oriented_varifold", source, flipped) > 1.5 * value("oriented_varifold", source, target)
    assert value("varifold", source, flipped) == pytest.approx(value("varifold", source, target), rel=1e-12)
    assert value("measure", source, flipped) == pytest.approx(value("measure", source, target), rel=1e-12)
    assert value("current", source, flipped) > 2 * value("current", source, target)


@pytest.mark.parametrize("name", NAMES)
def test_sampling_does_not_matter_in_the_limit(name):
    """A sphere of 642 vertices against one of 162: what is left is discretisation, hundreds of times below another shape."""
    coarse, fine, other = sphere(2), sphere(3), ellipsoid(subdivisions=3)
    assert value(name, coarse, fine) < 0.02 * value(name, coarse, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [[[0, 0, 1]], [[0, 0, 0]], [[0, 1, 0], [2, 2, 2]]])
def test_degenerate_simplices_weigh_nothing_and_do_not_poison(name, extra):
    base = sphere(1)
    spoiled = Shape(base.points, np.concatenate([base.simplices, extra]))
    points = torch.as_tensor(base.points).requires_grad_()
    moved = points * torch.tensor([1.1, 1.0, 0.9])
    (want,) = torch.autograd.grad(norm(name, base, ellipsoid())[0](moved).sum(), points)
    out = norm(name, spoiled, ellipsoid())[0](points * torch.tensor([1.1, 1.0, 0.9])).sum()
    (gradient,) = torch.autograd.grad(out, points)
    assert float(out.detach()) == pytest.approx(float(norm(name, base, ellipsoid())[0](moved.detach())), rel=1e-9)
    torch.testing.assert_close(gradient, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_sliver_pulls_no_harder_than_its_sides(name):
    """As a triangle's height goes to zero its direction turns faster and faster; the force on its corners stays bounded."""
    target = KINDS["open"][0]
    forces = []
    for height in (1e-3, 1e-6, 1e-9, 1e-12):
        sliver = Shape(np.array([[0.2, 0.3, 0.1], [0.8, 0.3, 0.1], [0.5, 0.3 + height, 0.1]]), np.array([[0, 1, 2]]))
        attachment, points = norm(name, sliver, target)
        points = points.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(attachment(points).sum(), points)
        forces.append(float(gradient.norm()))
    assert max(forces) < 1.01 * forces[0]


@pytest.mark.parametrize("name", [*NAMES, "sinkhorn"])
def test_a_boundary_is_nothing_special(name):
    """A closed surface against itself with a hole: the forces at the hole's edge are of the size of those elsewhere, and moving the edge's vertices moves A
    smoothly.
    """
    whole = sphere(2)
    kept = whole.points[whole.simplices].mean(1)[:, 2] < 0.6
    cap = Shape(whole.points, whole.simplices[kept])
    edges = np.sort(cap.simplices[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    pairs, count = np.unique(edges, axis=0, return_counts=True)
    rim, inner = np.unique(pairs[count == 1]), np.setdiff1d(np.unique(cap.simplices), np.unique(pairs[count == 1]))
    more = {"reach": 0.3} if name == "sinkhorn" else {}
    for source, target in ((cap, ellipsoid()), (cap, cap.replace(points=cap.points * 1.1)), (ellipsoid(), cap)):
        attachment, points = norm(name, source, target, widths=(0.3,), **more)
        points = points.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(attachment(points).sum(), points)
        force = gradient.norm(dim=1)
        assert bool(torch.isfinite(force).all())
        if source is cap:
            assert float(force[rim].max()) < 5 * float(force[inner].max())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_problems_one_by_one(name):
    sources, targets = [sphere(1), ellipsoid()], [ellipsoid(), sphere(2)]
    attachment, points = norm(name, sources, targets, widths=(0.5, 0.9))
    singles = [value(name, s, t, widths=(w,)) for s, t, w in zip(sources, targets, (0.5, 0.9), strict=True)]
    assert attachment(points).tolist() == pytest.approx(singles, rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_several_widths_are_the_mean_of_one_each(name):
    source, target = KINDS["surface"]
    both = value(name, source, target, kernel="0.5*gaussian + 0.5*gaussian@2.0")
    singles = [value(name, source, target, widths=(w,)) for w in (0.5, 1.0)]
    assert both == pytest.approx(sum(singles) / 2, rel=1e-9)


def test_oriented_varifolds_between_their_neighbours():
    """κ → ∞ forgets orientation: a measure. Two sheets of opposite orientation, which cancel as a current, do not."""
    source, target = KINDS["surface"]
    wide = compare("oriented_varifold", Kernel("gaussian", torch.full((1,), 0.5, dtype=torch.float64), "native"),
                   ShapeBatch.of([source]), ShapeBatch.of([target]), kappa=1e4)  # fmt: skip
    points = torch.as_tensor(source.points)
    assert float(wide(points)) == pytest.approx(value("measure", source, target), rel=1e-6)
    sheet = open_patch()
    double = Shape(sheet.points, np.concatenate([sheet.simplices, sheet.simplices[:, ::-1]]))
    assert float(norm("current", double, double)[0].reference()) < 1e-12
    assert float(norm("oriented_varifold", double, double)[0].reference()) > float(
        norm("oriented_varifold", sheet, sheet)[0].reference()
    )


def test_select_keeps_shapes_and_their_order():
    shapes = [sphere(1), ellipsoid(), sphere(0)]
    batch = ShapeBatch.of(shapes).select([2, 1])
    alone = ShapeBatch.of([shapes[2], shapes[1]])
    assert batch.rows == alone.rows and batch.cells == alone.cells
    torch.testing.assert_close(batch.points, alone.points)
    assert torch.equal(batch.simplices, alone.simplices)
    torch.testing.assert_close(
        batch.mean_square_radius()[1], torch.tensor(shapes[1].centroid_size() ** 2, dtype=torch.float64)
    )


def test_landmarks():
    source, target = ShapeBatch.of([sphere(1)]), ShapeBatch.of([ellipsoid(subdivisions=1)])
    attachment = Landmarks.between(source, target)
    want = float((source.points - target.points).square().sum())
    assert float(attachment(source.points)) == pytest.approx(want)
    assert torch.autograd.gradcheck(attachment, source.points.clone().requires_grad_(), fast_mode=True)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Landmarks.between(ShapeBatch.of([sphere(1)]), ShapeBatch.of([sphere(2)])), "as many points"),
        (lambda: value("current", *KINDS["points"]), "needs curves or surfaces"),
        (lambda: value("varifold", sphere(1), circle(d=3)), "both be"),
        (lambda: value("oriented_varifold", *KINDS["points"]), "needs curves or surfaces"),
        (lambda: value("oriented_varifold", *KINDS["surface"], kernel="cauchy"), "needs kernel gaussian"),
        (lambda: value("sinkhorn", *KINDS["surface"], kernel="cauchy"), "needs kernel gaussian"),
        (lambda: value("curent", *KINDS["surface"]), "unknown attachment 'curent'"),
        (lambda: ShapeBatch.of([sphere(1), circle()]), "one kind"),
    ],
)
def test_refusals(make, said):
    with pytest.raises(ShapeflowError, match=said):
        make()
