"""Intel GVT-g, as in the migration_version series (v5, April 2020) and drivers/gpu/drm/i915/gvt of Linux 6.1."""

from __future__ import annotations

import errno
from typing import Literal

from attrs import evolve, frozen
from pydantic import Field

from mdevfs.vendor import (
    Bar,
    DeviceModel,
    Int,
    Mdev,
    MdevType,
    Parent,
    PciIdentity,
    Reason,
    Refused,
    Str,
    Type,
    VendorDriver,
    Verdict,
    show,
)
from mdevfs.vendor import Settings as Base
from vendor_drivers._gvtg import HOST, PAGES, TYPES, VENDOR, Resources, Said, differences, parse, said

MAX_VGPUS = 7  # ids 1 to 7
Suffix = Literal["8", "4", "2", "1"]


class Unit(Base):
    """What one unit of a type takes, where the GPU does not share itself as the kernel has it."""

    high_gm_mb: int | None = Field(default=None, ge=1, le=1048576)
    fence: int | None = Field(default=None, ge=1, le=64)
    resolution: str | None = Field(default=None, pattern=r"^[0-9]{1,5}x[0-9]{1,5}$")


@frozen
class VGpu:
    """A vGPU's id, and what it takes."""

    id: int
    takes: Resources


class I915(VendorDriver):
    """A GPU whose vGPUs share its aperture, its graphics memory and its fences."""

    api = 1
    name = "i915"
    bus = "pci"
    mdev_driver = "intel_vgpu_mdev"
    mdev_driver_since = "5.19"
    name_since = "5.18"
    pages = PAGES
    # For the arguments of create; in the string, units are part of the vGPU's resources.
    model = DeviceModel(
        "intel.com/gvt-g",
        params=[
            # All that the check looks at, so that nobody predicts a yes that the write refuses; types fix these four.
            Str("gpu", "8086-591d", doc="PCI vendor and device id", fixed=True),
            Int("software-version", 1, doc="of GVT-g", fixed=True),
            Str("type", "i915-GVTg_V5_4", doc="the vGPU type", fixed=True),
            Str("unit", "128-512-4-1920x1200", doc="low_gm, high_gm (MB), fences, resolution of one unit", fixed=True),
            Int("aggregator", 1, off=1, allowed=range(1, 17), doc="units of the type in one vGPU", fixed=True),
        ],
    )

    class Settings(Base):
        device_id: int = Field(default=0x591D, ge=0, le=0xFFFF, description="PCI device id")
        generation: int = Field(default=9, ge=1, le=99, description="of the GPU; GVT-g migrates gen8 and gen9")
        software_version: int = Field(default=1, ge=0, le=0xFFFFFFFF, description="of GVT-g; 0: no migration")
        aperture_mb: Literal[64, 128, 256, 512, 1024, 2048] = Field(default=512, description="low graphics memory")
        ggtt_mb: int = Field(default=4096, ge=64, le=1048576, description="size of the GGTT; the rest is high memory")
        fences: int = Field(default=32, ge=4, le=64)
        types: dict[Suffix, Unit] = Field(
            default={}, description="what types take, by suffix, where not as the kernel's"
        )

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
        for count, kernels in TYPES.items():
            need = _unit(settings, count, kernels)
            if need.low_gm > settings.aperture_mb - HOST.low_gm:
                break
            weight = 16 // count
            description = (
                f"low_gm_size: {need.low_gm}MB\nhigh_gm_size: {need.high_gm}MB\n"
                f"fence: {need.fence}\nresolution: {need.resolution}\nweight: {weight}"
            )
            name = f"GVTg_{prefix}_{count}"
            params: dict[str, int | str] = {
                "gpu": f"{VENDOR:04x}-{settings.device_id:04x}",
                "software-version": settings.software_version,
                "type": f"{self.name}-{name}",
                "unit": f"{need.low_gm}-{need.high_gm}-{need.fence}-{need.resolution}",
            }
            found.append(MdevType(name, name=name, description=description, weight=weight, params=params, data=need))
        return found

    def available(self, type: Type) -> int:
        """The least of what low memory, high memory and fences leave (6.1, intel_gvt_update_vgpu_types)."""
        return _need(type).shares(_left(type.parent))

    def claim(self, type: Type) -> None:
        """Nothing yet: how much is needed is known when the mdev comes."""

    def probe(self, mdev: Mdev) -> None:
        """Gives the vGPU its units and the lowest free id. ENOSPC, for the first resource that is short, in the
        driver's order; then for the eighth vGPU's id."""
        units = mdev.params.get("aggregator", 1)
        assert isinstance(units, int)
        need, left = _need(mdev.type).times(units), _left(mdev.parent)
        short = next((n for n in ("low_gm", "high_gm", "fence") if getattr(need, n) > getattr(left, n)), None)
        if short is not None:
            raise _no_space(short, getattr(need, short), getattr(left, short))
        taken = {one.id for one in _vgpus(mdev.parent)}
        number = next((number for number in range(1, MAX_VGPUS + 1) if number not in taken), None)
        if number is None:
            raise _no_space("vgpu_id", 1, 0)
        mdev.data = VGpu(number, need)

    def remove(self, mdev: Mdev) -> None:
        """Gives all of it back."""
        mdev.data = None

    @show("intel_vgpu/vgpu_id")
    def vgpu_id(self, mdev: Mdev) -> str:
        """Decimal."""
        assert isinstance(mdev.data, VGpu)
        return f"{mdev.data.id}\n"

    # -- the handshake (drivers/gpu/drm/i915/gvt/migration.c of the series)

    def migration_string(self, device: Mdev | Type | Parent) -> str:
        """`<vendor>-<device>-<type>-<software version>`; a vGPU that is not one of the kernel's units also says what it
        takes (ours). ENODEV off gen8 and gen9, or without a software version."""
        return _said(device).write()

    def check(self, device: Mdev | Type | Parent, source: str) -> Verdict:
        """Compatible when the strings are equal, or all resources of aggregated vGPUs; reasons in the series' order."""
        target = _said(device)
        if source == target.write():
            return Verdict()
        theirs = parse(source)
        if theirs is None:
            rule = "the string is not <vendor>-<device>-<type>-<software version>"
            return Verdict.no([Reason("i915-format", rule, source=source, target=target.write(), side="source")])
        return Verdict.no(differences(theirs, target))


