"""The base class of vendor drivers, and the decorators that make attributes of methods."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from attrs import frozen
from pydantic import BaseModel, ConfigDict

from mdevfs.bus.ap import ApHost, MatrixDevice
from mdevfs.bus.ap_identity import ApIdentity
from mdevfs.bus.css import SubchannelIdentity
from mdevfs.bus.pci_resource import PciIdentity, SriovCapability
from mdevfs.mdev.mdev import Mdev
from mdevfs.mdev.parent import Parent
from mdevfs.mdev.types import MdevType, Type
from mdevfs.migration.catalogue import Page
from mdevfs.migration.machine import UNVERSIONED, VERSIONED, Broken, Machine, Properties, Tier
from mdevfs.migration.model import DeviceModel, Values
from mdevfs.migration.verdict import Reason, Refused, Verdict
from mdevfs.state.description import VMState
from mdevfs.state.drive import randomize, values

API = 1
BUSES = ("virtual", "pci", "css", "ap")

Owner = Literal["mdev", "type", "parent"]
Device = Mdev | Type | Parent
Hook = TypeVar("Hook", bound=Callable[..., object])


class Settings(BaseModel):
    """Base of a driver's `Settings`: the keys of `settings = {...}` in host.toml, unknown ones refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@frozen
class AttributeMark:
    """What `show` and `store` leave on a method."""

    kind: Literal["show", "store"]
    path: str
    owner: Owner
    since: str
    mode: int | None


def _mark(kind: Literal["show", "store"], path: str, of: Owner, since: str, mode: int | None) -> Callable[[Hook], Hook]:
    def decorate(method: Hook) -> Hook:
        method.__dict__["__mdevfs_attribute__"] = AttributeMark(kind, path, of, since, mode)
        return method

    return decorate


def show(path: str, *, of: Owner = "mdev", since: str = "0.0", mode: int | None = None) -> Callable[[Hook], Hook]:
    """Makes a method `(self, device) -> str` the text of the attribute at `path` ("vendor/sample").

    `of` says whose attribute it is, `since` from which kernel on it is there. Alone the attribute is 0444, together
    with a `store` of the same path 0644.
    """
    return _mark("show", path, of, since, mode)


def store(path: str, *, of: Owner = "mdev", since: str = "0.0", mode: int | None = None) -> Callable[[Hook], Hook]:
    """Makes a method `(self, device, data: bytes) -> None` take what is written to `path`. Alone it is 0200."""
    return _mark("store", path, of, since, mode)


def blocking(method: Hook) -> Hook:
    """Says that a hook may take long: it runs in a worker thread, and the rest of the tree goes on meanwhile."""
    method.__dict__["__mdevfs_blocking__"] = True
    return method


