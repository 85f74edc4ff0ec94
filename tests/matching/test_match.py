"""Matching: the energy and its gradient, what comes out, batches, control points, the objective of Deformetrica."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from shapeflow.errors import ConfigError, ShapeflowError
from shapeflow.matching import MatchingSpec, match
from shapeflow.matching.control import grid
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.sampling import farthest_points
from shapeflow.shape import Shape
from tests.shapes import circle, cloud, ellipsoid, open_patch, sphere

SPEC = MatchingSpec(sigma=0.6, attachment_widths=(0.4,), steps=4, gamma=1e-3, max_iter=40)


def spec(**changes):
    return dataclasses.replace(SPEC, **changes)


@pytest.mark.parametrize("normalization", ["none", "sinkhorn", "sinkhorn_unrolled", "one_step"])
@pytest.mark.parametrize("integrator", ["euler", "ralston", "rk4"])
def test_gradient_of_the_whole_energy(normalization, integrator):
    problem = Problem(circle(9), circle(7, 1.2), spec(normalization=normalization, integrator=integrator, steps=3))
    objective = MatchingObjective([problem])
    p = 0.05 * torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, gradient = objective.evaluate(p)
    for k in range(6):
        step = torch.zeros_like(p)
        step.view(-1)[3 * k] = 1e-4
        line = [float(objective.evaluate(p + t * step)[0]) for t in (-2, -1, 1, 2)]
        slope = (line[0] - 8 * line[1] + 8 * line[2] - line[3]) / 1.2e-3
        assert float(gradient.view(-1)[3 * k]) == pytest.approx(slope, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize(
    "source, target, attachment",
    [
        (sphere(2), ellipsoid(), "varifold"),
        (sphere(2), ellipsoid(), "current"),
        (sphere(2), ellipsoid(), "measure"),
        (sphere(2), ellipsoid(), "oriented_varifold"),
        (circle(40), circle(30, 1.3), "oriented_varifold"),
        (sphere(1), ellipsoid(subdivisions=1), "sinkhorn"),
        (cloud(), cloud().replace(points=cloud().points * 1.1), "sinkhorn"),
        (sphere(1), ellipsoid(subdivisions=1), "landmarks"),
        (open_patch(), open_patch().replace(points=open_patch().points * [1.2, 0.9, 1.5]), "varifold"),
        (circle(40), circle(30, 1.3), "varifold"),
        (circle(40, d=3), circle(30, 1.3, d=3), "current"),
        (cloud(), cloud().replace(points=cloud().points * 1.1), "measure"),
    ],
)
@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
def test_deforms_the_source_onto_the_target(source, target, attachment, normalization):
    result = match([source], [target], spec(attachment=attachment, normalization=normalization))
    (row,) = result.rows
    objective = MatchingObjective(
        [
            Problem(
                source, target, SPEC if attachment == "x" else spec(attachment=attachment, normalization=normalization)
            )
        ]
    )
    at_rest = float(objective.attachment(objective.source.points))
    assert row["attachment"] < 0.05 * at_rest
    assert row["jacobian_min"] > 0 and row["status"] in ("converged", "max_iter")
    assert row["distance"] == pytest.approx(np.sqrt(2 * row["hamiltonian"])) and row["distance"] > 0
    history = result.history[0]
    assert history[-1] == pytest.approx(row["objective"], rel=1e-9) and history[-1] < history[0]


def test_a_shape_is_at_no_distance_from_itself():
    (row,) = match([sphere(1)], [sphere(1)], SPEC).rows
    assert row["distance"] < 1e-6 and row["attachment"] < 1e-10


def test_a_translation_has_its_length_as_distance():
    """Normalized with masses that sum to one, moving by c costs ½|c|²: the distance is a length in mesh units."""
    moved = sphere(2).replace(points=sphere(2).points + [0.3, 0, 0])
    (row,) = match([sphere(2)], [moved], spec(gamma=1e-4, sigma=3.0, max_iter=60)).rows
    assert row["distance"] == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
def test_a_batch_is_its_problems_one_by_one(normalization):
    sources, targets = [sphere(1), sphere(2), ellipsoid()], [ellipsoid(), sphere(1), sphere(1)]
    specs = [
        spec(sigma=s, attachment_widths=(w,), normalization=normalization, max_iter=6)
        for s, w in ((0.5, 0.4), (0.8, 0.3), (0.6, 0.5))
    ]
    whole = match(sources, targets, specs)
    for b in range(3):
        alone = match(sources[b : b + 1], targets[b : b + 1], specs[b])
        for name in ("hamiltonian", "attachment", "objective", "jacobian_min", "evaluations"):
            # six iterations from rest amplify the rounding of another summation order
            assert whole.rows[b][name] == pytest.approx(alone.rows[0][name], rel=1e-5)


def test_landmarks_are_carried_and_can_be_what_is_compared():
    source, target = sphere(2), ellipsoid()
    marks = [0, 5, 33, 80]
    result = match([source] * 2, [target] * 2, SPEC, source_landmarks=[source.points[marks], None])
    np.testing.assert_allclose(result.carried[0], result.deformed[0].points[marks], atol=1e-10)
    assert result.carried[1] is None
    compared = match(
        [source],
        [target],
        spec(attachment="landmarks"),
        source_landmarks=[source.points[marks]],
        target_landmarks=[target.points[marks]],
    )
    before = np.linalg.norm(source.points[marks] - target.points[marks], axis=1).mean()
    assert np.linalg.norm(compared.carried[0] - target.points[marks], axis=1).mean() < 0.1 * before


def test_one_bad_subject_does_not_disturb_the_others():
    far = ellipsoid().replace(points=ellipsoid().points * 1e30)  # in single precision its areas overflow
    result = match([sphere(1), sphere(1)], [far, ellipsoid()], spec(max_iter=5, units="mesh", dtype="float32"))
    alone = match([sphere(1)], [ellipsoid()], spec(max_iter=5, units="mesh", dtype="float32"))
    assert result.rows[0]["status"] == "diverged"
    assert result.rows[1]["objective"] == pytest.approx(alone.rows[0]["objective"], rel=1e-4)


def test_single_precision_ends_where_double_does():
    double, single = (
        match([sphere(2)], [ellipsoid()], spec(dtype=t, max_iter=60, gamma=1e-2)).rows[0]
        for t in ("float64", "float32")
    )
    assert single["status"] in ("converged", "max_iter")
    assert single["objective"] == pytest.approx(double["objective"], rel=0.02)


@pytest.mark.parametrize(
    "control",
    [{"control_points": "grid", "control_spacing": 0.5}, {"control_points": "subsample", "control_count": 40}],
)
@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
def test_control_points_carry_the_mesh(control, normalization):
    result = match([sphere(2)], [ellipsoid()], spec(normalization=normalization, max_iter=60, **control))
    assert result.momenta[0].shape == result.control_points[0].shape and len(result.momenta[0]) != 162
    assert result.rows[0]["objective"] < 0.02 * result.history[0][0]


def test_control_point_layouts():
    points = grid(np.array([[0.0, 0.0], [2.5, 1.0]]), 1.0)
    np.testing.assert_allclose(points, [[0.25, 0], [0.25, 1], [1.25, 0], [1.25, 1], [2.25, 0], [2.25, 1]])
    some = farthest_points(sphere(2).points, 20)
    np.testing.assert_array_equal(farthest_points(sphere(2).points, 10), some[:10])


def test_several_widths_are_one_kernel():
    radial = spec(attachment_widths=(0.2, 0.4), attachment_kernel="cauchy").attachment_radial()
    assert str(radial) == "0.5*cauchy + 0.5*cauchy@2.0"


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"sigma": -1.0}, "sigma must be a positive number"),
        ({"sigma": "1"}, "sigma must be a positive number; received '1'"),
        ({"attachment_widths": (0.3, 0.0)}, "must be positive lengths"),
        ({"attachment": "varifolds"}, "unknown attachment"),
        ({"attachment": "sinkhorn", "attachment_kernel": "cauchy"}, "needs kernel gaussian"),
        ({"attachment": "sinkhorn", "attachment_reach": 0.0}, "attachment_reach must be a positive"),
        ({"attachment": "oriented_varifold", "attachment_kappa": -1.0}, "attachment_kappa must be a positive"),
        ({"integrator": "heun"}, "unknown integrator"),
        ({"kernel": "gauss"}, "unknown kernel"),
        ({"normalization": "x"}, "unknown normalization"),
    ],
)
def test_a_spec_refuses(changes, said):
    with pytest.raises(ShapeflowError, match=said):
        spec(**changes)


def test_one_attachment_width_may_be_a_number():
    assert spec(attachment_widths=0.3).attachment_widths == (0.3,)


def test_what_a_spec_says_of_lengths_holds_in_every_unit():
    """The README's words on the same shapes in metres and in millimetres: the same matching, not one that is blind for want of a width."""
    shapes = [sphere(1), ellipsoid(subdivisions=1)]
    moved = []
    for unit in (1.0, 1000.0):
        a, b = (s.replace(points=unit * s.points) for s in shapes)
        moved.append(match([a], [b], MatchingSpec(sigma=0.5 * unit, steps=3, max_iter=5)).deformed[0].points / unit)
    np.testing.assert_allclose(moved[1], moved[0], atol=1e-8)


