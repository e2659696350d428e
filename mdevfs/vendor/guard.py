"""A vendor driver as the mdev core calls it: whatever its hooks return or raise, the core gets what it asked for, a
refusal with an errno, or a DriverFault."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Literal, TypeVar

from pydantic import BaseModel

from mdevfs.bus.ap_identity import ApIdentity
from mdevfs.bus.css import SubchannelIdentity
from mdevfs.bus.kernel import Kernel
from mdevfs.bus.pci_resource import PciIdentity, SriovCapability
from mdevfs.errors import InputError, KernelError
from mdevfs.mdev.mdev import Mdev
from mdevfs.mdev.parent import Parent
from mdevfs.mdev.types import MdevType, Type
from mdevfs.migration.machine import Broken, Machine, Tier, compat_values
from mdevfs.migration.model import MAX_STRING, DeviceModel, Values
from mdevfs.migration.parameters import Value
from mdevfs.migration.state_version import blocked_verdict, with_state_version
from mdevfs.migration.verdict import YES, Reason, Refused, Verdict
from mdevfs.state.description import VMState
from mdevfs.sysfs.entries import Entry
from mdevfs.sysfs.faults import Faults
from mdevfs.vendor.api import Device, VendorDriver, known_machines, migrates, model_of
from mdevfs.vendor.attributes import OwnAttributes
from mdevfs.vendor.calling import Caller, blocks, nothing

T = TypeVar("T")


class GuardedDriver(Caller):
    """A vendor driver as the mdev core calls it (`mdevfs.mdev.driver.VendorHooks`); `faults` may strike its hooks."""

    def __init__(self, driver: VendorDriver, faults: Faults | None = None) -> None:
        super().__init__(driver.name)
        self.driver = driver
        self.faults = faults or Faults()
        self.max_instances = driver.max_instances
        self.migrates = migrates(type(driver))
        self._slow_available = blocks(driver.available)
        self._attributes = OwnAttributes(driver, self)
        self._own_available = type(driver).available is VendorDriver.available
        # A handshake that is nothing but the declared model runs no vendor code.
        own = type(driver).check, type(driver).migration_string
        self._declares = driver.model is not None and own == (VendorDriver.check, VendorDriver.migration_string)

    def mdev_driver(self, kernel: Kernel) -> str:
        if not kernel.since(self.driver.mdev_driver_since):
            return "vfio_mdev"
        return self.driver.mdev_driver or self.name

    def shows_name(self, kernel: Kernel) -> bool:
        return kernel.since("6.1") or kernel.since(self.driver.name_since)

    # -- the bus

    def pci(self, settings: BaseModel) -> PciIdentity:
        """See VendorDriver.pci."""
        return self._instance("pci", self.driver.pci, PciIdentity, settings)

    def sriov(self, settings: BaseModel, total: int) -> SriovCapability:
        """See VendorDriver.sriov."""
        return self._instance("sriov", self.driver.sriov, SriovCapability, settings, total)

    def subchannel(self, settings: BaseModel) -> SubchannelIdentity:
        """See VendorDriver.subchannel."""
        return self._instance("subchannel", self.driver.subchannel, SubchannelIdentity, settings)

    def ap(self, settings: BaseModel) -> ApIdentity:
        """See VendorDriver.ap."""
        return self._instance("ap", self.driver.ap, ApIdentity, settings)

    def is_parent(self, settings: BaseModel, *, vf: bool) -> bool:
        """See VendorDriver.is_parent."""
        return bool(self.run(self.name, "is_parent", lambda: self.driver.is_parent(settings, vf=vf)))

    def _instance(self, what: str, hook: Callable[..., object], wanted: type[T], *args: object) -> T:
        made = self.run(self.name, what, hook, *args)
        if not isinstance(made, wanted):
            raise self.junk(self.name, what, made, f"a {wanted.__name__}")
        return made

    # -- types and mdevs

    def types(self, parent: Parent) -> Sequence[MdevType]:
        declared = self.driver.types
        if callable(declared):
            declared = self.run(parent, "types", declared, parent)
        if not isinstance(declared, Sequence) or not all(isinstance(one, MdevType) for one in declared):
            raise self.junk(parent, "types", declared, "a list of MdevType")
        return declared

    def available(self, type: Type) -> int | Awaitable[int]:
        if self._slow_available:
            return self.in_thread(type, "available", self.driver.available, self._number(type), (type,))
        if self._own_available:  # ours: no vendor code to guard
            return self.driver.available(type)
        number = self.run(type, "available", self.driver.available, type)
        return number if number.__class__ is int and number >= 0 else self._number(type)(number)

    def _number(self, type: Type) -> Callable[[object], int]:
        def accept(number: object) -> int:
            if number.__class__ is int and number >= 0:
                return number
            raise self.junk(type, "available", number, "a number of instances")

        return accept

    def claim(self, type: Type) -> Awaitable[None] | None:
        if self._slow_available:  # which the claim may ask
            return self.in_thread(type, "claim", self.driver.claim, nothing, (type,))
        return self.call(type, "claim", self.driver.claim, nothing, type)

    @property
    def slow_remove(self) -> bool:
        return blocks(self.driver.remove) or (self.faults.armed and self.faults.delay("remove"))

    def probe(self, mdev: Mdev) -> Awaitable[None] | None:
        if self.faults.armed:
            return self._struck(mdev, "probe", self.driver.probe)
        return self.call(mdev, "probe", self.driver.probe, nothing, mdev)

    def remove(self, mdev: Mdev) -> Awaitable[None] | None:
        if self.faults.armed:
            return self._struck(mdev, "remove", self.driver.remove)
        return self.call(mdev, "remove", self.driver.remove, nothing, mdev)

    def configure(self, mdev: Mdev, params: Values) -> Awaitable[None] | None:
        return self.call(mdev, "configure", self.driver.configure, nothing, mdev, params)

    async def _struck(self, mdev: Mdev, what: Literal["probe", "remove"], hook: Callable[[Mdev], None]) -> None:
        """A hook that a fault may strike: then it is called late, or not at all."""
        try:
            await self.faults.strike(what, mdev.path)
        except KernelError as error:
            rule = f"{what} of the vendor driver failed on purpose: {error}"
            mend = "clear the fault: mdevfs control DIR clear"
            raise Refused("fault", error.errno, rule=rule, side="target", mend=mend) from None
        pending = self.call(mdev, what, hook, nothing, mdev)
        if pending is not None:
            await pending

    def migration_string(self, device: Device) -> str | Awaitable[str]:
        self._check_tier(device)
        if self._declares and (model := model_of(device)) is not None:
            return self._own_string(model, device)

        def accept(string: object) -> str:
            if isinstance(string, str) and string.isascii() and string.isprintable() and 0 < len(string) <= MAX_STRING:
                return string
            raise self.junk(device, "migration_string", string, f"1 to {MAX_STRING} printable ASCII characters")

        return self.call(device, "migration_string", self.driver.migration_string, accept, device)

    def check(self, device: Device, source: str) -> Verdict | Awaitable[Verdict]:
        self._check_tier(device)
        description, blocked = _state_of(device)
        if blocked and (verdict := blocked_verdict(source, description, blocked)) is not None:
            return verdict
        if self._declares and (model := model_of(device)) is not None:
            if source == self._own_string(model, device):
                return YES
            verdict = model.check(model.initial(device.params), source)
            return verdict if verdict.compatible else self._explained(device, verdict)

        def accept(verdict: object) -> Verdict:
            if isinstance(verdict, Verdict):
                return verdict
            raise self.junk(device, "check", verdict, "a Verdict")

        return self.call(device, "check", self.driver.check, accept, device, source)

    def _check_tier(self, device: Device) -> None:
        """Raises Refused (ENODEV) with the blocker of a device that does not migrate on the host's machine type."""
        if not self.driver.tiers:
            return
        machine = device.mdev_core.machine.name
        tier = self.driver.tier(machine)
        if tier.promise == "unmigratable":
            where = f" on machine type {machine}" if machine else ""
            rule = f"{self.name} does not migrate{where}: {tier.blocker}"
            raise Refused("blocked", errno.ENODEV, rule=rule, side="target", mend="choose another machine type")

    def _explained(self, device: Device, verdict: Verdict) -> Verdict:
        """A refusal, with what the driver knows of releases and promises added."""
        named = {reason.parameter for reason in verdict.reasons}
        machine = device.mdev_core.machine.name
        forgotten = self.driver.machine_types.get(machine or "", {})
        broken = [one for one in self.driver.broken if one.parameter in named and one.compat in forgotten]
        more = [_known_issue(one) for one in broken]
        if machine is not None and self.driver.tier(machine).promise == "unversioned":
            rule = f"{self.name} promises nothing for machine type {machine}: migration is best effort"
            more.append(Reason("unversioned", rule, side="both", mend="use a versioned machine type on both hosts"))
        return Verdict((*verdict.reasons, *more), verdict.errno)

    @staticmethod
    def _own_string(model: DeviceModel, device: Device) -> str:
        """Built once per configuration: whoever changes a device's parameters clears `string`."""
        if device.string is None:
            device.string = model.write(model.initial(device.params))
        return device.string

    @property
    def model(self) -> DeviceModel | None:
        model, state = self.driver.model, self.driver.state
        return with_state_version(model, state) if model is not None and state is not None else model

    @property
    def broken(self) -> Sequence[Broken]:
        return self.driver.broken

    @property
    def known_machines(self) -> Sequence[str]:
        return known_machines(type(self.driver))

    def machines(self, settings: object) -> Sequence[str]:
        """See VendorDriver.machines."""
        found = self.run(self.name, "machines", self.driver.machines, settings)
        if isinstance(found, Sequence) and all(isinstance(name, str) for name in found):
            return found
        raise self.junk(self.name, "machines", found, "a list of machine types")

    def device_model(self, settings: object) -> DeviceModel | None:
        """See VendorDriver.device_model."""
        made = self.run(self.name, "device_model", self.driver.device_model, settings)
        if made is None:
            return None
        if isinstance(made, DeviceModel):
            return with_state_version(made, self.device_state(settings))
        raise self.junk(self.name, "device_model", made, "a DeviceModel")

    def device_state(self, settings: object) -> VMState:
        """See VendorDriver.device_state."""
        made = self.run(self.name, "device_state", self.driver.device_state, settings)
        if isinstance(made, VMState):
            return made
        raise self.junk(self.name, "device_state", made, "a VMState")

    @property
    def guest_address(self) -> str:
        return self.driver.guest_address

    @property
    def migration_features(self) -> Sequence[str]:
        return self.driver.migration_features

    def reset(self, mdev: Mdev) -> object:
        return self.run(mdev, "reset", self.driver.reset, mdev)

    def exercise(self, mdev: Mdev, seed: int) -> None:
        self.run(mdev, "exercise", self.driver.exercise, mdev, seed)

    def fingerprint(self, mdev: Mdev) -> Mapping[str, object]:
        found = self.run(mdev, "fingerprint", self.driver.fingerprint, mdev)
        if isinstance(found, Mapping):
            return found
        raise self.junk(mdev, "fingerprint", found, "a mapping of names to values")

    def compat_values(self, settings: object, machine: Machine) -> Mapping[str, Value]:
        """Raises InputError for a property whose value is not of its parameter's type."""
        model = self.device_model(settings)
        if model is None:
            return {}
        properties = self.run(self.name, "compat", self.driver.compat, settings, machine)
        try:
            return compat_values(model, properties)
        except ValueError as error:
            raise InputError(f"compat properties of {self.name}: {error}") from None

    def tier(self, machine: str | None) -> Tier:
        return self.driver.tier(machine)

    def compatible_devices(self, type: Type) -> Sequence[tuple[str, str]]:
        return self.run(type, "compatible_devices", self.driver.compatible_devices, type)

    # -- the driver's own attributes

    def mdev_entries(self, mdev: Mdev) -> Mapping[str, Entry]:
        return self._attributes.entries("mdev", mdev, mdev.core.kernel)

    def type_entries(self, type: Type) -> Mapping[str, Entry]:
        return self._attributes.entries("type", type, type.parent.core.kernel)

    def parent_entries(self, parent: Parent) -> Mapping[str, Entry]:
        return self._attributes.entries("parent", parent, parent.core.kernel)


def _known_issue(one: Broken) -> Reason:
    rule = f"release {one.release} is broken: {one.why}"
    where = "the other host" if one.elsewhere else "the host that runs it"
    mend = f"set the compat property {one.compat} = {one.value} by hand on {where}, or run {one.fixed}"
    return Reason("broken-release", rule, one.parameter, side="both", mend=mend)


def _state_of(device: Device) -> tuple[VMState, Collection[int]]:
    """The description of a device's state, and which of its versions are blocked."""
    if isinstance(device, Mdev):
        return device.parent.description, device.blocked_versions
    description = (device if isinstance(device, Parent) else device.parent).description
    return description, description.blocked
