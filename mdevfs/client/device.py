"""A device's state from outside: `mdevfs/migration_state` and `mdevfs/migration_data` of one mdev.

Both are held open while its state moves, and are a lease: whoever closes them before the commit, by dying too, leaves
the device as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from mdevfs.client.answer import Reason
from mdevfs.client.handshake import last_verdict
from mdevfs.client.places import Kind, Place, identify
from mdevfs.errors import EXIT_NO, InputError, MachineError, MdevfsError, escape

PIECE = 1 << 20


class MoveFailed(MdevfsError):
    """A device state that could not be saved or loaded; `reasons` are the device's, when it gave any."""

    exit_code = EXIT_NO

    def __init__(self, message: str, reasons: tuple[Reason, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons


def device_place(role: str, path: Path) -> Place:
    """The mdev at a path. Raises InputError where it is none, or has no device state."""
    place = identify(role, path)
    if place.kind is not Kind.MDEV:
        raise InputError(f"{role} {place}: device state is an mdev's, and this is a {place.kind.value}")
    if not (place.directory / "mdevfs/migration_state").exists():
        raise InputError(f"{role} {place}: it has no mdevfs/migration_state (the family state), or does not migrate")
    return place


def state_at(place: Place) -> str | None:
    """Where the state machine of the mdev there is; None where nobody answers."""
    try:
        return (place.directory / "mdevfs/migration_state").read_text("ascii", "replace").strip()
    except OSError:
        return None


class Moving:
    """A device whose state moves. As a context manager: what was not committed is undone at its end."""

    def __init__(self, role: str, path: Path) -> None:
        self.role = role
        self.place = device_place(role, path)
        self._folder = self.place.directory / "mdevfs"
        self._data: int | None = None
        self._state = self._open("migration_state", os.O_RDWR)
        self._seq = self._last_seq()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._data is not None:
            os.close(self._data)
        os.close(self._state)

    @property
    def state(self) -> str:
        """Where its state machine is. Raises MoveFailed where it does not answer."""
        with self._failing("it does not say its state"):
            return os.pread(self._state, 64, 0).decode("ascii", "replace").strip()

    @property
    def answers(self) -> bool:
        """Whether its machine is there, be it to say that the device is gone."""
        try:
            os.pread(self._state, 64, 0)
        except OSError as error:
            return error.errno == errno.ENODEV
        return True

    def move(self, state: str) -> None:
        """Raises MoveFailed with the device's reasons."""
        with self._failing(f"cannot go to {state}"):
            os.write(self._state, state.encode())

    def open_data(self, *, out: bool) -> None:
        """Raises MoveFailed, when somebody else moves it."""
        with self._failing("its migration_data does not open"):
            self._data = self._open("migration_data", os.O_RDONLY if out else os.O_WRONLY)

    def read(self) -> bytes | None:
        """The next piece; empty at the end, and None at the end of what there is before the device stops."""
        assert self._data is not None
        try:
            return os.read(self._data, PIECE)
        except OSError as error:
            if error.errno == errno.ENOMSG:
                return None
            raise MoveFailed(f"{self}: its state cannot be read: {error.strerror}", self._reasons()) from None

    def pieces(self) -> Iterator[bytes]:
        """All that can be read now."""
        while piece := self.read():
            yield piece

    def write(self, data: bytes) -> None:
        """Raises MoveFailed with the device's reasons."""
        assert self._data is not None
        rest = memoryview(data)
        with self._failing("the state does not load"):
            while len(rest):
                rest = rest[os.write(self._data, rest) :]

    def sync(self) -> None:
        """Whether all that was written makes a state. Raises MoveFailed with the device's reasons."""
        assert self._data is not None
        with self._failing("the state does not load"):
            os.fsync(self._data)

    def __str__(self) -> str:
        return f"{self.role} {self.place}"

    def _open(self, name: str, flags: int) -> int:
        try:
            return os.open(self._folder / name, flags | os.O_CLOEXEC)
        except PermissionError as error:
            raise MachineError(f"{self.role} {self.place}: mdevfs/{name}: {error.strerror}; run as its owner") from None
        except FileNotFoundError as error:
            raise InputError(f"{self.role} {self.place}: mdevfs/{name}: {error.strerror}") from None

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = "; somebody else is moving it" if error.errno == errno.EBUSY else ""
            where = escape(str(self))
            raise MoveFailed(f"{where}: {what}: {error.strerror}{hint}", self._reasons()) from None

    def _reasons(self) -> tuple[Reason, ...]:
        """Of a verdict that is newer than the first look."""
        verdict = last_verdict(self.place.directory)
        return verdict.reasons if verdict is not None and verdict.seq > self._seq else ()

    def _last_seq(self) -> int:
        verdict = last_verdict(self.place.directory)
        return verdict.seq if verdict is not None else 0
