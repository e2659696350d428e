"""One open directory: a listing that can be resumed, and that neither repeats nor skips names while others come
and go."""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable

import pyfuse3
from pyfuse3 import EntryAttributes

from mdevfs.sysfs.entries import Link
from mdevfs.sysfs.node import Node
from mdevfs.sysfs.tree import Tree

DOT, DOT_DOT = 1, 2
LINK = Link.mode
# Seconds. Every change goes through this process, which tells the kernel before it answers.
FOREVER = 86400.0


class Listing:
    """A snapshot of a directory, taken at offset 0; positions are those of `Tree.list`."""

    def __init__(self, tree: Tree, node: Node, attributes: Callable[[Node], EntryAttributes]) -> None:
        self.tree = tree
        self.node = node
        self.attributes = attributes
        self.names: list[tuple[int, str, int, int]] = []
        self.generation = -1

    def reply(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        """Fills one readdir answer with what comes after position `start`."""
        if start == 0 or self.generation < 0:
            self.names = self.tree.list(self.node)
            self.generation = self.tree.generation
        if start < DOT and not self._dot(token, b".", self.node, DOT):
            return
        if start < DOT_DOT and not self._dot(token, b"..", self.node.parent or self.node, DOT_DOT):
            return
        first = bisect_right(self.names, start, key=lambda name: name[0]) if start > DOT_DOT else 0
        self._names(token, first)

    def _dot(self, token: pyfuse3.ReaddirToken, name: bytes, node: Node, position: int) -> bool:
        # The kernel takes no reference for these two (fs/fuse/readdir.c, fuse_direntplus_link).
        return pyfuse3.readdir_reply(token, name, self.attributes(node), position)

    def _names(self, token: pyfuse3.ReaddirToken, first: int) -> None:
        # The loop that a listing of 100,000 names spends its time in.
        names, tree, parent, reply = self.names, self.tree, self.node, pyfuse3.readdir_reply
        known, changed = parent.children or {}, tree.generation != self.generation
        link, now = self._template(), time.time_ns()
        link.st_atime_ns = link.st_mtime_ns = link.st_ctime_ns = now
        for index in range(first, len(names)):
            position, name, mode, salt = names[index]
            if changed:
                entry = parent.directory.lookup(name) if not parent.dead else None
                if entry is None:
                    continue  # gone since the snapshot
                mode, salt = entry.mode, entry.salt
            if mode == LINK and name not in known:
                link.st_ino = inode = tree.note(parent, name, salt, now)
                if not reply(token, name.encode(), link, position):
                    tree.forget(inode, 1)
                    return
            else:
                node = tree.listed(parent, name, mode, salt)
                if not reply(token, os.fsencode(name), self.attributes(node), position):
                    tree.forget(node.inode, 0)
                    return
                node.lookups += 1

    def _template(self) -> EntryAttributes:
        """Links differ in inode and times only; one object serves a whole answer."""
        attr = self.attributes(self.node)
        attr.st_mode, attr.st_nlink, attr.st_uid, attr.st_gid = LINK, 1, self.tree.uid, self.tree.gid
        attr.entry_timeout = attr.attr_timeout = FOREVER
        return attr
