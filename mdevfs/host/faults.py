"""Faults as a person asks for them: what path they are of, and what is wrong with that."""

from __future__ import annotations

import errno

from mdevfs.errors import InputError, KernelError, escape
from mdevfs.host.mistakes import near_miss
from mdevfs.host.schema import FaultSection
from mdevfs.sysfs.entries import Directory, Link
from mdevfs.sysfs.faults import Fault
from mdevfs.sysfs.node import Node
from mdevfs.sysfs.tree import Tree

_WILD = frozenset("*?[")


def make_fault(asked: FaultSection, tree: Tree) -> Fault:
    """The fault, not set yet. Raises InputError for a path that is not there, or that no file can have."""
    return Fault(
        path=own_path(tree, asked.path, files=bool(asked.strikes & {"read", "write"})),
        on=asked.strikes,
        slow=asked.slow,
        errno=getattr(errno, asked.errno) if asked.errno is not None else None,
        text=asked.text,
        count=asked.count,
        skip=asked.skip,
        probability=asked.probability,
        seed=asked.seed,
    )


def own_path(tree: Tree, asked: str, files: bool = True) -> str:
    """The path, or the pattern of paths, without links: `class/mdev_bus/mtty/*` is `devices/virtual/mtty/mtty/*`.

    What stands before the first wildcard must be there; `*/NAME` fits what may come later. `files`: not a directory's.
    """
    parts = [part for part in asked.split("/") if part]
    count = next((index for index, part in enumerate(parts) if _WILD & set(part)), len(parts))
    rest = parts[count:]
    try:
        node = _walk(tree, parts[:count])
        own = "/".join([*filter(None, [node.path]), *rest])
        if not rest and files and isinstance(node.entry, Directory):
            raise InputError(f"path: {escape(own)} is a directory, a fault is of a file: write {escape(own)}/*")
        if rest and isinstance(node.entry, Directory) and _only_links(node.entry):
            mend = "/".join(["*", *rest[1:]])
            raise InputError(
                f"path: in {escape(asked)} the first wildcard stands among links, and a pattern is compared with a "
                f"file's own path, which has none: write {escape(mend)}"
            )
    finally:
        tree.trim()
    return own


def _walk(tree: Tree, names: list[str]) -> Node:
    node = tree.root
    for name in names:
        try:
            node = tree.walk(f"{node.path}/{name}")
        except KernelError:
            known = [child for _, child, _, _ in tree.list(node)] if isinstance(node.entry, Directory) else []
            above, name = escape(node.path) or "the tree", escape(name)
            raise InputError(
                f'path: {above} has no "{name}"{near_miss(name, known)}; for what may come later: */{name}'
            ) from None
    return node


def _only_links(directory: Directory) -> bool:
    children = directory.scan()
    return bool(children) and all(mode == Link.mode for _, mode, _ in children)
