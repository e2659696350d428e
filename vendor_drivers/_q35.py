"""QEMU's network functions: their releases, and the machine types' compat properties that concern them.

The properties of pc-q35-5.2 and newer are what QEMU 11.1 itself says (QMP query-machines, compat-props=true), those of
older ones its hw_compat_* lists (read in 7.2). All are "on" or "off" here; QEMU writes some as true and false.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

from attrs import evolve
from pydantic import AfterValidator, Field

from mdevfs.vendor import (
    Broken,
    DeviceModel,
    InputError,
    Machine,
    Mdev,
    MdevType,
    PciIdentity,
    VendorDriver,
    VMState,
    chain,
    kstrtobool,
    show,
    store,
)
from mdevfs.vendor import Settings as Base
from vendor_drivers._e1000_device import Nic

Version = tuple[int, ...]

_BARE = (
    *("11.1", "11.0", "10.2", "10.1", "10.0", "9.2", "9.1", "9.0", "8.2", "8.1", "8.0", "7.2", "7.1", "7.0", "6.2"),
    *(
        "6.1",
        "6.0",
        "5.2",
        "5.1",
        "5.0",
        "4.2",
        "4.1",
        "4.0.1",
        "4.0",
        "3.1",
        "3.0",
        "2.12",
        "2.11",
        "2.10",
        "2.9",
        "2.8",
    ),
    *("2.7", "2.6", "2.5", "2.4"),
)
_SET: Mapping[str, Mapping[str, str]] = {  # by each machine type, and so by all older ones
    "9.1": {"pci-device.x-pcie-ext-tag": "off"},
    "7.2": {"e1000e.migrate-timadj": "off", "pci-device.x-pcie-err-unc-mask": "off"},
    "6.0": {"e1000.init-vet": "off", "e1000e.init-vet": "off"},
    "2.11": {"e1000.migrate_tso_props": "off"},
    "2.8": {"pci-device.x-pcie-extcap-init": "off"},
    "2.4": {"e1000.extra_mac_registers": "off"},
}
MACHINE_TYPES = chain(
    *((f"pc-q35-{version}", _SET.get(version, {})) for version in _BARE),
    ("pc-i440fx-1.6", {"e1000.mitigation": "off"}),  # older than any q35 that migrates
)
NEWEST = _BARE[0]
_REMOVED = {"11.1": "5.2"}  # a release, and the oldest machine type that it still has (said by 11.1 itself)


def version(text: str) -> Version:
    """`8.0.1`, or the end of a machine type's name, as numbers that compare."""
    return tuple(map(int, text.rpartition("-")[2].split(".")))


def _release(text: str) -> str:
    if not version("1.6") <= version(text)[:2] <= version(NEWEST):
        raise ValueError(f"QEMU's releases from 1.6 to {NEWEST} are known here")
    return text


class QemuNic(VendorDriver):
    """A network function as a QEMU release makes it. A parameter exists in the releases that are newer than every
    machine type that switches it off."""

    bus = "pci"
    types = [MdevType("nic", description="one port", instances=8)]
    machine_types = MACHINE_TYPES
    identity: ClassVar[PciIdentity]
    nic: ClassVar[type[Nic]]
    subsections: ClassVar[Mapping[str, str]] = {}
    """The subsections that came with a parameter, and are unknown to the releases that do not have it."""
    variants = tuple(
        {"release": one} for one in (*reversed(_BARE[_BARE.index("8.0") :]), "8.0.1", *reversed(_BARE[:10]))
    )

    class Settings(Base):
        release: Annotated[str, AfterValidator(_release)] = Field(
            default=NEWEST, pattern=r"^[0-9]{1,2}\.[0-9]{1,2}(\.[0-9]{1,2})?$", description="of QEMU, such as 8.0.1"
        )

    def pci(self, settings: Settings) -> PciIdentity:
        """The same in every release."""
        return self.identity

    def machines(self, settings: Settings) -> list[str]:
        """A release has neither newer machine types nor those that it removed; where none is said, it is one that has
        the machine type that is asked for."""
        if "release" not in settings.model_fields_set:
            return list(self.machine_types)
        release = version(settings.release)[:2]
        return [name for name in self.machine_types if _oldest(release) <= version(name) <= release]

    def release(self, settings: Settings) -> str:
        """8.0 is 8.0.0."""
        return settings.release if settings.release.count(".") == 2 else f"{settings.release}.0"

    def device_model(self, settings: Settings) -> DeviceModel:
        """The parameters that exist in the release; those that have no property there cannot be switched off."""
        assert self.model is not None
        release, broken = version(settings.release)[:2], self._broken_in(settings)
        params = [param for param in self.model.params if _last_without(param.compat) < release]
        without = {one.parameter for one in broken if one.elsewhere}
        return DeviceModel(
            self.model.name,
            [evolve(one, off=None, allowed=(one.init,), compat=None) if one.name in without else one for one in params],
        )

    def device_state(self, settings: Settings) -> VMState:
        """The release's: without the subsections that it does not know yet."""
        whole, known = super().device_state(settings), self.device_model(settings).parameters
        kept = [one for one in whole.subsections if self.subsections.get(one.name) in (None, *known)]
        return evolve(whole, subsections=kept)

    def compat(self, settings: Settings, machine: Machine) -> Mapping[str, str]:
        """Raises InputError for a machine type or a property by hand that the release does not have."""
        wrong = []
        if machine.name in self.machine_types and machine.name not in self.machines(settings):
            wrong.append(f"QEMU {settings.release} has no machine type {machine.name}")
        assert self.model is not None
        ever = {param.compat for param in self.model.params if param.compat is not None}
        known = {param.compat for param in self.device_model(settings).params}
        for name in sorted(ever & machine.by_hand.keys() - known):
            wrong.append(f"{self.name} of QEMU {settings.release} has no property {name}")
        if wrong:
            raise InputError(wrong)
        return super().compat(settings, machine)

    @show("qemu/link")
    def link(self, mdev: Mdev) -> str:
        """1 with the cable plugged in, 0 with it pulled (QEMU's `set_link`); migrates with the device state."""
        return f"{mdev.state.cable:d}\n"

    @store("qemu/link")
    def set_link(self, mdev: Mdev, data: bytes) -> None:
        """EINVAL for what is no truth value."""
        nic = self.nic(mdev.state, mdev.values)
        if kstrtobool(data):
            nic.plug()
        else:
            nic.pull()

    def keep_cable(self, mdev: Mdev, state: Any) -> None:
        """A reset leaves the cable as it is (e1000_reset), and nobody is told."""
        if mdev.has_device_state and not mdev.state.cable:
            state.cable = False
            self.nic(state, mdev.values).set_link(up=False)

    def _broken_in(self, settings: Settings) -> list[Broken]:
        return [one for one in self.broken if one.release == self.release(settings)]


@cache
def _last_without(compat: str | None) -> Version:
    """The newest machine type that sets a property, which is the last release that did not have it."""
    return max((version(name) for name, found in MACHINE_TYPES.items() if compat in found), default=(0,))


def _oldest(release: Version) -> Version:
    return max((version(kept) for first, kept in _REMOVED.items() if version(first) <= release), default=(0,))
