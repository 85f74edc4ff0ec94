"""The Bayesian atlas: updates and posterior against dense matrices, limits, a noise that is known is found, resuming."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from shapeflow.atlas import AtlasSpec, estimate_atlas
from shapeflow.atlas.bayesian import BayesianObjective, noise_dimension
from shapeflow.atlas.objective import AtlasObjective
from shapeflow.errors import ConfigError
from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import Problem
from shapeflow.shape import Shape
from tests.atlas.test_atlas import check_gradient
from tests.shapes import circle, ellipsoid

MATCHING = MatchingSpec(sigma=0.6, attachment_widths=(0.4,), steps=3, tolerance=1e-6)
GRID = {"control_points": "grid", "control_spacing": 0.8}
VARIANTS = [
    pytest.param({"normalization": n, "units": u, **c}, id="-".join([n, u, *c][:3]))
    for n in ("none", "sinkhorn", "one_step")
    for u, c in (("relative", {}), ("mesh", GRID))
]
SUBJECTS = [circle(8, 1.2), circle(10, 0.9), circle(11, 1.1)]


def objective(matching: dict, **priors) -> BayesianObjective:
    spec = AtlasSpec(dataclasses.replace(MATCHING, **matching), model="bayesian", **priors)
    template = circle(9)
    problems = [Problem(template, s, spec.matching) for s in SUBJECTS]
    return BayesianObjective(AtlasObjective(template, SUBJECTS, problems, 0.6, energy=False), spec)


def somewhere(o: BayesianObjective, seed: int) -> torch.Tensor:
    z = o.fit.start()
    return z + 0.05 * torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(seed))


class Dense:
    """The same posterior from G and Γ as matrices (m, m) and the residuals r (N,), as it is defined."""

    def __init__(self, o: BayesianObjective, z: torch.Tensor) -> None:
        n, d = o.controls.shape
        self.o, metric = o, o.fit.matching.metric
        eye = torch.eye(n, dtype=z.dtype)
        columns = [metric.field(o.q, e.repeat(o.count)[:, None].repeat(1, d))[0][:n, 0] for e in eye]
        self.G = np.kron(torch.stack(columns, 1).detach().numpy(), np.eye(d))
        t, p = o.fit.split(z)
        self.a = (p.view(o.count, -1) / o.unit[:, None]).numpy()
        _, A = o.fit.matching.terms(p, o.fit.matching.shoot(p, mesh=t.repeat(o.count, 1)))
        self.r = (o.fit.matching.attachment_weight * A).numpy()

    def best(self) -> tuple[np.ndarray, float]:
        o, N = self.o, self.o.count
        covariance = (o.momenta_dof * np.linalg.inv(self.G) + self.a.T @ self.a) / (N + o.momenta_dof)
        return covariance, (o.noise_dof * o.noise_scale + self.r.sum()) / (N * o.dimension + o.noise_dof)

    def posterior(self, covariance: np.ndarray, variance: float) -> float:
        o, N, inverse = self.o, self.o.count, np.linalg.inv(covariance)
        likelihood = 0.5 * np.einsum("si,ij,sj->", self.a, inverse, self.a) + 0.5 * self.r.sum() / variance
        likelihood += 0.5 * N * np.linalg.slogdet(covariance)[1] + 0.5 * N * o.dimension * math.log(variance)
        prior = 0.5 * o.momenta_dof * (np.trace(inverse @ np.linalg.inv(self.G)) + np.linalg.slogdet(covariance)[1])
        prior += 0.5 * o.noise_dof * (o.noise_scale / variance + math.log(variance))
        return likelihood + prior + 0.5 * (N + o.momenta_dof) * np.linalg.slogdet(self.G)[1]


@pytest.mark.parametrize("matching", VARIANTS)
def test_posterior_and_updates_are_those_of_dense_matrices(matching):
    # priors that count: G of a smooth kernel is nearly singular, and its inverse must not drown the momenta
    o = objective(matching, momenta_prior=0.3, momenta_std=0.7, noise_prior=0.2)
    z = somewhere(o, 0)
    dense = Dense(o, z)
    value, _ = o.evaluate(z)
    start = o.posterior(float(value))
    assert start == pytest.approx(dense.posterior(np.linalg.inv(dense.G), o.noise_scale), rel=1e-6)
    after = o.posterior(o.update(z, float(value)))
    covariance, variance = dense.best()
    assert o.variance == pytest.approx(variance, rel=1e-10)
    moved = torch.as_tensor(dense.a @ dense.G)
    np.testing.assert_allclose(o.covariance.precision(moved), dense.a @ np.linalg.inv(covariance), rtol=1e-5, atol=1e-6)
    e = o.estimate()
    factor = e.factor.reshape(o.count, -1)
    np.testing.assert_allclose(
        e.weight * np.linalg.inv(dense.G) + factor.T @ factor, covariance, atol=1e-9 * np.abs(covariance).max()
    )
    assert after == pytest.approx(dense.posterior(covariance, variance), rel=1e-6) and after < start
    # it is what an evaluation says, and no other Γ or σ² does better
    assert o.posterior(float(o.evaluate(z)[0])) == pytest.approx(after, rel=1e-10)
    best, rng = dense.posterior(covariance, variance), np.random.default_rng(0)
    root = np.linalg.cholesky(covariance)
    for _ in range(5):
        turn = 0.1 * rng.normal(size=covariance.shape)
        other = root @ (np.eye(len(root)) + turn) @ (np.eye(len(root)) + turn).T @ root.T
        assert dense.posterior(other, variance) > best
        assert dense.posterior(covariance, variance * math.exp(0.1 * rng.normal())) > best


@pytest.mark.parametrize("matching", VARIANTS)
def test_gradient_after_an_update(matching):
    o = objective(matching, momenta_std=0.3)
    z = somewhere(o, 0)
    o.update(z, float(o.evaluate(z)[0]))
    check_gradient(o, somewhere(o, 1))  # away from the momenta that Γ was learnt from, where it is stiff


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
@pytest.mark.parametrize("processes", [1, 2])
def test_priors_alone_are_the_deterministic_atlas_with_gamma_twice_the_variance(normalization, processes):
    """Control points that stay, so that G of the prior and of the Hamiltonian are one; priors that outweigh any data."""
    matching = dataclasses.replace(MATCHING, normalization=normalization, gamma=0.02, device="cpu", **GRID)
    length: dict[str, Any] = {"max_iter": 12, "round_iter": 12}
    plain = estimate_atlas(circle(20), SUBJECTS, AtlasSpec(matching, **length))
    priors: dict[str, Any] = {"momenta_prior": 1e9, "noise_prior": 1e9, "noise_std": 0.05, "momenta_std": 0.5}
    other = dataclasses.replace(matching, gamma=7.0)  # which has no part in it
    found = estimate_atlas(
        circle(20), SUBJECTS, AtlasSpec(other, model="bayesian", **priors, **length), processes=processes
    )
    np.testing.assert_allclose(found.template.points, plain.template.points, atol=1e-7)
    np.testing.assert_allclose(found.momenta, plain.momenta, atol=1e-6 * np.abs(plain.momenta).max())
    assert found.bayesian is not None and found.bayesian.noise_std == pytest.approx(0.05, rel=1e-6)
    assert [r["objective"] for r in found.rows] == pytest.approx([r["objective"] for r in plain.rows], rel=1e-6)
    assert [r["gamma"] for r in found.rows] == pytest.approx([0.02] * 3, rel=1e-6)


@pytest.mark.parametrize("normalization", ["none", "sinkhorn"])
def test_the_posterior_falls_in_every_iteration_and_update_until_it_does_not(normalization):
    matching = dataclasses.replace(MATCHING, normalization=normalization, tolerance=1e-3)
    subjects = [ellipsoid((1 + t, 1.0, 1 - t), (0, 0, 0)) for t in (-0.2, -0.1, 0.0, 0.1, 0.2)]
    spec = AtlasSpec(matching, max_iter=120, round_iter=10, model="bayesian")
    result = estimate_atlas(subjects[1], subjects, spec)
    objective = np.array([step["objective"] for step in result.history])
    noise = np.array([step["noise_std"] for step in result.history])
    assert result.status == "converged" and (np.diff(objective) < 0).all()
    assert len(np.unique(noise)) > 2 and noise[-1] < 0.11 * noise[0]  # the prior's floor is 0.0995
    assert result.bayesian is not None and noise[-1] == result.bayesian.noise_std == result.rows[0]["noise_std"]
    assert np.abs(np.ptp(result.template.points, axis=0) - 2).max() < 0.05
    assert all(row["jacobian_min"] > 0 for row in result.rows)


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_a_known_noise_is_found(noise, caplog):
    """30 circles of 24 vertices, stretched, sheared and shifted by about 0.08, with noise on every coordinate. A weak prior: the estimate is that of the
    residual, from which momenta have taken a part (a few of 48 coordinates) and to which an unfinished search adds: within a fifth.
    """
    rng, template = np.random.default_rng(3), circle(24)
    x, subjects = template.points, []
    for _ in range(30):
        a, b, c = 0.08 * rng.normal(size=3)
        smooth = x * np.array([1 + a, 1 - a]) + b * x[:, ::-1] + c
        subjects.append(template.replace(points=smooth + noise * rng.normal(size=x.shape)))
    matching = MatchingSpec(sigma=1.5, normalization="none", attachment="landmarks", units="mesh", steps=3, dtype="float64", tolerance=1e-5)  # fmt: skip
    spec = AtlasSpec(matching, max_iter=150, model="bayesian", noise_prior=1e-4)
    result = estimate_atlas(subjects[0], subjects, spec)
    assert result.bayesian is not None
    assert result.bayesian.noise_std == pytest.approx(noise, rel=0.2)
    assert "more its prior's" not in caplog.text
    # three ways to vary: Γ has three standard deviations far above the others, in units of its prior's
    o = BayesianObjective(AtlasObjective(subjects[0], subjects, [Problem(subjects[0], s, matching) for s in subjects], 1.5, energy=False), spec)  # fmt: skip
    factor = torch.as_tensor(result.bayesian.factor).reshape(30, -1)
    modes = np.linalg.eigvalsh((factor @ o._moved(factor).T).numpy())[::-1]
    assert modes[2] > 10 * modes[3]


def test_a_prior_that_outweighs_the_data_is_told(caplog):
    """Deformetrica's default prior, 1 % of what separates the initial template from the subjects, is a floor."""
    subjects = [circle(20), circle(20, 1.2)]
    matching = MatchingSpec(sigma=1.5, attachment="landmarks", steps=3)
    result = estimate_atlas(subjects[0], subjects, AtlasSpec(matching, max_iter=40, model="bayesian"))
    assert result.bayesian is not None and "more its prior's than the data's" in caplog.text
    assert result.bayesian.noise_std > 0.099 * result.history[0]["noise_std"]


