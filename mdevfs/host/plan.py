"""What a host file asks for, checked against the drivers that it names: a plan that `build` can only carry out."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Container, Iterator
from pathlib import Path

from attrs import Factory, define, field, frozen
from pydantic import BaseModel, ValidationError

from mdevfs.bus.kernel import Kernel
from mdevfs.errors import InputError, escape
from mdevfs.host.mistakes import from_pydantic, near_miss
from mdevfs.host.read import Described
from mdevfs.host.schema import DEFAULT_INTERFACES, DeviceSection, MdevSection
from mdevfs.migration.machine import Machine
from mdevfs.vendor.api import VendorDriver
from mdevfs.vendor.loader import Found, installed, load_file, load_installed

ADDRESSES = {
    "virtual": (re.compile(r"(?!\.\.?\Z)[!-.0-~]{1,255}\Z"), "a name"),
    "pci": (re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\Z"), "a PCI address such as 0000:00:02.0"),
    "css": (re.compile(r"0\.[0-3]\.[0-9a-f]{4}\Z"), "a subchannel such as 0.0.0313"),
    "ap": (re.compile(r"matrix\Z"), "matrix"),
}
DEFAULT_ADDRESSES = {"pci": "0000:00:02.0", "css": "0.0.0313", "ap": "matrix"}


@frozen
class PlannedMdev:
    """`count` mdevs of a type; `uuid` is the only one's."""

    type: str
    uuid: str | None
    count: int
    params: str | None
    where: str


@frozen
class PlannedDevice:
    """A device to add, its driver's class and its checked settings."""

    driver: type[VendorDriver]
    address: str
    settings: BaseModel
    section: DeviceSection
    mdevs: list[PlannedMdev]
    where: str


@define
class Plan:
    """A whole host, nothing of it made yet."""

    name: str
    kernel: Kernel
    machine: Machine
    interfaces: frozenset[str]
    described: Described
    mistakes: list[str]
    devices: list[PlannedDevice] = field(factory=list)
    drivers: Drivers = Factory(lambda self: Drivers(self.described, self.mistakes), takes_self=True)

    def at(self, address: str) -> PlannedDevice:
        """The device that is planned at an address. Raises StopIteration."""
        return next(one for one in self.devices if one.address == address)

    def extend(self, section: DeviceSection, taken: Container[str]) -> PlannedDevice:
        """Plans one more device, in the place of what was planned at its address unless that is `taken`.

        Raises InputError with every mistake.
        """
        wrong: list[str] = []
        planned = _device(section, "device", self.drivers, wrong)
        if planned is not None and planned.address in taken:
            wrong.append(f'device.address: "{planned.address}" is taken')
        if planned is None or wrong:
            raise InputError(wrong)
        self.devices = [one for one in self.devices if one.address != planned.address] + [planned]
        return planned

    def uuids(self, device: PlannedDevice) -> Iterator[tuple[PlannedMdev, str]]:
        """Every mdev's UUID; generated ones depend on the host's name, the address and the type alone, and count on
        where a type is named again."""
        indexes: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
        for mdev in device.mdevs:
            if mdev.uuid is not None:
                yield mdev, mdev.uuid
                continue
            text = f"{self.name}\n{device.address}\n{mdev.type}"
            seed = hashlib.sha256(text.encode()).hexdigest()
            head = f"{seed[:8]}-{seed[8:12]}-4{seed[13:16]}-8{seed[17:20]}-"
            for index in itertools.islice(indexes[mdev.type], mdev.count):
                yield mdev, f"{head}{index:012x}"


def plan(described: Described) -> Plan:
    """Checks a host file against its drivers; the plan's `mistakes` are what is wrong so far, `devices` what is not."""
    section = described.file.host
    wrong = list(described.mistakes)
    drivers = Drivers(described, wrong)
    interfaces = DEFAULT_INTERFACES if section.interfaces is None else frozenset(section.interfaces)
    kernel = Kernel.parse(section.kernel, frozenset(section.kernel_quirks))
    machine = Machine(section.machine, section.compat)
    result = Plan(section.name, kernel, machine, interfaces, described, wrong, drivers=drivers)
    for index, device in enumerate(described.file.device):
        planned = _device(device, f"device[{described.place(index)}]", drivers, wrong)
        if planned is not None:
            result.devices.append(planned)
    wrong += _machine(result)
    wrong += _clashes(result)
    return result


