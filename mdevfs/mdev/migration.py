"""The migration of one mdev: its state machine, and the session that moves its data (VFIO migration, version 2)."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from mdevfs.errors import KernelError, MdevfsError
from mdevfs.mdev.sessions import Resuming, Saving, Session
from mdevfs.migration.verdict import Refused, verdict_of
from mdevfs.state.machine import RESUMING, RUNNING, SAVING, STATES, STOP, STOP_COPY, has, reachable, way
from mdevfs.sysfs.entries import PAGE_SIZE, Channel
from mdevfs.sysfs.parse import word

if TYPE_CHECKING:
    from mdevfs.mdev.device_state import DeviceState


class Migration:
    """`state` is the device's. An open session's file is a lease: closed before the commit, a source runs again (one
    that was stopped before stays so), and a target is what it was before it began to resume.

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

        Raises Refused (EINVAL) where there is no way, MdevfsError where an arc fails, each with a verdict in
        `mdevfs/last_verdict`. The device is then where it was, unless the session that it was in is over: then it is
        where the last arc that succeeded left it.
        """
        async with self._moving:
            begin, session = self.state, self.session
            try:
                for state in self._way(wanted):
                    await self._arc(state, begin)
            except BaseException as error:
                if self.session is session:
                    self.state = begin
                if isinstance(error, MdevfsError):
                    self._tell(wanted, error)
                raise

    def _way(self, wanted: str) -> Sequence[str]:
        now, features = self.state, self.device.mdev.parent.driver.migration_features
        try:
            return way(now, wanted, features)
        except KernelError:
            mend = f"write one of {', '.join(reachable(now, features))}"
            if wanted in STATES and has(wanted, features):
                rule = f"no way leads from {now} to {wanted}"
                raise Refused(
                    "migration-state-unreachable", rule=rule, source=wanted, side="target", mend=mend
                ) from None
            rule = f"the device is in {now}, and has no such migration state"
            raise Refused("migration-state-unknown", rule=rule, source=wanted, side="target", mend=mend) from None

    def _tell(self, wanted: str, error: MdevfsError) -> None:
        mdev = self.device.mdev
        if isinstance(self.session, Resuming):
            self.session.tell(error)
        else:
            mdev.last_verdict = mdev.journal.record("parameter", mdev, wanted, verdict_of(error))

    async def _arc(self, state: str, begin: str) -> None:
        now = self.state
        if now == RESUMING:
            await self._take_over()
        elif state in SAVING:
            await self._save(state, begin)
        elif state == RESUMING:
            await self._string()
            self._before = begin
            self.session = Resuming(self.device, self._give_up)
        elif now in SAVING:
            self._end()
        self.state = state

    async def _string(self) -> str:
        """What the device says of itself; one that cannot say it does not migrate. Raises MdevfsError."""
        string = self.device.mdev.migration_string()
        return string if isinstance(string, str) else await string

    async def _save(self, state: str, begin: str) -> None:
        """PRE_COPY begins a session that STOP_COPY goes on with."""
        session = self.session
        if not isinstance(session, Saving):
            session = Saving(self.device, self._give_up, await self._string())
            self._before = STOP if begin == STOP else RUNNING
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

    def _give_up(self) -> None:
        """A session's file was closed before the commit."""
        self._end()
        self.state = self._before

    def close(self) -> None:
        """Whoever used the device is gone, and what is under way with it (mtty.c, mtty_disable_files)."""
        if self.session is not None:
            self.session.leave()

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
    """One open `migration_state`: reads give the state as it is, a write moves the device; ENODEV where it is a lease,
    and somebody else has ended what was begun here."""

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
        if self._begun is not None and self._begun.over:
            raise KernelError(errno.ENODEV)
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
