"""vfio_ap: crypto adapters and domains for guests (drivers/s390/crypto/vfio_ap_ops.c; vfio-ap.rst)."""

from __future__ import annotations

from pydantic import Field

from mdevfs.vendor import (
    ApCard,
    ApIdentity,
    KernelError,
    Mdev,
    MdevType,
    Page,
    Parent,
    Refused,
    VendorDriver,
    ap_host,
    kstrtoull,
    show,
    store,
)
from mdevfs.vendor import Settings as Base
from vendor_drivers._vfio_ap_matrix import HOTPLUG_SINCE, Matrices, Matrix

AP_CONFIG_SINCE = "6.10"  # in 6.12 and not in 6.1; the release between them is not verified
MASK = "a mask as /sys/bus/ap has it, or changes to all ones such as -5,-0x10"
SOURCE = "drivers/s390/crypto/vfio_ap_ops.c (6.1, 6.12)"


class Card(Base):
    """One adapter."""

    adapter: int = Field(ge=0, le=255)
    domains: frozenset[int] = Field(default=frozenset(), description="that the host has on this adapter")
    hwtype: int = Field(default=14, ge=0, le=255, description="its generation, 14 for a CEX8")


class VfioAp(VendorDriver):
    """The AP matrix: each mdev holds adapters, domains and control domains, and with them whole queues."""

    api = 1
    name = "vfio_ap"
    bus = "ap"
    mdev_driver = "vfio_ap_mdev"
    max_instances = 65536
    types = [MdevType("passthrough", name="VFIO AP Passthrough Device", device_api="vfio-ap")]

    class Settings(Base):
        max_adapter_id: int = Field(default=63, ge=0, le=255, description="63, or what the machine says")
        max_domain_id: int = Field(default=15, ge=0, le=255, description="15, or what the machine says")
        apmask: str = Field(default="+0-255", description=f"adapters of the host: {MASK}")
        aqmask: str = Field(default="+0-255", description=f"domains of the host: {MASK}")
        cards: list[Card] = Field(default=[], description="adapters in the host's configuration")

    def ap(self, settings: Settings) -> ApIdentity:
        """As described."""
        return ApIdentity(
            settings.max_adapter_id,
            settings.max_domain_id,
            settings.apmask,
            settings.aqmask,
            tuple(ApCard(one.adapter, one.domains, one.hwtype) for one in settings.cards),
        )

    def probe(self, mdev: Mdev) -> None:
        """An empty matrix."""
        mdev.data = _matrices(mdev.parent).add(mdev.uuid)

    def remove(self, mdev: Mdev) -> None:
        """Its queues are free again."""
        _matrices(mdev.parent).drop(mdev.uuid)

    # -- attributes

    @store("assign_adapter")
    def assign_adapter(self, mdev: Mdev, data: bytes) -> None:
        """An adapter more: a number."""
        _matrix(mdev).assign("adapter", _number(data))

    @store("unassign_adapter")
    def unassign_adapter(self, mdev: Mdev, data: bytes) -> None:
        """An adapter less."""
        _matrix(mdev).unassign("adapter", _number(data))

    @store("assign_domain")
    def assign_domain(self, mdev: Mdev, data: bytes) -> None:
        """A usage domain more: a number."""
        _matrix(mdev).assign("domain", _number(data))

    @store("unassign_domain")
    def unassign_domain(self, mdev: Mdev, data: bytes) -> None:
        """A usage domain less."""
        _matrix(mdev).unassign("domain", _number(data))

    @store("assign_control_domain")
    def assign_control_domain(self, mdev: Mdev, data: bytes) -> None:
        """A control domain more: a number."""
        _matrix(mdev).assign("control_domain", _number(data))

    @store("unassign_control_domain")
    def unassign_control_domain(self, mdev: Mdev, data: bytes) -> None:
        """A control domain less."""
        _matrix(mdev).unassign("control_domain", _number(data))

    @show("control_domains")
    def control_domains(self, mdev: Mdev) -> str:
        """The control domains, a line each."""
        return _matrix(mdev).control_domains_text()

    @show("matrix")
    def matrix(self, mdev: Mdev) -> str:
        """The queues that were assigned, a line each."""
        return _matrix(mdev).matrix_text()

    @show("guest_matrix")
    def guest_matrix(self, mdev: Mdev) -> str:
        """The queues that the guest has, a line each."""
        return _matrix(mdev).guest_matrix_text()

    @show("ap_config", since=AP_CONFIG_SINCE)
    def ap_config(self, mdev: Mdev) -> str:
        """The masks of adapters, usage domains and control domains, all at once."""
        return _matrix(mdev).ap_config_text()

    @store("ap_config", since=AP_CONFIG_SINCE)
    def set_ap_config(self, mdev: Mdev, data: bytes) -> None:
        _matrix(mdev).write_ap_config(data)

    pages = [
        Page(
            code="vfio-ap-not-a-number",
            title="not an adapter's or a domain's number",
            what="An adapter or a domain is one number: decimal, with 0x hexadecimal, with 0 octal, and at most a "
            "newline after it. EINVAL for anything else, ERANGE for a number beyond 64 bits.",
            example='assign_adapter: a number in C\'s notation must be written (source "five")',
            side="source",
            mend="Write one number per write, such as 5 or 0x05.",
            source=SOURCE,
        ),
        Page(
            code="vfio-ap-no-such-adapter",
            title="above the largest adapter",
            what="The host's adapters end below this number. ENODEV; decided before anything else about the number.",
            example="adapter 0x40 is above the host's maximum 0x3f",
            side="target",
            mend="Read bus/ap/ap_max_adapter_id, and choose an adapter up to it.",
            source=SOURCE,
        ),
        Page(
            code="vfio-ap-no-such-domain",
            title="above the largest domain",
            what="The host's domains, control domains too, end below this number. ENODEV.",
            example="control domain 0x10 is above the host's maximum 0xf",
            side="target",
            mend="Read bus/ap/ap_max_domain_id, and choose a domain up to it.",
            source=SOURCE,
        ),
        Page(
            code="vfio-ap-reserved",
            title="a queue that the host keeps",
            what="With this adapter or domain the mdev would hold a queue whose adapter is in apmask and whose domain "
            "is in aqmask: the host's own drivers have it. EADDRNOTAVAIL; nothing was assigned.",
            example="queue 08.00ff is the host's: apmask and aqmask both have it",
            side="target",
            mend="Take the adapter out of bus/ap/apmask or the domain out of bus/ap/aqmask, or choose others.",
            source=SOURCE,
        ),
        Page(
            code="vfio-ap-in-use",
            title="a queue of another mdev",
            what="With this adapter or domain the mdev would hold a queue that another mdev holds. EADDRINUSE "
            "(vfio-ap.rst says EBUSY, the code does not); nothing was assigned.",
            example="queue 06.0004 is assigned to mdev 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001",
            side="target",
            mend="Unassign the adapter or the domain from the other mdev, or choose others.",
            source=SOURCE,
        ),
        Page(
            code="vfio-ap-malformed-masks",
            title="not three masks",
            what="ap_config takes adapters, domains and control domains at once: three masks of up to 64 hex digits, "
            "bit 0 leftmost, with commas between them. EINVAL; nothing changed.",
            example='2 of the 3 masks: adapters,domains,control domains (source "0x04,0x08")',
            side="source",
            mend="Write all three as ap_config reads them.",
            source="drivers/s390/crypto/vfio_ap_ops.c (6.12)",
        ),
        Page(
            code="vfio-ap-guest-fixed",
            title="in use, and this kernel has no hot plug",
            what=f"Before {HOTPLUG_SINCE} nothing can be assigned or unassigned while a guest uses the mdev. EBUSY.",
            example="guest vm1 uses the mdev, and before 6.0 that fixes what it holds",
            side="target",
            mend="Stop the guest first, or use a newer kernel.",
            source="drivers/s390/crypto/vfio_ap_ops.c before 6.0",
        ),
        Page(
            code="vfio-ap-guest-has-one",
            title="the guest has an mdev already",
            what="A guest may use one mdev of vfio_ap: opening a second one for it is EPERM.",
            example="guest vm1 uses mdev 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001, and a guest may use one",
            side="target",
            mend="Assign all the guest's adapters and domains to one mdev.",
            source="drivers/s390/crypto/vfio_ap_ops.c (6.12)",
        ),
    ]


def _matrices(parent: Parent) -> Matrices:
    """The mdevs of a matrix device; the AP bus hears of them with the first."""
    if parent.data is None:
        host = ap_host(parent)
        parent.data = host.user = Matrices(host, hotplug=parent.core.kernel.since(HOTPLUG_SINCE))
    assert isinstance(parent.data, Matrices)
    return parent.data


def _matrix(mdev: Mdev) -> Matrix:
    assert isinstance(mdev.data, Matrix)
    return mdev.data


def _number(data: bytes) -> int:
    """kstrtoul with base 0. Raises Refused EINVAL or ERANGE."""
    try:
        return kstrtoull(data)
    except KernelError as error:
        raise Refused(
            "vfio-ap-not-a-number",
            error.errno,
            rule="a number in C's notation must be written",
            source=data.decode("latin-1"),
            side="source",
            mend="write one number such as 5 or 0x05",
        ) from None
