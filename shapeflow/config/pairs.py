"""Which pairs a run matches, and how they lie in shards: one shard is one job and one batch.

Subjects are cut into blocks of b, and a shard holds all pairs, both directions, of two blocks: 2b² ≤ shard_size of them. A shard then depends
on 2b meshes only, so that a changed mesh reruns its own row of tiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shapeflow.errors import ConfigError, few

Pairs = tuple[tuple[str, str], ...]


def chosen(match: Mapping[str, Any], subjects: Sequence[str]) -> tuple[str, ...]:
    """The subjects that are matched: all, the first n, or those named."""
    wanted = match["subjects"]
    if wanted is None:
        return tuple(subjects)
    if isinstance(wanted, int):
        if wanted > len(subjects):
            raise ConfigError(
                f"match.subjects={wanted} but the data set has {len(subjects)}: write a number up to that, or null for all"
            )
        return tuple(subjects)[:wanted]
    _known("match.subjects", wanted, subjects)
    return tuple(s for s in subjects if s in set(wanted))


def shards(match: Mapping[str, Any], subjects: Sequence[str]) -> dict[str, Pairs]:
    """Pairs (source, target) of every shard, by the shard's name."""
    names = chosen(match, subjects)
    size = match["shard_size"]
    if match["pairs"] == "all":
        b = max(1, math.isqrt(size // 2))
        blocks = [names[i : i + b] for i in range(0, len(names), b)]
        tiles = {
            f"{i:03d}-{j:03d}": _tile(blocks[i], blocks[j], i == j)
            for i in range(len(blocks))
            for j in range(i, len(blocks))
        }
        return {name: pairs for name, pairs in tiles.items() if pairs}
    if match["pairs"] == "template":
        template = match["template"] or names[0]
        _known("match.template", [template], subjects)
        pairs = tuple((template, other) for other in names if other != template)
    else:
        listed = [tuple(pair) for pair in match["list"]]
        _known("match.list", [name for pair in listed for name in pair], subjects)
        pairs = tuple(dict.fromkeys(listed))
    return {f"{i:03d}": pairs[k : k + size] for i, k in enumerate(range(0, len(pairs), size))}


def known_template(atlas: Mapping[str, Any], subjects: Sequence[str]) -> None:
    """Refuse an initial template that is no word, no subject and no file."""
    name = atlas["template"]
    if atlas["enabled"] and name not in ("closest", "average") and name not in subjects and not Path(name).is_file():
        raise ConfigError(f"atlas.template={name}: write closest, average, a subject ({few(subjects)}) or a mesh file")


def members(pairs: Pairs) -> tuple[str, ...]:
    """Subjects of a shard, each once."""
    return tuple(dict.fromkeys(name for pair in pairs for name in pair))


def _tile(a: Sequence[str], b: Sequence[str], diagonal: bool) -> Pairs:
    if diagonal:
        return tuple((s, t) for s in a for t in a if s != t)
    return tuple((s, t) for s in a for t in b) + tuple((t, s) for s in a for t in b)


def _known(key: str, names: Sequence[str], subjects: Sequence[str]) -> None:
    unknown = [name for name in names if name not in set(subjects)]
    if unknown:
        raise ConfigError(
            f"{key} names {few(map(repr, unknown))}, which the data set does not have; its subjects are {few(subjects)}"
        )
