"""The AP bus with its cards and queues, and the matrix device (drivers/s390/crypto/ap_bus.c, vfio_ap_drv.c)."""

from __future__ import annotations

import errno
from collections.abc import Set
from typing import TYPE_CHECKING, Protocol

from mdevfs.bus.ap_identity import ApCard, ApIdentity, Apqn, MaskName, format_mask, parse_mask
from mdevfs.bus.core import Core
from mdevfs.bus.device import Device
from mdevfs.bus.root import RootDevice
from mdevfs.bus.subsystem import Bus, Driver, Module
from mdevfs.errors import InputError, KernelError
from mdevfs.sysfs.entries import Attribute, Entry

if TYPE_CHECKING:
    from mdevfs.bus.kobject import Kobject

FEATURES = "guest_matrix hotplug ap_config"
# In 6.12 and not in 6.1; the release between them is not verified.
FEATURES_SINCE = "6.10"


class ApUser(Protocol):
    """vfio_ap's mdevs, as the AP bus asks about them."""

    def in_use(self, adapters: Set[int], domains: Set[int]) -> bool:
        """Whether an mdev holds a queue of one of these adapters and one of these domains."""

    def status(self, apqn: Apqn) -> str:
        """`unassigned`, `assigned` or `in use`."""


class ApHost(Protocol):
    """The AP bus, as vfio_ap's mdevs ask about it; `user` answers what it asks in return."""

    user: ApUser | None

    @property
    def max_adapter_id(self) -> int: ...

    @property
    def max_domain_id(self) -> int: ...

    @property
    def adapters(self) -> Set[int]:
        """In the host's configuration."""

    @property
    def domains(self) -> Set[int]:
        """In the host's configuration."""

    def reserved_for_host(self, apqn: Apqn) -> bool:
        """Whether apmask and aqmask both have the queue."""

    def bound_to_vfio_ap(self, apqn: Apqn) -> bool:
        """Whether the queue is there and vfio_ap has it."""


class Card(Device):
    """An adapter: `devices/ap/card05`. `hwtype` is its generation, 14 for a CEX8."""

    __slots__ = ("adapter", "hwtype")

    def __init__(self, adapter: int, hwtype: int, above: Kobject, bus: Bus) -> None:
        super().__init__(f"card{adapter:02x}", above, bus)
        self.adapter = adapter
        self.hwtype = hwtype

    def uevent_keys(self) -> dict[str, str]:
        about = {"DEV_TYPE": f"{self.hwtype:04X}", "MODALIAS": f"ap:t{self.hwtype:02X}"}
        return {"DEVTYPE": "ap_card"} | super().uevent_keys() | about


class Queue(Device):
    """One domain of an adapter: `devices/ap/card05/05.0047`."""

    __slots__ = ("ap", "apqn")

    def __init__(self, apqn: Apqn, card: Card, ap: ApCore) -> None:
        super().__init__(f"{apqn[0]:02x}.{apqn[1]:04x}", card, ap.bus)
        self.apqn = apqn
        self.ap = ap

    def uevent_keys(self) -> dict[str, str]:
        return {"DEVTYPE": "ap_queue"} | super().uevent_keys()

    def entries(self) -> dict[str, Entry]:
        entries = super().entries()
        if self.ap.bound_to_vfio_ap(self.apqn):
            entries["status"] = Attribute(lambda: f"{self.ap.status(self.apqn)}\n")
        return entries


class ApDriver(Driver):
    """A driver of cards or of queues; `default` where it serves the host itself."""

    __slots__ = ("ap", "default", "kind")

    def __init__(self, name: str, ap: ApCore, kind: type[Device], module: Module, default: bool) -> None:
        super().__init__(name, ap.bus, module)
        self.ap = ap
        self.kind = kind
        self.default = default

    def matches(self, device: Device) -> bool:
        return isinstance(device, self.kind)

    async def probe(self, device: Device) -> None:
        """ap_device_probe: queues that are reserved for the host go to default drivers, the others do not: ENODEV."""
        if isinstance(device, Queue) and self.ap.reserved_for_host(device.apqn) != self.default:
            raise KernelError(errno.ENODEV)


class ApBus(Bus):
    """`bus/ap` with its own files."""

    __slots__ = ("ap",)

    def __init__(self, ap: ApCore) -> None:
        super().__init__("ap", ap.core)
        self.ap = ap

    def entries(self) -> dict[str, Entry]:
        return super().entries() | {
            "ap_max_adapter_id": Attribute(lambda: f"{self.ap.max_adapter_id}\n"),
            "ap_max_domain_id": Attribute(lambda: f"{self.ap.max_domain_id}\n"),
            "apmask": self._mask("apmask"),
            "aqmask": self._mask("aqmask"),
        }

    def _mask(self, name: MaskName) -> Attribute:
        return Attribute(lambda: f"{format_mask(self.ap.masks[name])}\n", lambda data: self.ap.store_mask(name, data))


class MatrixDriver(Driver):
    """`bus/matrix/drivers/vfio_ap`; it has no owner, and suppress_bind_attrs: neither `module` nor bind and unbind."""

    __slots__ = ()

    def matches(self, device: Device) -> bool:
        return True

    def entries(self) -> dict[str, Entry]:
        return {name: entry for name, entry in super().entries().items() if name not in ("bind", "unbind")}


