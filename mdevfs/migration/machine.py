"""Machine types: named sets of compat properties that a host applies to its devices (QEMU's hw_compat_*)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import field, frozen

from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Value

Properties = Mapping[str, str]  # "device.property" -> value

Promise = Literal["versioned", "unversioned", "unmigratable"]
PROMISES: Mapping[Promise, str] = {
    "versioned": "forward migration is promised, and backward where compat properties cover every change",
    "unversioned": "best effort: it may be refused after any change",
    "unmigratable": "it does not migrate",
}


@frozen
class Tier:
    """What a driver promises for a machine type; `blocker` says why an unmigratable device does not migrate."""

    promise: Promise
    blocker: str = ""


VERSIONED, UNVERSIONED = Tier("versioned"), Tier("unversioned")


def strictest(tiers: Iterable[Tier]) -> Tier | None:
    """The strictest of several machine types' promises is what a device of all of them must keep."""
    order = list(PROMISES)
    return min(tiers, key=lambda tier: order.index(tier.promise), default=None)


@frozen
class Machine:
    """What a host applies: its machine type, and single properties by hand, which win."""

    name: str | None = None
    by_hand: Properties = field(factory=dict)


NO_MACHINE = Machine()


@frozen
class Broken:
    """A release that is known to migrate wrongly: it leaves `parameter` at the new default on the machine types that
    set `compat` in `fixed`, because it forgot that entry. `compat` set to `value` by hand is the way out, on the host
    that runs the release; `elsewhere`: on the other one, as the release has not even the property."""

    release: str
    parameter: str
    compat: str
    value: str
    fixed: str
    why: str
    elsewhere: bool = field(default=False, kw_only=True)


def chain(*steps: tuple[str, Properties]) -> dict[str, dict[str, str]]:
    """Machine types from the newest to the oldest, each with what is set there and in older ones, as QEMU writes them
    down; the result has every type's whole set."""
    found: dict[str, dict[str, str]] = {}
    held: dict[str, str] = {}
    for name, properties in steps:
        held = held | dict(properties)
        found[name] = held
    return found


def compat_values(model: DeviceModel, properties: Properties) -> dict[str, Value]:
    """The parameter values that compat properties give a model. Raises ValueError for a value of the wrong type."""
    values: dict[str, Value] = {}
    for param in model.params:
        if param.compat is not None and param.compat in properties:
            values[param.name] = param.parse(properties[param.compat])
    return values
