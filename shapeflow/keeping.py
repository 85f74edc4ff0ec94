"""Finished shards, kept by what went into them.

Snakemake decides by files and rules: when one mesh of a cohort changes, the preparation runs again and so does every job after it. Most shards
read none of what changed. A shard's files are kept under `.kept/` (hard links, no second copy) with the digest of everything that went in and
of their own bytes; a job that is asked for the same again takes them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger("shapeflow.keeping")


def key_of(*what: Any) -> str:
    """A digest of plain values."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def take(key: str, files: Sequence[str | Path]) -> bool:
    """Put the kept files of `key` in place; False when there are none, or they are not whole."""
    kept = [_kept(Path(file)) for file in files]
    note = _note(Path(files[0]))
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["key"] != key or [_digest(file) for file in kept] != known["files"]:
            return False
        for file, copy in zip(files, kept, strict=True):
            _link(copy, Path(file))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    log.info("unchanged since it was last computed: kept files taken")
    return True


def keep(key: str, files: Sequence[str | Path]) -> None:
    """Remember finished files; a disk that refuses costs nothing but the memory."""
    try:
        for file in files:
            _link(Path(file), _kept(Path(file)))
        note = _note(Path(files[0]))
        temporary = note.with_name(f"{note.name}.{os.getpid()}")
        temporary.write_text(
            json.dumps({"key": key, "files": [_digest(_kept(Path(f))) for f in files]}), encoding="utf-8"
        )
        temporary.replace(note)
    except OSError as error:
        log.warning("this shard is not kept for reuse: %s", error)


def _kept(file: Path) -> Path:
    return file.parent / ".kept" / file.name


def _note(file: Path) -> Path:
    return file.parent / ".kept" / f"{file.stem}.json"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without hard links
        shutil.copy2(source, temporary)
    os.utime(temporary)  # Snakemake compares times: it is made now
    temporary.replace(target)
