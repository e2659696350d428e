"""Intel GVT-g, as in the migration_version series (v5, April 2020) and drivers/gpu/drm/i915/gvt of Linux 6.1."""

from __future__ import annotations

import errno
from typing import Literal

from attrs import frozen
from pydantic import Field

from mdevfs.vendor import (
    Bar,
    Mdev,
    MdevType,
    Page,
    Parent,
    PciIdentity,
    Reason,
    Refused,
    Type,
    VendorDriver,
    Verdict,
    show,
)
from mdevfs.vendor import Settings as Base

VENDOR = 0x8086


@frozen
class Resources:
    """What a vGPU takes of its GPU: graphics memory in MB, fences."""

    low_gm: int
    high_gm: int
    fence: int

    def shares(self, left: Resources) -> int:
        """How many of these fit into what is left."""
        return min(left.low_gm // self.low_gm, left.high_gm // self.high_gm, left.fence // self.fence)


HOST = Resources(low_gm=128, high_gm=384, fence=4)  # what the host keeps (gvt/gvt.h)
TYPES = {  # vgpu.c: suffix -> resources, resolution; the order in which they are listed
    8: (Resources(64, 384, 4), "1024x768"),
    4: (Resources(128, 512, 4), "1920x1200"),
    2: (Resources(256, 1024, 4), "1920x1200"),
    1: (Resources(512, 2048, 4), "1920x1200"),
}
MAX_VGPUS = 7  # ids 1 to 7


class I915(VendorDriver):
    """A GPU whose vGPUs share its aperture, its graphics memory and its fences."""

    api = 1
    name = "i915"
    bus = "pci"
    mdev_driver = "intel_vgpu_mdev"
    mdev_driver_since = "5.19"
    name_since = "5.18"

    class Settings(Base):
        device_id: int = Field(default=0x591D, ge=0, le=0xFFFF, description="PCI device id")
        generation: int = Field(default=9, ge=1, le=99, description="of the GPU; GVT-g migrates gen8 and gen9")
        software_version: int = Field(default=1, ge=0, le=0xFFFFFFFF, description="of GVT-g; 0: no migration")
        aperture_mb: Literal[64, 128, 256, 512, 1024, 2048] = Field(default=512, description="low graphics memory")
        ggtt_mb: int = Field(default=4096, ge=64, le=1048576, description="size of the GGTT; the rest is high memory")
        fences: int = Field(default=32, ge=4, le=64)

    def pci(self, settings: Settings) -> PciIdentity:
        """A VGA controller; BAR 2 is the aperture."""
        bars = (Bar(16 << 20, bits64=True), Bar(settings.aperture_mb << 20, bits64=True, prefetchable=True))
        return PciIdentity(
            VENDOR,
            settings.device_id,
            0x030000,
            4,
            VENDOR,
            0x2212,
            bars=bars,
            irq=128,
            pcie=False,
            reset_methods=("flr",),
        )

    def types(self, parent: Parent) -> list[MdevType]:
        """Stops at the first type whose low memory exceeds what the host leaves (intel_gvt_init_vgpu_types)."""
        settings = _settings(parent)
        prefix = "V4" if settings.generation == 8 else "V5"
        found = []
        for count, (need, resolution) in TYPES.items():
            if need.low_gm > settings.aperture_mb - HOST.low_gm:
                break
            weight = 16 // count
            description = (
                f"low_gm_size: {need.low_gm}MB\nhigh_gm_size: {need.high_gm}MB\n"
                f"fence: {need.fence}\nresolution: {resolution}\nweight: {weight}"
            )
            name = f"GVTg_{prefix}_{count}"
            found.append(MdevType(name, name=name, description=description, weight=weight, data=need))
        return found

    def available(self, type: Type) -> int:
        """The least of what low memory, high memory and fences leave (6.1, intel_gvt_update_vgpu_types)."""
        return _need(type).shares(_left(type.parent))

    def claim(self, type: Type) -> None:
        """ENOSPC, for the first resource that is short, in the driver's order; then for the eighth vGPU's id."""
        need, left = _need(type), _left(type.parent)
        short = next((n for n in ("low_gm", "high_gm", "fence") if getattr(need, n) > getattr(left, n)), None)
        if short is not None:
            raise _no_space(short, getattr(need, short), getattr(left, short))
        if sum(one.bound for one in type.parent.types.values()) >= MAX_VGPUS:
            raise _no_space("vgpu_id", 1, 0)

    def probe(self, mdev: Mdev) -> None:
        """Gives the vGPU the lowest free id."""
        taken = {one.data for one in mdev.parent.mdevs}
        mdev.data = next(number for number in range(1, MAX_VGPUS + 2) if number not in taken)

    @show("intel_vgpu/vgpu_id")
    def vgpu_id(self, mdev: Mdev) -> str:
        """Decimal."""
        return f"{mdev.data}\n"

    # -- the handshake (drivers/gpu/drm/i915/gvt/migration.c of the series)

    def migration_string(self, device: Mdev | Type | Parent) -> str:
        """`<vendor>-<device>-<type>-<software version>`. ENODEV off gen8 and gen9, or without a software version."""
        settings, kind = _migratable(device)
        return f"{VENDOR:04x}-{settings.device_id:04x}-{kind.name}-{settings.software_version:08x}"

    def check(self, device: Mdev | Type | Parent, source: str) -> Verdict:
        """Compatible only when the strings are equal; the reasons in the series' order."""
        target = self.migration_string(device)
        if source == target:
            return Verdict()
        parts = source.split("-")
        if len(parts) < 5 or not _is_hex(parts[0], 4) or not _is_hex(parts[1], 4) or not _is_hex(parts[-1], 8):
            rule = "the string is not <vendor>-<device>-<type>-<software version>"
            return Verdict.no([Reason("i915-format", rule, source=source, target=target, side="source")])
        mine = target.split("-")
        pairs = (
            ("i915-hardware", "hardware", "-".join(parts[:2]), "-".join(mine[:2]), "choose a host with the same GPU"),
            ("i915-software-version", "software_version", parts[-1], mine[-1], "run the same GVT-g on both hosts"),
            ("i915-type", "type", "-".join(parts[2:-1]), "-".join(mine[2:-1]), "create a target of the source's type"),
        )
        return Verdict.no(
            Reason(code, "must be equal", parameter, theirs, ours, mend=mend)
            for code, parameter, theirs, ours, mend in pairs
            if theirs != ours
        )

    pages = [
        Page(
            code="i915-format",
            title="not a GVT-g string",
            what="The string is not of the form that GVT-g writes: vendor id, device id, type and software version, "
            "joined by dashes. It may come from another driver, or be cut off.",
            example="hello: wanted something like 8086-591d-i915-GVTg_V5_4-00000001",
            side="source",
            mend="Write what the source's migration_version reads; choose a source that is a GVT-g vGPU.",
            source="migration_version v5 (April 2020), patch 3/4, intel_gvt_verify_migration_version",
        ),
        Page(
            code="i915-hardware",
            title="another GPU",
            what="Vendor or device id of the two GPUs differ; GVT-g state is tied to the GPU it was saved on.",
            example="source 8086-591d, target 8086-1912",
            side="target",
            mend="Choose a host whose GPU has the source's PCI ids.",
            source="migration_version v5 (April 2020), patch 3/4",
        ),
        Page(
            code="i915-software-version",
            title="another version of GVT-g",
            what="The device state's format belongs to one software version; GVT-g loads only its own.",
            example="source 00000001, target 00000002",
            side="both",
            mend="Bring both hosts to the same version of GVT-g.",
            source="migration_version v5 (April 2020), patch 3/4",
        ),
        Page(
            code="i915-type",
            title="another vGPU type",
            what="Source and target vGPU have different types, so their memory and fences differ.",
            example="source i915-GVTg_V5_8, target i915-GVTg_V5_4",
            side="target",
            mend="Create the target with the source's type.",
            source="migration_version v5 (April 2020), patch 3/4",
        ),
    ]


def _settings(parent: Parent) -> I915.Settings:
    assert isinstance(parent.settings, I915.Settings)
    return parent.settings


def _need(type: Type) -> Resources:
    assert isinstance(type.spec.data, Resources)
    return type.spec.data


def _left(parent: Parent) -> Resources:
    settings = _settings(parent)
    low, high, fence = (
        settings.aperture_mb - HOST.low_gm,
        settings.ggtt_mb - settings.aperture_mb - HOST.high_gm,
        settings.fences - HOST.fence,
    )
    for kind in parent.types.values():
        need = _need(kind)
        low, high = low - kind.bound * need.low_gm, high - kind.bound * need.high_gm
        fence -= kind.bound * need.fence
    return Resources(low, high, fence)


def _no_space(resource: str, need: int, left: int) -> Refused:
    return Refused(
        "no-instances",
        errno.ENOSPC,
        parameter=resource,
        rule=f"the vGPU needs {need} of the GPU's {resource}, {left} are left",
        side="target",
        mend="remove a vGPU of this GPU, or choose another one",
    )


def _migratable(device: Mdev | Type | Parent) -> tuple[I915.Settings, Type]:
    if isinstance(device, Parent):
        raise Refused("cannot-migrate", errno.ENODEV, rule="the GPU itself does not migrate", side="both")
    settings = _settings(device.parent)
    if settings.generation not in (8, 9):
        rule = f"GVT-g migrates gen8 and gen9 only, this GPU is gen{settings.generation}"
        raise Refused("cannot-migrate", errno.ENODEV, rule=rule, side="target")
    if not settings.software_version:
        rule = "this GVT-g has no software version, so it does not migrate"
        raise Refused("cannot-migrate", errno.ENODEV, rule=rule, side="target")
    return settings, device.type


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and all(character in "0123456789abcdef" for character in text)
