"""The handlers: one request of the kernel each, answered from the tree. Only here does FUSE meet sysfs.

Every handler is wrapped once (`guarded`): a MdevfsError becomes its errno, anything else a logged traceback and EIO,
because pyfuse3 ends its loop, and with it the mount, on every other exception.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar, cast

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError

from mdevfs.errors import KernelError, MdevfsError
from mdevfs.events.stream import Listener, holding
from mdevfs.mount.invalidate import Invalidator
from mdevfs.mount.listing import FOREVER, Listing
from mdevfs.sysfs.entries import Link
from mdevfs.sysfs.files import POLL_IDLE, AttributeFile, File
from mdevfs.sysfs.node import Memory, Node
from mdevfs.sysfs.tree import Tree

log = logging.getLogger("mdevfs.mount")

MAX_SIZE = 2**31  # truncate beyond it is EFBIG: kernfs keeps s_maxbytes at MAX_NON_LFS

P = ParamSpec("P")
R = TypeVar("R")
Handler = Callable[Concatenate["SysfsOperations", P], Coroutine[Any, Any, R]]


def guarded(handler: Handler[P, R]) -> Handler[P, R]:
    """The one wrapper of every handler."""

    @functools.wraps(handler)
    async def wrapper(self: SysfsOperations, *args: Any) -> R:
        try:
            return await handler(self, *args)  # type: ignore[call-arg]
        except FUSEError:
            raise
        except MdevfsError as error:
            raise FUSEError(error.errno) from None
        except Exception:
            log.exception("%s%r", handler.__name__, args[:2])
            raise FUSEError(errno.EIO) from None

    return cast("Handler[P, R]", wrapper)


def _never(code: int) -> Callable[..., Coroutine[Any, Any, NoReturn]]:
    async def refuse(*_: object) -> NoReturn:
        raise FUSEError(code)

    return refuse


class SysfsOperations(pyfuse3.Operations):
    """A tree, as the kernel asks for it."""

    supports_dot_lookup = True
    enable_acl = False
    enable_writeback_cache = False

    def __init__(
        self, tree: Tree, hidden: Mapping[str, bytes] | None = None, listeners: Sequence[Listener] = ()
    ) -> None:
        """`hidden` are extended attributes of the root and the directories in it, which may be mounted elsewhere, that
        can be read by who knows their names; `listeners`, as they are at the time, hear of a write's events when nobody
        can see the old state any more."""
        super().__init__()
        self.tree = tree
        self._hidden = hidden or {}
        self._listeners = listeners
        self._files: dict[int, File] = {}
        self._listings: dict[int, Listing] = {}
        self._next_handle = 0
        self._info = FileInfo(direct_io=True)  # copied into each answer
        self._settling = trio.Lock()
        self.invalidator = Invalidator()
        tree.publish = self.settle

    # -- names and attributes

    def attributes(self, node: Node) -> EntryAttributes:
        """What stat shows of a node."""
        attr = EntryAttributes()
        attr.st_ino = node.inode
        memory = node.memory
        attr.st_mode = memory.mode if memory is not None else node.mode
        attr.st_uid = memory.uid if memory is not None else self.tree.uid
        attr.st_gid = memory.gid if memory is not None else self.tree.gid
        attr.st_atime_ns = memory.atime if memory is not None else node.loaded
        attr.st_mtime_ns = memory.mtime if memory is not None else node.loaded
        attr.st_ctime_ns = memory.ctime if memory is not None else node.loaded
        attr.st_size = 0 if stat.S_ISDIR(node.mode) or stat.S_ISLNK(node.mode) else node.size
        attr.st_nlink = node.links()
        attr.st_blksize = 4096
        attr.st_blocks = 0
        attr.entry_timeout = attr.attr_timeout = 0 if node.dead else FOREVER
        return attr

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        parent = self.tree.node(parent_inode)
        if name == b".":
            node = parent
        elif name == b"..":
            node = parent.parent or parent
        else:
            node = self.tree.child(parent, os.fsdecode(name))
        attr = self.attributes(node)
        node.lookups += 1
        return attr

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            self.tree.forget(inode, count)

    @guarded
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        return self.attributes(self.tree.node(inode))

    @guarded
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        node = self.tree.node(inode)
        if fields.update_size and attr.st_size >= MAX_SIZE:
            raise KernelError(errno.EFBIG)
        kept = (fields.update_mode, fields.update_uid, fields.update_gid, fields.update_atime, fields.update_mtime)
        if any(kept):
            _remember(self.tree.remember(node), attr, fields)
        return self.attributes(node)

    @guarded
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        entry = self.tree.node(inode).entry
        if not isinstance(entry, Link):
            raise KernelError(errno.EINVAL)
        return os.fsencode(entry.target)

    @guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_namemax = 255
        return data

    # -- open files

    @guarded
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> FileInfo:
        node = self.tree.node(inode)
        if flags == os.O_RDONLY and not node.permissions & 0o444:
            # Without O_LARGEFILE it is no open(2) but the kernel's own, for FS_IOC_GETFLAGS (fuse_priv_ioctl_prepare).
            raise KernelError(errno.ENOTTY)
        file = self.tree.file(node, flags)
        if file.__class__ is not AttributeFile:
            await file.opening()
            if ctx.uid not in (0, self.tree.uid):  # who owns the tree is its root
                file.restrict()
        self._next_handle = handle = self._next_handle + 1
        self._files[handle] = file
        self._info.fh = handle
        return self._info

    # These two hand on the coroutine of who does the work: each one more would cost 1 us of the 20 that a call takes.

    @guarded
    def read(self, fh: int, off: int, size: int) -> Coroutine[Any, Any, bytes]:
        return self._files[fh].read(off, size)

    @guarded
    def write(self, fh: int, off: int, buf: bytes) -> Coroutine[Any, Any, int]:
        return self._held_write(fh, off, buf) if self._listeners else self._write(fh, off, buf)

    async def _held_write(self, fh: int, off: int, buf: bytes) -> int:
        with holding():
            return await self._write(fh, off, buf)

    async def _write(self, fh: int, off: int, buf: bytes) -> int:
        try:
            return await self._files[fh].write(off, buf)
        finally:
            if self.tree.stale or self.tree.touched or self._settling.locked():
                await self.settle()

    @guarded
    async def poll(
        self, inode: int, fh: int, poll_handle: pyfuse3.PollHandle | None, ctx: pyfuse3.RequestContext
    ) -> int:
        file = self._files.get(fh)
        if file is None:
            return POLL_IDLE
        if poll_handle is not None and not file.node.dead:
            if file.node.waiters is None:
                file.node.waiters = []
            file.node.waiters.append(poll_handle.notify)
        return file.poll()

    @guarded
    async def release(self, fh: int) -> None:
        file = self._files.pop(fh, None)
        if file is not None and file.__class__ is not AttributeFile:
            file.closed()

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._files[fh].sync()

    # -- directories

    @guarded
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        self._next_handle = handle = self._next_handle + 1
        self._listings[handle] = Listing(self.tree, self.tree.node(inode), self.attributes)
        return handle

    @guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        self._listings[fh].reply(start_id, token)

    async def releasedir(self, fh: int) -> None:
        self._listings.pop(fh, None)

    # -- what sysfs keeps of extended attributes

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        if not name.startswith((b"trusted.", b"security.")):
            raise KernelError(errno.EOPNOTSUPP)
        self.tree.remember(self.tree.node(inode)).xattrs[os.fsdecode(name)] = value

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        node = self.tree.node(inode)
        memory = node.memory
        value = memory.xattrs.get(os.fsdecode(name)) if memory is not None else None
        if node.parent in (None, self.tree.root):
            value = self._hidden.get(os.fsdecode(name), value)
        if value is not None:
            return value
        known = name.startswith((b"trusted.", b"security.", b"user."))
        raise KernelError(errno.ENODATA if known else errno.EOPNOTSUPP)

    @guarded
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        memory = self.tree.node(inode).memory
        return [os.fsencode(name) for name in memory.xattrs] if memory is not None else []

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        memory = self.tree.node(inode).memory
        if memory is None or memory.xattrs.pop(os.fsdecode(name), None) is None:
            known = name.startswith((b"trusted.", b"security."))
            raise KernelError(errno.ENODATA if known else errno.EOPNOTSUPP)

    # -- what nobody may do in sysfs, root included

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> NoReturn:
        raise FUSEError(errno.EACCES if stat.S_ISREG(mode) else errno.EPERM)

    create = _never(errno.EACCES)
    mkdir = _never(errno.EPERM)
    symlink = _never(errno.EPERM)
    link = _never(errno.EPERM)
    unlink = _never(errno.EPERM)
    rmdir = _never(errno.EPERM)
    rename = _never(errno.EPERM)
    fsyncdir = _never(errno.EINVAL)
    flush = _never(errno.ENOSYS)  # never asked again: a round trip less per close

    # -- telling the kernel

    async def settle(self) -> None:
        """Makes the kernel forget what the tree's changes made wrong; when it returns, nobody sees the old state.

        Names below a directory that is gone itself are gone with it.
        """
        async with self._settling:
            tree = self.tree
            touched, tree.touched = tree.touched, set()
            stale, tree.stale = tree.stale, []
            for inode in touched:
                if inode in tree.nodes:
                    self.invalidator.attributes(inode)
            names = [(inode, os.fsencode(name)) for inode, name in stale if inode in tree.nodes]
            if names:
                await self.invalidator.names(names)


def _remember(memory: Memory, attr: EntryAttributes, fields: pyfuse3.SetattrFields) -> None:
    if fields.update_mode:
        memory.mode = stat.S_IFMT(memory.mode) | stat.S_IMODE(attr.st_mode)
    if fields.update_uid:
        memory.uid = attr.st_uid
    if fields.update_gid:
        memory.gid = attr.st_gid
    if fields.update_atime:
        memory.atime = attr.st_atime_ns
    if fields.update_mtime:
        memory.mtime = attr.st_mtime_ns
