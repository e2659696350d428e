"""One open directory: a listing that can be resumed, and that neither repeats nor skips names while others come
and go."""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections.abc import Callable

import pyfuse3
from pyfuse3 import EntryAttributes

from mdevfs.sysfs.tree import Node, Tree

DOT, DOT_DOT = 1, 2


class Listing:
    """A snapshot of a directory, taken at offset 0; positions are the names' hashes (kernfs orders them so too)."""

    def __init__(self, tree: Tree, node: Node, attributes: Callable[[Node], EntryAttributes]) -> None:
        self.tree = tree
        self.node = node
        self.attributes = attributes
        self.names: list[tuple[int, str, int, int]] = []
        self.generation = -1
        self.template: EntryAttributes | None = None

    def reply(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        """Fills one readdir answer with what comes after position `start`."""
        if start == 0:
            self.names = self.tree.list(self.node)
            self.generation = self.tree.generation
        if start < DOT and not self._dot(token, b".", self.node, DOT):
            return
        if start < DOT_DOT and not self._dot(token, b"..", self.node.parent or self.node, DOT_DOT):
            return
        first = bisect_right(self.names, start, key=lambda name: name[0]) if start > DOT_DOT else 0
        for index in range(first, len(self.names)):
            if not self._name(token, *self.names[index]):
                return

    def _dot(self, token: pyfuse3.ReaddirToken, name: bytes, node: Node, position: int) -> bool:
        # The kernel takes no reference for these two (fs/fuse/readdir.c, fuse_direntplus_link).
        return pyfuse3.readdir_reply(token, name, self.attributes(node), position)

    def _name(self, token: pyfuse3.ReaddirToken, position: int, name: str, mode: int, salt: int) -> bool:
        if self.tree.generation != self.generation:
            if self.node.dead or (entry := self.node.directory.lookup(name)) is None:
                return True  # gone since the snapshot
            mode, salt = entry.mode, entry.salt
        node = self.tree.listed(self.node, name, mode, salt)
        attr = self._link(node) if stat.S_ISLNK(mode) and node.memory is None else self.attributes(node)
        if not pyfuse3.readdir_reply(token, name.encode(), attr, position):
            self.tree.forget(node.inode, 0)
            return False
        node.lookups += 1
        return True

    def _link(self, node: Node) -> EntryAttributes:
        """Links differ in inode and times only; one object serves a whole listing."""
        attr = self.template
        if attr is None:
            attr = self.template = self.attributes(node)
        attr.st_ino = node.inode
        attr.st_atime_ns = attr.st_mtime_ns = attr.st_ctime_ns = node.loaded
        return attr
