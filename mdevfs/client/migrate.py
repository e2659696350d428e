"""Moving a device's state from a source to a target: at most one of the two ever runs.

The order is all of it: the source stops and sends, the target reads into a new state and says that it is whole, the
source commits (STOP: it does not run again by itself), and only then the target runs. Whoever dies before the commit
leaves the source running and the target as it was, by the leases of `mdevfs.client.device`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import attrs

from mdevfs.client.answer import Reason
from mdevfs.client.device import MoveFailed, Moving, device_place
from mdevfs.client.handshake import OpenRefused, read_string
from mdevfs.errors import EXIT_NO, InputError, MachineError, MdevfsError, escape

Progress = Callable[[int], None]
"""Hears how many bytes have been sent so far."""

DECIDE = (
    "decide which of the two is to run, and only there: mdevfs migrate --resume DEVICE "
    "(the target, if its mdevfs/migration_state says STOP and it has the state; else the source)"
)


@attrs.frozen
class Outcome:
    """What became of a migration. `running` is who runs: "target", "source", or None while nobody may tell."""

    migrated: bool
    running: str | None
    sent: int = 0
    message: str | None = None
    reasons: tuple[Reason, ...] = ()


class InDoubt(MdevfsError):
    """The link died after the source's commit: neither side runs, and a person decides."""

    exit_code = EXIT_NO


class Receiver(Protocol):
    """The target, here or elsewhere. Each call raises MoveFailed while the source can still go back."""

    def begin(self, string: bytes) -> None:
        """Gets ready for a source that says this string."""

    def write(self, data: bytes) -> None:
        """Takes the next piece."""

    def loaded(self) -> None:
        """Returns when the target has the whole state and would run."""

    def run(self) -> None:
        """Runs. Raises InDoubt where nobody can say whether it does."""


class Here:
    """A target on this machine."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self._device = stack.enter_context(Moving("TARGET", path))

    def begin(self, string: bytes) -> None:
        """The handshake is the caller's; this opens the door."""
        self._device.move("RESUMING")
        self._device.open_data(out=False)

    def write(self, data: bytes) -> None:
        """One piece."""
        self._device.write(data)

    def loaded(self) -> None:
        """What fsync says."""
        self._device.sync()

    def keep(self) -> None:
        """Takes the new state over, and stays stopped: somebody has to decide."""
        self._device.move("STOP")

    def run(self) -> None:
        """Takes the new state over, and runs."""
        try:
            self._device.move("RUNNING")
        except MoveFailed as error:
            raise InDoubt(f"the source has stopped for good, and {error}; {DECIDE}") from error


def move(source: Path, receiver: Receiver, *, precopy: bool = False, progress: Progress | None = None) -> int:
    """Moves the source's state; bytes sent. Raises MoveFailed (the source runs), InDoubt (nobody does)."""
    sent = 0

    def send(device: Moving) -> None:
        nonlocal sent
        for piece in device.pieces():
            receiver.write(piece)
            sent += len(piece)
            if progress is not None:
                progress(sent)

    string = _string(source)
    with Moving("SOURCE", source) as device:
        if device.state not in ("RUNNING", "RUNNING_P2P", "STOP"):
            raise MoveFailed(f"{device} is in {device.state}: somebody else is moving it")
        receiver.begin(string)
        device.move("PRE_COPY" if precopy else "STOP_COPY")
        device.open_data(out=True)
        if precopy:
            send(device)
            device.move("STOP_COPY")
        send(device)
        receiver.loaded()
        device.move("STOP")  # the commit
        receiver.run()
    return sent


def _string(source: Path) -> bytes:
    place = device_place("SOURCE", source)
    try:
        return read_string(place.attribute).data
    except OSError as error:
        raise MoveFailed(f"SOURCE {place}: it does not migrate: {error.strerror}") from None
    except OpenRefused as error:
        raise MachineError(f"SOURCE {place}: {error}") from None


def resume(path: Path) -> str:
    """Runs a stopped device; where it was. Raises InputError where its state is on its way."""
    with Moving("DEVICE", path) as device:
        state = device.state
        if state in ("STOP_COPY", "PRE_COPY", "PRE_COPY_P2P", "RESUMING"):
            raise InputError(f"{escape(str(device))} is in {state}: a migration is under way, end that first")
        device.move("RUNNING")
        return state