def _settings(parent: Parent) -> I915.Settings:
    assert isinstance(parent.settings, I915.Settings)
    return parent.settings


def _need(type: Type) -> Resources:
    assert isinstance(type.spec.data, Resources)
    return type.spec.data


def _unit(settings: I915.Settings, count: int, kernels: Resources) -> Resources:
    own = next((unit for suffix, unit in settings.types.items() if int(suffix) == count), Unit())
    return evolve(
        kernels,
        high_gm=own.high_gm_mb or kernels.high_gm,
        fence=own.fence or kernels.fence,
        resolution=own.resolution or kernels.resolution,
    )


def _vgpus(parent: Parent) -> list[VGpu]:
    return [one.data for one in parent.mdevs if isinstance(one.data, VGpu)]


def _left(parent: Parent) -> Resources:
    settings = _settings(parent)
    left = Resources(settings.aperture_mb, settings.ggtt_mb - settings.aperture_mb, settings.fences).less(HOST)
    for vgpu in _vgpus(parent):
        left = left.less(vgpu.takes)
    return left


def _no_space(resource: str, need: int, left: int) -> Refused:
    return Refused(
        "no-instances",
        errno.ENOSPC,
        parameter=resource,
        rule=f"the vGPU needs {need} of the GPU's {resource}, {left} are left",
        side="target",
        mend="remove a vGPU of this GPU, or choose another one",
    )


def _said(device: Mdev | Type | Parent) -> Said:
    if isinstance(device, Parent):
        raise Refused("cannot-migrate", errno.ENODEV, rule="the GPU itself does not migrate", side="both")
    settings = _settings(device.parent)
    if settings.generation not in (8, 9):
        rule = f"GVT-g migrates gen8 and gen9 only, this GPU is gen{settings.generation}"
        raise Refused("cannot-migrate", errno.ENODEV, rule=rule, side="target")
    if not settings.software_version:
        rule = "this GVT-g has no software version, so it does not migrate"
        raise Refused("cannot-migrate", errno.ENODEV, rule=rule, side="target")
    units = device.params.get("aggregator", 1)
    assert isinstance(units, int)
    return said(settings.device_id, device.type.name, settings.software_version, units, _need(device.type))
