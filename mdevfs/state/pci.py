"""What QEMU saves of every PCI function: configuration space and interrupt lines (hw/pci/pci.c, 7.2)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import ClassVar

from attrs import field, frozen

from mdevfs.bus.pci_resource import PciIdentity
from mdevfs.state.description import VMState
from mdevfs.state.fields import S32, Bytes, Chunk, Field, When
from mdevfs.state.pull import Pull, Reading
from mdevfs.state.refusal import BadState
from mdevfs.state.view import View, get, put

CONVENTIONAL, EXPRESS = 256, 4096
PINS = 4
MSIX_ENTRY = 16
# Offsets in the header: what of it a guest may write, and what source and target must have in common.
_BARS, _SUBSYSTEM, _PIN, _HEADER = 0x10, 0x2C, 0x3D, 0x40
_WRITABLE = {0x04: 0x07, 0x05: 0x05, 0x0C: 0xFF, 0x3C: 0xFF}
_COMPARED = {**dict.fromkeys((*range(4), *range(8, 12), 0x0E, 0x34), 0xFF), 0x06: 0x10}


@frozen
class ConfigSpace:
    """A function's configuration space as its guest has it: the contents after reset, the bits that a guest can write
    or clear, and those that must be the same at source and target unless a guest can write them (QEMU's cmask)."""

    contents: bytes
    writable: bytes
    compared: bytes

    @classmethod
    def of(cls, identity: PciIdentity) -> ConfigSpace:
        """The header of a function, and nothing else: all beyond it is for the guest to write."""
        size = EXPRESS if identity.pcie else CONVENTIONAL
        contents, compared = bytearray(size), bytearray(size)
        writable = bytearray(_HEADER) + b"\xff" * (size - _HEADER)
        struct.pack_into("<HH", contents, 0, identity.vendor, identity.device)
        struct.pack_into("<I", contents, 8, identity.class_code << 8 | identity.revision)
        struct.pack_into("<HH", contents, _SUBSYSTEM, identity.subsystem_vendor, identity.subsystem_device)
        contents[_PIN] = 1 if identity.irq else 0
        for at, bits in _WRITABLE.items():
            writable[at] = bits
        for at, bits in _COMPARED.items():
            compared[at] = bits
        at = _BARS
        for bar in identity.bars:
            width = 8 if bar.bits64 else 4
            mask = (-bar.size & (1 << 8 * width) - 1) if bar.size else 0
            contents[at : at + width] = (bar.flags & 0xF).to_bytes(width, "little")
            writable[at : at + width] = mask.to_bytes(width, "little")
            compared[at : at + width] = b"\xff" * width if bar.size else bytes(width)
            at += width
        return cls(bytes(contents), bytes(writable), bytes(compared))

    def with_contents(self, changes: Mapping[int, int]) -> ConfigSpace:
        """The same with other bytes at these offsets."""
        contents = bytearray(self.contents)
        for at, byte in changes.items():
            contents[at] = byte
        return ConfigSpace(bytes(contents), self.writable, self.compared)

    def with_capability(self, at: int, contents: bytes, writable: bytes = b"") -> ConfigSpace:
        """The same with a capability, its contents compared but for what is writable of it. The pointers to it are in
        the contents of others."""
        end = at + len(contents)
        free = writable.ljust(len(contents), b"\0")
        return ConfigSpace(
            self.contents[:at] + contents + self.contents[end:],
            self.writable[:at] + free + self.writable[end:],
            self.compared[:at] + b"\xff" * len(contents) + self.compared[end:],
        )

    def difference(self, theirs: bytearray, ours: bytearray) -> int:
        """The offset of the first byte in which two contents must not differ, and do; -1: none."""
        first, second, compared, writable = (_bits(one) for one in (theirs, ours, self.compared, self.writable))
        wrong = (first ^ second) & compared & ~writable
        return (wrong & -wrong).bit_length() - 1 >> 3

    def write(self, config: bytearray, at: int, data: bytes) -> None:
        """What the guest's write does to the contents."""
        for place, byte in enumerate(data, at):
            config[place] = config[place] & ~self.writable[place] & 0xFF | byte & self.writable[place]


def _bits(data: bytes | bytearray) -> int:
    return int.from_bytes(data, "little")


Space = ConfigSpace | Callable[[View], ConfigSpace]


@frozen(eq=False)
class PciConfig(Bytes):
    """Configuration space. What is compared must be what the target's device has (get_pci_config_device); `space` is
    the target's, a function of the View where migration parameters change it."""

    space: Space = field(kw_only=True)

    type: ClassVar[str] = "pci config"

    def read(self, view: View, pull: Pull, order: str) -> Reading[None]:
        held, at = get(view.state, self.steps), pull.offset
        came = bytearray(self.length)
        yield from pull.fill(came)
        if (wrong := self._of(view).difference(came, held)) >= 0:
            raise BadState(
                "state-config-differs",
                rule="what is read-only of configuration space must be the target's",
                offset=at + wrong,
                source=f"{came[wrong]:#04x} in byte {wrong:#x}",
                target=f"{held[wrong]:#04x} in byte {wrong:#x}",
                mend="use the same device, release and machine type on both sides",
            )
        put(view.state, self.steps, came)

    def init(self, view: View) -> None:
        if self.present(view):
            super().init(view)

    def initial(self, view: View) -> object:
        return bytearray(self._of(view).contents)

    def _of(self, view: View) -> ConfigSpace:
        return self.space if isinstance(self.space, ConfigSpace) else self.space(view)


@frozen(eq=False)
class PciIrqState(Field):
    """The levels of the four interrupt lines, each 0 or 1 (get_pci_irq_state)."""

    type: ClassVar[str] = "pci irq state"

    @property
    def size(self) -> int:
        return 4 * PINS

    def write(self, view: View, order: str) -> list[Chunk]:
        return [struct.pack(f"{order}{PINS}I", *get(view.state, self.steps))]

    def read(self, view: View, pull: Pull, order: str) -> Reading[None]:
        at = pull.offset
        levels = struct.unpack(f"{order}{PINS}I", (yield from pull.take(self.size)))
        for pin, level in enumerate(levels):
            if level > 1:
                rule = "the level of an interrupt line is 0 or 1"
                offset, source = at + 4 * pin, str(level)
                raise BadState("field-out-of-bounds", rule=rule, offset=offset, source=source, target="0 or 1")
        put(view.state, self.steps, list(levels))

    def initial(self, view: View) -> object:
        return [0] * PINS


@frozen(eq=False)
class PciMsix(Bytes):
    """The MSI-X table, 16 bytes for each vector, and a bit for each that is pending (put_msix_state)."""

    vectors: int = field(default=0, kw_only=True)
    length: int = field(init=False)

    type: ClassVar[str] = "msix state"

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "length", MSIX_ENTRY * self.vectors + -(-self.vectors // 8))
        super().__attrs_post_init__()

    @property
    def size(self) -> int:
        return -1  # QEMU's dump does not say it

    def initial(self, view: View) -> object:
        """All vectors masked, none pending."""
        return bytearray((bytes(12) + b"\1\0\0\0") * self.vectors).ljust(self.length, b"\0")


def pci_msix(vectors: int) -> VMState:
    """QEMU's MSI-X state, a second struct at `parent_obj`."""
    return VMState("msix", 0, first=0, fields=[PciMsix("msix", vectors=vectors)])


def pci_device(space: Space, *, express: bool) -> VMState:
    """QEMU's PCIDevice, the struct `parent_obj` that the state of a function begins with."""
    return VMState(
        "PCIDevice",
        2,
        1,
        fields=[
            S32("version_id", le=True, reset=2, doc="at most the target's"),
            PciConfig(
                "config",
                CONVENTIONAL,
                space=space,
                when=When("of a conventional function", lambda view: not express),
                doc="configuration space; what is read-only must be the target's",
            ),
            PciConfig(
                "config",
                EXPRESS,
                space=space,
                when=When("of an Express function", lambda view: express),
                doc="the same with its extended part",
            ),
            PciIrqState("irq_state", since=2, doc="the levels of the lines INTA to INTD"),
        ],
    )
