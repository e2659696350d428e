"""Open files: what a descriptor on each kind of entry does (fs/kernfs/file.c, fs/seq_file.c, fs/sysfs/file.c)."""

from __future__ import annotations

import errno
import logging
import select
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from mdevfs.errors import KernelError
from mdevfs.sysfs.entries import (
    PAGE_SIZE,
    Attribute,
    BinaryAttribute,
    Channel,
    ChannelFile,
    Entry,
    Session,
    SessionFile,
    Show,
    Text,
    WholeFile,
)
from mdevfs.sysfs.faults import Faults, On

if TYPE_CHECKING:
    from mdevfs.sysfs.node import Node

log = logging.getLogger(__name__)

POLL_IDLE = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
POLL_NEWS = POLL_IDLE | select.POLLERR | select.POLLPRI


class File:
    """One open descriptor. `read` and `write` answer as pread(2) and pwrite(2) would, or raise MdevfsError."""

    __slots__ = ("faults", "node", "seen")

    def __init__(self, node: Node, faults: Faults) -> None:
        self.node = node
        self.faults = faults
        self.seen = -1

    async def opening(self) -> None:
        """The part of open(2) that may have to wait."""

    def restrict(self) -> None:
        """Who opened it is not root, and has no capability more."""

    async def read(self, offset: int, size: int) -> bytes:
        raise KernelError(errno.EIO)

    async def write(self, offset: int, data: bytes) -> int:
        raise KernelError(errno.EIO)

    async def sync(self) -> None:
        """fsync(2); of sysfs's own files it does nothing."""

    def closed(self) -> None:
        """Nobody has the descriptor any more."""

    def poll(self) -> int:
        """PRI and ERR until the text was read once after the last notification; always on a removed node."""
        return POLL_IDLE if self.seen == self.node.events and not self.node.dead else POLL_NEWS

    async def _strike(self, on: On) -> str | None:
        """What `Faults.strike` does, while `faults.armed`; the node may have gone meanwhile."""
        text = await self.faults.strike(on, self.node.path)
        if self.node.dead:
            raise KernelError(errno.ENODEV)
        return text


class AttributeFile(File):
    """A descriptor on a sysfs attribute.

    The text is made at the first read, at offset 0, and wherever the offset is not where the last read ended; a read
    that goes on gets the rest of the old text, even after the node was removed (golden: "Reads").
    """

    __slots__ = ("at", "attribute", "text")

    def __init__(self, node: Node, faults: Faults, attribute: Attribute) -> None:
        super().__init__(node, faults)
        self.attribute = attribute
        self.text: bytes | None = None
        self.at = 0

    async def read(self, offset: int, size: int) -> bytes:
        text = self.text
        if text is None or offset == 0 or offset != self.at:
            if size == 0:
                return b""
            if self.node.dead:
                raise KernelError(errno.ENODEV)
            made = self._show()
            text = self.text = made.encode() if made.__class__ is str else await self._settle(made)
            if len(text) >= PAGE_SIZE:
                text = self.text = self._cut(text)
        elif self.node.dead and offset >= len(text) and size:
            raise KernelError(errno.ENODEV)
        piece = text[offset : offset + size]
        self.at = offset + len(piece)
        return piece

    def _show(self) -> Text | Awaitable[Text]:
        show = self.attribute.show
        if show is None:
            raise KernelError(errno.EIO)
        self.seen = self.node.events
        return self._faulty(show) if self.faults.armed else show()

    async def _faulty(self, show: Show) -> Text:
        text = await self._strike("read")
        return text if text is not None else await self._settle(show())

    def _cut(self, text: bytes) -> bytes:
        # fs/sysfs/file.c sysfs_kf_seq_show: "returned bad count", then PAGE_SIZE - 1.
        log.error("%s: show returned %d bytes, a page holds %d", self.node.path, len(text), PAGE_SIZE - 1)
        return text[: PAGE_SIZE - 1]

    @staticmethod
    async def _settle(made: Text | Awaitable[Text]) -> bytes:
        if not isinstance(made, str | bytes):
            made = await made
        return made.encode() if isinstance(made, str) else made

    async def write(self, offset: int, data: bytes) -> int:
        if self.node.dead:
            raise KernelError(errno.ENODEV)
        if not data:
            return 0
        store = self.attribute.store
        if store is None:
            raise KernelError(errno.EIO)
        if len(data) > PAGE_SIZE:
            data = data[:PAGE_SIZE]
        if self.faults.armed:
            await self._strike("write")
        pending = store(data)
        if pending is not None:
            await pending
        return len(data)


