"""Identity: which inode a name has, who knows it, and what becomes of it when the name goes.

A node is made when a name is looked up and dropped when the kernel forgets it, unless chmod, chown, utime or an
xattr gave it something to remember. Content (`mdevfs.sysfs.entries`) is asked for when it is needed.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from mdevfs.errors import KernelError
from mdevfs.sysfs.entries import Directory, Entry, Link
from mdevfs.sysfs.faults import Faults
from mdevfs.sysfs.files import File, file_of
from mdevfs.sysfs.node import Memory, Node
from mdevfs.sysfs.order import name_hash

ROOT_INODE = 1
_INODE_MASK = (1 << 62) - 1
MANY = 4096  # names in a directory

Listed = tuple[Node, str, int, int]  # parent, name, salt, loaded


async def _nobody_looks() -> None:
    """Where nobody serves the tree, nobody has cached it."""


class Tree:
    """The nodes that somebody knows, over a root directory's content.

    `uid` and `gid` own every node. After a change, `stale` holds the (directory inode, name) pairs and `touched` the
    inodes of directories that a kernel may have cached; who serves the tree empties both before it answers.
    `generation` counts changes; `faults` are those that strike its files. `publish` is awaited in the middle of a
    change that takes its time, and returns when nobody sees what is wrong by then; who serves the tree sets it.

    A link that was only listed is kept as a `Listed` record (its parent's children hold the inode) until somebody
    uses it: a listing of 100,000 names takes half the time and memory so.
    """

    def __init__(self, root: Directory, uid: int = 0, gid: int = 0) -> None:
        self.uid = uid
        self.gid = gid
        self.root = Node(ROOT_INODE, None, "", root.mode, 0)
        self.root._entry = root
        self.root.lookups = 1
        self.nodes: dict[int, Node | Listed] = {ROOT_INODE: self.root}
        self.stale: list[tuple[int, str]] = []
        self.touched: set[int] = set()
        self.generation = 0
        self.faults = Faults()
        self.publish: Callable[[], Awaitable[None]] = _nobody_looks
        self._directories: dict[str, Node] = {}  # those that somebody knows, by path

    # -- finding

    def node(self, inode: int) -> Node:
        """The node of an inode that the kernel holds. Raises KernelError ESTALE for any other."""
        found = self.nodes.get(inode)
        if found is None:
            raise KernelError(errno.ESTALE)
        return found if isinstance(found, Node) else self._promote(inode, found)

    def _promote(self, inode: int, listed: Listed) -> Node:
        parent, name, salt, loaded = listed
        node = Node(inode, parent, name, Link.mode, salt)
        node.loaded = loaded
        node.lookups = 1
        assert parent.children is not None
        self.nodes[inode] = parent.children[name] = node
        return node

    def _held(self, parent: Node, name: str) -> Node | None:
        """The node of a name, if somebody knows it."""
        found = parent.children.get(name) if parent.children is not None else None
        return found if found is None or isinstance(found, Node) else self.node(found)

    def child(self, parent: Node, name: str) -> Node:
        """The node of one name. Raises KernelError ENOENT or ENOTDIR."""
        if (node := self._held(parent, name)) is not None:
            return node
        if parent.dead:
            raise KernelError(errno.ENOENT)
        entry = parent.directory.lookup(name)
        if entry is None:
            raise KernelError(errno.ENOENT)
        node = self._adopt(parent, name, entry.mode, entry.salt)
        node._entry = entry
        return node

    def _adopt(self, parent: Node, name: str, mode: int, salt: int) -> Node:
        inode = self._inode(parent, name, salt)
        node = Node(inode, parent, name, mode, salt)
        self.nodes[inode] = node
        if parent.children is None:
            parent.children = {}
        parent.children[name] = node
        if stat.S_ISDIR(mode):
            node.place = f"{parent.place}/{name}" if parent.place else name
            self._directories[node.place] = node
        return node

    def _inode(self, parent: Node, name: str, salt: int) -> int:
        inode = hash((parent.inode, name, salt)) & _INODE_MASK
        while inode in self.nodes or inode <= ROOT_INODE:  # a dead node of the same name, or a hash's accident
            inode = (inode + 1) & _INODE_MASK
        return inode

    def list(self, parent: Node) -> list[tuple[int, str, int, int]]:
        """A directory's children as (position, name, mode, salt), positions rising from 3.

        In the kernel's order, position and all; a directory of very many names in the order in which they came,
        because hashing and sorting them would take longer than the listing.
        """
        if parent.dead:
            return []
        found = parent.directory.scan()
        if len(found) > MANY:
            return [(index, name, mode, salt) for index, (name, mode, salt) in enumerate(found, 3)]
        return sorted((name_hash(name) + 1, name, mode, salt) for name, mode, salt in found)

    def listed(self, parent: Node, name: str, mode: int, salt: int) -> Node:
        """The node of a listed name, its content not asked for yet."""
        node = self._held(parent, name)
        return node if node is not None else self._adopt(parent, name, mode, salt)

    def note(self, parent: Node, name: str, salt: int, loaded: int) -> int:
        """The inode of a link that nobody knew and that the kernel now holds once."""
        inode = hash((parent.inode, name, salt)) & _INODE_MASK
        if inode in self.nodes:
            inode = self._inode(parent, name, salt)
        self.nodes[inode] = (parent, name, salt, loaded)
        if parent.children is None:
            parent.children = {}
        parent.children[name] = inode
        return inode

    def forget(self, inode: int, count: int) -> None:
        """The kernel drops `count` of its lookups."""
        if inode == ROOT_INODE or (found := self.nodes.get(inode)) is None:
            return
        if isinstance(found, Node):
            found.lookups -= count
            self._release(found)
        elif count:
            parent, name, *_ = found
            del self.nodes[inode]
            assert parent.children is not None
            del parent.children[name]
            self._release(parent)

    def _release(self, node: Node) -> None:
        while node.parent is not None and node.lookups <= 0 and not node.children:
            if node.memory is not None and not node.dead:
                return
            self.nodes.pop(node.inode, None)
            self._drop(node)
            siblings = node.parent.children
            if siblings is not None and siblings.get(node.name) is node:
                del siblings[node.name]
            node = node.parent

    def _drop(self, node: Node) -> None:
        if node.place and self._directories.get(node.place) is node:
            del self._directories[node.place]

    def known(self, path: str) -> Node | None:
        """The node at a path if anybody knows it already."""
        directory = self._directories.get(path)
        if directory is not None or not path:
            return directory or self.root
        above, _, name = path.rpartition("/")
        parent = self._directories.get(above) if above else self.root
        return self._held(parent, name) if parent is not None else None

    def walk(self, path: str, follow: bool = True) -> Node:
        """The node at a path, through links; for callers in this process. Call `trim` on it when done."""
        node, todo, hops = self.root, path.split("/"), 0
        while todo:
            name = todo.pop(0)
            if name in ("", "."):
                continue
            node = (node.parent or node) if name == ".." else self.child(node, name)
            if stat.S_ISLNK(node.mode) and (todo or follow):
                hops += 1
                if hops > 40:
                    raise KernelError(errno.ELOOP)
                assert isinstance(node.entry, Link) and node.parent is not None
                todo = node.entry.target.split("/") + todo
                node = node.parent
        return node

    def trim(self) -> None:
        """Drops every node that nobody holds."""
        for node in list(self.nodes.values()):
            if isinstance(node, Node):
                self._release(node)

    # -- using

    async def open(self, node: Node, flags: int) -> File:
        """open(2), all of it."""
        file = self.file(node, flags)
        await file.opening()
        return file

    def file(self, node: Node, flags: int) -> File:
        """open(2) but for `File.opening`.

        Raises ENODEV on a dead node, EINVAL for O_DIRECT, and EACCES, even for root, where the mode bits say no: that
        is sysfs's own (fs/kernfs/file.c, kernfs_fop_open with KERNFS_ROOT_EXTRA_OPEN_PERM_CHECK).
        """
        if node.dead:
            raise KernelError(errno.ENODEV)
        access, mode = flags & os.O_ACCMODE, node.permissions
        # An access mode of 3 asks for neither reading nor writing, and gets neither.
        if access in (os.O_WRONLY, os.O_RDWR) and not mode & 0o222:
            raise KernelError(errno.EACCES)
        if access in (os.O_RDONLY, os.O_RDWR) and not mode & 0o444:
            raise KernelError(errno.EACCES)
        if flags & os.O_DIRECT:
            raise KernelError(errno.EINVAL)
        return file_of(node, node.entry, self.faults, access)

    def remember(self, node: Node) -> Memory:
        """The node's memory, made at the first change; moves its ctime."""
        if node.memory is None:
            node.memory = Memory(node.mode, self.uid, self.gid, node.loaded)
        node.memory.ctime = time.time_ns()
        return node.memory

    # -- changing

    def changed(self, path: str, *names: str, links: bool = False) -> None:
        """These names of a directory came, went, or stand for something new; `links`: none is a subdirectory."""
        self.generation += 1
        node = self.known(path) if len(self.nodes) > 1 else None
        if node is None:
            return
        if not links or node.memory is not None:
            self._touch(node)
        for name in names:
            child = self._held(node, name)
            if child is not None:
                self._kill(child)

    def refresh(self, path: str) -> None:
        """A directory's content was rebuilt: known children that are gone or differ die, the others stay."""
        self.generation += 1
        node = self.known(path) if len(self.nodes) > 1 else None
        if node is not None:
            self._refresh(node)

    def reroot(self, root: Directory) -> None:
        """The whole content is another's; directories that both have without a life of their own (salt 0) stay."""
        self.root._entry = root
        self.refresh("")

    def _refresh(self, node: Node) -> None:
        if node.parent is not None:
            node._entry = None
        self._touch(node)
        for child in self._children(node):
            entry = node.directory.lookup(child.name)
            if entry is None or entry.mode != child.mode or entry.salt != child.salt:
                self._kill(child)
            elif isinstance(entry, Directory):
                self._refresh(child)
            elif child._entry is not None and not child._entry.same_as(entry):
                self._kill(child)
            else:
                child._entry = None

    def _children(self, node: Node) -> Sequence[Node]:
        return [child for name in tuple(node.children or ()) if (child := self._held(node, name)) is not None]

    def _touch(self, node: Node) -> None:
        self.touched.add(node.inode)
        if node.memory is not None:
            node.memory.mtime = node.memory.ctime = time.time_ns()

    def _kill(self, node: Node) -> None:
        assert node.parent is not None
        self.stale.append((node.parent.inode, node.name))
        if node.parent.children is not None:
            node.parent.children.pop(node.name, None)
        dying = [node]
        while dying:
            one = dying.pop()
            dying.extend(self._children(one))
            one.children = None
            one.dead = True
            self._drop(one)
            one.wake()
            self._release(one)

    def notify(self, path: str) -> None:
        """sysfs_notify on one attribute: wakes whoever polls it."""
        node = self.known(path)
        if node is not None:
            node.wake()

    def everything(self) -> Iterator[tuple[str, Entry]]:
        """Every (path, entry) below the root, made on the fly; for checks, not for serving."""
        todo: list[tuple[str, Directory]] = [("", self.root.directory)]
        while todo:
            path, directory = todo.pop()
            for name, _, _ in directory.scan():
                entry = directory.lookup(name)
                if entry is None:
                    raise AssertionError(f"{path}/{name} is listed but cannot be looked up")
                below = f"{path}/{name}" if path else name
                yield below, entry
                if isinstance(entry, Directory):
                    todo.append((below, entry))
