"""What a recording asks of Python, without a card; tests/test_cuda_evaluation.py has the rest."""

import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import torch

from shapeflow import ragged, replay
from shapeflow.ragged import Ragged
from shapeflow.replay import Replay, keep


class Owner:
    """As an objective owns the recording of its own method."""

    def __init__(self) -> None:
        self.replay = Replay()

    def evaluate(self, z):
        return self.replay(self._evaluate, z)

    def _evaluate(self, z):
        return (z + 1,)


def test_a_cpu_calls_the_function():
    owner, z = Owner(), torch.ones(2)
    for _ in range(3):
        assert torch.equal(owner.evaluate(z)[0], z + 1)
    assert not owner.replay.replays and owner.replay.note(z) == ""


def test_a_recording_ends_with_its_owner_without_a_collection():
    gc.disable()
    try:
        owner = Owner()
        owner.evaluate(torch.ones(2))
        gone = weakref.ref(owner.replay)
        del owner
        assert gone() is None
    finally:
        gc.enable()


def test_nothing_is_collected_while_recording(monkeypatch):
    """Freeing an older graph would spoil the new one."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    z = SimpleNamespace(is_cuda=True, device="cuda", copy_=lambda other: None)
    z.detach = z.clone = lambda: z
    collects, recording = [], Replay()

    def function(argument):
        collects.append(gc.isenabled())
        return (argument,)

    for _ in range(3):
        recording(function, z)
    assert collects == [True, False] and gc.isenabled() and recording.replays


def test_a_recording_keeps_what_caches_may_forget(monkeypatch):
    """Owners of rows, equal widths: a graph reads their memory long after other batches have pushed them out of their caches."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(replay, "_for_good", {})
    cached = SimpleNamespace(is_cuda=True)
    with monkeypatch.context() as patch:
        patch.setattr(ragged, "_owner", lambda layout, device: cached)
        assert Ragged((0, 2)).owner("cuda") is cached
    assert list(replay._for_good.values()) == [cached]
    assert Ragged((0, 2)).owner() is not None and len(replay._for_good) == 1, "on a CPU nothing is recorded"


def test_a_failure_is_told_with_the_first_recordings(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    z = SimpleNamespace(is_cuda=True, device="cuda")
    z.detach = z.clone = lambda: z
    first = Replay()
    again = first.again()

    def function(argument):
        keep(argument)
        if again.calls > 1 and argument is z and not again.failure:
            raise RuntimeError("waits\nfor the device")
        return (argument,)

    for _ in range(3):
        again(function, z)
    assert again.note(z) == "launch by launch: RuntimeError: waits" and not again.kept
    assert first.note(z) == "recorded, but for some: RuntimeError: waits"
