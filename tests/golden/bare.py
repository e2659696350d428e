"""A bare pyfuse3 mount, with nothing of mdevfs in it, for the proofs of what no FUSE server can do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BAREFS = Path(__file__).parents[2] / "scripts" / "barefs.py"


@contextmanager
def bare_mount(directory: Path) -> Iterator[Path]:
    """Mount barefs on `directory`; give its `mdev/`, whose two files go stale when `remove` is written."""
    with subprocess.Popen([sys.executable, BAREFS, directory], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "ready\n", "barefs did not mount"
            yield directory / "mdev"
        finally:
            server.terminate()
