"""What a driver author imports. Everything here is the interface; whatever is deeper may change."""

from mdevfs.bus.pci_resource import Bar, PciIdentity, SriovCapability
from mdevfs.errors import KernelError
from mdevfs.mdev.mdev import Mdev
from mdevfs.mdev.parent import Parent
from mdevfs.mdev.types import MdevType, Type
from mdevfs.migration.catalogue import Page
from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Bool, Int, Set, Str
from mdevfs.migration.verdict import YES, Reason, Refused, Verdict
from mdevfs.sysfs.parse import kstrtobool, kstrtoull, word
from mdevfs.vendor.api import Settings, VendorDriver, blocking, show, store

__all__ = [
    "YES",
    "Bar",
    "Bool",
    "DeviceModel",
    "Int",
    "KernelError",
    "Mdev",
    "MdevType",
    "Page",
    "Parent",
    "PciIdentity",
    "Reason",
    "Refused",
    "Set",
    "Settings",
    "SriovCapability",
    "Str",
    "Type",
    "VendorDriver",
    "Verdict",
    "blocking",
    "kstrtobool",
    "kstrtoull",
    "show",
    "store",
    "word",
]