class MatrixDevice(Device):
    """`devices/vfio_ap/matrix`, the parent of vfio_ap's mdevs; `ap` answers what they ask of the host."""

    __slots__ = ("ap",)

    def __init__(self, above: Kobject, bus: Bus, ap: ApCore) -> None:
        super().__init__("matrix", above, bus)
        self.ap = ap

    def entries(self) -> dict[str, Entry]:
        entries = super().entries()
        if self.core.kernel.since(FEATURES_SINCE):
            entries["features"] = Attribute(lambda: f"{FEATURES}\n")
        return entries


class ApCore:
    """The AP bus of one host: `devices/ap`, `bus/ap`, and who owns which queue.

    `masks` begin as the identity has them. Its cards appear with `add_cards`. Raises InputError with every mistake.
    """

    def __init__(self, core: Core, identity: ApIdentity) -> None:
        if wrong := identity.mistakes():
            raise InputError(wrong)
        self.core = core
        self.identity = identity
        self.masks = identity.masks()
        self.cards: dict[int, Card] = {}
        self.queues: dict[Apqn, Queue] = {}
        self.user: ApUser | None = None
        self.vfio_ap: ApDriver | None = None
        self.bus = ApBus(self)
        core.buses["ap"] = self.bus
        core.tree.changed("bus", "ap")
        # ap_bus_init sets the bus after root_device_register: events, but no link.
        self.root = RootDevice("ap", core, speaks_as="ap")
        self.root.register()
        module = core.module("zcrypt_cex4")
        self.bus.add_driver(ApDriver("cex4card", self, Card, module, default=True))
        self.bus.add_driver(ApDriver("cex4queue", self, Queue, module, default=True))

    # -- what the host has

    @property
    def max_adapter_id(self) -> int:
        """The largest that an adapter can have."""
        return self.identity.max_adapter_id

    @property
    def max_domain_id(self) -> int:
        """The largest that a domain can have."""
        return self.identity.max_domain_id

    async def add_cards(self) -> None:
        """The identity's cards appear."""
        for card in self.identity.cards:
            await self.add_card(card)

    async def add_card(self, described: ApCard) -> Card:
        """A card and its queues appear and are bound. Raises InputError with every mistake."""
        adapter = described.adapter
        wrong = [] if adapter not in self.cards else [f"adapter {adapter:#x} is there already"]
        if wrong := wrong + self.identity.card_mistakes(described):
            raise InputError(wrong)
        card = self.cards[adapter] = Card(adapter, described.hwtype, self.root, self.bus)
        await self._appear(card)
        for domain in sorted(described.domains):
            queue = self.queues[adapter, domain] = Queue((adapter, domain), card, self)
            await self._appear(queue)
        return card

    async def _appear(self, device: Device) -> None:
        device.register()
        if self.bus.autoprobe:
            await self.bus.attach(device)

    async def load_vfio_ap(self, user: ApUser | None = None) -> MatrixDevice:
        """vfio_ap_init: the matrix device, and the driver of the queues that the host does not keep.

        `user` may also be set later. Raises InputError when it is loaded already.
        """
        if self.vfio_ap is not None:
            raise InputError("a host has one matrix device, and this host's is there already")
        module = self.core.module("vfio_ap")
        root = RootDevice("vfio_ap", self.core, module=module)
        root.register()
        matrix_bus = self.core.bus("matrix")
        matrix = MatrixDevice(root, matrix_bus, self)
        matrix.register()
        driver = MatrixDriver("vfio_ap", matrix_bus)
        matrix_bus.add_driver(driver)
        await driver.bind(matrix)
        self.user = user
        self.vfio_ap = ApDriver("vfio_ap", self, Queue, module, default=False)
        self.bus.add_driver(self.vfio_ap)
        await self._revise_bindings()
        return matrix

    # -- what vfio_ap's mdevs ask

    def reserved_for_host(self, apqn: Apqn) -> bool:
        """Whether apmask and aqmask keep this queue for the host's own drivers."""
        return apqn[0] in self.masks["apmask"] and apqn[1] in self.masks["aqmask"]

    def bound_to_vfio_ap(self, apqn: Apqn) -> bool:
        """Whether the queue is there and vfio_ap has it."""
        queue = self.queues.get(apqn)
        return queue is not None and queue.driver is not None and queue.driver is self.vfio_ap

    @property
    def adapters(self) -> Set[int]:
        """The adapters in the host's configuration."""
        return self.cards.keys()

    @property
    def domains(self) -> Set[int]:
        """The domains in the host's configuration."""
        return {domain for _, domain in self.queues}

    def status(self, apqn: Apqn) -> str:
        """The text of a queue's `status`."""
        return self.user.status(apqn) if self.user is not None else "unassigned"

    # -- who owns what

    async def store_mask(self, name: MaskName, data: bytes) -> None:
        """A write to apmask or aqmask. Raises KernelError EINVAL, or EBUSY where an mdev holds a queue that the host
        would take; then nothing has changed."""
        old = self.masks[name]
        new = parse_mask(data, old)
        if new == old:
            return
        if taken := new - old:
            wanted = self.masks | {name: taken}
            if self.user is not None and self.user.in_use(wanted["apmask"], wanted["aqmask"]):
                raise KernelError(errno.EBUSY)
        self.masks[name] = new
        await self._revise_bindings()
        # ap_send_mask_changed_uevent really ends the value with a newline.
        self.root.send("change", {name.upper(): f"{format_mask(new)}\n"})

    async def _revise_bindings(self) -> None:
        """ap_bus_revise_bindings: queues that changed hands change drivers; unbound ones are offered again."""
        for queue in self.queues.values():
            driver = queue.driver
            if isinstance(driver, ApDriver) and driver.default != self.reserved_for_host(queue.apqn):
                await driver.unbind(queue)
            await self.bus.attach(queue)
