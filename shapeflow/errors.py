"""Errors that a user can act on: what was received, what was expected, what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterable

FULL = (errno.ENOSPC, errno.EDQUOT)


class ShapeflowError(ValueError):
    """Base of every error that shapeflow raises on purpose."""


class ConfigError(ShapeflowError):
    """The configuration asks for something impossible."""


class MeshError(ShapeflowError):
    """A mesh file or its content cannot be used."""


class KernelError(ShapeflowError):
    """A kernel product was called with arguments that do not fit together."""


class BackendError(ShapeflowError):
    """A backend cannot run here: a compiler, a driver or a library is missing."""


class CompileError(BackendError):
    """A compiler refused a kernel; the message carries its log."""


class DerivativeError(ShapeflowError, NotImplementedError):
    """A derivative beyond those the operator family closes was asked for."""


def few(names: Iterable[object], most: int = 6) -> str:
    """Names in a sentence: the first of them, and how many there are besides."""
    every = list(map(str, names))
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def disk_error(error: BaseException | None) -> OSError | None:
    """The OSError of a disk that is full or read-only which `error` is, or came up after: a file that cannot be closed hides why."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (*FULL, errno.EROFS):
            return error
        error = error.__cause__ or error.__context__
    return None
