"""The migration of one mdev: its state machine, and the session that moves its data (VFIO migration, version 2)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import trio

from mdevfs.errors import KernelError
from mdevfs.mdev.sessions import Resuming, Saving, Session
from mdevfs.state.machine import RESUMING, RUNNING, SAVING, STOP_COPY, way
from mdevfs.sysfs.entries import PAGE_SIZE, Channel
from mdevfs.sysfs.parse import word

if TYPE_CHECKING:
    from mdevfs.mdev.device_state import DeviceState


class Migration:
    """`state` is the device's. An open session's file is a lease: closed before the commit, a source runs again, and a
    target is what it was before it began to resume.

    A `migration_state` that was opened read-write is a lease likewise, of the session that was begun through it. The
    commit is the move that ends the session while its file is open: of a source to STOP, of a target out of
    RESUMING, which takes the new state over.
    """

    __slots__ = ("_before", "_moving", "device", "session", "state")

    def __init__(self, device: DeviceState) -> None:
        self.device = device
        self.state = RUNNING
        self.session: Session | None = None
        self._before = RUNNING
        self._moving = trio.Lock()

    @property
    def busy(self) -> bool:
        """Whether data is on its way."""
        return self.session is not None

    async def move(self, wanted: str) -> None:
        """Goes to a state, by the kernel's shortest way.

        Raises KernelError (EINVAL) where there is no way, MdevfsError where an arc fails; the device is then where the
        last arc that succeeded left it.
        """
        async with self._moving:
            features = self.device.mdev.parent.driver.migration_features
            begin = self.state
            for state in way(begin, wanted, features):
                await self._arc(state, begin)

    async def _arc(self, state: str, begin: str) -> None:
        now = self.state
        if now == RESUMING:
            await self._take_over()
        elif state in SAVING:
            await self._save(state)
        elif state == RESUMING:
            self._before = begin
            self.session = Resuming(self.device, self._give_up)
        elif now in SAVING:
            self._end()
        self.state = state

    async def _save(self, state: str) -> None:
        """PRE_COPY begins a session that STOP_COPY goes on with."""
        session = self.session
        if not isinstance(session, Saving):
            session = Saving(self.device, self._run_again)
            await session.prepare()
        if state == STOP_COPY:
            session.stop()
        self.session = session

    async def _take_over(self) -> None:
        session = self.session
        assert isinstance(session, Resuming)
        registers = await session.finish()
        if self.session is not session:  # closed meanwhile: the device is what it was
            raise KernelError(errno.ENODEV)
        self.device.registers = registers
        self._end()

    def _end(self) -> None:
        if self.session is not None:
            self.session.end()
        self.session = None

    def _run_again(self) -> None:
        """A source's file was closed before the commit."""
        self._end()
        self.state = RUNNING

    def _give_up(self) -> None:
        """A target's file was closed before the commit."""
        self._end()
        self.state = self._before

    def stop(self) -> None:
        """The mdev goes: so does what is under way."""
        self._end()

    def open(self, access: int) -> Channel:
        """open(2) of `migration_data`. Raises KernelError: EINVAL where no data moves, EBUSY for a second opener."""
        if self.session is None or self.state not in (*SAVING, RESUMING):
            raise KernelError(errno.EINVAL)
        self.session.open(access)
        return self.session

    def open_state(self, access: int) -> Channel:
        """open(2) of `migration_state`."""
        return StateChannel(self, lease=access == os.O_RDWR)


class StateChannel:
    """One open `migration_state`: reads give the state as it is, a write moves the device."""

    def __init__(self, migration: Migration, *, lease: bool) -> None:
        self._migration = migration
        self._lease = lease
        self._begun: Session | None = None

    def read(self, offset: int, size: int) -> bytes:
        return f"{self._migration.state}\n".encode()[offset : offset + size]

    async def write(self, offset: int, data: bytes) -> int:
        data = data[:PAGE_SIZE]
        if not data:
            return 0
        before = self._migration.session
        try:
            await self._migration.move(word(data))
        finally:
            if self._lease and self._migration.session is not before:
                self._begun = self._migration.session
        return len(data)

    async def sync(self) -> None:
        """There is nothing to wait for."""

    def close(self) -> None:
        """Ends the session that was begun here, unless it was committed."""
        if self._begun is not None:
            self._begun.leave()
