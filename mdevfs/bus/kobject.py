"""Directories with a life of their own: what every device, bus, class and driver is before it is anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mdevfs.sysfs.entries import Directory, Entry, Folder, Link, nest

_DIRECTORY = Directory.mode
_LINK = Link.mode
_NONE: Mapping[str, Kobject] = MappingProxyType({})


class Kobject:
    """A named directory that others hang below. `above` is what the kernel calls its parent; `salt` is unique
    to this life of the name."""

    __slots__ = ("_path", "above", "children", "name", "salt")

    def __init__(self, name: str, above: Kobject | None, salt: int) -> None:
        self.name = name
        self.above = above
        self.salt = salt
        self.children: Mapping[str, Kobject] = _NONE
        self._path: str | None = None

    @property
    def path(self) -> str:
        """From the tree's root, without a leading slash."""
        if self._path is None:
            self._path = f"{self.above.path}/{self.name}" if self.above is not None else self.name
        return self._path

    def adopt(self, child: Kobject) -> None:
        """Hangs a child below, in the data only."""
        children = self.children
        if not isinstance(children, dict):
            children = self.children = {}
        children[child.name] = child

    def abandon(self, child: Kobject) -> None:
        """Undoes `adopt`."""
        if isinstance(self.children, dict):
            self.children.pop(child.name, None)

    def entries(self) -> dict[str, Entry]:
        """What the directory shows beside its children; names with slashes make folders."""
        return {}

    def directory(self) -> Directory:
        """The directory's content."""
        return KobjectDirectory(self)


class KobjectDirectory(Directory):
    """A kobject's entries, made when first needed, and its children, as they are now."""

    __slots__ = ("_own", "kobject", "salt")

    def __init__(self, kobject: Kobject) -> None:
        self.kobject = kobject
        self.salt = kobject.salt
        self._own: Folder | None = None

    @property
    def own(self) -> Folder:
        if self._own is None:
            self._own = Folder(nest(self.kobject.entries()))
        return self._own

    def lookup(self, name: str) -> Entry | None:
        child = self.kobject.children.get(name)
        return child.directory() if child is not None else self.own.lookup(name)

    def scan(self) -> Sequence[tuple[str, int, int]]:
        found = list(self.own.scan())
        found.extend((name, _DIRECTORY, child.salt) for name, child in self.kobject.children.items())
        return found

    def subdirectories(self) -> int:
        return self.own.subdirectories() + len(self.kobject.children)


class Links(Directory):
    """A directory at `path` that only holds links to kobjects."""

    __slots__ = ("path", "targets")

    def __init__(self, path: str, targets: Mapping[str, Kobject]) -> None:
        self.path = path
        self.targets = targets

    def lookup(self, name: str) -> Entry | None:
        target = self.targets.get(name)
        return Link(self.path, target, target.salt) if target is not None else None

    def scan(self) -> Sequence[tuple[str, int, int]]:
        return [(name, _LINK, target.salt) for name, target in self.targets.items()]

    def subdirectories(self) -> int:
        return 0


class Directories(Directory):
    """A directory of kobjects' directories."""

    __slots__ = ("targets",)

    def __init__(self, targets: Mapping[str, Kobject]) -> None:
        self.targets = targets

    def lookup(self, name: str) -> Entry | None:
        target = self.targets.get(name)
        return target.directory() if target is not None else None

    def scan(self) -> Sequence[tuple[str, int, int]]:
        return [(name, _DIRECTORY, target.salt) for name, target in self.targets.items()]

    def subdirectories(self) -> int:
        return len(self.targets)
