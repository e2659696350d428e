"""An mdev's device state: what the guest's device holds, how it is saved, where it is loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from attrs import evolve

from mdevfs.mdev.migration import Migration
from mdevfs.migration.state_version import STATE_VERSION
from mdevfs.state import body
from mdevfs.state.stream import Place, Section
from mdevfs.state.view import View

if TYPE_CHECKING:
    from mdevfs.mdev.mdev import Mdev


class DeviceState:
    """`registers` is the driver's object; `blocked` are the versions that are not loaded (seed 002: the bitmap of an
    administrator); `migration` is what moves it."""

    __slots__ = ("blocked", "mdev", "migration", "registers")

    def __init__(self, mdev: Mdev) -> None:
        self.mdev = mdev
        self.blocked: Collection[int] = frozenset(mdev.parent.description.blocked)
        self.migration = Migration(self)
        self.registers: object = mdev.parent.driver.reset(mdev)

    @property
    def save_version(self) -> int:
        """It is the migration parameter `state-version`, whether the driver has a model or not."""
        version = self.mdev.params.get(STATE_VERSION, self.mdev.parent.description.version)
        assert isinstance(version, int)
        return version

    @save_version.setter
    def save_version(self, version: int) -> None:
        self.mdev.set_param(STATE_VERSION, version)

    @property
    def view(self) -> View:
        """The whole state as the functions of the description see it, whatever version it is saved with."""
        return View(self.registers, self.mdev.values, self.mdev.parent.description.version)

    @property
    def machine(self) -> str:
        """The host's machine type, which its streams name; empty where it has none."""
        return self.mdev.mdev_core.machine.name or ""

    @property
    def section_name(self) -> str:
        """As QEMU names it: the address in the guest and the description's name, or the latter alone."""
        address, name = self.mdev.parent.driver.guest_address, self.mdev.parent.description.name
        return f"{address}/{name}" if address else name

    def save(self) -> Section:
        """The section of the state as it is. Large fields are not copied: the state must stand still meanwhile."""
        description = self.mdev.parent.description
        chunks, described = body.save(description, evolve(self.view, version=self.save_version))
        return Section(self.section_name, self.save_version, chunks, described)

    def place(self) -> Place:
        """Where a stream may load into; what it loads is a new state, and `registers` stays what it is."""
        mdev = self.mdev

        def begin(version: int) -> View:
            return View(mdev.parent.driver.reset(mdev), mdev.values, version)

        return Place(self.section_name, mdev.parent.description, begin, self.blocked)
