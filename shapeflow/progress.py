"""How far a long computation is: a bar with the time left at a terminal, plain lines in the log."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

log = logging.getLogger("shapeflow.progress")


@contextmanager
def progress(label: str, total: int, every: float = 10.0) -> Iterator[Callable[[float], None]]:
    """Yields a function that is told how many of `total` are done, fractions included. The log gets a line every so many seconds, and a last one."""
    started = last = time.monotonic()
    draw: Callable[[float], None] | None = None
    with ExitStack() as stack:

        def tell(done: float) -> None:
            nonlocal draw, last
            draw = draw or _bar(stack, label, total)
            if draw is not None:
                draw(done)
            now = time.monotonic()
            if now - last >= every:
                last = now
                log.info("%s", _line(label, done / total, now - started))

        tell(0)
        yield tell
    log.info("%s: done in %.1f s", label, time.monotonic() - started)


def _line(label: str, share: float, elapsed: float) -> str:
    left = f", about {elapsed / share * (1 - share):.0f} s left at most" if share > 0 else ""
    return f"{label}: {share:.0%} after {elapsed:.0f} s{left}"


def _bar(stack: ExitStack, label: str, total: int) -> Callable[[float], None] | None:
    """A bar that ends with `stack`; None where nobody is looking, or where another job has the terminal's last line."""
    if not sys.stderr.isatty() or not _turn(stack):
        return None
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
    task = bar.add_task(label, total=total)
    return lambda done: bar.update(task, completed=done)


def _turn(stack: ExitStack) -> bool:
    """Whether this process may draw: jobs of one study share a terminal, and two bars in its last line would be unreadable.

    The lock is on the terminal itself, opened anew (what jobs inherit is one open file, whose lock they would share), and
    ends with the process.
    """
    try:
        import fcntl

        terminal = os.open(os.ttyname(sys.stderr.fileno()), os.O_WRONLY | os.O_NOCTTY)
    except (ImportError, OSError):  # no POSIX, or a terminal without a name here
        return True
    try:
        fcntl.flock(terminal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(terminal)
        return False
    stack.callback(os.close, terminal)
    return True
