"""Momenta as vectors of the kernel metric: the demo cohort's known momenta must come back as what they were made of."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from shapeflow.demo import DemoSpec, generate, load_truth
from shapeflow.demo.flow import velocity
from shapeflow.errors import ShapeflowError
from shapeflow.hamiltonian import hamiltonian
from shapeflow.io import read_shape, write_shape
from shapeflow.shape import Shape
from shapeflow.statistics import (
    Options,
    TangentSpace,
    analyse,
    analyse_run,
    classify,
    difference_map,
    generalisation,
    mode_momenta,
    outlier_table,
    specificity,
    tangent_pca,
)
from shapeflow.statistics.classify import fold_scores
from shapeflow.statistics.maps import vertex_normals
from shapeflow.statistics.pca import left_out_momenta, stability
from shapeflow.tables import ATLAS, conform, summary_table, sweep_table, write_parquet

FAST = Options(permutations=199, classifier_permutations=20, draws=5)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    truth = load_truth(
        generate(DemoSpec(n_subjects=12, n_points=70, covariate_effect=0.055), tmp_path_factory.mktemp("cohort"))
        / "truth.npz"
    )
    n = len(truth.points)
    space = TangentSpace(Shape(truth.points, truth.simplices), truth.points, np.full(n, 1 / n), "gaussian", truth.sigma)
    labels = pd.DataFrame(
        {"group": truth.group, "density": truth.density, "age": truth.covariate}, index=list(truth.subjects)
    )
    return truth, space, labels


def test_inner_products_are_twice_the_hamiltonian(cohort):
    import torch

    truth, space, _ = cohort
    gram = space.gram(truth.momenta)
    energies = [
        float(hamiltonian(torch.as_tensor(truth.points), torch.as_tensor(p), sigma=truth.sigma, kernel="gaussian"))
        for p in truth.momenta
    ]
    np.testing.assert_allclose(np.diag(gram), 2 * np.array(energies), rtol=1e-6)
    independent = np.einsum(
        "ind,jnd->ij", truth.momenta, [velocity(truth.points, truth.points, p, truth.sigma) for p in truth.momenta]
    )
    np.testing.assert_allclose(gram, independent, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("normalization", ["sinkhorn", "one_step"])
def test_normalized_inner_products_are_too(cohort, normalization):
    import torch

    truth, _, _ = cohort
    shape = Shape(truth.points, truth.simplices)
    space = TangentSpace(shape, truth.points, shape.masses(), "cauchy", 0.3, normalization)
    gram = space.gram(truth.momenta[:3])
    mu = torch.as_tensor(shape.masses())
    keys = dict(sigma=0.3, kernel="cauchy", normalization=normalization, masses=mu)
    energies = [
        float(hamiltonian(torch.as_tensor(truth.points), torch.as_tensor(p), **keys)) for p in truth.momenta[:3]
    ]
    np.testing.assert_allclose(np.diag(gram), 2 * np.array(energies), rtol=1e-5)
    assert np.linalg.eigvalsh(gram).min() > 0


def test_shooting_arrives_where_the_cohort_was_made(cohort):
    truth, space, _ = cohort
    fine = TangentSpace(
        space.template, space.control_points, space.masses, "gaussian", truth.sigma, steps=20, integrator="rk4"
    )
    for shape, carried in zip(fine.shapes(truth.momenta), truth.carried, strict=True):
        np.testing.assert_allclose(shape.points, carried, atol=2e-6)
    # the same with momenta on some points and the mesh carried along
    half = TangentSpace(
        space.template, truth.points[::2], np.full(len(truth.points[::2]), 0.5), "gaussian", truth.sigma
    )
    (moved,) = half.shapes(truth.momenta[:1, ::2])
    from shapeflow.demo.flow import shoot

    np.testing.assert_allclose(
        moved.points, shoot(truth.points, truth.points[::2], truth.momenta[0, ::2], truth.sigma), atol=2e-4
    )


def test_components_are_orthonormal_and_rebuild_the_subjects(cohort):
    truth, space, _ = cohort
    p = truth.momenta
    gram = space.gram(p)
    pca = tangent_pca(gram)
    directions = np.einsum("ks,snd->knd", pca.weights, p - p.mean(0))
    np.testing.assert_allclose(space.gram(directions), np.eye(len(directions)), atol=1e-6)
    np.testing.assert_allclose(
        p.mean(0) + np.einsum("sk,knd->snd", pca.scores, directions), p, atol=1e-8 * np.abs(p).max()
    )
    assert pca.explained.sum() == pytest.approx(1.0) and (np.diff(pca.variance) <= 1e-12).all()
    np.testing.assert_allclose(pca.scores.var(axis=0, ddof=1), pca.variance, rtol=1e-9)
    np.testing.assert_allclose(mode_momenta(pca, p, 0, np.array([0.0]))[0], p.mean(0), atol=1e-15)
    ahead = mode_momenta(pca, p, 1, np.array([2.0]))[0] - p.mean(0)
    assert space.gram(ahead[None])[0, 0] == pytest.approx(4 * pca.variance[1], rel=1e-6)


def test_first_components_are_the_modes_the_cohort_was_made_of(cohort):
    truth, space, _ = cohort
    made = np.stack([truth.group_mode, truth.covariate_mode])
    pca = tangent_pca(space.gram(truth.momenta))
    found = np.einsum("ks,snd->knd", pca.weights[:2], truth.momenta - truth.momenta.mean(0))
    everything = space.gram(np.concatenate([made, found]))
    cosines = everything[:2, 2:] / np.sqrt(np.diag(everything)[:2])[:, None]
    assert (np.linalg.norm(cosines, axis=1) > 0.8).all(), (
        "the known modes do not lie in the span of the first two components"
    )


def test_leaving_one_out_describes_a_subject_by_the_others_alone(cohort):
    truth, space, _ = cohort
    p = truth.momenta[:6]
    gram = space.gram(p)
    described = left_out_momenta(gram, p, 3)
    # the same by hand, from vectors that are ordinary in the metric
    root = np.linalg.cholesky(gram + 1e-14 * np.eye(6))
    for i in range(6):
        rest = np.delete(np.arange(6), i)
        mean = root[rest].mean(0)
        _, _, axes = np.linalg.svd(root[rest] - mean)
        projected = mean + (root[i] - mean) @ axes[:3].T @ axes[:3]
        off = space.gram((p[i] - described[i])[None])[0, 0]
        assert off == pytest.approx(((root[i] - projected) ** 2).sum(), rel=1e-4)
    few, many = (generalisation(space, gram, p, k).mean() for k in (1, 4))
    assert 0 < many < few
    same = np.repeat(p[:1], 4, axis=0) * np.array([1.0, 1.1, 1.2, 1.3])[:, None, None]
    assert generalisation(space, space.gram(same), same, 1).max() < 1e-6  # a line is described by two of its points


def test_stability_is_one_when_every_sample_shows_the_component_and_falls_when_one_subject_carries_it():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 1)) * np.array([3.0, 0.0, 0.0])
    assert stability(x @ x.T + 0.0, 1) == pytest.approx(1.0)
    lone = np.vstack([x, [0.0, 40.0, 0.0]])  # the second axis is one subject's alone
    found = stability(lone @ lone.T, 1, draws=400)
    # (1 − 1/13)¹³ = 0.353 of the samples lack that subject, and the component with it
    assert (found < 0.02).mean() == pytest.approx(0.353, abs=0.08)
    assert (found[found > 0.5] > 0.9).all()
    np.testing.assert_array_equal(found, stability(lone @ lone.T, 1, draws=400))


def test_stability_is_what_components_of_the_drawn_coordinates_say():
    x = np.random.default_rng(1).normal(size=(9, 4)) * np.array([4.0, 2.0, 1.0, 0.5])
    found = stability(x @ x.T, 2, draws=5, seed=3)
    rng, axes = np.random.default_rng(3), np.linalg.svd(x - x.mean(0))[2][:2]
    for value in found:
        drawn = x[rng.integers(9, size=9)]
        other = np.linalg.svd(drawn - drawn.mean(0))[2][:2]
        assert value == pytest.approx(((axes @ other.T) ** 2).sum() / 2, rel=1e-8)


def test_specificity_grows_with_the_variance_drawn(cohort):
    truth, space, _ = cohort
    pca = tangent_pca(space.gram(truth.momenta))
    a, b = specificity(space, pca, truth.momenta, 3, 4, seed=1), specificity(space, pca, truth.momenta, 3, 4, seed=1)
    np.testing.assert_array_equal(a, b)
    assert (a > 0).all() and a.mean() < 0.2


def test_classification_never_sees_the_subject_it_predicts(cohort):
    truth, space, _ = cohort
    gram = space.gram(truth.momenta)
    train, test = fold_scores(gram, 3, 4)
    other = gram.copy()
    other[3, 3] *= 100.0  # the left-out subject's own size must not matter to the fold
    np.testing.assert_allclose(fold_scores(other, 3, 4)[0], train, atol=1e-9)
    assert train.shape == (11, 4) and test.shape == (4,)
    good = classify(gram, truth.group, permutations=99)
    assert good.accuracy == 1.0 and good.p < 0.05 and good.majority == 0.5
    noise = np.random.default_rng(0).normal(size=(12, 40))
    scores = [
        classify(noise @ noise.T, list("ab" * 6), permutations=0).accuracy,
        classify(noise @ noise.T, list("aaabbb" * 2), permutations=0).accuracy,
    ]
    assert np.mean(scores) < 0.8
    with pytest.raises(ShapeflowError, match="two groups of two"):
        classify(gram, ["a"] * 11 + ["b"])


def test_difference_map_finds_the_end_that_was_pulled(cohort):
    truth, space, _ = cohort
    case = np.array([g == "case" for g in truth.group])
    found = difference_map(space, truth.momenta, ~case, case, ("control", "case"))
    tip = np.argmax(truth.points[:, 0])
    far = np.argmin(truth.points[:, 0])
    assert np.linalg.norm(found.displacement[tip]) > 0.08 > 5 * np.linalg.norm(found.displacement[far])
    assert found.q[np.argmax(found.normal)] <= 0.05 and found.normal[tip] > 0
    assert (found.q >= found.p - 1e-15).all() and (found.q[np.abs(found.normal) < 0.002] > 0.01).all()
    mixed = difference_map(space, truth.momenta, np.arange(12) % 4 < 2, np.arange(12) % 4 >= 2, ("a", "b"))
    assert (mixed.q <= 0.05).mean() < 0.05


def test_normals_point_outwards():
    truth_sphere = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]])
    faces = np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    np.testing.assert_allclose(vertex_normals(Shape(truth_sphere, faces)), truth_sphere, atol=1e-12)
    square = Shape(np.array([[1.0, 1], [-1, 1], [-1, -1], [1, -1]]), np.array([[0, 1], [1, 2], [2, 3], [3, 0]]))
    np.testing.assert_allclose(vertex_normals(square), square.points / np.sqrt(2), atol=1e-12)
    assert not vertex_normals(Shape(truth_sphere)).any()


def test_a_subject_unlike_the_others_is_listed(cohort):
    truth, space, _ = cohort
    p = 0.1 * truth.momenta
    p[4] = 3.0 * truth.momenta[4]
    table = outlier_table(space.gram(p), truth.subjects)
    assert table.loc[0, "subject"] == truth.subjects[4] and table["outlier"].tolist() == [True] + [False] * 11


def test_analysis_of_the_demo_finds_what_is_there_and_nothing_else(cohort):
    truth, space, labels = cohort
    analysis = analyse(space, truth.momenta, truth.subjects, labels, options=FAST)
    tests = analysis.tests.set_index(["label", "test"])
    assert tests.loc[("group", "PERMANOVA, momenta"), "q"] <= 0.05
    assert tests.loc[("age", "regression of shape"), "p"] <= 0.05
    assert (tests.loc["density", "p"] > 0.05).all()
    assert analysis.classifications["group"].accuracy == 1.0 and set(analysis.classifications) == {"group", "density"}
    assert len(analysis.modes) == 3 and all(len(m) == 5 for m in analysis.modes)
    np.testing.assert_allclose(analysis.modes[0][2].points, analysis.modes[1][2].points, atol=1e-12)  # both at the mean


def test_run_folder_gets_its_statistics_and_the_sweep_their_summary(cohort, tmp_path):
    truth, space, labels = cohort
    run = tmp_path / "gaussian-s0.3-none-0"
    write_shape(run / "atlas" / "template.vtk", space.template)
    np.savez(run / "atlas" / "momenta.npz", momenta=truth.momenta, subjects=np.array(truth.subjects))
    config = {
        "kernel": {"formula": "gaussian"},
        "normalization": {"name": "none"},
        "solver": {"steps": 10, "integrator": "ralston"},
    }
    (run / "config.yaml").write_text(json.dumps(config))
    rows = pd.DataFrame(
        {
            "subject": truth.subjects,
            "run": run.name,
            "kernel": "gaussian",
            "sigma": truth.sigma,
            "normalization": "none",
        }
    )
    rows["distance"], rows["status"], rows["objective"] = 1.0, "converged", 2.0
    rows["group"], rows["density"] = truth.group, truth.density
    rows["landmark_size"] = [2.0 + 0.01 * i + (g == "case") for i, g in enumerate(truth.group)]
    write_parquet(conform(rows, ATLAS), run / "atlas" / "atlas.parquet")
    analyse_run(run, options=FAST)
    folder = run / "statistics"
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    assert {"summary.csv", "tests.csv", "scores.csv", "components.csv", "modes.npz", "difference_group.vtk"} <= set(
        before
    )
    assert {"normal_displacement", "q"} <= set(read_shape(folder / "difference_group.vtk").point_data)
    assert len(list((folder / "modes").iterdir())) == 15
    sizes = (
        pd.read_csv(folder / "tests.csv")
        .set_index(["label", "test"])
        .loc[("group", "size of landmarks, Welch t on log")]
    )
    case = np.array(truth.group) == "case"
    logs = np.log(rows["landmark_size"].to_numpy())
    assert sizes["effect"] == pytest.approx(np.exp(logs[~case].mean() - logs[case].mean()) - 1) and sizes["p"] < 1e-3
    ends = {g: read_shape(folder / "means" / f"group_{g}.vtk").points for g in ("case", "control")}
    mean = truth.momenta[[g == "case" for g in truth.group]].mean(axis=0)
    np.testing.assert_allclose(ends["case"], space.shapes(mean[None])[0].points, atol=1e-6)
    pulled = np.abs(ends["case"] - ends["control"]).max()
    assert pulled == pytest.approx(
        np.abs(read_shape(folder / "difference_group.vtk").point_data["displacement"]).max(), rel=1e-5
    )
    analyse_run(run, options=FAST)
    assert before == {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    atlas = conform(rows, ATLAS)
    sweep = sweep_table(
        pd.DataFrame(columns=["run", "source", "target"]), atlas, label="group", summaries=summary_table([run])
    )
    assert sweep.loc[0, "label"] == "group" and sweep.loc[0, "majority_rate"] == 0.5
    assert sweep.loc[0, "classification_accuracy"] == 1.0 and sweep.loc[0, "generalisation"] > 0
    (run / "atlas" / "momenta.npz").unlink()
    with pytest.raises(ShapeflowError, match="neither an atlas nor matchings"):
        analyse_run(run)


def test_momenta_that_do_not_fit_are_refused(cohort):
    truth, space, labels = cohort
    with pytest.raises(ShapeflowError, match="received"):
        space.gram(truth.momenta[:, :5])
    with pytest.raises(ShapeflowError, match="not finite"):
        space.gram(truth.momenta * np.nan)
    with pytest.raises(ShapeflowError, match="three subjects"):
        analyse(space, truth.momenta[:2], truth.subjects[:2], labels)
    with pytest.raises(ShapeflowError, match="one mass"):
        TangentSpace(space.template, space.control_points, space.masses[:3], "gaussian", 1.0)
