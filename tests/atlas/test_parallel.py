"""An atlas in several processes is that of one, to rounding; a process that dies ends it with a sentence."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
import torch.distributed as dist

from shapeflow.atlas import AtlasSpec, estimate_atlas, parallel
from shapeflow.atlas.objective import AtlasObjective
from shapeflow.atlas.parallel import SharedObjective, shared_objective
from shapeflow.errors import ShapeflowError
from shapeflow.matching import MatchingSpec
from shapeflow.matching.energy import Problem
from tests.shapes import circle

MATCHING = MatchingSpec(
    sigma=0.6, attachment_widths=(0.4,), steps=3, gamma=1e-2, normalization="sinkhorn", device="cpu"
)
# three subjects for two processes: shares of different sizes, points of different numbers
SUBJECTS = [circle(24, 1.2), circle(30, 0.9), circle(26, 1.1)]


def same(one, other, rtol=1e-9):
    np.testing.assert_allclose(other.template.points, one.template.points, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(other.momenta, one.momenta, rtol=rtol, atol=rtol * np.abs(one.momenta).max())
    objectives = [[step["objective"] for step in result.history] for result in (one, other)]
    np.testing.assert_allclose(objectives[1], objectives[0], rtol=rtol)
    assert [row["status"] for row in other.rows] == [row["status"] for row in one.rows]


class Killed(Exception):
    pass


def kill(iterations, objective):
    if iterations >= 6:
        raise Killed


@pytest.mark.parametrize("killed, resumed", [(1, 2), (2, 1)])
def test_any_number_of_processes_finds_the_same_and_resumes_the_same_checkpoint(tmp_path, caplog, killed, resumed):
    spec = AtlasSpec(MATCHING, max_iter=6, round_iter=3)
    one = estimate_atlas(circle(20), SUBJECTS, spec)
    checkpoint = tmp_path / "checkpoint.npz"
    with pytest.raises(Killed):
        estimate_atlas(circle(20), SUBJECTS, spec, checkpoint=checkpoint, progress=kill, processes=killed)
    assert checkpoint.exists() and not dist.is_initialized()
    again = estimate_atlas(circle(20), SUBJECTS, spec, checkpoint=checkpoint, processes=resumed)
    same(one, again)
    assert again.rows[0]["processes"] == resumed
    assert not [record for record in caplog.records if record.levelname == "WARNING"]  # all ended in order, in silence
    assert len(one.history) == 7 and one.history[-1]["objective"] < 0.5 * one.history[0]["objective"]


def test_a_process_that_dies_ends_the_estimation():
    template = circle(20)
    problems = [Problem(template, s, MATCHING) for s in SUBJECTS]
    with (
        pytest.raises(ShapeflowError, match=r"process 2 of the 2 of the atlas ended \(exit code -9\)"),
        shared_objective(template, problems, 0.6, 2) as objective,
    ):
        assert isinstance(objective, SharedObjective)
        z = objective.start()
        z = z + 0.02 * torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(0))
        value, gradient = objective.evaluate(z)
        expected = AtlasObjective(template, SUBJECTS, problems, 0.6).evaluate(z)
        torch.testing.assert_close((value, gradient), expected, rtol=1e-12, atol=1e-14)
        os.kill(objective.others[0].process.pid, signal.SIGKILL)
        objective.evaluate(z)
    assert not dist.is_initialized()


def test_the_last_words_of_a_process_are_quoted(monkeypatch):
    monkeypatch.setattr(parallel, "_PROGRAM", "raise MemoryError('no room here')")
    with pytest.raises(ShapeflowError, match=r"exit code 1\): MemoryError: no room here.*resumes"):
        estimate_atlas(circle(20), SUBJECTS, AtlasSpec(MATCHING), processes=2)


def test_no_processes_are_refused():
    with pytest.raises(ShapeflowError, match="at least one process; received 0"):
        estimate_atlas(circle(20), SUBJECTS, AtlasSpec(MATCHING), processes=0)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees fewer than two CUDA devices")
def test_two_gpus_find_what_one_finds():
    spec = AtlasSpec(dataclasses.replace(MATCHING, device="cuda"), max_iter=6)
    one = estimate_atlas(circle(20), SUBJECTS, spec)
    same(one, estimate_atlas(circle(20), SUBJECTS, spec, processes=2))
