"""The map of space that a matching is: any points forward, back, on the way; momenta on vertices, on a grid, on a subsample."""

import dataclasses
import math

import numpy as np
import pytest

from shapeflow import Flow
from shapeflow.errors import ShapeflowError
from shapeflow.matching import MatchingSpec, match
from tests.shapes import circle, ellipsoid, open_patch, sphere

SPEC = MatchingSpec(sigma=0.6, attachment_widths=(0.4,), steps=6, gamma=1e-3, max_iter=4)
CONTROLS = [
    {},
    {"control_points": "grid", "control_spacing": 0.5},
    {"control_points": "subsample", "control_count": 30},
]


def matched(source=None, target=None, **changes):
    spec = dataclasses.replace(SPEC, **changes)
    source, target = source or sphere(1), target or ellipsoid(subdivisions=1)
    result = match([source], [target], spec)
    return Flow.of(source, result.control_points[0], result.momenta[0], spec), source, result


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("normalization", ["none", "sinkhorn", "sinkhorn_unrolled", "one_step"])
def test_vertices_end_where_the_matching_put_them(control, normalization):
    flow, source, result = matched(normalization=normalization, **control)
    np.testing.assert_allclose(flow.forward(source.points), result.deformed[0].points, rtol=0, atol=1e-9)
    assert flow.jacobian(source.points).min() == pytest.approx(result.rows[0]["jacobian_min"], rel=1e-8)
    path = flow.path(source.points)
    assert path.shape == (7, *source.points.shape)
    np.testing.assert_array_equal(path[0], source.points)
    np.testing.assert_allclose(path[-1], result.deformed[0].points, rtol=0, atol=1e-8)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
@pytest.mark.parametrize("integrator, order", [("euler", 1), ("ralston", 2), ("rk4", 4)])
def test_there_and_back_to_the_order_of_the_integrator(control, normalization, integrator, order):
    """Points on the mesh, inside it and well outside: the way back misses the start by O(h^order)."""
    flow, source, _ = matched(normalization=normalization, **control)
    flow = dataclasses.replace(flow, spec=dataclasses.replace(flow.spec, integrator=integrator))
    x = np.concatenate([source.points, 0.4 * source.points, 2.5 * source.points])
    errors = []
    for steps in (8, 16):
        fine = flow.with_steps(steps)
        errors.append(float(np.abs(fine.inverse(fine.forward(x)) - x).max()))
    moved = float(np.abs(flow.forward(x) - x).max())
    assert errors[1] < {1: 0.1, 2: 5e-3, 4: 1e-5}[order] * moved
    assert math.log2(errors[0] / errors[1]) > order - 0.5


def test_the_inverse_is_the_inverse_from_the_other_side_too():
    flow, source, _ = matched(integrator="rk4")
    fine = flow.with_steps(20)
    x = 1.3 * source.points
    np.testing.assert_allclose(fine.forward(fine.inverse(x)), x, rtol=0, atol=1e-6)


def test_planar_curves_and_a_grid_to_look_at():
    flow, _, _ = matched(circle(30), circle(24, 1.3), integrator="rk4")
    grid = np.stack(np.meshgrid(*2 * [np.linspace(-1.5, 1.5, 7)]), -1).reshape(-1, 2)
    fine = flow.with_steps(20)
    np.testing.assert_allclose(fine.inverse(fine.forward(grid)), grid, rtol=0, atol=1e-6)
    assert flow.jacobian(grid).min() > 0


def test_a_mesh_at_full_resolution_follows_a_coarse_one():
    """Momenta of 42 vertices carry 2,562: the fine sphere's vertices that are the coarse one's move with them."""
    flow, coarse, result = matched(sphere(1), ellipsoid())
    fine = sphere(4)
    shared = [int(((fine.points - x) ** 2).sum(1).argmin()) for x in coarse.points]
    np.testing.assert_allclose(flow.forward(fine.points)[shared], result.deformed[0].points, rtol=0, atol=1e-9)


def test_open_surfaces_flow_back_too():
    patch = open_patch(6)
    flow, _, _ = matched(patch, patch.replace(points=patch.points * [1.2, 0.9, 1.5]), integrator="rk4")
    fine = flow.with_steps(20)
    np.testing.assert_allclose(fine.inverse(fine.forward(patch.points)), patch.points, rtol=0, atol=1e-6)


def test_refusals():
    flow, source, result = matched()
    with pytest.raises(ShapeflowError, match=r"points must be \(m, 3\); received \(4, 2\)"):
        flow.forward(np.zeros((4, 2)))
    with pytest.raises(ShapeflowError, match="momenta"):
        Flow.of(source, result.control_points[0][:5], result.momenta[0], SPEC)
