"""The distinct effective configurations of a driver: what its settings, machine types, types and arguments make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from attrs import define, field, frozen
from pydantic import BaseModel

from mdevfs.errors import MdevfsError
from mdevfs.host.host import Host
from mdevfs.host.single import UUID, single
from mdevfs.mdev.mdev import Mdev
from mdevfs.mdev.types import Type
from mdevfs.migration.machine import Machine
from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Parameter, Value
from mdevfs.state.description import Struct, VMState
from mdevfs.vendor.api import VendorDriver
from mdevfs.vendor.guard import GuardedDriver


@frozen
class Release:
    """A driver under test; `label` tells two releases of one driver apart."""

    driver: type[VendorDriver]
    label: str


@define(eq=False)
class Configuration:
    """One class of devices that nobody can tell apart by what migrates, and a device of it on a host of its own."""

    label: str
    release: Release
    host: Host
    mdev: Mdev
    string: str | None = None
    blocker: str = ""
    _key: str = field(default="", repr=False)

    @property
    def hooks(self) -> GuardedDriver:
        """The driver that serves it."""
        hooks = self.mdev.parent.driver
        assert isinstance(hooks, GuardedDriver)
        return hooks


@define
class Found:
    """The classes in the order in which the driver names their settings, and how many ways lead to them."""

    classes: list[Configuration] = field(factory=list)
    tried: int = 0
    impossible: list[str] = field(factory=list)


async def find(releases: Sequence[Release]) -> Found:
    """Every distinct effective configuration: variants of the settings, machine types, types, versions, and every
    parameter at the ends of what is allowed, one at a time. Raises InputError when not even one can be made."""
    found = Found()
    seen: set[str] = set()
    for release in releases:
        for settings, machine, label in _hosts(release.driver):
            await _explore(release, settings, machine, label, found, seen)
    return found


def _hosts(driver: type[VendorDriver]) -> Iterator[tuple[Mapping[str, object], Machine, str]]:
    machines = dict.fromkeys((*driver.machine_types, *driver.tiers))
    for variant in driver.variants:
        said = ", ".join(f"{name}={value}" for name, value in variant.items())
        yield variant, Machine(), said
        for name in machines:
            yield variant, Machine(name), f"{said} on {name}" if said else name


async def _explore(
    release: Release, variant: Mapping[str, object], machine: Machine, label: str, found: Found, seen: set[str]
) -> None:
    driver = release.driver
    try:
        settings = driver.Settings.model_validate(dict(variant))
        key = _host_key(release, settings, machine)
        if key in seen:
            found.tried += 1
            return
        seen.add(key)
        host = await single(driver, settings, machine)
    except MdevfsError as error:  # such as a release without that machine type
        found.impossible.append(f"{label}: {error}")
        return
    kinds = [kind for parent in host.mdev.parents.values() for kind in parent.types.values()]
    for kind in {kind.name: kind for kind in kinds}.values():
        for arguments in _arguments(kind.model):
            found.tried += 1
            values = {**(kind.model.initial(kind.params) if kind.model is not None else {}), **arguments}
            class_key = _class_key(release, kind, key, values)
            if class_key in seen:
                continue
            seen.add(class_key)
            try:
                found.classes.append(await _configuration(release, settings, machine, label, kind, arguments))
            except MdevfsError as error:
                found.impossible.append(f"{label} {kind.name} {arguments}: {error}")


def hooks_declare(driver: type[VendorDriver]) -> bool:
    """Whether the handshake is nothing but the declared model."""
    own = driver.check, driver.migration_string
    return driver.model is not None and own == (VendorDriver.check, VendorDriver.migration_string)


def _host_key(release: Release, settings: BaseModel, machine: Machine) -> str:
    """What of a host can make its devices differ: the settings themselves only where the driver looks at them."""
    hooks = GuardedDriver(release.driver())
    model = hooks.device_model(settings)
    looks = not hooks_declare(release.driver) or callable(release.driver.types)
    about = {
        "release": release.label,
        "model": model.info() if model is not None else None,
        "compat": {name: str(value) for name, value in hooks.compat_values(settings, machine).items()},
        "state": signature(hooks.device_state(settings)),
        "migrates": hooks.tier(machine.name).promise != "unmigratable",
        "settings": settings.model_dump(mode="json") if looks else None,
    }
    return json.dumps(about, sort_keys=True, default=str)


def _class_key(release: Release, kind: Type, host_key: str, values: Mapping[str, Value]) -> str:
    """What tells two devices apart. Where the declared model decides alone, that is its values, what it allows, and
    the state's description; elsewhere the host and the type as well."""
    chosen = sorted((name, str(value)) for name, value in values.items())
    if kind.model is None or not hooks_declare(release.driver):
        return f"{host_key} {kind.name} {chosen}"
    parent = kind.parent
    allowed = [(one.name, str(one.off), one.rule()) for one in kind.model.params]
    migrates = parent.driver.tier(kind.mdev_core.machine.name).promise != "unmigratable"
    return f"{release.label} {chosen} {allowed} {signature(parent.description)} {migrates}"


def signature(description: VMState) -> object:
    """A description as data: two of the same are one."""
    fields = [
        (one.name, one.kind, one.size, one.num, one.since, signature(one.of) if isinstance(one, Struct) else None)
        for one in description.fields
    ]
    subsections = [signature(sub) for sub in description.subsections]
    return (
        description.name,
        description.version,
        description.minimum,
        sorted(description.blocked),
        fields,
        subsections,
    )


async def _configuration(
    release: Release, settings: BaseModel, machine: Machine, label: str, kind: Type, arguments: Mapping[str, Value]
) -> Configuration:
    host = await single(release.driver, settings, machine)
    parents = [parent for parent in host.mdev.parents.values() if kind.name in parent.types]
    mdev = await host.mdev.create(parents[0].types[kind.name], UUID, dict(arguments))
    hooks = mdev.parent.driver
    parts = [release.label, kind.name.removeprefix(f"{hooks.name}-"), label]
    if kind.model is not None:
        parts += [f"{name}={kind.model.parameters[name].format(value)}" for name, value in arguments.items()]
    made = Configuration(" ".join(filter(None, parts)), release, host, mdev)
    try:
        string = hooks.migration_string(mdev)
        made.string = string if isinstance(string, str) else await string
    except MdevfsError as error:
        made.blocker = str(error)
    return made


def _arguments(model: DeviceModel | None) -> Iterator[dict[str, Value]]:
    """What to create with: nothing, each version, and each parameter's values at the ends, one at a time."""
    yield {}
    if model is None:
        return
    for version in model.versions:
        yield model.expand(version)
    for param in model.params:
        yield from ({param.name: value} for value in _ends(param) if value != param.init)


def _ends(param: Parameter) -> list[Value]:
    """A few values of a parameter, those at the ends of what is allowed among them."""
    found: list[Value] = [] if param.off is None else [param.off]
    allowed = param.allowed
    if param.type == "bool":
        found += [value for value in (False, True) if param.allows(value)]
    elif param.type == "set":
        words = sorted(str(word) for word in allowed or ())
        found += [frozenset(), *(frozenset({word}) for word in words), frozenset(words)]
    elif isinstance(allowed, range):
        found += [allowed[0], *list(allowed[1:3]), allowed[-1]] if allowed else []
    elif allowed is not None:
        found += list(allowed)[:8]
    return [value for value in dict.fromkeys(found) if param.allows(value)]
