"""What a PCI function is, and where its BARs lie in the host's address spaces."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from mdevfs.bus.pci_address import Address
from mdevfs.errors import InputError

BARS, ROM, VF_BARS, WINDOWS = range(6), 6, range(7, 13), range(13, 17)
# include/linux/ioport.h
_IO, _MEM, _PREFETCH, _SIZEALIGN, _MEM64, _READONLY = 0x100, 0x200, 0x2000, 0x40000, 0x100000, 0x4000
RESET_METHODS = ("device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus")


@frozen
class Bar:
    """One base address register: `size` in bytes, a power of two, or 0 for a register that is not there.

    One of `bits64` takes two of the six places.
    """

    size: int
    prefetchable: bool = False
    bits64: bool = False
    io: bool = False

    @property
    def flags(self) -> int:
        """As `resource` shows them; the lowest four bits are the register's own."""
        if self.io:
            return _SIZEALIGN | _IO | 1
        wide = _MEM64 | 4 if self.bits64 else 0
        return _SIZEALIGN | _MEM | wide | (_PREFETCH | 8 if self.prefetchable else 0)


@frozen
class PciIdentity:
    """What a function says it is. `class_code` has 24 bits, `rom` is the size of the expansion ROM in bytes;
    `link_speed` is a PCIe generation, 1 to 6; `pcie`, `pm` and `msi` are the capabilities that it has."""

    vendor: int
    device: int
    class_code: int
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem_device: int = 0
    bars: tuple[Bar, ...] = ()
    irq: int = 0
    pcie: bool = True
    pm: bool = True
    msi: bool = True
    reset_methods: tuple[str, ...] = ("flr", "bus")
    rom: int = 0
    link_speed: int = 4
    link_width: int = 16

    def mistakes(self) -> list[str]:
        """What is wrong with it, a line each."""
        numbers = {
            "vendor": (self.vendor, 0xFFFE),
            "device": (self.device, 0xFFFF),
            "class_code": (self.class_code, 0xFFFFFF),
            "revision": (self.revision, 0xFF),
            "subsystem_vendor": (self.subsystem_vendor, 0xFFFF),
            "subsystem_device": (self.subsystem_device, 0xFFFF),
        }
        outside = {name: one for name, one in numbers.items() if not 0 <= one[0] <= one[1]}
        found = [f"{name} {value:#x} is not within 0 and {top:#x}" for name, (value, top) in outside.items()]
        known = ", ".join(RESET_METHODS)
        found += [f'"{word}" is no reset method: {known}' for word in self.reset_methods if word not in RESET_METHODS]
        return found + bar_mistakes(self.bars)


@frozen
class SriovCapability:
    """A physical function's SR-IOV capability: VF k is at its routing id + `offset` + k * `stride`.

    `vf_class` and the VFs' subsystem are the function's own unless given.
    """

    total: int
    offset: int
    stride: int
    vf_device: int
    vf_bars: tuple[Bar, ...] = ()
    vf_class: int | None = None
    vf_subsystem_device: int | None = None

    def addresses(self, function: Address) -> list[Address]:
        """Of all VFs that there can be. Raises InputError."""
        return [function.moved(self.offset + self.stride * index) for index in range(self.total)]

    def mistakes(self) -> list[str]:
        """What is wrong with it, a line each."""
        numbers = {
            "total": (self.total, 1, 0xFFFF),
            "offset": (self.offset, 1, 0xFFFF),
            "stride": (self.stride, 1, 0xFFFF),
            "vf_device": (self.vf_device, 0, 0xFFFF),
        }
        outside = {name: one for name, one in numbers.items() if not one[1] <= one[0] <= one[2]}
        found = [f"sriov {name} {value} is not within {low} and {top}" for name, (value, low, top) in outside.items()]
        return found + bar_mistakes(self.vf_bars)


def bar_mistakes(bars: tuple[Bar, ...]) -> list[str]:
    """What is wrong with a list of BARs, a line each."""
    odd = [bar.size for bar in bars if bar.size and (bar.size < 16 or bar.size & (bar.size - 1))]
    found = [f"a BAR of {size} bytes: the size must be a power of two from 16 on" for size in odd]
    places = sum(1 + bar.bits64 for bar in bars)
    if places > len(BARS):
        found.append(f"the BARs take {places} places, there are {len(BARS)}; one of 64 bits takes two")
    return found


