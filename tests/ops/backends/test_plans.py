"""What CUDA backends keep for a layout, without a card: how often it is made, when it goes, and what a recording of it keeps."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from shapeflow import replay
from shapeflow.errors import BackendError
from shapeflow.ops.backends.plans import Plans


class Plan:
    """Something that a weak reference can watch."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments


@pytest.fixture
def recording(monkeypatch):
    """`recording(True)`: a stream is being recorded from now on."""

    def now(is_recorded: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: is_recorded)

    monkeypatch.setattr(replay, "_for_good", {})
    now(False)
    return now


def test_made_once(recording):
    plans = Plans("this product", most=10)
    first = plans.get(("key",), Plan, 1, "two")
    assert first.arguments == (1, "two")
    assert plans.get(("key",), Plan, 1, "two") is first and plans.get(("other",), Plan) is not first


def test_the_least_recently_used_goes_first(recording):
    plans = Plans("this product", most=4)
    made = [plans.get((k,), Plan) for k in range(4)]
    assert plans.get((0,), Plan) is made[0]
    plans.get((4,), Plan)
    assert plans.get((0,), Plan) is made[0] and plans.get((1,), Plan) is not made[1]


def test_never_made_while_recording(recording):
    plans = Plans("this product", most=10)
    recording(True)
    with pytest.raises(BackendError, match="this product for this layout .* call it once with the same shapes before"):
        plans.get(("key",), Plan)
    recording(False)
    assert plans.get(("key",), Plan)


def test_a_plan_lives_as_long_as_the_recordings_that_replay_it(recording, monkeypatch):
    """Forgotten by its backend or not; those that nothing replays go when they are forgotten."""

    @contextmanager
    def recorded(graph):
        recording(True)
        yield
        recording(False)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph", recorded)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    z = SimpleNamespace(is_cuda=True, device="cuda", copy_=lambda other: None)
    z.detach = z.clone = lambda: z
    plans = Plans("this product", most=1)

    def function(argument):
        plans.get(("recorded",), Plan)
        return (argument,)

    first, second = replay.Replay(), replay.Replay()
    for made in (first, second) * 2:
        made(function, z)
    assert first.replays and second.replays
    del made
    plan = weakref.ref(plans.get(("recorded",), Plan))
    idle = weakref.ref(plans.get(("another",), Plan))
    plans.get(("a third",), Plan)
    gc.collect()
    assert plan() is not None and idle() is None
    del first
    assert plan() is not None
    del second
    assert plan() is None


def test_a_recording_of_the_callers_keeps_its_plans_for_good(recording):
    plans = Plans("this product", most=1)
    plan = weakref.ref(plans.get(("recorded",), Plan))
    recording(True)
    plans.get(("recorded",), Plan)
    recording(False)
    plans.get(("another",), Plan)
    gc.collect()
    assert plan() is not None
