"""Atlas: a known mean is found, the gradient is exact, a killed estimation resumes to the same bits."""

import dataclasses

import numpy as np
import pytest
import torch

from shapeflow.atlas import AtlasSpec, closest_subject, estimate_atlas
from shapeflow.atlas.objective import AtlasObjective
from shapeflow.errors import ShapeflowError
from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import Problem
from tests.shapes import circle, ellipsoid, sphere

MATCHING = MatchingSpec(sigma=0.6, attachment_widths=(0.4,), steps=3, gamma=1e-2, tolerance=1e-6)
STRETCHES = (-0.2, -0.1, 0.0, 0.1, 0.2)


def cohort():
    return [ellipsoid((1 + t, 1.0, 1 - t), (0, 0, 0)) for t in STRETCHES]


def check_gradient(objective, z):
    """Against differences of fourth order, in every fifth unknown."""
    _, gradient = objective.evaluate(z)
    for k in range(0, z.numel(), 5):
        step = torch.zeros_like(z)
        step.view(-1)[k] = 1e-4
        line = [float(objective.evaluate(z + t * step)[0]) for t in (-2, -1, 1, 2)]
        slope = (line[0] - 8 * line[1] + 8 * line[2] - line[3]) / 1.2e-3
        assert float(gradient.view(-1)[k]) == pytest.approx(slope, rel=1e-7, abs=1e-10)


def test_closest_subject_is_the_middle_one():
    assert closest_subject(cohort(), MATCHING) == 2


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
def test_finds_the_mean_shape(normalization):
    spec = AtlasSpec(dataclasses.replace(MATCHING, normalization=normalization), max_iter=60)
    result = estimate_atlas(cohort()[1], cohort(), spec)
    start, end = result.history[0]["objective"], result.history[-1]["objective"]
    assert end < 0.02 * start and result.status in ("converged", "max_iter")
    # the subjects stretch evenly around the unit sphere; the template began at a stretch of −0.1
    assert np.abs(np.ptp(result.template.points, axis=0) - 2).max() < 0.1
    assert len(result.rows) == len(result.reconstructions) == 5 and result.momenta.shape == (5, 162, 3)
    assert all(row["jacobian_min"] > 0 for row in result.rows)
    # the farther from the middle, the farther the template has to go
    distance = [row["distance"] for row in result.rows]
    assert min(distance) == min(distance[1:4]) and max(distance[0], distance[4]) == max(distance)


def test_reconstructions_are_the_template_shot_with_the_momenta():
    from shapeflow.matching.energy import MatchingObjective

    spec = AtlasSpec(MATCHING, max_iter=5)
    result = estimate_atlas(circle(20), [circle(24, 1.2), circle(30, 0.9)], spec)
    objective = MatchingObjective([Problem(circle(20), t, MATCHING) for t in (circle(24, 1.2), circle(30, 0.9))])
    mesh = torch.as_tensor(result.template.points).repeat(2, 1)
    end = objective.shoot(torch.as_tensor(np.concatenate(result.momenta)), mesh=mesh).q
    np.testing.assert_allclose(np.concatenate([s.points for s in result.reconstructions]), end.numpy(), atol=1e-12)


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
@pytest.mark.parametrize("control", [{}, {"control_points": "grid", "control_spacing": 0.8}])
def test_gradient_in_template_and_momenta(normalization, control):
    matching = dataclasses.replace(MATCHING, normalization=normalization, **control)
    template, subjects = circle(9), [circle(8, 1.2), circle(10, 0.9)]
    objective = AtlasObjective(template, subjects, [Problem(template, s, matching) for s in subjects], 0.6)
    z = objective.start()
    z = z + 0.02 * torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(0))
    check_gradient(objective, z)


def test_a_killed_estimation_resumes_to_the_same_bits(tmp_path):
    class Killed(Exception):
        pass

    def kill(iterations, objective):
        if iterations >= 8:
            raise Killed

    spec = AtlasSpec(MATCHING, max_iter=16, round_iter=4)
    whole = estimate_atlas(cohort()[0], cohort(), spec)
    checkpoint = tmp_path / "deep" / "checkpoint.npz"
    # killed in the middle of writing the second round's checkpoint, or just after: either way the first round's is whole
    with pytest.raises(Killed):
        estimate_atlas(cohort()[0], cohort(), spec, checkpoint=checkpoint, progress=kill)
    assert checkpoint.exists()
    again = estimate_atlas(cohort()[0], cohort(), spec, checkpoint=checkpoint)
    np.testing.assert_array_equal(again.momenta, whole.momenta)
    np.testing.assert_array_equal(again.template.points, whole.template.points)
    assert again.history == whole.history


def test_a_checkpoint_of_other_settings_or_a_damaged_one_starts_over(tmp_path, caplog):
    checkpoint = tmp_path / "checkpoint.npz"
    subjects = [circle(20), circle(20, 1.2)]
    estimate_atlas(circle(20), subjects, AtlasSpec(MATCHING, max_iter=3), checkpoint=checkpoint)
    other = AtlasSpec(dataclasses.replace(MATCHING, gamma=0.02), max_iter=3)
    fresh = estimate_atlas(circle(20), subjects, other)
    resumed = estimate_atlas(circle(20), subjects, other, checkpoint=checkpoint)
    assert "belongs to other data" in caplog.text
    np.testing.assert_array_equal(resumed.momenta, fresh.momenta)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    np.testing.assert_array_equal(
        estimate_atlas(circle(20), subjects, other, checkpoint=checkpoint).momenta, fresh.momenta
    )
    assert "cannot be read" in caplog.text


def test_refusals():
    with pytest.raises(ShapeflowError, match="at least one subject"):
        estimate_atlas(sphere(0), [], AtlasSpec(MATCHING))
    with pytest.raises(ShapeflowError, match="at least one iteration"):
        AtlasSpec(MATCHING, max_iter=0)
    with pytest.raises(ShapeflowError, match="template_width"):
        AtlasSpec(MATCHING, template_width=-1.0)