@frozen
class Resource:
    """One line of `resource`: `size` bytes from `start` on."""

    start: int
    size: int
    flags: int

    @property
    def end(self) -> int:
        """The last address."""
        return self.start + self.size - 1

    def part(self, index: int, parts: int) -> Resource:
        """One VF's share of a physical function's VF BAR."""
        size = self.size // parts
        return Resource(self.start + index * size, size, self.flags)


Resources = dict[int, Resource]


class Space:
    """An address space of the host, given out to its buses in chunks."""

    def __init__(self, name: str, start: int, end: int, chunk: int) -> None:
        self.name = name
        self.next = start
        self.end = end
        self.chunk = chunk

    def take(self, size: int, align: int) -> tuple[int, int]:
        """A chunk that `size` bytes fit into, as (start, end). Raises InputError when the space is used up."""
        align = max(align, self.chunk)
        start = -(-self.next // align) * align
        end = start + -(-size // self.chunk) * self.chunk
        if end > self.end:
            raise InputError(
                f"no room for {size:#x} bytes more in the host's {self.name} space: use smaller BARs"
                " or prefetchable ones of 64 bits"
            )
        self.next = end
        return start, end


def spaces() -> tuple[Space, Space, Space]:
    """I/O ports, memory below 4 GiB, prefetchable memory above."""
    return (
        Space("I/O", 0x1000, 0x10000, 0x1000),
        Space("32-bit memory", 0x80000000, 0xE0000000, 0x2000000),
        Space("64-bit memory", 0x4000000000, 1 << 46, 1 << 30),
    )


class Arena:
    """Where the BARs of one bus lie; `windows` are what a bridge to it forwards, as (start, end) by space."""

    def __init__(self, all_spaces: tuple[Space, Space, Space]) -> None:
        self.spaces = all_spaces
        self.free: dict[int, tuple[int, int]] = {}
        self.windows: dict[int, tuple[int, int]] = {}

    def _allocate(self, which: int, size: int, align: int) -> int:
        start, end = self.free.get(which, (0, 0))
        start = -(-start // align) * align
        if start + size > end:
            start, end = self.spaces[which].take(size, align)
            low, high = self.windows.get(which, (start, end))
            self.windows[which] = (min(low, start), max(high, end))
        self.free[which] = (start + size, end)
        return start

    def place(self, bars: Iterable[Bar], first: int = 0, count: int = 1) -> Resources:
        """Places BARs; `count` of each beside one another, as VFs have them. `first` numbers the first line."""
        placed: Resources = {}
        for bar in bars:
            size = bar.size * count
            if size:
                # A bridge has 64 bits for prefetchable memory alone; PCIe lets large BARs go there all the same.
                which = 0 if bar.io else 2 if bar.bits64 and (bar.prefetchable or size > 1 << 25) else 1
                placed[first] = Resource(self._allocate(which, size, bar.size), size, bar.flags)
            first += 1 + bar.bits64
        return placed

    def place_rom(self, size: int) -> Resources:
        """Places an expansion ROM."""
        if not size:
            return {}
        return {ROM: Resource(self._allocate(1, size, size), size, _SIZEALIGN | _READONLY | _MEM)}

    def bridge_resources(self) -> Resources:
        """The windows of a bridge to this bus (lines 13 to 15 of its `resource`)."""
        flags = (_IO, _MEM, _MEM64 | _PREFETCH | _MEM | 1)
        return {
            WINDOWS[which]: Resource(start, end - start, flags[which]) for which, (start, end) in self.windows.items()
        }


def lines(resources: Resources, bridge: bool) -> str:
    """The text of `resource`: 13 lines, a bridge's has 17."""
    empty = Resource(0, 1, 0)
    found = (resources.get(number, empty) for number in range(17 if bridge else 13))
    return "".join(f"0x{one.start:016x} 0x{one.end:016x} 0x{one.flags:016x}\n" for one in found)
