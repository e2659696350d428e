"""Telling the kernel what it must forget.

Forgetting attributes is a quick call. Forgetting a name takes the directory's lock in the kernel, which somebody may
hold who waits for an answer of ours: so a thread does it. As a rule nobody does, and the thread is done before trio
could have handed the work over and back (40 us with trio's threads): the loop waits for it in place, but not longer
than `PATIENCE`, and then goes on answering until the thread is done.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading
from collections.abc import Callable, Sequence

import pyfuse3
import trio

log = logging.getLogger("mdevfs.mount")

PATIENCE = 0.0005  # seconds


class Invalidator:
    """One thread, one batch at a time; the caller takes care of that (`SysfsOperations.settle`)."""

    def __init__(self) -> None:
        self._batches: queue.SimpleQueue[Sequence[tuple[int, bytes]] | None] = queue.SimpleQueue()
        self._done = threading.Lock()  # held while a batch is on its way
        self._done.acquire()
        self._thread = threading.Thread(target=self._work, name="mdevfs-invalidate", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; it may be waiting for a kernel that is gone, so nobody waits for it."""
        self._batches.put(None)

    @staticmethod
    def attributes(inode: int) -> None:
        """Makes the kernel forget an inode's attributes, here and now."""
        _tell(pyfuse3.invalidate_inode, inode, True)

    async def names(self, names: Sequence[tuple[int, bytes]]) -> None:
        """Makes the kernel forget (directory inode, name) pairs; returns when it has."""
        self._batches.put(names)
        if not self._done.acquire(timeout=PATIENCE):
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._done.acquire)

    def _work(self) -> None:
        while (names := self._batches.get()) is not None:
            for inode, name in names:
                _tell(pyfuse3.invalidate_entry, inode, name)
            self._done.release()


def _tell(invalidate: Callable[..., None], *what: object) -> None:
    try:
        invalidate(*what)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # else the kernel had forgotten it by itself
            log.warning("%s%r: %s", invalidate.__name__, what, error)
