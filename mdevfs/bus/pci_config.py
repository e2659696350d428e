"""Configuration space: 256 bytes, 4096 for PCIe, that say the same as the function's attributes.

Layout: header, power management at 0x40, MSI at 0x50, PCIe at 0x70; ARI at 0x100, SR-IOV at 0x160.
"""

from __future__ import annotations

from struct import pack_into
from typing import TYPE_CHECKING

from mdevfs.bus.pci_resource import BARS, ROM, VF_BARS, WINDOWS

if TYPE_CHECKING:
    from mdevfs.bus.pci_function import PciFunction

_PM, _MSI, _PCIE, _ARI, _SRIOV = 0x40, 0x50, 0x70, 0x100, 0x160
_PORT_TYPE = {"endpoint": 0, "root port": 4, "integrated": 9}
FOR_ALL = 64  # bytes; the rest is for CAP_SYS_ADMIN (pci_read_config)
# What a write changes: command, cache line size, latency timer, interrupt line. All else is read-only hardware.
_WRITABLE = {4: 0x47, 5: 0x05, 0x0C: 0xFF, 0x0D: 0xFF, 0x3C: 0xFF}


def config_size(function: PciFunction) -> int:
    """As stat shows it."""
    return 4096 if function.identity.pcie else 256


def read_config(function: PciFunction, offset: int, size: int) -> bytes:
    """Part of the space."""
    return bytes(_build(function)[offset : offset + size])


def write_config(function: PciFunction, offset: int, data: bytes) -> int:
    """What setpci does: the writable bits stay, everything else is ignored as hardware ignores it."""
    for at, byte in enumerate(data, offset):
        if at in _WRITABLE:
            function.written[at] = byte & _WRITABLE[at]
    return len(data)


def _build(function: PciFunction) -> bytearray:
    space = bytearray(config_size(function))
    _header(space, function)
    if function.is_bridge:
        _bridge_header(space, function)
    else:
        _endpoint_header(space, function)
    _chain(space, function)
    if function.identity.pcie:
        _pcie(space, function)
        _extended(space, function)
    for at, byte in function.written.items():
        space[at] = byte
    return space


def _header(space: bytearray, function: PciFunction) -> None:
    identity = function.identity
    spaces = {one.flags >> 8 & 3 for number, one in function.resources.items() if number not in VF_BARS}
    # A VF's ids read as all ones and its memory enable as 0 (SR-IOV 1.1, 3.4.1); the kernel takes them from the PF.
    ids = (0xFFFF, 0xFFFF) if function.physfn is not None else (identity.vendor, identity.device)
    command = (sum(spaces) if function.physfn is None else 0) | (0x4 if function.enabled else 0)
    shared = function.physfn is None and function.pci.is_multifunction(function.address)
    header_type = int(function.is_bridge) | (0x80 if shared else 0)
    pack_into("<HHHH", space, 0, *ids, command, 0x0010 if _capabilities(function) else 0)
    pack_into("<I", space, 8, identity.class_code << 8 | identity.revision)
    space[0x0E] = header_type
    if function.irq and function.physfn is None:
        space[0x3C], space[0x3D] = function.irq & 0xFF, 1


def _bars(space: bytearray, function: PciFunction, numbers: range, at: int) -> None:
    for place, number in enumerate(numbers):
        one = function.resources.get(number)
        if one is not None:
            pack_into("<I", space, at + 4 * place, one.start & 0xFFFFFFF0 | one.flags & 0xF)
            if one.flags & 4:
                pack_into("<I", space, at + 4 * place + 4, one.start >> 32)


def _endpoint_header(space: bytearray, function: PciFunction) -> None:
    if function.physfn is None:
        _bars(space, function, BARS, 0x10)
        if ROM in function.resources:
            pack_into("<I", space, 0x30, function.resources[ROM].start)
    pack_into("<HH", space, 0x2C, function.identity.subsystem_vendor, function.identity.subsystem_device)


