"""What a driver author imports. Everything here is the interface; whatever is deeper may change."""

from mdevfs.bus.ap import ApHost, ApUser
from mdevfs.bus.ap_identity import ApCard, ApIdentity, Apqn
from mdevfs.bus.css import SubchannelIdentity
from mdevfs.bus.pci_resource import Bar, PciIdentity, SriovCapability
from mdevfs.errors import InputError, KernelError
from mdevfs.mdev.mdev import Mdev
from mdevfs.mdev.parent import Parent
from mdevfs.mdev.types import MdevType, Type
from mdevfs.migration.catalogue import Page
from mdevfs.migration.machine import Broken, Machine, Tier, chain
from mdevfs.migration.model import DeviceModel, Values
from mdevfs.migration.parameters import Bool, Int, Set, Str
from mdevfs.migration.verdict import YES, Reason, Refused, Verdict
from mdevfs.state.description import Struct, VMState
from mdevfs.state.fields import (
    S8,
    S16,
    S32,
    S64,
    U8,
    U16,
    U32,
    U64,
    Bitmap,
    Bytes,
    Field,
    Flag,
    Number,
    SizedBytes,
    Timer,
    Unused,
    When,
)
from mdevfs.state.pci import ConfigSpace, PciConfig, PciIrqState, PciMsix, pci_device, pci_msix
from mdevfs.state.refusal import BadState
from mdevfs.state.view import Registers, View
from mdevfs.sysfs.parse import kstrtobool, kstrtoull, word
from mdevfs.vendor.api import Settings, VendorDriver, ap_host, blocking, show, store
from mdevfs.vendor.program import device_program

__all__ = [
    "S8",
    "S16",
    "S32",
    "S64",
    "U8",
    "U16",
    "U32",
    "U64",
    "YES",
    "ApCard",
    "ApHost",
    "ApIdentity",
    "ApUser",
    "Apqn",
    "BadState",
    "Bar",
    "Bitmap",
    "Bool",
    "Broken",
    "Bytes",
    "ConfigSpace",
    "DeviceModel",
    "Field",
    "Flag",
    "InputError",
    "Int",
    "KernelError",
    "Machine",
    "Mdev",
    "MdevType",
    "Number",
    "Page",
    "Parent",
    "PciConfig",
    "PciIdentity",
    "PciIrqState",
    "PciMsix",
    "Reason",
    "Refused",
    "Registers",
    "Set",
    "Settings",
    "SizedBytes",
    "SriovCapability",
    "Str",
    "Struct",
    "SubchannelIdentity",
    "Tier",
    "Timer",
    "Type",
    "Unused",
    "VMState",
    "Values",
    "VendorDriver",
    "Verdict",
    "View",
    "When",
    "ap_host",
    "blocking",
    "chain",
    "device_program",
    "kstrtobool",
    "kstrtoull",
    "pci_device",
    "pci_msix",
    "show",
    "store",
    "word",
]
