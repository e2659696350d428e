"""The state of QEMU's e1000, as its VMState description has it (hw/net/e1000.c, 7.2): version 2, loads 1 too."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mdevfs.vendor import (
    S8,
    U8,
    U16,
    U32,
    Bar,
    Bytes,
    ConfigSpace,
    Field,
    Flag,
    PciIdentity,
    Struct,
    Unused,
    View,
    VMState,
    When,
    pci_device,
)
from vendor_drivers._e1000_link import give_up, plugged_in


def offsets(text: str) -> dict[str, int]:
    """A table of names and hexadecimal offsets, in turns."""
    words = text.split()
    return dict(zip(words[::2], (int(word, 16) for word in words[1::2]), strict=True))


def words(text: str) -> list[int]:
    """Hexadecimal numbers."""
    return [int(word, 16) for word in text.split()]


def pairs(text: str) -> dict[int, int]:
    """Hexadecimal places and values, in turns."""
    found = words(text)
    return dict(zip(found[::2], found[1::2], strict=True))


# Offsets of the 82540EM's registers (Intel's 8254x manual); in mac_reg each is at a quarter of it.
OFFSETS = offsets("""
    CTRL 0000  STATUS 0008  EECD 0010  EERD 0014  MDIC 0020  VET 0038  ICR 00c0  ITR 00c4  ICS 00c8  IMS 00d0
    IMC 00d8  RCTL 0100  TCTL 0400  AIT 0458  LEDCTL 0e00  PBA 1000  RDBAL 2800  RDBAH 2804  RDLEN 2808  RDH 2810
    RDT 2818  RDTR 2820  RADV 282c  TDBAL 3800  TDBAH 3804  TDLEN 3808  TDH 3810  TDT 3818  TXDCTL 3828  TADV 382c
    MPC 4010  PRC64 405c  PRC127 4060  PRC255 4064  PRC511 4068  PRC1023 406c  PRC1522 4070  GPRC 4074  BPRC 4078
    MPRC 407c  GPTC 4080  GORCL 4088  GORCH 408c  GOTCL 4090  GOTCH 4094  RNBC 40a0  TORL 40c0  TORH 40c4  TOTL 40c8
    TOTH 40cc  TPR 40d0  TPT 40d4  PTC64 40d8  PTC127 40dc  PTC255 40e0  PTC511 40e4  PTC1023 40e8  PTC1522 40ec
    MPTC 40f0  BPTC 40f4  TSCTC 40f8  MTA 5200  RA 5400  VFTA 5600  WUC 5800  WUFC 5808  WUS 5810  MANC 5820
    IPAV 5838  SWSM 5b50
""")
AT = {name: offset // 4 for name, offset in OFFSETS.items()}
TABLES = {"RA": 32, "MTA": 128, "VFTA": 128}
MITIGATION = ("RDTR", "RADV", "TADV", "ITR")
SIZES = ("64", "127", "255", "511", "1023", "1522")
BASE = (  # what every section holds, in its order
    *("CTRL", "EECD", "EERD", "GPRC", "GPTC", "ICR", "ICS", "IMC", "IMS", "LEDCTL", "MANC", "MDIC", "MPC", "PBA"),
    *("RCTL", "RDBAH", "RDBAL", "RDH", "RDLEN", "RDT", "STATUS", "SWSM", "TCTL", "TDBAH", "TDBAL", "TDH", "TDLEN"),
    *("TDT", "TORH", "TORL", "TOTH", "TOTL", "TPR", "TPT", "TXDCTL", "WUFC", "VET"),
)
EXTRA = tuple(name for name in AT if name not in BASE and name not in MITIGATION and name not in TABLES)
NEVER_SET = ("EECD", "IMC", "MANC")  # reads and writes go elsewhere, or nowhere: these places of mac_reg stay
# mac_reg after reset, each offset with its value; RA is the address's. Then the PHY's registers, and the EEPROM, whose
# words 0 to 2 are the address; its last word makes the sum 0xBABA.
RESET = pairs("""
    0000 00140240  0008 80080783  0e00 00000602  1000 00100030  5820 00222300  0038 00008100
