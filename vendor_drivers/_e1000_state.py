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

# Offsets of the 82540EM's registers (Intel's 8254x manual); in mac_reg each is at a quarter of it.
OFFSETS = {
    "CTRL": 0x0000,
    "STATUS": 0x0008,
    "EECD": 0x0010,
    "EERD": 0x0014,
    "MDIC": 0x0020,
    "VET": 0x0038,
    "ICR": 0x00C0,
    "ITR": 0x00C4,
    "ICS": 0x00C8,
    "IMS": 0x00D0,
    "IMC": 0x00D8,
    "RCTL": 0x0100,
    "TCTL": 0x0400,
    "AIT": 0x0458,
    "LEDCTL": 0x0E00,
    "PBA": 0x1000,
    "RDBAL": 0x2800,
    "RDBAH": 0x2804,
    "RDLEN": 0x2808,
    "RDH": 0x2810,
    "RDT": 0x2818,
    "RDTR": 0x2820,
    "RADV": 0x282C,
    "TDBAL": 0x3800,
    "TDBAH": 0x3804,
    "TDLEN": 0x3808,
    "TDH": 0x3810,
    "TDT": 0x3818,
    "TXDCTL": 0x3828,
    "TADV": 0x382C,
    "MPC": 0x4010,
    "PRC64": 0x405C,
    "PRC127": 0x4060,
    "PRC255": 0x4064,
    "PRC511": 0x4068,
    "PRC1023": 0x406C,
    "PRC1522": 0x4070,
    "GPRC": 0x4074,
    "BPRC": 0x4078,
    "MPRC": 0x407C,
    "GPTC": 0x4080,
    "GORCL": 0x4088,
    "GORCH": 0x408C,
    "GOTCL": 0x4090,
    "GOTCH": 0x4094,
    "RNBC": 0x40A0,
    "TORL": 0x40C0,
    "TORH": 0x40C4,
    "TOTL": 0x40C8,
    "TOTH": 0x40CC,
    "TPR": 0x40D0,
    "TPT": 0x40D4,
    "PTC64": 0x40D8,
    "PTC127": 0x40DC,
    "PTC255": 0x40E0,
    "PTC511": 0x40E4,
    "PTC1023": 0x40E8,
    "PTC1522": 0x40EC,
    "MPTC": 0x40F0,
    "BPTC": 0x40F4,
    "TSCTC": 0x40F8,
    "MTA": 0x5200,
    "RA": 0x5400,
    "VFTA": 0x5600,
    "WUC": 0x5800,
    "WUFC": 0x5808,
    "WUS": 0x5810,
    "MANC": 0x5820,
    "IPAV": 0x5838,
    "SWSM": 0x5B50,
}
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
RESET = {
    "CTRL": 0x00140240,
    "STATUS": 0x80080783,
    "LEDCTL": 0x0602,
    "PBA": 0x00100030,
    "MANC": 0x00222300,
    "VET": 0x8100,
}
PHY_RESET = {0: 0x1140, 1: 0x794D, 2: 0x0141, 3: 0x0C20, 4: 0x0DE1, 5: 0x01E0, 9: 0x0E00, 10: 0x3C00} | {
    16: 0x0360,
    17: 0xAC00,
    20: 0x0D60,
}
EEPROM = [  # words 0 to 2 are the address, the last makes the sum 0xBABA
    *(0x0000, 0x0000, 0x0000, 0x0000, 0xFFFF, 0x0000, 0x0000, 0x0000, 0x3000, 0x1000, 0x6403, 0x100E, 0x8086, 0x100E),
    *(0x8086, 0x3040, 0x0008, 0x2000, 0x7E14, 0x0048, 0x1000, 0x00D8, 0x0000, 0x2700, 0x6CC9, 0x3150, 0x0722, 0x040B),
    *(0x0984, 0x0000, 0xC000, 0x0706, 0x1008, 0x0000, 0x0F04, 0x7FFF, 0x4D01, *[0xFFFF] * 11, 0x0100, 0x4000, 0x121C),
    *[0xFFFF] * 12,
    0x0000,
]

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
    """The main section has room for one set of properties (e1000_pre_save)."""
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


IDENTITY = PciIdentity(
    *(0x8086, 0x100E, 0x020000, 3, 0x1AF4, 0x1100),
    bars=(Bar(128 << 10), Bar(64, io=True)),
    irq=11,
    pcie=False,
    reset_methods=("bus",),
)
SPACE = ConfigSpace.of(IDENTITY)
STATE = VMState(
    "e1000",
    2,
    1,
    first=2,
    fields=[
        Struct("parent_obj", of=pci_device(SPACE)),
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
    for name, value in RESET.items():
        state.mac_reg[AT[name]] = value
    if not values.get("init-vet"):
        state.mac_reg[AT["VET"]] = 0
    state.mac_reg[AT["RA"] : AT["RA"] + 2] = struct.unpack("<II", address + b"\x00\x80")
    state.phy_reg = [PHY_RESET.get(at, 0) for at in range(32)]
    state.eeprom_data = [*struct.unpack("<3H", address), *EEPROM[3:]]
    state.eeprom_data[63] = (0xBABA - sum(state.eeprom_data[:63])) & 0xFFFF
    state.tx.props, state.tx.tso_props = state.mig_props.copy(), state.mig_props.copy()
    state.tx.last_is_tso = False
    state.mit_irq_level = False
    state.came = set()
    state.offered = {name for name in ("mitigation", "extra_mac_registers") if values.get(name)}
