"""A device on a host of its own, from a driver and a few words: for tools that want a device and no host.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from attrs import frozen
from pydantic import BaseModel, ValidationError

from mdevfs.bus.kernel import Kernel
from mdevfs.errors import InputError, escape
from mdevfs.host.host import Host
from mdevfs.host.mistakes import from_pydantic, near_miss
from mdevfs.host.plan import DEFAULT_ADDRESSES, Plan, PlannedDevice
from mdevfs.host.read import Described
from mdevfs.host.schema import DEFAULT_INTERFACES, DeviceSection, HostFile, SriovSection
from mdevfs.mdev.mdev import Mdev
from mdevfs.migration import arguments
from mdevfs.migration.machine import NO_MACHINE, Machine
from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Value
from mdevfs.migration.verdict import RefusedVerdict
from mdevfs.vendor.api import VendorDriver
from mdevfs.vendor.guard import GuardedDriver

UUID = "00000000-0000-4000-8000-000000000001"


async def single(driver: type[VendorDriver], settings: BaseModel, machine: Machine = NO_MACHINE) -> Host:
    """A running host of one device, with virtual functions where those are the parents. Raises InputError."""
    section = DeviceSection(driver=driver.name)
    address = DEFAULT_ADDRESSES.get(driver.bus, driver.name)
    if driver.bus == "pci" and GuardedDriver(driver()).is_parent(settings, vf=True):
        section = DeviceSection(driver=driver.name, sriov=SriovSection(total=4, num=1))
    planned = PlannedDevice(driver, address, settings, section, [], "device")
    described = Described(HostFile(), driver.name, Path())
    host = Host(Plan(driver.name, Kernel.parse("6.1"), machine, DEFAULT_INTERFACES, described, [], [planned]))
    await host.start()
    return host


@frozen
class Wanted:
    """A device in words: "NAME=VALUE" for settings and for what is written to `create` ("version=2", "ports=1")."""

    driver: type[VendorDriver]
    type: str | None = None
    machine: str | None = None
    settings: Sequence[str] = ()
    arguments: Sequence[str] = ()


async def device(wanted: Wanted) -> Mdev:
    """The one mdev of a new host. Raises InputError with every mistake; what create raises."""
    driver = wanted.driver
    wrong = list(_machine_mistakes(wanted))
    settings = settings_of(driver, wanted.settings, wrong)
    if settings is None:  # what does not depend on them can be told all the same
        declared = [] if callable(driver.types) else [f"{driver.name}-{one.suffix}" for one in driver.types]
        _type(wanted, declared, wrong)
        _params(wanted, driver.model, wrong)
        raise InputError(wrong)
    host = await single(driver, settings, NO_MACHINE if wrong else Machine(wanted.machine))
    kinds = {name: kind for parent in host.mdev.parents.values() for name, kind in parent.types.items()}
    if not kinds:
        raise InputError([*wrong, f"driver: {driver.name} offers no types with these settings"])
    kind = kinds[_type(wanted, kinds, wrong)]
    params = _params(wanted, kind.model, wrong)
    if wrong:
        raise InputError(wrong)
    return await host.mdev.create(kind, UUID, params)


def _type(wanted: Wanted, known: Iterable[str], wrong: list[str]) -> str:
    """The type that is wanted; the first one where that does not matter any more."""
    first = next(iter(known), "")
    if wanted.type is None or wanted.type in known or not first:
        return wanted.type or first
    hint = near_miss(wanted.type, known)
    wrong.append(f'type: {wanted.driver.name} has no type "{escape(wanted.type)}"{hint}')
    return first


def _machine_mistakes(wanted: Wanted) -> Iterator[str]:
    known = {*wanted.driver.machine_types, *wanted.driver.tiers}
    if wanted.machine is not None and wanted.machine not in known:
        hint = near_miss(wanted.machine, known)
        yield f'machine: {wanted.driver.name} does not know the machine type "{escape(wanted.machine)}"{hint}'


def settings_of(driver: type[VendorDriver], words: Iterable[str], wrong: list[str]) -> BaseModel | None:
    """A driver's settings from "NAME=VALUE": each a text, or where its schema wants something else the TOML that the
    text is. None where there are mistakes, which are added to `wrong`."""
    model, given = driver.Settings, dict[str, object]()
    for one in words:
        name, equals, value = one.partition("=")
        if not equals:
            wrong.append(f'settings: "{escape(one)}" is not of the form NAME=VALUE')
        else:
            given[name] = value
    for last in (False, True):
        try:
            return model.model_validate(given)
        except ValidationError as error:
            if last:
                wrong += from_pydantic(error, model, ("settings",))
            else:
                given |= {name: _toml(str(given[name])) for name in _names(error) if name in given}
    return None


def _names(error: ValidationError) -> set[str]:
    return {str(one["loc"][0]) for one in error.errors() if one["loc"]}


def _toml(text: str) -> object:
    try:
        return tomllib.loads(f"it = {text}")["it"]
    except tomllib.TOMLDecodeError:
        return text


def _params(wanted: Wanted, model: DeviceModel | None, wrong: list[str]) -> dict[str, Value] | None:
    if not wanted.arguments:
        return None
    try:
        return arguments.parse(",".join(wanted.arguments), model)
    except RefusedVerdict as refusal:
        for reason in refusal.verdict.reasons:
            about = f"{reason.parameter}: " if reason.parameter else ""
            given = f' (is "{reason.source}")' if reason.source else ""
            wrong.append(escape(f"param: {about}{reason.rule}{given}" + (f"; {reason.mend}" if reason.mend else "")))
        return None
