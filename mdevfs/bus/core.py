"""The driver core: where devices, buses, classes, drivers and modules live, and how they come and go."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator

from mdevfs.bus.kernel import Kernel
from mdevfs.bus.kobject import Directories, Kobject
from mdevfs.bus.power import PowerWords
from mdevfs.bus.subsystem import Bus, Class, Module
from mdevfs.events import EventStream
from mdevfs.sysfs.entries import Directory, Folder
from mdevfs.sysfs.tree import Tree


class Core:
    """Everything that a kernel's driver core knows; `tree` shows it.

    `before` is the core of the boot before: the tree, the listeners and the furniture pass on to this one, and what
    still runs in the old one speaks to nobody any more.
    """

    def __init__(self, kernel: Kernel, uid: int = 0, gid: int = 0, before: Core | None = None) -> None:
        self.kernel = kernel
        self.events: EventStream = before.events if before is not None else EventStream()
        self.salts: Iterator[int] = before.salts if before is not None else itertools.count(1)
        self.power = PowerWords()
        self.buses: dict[str, Bus] = {}
        self.classes: dict[str, Class] = {}
        self.modules: dict[str, Module] = {}
        self.devices = Kobject("devices", None, 0)
        self.virtual = Kobject("virtual", self.devices, 0)
        self.devices.adopt(self.virtual)
        self.kernel_folder = Folder()
        self.top: dict[str, Directory] = {
            "bus": Directories(self.buses),
            "class": Directories(self.classes),
            "devices": self.devices.directory(),
            "kernel": self.kernel_folder,
            "module": Directories(self.modules),
            # Where a tool's private namespace binds the real subtrees back (mount points must exist).
            **{name: Folder() for name in ("block", "dev", "firmware", "fs", "power", "hypervisor")},
        }
        self.tree: Tree = before.tree if before is not None else Tree(Folder(self.top), uid, gid)
        self._furniture: list[Callable[[Core], None]] = []
        if before is not None:
            self._take_over(before)

    def _take_over(self, before: Core) -> None:
        before.events, before.tree = EventStream(), Tree(Folder())
        for work in before._furniture:
            self.furnish(work)
        self.tree.reroot(Folder(self.top))

    def furnish(self, work: Callable[[Core], None]) -> None:
        """Adds to the tree what no kernel has there (a directory to mount on), now and at each boot to come."""
        self._furniture.append(work)
        work(self)

    def bus(self, name: str) -> Bus:
        """The bus of this name, made when it is first asked for."""
        if name not in self.buses:
            self.buses[name] = Bus(name, self)
            self.tree.changed("bus", name)
        return self.buses[name]

    def cls(self, name: str) -> Class:
        """The class of this name, made when it is first asked for."""
        if name not in self.classes:
            self.classes[name] = Class(name, self)
            self.tree.changed("class", name)
            self.events.send("add", f"/class/{name}", "class")
        return self.classes[name]

    def module(self, name: str) -> Module:
        """The module of this name, "loaded" when it is first asked for."""
        name = name.replace("-", "_")
        if name not in self.modules:
            self.modules[name] = Module(name, self)
            self.tree.changed("module", name)
        return self.modules[name]

    def drop_class(self, name: str) -> None:
        """class_unregister of a class without devices."""
        del self.classes[name]
        self.tree.changed("class", name)
        self.events.send("remove", f"/class/{name}", "class")

    def drop_module(self, name: str) -> None:
        """The last of an rmmod."""
        gone = self.modules.pop(name)
        for module in self.modules.values():
            module.hold(gone, held=False)
        self.tree.changed("module", name)
        self.events.send("remove", f"/module/{name}", "module")

    def glue(self, name: str) -> Kobject:
        """`devices/virtual/<class>`: there from a class's first virtual device to its last (get_device_parent)."""
        if name not in self.virtual.children:
            self.virtual.adopt(Kobject(name, self.virtual, next(self.salts)))
            self.tree.changed(self.virtual.path, name)
        return self.virtual.children[name]

    def drop_glue(self, glue: Kobject) -> None:
        """Takes an empty `devices/virtual/<class>` away."""
        if not glue.children and glue.above is self.virtual:
            self.virtual.abandon(glue)
            self.tree.changed(self.virtual.path, glue.name)


class Numbers:
    """An IDA: hands out the lowest free number (lib/idr.c)."""

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self._free: list[int] = []
        self._reserved: set[int] = set()  # taken, and not less than _next

    def take(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        while self._next in self._reserved:
            self._reserved.discard(self._next)
            self._next += 1
        self._next += 1
        return self._next - 1

    def reserve(self, number: int) -> None:
        """Takes this very number, which must be free."""
        if number >= self._next:
            self._reserved.add(number)
        else:
            self._free.remove(number)
            heapq.heapify(self._free)

    def give(self, number: int) -> None:
        if number >= self._next:
            self._reserved.discard(number)
        else:
            heapq.heappush(self._free, number)
