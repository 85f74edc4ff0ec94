"""Shards hold every pair once, and depend on few meshes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shapeflow.config.pairs import members, shards
from shapeflow.errors import ConfigError

MATCH = {"enabled": True, "pairs": "all", "template": None, "list": [], "subjects": None, "shard_size": 8, "threads": 1}


@given(n=st.integers(2, 30), size=st.integers(2, 200))
def test_every_ordered_pair_once_and_no_shard_too_large(n: int, size: int) -> None:
    names = [f"s{i}" for i in range(n)]
    made = shards({**MATCH, "shard_size": size}, names)
    pairs = [pair for shard in made.values() for pair in shard]
    assert len(pairs) == len(set(pairs)) == n * (n - 1)
    assert all(s != t for s, t in pairs)
    assert max(len(shard) for shard in made.values()) <= size
    assert {(t, s) for s, t in pairs} == set(pairs)


@given(n=st.integers(2, 30), size=st.integers(2, 200))
def test_both_directions_of_a_pair_lie_in_one_shard(n: int, size: int) -> None:
    for shard in shards({**MATCH, "shard_size": size}, [f"s{i}" for i in range(n)]).values():
        assert {(t, s) for s, t in shard} == set(shard)


def test_a_new_subject_changes_only_the_last_tiles() -> None:
    before = shards({**MATCH, "shard_size": 18}, [f"s{i}" for i in range(9)])
    after = shards({**MATCH, "shard_size": 18}, [f"s{i}" for i in range(10)])
    assert all(after[name] == pairs for name, pairs in before.items())
    assert all("s9" in members(after[name]) for name in set(after) - set(before))


def test_template_and_list() -> None:
    names = ["a", "b", "c"]
    assert shards({**MATCH, "pairs": "template"}, names) == {"000": (("a", "b"), ("a", "c"))}
    assert shards({**MATCH, "pairs": "template", "template": "c"}, names) == {"000": (("c", "a"), ("c", "b"))}
    assert shards({**MATCH, "pairs": "list", "list": [["a", "c"], ["a", "c"], ["b", "a"]]}, names) == {
        "000": (("a", "c"), ("b", "a"))
    }


def test_subsets() -> None:
    names = ["a", "b", "c", "d"]
    assert {n for p in shards({**MATCH, "subjects": 2}, names).values() for n in members(p)} == {"a", "b"}
    assert {n for p in shards({**MATCH, "subjects": ["d", "b"]}, names).values() for n in members(p)} == {"b", "d"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"subjects": 9},
        {"subjects": ["a", "zz"]},
        {"pairs": "template", "template": "zz"},
        {"pairs": "list", "list": [["a", "zz"]]},
    ],
)
def test_names_that_are_no_subjects(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="write|subjects are"):
        shards({**MATCH, **wrong}, ["a", "b", "c"])
