"""The kernel gets to know the mdevs before the command does.

A client's first look at an mdev costs four requests to the server, 300 us in all (`mdevctl list`: two links, and the
names that they lead to); the kernel answers every later one itself. While a machine is built its server has nothing to
do, so somebody looks in the clients' place.
"""

from __future__ import annotations

import os
import select
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from mdevfs.sandbox.backstage import TREE
from mdevfs.sandbox.processes import child, go_backstage

DEVICES = TREE / "bus/mdev/devices"
MOST = 2000  # mdevs; of more, a client meets the rest itself
PATIENCE = 1.0  # seconds that the command waits at most


class Acquaintance:
    """A process that looks; it dies with its parent, and ends by itself."""

    def __init__(self) -> None:
        self._over, working = os.pipe()  # the process alone holds the other end
        if any(DEVICES.iterdir()):
            child(_look)
        os.close(working)

    def wait(self) -> None:
        """Until it is over, within reason."""
        select.select([self._over], [], [], PATIENCE)
        os.close(self._over)


def _look() -> int:
    go_backstage()
    mdevs = [DEVICES / name for name in islice(os.listdir(DEVICES), MOST)]
    with ThreadPoolExecutor(2) as pool:  # what one waits for, the server does while it serves the other
        list(pool.map(_look_at, mdevs))
    return 0


def _look_at(mdev: Path) -> None:
    try:
        mdev.readlink()
        (mdev / "mdev_type").readlink()
    except OSError:
        pass  # it is gone already
