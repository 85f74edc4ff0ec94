"""Compiled kernels on disk, addressed by content.

    key = SHA-256(source, flags, compiler, architecture) -> <key>.json {"digest": …} -> <digest><suffix>

Both files are written under a temporary name and renamed, and the second name is the digest of its bytes: any number of processes may build the
same kernel at once and all of them end with a whole file. A file whose bytes do not match its name (a full disk, a copied cache) is ignored and built again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

_log = logging.getLogger("shapeflow.ops.compile")


@cache
def _writable(wanted: str) -> Path:
    path = Path(wanted)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        fallback = Path(tempfile.mkdtemp(prefix="shapeflow-cache-"))
        _log.warning(
            "the kernel cache %s cannot be written (%s): kernels of this process go to %s and are compiled again next time. "
            "Set SHAPEFLOW_CACHE to a folder you can write.",
            path, error, fallback,
        )  # fmt: skip
        return fallback


def folder() -> Path:
    """SHAPEFLOW_CACHE, else the platform's cache folder."""
    return _writable(os.environ.get("SHAPEFLOW_CACHE") or user_cache_dir("shapeflow"))


def key_of(*parts: Any) -> str:
    """Digest of everything that decides the compiled bytes."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find(key: str, suffix: str) -> tuple[Path, dict[str, Any]] | None:
    """The file stored under `key` and what was noted beside it, or None if there is none or its bytes are damaged."""
    root = folder()
    try:
        note = json.loads((root / f"{key}.json").read_text(encoding="utf-8"))
        path = root / f"{note['digest']}{suffix}"
        if hashlib.sha256(path.read_bytes()).hexdigest() == note["digest"]:
            return path, note
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def store(key: str, suffix: str, content: bytes, **note: Any) -> Path:
    """Put `content` under `key`; returns the file's path."""
    root, digest = folder(), hashlib.sha256(content).hexdigest()
    path = root / f"{digest}{suffix}"
    _write(path, content)
    _write(root / f"{key}.json", json.dumps({"digest": digest, **note}).encode())
    return path


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
