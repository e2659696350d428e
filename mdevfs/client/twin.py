"""Steps that belong together: a second process stands by to end them, should the first be killed between them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

HELD = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Signals that would end the process come after the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def twin(end: Callable[[], None]) -> Iterator[None]:
    """While the block runs, a process with the same open files; if the block does not end well, it calls `end`.

    So it does when this process is killed: its end of the pipe is closed then. `end` must do no harm after any part of
    the block. The twin is in a session of its own, where neither Ctrl-C nor a hang-up reaches it.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _stand_by(reader, writer, end)
    os.close(reader)
    try:
        yield
        with contextlib.suppress(BrokenPipeError):  # the twin was killed
            os.write(writer, b"done")
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def _stand_by(reader: int, writer: int, end: Callable[[], None]) -> None:
    try:
        os.setsid()
        os.close(writer)
        if not os.read(reader, 4):
            end()
    finally:
        os._exit(0)  # nothing of what this process has opened is the twin's to end