def _bridge_header(space: bytearray, function: PciFunction) -> None:
    space[0x18:0x1B] = bytes((function.address.bus, function.secondary, function.subordinate))
    windows = [function.resources.get(number) for number in WINDOWS]
    io, memory, prefetchable = windows[:3]
    # A window whose limit lies below its base forwards nothing.
    space[0x1C:0x1E] = bytes((io.start >> 8 & 0xF0, io.end >> 8 & 0xF0)) if io else b"\xf0\x00"
    ends = (memory.start >> 16 & 0xFFF0, memory.end >> 16 & 0xFFF0) if memory else (0xFFF0, 0)
    pack_into("<HH", space, 0x20, *ends)
    if prefetchable:
        low, high = prefetchable.start, prefetchable.end
        pack_into("<HH", space, 0x24, low >> 16 & 0xFFF0 | 1, high >> 16 & 0xFFF0 | 1)
        pack_into("<II", space, 0x28, low >> 32, high >> 32)
    else:
        pack_into("<HH", space, 0x24, 0xFFF1, 1)


def _capabilities(function: PciFunction) -> dict[int, int]:
    """The capabilities' ids by their places."""
    identity = function.identity
    there = ((identity.pm, _PM, 0x01), (identity.msi, _MSI, 0x05), (identity.pcie, _PCIE, 0x10))
    return {at: number for has, at, number in there if has}


def _chain(space: bytearray, function: PciFunction) -> None:
    before = 0x34
    for at, number in _capabilities(function).items():
        space[before], space[at], before = at, number, at + 1
    if function.identity.pm:
        pack_into("<HH", space, _PM + 2, 0x0003, 0x0008)
    if function.identity.msi:
        pack_into("<H", space, _MSI + 2, 0x0080)


def _pcie(space: bytearray, function: PciFunction) -> None:
    identity = function.identity
    pack_into("<H", space, _PCIE + 2, 2 | _PORT_TYPE[function.port_type] << 4)
    flr = 1 << 28 if "flr" in identity.reset_methods else 0
    pack_into("<I", space, _PCIE + 0x04, 0x8000 | flr)
    if function.port_type != "integrated":
        speed, width = function.link
        pack_into("<I", space, _PCIE + 0x0C, identity.link_speed | identity.link_width << 4)
        # A VF has no link status of its own (SR-IOV 1.1, 3.5.8).
        pack_into("<H", space, _PCIE + 0x12, speed | width << 4 if function.physfn is None else 0)
        pack_into("<I", space, _PCIE + 0x2C, ((1 << identity.link_speed) - 1) << 1)
        pack_into("<H", space, _PCIE + 0x30, identity.link_speed)
    if function.is_bridge and function.pci.has_sriov(function.address.domain, function.secondary):
        pack_into("<I", space, _PCIE + 0x24, 0x20)  # ARI forwarding, supported and on
        pack_into("<H", space, _PCIE + 0x28, 0x20)


def _extended(space: bytearray, function: PciFunction) -> None:
    sriov = function.sriov
    if sriov is None and function.physfn is None:
        return
    pack_into("<I", space, _ARI, 0x0E | 1 << 16 | (_SRIOV << 20 if sriov else 0))
    if sriov is None:
        return
    capability = sriov.capability
    control = (0x09 if sriov.count else 0) | (0x10 if function.ari else 0)
    pack_into("<IIHH", space, _SRIOV, 0x10 | 1 << 16, 0x2 if function.ari else 0, control, 0)
    pack_into("<HHH", space, _SRIOV + 0x0C, capability.total, capability.total, sriov.count)
    pack_into("<HH", space, _SRIOV + 0x14, capability.offset, capability.stride)
    pack_into("<HII", space, _SRIOV + 0x1A, capability.vf_device, 0x553, 1)
    _bars(space, function, VF_BARS, _SRIOV + 0x24)
