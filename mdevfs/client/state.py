"""A device's state into bytes and out of them, without another device: what `mdevfs state save` and `load` do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from mdevfs.client.device import MoveFailed, Moving
from mdevfs.client.migrate import Progress

STILL = ("RUNNING", "RUNNING_P2P", "STOP")


def save(path: Path, write: Callable[[bytes], object], progress: Progress | None = None) -> int:
    """Gives a device's state to `write`, piece by piece, while the device stands still; bytes given. It then goes on
    as before, whatever happened. Raises MoveFailed with the device's reasons."""
    sent = 0
    with Moving("DEVICE", path) as device:
        _check(device)
        device.move("STOP_COPY")
        device.open_data(out=True)
        for piece in device.pieces():
            write(piece)
            sent += len(piece)
            if progress is not None:
                progress(sent)
    return sent


def load(pieces: Iterable[bytes], path: Path, progress: Progress | None = None) -> int:
    """Gives a device a state, with which it then runs; bytes given. Raises MoveFailed with the device's reasons, and
    the device is as it was."""
    sent = 0
    with Moving("DEVICE", path) as device:
        _check(device)
        device.move("RESUMING")
        device.open_data(out=False)
        for piece in pieces:
            device.write(piece)
            sent += len(piece)
            if progress is not None:
                progress(sent)
        device.sync()
        device.move("RUNNING")
    return sent


def _check(device: Moving) -> None:
    if (state := device.state) not in STILL:
        raise MoveFailed(f"{device} is in {state}: somebody else is moving it")