class Drivers:
    """The drivers that a host can name: its own files first, then the installed ones, each loaded once."""

    def __init__(self, described: Described, wrong: list[str]) -> None:
        self.found: dict[str, Found | None] = {}
        for index, name in enumerate(described.file.host.drivers):
            try:
                self.found.update(load_file(described.folder / Path(name)))
            except InputError as error:
                wrong += [f"host.drivers[{index}]: {mistake}" for mistake in error.mistakes]

    def get(self, name: str) -> Found | None:
        if name not in self.found:
            self.found[name] = load_installed(name)
        return self.found[name]

    def names(self) -> set[str]:
        return {name for name, found in self.found.items() if found} | set(installed())


def _device(section: DeviceSection, where: str, drivers: Drivers, wrong: list[str]) -> PlannedDevice | None:
    found = drivers.get(section.driver)
    if found is None:
        broken = section.driver in installed()
        why = "is installed but broken, see the log" if broken else "is unknown"
        hint = "" if broken else near_miss(section.driver, drivers.names())
        wrong.append(f'{where}.driver: vendor driver "{escape(section.driver)}" {why}{hint}')
        return None
    driver, before = found.driver, len(wrong)
    address = section.address
    if address is None:
        address = DEFAULT_ADDRESSES.get(driver.bus, driver.name)
    pattern, what = ADDRESSES[driver.bus]
    if not pattern.match(address):
        wrong.append(f'{where}.address: "{escape(address)}" is not {what}, as the bus of driver {driver.name} has them')
    if driver.bus != "pci":
        for key in ("iommu_group", "numa_node", "sriov"):
            if getattr(section, key) is not None:
                wrong.append(f"{where}.{key}: only PCI functions have one, driver {driver.name} is on {driver.bus}")
    try:
        settings = driver.Settings.model_validate(section.settings)
    except ValidationError as error:
        wrong += from_pydantic(error, driver.Settings, (where, "settings"))
    if len(wrong) > before:
        return None
    mdevs = [_mdev(one, f"{where}.mdev[{index}]") for index, one in enumerate(section.mdev)]
    return PlannedDevice(driver, address, settings, section, mdevs, where)


def _mdev(section: MdevSection, where: str) -> PlannedMdev:
    uuid = section.uuid.lower() if section.uuid else None
    return PlannedMdev(section.type, uuid, section.count or 1, section.params, where)


def _machine(plan: Plan) -> Iterator[str]:
    """A machine type or a compat property that no driver of the host knows does nothing, so it is a mistake."""
    machine, drivers = plan.machine, [device.driver for device in plan.devices]
    known = {name for driver in drivers for name in (*driver.machine_types, *driver.tiers)}
    if machine.name is not None and machine.name not in known:
        hint = near_miss(machine.name, known)
        yield f'host.machine: no driver of this host knows the machine type "{machine.name}"{hint}'
    models = [driver.model for driver in drivers if driver.model is not None]
    properties = {param.compat: param for model in models for param in model.params if param.compat is not None}
    for name, value in machine.by_hand.items():
        if name not in properties:
            yield f'host.compat."{name}": no driver of this host has this property{near_miss(name, properties)}'
            continue
        try:
            properties[name].parse(value)
        except ValueError as error:
            yield f'host.compat."{name}": {error}'


def _clashes(plan: Plan) -> list[str]:
    """Who wants a name that another has; what clashes is taken out of the plan."""
    wrong: list[str] = []
    addresses: dict[str, str] = {}
    uuids: dict[str, str] = {}
    for device in tuple(plan.devices):
        # On any bus: class/mdev_bus links to all parents by name.
        first = addresses.setdefault(device.address, device.where)
        if first != device.where:
            wrong.append(f'{device.where}.address: "{device.address}" is taken by {first}')
            plan.devices.remove(device)
        for mdev in tuple(device.mdevs):
            if mdev.uuid is not None and uuids.setdefault(mdev.uuid, mdev.where) != mdev.where:
                wrong.append(f'{mdev.where}.uuid: "{mdev.uuid}" is taken by {uuids[mdev.uuid]}')
                device.mdevs.remove(mdev)
    return wrong
