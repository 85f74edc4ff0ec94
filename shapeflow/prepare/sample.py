"""A sample of a cohort that keeps the shares of its groups.

Each stratum (a combination of the labels asked for) of n_h of the N subjects gets n·n_h/N places of the sample's n, rounded by largest remainders;
who gets them is drawn with a seed of the configuration: same seed, same subjects. A subject without one of the labels is in a stratum of its own kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shapeflow.errors import ConfigError


def draw(rows: Mapping[str, Mapping[str, Any]], count: int, by: Sequence[str], seed: int) -> frozenset[str]:
    """`count` of the ids of `rows` (labels by id), stratified `by` labels."""
    import numpy as np

    if not 2 <= count <= len(rows):
        raise ConfigError(
            f"dataset.sample={count} of {len(rows)} subjects: write a number from 2 to {len(rows)}, or null for all"
        )
    known = sorted({name for row in rows.values() for name in row})
    if missing := [name for name in by if name not in known]:
        raise ConfigError(
            f"dataset.stratify names {missing[0]!r}, which is no label; the labels are {', '.join(known) or 'none: write dataset.labels'}"
        )
    strata: dict[tuple[str, ...], list[str]] = {}
    for subject, row in rows.items():
        strata.setdefault(tuple(str(row.get(name)) for name in by), []).append(subject)
    order = sorted(strata)
    places = shares([len(strata[key]) for key in order], count)
    rng = np.random.default_rng(seed)
    return frozenset(
        s for key, n in zip(order, places, strict=True) for s in rng.permutation(sorted(strata[key]))[:n].tolist()
    )


def shares(sizes: Sequence[int], count: int) -> list[int]:
    """`count` places in proportion to `sizes`, by largest remainders; of equal ones, the first."""
    total = sum(sizes)
    places = [count * size // total for size in sizes]
    remainder = sorted(range(len(sizes)), key=lambda h: (-(count * sizes[h] % total), h))
    for h in remainder[: count - sum(places)]:
        places[h] += 1
    return places
