"""A node: one inode, what it remembers, and who waits for its news."""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Callable

from mdevfs.errors import KernelError
from mdevfs.sysfs.entries import PAGE_SIZE, Directory, Entry


class Memory:
    """What chmod, chown, utime and setxattr left on a node. Times are nanoseconds since the epoch."""

    __slots__ = ("atime", "ctime", "gid", "mode", "mtime", "uid", "xattrs")

    def __init__(self, mode: int, uid: int, gid: int, now: int) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.atime = self.mtime = self.ctime = now
        self.xattrs: dict[str, bytes] = {}


class Node:
    """One inode. `lookups` is what the kernel holds; `dead` once the name is gone (descriptors may live on)."""

    __slots__ = (
        "_entry",
        "children",
        "dead",
        "events",
        "inode",
        "loaded",
        "lookups",
        "memory",
        "mode",
        "name",
        "parent",
        "place",
        "salt",
        "waiters",
    )

    def __init__(self, inode: int, parent: Node | None, name: str, mode: int, salt: int) -> None:
        self.inode = inode
        self.parent = parent
        self.name = name
        self.mode = mode
        self.salt = salt
        self.loaded = time.time_ns()
        self._entry: Entry | None = None
        self.children: dict[str, Node | int] | None = None
        self.memory: Memory | None = None
        self.waiters: list[Callable[[], None]] | None = None
        self.place = ""  # a directory's path
        self.dead = False
        self.lookups = self.events = 0

    @property
    def entry(self) -> Entry:
        """The content. Raises KernelError ENOENT when the name has gone in the meantime."""
        entry = self._entry
        if entry is None:
            assert self.parent is not None
            entry = self.parent.directory.lookup(self.name)
            if entry is None:
                raise KernelError(errno.ENOENT)
            self._entry = entry
        return entry

    @property
    def directory(self) -> Directory:
        """The content, when it is a directory's; else ENOTDIR."""
        entry = self.entry
        if not isinstance(entry, Directory):
            raise KernelError(errno.ENOTDIR)
        return entry

    @property
    def path(self) -> str:
        """From the tree's root, without a leading slash; "" is the root itself."""
        parts: list[str] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            parts.append(node.name)
            node = node.parent
        return "/".join(reversed(parts))

    @property
    def size(self) -> int:
        """st_size: 4096 for every sysfs attribute, whatever its text."""
        return self.entry.size if stat.S_ISREG(self.mode) and not self.dead else PAGE_SIZE

    @property
    def permissions(self) -> int:
        """Type and permission bits as stat(2) shows them."""
        return self.memory.mode if self.memory else self.mode

    def links(self) -> int:
        """st_nlink: for a directory 2 and its subdirectories (2 once it is dead), 1 for all else."""
        if not stat.S_ISDIR(self.mode):
            return 1
        return 2 if self.dead else 2 + self.directory.subdirectories()

    def wake(self) -> None:
        """sysfs_notify: every descriptor's poll shows news until it reads again."""
        self.events += 1
        waiters, self.waiters = self.waiters, None
        for waiter in waiters or ():
            waiter()
