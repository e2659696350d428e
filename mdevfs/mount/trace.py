"""`--trace FILE` of `mdevfs mount` and `run`: who read or wrote which attribute, with what result, a JSON line each.

    {"time": 1790000000.5, "pid": 4711, "comm": "mdevctl", "uid": 0, "operation": "write", "path": ".../create",
     "offset": 0, "size": 36, "text": "83b8f4f2-...", "errno": null, "took": 0.0002}

`operation` is `open` where that failed, else `read` or `write`; who it was is who opened. `size` is null and `errno` a
name where it failed; `text` is what was read or written, of much only the beginning. `took` is in seconds. The read
that finds the end is not told. A line is there before the caller is answered.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

import pyfuse3
from attrs import frozen
from pyfuse3 import FileInfo, FUSEError

from mdevfs.errors import InputError, MdevfsError
from mdevfs.events.stream import Listener
from mdevfs.mount.operations import SysfsOperations
from mdevfs.sysfs.files import File
from mdevfs.sysfs.tree import Tree

log = logging.getLogger("mdevfs.mount")

MUCH = 4096  # bytes of one access that are told
R = TypeVar("R")


@frozen
class Who:
    """A process, as it was when it opened the file; "" for the name of one that cannot be seen from here."""

    pid: int
    comm: str
    uid: int

    @classmethod
    def of(cls, context: pyfuse3.RequestContext) -> Who:
        """FUSE tells the thread; a process is what its /proc/<tid>/status says."""
        try:
            status = Path(f"/proc/{context.pid}/status").read_text(errors="backslashreplace")
        except OSError:
            return cls(context.pid, "", context.uid)
        keys = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        return cls(int(keys.get("Tgid", context.pid)), keys.get("Name", ""), context.uid)


class Trace:
    """A file that is told every access. Raises InputError when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        try:
            self._stream: TextIO | None = path.open("w")
        except OSError as error:
            raise InputError(f"--trace {path}: {error.strerror}") from None

    def tell(
        self,
        who: Who,
        operation: str,
        path: str,
        begin: float,
        offset: int = 0,
        size: int | None = None,
        data: bytes | None = None,
        code: int | None = None,
    ) -> None:
        """One access that began at `begin`, in seconds since the epoch."""
        if self._stream is None:
            return
        line = {
            "time": begin,
            "pid": who.pid,
            "comm": who.comm,
            "uid": who.uid,
            "operation": operation,
            "path": path,
            "offset": offset,
            "size": size,
            "text": data[:MUCH].decode(errors="backslashreplace") if data is not None else None,
            "errno": errno.errorcode.get(code, str(code)) if code is not None else None,
            "took": round(time.time() - begin, 6),
        }
        try:
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()
        except OSError as error:
            log.error("the trace ends: %s", error.strerror)  # noqa: TRY400 - the machine's, not a bug
            self._stream = None


class TracedFile(File):
    """An open file whose accesses are told."""

    __slots__ = ("file", "path", "trace", "who")

    def __init__(self, file: File, trace: Trace, who: Who) -> None:
        super().__init__(file.node, file.faults)
        self.file = file
        self.trace = trace
        self.who = who
        self.path = file.node.path

    async def read(self, offset: int, size: int) -> bytes:
        begin = time.time()
        data = await self._told("read", begin, offset, None, self.file.read(offset, size))
        if data or offset == 0:
            self.trace.tell(self.who, "read", self.path, begin, offset, len(data), data)
        return data

    async def write(self, offset: int, data: bytes) -> int:
        begin = time.time()
        size = await self._told("write", begin, offset, data, self.file.write(offset, data))
        self.trace.tell(self.who, "write", self.path, begin, offset, size, data)
        return size

    async def _told(self, operation: str, begin: float, offset: int, data: bytes | None, access: Awaitable[R]) -> R:
        try:
            return await access
        except Exception as error:
            code = error.errno if isinstance(error, MdevfsError) else errno.EIO
            self.trace.tell(self.who, operation, self.path, begin, offset, data=data, code=code)
            raise

    def poll(self) -> int:
        return self.file.poll()

    async def sync(self) -> None:
        await self.file.sync()

    def closed(self) -> None:
        self.file.closed()


class TracedOperations(SysfsOperations):
    """The handlers of a mount whose accesses are told to `trace`."""

    def __init__(self, tree: Tree, hidden: Mapping[str, bytes], listeners: Sequence[Listener], trace: Trace) -> None:
        super().__init__(tree, hidden, listeners)
        self.trace = trace

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        who, begin = Who.of(ctx), time.time()
        try:
            info = await super().open(inode, flags, ctx)
        except FUSEError as error:
            if error.errno != errno.ENOTTY:  # no open(2): see SysfsOperations
                self.trace.tell(who, "open", self.tree.node(inode).path, begin, code=error.errno)
            raise
        self._files[info.fh] = TracedFile(self._files[info.fh], self.trace, who)
        return info

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> NoReturn:
        """An open(2) with O_CREAT of what is not there."""
        path = f"{self.tree.node(parent_inode).path}/{os.fsdecode(name)}".lstrip("/")
        self.trace.tell(Who.of(ctx), "open", path, time.time(), code=errno.EACCES)
        raise FUSEError(errno.EACCES)
