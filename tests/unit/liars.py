"""Drivers that lie: each keeps one promise of the honest one less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdevfs.vendor import (
    U8,
    U16,
    U32,
    YES,
    BadState,
    Bool,
    Bytes,
    DeviceModel,
    Mdev,
    MdevType,
    Registers,
    Settings,
    Struct,
    VendorDriver,
    Verdict,
    View,
    VMState,
)

RING = VMState("nic-ring", fields=[U16("head"), U16("tail")])
RSS = VMState("nic/rss", fields=[U32("key", reset=7)], needed="rss")
FIELDS = [U32("ctrl", reset=1), U16("vlan"), Bytes("mac", 6), Struct("ring", of=RING)]
MODEL = DeviceModel("vendor-a.com/nic", [Bool("rss", False, False)])


class Honest(VendorDriver):
    """A NIC that keeps its word."""

    api = 1
    name = "nic"
    types = [MdevType("nic", instances=4)]
    model = MODEL
    state = VMState("nic", fields=FIELDS, subsections=[RSS])

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """Register writes that depend on the seed, and on what is there."""
        state = mdev.state
        state.ctrl = (state.ctrl * 31 + seed) % 2**32
        state.vlan = (state.vlan + seed + 0x1203) % 2**16
        state.mac[:] = bytes((one + seed + 1) % 256 for one in state.mac)
        state.ring.head = (state.ring.head + seed) % 2**16
        state.ring.tail = (state.ring.tail + state.ring.head) % 2**16
        if mdev.values.get("rss"):
            state.key = (state.key + seed * 3) % 2**32

    def fingerprint(self, mdev: Mdev) -> Mapping[str, object]:
        """Every register, RSS only where the device has it."""
        state = mdev.state
        seen: dict[str, object] = {"CTRL": state.ctrl, "VLAN": state.vlan, "MAC": bytes(state.mac)}
        seen |= {"HEAD": state.ring.head, "TAIL": state.ring.tail}
        if mdev.values.get("rss"):
            seen["KEY"] = state.key
        return seen


def _swap(view: View) -> None:
    view.state.vlan = (view.state.vlan >> 8) | (view.state.vlan & 0xFF) << 8


class FieldDropped(Honest):
    """Forgets a field that the guest sees."""

    state = VMState("nic", fields=[one for one in FIELDS if one.name != "vlan"], subsections=[RSS])

    def reset(self, mdev: Mdev) -> object:
        """It has the register all the same."""
        state: Any = super().reset(mdev)
        state.vlan = 0
        return state


class BytesSwapped(Honest):
    """Loads a register the other way round."""

    state = VMState("nic", fields=FIELDS, subsections=[RSS], after_load=_swap)


class NeededForgotten(Honest):
    """Never needs the subsection."""

    state = VMState(
        "nic", fields=FIELDS, subsections=[VMState("nic/rss", fields=RSS.fields, needed=lambda view: False)]
    )


class NeededByValue(Honest):
    """Leaves the subsection out while the key is zero, though it is 7 after reset."""

    state = VMState(
        "nic",
        fields=FIELDS,
        subsections=[VMState("nic/rss", fields=RSS.fields, needed=lambda view: view.state.key > 99)],
    )

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """The key is small in most states."""
        super().exercise(mdev, seed)
        mdev.state.key = seed if seed % 2 else 1000 + seed


class YesMan(Honest):
    """Accepts whatever it is asked."""

    def check(self, device: Any, source: str) -> Verdict:
        """Yes."""
        return YES


class NarrowField(Honest):
    """Saves a register of 16 bits in 8."""

    state = VMState("nic", fields=[U8(one.name) if one.name == "vlan" else one for one in FIELDS], subsections=[RSS])


class LoadFails(Honest):
    """Refuses, when it is loaded, what its handshake accepted."""

    @staticmethod
    def _refuse(view: View) -> None:
        if view.state.vlan & 1:
            raise BadState("field-out-of-bounds", rule="an odd VLAN cannot be")

    state = VMState("nic", fields=FIELDS, subsections=[RSS], after_load=_refuse)


class Leftovers(Honest):
    """All its devices share one state, so that a load into one changes what another holds."""

    shared = Honest.state.fresh() if Honest.state is not None else Registers()

    def reset(self, mdev: Mdev) -> object:
        """The same object for everybody."""
        return self.shared


class Unreproducible(Honest):
    """Its exercise depends on what ran before."""

    calls = 0

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """Counts on."""
        type(self).calls += 1
        super().exercise(mdev, seed + type(self).calls)


class Lazy(Honest):
    """Never drives the MAC address."""

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """All but the MAC address."""
        before = bytes(mdev.state.mac)
        super().exercise(mdev, seed)
        mdev.state.mac[:] = before


class SizeBySettings(Honest):
    """How large its buffer is depends on a setting that its string does not say."""

    class Settings(Settings):
        """One number."""

        length: int = 4

    variants = ({"length": 4}, {"length": 8})

    def device_state(self, settings: Any) -> VMState:
        """A buffer more."""
        return VMState("nic", fields=[*FIELDS, Bytes("extra", settings.length)], subsections=[RSS])

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """The buffer as well."""
        super().exercise(mdev, seed)
        mdev.state.extra[0] = seed % 256


class StaleVersion(Honest):
    """A later release: it has a field more in its section, and the version that it had."""

    state = VMState("nic", fields=[*FIELDS, U32("later")], subsections=[RSS])

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """The new field as well."""
        super().exercise(mdev, seed)
        mdev.state.later = seed


class BumpedVersion(StaleVersion):
    """A later release that does it right: a new version of the section, which the handshake then knows of."""

    state = VMState("nic", 2, 1, fields=[*FIELDS, U32("later", since=2)], subsections=[RSS])


class StaleString(Honest):
    """Its string does not say that RSS is on."""

    def migration_string(self, device: Any) -> str:
        """Always the same."""
        return "vendor-a.com/nic"

    def check(self, device: Any, source: str) -> Verdict:
        """Compares that string."""
        return YES if source == "vendor-a.com/nic" else Verdict.no([])


LIARS = {
    FieldDropped: "VLAN is 0",
    BytesSwapped: "VLAN is",
    NeededForgotten: "KEY is 7",
    NeededByValue: "KEY is 7",
    YesMan: "KEY",
    NarrowField: "cannot be saved",
    LoadFails: "an odd VLAN cannot be",
    Leftovers: "not reproducible",
    Unreproducible: "not reproducible",
    Lazy: "nic/mac",
    SizeBySettings: "footer",
    StaleString: "KEY",
}
