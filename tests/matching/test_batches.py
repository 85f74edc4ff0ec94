"""Batches sized to memory, and what happens when it runs out all the same."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from shapeflow.errors import BackendError
from shapeflow.matching import MatchingSpec, match
from shapeflow.matching.energy import MatchingObjective, Problem
from shapeflow.matching.sizing import batches, bytes_of, factor_bytes
from shapeflow.memory import available, is_exhausted
from tests.shapes import circle

SPEC = MatchingSpec(sigma=0.6, attachment_widths=(0.4,), steps=3, gamma=1e-3, max_iter=5)
TARGETS = [circle(12, 1 + 0.1 * k) for k in range(5)]
SOURCES = [circle(10 + k) for k in range(5)]
ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 80000000000 bytes"),
    BackendError("out of memory while scaling 5 problems of up to 14 points"),
    MemoryError(),
]


@pytest.fixture
def memory_for(monkeypatch):
    """Evaluations of more than `most` problems fail with `error`; returns the sizes that were tried."""

    def inject(most: int, error: BaseException) -> list[int]:
        tried: list[int] = []
        evaluate = MatchingObjective.evaluate

        def limited(self, z):
            tried.append(self.rows.count)
            if self.rows.count > most:
                raise error
            return evaluate(self, z)

        monkeypatch.setattr(MatchingObjective, "evaluate", limited)
        return tried

    return inject


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_batch_that_memory_does_not_hold_is_halved_and_nothing_is_lost(memory_for, caplog, error):
    whole = match(SOURCES, TARGETS, SPEC)
    tried = memory_for(2, error)
    seen = []
    with caplog.at_level(logging.WARNING, "shapeflow.matching"):
        halved = match(SOURCES, TARGETS, SPEC, progress=lambda done, total: seen.append((done, total)))
    assert max(tried) == 5
    assert [(row["batch"], row["halvings"]) for row in halved.rows] == [(2, 1), (2, 1), (1, 2), (2, 2), (2, 2)]
    assert "halves" in caplog.text
    assert seen[-1] == (5, 5)
    for a, b in zip(whole.momenta, halved.momenta, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)  # a result depends on its batch by rounding only
    for a, b in zip(whole.rows, halved.rows, strict=True):
        assert a["status"] == b["status"] and a["evaluations"] == b["evaluations"]
        assert a["objective"] == pytest.approx(b["objective"], rel=1e-9)
    assert [row["halvings"] for row in whole.rows] == [0] * 5


def test_a_matching_too_large_by_itself_is_a_failed_row(memory_for):
    memory_for(0, ERRORS[0])
    result = match(SOURCES[:2], TARGETS[:2], SPEC)
    assert all(row["status"].startswith("failed: out of memory") and np.isnan(row["distance"]) for row in result.rows)
    assert [p.shape for p in result.momenta] == [(10, 2), (11, 2)] and len(result.deformed) == 2


def test_other_errors_are_not_taken_for_memory(memory_for):
    memory_for(2, RuntimeError("linalg.cholesky: the input is not positive-definite"))
    with pytest.raises(RuntimeError, match="cholesky"):
        match(SOURCES, TARGETS, SPEC)
    assert not is_exhausted(ValueError("out of memory"))


def test_batches_are_cut_where_the_estimate_is_reached():
    problems = [Problem(s, t, SPEC) for s, t in zip(SOURCES, TARGETS, strict=True)]
    sizes = [bytes_of(p) + factor_bytes(p) for p in problems]
    assert batches(problems, torch.device("cpu"), sum(sizes)) == [range(5)]
    assert batches(problems, torch.device("cpu"), sizes[0] + sizes[1]) == [
        range(2),
        range(2, 3),
        range(3, 4),
        range(4, 5),
    ]
    assert batches(problems, torch.device("cpu"), 1) == [range(k, k + 1) for k in range(5)]
    shared = [Problem(SOURCES[0], t, SPEC) for t in TARGETS]
    together = 5 * bytes_of(shared[0]) + factor_bytes(shared[0])
    assert batches(shared, torch.device("cpu"), together) == [range(5)]


def test_the_factor_of_a_source_of_many_points_has_a_row_for_each():
    """(n, 2500) columns of the kernel, in double precision; the estimate may not be below what is held."""
    sizes = {n: factor_bytes(Problem(circle(n), TARGETS[0], SPEC)) for n in (100, 2500, 20_000)}
    assert sizes[100] >= 8 * 100**2 and sizes[2500] >= 8 * 2500**2 and sizes[20_000] >= 8 * 20_000 * 2500


def test_free_memory_is_known_here():
    free = available(torch.device("cpu"))
    assert free is None or 0 < free < 2**50
