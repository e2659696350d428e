"""Intel QAT, the 4xxx: crypto and compression, shared as virtual functions (drivers/vfio/pci/qat of Linux 6.12).

The services as a set are the migration_version discussion's (2020). What the kernel's driver checks of a 4xxx VF's
state is here as it fits: `extdc` a subset, `svcmap` equal, the state's version not above the target's. Its rate limits,
which a target must not undercut, are left out.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdevfs.vendor import (
    U16,
    U32,
    U64,
    Bar,
    DeviceModel,
    InputError,
    Int,
    MdevType,
    Parent,
    PciIdentity,
    Set,
    SriovCapability,
    Str,
    Struct,
    VendorDriver,
    View,
    VMState,
    When,
    device_program,
)
from mdevfs.vendor import Settings as Base

SERVICES = ("asym", "sym", "dc")
MAX_VFS = 16
NONE: frozenset[str] = frozenset()
Word = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
RING_PAIR = VMState(
    "qat-ring-pair",
    fields=[
        U64("base", num=2, doc="of the request and the response ring"),
        U32("config", num=2),
        U16("head", num=2),
        U16("tail", num=2),
        U32("interrupts", doc="those that are switched on"),
    ],
)


def _done(service: str) -> VMState:
    """What a service has done: sent where the device has the service, so that targets with more services load it."""

    def needed(view: View) -> bool:
        services = view.values["services"]
        return isinstance(services, frozenset) and service in services

    return VMState(
        f"qat-vf/{service}",
        fields=[U64(f"{service}_requests"), U64(f"{service}_errors")],
        needed=When(f"while `services` has {service}", needed),
    )


class Qat(VendorDriver):
    """A QAT 4xxx; each of its virtual functions is a parent of one mdev, with the services of the whole device."""

    api = 1
    name = "qat"
    bus = "pci"
    model = DeviceModel(
        "intel.com/qat/4xxx-vf",
        params=[
            Set("services", frozenset({"asym", "sym"}), allowed=SERVICES, doc="crypto and compression it can do"),
            Set("extdc", NONE, NONE, doc="extended compression capabilities"),
            Str("svcmap", "", "", doc="the service of each ring pair, where it is not the driver's default"),
            Int("state-version", 1, 1, allowed=(1,), doc="of the saved state's preamble"),
        ],
    )

    state = VMState(
        "qat-vf",
        fields=[U32("misc", num=4, doc="control of the whole VF"), Struct("ring_pairs", of=RING_PAIR, num=4)],
        subsections=[_done(service) for service in SERVICES],
    )
    variants = ({}, {"services": ["dc"]}, {"services": ["asym", "dc", "sym"], "extdc": ["chaining"]})

    class Settings(Base):
        services: frozenset[Literal["asym", "sym", "dc"]] = Field(
            default=frozenset({"asym", "sym"}), min_length=1, description="what the device is configured to do"
        )
        extdc: frozenset[Word] = Field(default=NONE, description="words for extended compression capabilities")
        svcmap: str = Field(
            default="",
            pattern=r"^((asym|sym|dc)(\.(asym|sym|dc)){3})?$",
            description="services of a VF's four ring pairs, such as asym.sym.asym.sym; empty: the driver's default",
        )

    def pci(self, settings: Settings) -> PciIdentity:
        """The physical function."""
        bars = (Bar(512 << 10, prefetchable=True, bits64=True), Bar(4 << 20, bits64=True))
        return PciIdentity(0x8086, 0x4940, 0x0B4000, 0x40, 0x8086, 0x0000, bars=bars)

    def sriov(self, settings: Settings, total: int) -> SriovCapability:
        """Raises InputError for more VFs than there can be."""
        if total > MAX_VFS:
            raise InputError(f"sriov.total: {total} is more than the {MAX_VFS} VFs of a 4xxx")
        return SriovCapability(total, 1, 1, 0x4941, vf_bars=(Bar(64 << 10, bits64=True),))

    def is_parent(self, settings: Settings, *, vf: bool) -> bool:
        """The virtual functions, never the physical one."""
        return vf

    def types(self, parent: Parent) -> list[MdevType]:
        """One, whose parameters the settings fix."""
        settings = parent.settings
        assert isinstance(settings, Qat.Settings)
        return [
            MdevType(
                "vf",
                description="a whole VF, four ring pairs",
                instances=1,
                params={
                    "services": frozenset[str](settings.services),
                    "extdc": settings.extdc,
                    "svcmap": settings.svcmap,
                },
            )
        ]


if __name__ == "__main__":
    device_program(Qat)
