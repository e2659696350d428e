"""A client in this process: paths in, bytes out, errors as OSError; and the checker of a tree's invariants."""

from __future__ import annotations

import os
import posixpath
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path

from mdevfs.errors import MdevfsError
from mdevfs.host.host import Host
from mdevfs.host.plan import plan
from mdevfs.host.read import Described
from mdevfs.host.schema import HostFile
from mdevfs.sysfs.entries import Directory, Entry, Link
from mdevfs.sysfs.files import File
from mdevfs.sysfs.node import Node
from mdevfs.sysfs.tree import Tree

MTTY_AND_MDPY = """
[host]
name = "samples"
[[device]]
driver = "mtty"
[[device]]
driver = "mdpy"
"""


async def host_of(text: str = MTTY_AND_MDPY, folder: Path = Path()) -> Host:
    """A running host of this host.toml; `folder` is where its driver files are looked for."""
    described = Described(HostFile.model_validate(tomllib.loads(text)), "host.toml", folder)
    host = Host(plan(described))
    await host.start()
    return host


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
    """What must hold after every change: listings, look-ups and counts of subdirectories agree; every link resolves
    and is answered by the link that belongs to it; nodes show what is there, and those that nobody holds are gone."""
    seen = dict(tree.everything())
    for path, entry in [("", tree.root.directory), *seen.items()]:
        if isinstance(entry, Directory):
            _check_listing(path, entry)
    links = {path: _resolve(path, entry) for path, entry in seen.items() if isinstance(entry, Link)}
    for path, there in links.items():
        assert isinstance(seen.get(there), Directory), f"{path} leads to {there}, which is no directory"
        back, answer = _answer(path, there)
        assert back is None or links.get(back) == answer, f"{path} leads to {there}, but {back} not to {answer}"
    _check_mdevs(seen, links)
    for path in list(links):
        tree.walk(path)
    tree.trim()
    for inode, node in tree.nodes.items():
        if isinstance(node, Node):
            assert node.inode == inode
            _check_node(node, seen)
        else:
            parent, name, salt, _ = node
            shown = seen.get(f"{parent.path}/{name}".lstrip("/"))
            assert (parent.children or {}).get(name) == inode and not parent.dead, f"{parent.path}/{name}"
            assert shown is not None and (shown.mode, shown.salt) == (Link.mode, salt), f"stale: {parent.path}/{name}"


def _check_listing(path: str, directory: Directory) -> None:
    below = directory.scan()
    names = [name for name, _, _ in below]
    assert len(names) == len(set(names)), f"{path} lists a name twice: {sorted(names)}"
    assert directory.subdirectories() == sum(stat.S_ISDIR(mode) for _, mode, _ in below), path
    for name, mode, salt in below:
        child = directory.lookup(name)
        assert child is not None and (child.mode, child.salt) == (mode, salt), f"{path}/{name}"


def _resolve(path: str, link: Link) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link.target))


def _answer(path: str, there: str) -> tuple[str | None, str]:
    """The link that must exist because `path` leads to `there`, and where it must lead; None: none has to."""
    where, name = posixpath.split(path)
    own = posixpath.basename(where)
    match [*where.split("/"), name]:
        case [*_, "subsystem"]:
            return f"{there}/devices/{own}" if there.startswith("bus/") else f"{there}/{own}", where
        case ["bus", bus, "devices", _]:
            return f"{there}/subsystem", f"bus/{bus}"
        case ["class", "mdev_bus", _]:
            return None, ""
        case ["class", kind, _]:
            return f"{there}/subsystem", f"class/{kind}"
        case ["bus", bus, "drivers", driver, "module"]:
            return f"{there}/drivers/{bus}:{driver}", where
        case ["bus", _, "drivers", _, _]:
            return f"{there}/driver", where
        case [*_, "driver"]:
            return f"{there}/{own}", where
        case ["module", module, "drivers", _]:
            return f"{there}/module", f"module/{module}"
        case ["kernel", "iommu_groups", number, "devices", _]:
            return f"{there}/iommu_group", f"kernel/iommu_groups/{number}"
        case [*_, "mdev_supported_types", type_id, "devices", _]:
            return f"{there}/mdev_type", f"{posixpath.dirname(there)}/mdev_supported_types/{type_id}"
        case [*_, "iommu_group" | "mdev_type"]:
            return f"{there}/devices/{own}", where
    return None, ""


def _check_mdevs(seen: Mapping[str, Entry], links: Mapping[str, str]) -> None:
    """Parents and the class of them answer each other; a bound mdev has its group and VFIO's devices, an unbound none;
    no group and no device of VFIO's is left without its owner."""
    types = {path for path in seen if path.endswith("/mdev_supported_types")}
    parents = {there for path, there in links.items() if path.startswith("class/mdev_bus/")}
    assert {posixpath.dirname(path) for path in types} == parents
    for path, mdev in links.items():
        if path.startswith("bus/mdev/devices/"):
            assert f"{mdev}/mdev_type" in links and posixpath.dirname(mdev) in parents, mdev
            bound, group = f"{mdev}/driver" in links, links.get(f"{mdev}/iommu_group")
            assert bound == (group is not None), f"{mdev}: bound {bound}, group {group}"
            assert bound == (f"{mdev}/vfio-dev" in seen) or "class/vfio-dev" not in seen, mdev
            if group is not None:
                number = posixpath.basename(group)
                assert links.get(f"class/vfio/{number}") == f"devices/virtual/vfio/{number}", mdev
    for path in seen:
        match path.split("/"):
            case ["class", "vfio", number]:
                assert f"kernel/iommu_groups/{number}" in seen, path
            case ["kernel", "iommu_groups", _]:
                assert any(other.startswith(f"{path}/devices/") for other in seen), f"{path} is empty"
    assert ("devices/virtual/vfio" in seen) == any(path.startswith("class/vfio/") for path in links)


def _check_node(node: Node, seen: Mapping[str, Entry]) -> None:
    if node.parent is None:
        return
    assert node.lookups > 0 or ((node.memory or node.children) and not node.dead), f"leaked node: {node.path}"
    if node.dead:
        assert not node.children, f"{node.path} is dead, but knows {list(node.children or ())}"
        return
    assert not node.parent.dead and (node.parent.children or {}).get(node.name) is node, node.path
    entry = seen.get(node.path)
    assert entry is not None and (entry.mode, entry.salt) == (node.mode, node.salt), f"stale node: {node.path}"
    assert node.entry.same_as(entry), f"stale content: {node.path}"
    if isinstance(entry, Directory):
        assert sorted(node.directory.scan()) == sorted(entry.scan()), f"stale listing: {node.path}"