""")
PHY_RESET = pairs("""
    00 1140  01 794d  02 0141  03 0c20  04 0de1  05 01e0  09 0e00  0a 3c00  10 0360  11 ac00  14 0d60
""")
EEPROM = words("""
    0000 0000 0000 0000  ffff 0000 0000 0000  3000 1000 6403 100e  8086 100e 8086 3040  0008 2000 7e14 0048
    1000 00d8 0000 2700  6cc9 3150 0722 040b  0984 0000 c000 0706  1008 0000 0f04 7fff  4d01 ffff ffff ffff
    ffff ffff ffff ffff  ffff ffff ffff ffff  0100 4000 121c ffff  ffff ffff ffff ffff  ffff ffff ffff ffff
    ffff ffff ffff 0000
""")

# The offload properties of a context descriptor, in the order of the subsection, the 32-bit ones of the main section.
PROPS: Sequence[tuple[type[Field], str, str]] = (
    (U8, "ipcss", "where the IP checksum starts"),
    (U8, "ipcso", "where the IP checksum goes"),
    (U16, "ipcse", "where the IP checksum ends"),
    (U8, "tucss", "where the TCP or UDP checksum starts"),
    (U8, "tucso", "where the TCP or UDP checksum goes"),
    (U16, "tucse", "where the TCP or UDP checksum ends"),
    (U32, "paylen", "bytes after the headers"),
    (U8, "hdr_len", "bytes of the headers, which every segment repeats"),
    (U16, "mss", "bytes of a segment after its headers"),
    (S8, "ip", "1: IPv4, 0: IPv6"),
    (S8, "tcp", "1: TCP, 0: UDP"),
)


def _props(path: str, names: slice) -> list[Field]:
    return [kind(f"{path}.{name}", doc=doc) for kind, name, doc in PROPS[names]]


def _register(name: str) -> Field:
    doc = f"the register at {OFFSETS[name]:#06x}"
    return U32(f"mac_reg[{name}]", path="mac_reg", at=AT[name], fixed=name in NEVER_SET, doc=doc)


def _came(name: str) -> Callable[[View], None]:
    return lambda view: view.state.came.add(name)


def _offered(name: str) -> When:
    words = f"while `{name}` is not off, and was not at the source that the state came from"
    return When(words, lambda view: bool(view.values[name]) and name in view.state.offered)


def _before_save(view: View) -> None:
    """As e1000_pre_save: nobody answers without a cable, and the main section has room for one set of properties."""
    give_up(view.state, view.state.phy_reg)
    tx = view.state.tx
    both = bool(view.values.get("migrate_tso_props"))
    view.state.mig_props = (tx.props if both or not tx.last_is_tso else tx.tso_props).copy()


def _after_load(view: View) -> None:
    """As e1000_post_load: the set that did not come is the other one's copy. But where QEMU's properties alone decide
    which registers there are, what came does too: those that the source did not have stay off until reset, so that no
    guest sees them appear."""
    state = view.state
    state.tx.props = state.mig_props.copy()
    if "migrate_tso_props" not in state.came:
        state.tx.tso_props = state.mig_props.copy()
    state.offered, state.came = state.came, set()
    state.cable = plugged_in(state.mac_reg[AT["STATUS"]], state.phy_reg)


IDENTITY = PciIdentity(
    *(0x8086, 0x100E, 0x020000, 3, 0x1AF4, 0x1100),
    bars=(Bar(128 << 10), Bar(64, io=True)),
    irq=11,
    pcie=False,
    pm=False,
    msi=False,
    reset_methods=("bus",),
)
SPACE = ConfigSpace.of(IDENTITY)
STATE = VMState(
    "e1000",
    2,
    1,
    first=2,
    fields=[
        Struct("parent_obj", of=pci_device(SPACE, express=False)),
        Unused(4, when=When("in version 1", lambda view: view.version == 1), doc="was the instance"),
        Unused(4, doc="was mmio_base"),
        U32("rxbuf_size", doc="bytes of a receive buffer, as RCTL says"),
        U32("rxbuf_min_shift", reset=1, doc="ring length >> this: as few free descriptors raise RXDMT0"),
        U32("eecd_state.val_in", doc="what the EEPROM was sent so far, bit by bit"),
        U16("eecd_state.bitnum_in", doc="bits that it was sent since its chip select"),
        U16("eecd_state.bitnum_out", doc="the bit that it sends next, counted from its first word"),
        U16("eecd_state.reading", doc="whether it sends a word"),
        U32("eecd_state.old_eecd", doc="what EECD was written last"),
        *_props("mig_props", slice(9)),
        U16("tx.size", doc="bytes of the packet that were gathered so far"),
        U16("tx.tso_frames", doc="segments of the packet that were sent so far"),
        U8("tx.sum_needed", doc="checksums to fill in; 1: IP, 2: TCP or UDP"),
        *_props("mig_props", slice(9, None)),
        Bytes("tx.header", 256, doc="the headers of the packet's segments"),
        Bytes("tx.data", 0x10000, doc="what was gathered of the packet"),
        U16("eeprom_data", num=64, fixed=True, doc="the words of the EEPROM"),
        U16("phy_reg", num=32, doc="the registers of the PHY"),
        *map(_register, BASE),
        *(
            U32("mac_reg", at=AT[name], num=count, doc=f"{name}, from {OFFSETS[name]:#06x} on")
            for name, count in TABLES.items()
        ),
    ],
    subsections=[
        VMState(
            "e1000/mit_state",
            fields=[*map(_register, MITIGATION), Flag("mit_irq_level", doc="the level of the interrupt line")],
            doc="Interrupt mitigation, compat property `mitigation`.",
            needed=_offered("mitigation"),
            after_load=_came("mitigation"),
        ),
        VMState(
            "e1000/full_mac_state",
            fields=[U32("mac_reg", num=0x8000, doc="every register, at a quarter of its offset")],
            doc="All registers, compat property `extra_mac_registers`; they overwrite those of the section.",
            needed=_offered("extra_mac_registers"),
            after_load=_came("extra_mac_registers"),
        ),
        VMState(
            "e1000/tx_tso_state",
            fields=_props("tx.tso_props", slice(None)),
            doc="The offload properties of segmented packets; those of the section are then of all others.",
            needed="migrate_tso_props",
            after_load=_came("migrate_tso_props"),
        ),
    ],
    before_save=_before_save,
    after_load=_after_load,
)


def power_on(state: Any, address: bytes, values: Mapping[str, object]) -> None:
    """What e1000_reset leaves, and the EEPROM that the device was made with; `address` is the MAC address."""
    state.mac_reg = [0] * 0x8000
    for offset, value in RESET.items():
        state.mac_reg[offset // 4] = value
    if not values.get("init-vet"):
        state.mac_reg[AT["VET"]] = 0
    state.mac_reg[AT["RA"] : AT["RA"] + 2] = struct.unpack("<II", address + b"\x00\x80")
    state.phy_reg = [PHY_RESET.get(at, 0) for at in range(32)]
    state.eeprom_data = [*struct.unpack("<3H", address), *EEPROM[3:]]
    state.eeprom_data[63] = (0xBABA - sum(state.eeprom_data[:63])) & 0xFFFF
    state.tx.props, state.tx.tso_props = state.mig_props.copy(), state.mig_props.copy()
    state.tx.last_is_tso = False
    state.mit_irq_level, state.cable = False, True
    state.came = set()
    state.offered = {name for name in ("mitigation", "extra_mac_registers") if values.get(name)}
