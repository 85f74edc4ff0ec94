"""Tables: what the schema promises, and numbers that a reader would compute by hand."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from shapeflow.errors import ShapeflowError
from shapeflow.tables import (
    ATLAS,
    MATCHING,
    SWEEP,
    atlas_table,
    categorical_labels,
    conform,
    distance_matrix,
    distances_table,
    matching_table,
    read_table,
    subject_labels,
    sweep_table,
    varied_settings,
    write_csv,
    write_parquet,
    write_table,
)

GROUPS = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}


def pairs(run="gaussian-s1-none-0", sigma=1.0, forth=None, **changes):
    """All ordered pairs of four subjects; those of one group are near (1 forth, 3 back), the others far (10, 10)."""
    rows = []
    for s, t in itertools.permutations(GROUPS, 2):
        near = GROUPS[s] == GROUPS[t]
        distance = (1.0 if s < t else 3.0) if near else 10.0
        rows.append({
            "source": s, "target": t, "source_group": GROUPS[s], "target_group": GROUPS[t], "source_age": float(ord(s[1])),
            "target_age": float(ord(t[1])), "run": run, "kernel": "gaussian", "sigma": sigma, "normalization": "none", "gamma": 0.1,
            "hamiltonian": distance**2 / 2, "attachment": 0.0, "objective": 0.05 * distance**2, "distance": distance, "surface_mean": 0.1,
            "surface_p95": 0.2, "surface_mean_before": 0.5, "landmark_error": 0.3, "landmark_error_before": 0.9, "jacobian_min": 0.5,
            "iterations": 7, "evaluations": 9, "status": "converged", "seconds": 0.25, "device": "cpu", "backend": "torch",
            "versions": "shapeflow 0", **changes,
        })  # fmt: skip
    return pd.DataFrame(rows)


def test_distance_is_the_mean_of_both_directions_and_asymmetry_is_reported():
    matrix = distance_matrix(pairs())
    assert matrix.names == ("a1", "a2", "b1", "b2") and matrix.complete
    assert matrix.values[0, 1] == matrix.values[1, 0] == 2.0 and matrix.values[0, 2] == 10.0
    assert matrix.asymmetry[0, 1] == pytest.approx(0.5) and matrix.asymmetry[0, 2] == 0.0
    assert (np.diag(matrix.values) == 0).all()
    table = distances_table(pairs())
    assert len(table) == 6 and list(table["directions"]) == [2] * 6
    assert table.iloc[0][["first", "second", "distance"]].tolist() == ["a1", "a2", 2.0]


def test_a_failed_direction_is_left_out_and_a_failed_pair_is_missing():
    rows = pairs()
    rows.loc[(rows.source == "a1") & (rows.target == "a2"), ["status", "distance"]] = ["failed: not finite", np.nan]
    rows.loc[rows[["source", "target"]].isin(["b1", "b2"]).all(axis=1), "status"] = "failed"
    matrix = distance_matrix(rows)
    assert matrix.values[0, 1] == 3.0 and np.isnan(matrix.asymmetry[0, 1])
    assert np.isnan(matrix.values[2, 3]) and not matrix.complete
    assert list(distances_table(rows)["directions"]) == [1, 2, 2, 2, 2, 0]
    sweep = sweep_table(rows)
    assert sweep.loc[0, "failures"] == 3


def test_one_run_at_a_time_and_no_pair_twice():
    with pytest.raises(ShapeflowError, match="one run"):
        distance_matrix(pd.concat([pairs(), pairs(run="other")]))
    with pytest.raises(ShapeflowError, match="twice"):
        distance_matrix(pd.concat([pairs(), pairs()]))


def test_sweep_has_a_row_a_run_with_the_numbers_of_that_run():
    both = pd.concat(
        [pairs(run="wide", sigma=2.0, landmark_error=0.1), pairs(run="narrow", sigma=1.0)], ignore_index=True
    )
    sweep = sweep_table(both)
    assert [c.name for c in SWEEP] == list(sweep.columns)
    assert list(sweep["run"]) == ["narrow", "wide"] and list(sweep["landmark_error"]) == pytest.approx([0.3, 0.1])
    row = sweep.iloc[0]
    assert (row["subjects"], row["pairs"], row["failures"], row["evaluations"]) == (4, 12, 0, 108)
    assert row["distance_mean"] == pytest.approx((2 + 2 + 4 * 10) / 6) and row["distance_median"] == 10.0
    assert (row["label"], row["knn_accuracy"], row["majority_rate"]) == ("group", 1.0, 0.5)
    assert row["silhouette"] == pytest.approx(0.8) and row["seconds"] == pytest.approx(3.0)
    assert sweep_table(both, label="age")["label"].tolist() == ["age", "age"]
    with pytest.raises(ShapeflowError, match="its labels are group, age"):
        sweep_table(both, label="genotype")


def test_groups_are_not_judged_by_distances_to_a_template_alone():
    star = pairs()[lambda rows: rows["source"] == "a1"]
    row = sweep_table(star).iloc[0]
    assert row["pairs"] == 3 and row[["label", "knn_accuracy", "silhouette"]].isna().all()


def test_sweep_of_an_atlas_alone():
    atlas = pairs().rename(columns={"source": "subject"}).drop_duplicates("subject").drop(columns=["target"])
    atlas["group"] = atlas.pop("source_group")
    sweep = sweep_table(pairs().iloc[:0], atlas)
    assert sweep.loc[0, "pairs"] == 0 and sweep.loc[0, "subjects"] == 4
    assert sweep.loc[0, "atlas_surface_mean"] == pytest.approx(0.1) and sweep.loc[
        0, "atlas_objective"
    ] == pytest.approx(atlas.objective.sum())
    assert pd.isna(sweep.loc[0, "evaluations"]), "of matchings, and there are none"


def test_labels_by_subject_and_which_make_groups():
    labels = subject_labels(pairs())
    assert labels.index.tolist() == ["a1", "a2", "b1", "b2"] and labels["group"].tolist() == ["a", "a", "b", "b"]
    frame = pd.DataFrame({
        "id": list("pqrstuvwxyzk"), "sex": [1, -1] * 6, "age": np.arange(12) // 2 * 1.5, "same": ["x"] * 12, "line": ["m"] * 7 + ["n"] * 4 + [None],
    })  # fmt: skip
    assert categorical_labels(frame) == ["sex", "line"]


def test_tables_gather_runs_and_survive_a_round_trip(tmp_path):
    for i, run in enumerate(("r2", "r1")):
        write_parquet(pairs(run=run, sigma=i + 1.0), tmp_path / run / "matching.parquet")
    write_parquet(
        conform(pd.DataFrame({c.name: ["s"] if c.dtype == "string" else [1] for c in ATLAS}), ATLAS),
        tmp_path / "r1/atlas/atlas.parquet",
    )
    table = matching_table([tmp_path / "r2", tmp_path / "r1"])
    assert len(table) == 24 and table["run"].tolist() == ["r1"] * 12 + ["r2"] * 12
    assert list(table.columns[: len(MATCHING)]) == [c.name for c in MATCHING]
    assert {c.name: str(table[c.name].dtype) for c in MATCHING} == {c.name: c.dtype for c in MATCHING}
    assert len(atlas_table([tmp_path / "r2", tmp_path / "r1"])) == 1 and len(atlas_table([tmp_path / "r2"])) == 0
    parquet, csv = write_table(table, tmp_path / "tables" / "matching")
    pd.testing.assert_frame_equal(read_table(parquet), table)
    np.testing.assert_array_equal(
        read_table(csv)["objective"], table["objective"].to_numpy()
    )  # digits enough to be exact
    before = parquet.read_bytes(), csv.read_bytes()
    write_table(table, tmp_path / "tables" / "matching")
    assert before == (parquet.read_bytes(), csv.read_bytes())
    assert sorted(p.name for p in (tmp_path / "tables").iterdir()) == ["matching.csv", "matching.parquet"]


def test_a_group_called_none_is_no_missing_value(tmp_path):
    frame = pd.DataFrame({"group": ["None", "NA", None], "size": [1.5, None, 2.5]})
    found = read_table(write_csv(frame, tmp_path / "t.csv"))
    assert found["group"].tolist()[:2] == ["None", "NA"] and found.isna().sum().tolist() == [1, 1]
    assert found["size"].dtype == float


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = write_csv(pairs(), tmp_path / "t.csv")
    before = path.read_bytes()

    class Broken(pd.DataFrame):
        def to_csv(self, target, **kwargs):
            target.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_csv(Broken(pairs()), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_unusable_tables_say_what_to_do(tmp_path):
    with pytest.raises(ShapeflowError, match="run the study again"):
        read_table(tmp_path / "none.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ShapeflowError, match=re.escape("cut.parquet is not a readable table")):
        read_table(tmp_path / "cut.parquet")
    with pytest.raises(ShapeflowError, match="lacks the columns distance"):
        conform(pairs().drop(columns="distance"), MATCHING)
    with pytest.raises(ShapeflowError, match="column 'sigma'.*float64"):
        conform(pairs(sigma="wide"), MATCHING)


def test_the_sweep_says_what_distinguishes_its_runs(tmp_path):
    def config(name, **changes):
        text = {
            "sigma": 1.0,
            "kernel": {"name": "gaussian"},
            "prepare": {"similarity": False, "n_points": 9},
            "solver": {"name": "lbfgs", "steps": 5},
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({**text, **changes}))
        return tmp_path / name

    a, b = config("a"), config("b", sigma=2.0, prepare={"similarity": True, "n_points": 9})
    assert varied_settings([a, b]) == {"a": "prepare.similarity=false", "b": "prepare.similarity=true"}
    assert varied_settings([a]) == {"a": ""}
    # a group that was exchanged is named, not spelled out; sigma has a column
    c = config("c", solver={"name": "exact", "steps": 10})
    assert varied_settings([a, c]) == {"a": "solver=lbfgs", "c": "solver=exact"}
    # a number is no truth value, though Python takes 1 for True
    zero, one = config("zero", dataset={"seed": 0}), config("one", dataset={"seed": 1})
    assert varied_settings([zero, one]) == {"zero": "dataset.seed=0", "one": "dataset.seed=1"}
    both = pd.concat([pairs("a"), pairs("b")])
    assert sweep_table(both, settings=varied_settings([a, b]))["settings"].tolist() == [
        "prepare.similarity=false",
        "prepare.similarity=true",
    ]
    assert sweep_table(both)["settings"].isna().all()
