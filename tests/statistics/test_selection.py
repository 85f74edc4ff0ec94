"""The rule that picks a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from shapeflow.demo import DemoSpec, generate, subjects
from shapeflow.errors import ShapeflowError
from shapeflow.evaluation import landmark_error
from shapeflow.io import read_landmarks, read_shape
from shapeflow.matching import MatchingSpec, match
from shapeflow.statistics import choose_run, mark_chosen, selected
from shapeflow.tables import MATCHING, conform, sweep_table


def sweep(**columns):
    frame = pd.DataFrame(
        {"run": list("abcd"), "sigma": [0.1, 0.2, 0.4, 0.8], "failures": 0, "jacobian_min": 0.5, **columns}
    )
    return frame


def test_landmarks_decide_before_surfaces():
    table = sweep(landmark_error=[0.3, 0.1, 0.2, 0.4], surface_mean=[0.1, 0.2, 0.3, 0.4])
    choice = choose_run(table)
    assert (choice.run, choice.criterion, choice.value) == ("b", "landmark_error", 0.1)
    assert choose_run(table.drop(columns="landmark_error")).run == "a"
    assert (
        choose_run(sweep(landmark_error=[0.3, np.nan, 0.2, 0.4], surface_mean=[0.4, 0.2, 0.3, 0.4])).criterion
        == "surface_mean"
    )


def test_of_equals_the_widest_kernel():
    choice = choose_run(sweep(landmark_error=[0.100, 0.102, 0.109, 0.2]))
    assert choice.run == "c" and "wider kernel" in choice.reason
    assert "tried" not in choice.reason


def test_a_kernel_too_wide_to_follow_is_not_the_smoothest_explanation():
    table = sweep(landmark_error=[0.3, 0.106, 0.104, 0.100], surface_mean=[0.01, 0.01, 0.018, 0.03])
    choice = choose_run(table)
    assert choice.run == "c" and "too wide" in choice.reason
    assert choose_run(table.assign(surface_mean=np.nan)).run == "d"


def test_the_end_of_what_was_tried_is_said():
    assert "no narrower kernel was tried" in choose_run(sweep(landmark_error=[0.1, 0.2, 0.3, 0.4])).reason
    assert "no wider kernel was tried" in choose_run(sweep(landmark_error=[0.4, 0.3, 0.2, 0.1])).reason


def test_a_sweep_that_is_no_better_than_alignment_says_so():
    table = sweep(landmark_error=[0.4, 0.32, 0.5, 0.6], landmark_error_before=0.277)
    assert "beware: it was 0.277 before matching" in choose_run(table).reason
    assert "beware" not in choose_run(table.assign(landmark_error_before=np.nan)).reason
    assert "beware" not in choose_run(table.assign(landmark_error_before=0.5)).reason


def test_folded_and_failed_runs_are_out_unless_all_are():
    table = sweep(landmark_error=[0.1, 0.2, 0.3, 0.4])
    table.loc[0, "jacobian_min"], table.loc[1, "failures"] = -0.1, 2
    choice = choose_run(table)
    assert choice.run == "c" and "2 runs left out" in choice.reason
    assert "beware" in choose_run(table.assign(jacobian_min=-1.0)).reason


def test_nothing_to_choose_by():
    with pytest.raises(ShapeflowError, match="no criterion"):
        choose_run(sweep())
    with pytest.raises(ShapeflowError, match="empty"):
        choose_run(sweep().iloc[:0])


def test_the_table_says_which_and_why():
    table = mark_chosen(sweep(landmark_error=[0.3, 0.1, 0.2, 0.4]))
    assert table["chosen"].tolist() == [False, True, False, False]
    assert "landmark error 0.1" in table.loc[1, "choice"] and table["choice"].notna().sum() == 1
    assert not mark_chosen(sweep())["chosen"].any()


def test_the_selection_as_a_file_says_it():
    table = sweep(landmark_error=[0.3, 0.1, 0.2, 0.4], kernel="gaussian", normalization="none", settings=None)
    found = selected(table)
    assert found == {
        "run": "b", "kernel": "gaussian", "sigma": 0.2, "normalization": "none", "settings": None, "criterion": "landmark_error",
        "value": 0.1, "reason": found["reason"],
    }  # fmt: skip
    assert "smallest of the sweep" in found["reason"]
    assert selected(sweep())["run"] is None and "no criterion" in selected(sweep())["reason"]


def test_of_widths_too_narrow_right_and_too_wide_the_demo_gets_the_right_one(tmp_path):
    """The demo is made by deformations of width 0.3: a tenth of it carries points between landmarks astray, ten times it cannot follow."""
    demo = DemoSpec(n_subjects=4, n_points=60, dense=False)
    folder = generate(demo, tmp_path / "demo")
    shapes = [read_shape(folder / f"{name}.vtk") for name in subjects(demo)]
    marks = [read_landmarks(folder / f"{name}.landmarks.csv").points for name in subjects(demo)]
    pairs = [(i, j) for i in range(4) for j in range(4) if i < j]
    rows = []
    for sigma in (0.03, 0.3, 3.0):
        spec = MatchingSpec(
            sigma=sigma, normalization="none", attachment_widths=(0.15,), gamma=1e-3, max_iter=40, steps=5, device="cpu"
        )
        done = match(
            [shapes[i] for i, _ in pairs], [shapes[j] for _, j in pairs], spec,
            source_landmarks=[marks[i] for i, _ in pairs], target_landmarks=[marks[j] for _, j in pairs],
        )  # fmt: skip
        for (i, j), row, carried in zip(pairs, done.rows, done.carried, strict=True):
            found = {"landmark_error": landmark_error(carried, marks[j]), "surface_mean": 0.0, "status": "converged"}
            rows.append(
                {
                    **row,
                    **found,
                    "source": str(i),
                    "target": str(j),
                    "run": f"s{sigma:g}",
                    "kernel": "gaussian",
                    "normalization": "none",
                }
            )
    table = sweep_table(conform(pd.DataFrame(rows), MATCHING))
    assert choose_run(table).run == "s0.3", table[["run", "landmark_error", "jacobian_min"]]
