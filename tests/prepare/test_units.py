"""Guesses of units, and that they are said to be guesses."""

from __future__ import annotations

import numpy as np
import pytest

from shapeflow.prepare import outliers, units
from shapeflow.prepare.findings import Finding


def facts(size: float, whole: bool = False) -> dict:
    return {"kind": "surfaces", "dimension": 3, "size": size, "centroid_size": size / 4, "whole_coordinates": whole}


def cohort(sizes: list[float], unit: str | None = None) -> tuple[list[Finding], list[str]]:
    known = [facts(s) for s in sizes]
    return outliers.of_cohort([f"s{i}" for i in range(len(sizes))], known, unit, True), outliers.unit_guesses(
        known, unit
    )


@pytest.mark.parametrize(
    ("size", "whole", "unit"),
    [
        (16.7, False, "mm"),
        (0.12, False, "m"),
        (1.7, False, ""),
        (2e4, False, "um"),
        (300.0, True, "pixel"),
        (1e9, False, None),
    ],
)
def test_a_guess_from_the_size(size: float, whole: bool, unit: str | None) -> None:
    assert units.guess(size, whole) == unit


@pytest.mark.parametrize(("unit", "times", "own"), [("mm", 0.1, "cm"), ("mm", 1e-3, "m"), ("mm", 1e3, "um"), ("mm", 1 / 25.4, "inch"),
                                                    ("mm", 10, "0.1 mm"), ("pixel", 10, "0.1 pixel")])  # fmt: skip
def test_numbers_ten_times_smaller_are_of_a_unit_ten_times_larger(unit: str, times: float, own: str) -> None:
    assert units.beside(unit, times) == own


def test_the_cohorts_unit_is_guessed_and_the_sentence_says_so() -> None:
    found, guesses = cohort([16.0, 17.0, 15.0, 1.6])
    sentence = {f.check: f for f in found}
    assert "a guess from that size alone is mm" in sentence["unit_guess"].sentence
    assert sentence["unit_guess"].severity == "info" and "dataset.unit=mm" in sentence["unit_guess"].remedy
    assert sentence["unit"].subject == "s3" and "perhaps cm" in sentence["unit"].sentence
    assert "prepare.scale={s3:10}" in sentence["unit"].remedy
    assert guesses == ["mm", "mm", "mm", "cm"]


def test_a_unit_that_is_said_is_believed_unless_absurd() -> None:
    assert cohort([16.0, 17.0, 15.0], "cm") == ([], ["cm"] * 3)
    (finding,) = cohort([160.0, 170.0, 150.0], "m")[0]
    assert finding.severity == "warning" and "dataset.unit=m makes 1.6e+02 m" in finding.sentence


def test_two_sources_of_equal_size_are_two_units() -> None:
    """Half of the cohort in millimetres, half in centimetres: no subject is an outlier, but the sizes have a gap."""
    rng = np.random.default_rng(0)
    base = (16 * np.exp(0.05 * rng.normal(size=10))).tolist()
    found, _ = cohort([*base[:5], *(b / 10 for b in base[5:])])
    (finding,) = [f for f in found if f.check == "unit"]
    assert (
        finding.subject == ""
        and "two groups, of 5 and 5" in finding.sentence
        and "s5, s6, s7, s8, s9" in finding.sentence
    )
    assert "prepare.scale={s5:10}" in finding.remedy
    assert not [f for f in cohort(base)[0] if f.check == "unit"]
