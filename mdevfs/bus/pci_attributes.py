"""The files of a PCI function (drivers/pci/pci-sysfs.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mdevfs.bus.pci_config import FOR_ALL, config_size, read_config, write_config
from mdevfs.bus.pci_resource import BARS, RESET_METHODS, ROM, Resource, lines
from mdevfs.errors import KernelError
from mdevfs.sysfs.entries import PAGE_SIZE, Attribute, BinaryAttribute, Entry, Folder
from mdevfs.sysfs.parse import kstrtoull, word

if TYPE_CHECKING:
    from mdevfs.bus.pci_function import PciFunction

_SPEEDS = ("Unknown", *(f"{rate} GT/s PCIe" for rate in ("2.5", "5.0", "8.0", "16.0", "32.0", "64.0")))


def number(data: bytes) -> int:
    """What most of these files take: every mistake is EINVAL, a number too large included."""
    try:
        return kstrtoull(data)
    except KernelError:
        raise KernelError(errno.EINVAL) from None


def fixed(text: object) -> Attribute:
    """A read-only file of one line."""
    return Attribute(lambda: f"{text}\n")


def cpu_entries(cpus: int, mask: str, listing: str) -> dict[str, Entry]:
    """The host's online CPUs, 0 to `cpus` - 1, as a mask in groups of 32 bits and as a list."""
    digits = f"{(1 << cpus) - 1:x}"
    head = len(digits) % 8
    groups = [digits[:head]] * bool(head) + [digits[at : at + 8] for at in range(head, len(digits), 8)]
    return {mask: fixed(",".join(groups)), listing: fixed(f"0-{cpus - 1}" if cpus > 1 else "0")}


def attributes(function: PciFunction) -> dict[str, Entry]:
    """Everything but links, SR-IOV and what any device has."""
    entries = _identity(function) | _state(function) | _resources(function)
    entries |= cpu_entries(function.pci.cpus, "local_cpus", "local_cpulist")
    if function.physfn is None and not function.removing:
        entries["remove"] = Attribute(store=lambda data: _store_remove(function, data), mode=0o220)
    if function.physfn is None:
        entries["rescan"] = Attribute(store=lambda data: function.pci.rescan_store(data, function.address))
    if function.known_resets:
        entries["reset"] = Attribute(store=lambda data: _store_reset(function, data))
        entries["reset_method"] = _methods(function)
    if function.is_bridge:
        entries["secondary_bus_number"] = Attribute(lambda: f"{function.secondary}\n")
        entries["subordinate_bus_number"] = Attribute(lambda: f"{function.subordinate}\n")
    if function.identity.class_code >> 8 == 0x0300:
        entries["boot_vga"] = Attribute(lambda: f"{int(function.pci.default_vga is function)}\n")
    if function.identity.pcie:
        entries |= _link(function)
    if function.core.kernel.since("5.5"):
        entries["link"] = Folder()  # of aspm_ctrl_attrs: no link here can do what they switch
    return entries


def _identity(function: PciFunction) -> dict[str, Entry]:
    identity = function.identity
    return {
        "vendor": fixed(f"0x{identity.vendor:04x}"),
        "device": fixed(f"0x{identity.device:04x}"),
        "class": fixed(f"0x{identity.class_code:06x}"),
        "revision": fixed(f"0x{identity.revision:02x}"),
        "subsystem_vendor": fixed(f"0x{identity.subsystem_vendor:04x}"),
        "subsystem_device": fixed(f"0x{identity.subsystem_device:04x}"),
        "modalias": fixed(function.modalias),
    }


def _state(function: PciFunction) -> dict[str, Entry]:
    return {
        "irq": Attribute(lambda: f"{function.irq}\n"),
        "ari_enabled": Attribute(lambda: f"{int(function.ari)}\n"),
        "power_state": Attribute(lambda: "D0\n" if function.powered else "unknown\n"),
        "dma_mask_bits": Attribute(lambda: f"{function.dma_bits}\n"),
        "consistent_dma_mask_bits": Attribute(lambda: f"{function.dma_bits}\n"),
        "msi_bus": _flag(function, "msi_bus"),
        "broken_parity_status": _flag(function, "broken_parity_status"),
        "d3cold_allowed": _flag(function, "d3cold_allowed"),
        "numa_node": Attribute(lambda: f"{function.numa_node}\n", lambda data: _store_node(function, data)),
        "enable": Attribute(lambda: f"{function.enabled}\n", lambda data: _store_enable(function, data)),
        "driver_override": function.override.attribute(),
    }


