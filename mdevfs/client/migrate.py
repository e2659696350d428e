"""Moving a device's state from a source to a target: at most one of the two ever runs.

The order is all of it: the source stops and sends, the target reads into a new state and says that it is whole, the
source commits (STOP: it does not run again by itself), and only then the target runs. Whoever dies before the commit
leaves the source running and the target as it was, by the leases of `mdevfs.client.device`; for the moment after it
`mdevfs.client.twin` stands by.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import attrs

from mdevfs.client.answer import Reason
from mdevfs.client.device import MoveFailed, Moving, device_place, state_at
from mdevfs.client.handshake import OpenRefused, read_string
from mdevfs.client.places import Place
from mdevfs.client.twin import held_back, twin
from mdevfs.errors import EXIT_NO, InputError, MachineError, MdevfsError, escape

Progress = Callable[[int], None]
"""Hears how many bytes have been sent so far."""

DECIDE = (
    "decide which of the two is to run, and only there: mdevfs migrate --resume DEVICE "
    "(the target, if its mdevfs/migration_state says STOP and it has the state; else the source)"
)


@attrs.frozen
class Outcome:
    """What became of a migration: `migrated` is None while nobody can tell. `running` is who runs: "target",
    "source", or None where that is not known, or nobody does."""

    migrated: bool | None
    running: str | None
    sent: int = 0
    message: str | None = None
    reasons: tuple[Reason, ...] = ()


class InDoubt(MdevfsError):
    """The link died after the source's commit: the source is stopped, and a person decides."""

    exit_code = EXIT_NO


class Receiver(Protocol):
    """The target, here or elsewhere. Each call raises MoveFailed where the source runs on."""

    def begin(self, source: Place, string: bytes) -> None:
        """Gets ready for a source that says this string."""

    def write(self, data: bytes) -> None:
        """Takes the next piece."""

    def loaded(self) -> None:
        """Returns when the target has the whole state and would run."""

    def finish(self, source: Moving) -> None:
        """The source stops for good, then the target runs. Raises InDoubt where nobody can say whether it does."""


class Here:
    """A target on this machine."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self._device = stack.enter_context(Moving("TARGET", path))

    def begin(self, source: Place, string: bytes) -> None:
        """The handshake is the caller's; this opens the door."""
        if source.directory == self._device.place.directory:
            raise InputError(f"SOURCE and TARGET are one device: {source}")
        self.open()

    def open(self) -> None:
        """From here on it takes data."""
        self._device.move("RESUMING")
        self._device.open_data(out=False)

    def write(self, data: bytes) -> None:
        """One piece."""
        self._device.write(data)

    def loaded(self) -> None:
        """What fsync says."""
        self._device.sync()

    def finish(self, source: Moving) -> None:
        """With a twin: whoever of the two is killed, the other ends it."""
        with held_back(), twin(lambda: self._settle(source)):
            source.move("STOP")
            self._settle(source)

    def _settle(self, source: Moving) -> None:
        """Once the source has stopped for good: the target runs, or where it surely does not, the source again."""
        if source.state != "STOP":
            return
        try:
            self.run()
        except MoveFailed:
            source.move("RUNNING")
            raise

    def keep(self) -> None:
        """Takes the new state over, and stays stopped: somebody has to decide."""
        self._device.move("STOP")

    def run(self) -> None:
        """Takes the new state over, and runs. Raises MoveFailed where it surely does not, InDoubt else."""
        try:
            self._device.move("RUNNING")
        except MoveFailed as error:
            if not self._device.answers:
                raise InDoubt(f"the source has stopped for good, and {error}; {DECIDE}") from error
            raise


def migrate(source: Path, receiver: Receiver, *, precopy: bool = False, progress: Progress | None = None) -> Outcome:
    """Moves the source's state. Raises InputError and MachineError for what a migration cannot begin with."""
    place = device_place("SOURCE", source)
    sent = 0

    def send(device: Moving) -> None:
        nonlocal sent
        for piece in device.pieces():
            receiver.write(piece)
            sent += len(piece)
            if progress is not None:
                progress(sent)

    try:
        string = _string(place)
        with Moving("SOURCE", source) as device:
            _runs(device)
            receiver.begin(place, string)
            device.move("PRE_COPY" if precopy else "STOP_COPY")
            device.open_data(out=True)
            if precopy:
                send(device)
                device.move("STOP_COPY")
            send(device)
            receiver.loaded()
            receiver.finish(device)
    except MoveFailed as error:
        running = "source" if state_at(place) in ("RUNNING", "RUNNING_P2P") else None
        return Outcome(False, running, sent, str(error), error.reasons)
    except InDoubt as error:
        return Outcome(None, None, sent, str(error))
    return Outcome(True, "target", sent)


def _runs(device: Moving) -> None:
    """Raises MoveFailed for a source that does not run: its state is on its way, or may run elsewhere already."""
    state = device.state
    if state == "STOP":
        raise MoveFailed(
            f"{device} is stopped, and may have been migrated away: mdevfs migrate --resume {escape(str(device.place))}"
            " runs it, if nothing else has its state"
        )
    if state not in ("RUNNING", "RUNNING_P2P"):
        raise MoveFailed(f"{device} is in {state}: somebody else is moving it")


def _string(place: Place) -> bytes:
    try:
        return read_string(place.attribute).data
    except OSError as error:
        raise MoveFailed(f"SOURCE {place}: it does not migrate: {error.strerror}") from None
    except OpenRefused as error:
        raise MachineError(f"SOURCE {place}: {error}") from None


def resume(path: Path) -> str:
    """Runs a stopped device; where it was. Raises InputError where its state is on its way, MoveFailed."""
    with Moving("DEVICE", path) as device:
        state = device.state
        if state in ("STOP_COPY", "PRE_COPY", "PRE_COPY_P2P", "RESUMING"):
            raise InputError(f"{escape(str(device))} is in {state}: a migration is under way, end that first")
        device.move("RUNNING")
        return state