@pytest.mark.parametrize(
    "sources, said",
    [
        (sphere(0), r"`sources` is one Shape.*write \[source\]"),
        ([sphere(0).points], r"`sources`\[0\] is a ndarray; expected a shapeflow.Shape"),
        ([Shape(sphere(0).points)], "received points and surfaces"),
        ([Shape(sphere(0).points[:, :2], sphere(0).simplices)], "received shapes in 2-D and 3-D"),
    ],
)
def test_what_is_no_pair_of_shapes_is_refused(sources, said):
    with pytest.raises(ShapeflowError, match=said):
        match(sources, [sphere(0)], SPEC)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_asking_for_a_gpu_that_is_not_there():
    with pytest.raises(ConfigError, match="device=auto"):
        match([sphere(0)], [sphere(0)], spec(device="cuda"))


def test_a_batch_shares_all_but_widths():
    with pytest.raises(ShapeflowError, match="one batch"):
        match([sphere(0)] * 2, [sphere(0)] * 2, [SPEC, spec(steps=9)])


PAIR = Path(os.environ.get("SHAPEFLOW_DATA", "/nowhere")) / "mandible_pair"


@pytest.mark.skipif(not PAIR.is_dir(), reason="mandible_pair is not in SHAPEFLOW_DATA")
@pytest.mark.parametrize(
    "attachment, size, value, norm, first",
    [
        ("varifold", "1000", 4212.502351, 11517.682, (-405.887244, 77.393963, -44.594071)),
        ("current", "1000", 3293.236040, 10376.201, (-327.552344, 99.111206, -104.074733)),
        ("varifold", "2500", 3964.224841, 11254.790, None),
        ("current", "2500", 3149.067650, 10289.925, None),
        ("current", "full", 3102.282029, 10244.409, None),
    ],
)
def test_the_objective_of_deformetrica(monkeypatch, attachment, size, value, norm, first):
    """Its energy at p = 0 and the gradient, measured with Deformetrica 4.3 in float64: to the digits given.

    It lays its grid in single precision; so does this test, or the gradient differs by 1e-7.
    """
    from shapeflow.io import read_shape
    from shapeflow.matching import energy

    layout = energy.control_points
    monkeypatch.setattr(
        energy, "control_points", lambda shape, spec: layout(shape, spec).astype(np.float32).astype(float)
    )
    source, target = (read_shape(PAIR / f"{name}_{size}.vtk") for name in ("src", "tgt"))
    theirs = MatchingSpec(
        sigma=1.0, normalization="none", attachment=attachment, attachment_widths=(0.5,), attachment_weight=1 / 0.05**2, gamma=2.0, units="mesh",
        control_points="grid", control_spacing=1.0, integrator="euler", steps=9,
    )  # fmt: skip
    objective = MatchingObjective([Problem(source, target, theirs)])
    assert objective.q0.shape == (315, 3)
    j, gradient = objective.evaluate(torch.zeros_like(objective.q0))
    assert float(j) == pytest.approx(value, abs=6e-7)
    assert float(gradient.norm()) == pytest.approx(norm, abs=6e-4)
    if first is not None:
        assert gradient[0].tolist() == pytest.approx(first, abs=6e-7)