def _flag(function: PciFunction, name: str) -> Attribute:
    def store(data: bytes) -> None:
        function.flags = function.flags | {name} if number(data) else function.flags - {name}

    return Attribute(lambda: f"{int(name in function.flags)}\n", store)


def _store_node(function: PciFunction, data: bytes) -> None:
    negative = data.startswith(b"-")
    node = -number(data[1:]) if negative else number(data)
    if node != -1 and node not in function.pci.nodes:
        raise KernelError(errno.EINVAL)
    function.numa_node = node


async def _store_enable(function: PciFunction, data: bytes) -> None:
    wanted = number(data)
    async with function.lock:
        if function.driver is not None:
            raise KernelError(errno.EBUSY)
        if not wanted and not function.enabled:
            raise KernelError(errno.EIO)
        function.enabled += 1 if wanted else -1
        function.powered = True


async def _store_remove(function: PciFunction, data: bytes) -> None:
    if number(data):
        await function.pci.remove(function)


# -- reset


async def _store_reset(function: PciFunction, data: bytes) -> None:
    if number(data) != 1:
        raise KernelError(errno.EINVAL)
    async with function.lock:
        if not any(one != "bus" or function.alone for one in function.reset_methods):
            raise KernelError(errno.ENOTTY)


def _methods(function: PciFunction) -> Attribute:
    known = function.known_resets

    def show() -> str:
        return " ".join(function.reset_methods) + "\n" if function.reset_methods else ""

    def store(data: bytes) -> None:
        words = tuple(one.strip() for one in word(data).split(" ") if one)
        if words == ("default",):
            words = known
        if any(one not in known for one in words) or len(words) > len(RESET_METHODS) or len(data) >= PAGE_SIZE - 1:
            raise KernelError(errno.EINVAL)
        function.reset_methods = words

    return Attribute(show, store)


# -- config and resources


def _resources(function: PciFunction) -> dict[str, Entry]:
    entries: dict[str, Entry] = {
        "resource": Attribute(lambda: lines(function.resources, function.is_bridge)),
        "config": BinaryAttribute(
            config_size(function),
            lambda offset, size: read_config(function, offset, size),
            lambda offset, data: write_config(function, offset, data),
            mode=0o644,
            for_all=FOR_ALL,
        ),
    }
    for index in BARS:
        if index in function.resources:
            bar = function.resources[index]
            entries[f"resource{index}"] = _bar(bar)
            if bar.flags & 8 and not bar.flags & 1:
                entries[f"resource{index}_wc"] = _bar(bar)
    if ROM in function.resources:
        entries["rom"] = _rom(function)
    return entries


def _bar(bar: Resource) -> BinaryAttribute:
    """Memory can only be mapped: read(2) and write(2) are EIO. Ports take accesses of 1, 2 and 4 bytes."""
    if not bar.flags & 1:
        return BinaryAttribute(bar.size, mode=0o600)

    def read(offset: int, size: int) -> bytes:
        return bytes(_port(size))

    def write(offset: int, data: bytes) -> int:
        return _port(len(data))

    return BinaryAttribute(bar.size, read, write, mode=0o600)


def _port(size: int) -> int:
    if size not in (1, 2, 4):
        raise KernelError(errno.EINVAL)
    return size


def _rom(function: PciFunction) -> BinaryAttribute:
    """An empty ROM, readable after a write of anything but 0 (pci_read_rom, pci_write_rom)."""

    def read(offset: int, size: int) -> bytes:
        if "rom" not in function.flags:
            raise KernelError(errno.EINVAL)
        return bytes(size)

    def write(offset: int, data: bytes) -> int:
        off = offset == 0 and data in (b"0\n", b"0")
        function.flags = function.flags - {"rom"} if off else function.flags | {"rom"}
        return len(data)

    return BinaryAttribute(function.resources[ROM].size, read, write, mode=0o600)


# -- PCIe


def _link(function: PciFunction) -> dict[str, Entry]:
    """An integrated endpoint has no link: the width that its capability lacks reads 255 (PCIE_LNK_WIDTH_UNKNOWN)."""
    linked = function.port_type != "integrated"
    speed, width = (function.identity.link_speed, function.identity.link_width) if linked else (0, 255)
    up = linked and function.physfn is None
    return {
        "current_link_speed": Attribute(lambda: f"{_SPEEDS[function.link[0] if up else 0]}\n"),
        "current_link_width": Attribute(lambda: f"{function.link[1] if up else 0}\n"),
        "max_link_speed": fixed(_SPEEDS[speed]),
        "max_link_width": fixed(width),
    }
