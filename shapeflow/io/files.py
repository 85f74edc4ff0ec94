"""Names and bytes: suffixes (doubled, upper-case, compressed), bounded decompression, writing by renaming."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shapeflow.errors import MeshError

# A gzip of zeros expands a thousandfold: no mesh that fits in memory needs more than this many bytes.
MAX_BYTES = 4 << 30
_CHUNK = 16 << 20


def suffix_of(path: str | Path) -> str:
    """Lower-case suffix that names the format: ".vtk" of "a_r.VTK.vtk", ".obj" of "id.obj.gz"."""
    name = Path(path).name.lower().removesuffix(".gz")
    return Path(name).suffix


def read_bytes(path: str | Path) -> bytes:
    """The file's content, decompressed when it is gzip (by its first bytes, not by its name)."""
    path = Path(path)
    try:
        if not path.is_file():
            raise MeshError("is no file" if path.exists() else "does not exist")
        if path.stat().st_size > MAX_BYTES:
            raise MeshError(f"is larger than {MAX_BYTES >> 30} GB; decimate it first")
        data = path.read_bytes()
    except OSError as error:
        raise MeshError(f"cannot be opened: {error.strerror}") from error
    if data[:2] != b"\x1f\x8b":
        return data
    parts, total = [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            while chunk := stream.read(_CHUNK):  # one large read would reserve its whole size at once
                parts.append(chunk)
                total += len(chunk)
                if total > MAX_BYTES:
                    raise MeshError(f"expands to more than {MAX_BYTES >> 30} GB; decimate it first")
    except (OSError, EOFError, zlib.error) as error:
        raise MeshError(f"is a damaged gzip file ({error}); copy it again") from error
    return b"".join(parts)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name in the same folder that becomes `path` when the block ends well, and vanishes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are private; results are not
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