class VendorDriver:
    """A vendor driver. One instance serves a host; what belongs to one parent is kept in `parent.data`.

    A driver declares `api`, `name` and `types`; all else has a default. Hooks say no with `raise Refused(...)`; any
    other exception becomes EIO for that one call and a traceback in the log.
    """

    api: ClassVar[int] = 0
    name: ClassVar[str] = ""
    bus: ClassVar[str] = "virtual"
    types: ClassVar[Sequence[MdevType] | Callable[..., Sequence[MdevType]]] = ()
    """The types, or a method `types(self, parent)`."""
    model: ClassVar[DeviceModel | None] = None
    state: ClassVar[VMState | None] = None
    """The description of its devices' state. A driver that migrates without one has devices of no state."""
    guest_address: ClassVar[str] = ""
    """The bus address that stands before the section's name in a stream ("0000:00:03.0"), as QEMU's do; none: ""."""
    cautions: ClassVar[Mapping[str, str]] = {}
    """Parameters that the handshake is stricter about than the load of the bytes alone, each with the reason."""
    migration_features: ClassVar[Sequence[str]] = ("stop-copy", "p2p", "pre-copy")
    """What its devices offer of VFIO migration (linux/vfio.h, VFIO_MIGRATION_*); `stop-copy` is always there."""
    variants: ClassVar[Sequence[Mapping[str, object]]] = ({},)
    """Settings, from the oldest to the newest, whose devices `mdevfs driver test` holds against each other."""
    Settings: ClassVar[type[BaseModel]] = Settings
    pages: ClassVar[Sequence[Page]] = ()
    """The catalogue's pages of the codes that this driver refuses with."""
    machine_types: ClassVar[Mapping[str, Properties]] = {}
    """Machine types, each with all the compat properties that it sets ("e1000.mitigation": "off"); see `chain`."""
    tiers: ClassVar[Mapping[str, Tier]] = {}
    """Promises that differ from the rule: versioned for a known machine type, unversioned for any other."""
    broken: ClassVar[Sequence[Broken]] = ()
    """Releases that are known to migrate wrongly."""
    max_instances: ClassVar[int | None] = None
    """Mdevs per parent, all types together, counted by the core: EUSERS beyond."""
    pool: ClassVar[int | None] = None
    """What the types' weights of one parent share, counted by the driver: ENOSPC beyond."""
    mdev_driver: ClassVar[str] = ""
    """The name below bus/mdev/drivers; the driver's own where empty."""
    mdev_driver_since: ClassVar[str] = "0.0"
    """Older kernels bind its mdevs to `vfio_mdev`."""
    name_since: ClassVar[str] = "0.0"
    """The kernel from which on types have a `name` file."""

    def available(self, type: Type) -> int:
        """How many more mdevs of this type the parent could hold."""
        parent, spec = type.parent, type.spec
        if self.max_instances is not None:
            return max(0, self.max_instances - parent.count)
        left = (self.pool - parent.used) // spec.weight if self.pool is not None else None
        if spec.instances is not None and (left is None or spec.instances - type.bound < left):
            left = spec.instances - type.bound
        return 1 if left is None else left if left > 0 else 0

    def claim(self, type: Type) -> None:
        """Raises Refused when there is no room for one more; called before `probe`, not where the core counts."""
        if self.available(type) < 1:
            raise Refused(
                "no-instances",
                errno.ENOSPC,
                rule=f"{type.parent.name} has no instance of {type.name} left",
                target="0",
                parameter="available_instances",
                side="target",
                mend="remove an mdev that shares its resources, or choose another parent",
            )

    def probe(self, mdev: Mdev) -> None:
        """Makes an mdev; whatever it raises, nothing was created."""

    def remove(self, mdev: Mdev) -> None:
        """Unmakes an mdev; whatever it raises, the mdev stays."""

    def configure(self, mdev: Mdev, params: Values) -> None:
        """Called before a write to `migration/<parameter>` makes `mdev.params` these; whatever it raises, they stay as
        they are. For a driver whose parameters cost something: it gives the mdev more, or says no."""

    # -- what the device is on its bus

    def pci(self, settings: Any) -> PciIdentity:
        """For `bus = "pci"`: the function that these settings describe."""
        raise NotImplementedError(f"a driver of the bus pci says in pci() what its function is; {self.name} does not")

    def sriov(self, settings: Any, total: int) -> SriovCapability:
        """For a PCI function with `sriov = { total = ... }`: its virtual functions."""
        raise NotImplementedError(f"driver {self.name} knows nothing of SR-IOV: it has no sriov()")

    def subchannel(self, settings: Any) -> SubchannelIdentity:
        """For `bus = "css"`: the subchannel that these settings describe; any I/O subchannel unless it says more."""
        return SubchannelIdentity()

    def ap(self, settings: Any) -> ApIdentity:
        """For `bus = "ap"`: the host's adapters and domains, and what of them the host keeps; see `ap_host`."""
        return ApIdentity()

    def is_parent(self, settings: Any, *, vf: bool) -> bool:
        """Whether a bound function offers types; `vf`: whether it is a virtual one."""
        return not vf

    # -- migration

    def device_model(self, settings: Any) -> DeviceModel | None:
        """The model of a device with these settings; the declared one, unless an older release knows less of it."""
        return self.model

    def machines(self, settings: Any) -> Sequence[str]:
        """The machine types that a device with these settings can be on, unless an older release knows fewer."""
        return known_machines(type(self))

    def release(self, settings: Any) -> str | None:
        """The driver's release that these settings describe; None: they do not say."""
        return getattr(settings, "release", None)

    def compat(self, settings: Any, machine: Machine) -> Properties:
        """The compat properties of a host: its machine type's, less what this release forgot, and those by hand."""
        found = dict(self.machine_types.get(machine.name or "", {}))
        for one in self.broken:
            if one.release == self.release(settings):
                found.pop(one.compat, None)
        return found | dict(machine.by_hand)

    def tier(self, machine: str | None) -> Tier:
        """What is promised for a machine type."""
        known = VERSIONED if machine in self.machine_types else UNVERSIONED
        return self.tiers.get(machine or "", known)

    def compatible_devices(self, type: Type) -> Sequence[tuple[str, str]]:
        """(parent id, type-id) of what this type is known to take; `migration_compatible_devices` shows them."""
        identity = getattr(type.parent.device, "identity", None)
        name = f"{identity.vendor:04x} {identity.device:04x}" if isinstance(identity, PciIdentity) else self.name
        return [(name, type.name)]

    # -- device state

    def device_state(self, settings: Any) -> VMState:
        """The description of the state of a device with these settings; the declared one, unless an older release
        has another."""
        return self.state if self.state is not None else VMState(self.name)

    def reset(self, mdev: Mdev) -> object:
        """The state of a new device, which `mdev.state` then is; every field's reset value unless a driver knows
        more, or has a class of its own for it."""
        return mdev.parent.description.fresh(mdev.values)

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """Drives `mdev.state` on from what it is, as a guest would: the same state and seed give the same state.
        Without more knowledge every field that is sent gets a random value."""
        randomize(mdev.parent.description, mdev.device_state.view, seed)

    def fingerprint(self, mdev: Mdev) -> Mapping[str, object]:
        """What a guest would see of the device: register names and values. Without more knowledge every field
        that is sent."""
        return values(mdev.parent.description, mdev.device_state.view)

    def migration_string(self, device: Device) -> str:
        """What a device says of itself: from the model's parameters, else from driver and type."""
        model = model_of(device)
        if model is None:
            raise NotImplementedError
        return model.write(model.initial(device.params))

    def check(self, device: Device, source: str) -> Verdict:
        """Whether `device` takes state of one that says `source`; all reasons if not."""
        model = model_of(device)
        if model is None:
            target = self.migration_string(device)
            reason = Reason("string-differs", "the strings must be equal", source=source, target=target)
            return Verdict.no([] if source == target else [reason])
        return model.check(model.initial(device.params), source)


def model_of(device: Device) -> DeviceModel | None:
    """The device model that a device has with its parent's settings."""
    return (device if isinstance(device, Parent) else device.parent).model


def ap_host(parent: Parent) -> ApHost:
    """The AP bus of a host, for the driver of its matrix device. Raises TypeError for a parent of another bus."""
    if not isinstance(parent.device, MatrixDevice):
        raise TypeError(f"{parent.name} is not the AP matrix: only a driver of the bus ap has an AP host")
    return parent.device.ap


def known_machines(driver: type[VendorDriver]) -> Sequence[str]:
    """The machine types that a driver has compat properties or promises for, in its order."""
    return tuple(dict.fromkeys((*driver.machine_types, *driver.tiers)))


def migrates(driver: type[VendorDriver]) -> bool:
    """Whether a driver takes part in the handshake: it has a model or its own string."""
    return driver.model is not None or driver.migration_string is not VendorDriver.migration_string
