"""Parallel transport and geodesic regression, on motions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from shapeflow.atlas import AtlasSpec
from shapeflow.demo.flow import shoot
from shapeflow.demo.templates import chart, embed
from shapeflow.errors import ShapeflowError
from shapeflow.matching import MatchingSpec
from shapeflow.shape import Shape
from shapeflow.statistics import TangentSpace, geodesic_regression, parallel_transport, transported_space

KERNELS = [("gaussian", "none"), ("cauchy", "sinkhorn")]


def spaced(kernel: str, normalization: str, n: int = 14) -> tuple[TangentSpace, np.ndarray, np.ndarray]:
    """A closed curve of well separated points, and two smooth momenta on it."""
    c, cells = chart("curves", n)
    shape = Shape(embed("curves", c), cells)
    q = shape.points
    along = 0.05 * np.stack([np.sin(3 * q[:, 1]), q[:, 0]], axis=1)
    other = 0.05 * np.stack([q[:, 1] ** 2, np.cos(4 * q[:, 0])], axis=1)
    return TangentSpace(shape, q, shape.masses(), kernel, 0.25, normalization, steps=20, integrator="rk4"), along, other


@pytest.mark.parametrize(("kernel", "normalization"), KERNELS)
def test_a_geodesic_transports_its_own_momentum(kernel, normalization):
    space, along, _ = spaced(kernel, normalization)
    result = parallel_transport(space, along, along, steps=10)
    ahead = space.shapes(along[None])[0].points
    np.testing.assert_allclose(result.control_points, ahead, atol=1e-6)
    there = transported_space(space, result)
    # the end's momentum goes on: shooting it arrives where twice the momentum does
    onward = there.shapes(result.momentum[None])[0].points
    twice = space.shapes(2 * along[None])[0].points
    np.testing.assert_allclose(onward, twice, atol=1e-5 + 1e-3 * np.abs(twice - ahead).max())


@pytest.mark.parametrize(("kernel", "normalization"), KERNELS)
def test_lengths_and_angles_are_kept_and_the_way_back_undoes_it(kernel, normalization):
    space, along, other = spaced(kernel, normalization)
    before = space.gram(np.stack([along, other]))
    errors = []
    for steps in (5, 10, 20):
        result = parallel_transport(space, along, other, steps=steps)
        end = parallel_transport(space, along, along, steps=steps)
        there = transported_space(space, result)
        after = there.gram(np.stack([end.momentum, result.momentum]))
        np.testing.assert_allclose(np.diag(after), np.diag(before), rtol=2e-5)
        # the angle is kept to the geodesic's own momentum, whose length drifts with the integrator
        np.testing.assert_allclose(after, before, atol=5e-4 * before.max())
        back = parallel_transport(there, -end.momentum, result.momentum, steps=steps)
        off = space.gram((back.momentum - other)[None])[0, 0]
        errors.append(np.sqrt(off / before[1, 1]))
    assert errors[2] < errors[0] < 0.2 and errors[2] < 0.05, errors


def test_far_apart_particles_do_not_turn_a_vector():
    """Particles that do not interact live in flat space: transport leaves momenta as they are."""
    q = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    space = TangentSpace(Shape(q), q, np.ones(3), "gaussian", 1.0)
    along, w = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]]), np.array([[0.5, 0.0], [1.0, 1.0], [0.0, -2.0]])
    result = parallel_transport(space, along, w, steps=4)
    np.testing.assert_allclose(result.momentum, w, atol=1e-6)
    np.testing.assert_allclose(result.control_points, q + along, atol=1e-9)
    assert not parallel_transport(space, along, np.zeros((3, 2))).momentum.any()


def test_transport_refuses_what_does_not_fit():
    space, along, other = spaced("gaussian", "none")
    with pytest.raises(ShapeflowError, match="momentum must be"):
        parallel_transport(space, along, other[:3])
    with pytest.raises(ShapeflowError, match="one step"):
        parallel_transport(space, along, other, steps=0)


def test_regression_recovers_the_trajectory_the_shapes_were_made_on():
    c, cells = chart("curves", 24)
    start = Shape(embed("curves", c), cells)
    rng = np.random.default_rng(0)
    momentum = 0.03 * np.stack([start.points[:, 0] * 2, -start.points[:, 1]], axis=1)
    age = np.array([20.0, 30.0, 40.0, 50.0, 60.0])
    times = (age - age.mean()) / age.std()
    shapes = [start.replace(points=shoot(start.points, start.points, t * momentum, 0.3)) for t in times]
    matching = MatchingSpec(
        sigma=0.3, attachment_widths=(0.2,), gamma=1e-5, normalization="none", max_iter=60, steps=5, device="cpu"
    )
    initial = start.replace(points=start.points + 0.01 * rng.normal(size=start.points.shape))
    found = geodesic_regression(initial, shapes, age.tolist(), AtlasSpec(matching=matching, max_iter=60))
    assert found.explained > 0.97 and (found.mean, found.deviation) == (40.0, pytest.approx(age.std()))
    assert found.residual < 0.05 * found.residual_of_mean
    for age_asked, truth in zip((20.0, 60.0), (shapes[0], shapes[-1]), strict=True):
        (shape,) = found.at([age_asked])
        from shapeflow.evaluation import surface_distance

        moved = np.linalg.norm(truth.points - start.points, axis=1).max()
        assert surface_distance(shape, truth)[0] < 0.1 * moved
    # what comes next, beyond the ages seen
    (later,) = found.at([70.0])
    expected = start.replace(points=shoot(start.points, start.points, (70 - 40) / age.std() * momentum, 0.3))
    assert surface_distance(later, expected)[0] < 0.15 * np.linalg.norm(expected.points - start.points, axis=1).max()
    with pytest.raises(ShapeflowError, match="varies"):
        geodesic_regression(initial, shapes, [1.0] * 5, AtlasSpec(matching=matching))
    with pytest.raises(ShapeflowError, match="one finite number"):
        geodesic_regression(initial, shapes, [1.0, 2.0], AtlasSpec(matching=matching))
