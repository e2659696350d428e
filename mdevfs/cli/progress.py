"""How far a device state has come: a counter on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdevfs.client.migrate import Progress

PERIOD = 0.1  # seconds


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress | None]:
    """What is told how many bytes have gone; None where nobody would see it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("device state"), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task, shown = bar.add_task("state", total=None), time.monotonic()

        def told(sent: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > PERIOD:
                bar.update(task, completed=sent)
                shown = time.monotonic()

        yield told