def test_a_killed_estimation_resumes_to_the_same_bits(tmp_path):
    class Killed(Exception):
        pass

    def kill(iterations, _):
        if iterations >= 8:
            raise Killed

    spec = AtlasSpec(dataclasses.replace(MATCHING, device="cpu"), max_iter=16, round_iter=4, model="bayesian")
    whole = estimate_atlas(circle(20), SUBJECTS, spec)
    checkpoint = tmp_path / "checkpoint.npz"
    with pytest.raises(Killed):
        estimate_atlas(circle(20), SUBJECTS, spec, checkpoint=checkpoint, progress=kill)
    again = estimate_atlas(circle(20), SUBJECTS, spec, checkpoint=checkpoint)
    np.testing.assert_array_equal(again.momenta, whole.momenta)
    np.testing.assert_array_equal(again.template.points, whole.template.points)
    assert again.history == whole.history and again.bayesian is not None and whole.bayesian is not None
    for name, value in vars(whole.bayesian).items():
        np.testing.assert_array_equal(value, getattr(again.bayesian, name))
    # one that had ended is read, and no more; and two processes find the same to rounding
    once = estimate_atlas(circle(20), SUBJECTS, spec, checkpoint=checkpoint)
    assert once.history == whole.history
    shared = estimate_atlas(circle(20), SUBJECTS, spec, processes=2)
    noise = [[step["noise_std"] for step in result.history] for result in (whole, shared)]
    np.testing.assert_allclose(noise[1], noise[0], rtol=1e-8)
    np.testing.assert_allclose(shared.momenta, whole.momenta, rtol=1e-6, atol=1e-8)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gpu_finds_the_same(dtype):
    spec = AtlasSpec(dataclasses.replace(MATCHING, dtype=dtype, tolerance=1e-4), max_iter=20, round_iter=10, model="bayesian")  # fmt: skip
    on = [
        estimate_atlas(circle(20), SUBJECTS, dataclasses.replace(spec, matching=dataclasses.replace(spec.matching, device=d)))
        for d in ("cpu", "cuda")
    ]  # fmt: skip
    assert on[0].bayesian is not None and on[1].bayesian is not None
    tolerance = 0.05 if dtype == "float32" else 1e-4
    assert on[1].bayesian.noise_std == pytest.approx(on[0].bayesian.noise_std, rel=tolerance)
    np.testing.assert_allclose(on[1].template.points, on[0].template.points, atol=tolerance)


def test_the_residual_has_as_many_dimensions_as_its_kernel_tells_apart():
    box = Shape(np.array([[0.0, 0, 0], [1.0, 2.0, 0.45]]))
    assert noise_dimension(box, dataclasses.replace(MATCHING, attachment_widths=(0.8, 0.4))) == 3 * 3 * 6 * 2
    assert noise_dimension(box, dataclasses.replace(MATCHING, attachment="measure")) == 3 * 6 * 2
    assert noise_dimension(box, dataclasses.replace(MATCHING, attachment="landmarks")) == 6


def test_refusals():
    with pytest.raises(ConfigError, match=r"atlas\.model 'bayes': write one of deterministic, bayesian"):
        AtlasSpec(MATCHING, model="bayes")
    with pytest.raises(ConfigError, match="squared norm"):
        AtlasSpec(dataclasses.replace(MATCHING, attachment="sinkhorn"), model="bayesian")
    for name in ("momenta_prior", "momenta_std", "noise_prior", "noise_std"):
        with pytest.raises(ConfigError, match=f"atlas.{name} must be positive; received 0"):
            dataclasses.replace(AtlasSpec(MATCHING), **{name: 0.0})
