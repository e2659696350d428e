"""A client in this process: paths in, bytes out, errors as OSError; and the checker of a tree's invariants."""

from __future__ import annotations

import os
import stat

from mdevfs.errors import MdevfsError
from mdevfs.sysfs.entries import Directory, Link
from mdevfs.sysfs.files import File
from mdevfs.sysfs.tree import ROOT_INODE, Tree


class InProcess:
    """What a shell would do, without a mount."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    async def open(self, path: str, flags: int = os.O_RDONLY) -> File:
        try:
            return await self.tree.open(self.tree.walk(path), flags)
        except MdevfsError as error:
            raise OSError(error.errno, str(error), path) from error

    async def read(self, path: str) -> str:
        file = await self.open(path)
        try:
            return (await file.read(0, 1 << 20)).decode()
        except MdevfsError as error:
            raise OSError(error.errno, str(error), path) from error

    async def write(self, path: str, data: str | bytes) -> int:
        file = await self.open(path, os.O_WRONLY)
        try:
            return await file.write(0, data.encode() if isinstance(data, str) else data)
        except MdevfsError as error:
            raise OSError(error.errno, str(error), path) from error

    def list(self, path: str) -> list[str]:
        node = self.tree.walk(path)
        return sorted(name for _, name, _, _ in self.tree.list(node))

    def exists(self, path: str) -> bool:
        try:
            self.tree.walk(path)
        except MdevfsError:
            return False
        return True

    def readlink(self, path: str) -> str:
        entry = self.tree.walk(path, follow=False).entry
        assert isinstance(entry, Link)
        return entry.target


def check_tree(tree: Tree) -> None:
    """What must hold after every change: links resolve, listings and look-ups agree, counts of subdirectories are
    right, nothing that nobody holds is kept."""
    for path, entry in tree.everything():
        if isinstance(entry, Link):
            tree.walk(path)
        if isinstance(entry, Directory):
            below = list(entry.scan())
            names = [name for name, _, _ in below]
            assert len(names) == len(set(names)), f"{path} lists a name twice: {sorted(names)}"
            assert entry.subdirectories() == sum(stat.S_ISDIR(mode) for _, mode, _ in below), path
            for name, mode, salt in below:
                child = entry.lookup(name)
                assert child is not None and (child.mode, child.salt) == (mode, salt), f"{path}/{name}"
    tree.trim()
    kept = [n.path for n in tree.nodes.values() if n.inode != ROOT_INODE and not (n.lookups or n.memory or n.children)]
    assert not kept, f"leaked nodes: {kept}"
