"""The rule that picks a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from shapeflow.errors import ShapeflowError
from shapeflow.statistics import choose_run


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
    choice = choose_run(sweep(landmark_error=[0.100, 0.102, 0.104, 0.2]))
    assert choice.run == "c" and "wider kernel" in choice.reason


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
