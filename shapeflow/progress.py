"""How far a long computation is: a bar with the time left at a terminal, plain lines in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("shapeflow.progress")


@contextmanager
def progress(label: str, total: int, every: float = 10.0) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many of `total` are done. The log gets a line every so many seconds, and a last one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    started = last = time.monotonic()
    reached = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(label, total=total)

        def tell(done: int) -> None:
            nonlocal last, reached
            reached = done
            bar.update(task, completed=done)
            now = time.monotonic()
            if now - last >= every:
                last = now
                log.info("%s", _line(label, done, total, now - started))

        yield tell
    log.info("%s: %d of %d in %.1f s", label, reached, total, time.monotonic() - started)


def _line(label: str, done: int, total: int, elapsed: float) -> str:
    left = f", about {elapsed / done * (total - done):.0f} s left at most" if 0 < done <= total else ""
    return f"{label}: {done} of {total} after {elapsed:.0f} s{left}"
