"""A sample keeps shares, is drawn again by its seed, and refuses what it cannot do."""

from __future__ import annotations

from collections import Counter

import pytest

from shapeflow.errors import ConfigError
from shapeflow.prepare import Dataset, scan
from shapeflow.prepare.sample import draw, shares

ROWS = {f"s{i:03d}": {"line": "a" if i < 60 else "b", "dose": i % 3} for i in range(90)}


def test_places_are_in_proportion_and_add_up():
    assert shares([60, 30], 9) == [6, 3]
    assert shares([1, 1, 1], 2) == [1, 1, 0]
    assert shares([50, 49, 1], 10) == [5, 5, 0]
    for count in range(1, 60):
        sizes = [17, 5, 31, 7]
        places = shares(sizes, count)
        assert sum(places) == count and all(
            abs(p - count * s / 60) < 1 and p <= s for p, s in zip(places, sizes, strict=True)
        )


def test_a_stratified_sample_keeps_the_shares_and_the_seed_tells_who():
    found = draw(ROWS, 30, ["line", "dose"], 0)
    # 30 places for strata of 20 and 10 of 90: 6.67 and 3.33 of them, the largest remainders first
    strata = Counter((ROWS[s]["line"], ROWS[s]["dose"]) for s in found)
    assert strata == {("a", d): 7 for d in range(3)} | {("b", d): 3 for d in range(3)}
    assert found == draw(dict(reversed(ROWS.items())), 30, ["line", "dose"], 0), (
        "the order of the rows is of no account"
    )
    assert found != draw(ROWS, 30, ["line", "dose"], 1)
    assert len(draw(ROWS, 90, (), 0)) == 90


def test_refusals_say_what_to_write():
    with pytest.raises(ConfigError, match="from 2 to 90"):
        draw(ROWS, 91, (), 0)
    with pytest.raises(ConfigError, match="no label; the labels are dose, line"):
        draw(ROWS, 10, ["sex"], 0)


def test_a_data_set_is_sampled_after_its_choice(tmp_path):
    for i in range(12):
        (tmp_path / f"m{i:02d}.csv").write_text("0,0\n1,0\n1,1\n")
    (tmp_path / "labels.tsv").write_text(
        "id\tgroup\n" + "".join(f"m{i:02d}\t{'x' if i < 8 else 'y'}\n" for i in range(12))
    )
    options = dict(name="t", path=str(tmp_path), pattern="*.csv", labels="labels.tsv", exclude=["m00"])
    found = scan(Dataset(**options, sample=6, stratify="group"))
    assert [s.id for s in found] == sorted(s.id for s in found) and "m00" not in {s.id for s in found}
    assert Counter(s.labels["group"] for s in found) == {"x": 4, "y": 2}
