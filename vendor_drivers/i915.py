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
    Values,
    VendorDriver,
    Verdict,
    show,
)
from mdevfs.vendor import Settings as Base
from vendor_drivers._gvtg import HOST, PAGES, SHARED, TYPES, VENDOR, Resources, Said, differences, parse, said
from vendor_drivers._gvtg_state import STATE

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
    # What the check looks at, no less and no more: types, and units of one, are ways to ask for resources.
    model = DeviceModel(
        "intel.com/gvt-g",
        params=[
            Str("gpu", "8086-591d", doc="PCI vendor and device id", fixed=True),
            Int("generation", 9, doc="of the GPU", fixed=True),
            Int("software-version", 1, doc="of GVT-g", fixed=True),
            Str("resources", TYPES[4].text, doc="all that it takes; aggregator=N at creation: N units of the type"),
        ],
    )

    state = STATE
    variants = (
        {},
        {"device_id": 0x1912},
        {"software_version": 2},
        {"software_version": 0},
        {
            "aperture_mb": 1024,
            "types": {"4": {"fence": 2}, "8": {"fence": 1, "high_gm_mb": 256, "resolution": "1920x1200"}},
        },
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

    def device_model(self, settings: Settings) -> DeviceModel | None:
        """None where it does not migrate."""
        return None if _blocker(settings) else self.model

    def types(self, parent: Parent) -> list[MdevType]:
        """Stops at the first type whose low memory exceeds what the host leaves (intel_gvt_init_vgpu_types)."""
        settings = _settings(parent)
        prefix = "V4" if settings.generation == 8 else "V5"
        found = []
        for count, kernels in TYPES.items():
            need = _unit(settings, count, kernels)
            if need.low_gm_size > settings.aperture_mb - HOST.low_gm_size:
                break
            weight = 16 // count
            description = (
                f"low_gm_size: {need.low_gm_size}MB\nhigh_gm_size: {need.high_gm_size}MB\n"
                f"fence: {need.fence}\nresolution: {need.resolution}\nweight: {weight}"
            )
            name = f"GVTg_{prefix}_{count}"
            params: dict[str, int | str] = {
                "gpu": f"{VENDOR:04x}-{settings.device_id:04x}",
                "generation": settings.generation,
                "software-version": settings.software_version,
                "resources": need.text,
            }
            most = max(1, need.shares(_of_gpu(settings)))
            units = {"aggregator": {str(n): {"resources": need.times(n).text} for n in range(1, most + 1)}}
            found.append(
                MdevType(
                    name,
                    name=name,
                    description=description,
                    weight=weight,
                    params=params,
                    arguments=units,
                    data=need,
                )
            )
        return found

    def available(self, type: Type) -> int:
        """The least of what low memory, high memory and fences leave (6.1, intel_gvt_update_vgpu_types)."""
        return _need(type).shares(_left(type.parent))

    def claim(self, type: Type) -> None:
        """Nothing yet: how much is needed is known when the mdev comes."""

    def probe(self, mdev: Mdev) -> None:
        """Gives the vGPU its resources, then the lowest free id: ENOSPC for the eighth."""
        need = _fitting(mdev, mdev.params)
        taken = {one.id for one in _vgpus(mdev.parent)}
        number = next((number for number in range(1, MAX_VGPUS + 1) if number not in taken), None)
        if number is None:
            raise _no_space("vgpu_id", 1, 0)
        mdev.data = VGpu(number, need)

    def configure(self, mdev: Mdev, params: Values) -> None:
        """Gives the vGPU other resources: what it has, it may keep."""
        assert isinstance(mdev.data, VGpu)
        mdev.data = evolve(mdev.data, takes=_fitting(mdev, params))

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
        high_gm_size=own.high_gm_mb or kernels.high_gm_size,
        fence=own.fence or kernels.fence,
        resolution=own.resolution or kernels.resolution,
    )


def _vgpus(parent: Parent) -> list[VGpu]:
    return [one.data for one in parent.mdevs if isinstance(one.data, VGpu)]


def _of_gpu(settings: I915.Settings) -> Resources:
    """What the host leaves to vGPUs."""
    return Resources(settings.aperture_mb, settings.ggtt_mb - settings.aperture_mb, settings.fences).less(HOST)


def _left(parent: Parent, but: Mdev | None = None) -> Resources:
    """What vGPUs, one not counted, leave."""
    left = _of_gpu(_settings(parent))
    for vgpu in _vgpus(parent):
        left = left.less(vgpu.takes) if but is None or vgpu is not but.data else left
    return left


def _fitting(mdev: Mdev, params: Values) -> Resources:
    """The resources that these parameters ask for. Raises Refused (ENOSPC) for the first that is short, in the
    driver's order."""
    need, left = Resources.parse(str(params["resources"])), _left(mdev.parent, but=mdev)
    for name in SHARED:
        if getattr(need, name) > getattr(left, name):
            raise _no_space(name, getattr(need, name), getattr(left, name))
    return need


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
    settings, unit = _settings(device.parent), _need(device.type)
    if blocker := _blocker(settings):
        raise Refused("cannot-migrate", errno.ENODEV, rule=blocker, side="target")
    takes = device.data.takes if isinstance(device, Mdev) and isinstance(device.data, VGpu) else unit
    return said(settings.device_id, device.type.name, settings.software_version, unit, takes)


def _blocker(settings: I915.Settings) -> str | None:
    """Why vGPUs do not migrate."""
    if settings.generation not in (8, 9):
        return f"GVT-g migrates gen8 and gen9 only, this GPU is gen{settings.generation}"
    return None if settings.software_version else "this GVT-g has no software version, so it does not migrate"
