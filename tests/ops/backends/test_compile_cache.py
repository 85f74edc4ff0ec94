"""Compiling at run time: the cache on disk, its races and damages, and errors that say what to do."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import torch
from kernel_cases import call, case

from shapeflow.errors import BackendError, CompileError
from shapeflow.ops.backends import native_call, native_cpu
from shapeflow.ops.compile import cache, host
from shapeflow.ops.compile.source import flatten

SPEC = native_cpu.Specialization("product", ("gaussian",), torch.float32, 3, 3)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache folder, and nothing loaded but the thread pool."""
    native_call.pool()
    monkeypatch.setenv("SHAPEFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(native_cpu, "_functions", {})
    native_cpu.compiled.cache_clear()
    host.compiler.cache_clear()
    host._identity.cache_clear()
    yield tmp_path / "cache"
    native_cpu.compiled.cache_clear()
    host.compiler.cache_clear()
    host._identity.cache_clear()


def test_compiles_once_then_is_found_in_the_cache(fresh, monkeypatch):
    host.library("cpu.cpp", SPEC.macros())
    monkeypatch.setattr(host, "_compile", lambda *_: pytest.fail("compiled again"))
    assert host.library("cpu.cpp", SPEC.macros()).shapeflow_run


def test_a_change_of_macros_is_another_kernel(fresh):
    host.library("cpu.cpp", SPEC.macros())
    host.library("cpu.cpp", {**SPEC.macros(), "SF_E": "2"})
    assert len(list(fresh.glob("*.json"))) == 2


@pytest.mark.parametrize("damage", ["truncate", "empty", "note", "gone"])
def test_a_damaged_entry_is_built_again(fresh, damage):
    tensors, problem = case()
    before = call(native_cpu, "product", tensors, problem)[0]
    (note,) = fresh.glob("*.json")
    (kernel,) = fresh.glob("*.so")
    content = kernel.read_bytes()
    replacement = fresh / "damaged"
    replacement.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
    if damage == "note":
        note.write_text("{")
    elif damage == "gone":
        kernel.unlink()
    else:
        os.replace(replacement, kernel)  # a new file: the loaded one must not be cut under this process's feet
    native_cpu.compiled.cache_clear()
    native_cpu._functions.clear()
    assert torch.equal(call(native_cpu, "product", tensors, problem)[0], before)
    assert cache.find(note.stem, ".so") is not None


def test_processes_that_race_all_win(tmp_path):
    code = (
        "import torch; from shapeflow.ops import kernel_product; x = torch.ones(4, 3); "
        "print(float(kernel_product(x, x, x, 'gaussian', 1.0, backend='native').sum()))"
    )
    environment = {**os.environ, "SHAPEFLOW_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert float(out) == 48.0
    assert not list(tmp_path.glob(".new-*"))


def test_without_a_compiler_the_error_says_what_to_install(fresh, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(fresh))
    with pytest.raises(BackendError, match=r"no C\+\+ compiler was found.*apt install g\+\+"):
        native_cpu.check()


def test_a_compile_error_carries_the_log(fresh):
    with pytest.raises(CompileError, match=r"(?s)refused kernels/cpu\.cpp.*-DSF_TERMS=NOTHING.*NOTHING"):
        host.library("cpu.cpp", {**SPEC.macros(), "SF_TERMS": "NOTHING"})
    assert not list(fresh.glob("*.so"))


def test_an_unwritable_cache_is_logged_once(tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("SHAPEFLOW_CACHE", str(blocked / "cache"))
    with caplog.at_level(logging.WARNING, logger="shapeflow.ops.compile"):
        assert cache.folder() == cache.folder()
    assert len([r for r in caplog.records if "SHAPEFLOW_CACHE" in r.getMessage()]) == 1


def test_sources_are_one_string_without_local_includes():
    text = flatten("cpu.cpp")
    assert '#include "' not in text
    assert text.count('#line 1 "radial.h"') == 1
