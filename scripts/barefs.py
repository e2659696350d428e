#!/usr/bin/env python3
"""The least that a sysfs-like pyfuse3 server can be; the bench and the FUSE proofs compare with it.

    scripts/barefs.py DIR [--names N] [--size BYTES]

It has what sysfs asks of a FUSE server (size 4096, direct_io, a handle per open, no flush, long timeouts)
and nothing else: no devices, no checks, no logging. `many/` holds N symbolic links, `large` among the type's files so
many bytes (it takes whatever is written), and `mdev/` two files
that go stale together when `mdev/remove` is written; then the kernel is told to forget the name `mdev`. Prints
"ready" once mounted; ends on SIGTERM, SIGINT or an unmount.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import os
import signal
import stat
import uuid
from collections.abc import Sequence

import pyfuse3
import trio

TYPE = "devices/virtual/bare/bare/mdev_supported_types/bare-1"  # as deep as a type of a virtual device
LONG = 3600.0  # seconds that the kernel may keep names and attributes


class Node:
    """One name of the tree: a directory has children, a link a target, a file its text."""

    numbers = itertools.count(pyfuse3.ROOT_INODE)

    def __init__(self, mode: int, text: bytes = b"") -> None:
        self.inode = next(self.numbers)
        self.mode = mode
        self.text = text
        self.children: dict[bytes, Node] = {}
        self.dies: list[Node] = []  # what goes stale when this file is written
        self.dead = False

    def add(self, name: str, node: Node) -> Node:
        return self.children.setdefault(os.fsencode(name), node)

    def attributes(self) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = self.inode
        entry.st_mode = self.mode
        entry.st_nlink = 1
        entry.st_uid = os.getuid()
        entry.st_gid = os.getgid()
        entry.st_size = 4096 if stat.S_ISREG(self.mode) else 0
        entry.entry_timeout = entry.attr_timeout = LONG
        return entry


def build(names: int, size: int) -> Node:
    """The whole tree; `many/` gets `names` links that look like those of bus/mdev/devices."""
    root = directory = Node(stat.S_IFDIR | 0o755)
    for part in TYPE.split("/"):
        directory = directory.add(part, Node(stat.S_IFDIR | 0o755))
    directory.add("available_instances", Node(stat.S_IFREG | 0o444, b"24\n"))
    directory.add("migration_version", Node(stat.S_IFREG | 0o644, b"vfio-pci-bare-1\n"))
    directory.add("large", Node(stat.S_IFREG | 0o644, b"x" * size))
    mdev = root.add("mdev", Node(stat.S_IFDIR | 0o755))
    for name in ("remove", "uevent"):
        mdev.add(name, Node(stat.S_IFREG | 0o644, b"DRIVER=bare\n"))
    mdev.children[b"remove"].dies = list(mdev.children.values())
    many = root.add("many", Node(stat.S_IFDIR | 0o755))
    for number in range(names):
        name = str(uuid.UUID(int=number))
        target = f"../../../devices/virtual/bare/bare/{name}"
        many.add(name, Node(stat.S_IFLNK | 0o777, target.encode()))
    return root


class BareFs(pyfuse3.Operations):
    """The handlers, each as short as it can be."""

    def __init__(self, root: Node) -> None:
        super().__init__()
        self.nodes: dict[int, Node] = {}
        self.handles: dict[int, Node] = {}
        self.listings: dict[int, list[tuple[bytes, Node]]] = {}
        self.fresh = itertools.count(1)
        waiting = [root]
        while waiting:
            node = waiting.pop()
            self.nodes[node.inode] = node
            waiting.extend(node.children.values())

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = self.nodes[parent_inode].children.get(name)
        if node is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return node.attributes()

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self.nodes[inode].attributes()

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        return self.nodes[inode].attributes()

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return pyfuse3.StatvfsData()

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        pass

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self.nodes[inode].text

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        handle = next(self.fresh)
        self.handles[handle] = self.nodes[inode]
        return pyfuse3.FileInfo(fh=handle, direct_io=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self.handles[fh].text[off : off + size]

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        node = self.handles[fh]
        if node.dead:
            raise pyfuse3.FUSEError(errno.ENODEV)
        for other in node.dies:
            other.dead = True
        if node.dies:
            await trio.to_thread.run_sync(pyfuse3.invalidate_entry, pyfuse3.ROOT_INODE, b"mdev")
        return len(buf)

    async def flush(self, fh: int) -> None:
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def release(self, fh: int) -> None:
        del self.handles[fh]

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        handle = next(self.fresh)
        self.listings[handle] = list(self.nodes[inode].children.items())
        return handle

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self.listings[fh]
        for number in range(start_id, len(listing)):
            name, node = listing[number]
            if not pyfuse3.readdir_reply(token, name, node.attributes(), number + 1):
                return

    async def releasedir(self, fh: int) -> None:
        del self.listings[fh]


async def serve() -> None:
    """Answer the kernel until it unmounts us or a signal comes."""

    async def until_signal() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            print("ready", flush=True)
            async for _ in signals:
                pyfuse3.terminate()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_signal)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description="A bare pyfuse3 file system to compare with.")
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--names", type=int, default=0, metavar="N", help="links in many/ (default 0)")
    parser.add_argument("--size", type=int, default=0, metavar="BYTES", help="size of the file `large` (default 0)")
    arguments = parser.parse_args()
    options = {"fsname=barefs", *pyfuse3.default_options}
    if os.geteuid() == 0:
        options.add("allow_other")
    pyfuse3.init(BareFs(build(arguments.names, arguments.size)), arguments.directory, options)
    try:
        trio.run(serve)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
