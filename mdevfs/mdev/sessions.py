"""What an open `mdevfs/migration_data` carries: the device state going out, or coming in.

A session lasts while the device is in a state that moves data; its file is a lease. Once the session is over its
file answers ENODEV (samples/vfio-mdev/mtty.c, `disabled`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mdevfs.errors import KernelError, MdevfsError
from mdevfs.migration.verdict import RefusedVerdict, Verdict, verdict_of
from mdevfs.state import body, stream
from mdevfs.state.fields import Chunk
from mdevfs.state.pull import Feed, Pull
from mdevfs.state.refusal import BadState

if TYPE_CHECKING:
    from mdevfs.mdev.device_state import DeviceState

STRING = "migration_version"  # the source's string, in the JSON of a section


class Session:
    """One session; `opened` while somebody has its file, `over` when the device has gone on. `left` is told when the
    file is closed before."""

    access = os.O_RDONLY

    def __init__(self, device: DeviceState, left: Callable[[], None]) -> None:
        self.device = device
        self.opened = False
        self.over = False
        self._left = left
        self._at = 0

    def open(self, access: int) -> None:
        """Raises KernelError: EBUSY for a second opener, EINVAL for who wants the other direction."""
        if self.opened:
            raise KernelError(errno.EBUSY)
        if access != self.access:
            raise KernelError(errno.EINVAL)
        self.opened = True

    def close(self) -> None:
        """The file is closed."""
        self.opened = False
        self.leave()

    def leave(self) -> None:
        """The lease ends, and with it what was not committed."""
        if not self.over:
            self._left()

    def end(self) -> None:
        """The device goes on without it."""
        self.over = True

    def read(self, offset: int, size: int) -> bytes:
        raise KernelError(errno.EINVAL)

    def write(self, offset: int, data: bytes) -> int:
        raise KernelError(errno.EINVAL)

    async def sync(self) -> None:
        if self.over:
            raise KernelError(errno.ENODEV)

    def _check(self, offset: int) -> None:
        if self.over:
            raise KernelError(errno.ENODEV)
        if offset != self._at:
            raise KernelError(errno.ESPIPE)


class Saving(Session):
    """The device state on its way out: in PRE_COPY what can be known before the device stops, then all of it."""

    def __init__(self, device: DeviceState, left: Callable[[], None], string: str) -> None:
        """`string` is what the device says of itself."""
        super().__init__(device, left)
        self.stopped = False
        self._string = string
        self._chunks: list[Chunk] | None = None
        self._index = 0
        self._inside = 0

    def stop(self) -> None:
        """The device stands still: from here on all of its state is there. Raises MdevfsError."""
        self._chunks = self.device.mdev.parent.driver.run(self.device.mdev, "state", self._saved)
        self.stopped = True
        self._skip(self._at)

    def _saved(self) -> list[Chunk]:
        section = self.device.save()
        if self.device.mdev.parent.description.bare:
            return list(section.body)
        section.described["migration_version"] = self._string
        return stream.write(self.device.machine, [section])

    def end(self) -> None:
        super().end()
        self._chunks = None

    def _skip(self, size: int) -> None:
        """Passes over what was read in PRE_COPY."""
        while size and self._chunks is not None:
            step = min(size, len(self._chunks[self._index]) - self._inside)
            self._advance(step)
            size -= step

    def _advance(self, size: int) -> None:
        assert self._chunks is not None
        self._inside += size
        while self._index < len(self._chunks) and self._inside == len(self._chunks[self._index]):
            self._chunks[self._index] = b""
            self._index, self._inside = self._index + 1, 0

    def read(self, offset: int, size: int) -> bytes:
        self._check(offset)
        piece = self._rest(size) if self.stopped else self._early(size)
        self._at += len(piece)
        return piece

    def _rest(self, size: int) -> bytes:
        assert self._chunks is not None
        pieces: list[Chunk] = []
        while size and self._index < len(self._chunks):
            piece = self._chunks[self._index][self._inside : self._inside + size]
            pieces.append(piece)
            size -= len(piece)
            self._advance(len(piece))
        return b"".join(pieces)

    def _early(self, size: int) -> bytes:
        """In PRE_COPY; at its end ENOMSG (linux/vfio.h), and of bare state 0 bytes, as mtty has it."""
        description = self.device.mdev.parent.description
        if description.bare:
            section = self.device.mdev.parent.driver.run(self.device.mdev, "state", self.device.save)
            return b"".join(section.body)[: description.initial][self._at : self._at + size]
        name, version = self.device.section_name, self.device.save_version
        early = stream.head(self.device.machine) + stream.section_head(1, name, 0, version)
        if self._at == len(early):
            raise KernelError(errno.ENOMSG)
        return early[self._at : self._at + size]


class Resuming(Session):
    """A device state on its way in, read as it comes into a new state; the device keeps its own until `finish`."""

    access = os.O_WRONLY

    def __init__(self, device: DeviceState, left: Callable[[], None]) -> None:
        super().__init__(device, left)
        self._place = device.place()
        self._error: MdevfsError | None = None
        self._accepted = -1  # so many bytes were found whole
        description = device.mdev.parent.description
        self._loader: stream.Loader | BareLoader = (
            BareLoader(self._place) if description.bare else stream.Loader([self._place])
        )

    def write(self, offset: int, data: bytes) -> int:
        self._check(offset)
        if self._error is not None:
            raise self._error
        try:
            self.device.mdev.parent.driver.run(self.device.mdev, "load", self._loader.feed, data)
        except MdevfsError as error:
            self._error = error
            self.tell(error)
            raise
        self._at += len(data)
        return len(data)

    def tell(self, error: MdevfsError) -> None:
        """Keeps a refusal for `mdevfs/last_verdict`."""
        mdev = self.device.mdev
        mdev.last_verdict = mdev.journal.record("load", mdev, self._said() or "", verdict_of(error))

    async def sync(self) -> None:
        """Whether all has come and fits. Raises MdevfsError, with a verdict in `mdevfs/last_verdict`."""
        await super().sync()
        try:
            await self._whole()
        except MdevfsError as error:
            self.tell(error)
            raise

    async def _whole(self) -> None:
        """Raises MdevfsError where something is missing or does not fit; from then on nothing else is taken."""
        if self._error is not None:
            raise self._error
        if self._accepted == self._at:
            return
        at = self._at
        try:
            self._loader.finish()
            await self._check_string()
        except MdevfsError as error:
            if isinstance(error, BadState) and error.code == "state-cut-short":
                error.errno = errno.EINVAL  # less than the device needs (mtty, RESUMING -> STOP)
            self._error = error
            raise
        self._accepted = at

    async def _check_string(self) -> None:
        """The handshake once more, where the source said its string: what it refuses is not loaded. Who says none, as
        QEMU does, is held to its machine type, as by QEMU."""
        string = self._said()
        if string is None:
            if isinstance(self._loader, stream.Loader) and self.device.machine:
                self._loader.check_machine(self.device.machine)
            return
        verdict = self.device.mdev.check_source(string)
        if not isinstance(verdict, Verdict):
            verdict = await verdict
        if not verdict.compatible:
            raise RefusedVerdict(verdict)

    def _said(self) -> str | None:
        described = self._loader.described
        devices = described.get("devices") if described is not None else None
        for one in devices if isinstance(devices, list) else ():
            if isinstance(one, dict) and one.get("name") == self._place.name and isinstance(one.get(STRING), str):
                return str(one[STRING])
        return None

    async def finish(self) -> object:
        """The new state. Raises MdevfsError."""
        await self._whole()
        assert self._place.loaded is not None
        return self._place.loaded.state


class BareLoader:
    """Reads a bare state; as many bytes as its description says, and no more."""

    described: Mapping[str, object] | None = None

    def __init__(self, place: stream.Place) -> None:
        self._place = place
        self._view, self._pull = place.begin(place.description.version), Pull()
        self._feed = Feed(self._pull, body.load(place.description, self._view, self._pull))

    def feed(self, data: bytes) -> None:
        """The next piece. Raises BadState: ENOMEM where there are more bytes than the device has (mtty)."""
        self._place.check(self._view.version, 0)
        if not self._feed.done:
            self._feed.feed(data)
            data = b"x" * self._pull.waiting
        if self._feed.done and data:
            rule = "there is more data than the device takes"
            raise BadState("state-too-long", errno.ENOMEM, rule=rule, device=self._place.name, offset=self._pull.offset)

    def finish(self) -> None:
        """Raises BadState (EINVAL, as mtty) where bytes are missing."""
        if not self._feed.done:
            rule = "the device state ends too early"
            came = self._pull.offset + self._pull.waiting
            raise BadState("state-cut-short", errno.EINVAL, rule=rule, device=self._place.name, offset=came)
        self._place.loaded = self._view