class WholeFileFile(AttributeFile):
    """A descriptor on a whole-file attribute: text fixed at open, offsets as in a plain file."""

    __slots__ = ()

    async def opening(self) -> None:
        if (show := self.attribute.show) is not None:
            self.text = await self._settle(self._faulty(show) if self.faults.armed else show())

    async def read(self, offset: int, size: int) -> bytes:
        if self.text is None:
            raise KernelError(errno.EIO)
        return self.text[offset : offset + size]


class SessionFileFile(File):
    """A descriptor that asks and is answered alone.

    A shell's `echo >&3; cat <&3` shares one offset between its write and its reads: the first read after a write,
    wherever it is, begins at the answer's first byte.
    """

    __slots__ = ("base", "session")

    def __init__(self, node: Node, faults: Faults, session: Session) -> None:
        super().__init__(node, faults)
        self.session = session
        self.base: int | None = None

    async def read(self, offset: int, size: int) -> bytes:
        if self.base is None or offset < self.base:
            self.base = offset
        text = await self._strike("read") if self.faults.armed and offset == self.base else None
        answer = await AttributeFile._settle(text if text is not None else self.session.answer())
        return answer[offset - self.base :][:size]

    async def write(self, offset: int, data: bytes) -> int:
        if self.node.dead:
            raise KernelError(errno.ENODEV)
        if not data:
            return 0
        self.base = None
        if self.faults.armed:
            await self._strike("write")
        await self.session.ask(data[:PAGE_SIZE])
        return min(len(data), PAGE_SIZE)


class BinaryFile(File):
    """A descriptor on a binary attribute (sysfs_kf_bin_read, sysfs_kf_bin_write)."""

    __slots__ = ("attribute", "end")

    def __init__(self, node: Node, faults: Faults, attribute: BinaryAttribute) -> None:
        super().__init__(node, faults)
        self.attribute = attribute
        self.end = attribute.size

    def restrict(self) -> None:
        self.end = self.attribute.for_all

    async def read(self, offset: int, size: int) -> bytes:
        if self.node.dead:
            raise KernelError(errno.ENODEV)
        size = min(size, max(0, self.end - offset)) if self.attribute.size else size
        if size and self.attribute.read is None:
            raise KernelError(errno.EIO)
        if size and self.faults.armed and (text := await self._strike("read")) is not None:
            return text.encode()[offset : offset + size]
        return self.attribute.read(offset, size) if size and self.attribute.read is not None else b""

    async def write(self, offset: int, data: bytes) -> int:
        if self.node.dead:
            raise KernelError(errno.ENODEV)
        if self.attribute.write is None:
            raise KernelError(errno.EIO)
        if self.attribute.size:
            if offset >= self.attribute.size:
                raise KernelError(errno.EFBIG)
            data = data[: self.attribute.size - offset]
        if data and self.faults.armed:
            await self._strike("write")
        return self.attribute.write(offset, data) if data else 0


class ChannelFileFile(File):
    """A descriptor on bytes that come and go, in their order."""

    __slots__ = ("channel",)

    def __init__(self, node: Node, faults: Faults, channel: Channel) -> None:
        super().__init__(node, faults)
        self.channel = channel

    async def read(self, offset: int, size: int) -> bytes:
        if self.node.dead:
            raise KernelError(errno.ENODEV)
        if self.faults.armed and (text := await self._strike("read")) is not None:
            return text.encode()[offset : offset + size]
        return self.channel.read(offset, size)

    async def write(self, offset: int, data: bytes) -> int:
        if self.node.dead:
            raise KernelError(errno.ENODEV)
        if self.faults.armed:
            await self._strike("write")
        taken = self.channel.write(offset, data)
        return taken if isinstance(taken, int) else await taken

    async def sync(self) -> None:
        await self.channel.sync()

    def closed(self) -> None:
        self.channel.close()


def file_of(node: Node, entry: Entry, faults: Faults, access: int) -> File:
    """The descriptor that an open(2) of `entry` gives; the caller has checked the mode bits."""
    match entry:
        case ChannelFile():
            return ChannelFileFile(node, faults, entry.begin(access))
        case WholeFile():
            return WholeFileFile(node, faults, entry)
        case Attribute():
            return AttributeFile(node, faults, entry)
        case SessionFile():
            return SessionFileFile(node, faults, entry.begin())
        case BinaryAttribute():
            return BinaryFile(node, faults, entry)
    raise KernelError(errno.EISDIR)
