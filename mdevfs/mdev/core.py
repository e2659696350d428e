"""create and remove, parents coming and going (drivers/vfio/mdev/mdev_core.c, 6.1)."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from typing import NoReturn

import trio

from mdevfs.bus.core import Core
from mdevfs.bus.device import Device
from mdevfs.bus.vfio import VfioCore
from mdevfs.errors import KernelError, MdevfsError
from mdevfs.mdev.debugfs import SINCE, DebugFs, VfioDebug
from mdevfs.mdev.driver import MdevDriver, VendorHooks
from mdevfs.mdev.mdev import Mdev
from mdevfs.mdev.parent import Parent
from mdevfs.mdev.types import MdevType, Type
from mdevfs.migration import arguments
from mdevfs.migration.machine import NO_MACHINE, Machine
from mdevfs.migration.parameters import Value
from mdevfs.migration.verdict import Journal, Refused, verdict_of
from mdevfs.sysfs.parse import kstrtoull

_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
UUID_LENGTH = 36
RACE_WINDOW = 0.02  # seconds that the quirk remove-race gives


class MdevCore:
    """The mdev bus of one host. `interfaces` are the families beyond the kernel's tree that it shows."""

    def __init__(
        self,
        core: Core,
        vfio: VfioCore,
        interfaces: frozenset[str],
        journal: Journal,
        machine: Machine = NO_MACHINE,
    ) -> None:
        self.core = core
        self.vfio = vfio
        self.interfaces = interfaces
        self.journal = journal
        self.machine = machine
        self.bus = core.bus("mdev")
        self.parents_class = core.cls("mdev_bus")
        self.parents: dict[str, Parent] = {}
        self._coming: dict[str, Type] = {}  # mdevs on their way in or out, by UUID
        self._stuck: set[str] = set()  # mdevs that the quirk remove-race left without their `remove`
        if "debugfs" in interfaces and core.kernel.since(SINCE):
            core.kernel_folder.entries["debug"] = DebugFs({"vfio": VfioDebug(vfio)})

    # -- parents

    def register_parent(self, device: Device, driver: VendorHooks, settings: object) -> Parent:
        """mdev_register_parent: the types appear, then `change` with MDEV_STATE=registered."""
        parent = Parent(device, driver, settings, self)
        for spec in driver.types(parent):
            type_id = f"{driver.name}-{spec.suffix}"
            parent.types[type_id] = Type(parent, spec, type_id)
        self.load_driver(driver)
        self.parents[device.name] = parent
        device.groups = (*device.groups, parent.entries)
        device.refresh()
        self.parents_class.join(device)
        device.send("change", {"MDEV_STATE": "registered"})
        return parent

    async def unregister_parent(self, parent: Parent) -> None:
        """mdev_unregister_parent: every mdev goes, then the types, then `change` with MDEV_STATE=unregistered.

        Creations and removals that have begun end first, and those begin no more. Raises what a driver's remove
        raises: then the parent stays, with the mdevs that are left.
        """
        async with parent.leaving:
            if self.parents.get(parent.name) is not parent:
                return
            parent.gone = True
            self.parents_class.leave(parent.device)
            try:
                await self.core.tree.publish()
                await self._remove_all(parent)
            except BaseException:
                parent.gone = False
                self.parents_class.join(parent.device)
                raise
            del self.parents[parent.name]
            parent.device.groups = tuple(group for group in parent.device.groups if group != parent.entries)
            parent.device.refresh()
            parent.device.send("change", {"MDEV_STATE": "unregistered"})

    async def _remove_all(self, parent: Parent) -> None:
        await parent.quiet()
        while mdevs := list(parent.mdevs):
            for mdev in mdevs:
                if mdev.name in self._stuck:
                    self._stuck.remove(mdev.name)
                    mdev.removing = False
                if not mdev.removing:
                    await self.remove(mdev)
            await parent.quiet()

    def add_type(self, parent: Parent, spec: MdevType) -> Type:
        """A registered parent offers one more type, which no kernel's can: `change` says to look again.

        Raises KernelError EEXIST.
        """
        type_id = f"{parent.driver.name}-{spec.suffix}"
        if type_id in parent.types:
            raise KernelError(errno.EEXIST, f"{parent.name} has the type {type_id}")
        kind = parent.types[type_id] = Type(parent, spec, type_id)
        self.core.tree.changed(parent.types_folder.path, type_id)
        parent.device.send("change")
        return kind

    def remove_type(self, kind: Type) -> None:
        """Takes a type away, likewise. Raises KernelError EBUSY while there are mdevs of it."""
        parent = kind.parent
        of_it = [mdev.name for mdev in parent.mdevs if mdev.type is kind]
        of_it += [uuid for uuid, other in self._coming.items() if other is kind and uuid not in of_it]
        if of_it:
            more = f" and {len(of_it) - 1} more" if len(of_it) > 1 else ""
            raise KernelError(errno.EBUSY, f"{kind.name} of {parent.name} has the mdev {of_it[0]}{more}")
        del parent.types[kind.name]
        self.core.tree.changed(parent.types_folder.path, kind.name)
        parent.device.send("change")

    def load_driver(self, hooks: VendorHooks) -> MdevDriver:
        """The driver that mdevs of this vendor driver are bound to, registered the first time."""
        name = hooks.mdev_driver(self.core.kernel)
        driver = self.bus.drivers.get(name)
        self.core.module("mdev").hold(self.core.module(hooks.name))
        if driver is None:
            module = self.core.module(name if name == "vfio_mdev" else hooks.name)
            self.core.module("mdev").hold(module)
            driver = MdevDriver(name, self.bus, module, self.vfio)
            self.bus.add_driver(driver)
        assert isinstance(driver, MdevDriver)
        return driver

    # -- create

    async def create_store(self, kind: Type, data: bytes) -> None:
        """A write to `create`; a refusal is the type's last verdict."""
        try:
            uuid, given = self._parse(data)
            params = arguments.parse(given, kind.model) if given is not None else None
            await self.create(kind, uuid, params)
        except MdevfsError as error:
            text = data.removesuffix(b"\n").decode("latin-1")
            kind.last_verdict = self.journal.record("create", kind, text, verdict_of(error))
            raise

    def _parse(self, data: bytes) -> tuple[str, str | None]:
        """The UUID, and the arguments after a comma where the family `models` takes them."""
        given = None
        if "models" in self.interfaces and data[UUID_LENGTH : UUID_LENGTH + 1] == b",":
            given = data[UUID_LENGTH + 1 :].removesuffix(b"\n").decode("latin-1")
        # mdev_sysfs.c create_store: 36 or 37 bytes, of which the last one is never looked at.
        bare = given is not None or len(data) in (UUID_LENGTH, UUID_LENGTH + 1)
        if not bare or not _UUID.match(data[:UUID_LENGTH]):
            raise Refused(
                "uuid-malformed",
                rule="a UUID of 36 characters, and at most one further byte, must be written to create",
                source=data[:64].decode("latin-1"),
                side="source",
                mend="write a UUID such as uuidgen prints",
            )
        return data[:UUID_LENGTH].decode().lower(), given

    async def create(self, kind: Type, uuid: str, params: dict[str, Value] | None = None) -> Mdev:
        """mdev_device_create: all or nothing.

        Raises Refused: ENODEV for a parent on its way out, EEXIST for a UUID in use, EUSERS when the core's count is
        used up, ENOSPC when the driver says so; whatever else the driver's probe raises.
        """
        parent = kind.parent
        if parent.gone:
            rule = f"{parent.name} is being unregistered from the mdev core"
            raise Refused("parent-gone", errno.ENODEV, rule=rule, side="target", mend="choose another parent")
        if uuid in self.bus.devices or uuid in self._coming:
            self._refuse_duplicate(uuid)
        limit = parent.driver.max_instances
        if limit is not None and parent.count >= limit:
            rule = f"{parent.name} has room for {limit} mdevs of all types together"
            raise Refused("no-instances", errno.EUSERS, rule=rule, side="target", mend="remove an mdev first")
        parent.count += 1
        parent.working += 1
        self._coming[uuid] = kind
        try:
            mdev = Mdev(uuid, kind, self.bus, {**kind.params, **params} if params else None)
            await self._bring_up(mdev)
        except BaseException:
            parent.count -= 1
            raise
        finally:
            self._coming.pop(uuid, None)
            parent.done()
        return mdev

    def _refuse_duplicate(self, uuid: str) -> NoReturn:
        owner = self.bus.devices.get(uuid)
        where = f" on {owner.above.path}" if owner is not None and owner.above is not None else ""
        raise Refused(
            "uuid-exists",
            errno.EEXIST,
            rule=f"an mdev of this UUID exists{where}",
            source=uuid,
            side="source",
            mend="write another UUID, or remove that mdev first",
        )

    async def _bring_up(self, mdev: Mdev) -> None:
        """Probe, then everything that makes it visible, then nothing that can fail.

        The kernel shows the directory before the probe; nobody can look in between unless the probe is slow, and
        then a half-made mdev helps no one. The events are the kernel's, in its order.
        """
        driver = self.load_driver(mdev.parent.driver)
        early = "remove-race" in self.core.kernel.quirks
        if early:
            await self._show_early(mdev)
        # `add` comes before `add` of VFIO's devices, which the probe announces.
        mdev.send("add")
        try:
            await driver.probe(mdev)
        except BaseException:
            if early:
                self._hide(mdev)
            mdev.send("remove")
            raise
        driver.link(mdev)
        if early:
            mdev.refresh()
        else:
            self._show(mdev)
        mdev.send("bind")
        mdev.coming = False
        self._link(mdev)

    async def _show_early(self, mdev: Mdev) -> None:
        """The quirk remove-race: the directory is there before create has returned, for as long as a listener needs."""
        self._show(mdev)
        await trio.sleep(RACE_WINDOW)

    def _show(self, mdev: Mdev) -> None:
        above = mdev.parent.device
        above.adopt(mdev)
        self.core.tree.changed(above.path, mdev.name)
        self.core.tree.changed("kernel/debug/vfio", mdev.name)
        self.bus.join(mdev)

    def _hide(self, mdev: Mdev) -> None:
        above = mdev.parent.device
        self.bus.leave(mdev)
        above.abandon(mdev)
        self.core.tree.changed(above.path, mdev.name)

    # -- remove

    async def remove_store(self, mdev: Mdev, data: bytes) -> None:
        """A write to `remove`: anything but 0 removes. Every mistake is EINVAL, a number too large included."""
        try:
            wanted = kstrtoull(data)
        except KernelError:
            raise KernelError(errno.EINVAL) from None
        if wanted:
            await self.remove(mdev)

    async def remove(self, mdev: Mdev) -> None:
        """mdev_device_remove.

        Raises KernelError ENODEV when it is being removed already; whatever the driver's remove raises, and then the
        mdev stays as it was.
        """
        if mdev.removing and "double-remove" in self.core.kernel.quirks:
            return
        if mdev.removing:
            raise KernelError(errno.ENODEV)
        mdev.removing = True
        if mdev.coming:
            self._stuck.add(mdev.name)
            mdev.refresh()
            raise KernelError(errno.EAGAIN)
        mdev.parent.working += 1
        try:
            await self._take_down(mdev)
        finally:
            mdev.parent.done()

    async def _take_down(self, mdev: Mdev) -> None:
        slow = mdev.idle is not None or mdev.parent.driver.slow_remove
        if slow:
            self._withdraw(mdev)
        try:
            if slow:
                await self.core.tree.publish()
            if mdev.idle is not None:
                await mdev.idle.wait()
            if mdev.driver is not None:
                await mdev.driver.release(mdev)
        except BaseException:
            mdev.removing = False
            if slow:
                self._restore(mdev)
            raise
        self._coming.pop(mdev.name, None)
        if mdev.has_device_state:
            mdev.device_state.migration.stop()
        self._unlink(mdev)
        self.core.tree.changed("kernel/debug/vfio", mdev.name)
        mdev.unregister()
        mdev.type.parent.count -= 1

    def _withdraw(self, mdev: Mdev) -> None:
        """What others see of a remove that takes its time (golden: "remove while a vfio device fd is open"): the links
        and `remove` are gone, the count is not back, the UUID is taken."""
        self._coming[mdev.name] = mdev.type
        self._unlink(mdev)
        self.bus.leave(mdev)
        mdev.refresh()

    def _restore(self, mdev: Mdev) -> None:
        self._coming.pop(mdev.name, None)
        self.bus.join(mdev)
        self._link(mdev)
        mdev.refresh()

    def _link(self, mdev: Mdev) -> None:
        mdev.type.mdevs[mdev.name] = mdev
        self.core.tree.changed(f"{mdev.type.path}/devices", mdev.name, links=True)

    def _unlink(self, mdev: Mdev) -> None:
        mdev.type.mdevs.pop(mdev.name, None)
        self.core.tree.changed(f"{mdev.type.path}/devices", mdev.name, links=True)

    def all(self) -> Iterable[Mdev]:
        """Every mdev of the host."""
        return (one for one in self.bus.devices.values() if isinstance(one, Mdev))
