"""Types: what a parent offers, one directory each in `mdev_supported_types` (drivers/vfio/mdev/mdev_sysfs.c)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from mdevfs.bus.kobject import Kobject, Links
from mdevfs.errors import InputError
from mdevfs.mdev.models import type_entries
from mdevfs.migration.handshake import verdict_entries, version_entry
from mdevfs.migration.model import Arguments, DeviceModel
from mdevfs.migration.parameters import Value
from mdevfs.migration.verdict import Journal, Record, Verdict
from mdevfs.sysfs.entries import Attribute, Deferred, Entry, Overlay

if TYPE_CHECKING:
    from mdevfs.mdev.core import MdevCore
    from mdevfs.mdev.parent import Parent

DEVICE_APIS = ("vfio-pci", "vfio-platform", "vfio-amba", "vfio-ccw", "vfio-ap")


@frozen
class MdevType:
    """What a vendor driver declares; the type-id is `<driver>-<suffix>`.

    `name` and `description` are the texts of those files (without the last newline; no description: no file).
    `instances` limits this type alone; `weight` is what one mdev takes from the driver's pool; `params` are the
    migration parameters that the type fixes; `arguments` are what its `create` takes further ("aggregator"), each text
    of which gives some of these another value; `data` is the driver's own.
    """

    suffix: str
    name: str | None = None
    device_api: str = "vfio-pci"
    description: str | None = None
    instances: int | None = None
    weight: int = 1
    params: Mapping[str, Value] = field(factory=dict)
    arguments: Arguments = field(factory=dict)
    data: object = None

    def __attrs_post_init__(self) -> None:
        wrong = []
        if not re.fullmatch(r"[^/\s]+", self.suffix):
            wrong.append(f"type {self.suffix!r}: a type's name is not empty and holds no '/' and no white space")
        if self.device_api not in DEVICE_APIS:
            wrong.append(f"type {self.suffix}: device_api {self.device_api!r} is not one of {', '.join(DEVICE_APIS)}")
        if self.weight < 1:
            wrong.append(f"type {self.suffix}: weight {self.weight} is less than 1")
        if wrong:
            raise InputError(wrong)


class Type(Kobject):
    """One type of one parent. `bound` counts its mdevs that a driver holds, those on their way included;
    `folders` how many subdirectories an mdev has, by whether it is bound; `model` is what the type
    offers of its driver's device model."""

    __slots__ = ("bound", "folders", "last_verdict", "mdevs", "model", "params", "parent", "spec", "string")

    def __init__(self, parent: Parent, spec: MdevType, type_id: str) -> None:
        super().__init__(type_id, parent.types_folder, next(parent.core.salts))
        self.parent = parent
        self.spec = spec
        self.mdevs: dict[str, Kobject] = {}
        self.bound = 0
        self.folders: dict[bool, int] = {}
        self.last_verdict: Record | None = None
        self.string: str | None = None
        # What an mdev is made with where nothing else is asked for, as far as it differs from the model's.
        self.params: Mapping[str, Value] = {**parent.params, **spec.params}
        model = parent.model
        self.model: DeviceModel | None = None
        if model is not None:
            self.model = model.made_with(self.params, spec.params, spec.arguments)

    @property
    def type(self) -> Type:
        """Itself, so that a hook may be asked about a type as about an mdev."""
        return self

    @property
    def mdev_core(self) -> MdevCore:
        return self.parent.mdev_core

    @property
    def journal(self) -> Journal:
        return self.parent.mdev_core.journal

    def entries(self) -> dict[str, Entry]:
        """As the kernel names them, and the proposals' families that are on and that the driver serves."""
        spec, driver, core = self.spec, self.parent.driver, self.parent.mdev_core
        entries: dict[str, Entry] = {
            "create": Attribute(store=lambda data: core.create_store(self, data)),
            "available_instances": Attribute(self._show_available),
            "device_api": Attribute(lambda: f"{spec.device_api}\n"),
            "devices": Overlay(Links(f"{self.path}/devices", self.mdevs)),
        }
        if driver.shows_name(self.parent.core.kernel):
            entries["name"] = Attribute(lambda: f"{spec.name if spec.name is not None else self.name}\n")
        if (description := spec.description) is not None:
            entries["description"] = Attribute(lambda: f"{description}\n")
        if driver.migrates and "migration_version" in core.interfaces:
            entries |= version_entry(self)
        if "verdicts" in core.interfaces:
            entries["mdevfs"] = Deferred(lambda: verdict_entries(self, driver.migrates))
        return {**entries, **type_entries(self), **driver.type_entries(self)}

    def _show_available(self) -> str | Awaitable[str]:
        number = self.parent.driver.available(self)
        return f"{number}\n" if isinstance(number, int) else _line(number)

    def migration_string(self) -> str | Awaitable[str]:
        return self.parent.driver.migration_string(self)

    def check_source(self, source: str) -> Verdict | Awaitable[Verdict]:
        return self.parent.driver.check(self, source)


async def _line(number: Awaitable[int]) -> str:
    return f"{await number}\n"
