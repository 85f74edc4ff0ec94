"""Errors that a user can act on: what was received, what was expected, what to do."""

from __future__ import annotations


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
