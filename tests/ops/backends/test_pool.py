"""What the compiled CPU kernels share in a process: working memory that stays (its threads are tested with the operators)."""

import ctypes
import os
from ctypes import c_size_t, c_uint, c_void_p

import pytest

from shapeflow.ops.backends import native_call


class Pool(ctypes.Structure):
    """`Pool` of kernels/threads.h."""

    _fields_ = (
        ("parallel", ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_uint)),
        ("borrow", ctypes.CFUNCTYPE(c_void_p, c_size_t)),
        ("give_back", ctypes.CFUNCTYPE(None, c_void_p)),
    )


@pytest.fixture
def pool():
    return Pool.from_address(native_call.pool())


def test_a_block_comes_back_to_whoever_asks_for_as_much(pool):
    first, second = pool.borrow(1 << 20), pool.borrow(1 << 20)
    assert first != second and first % 64 == second % 64 == 0
    ctypes.memset(first, 1, 1 << 20)
    pool.give_back(first)
    assert pool.borrow(1 << 20) == first
    pool.give_back(second)
    assert pool.borrow((1 << 20) - 4096) == second  # a larger one will do, unless most of it would go unused
    pool.give_back(second)
    small = pool.borrow(1 << 10)
    assert small != second
    for block in (first, small, None):
        pool.give_back(block)


def test_more_than_is_kept_is_freed(pool):
    blocks = [pool.borrow(1 << 20) for _ in range(200)]
    assert len(set(blocks)) == len(blocks)
    for block in blocks:
        ctypes.memset(block, 1, 1 << 20)
        pool.give_back(block)
    again = pool.borrow(1 << 20)
    assert again in blocks[-32:]  # the oldest went first
    pool.give_back(again)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_borrows_too(pool):
    child = os.fork()
    if child == 0:
        block = pool.borrow(1 << 20)
        pool.give_back(block)
        os._exit(0 if block else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
