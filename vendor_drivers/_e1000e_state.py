"""The state of QEMU's e1000e, as its VMState description has it (hw/net/e1000e.c, 7.2 and 8.0)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from typing import Any

from mdevfs.vendor import (
    S8,
    S64,
    U8,
    U16,
    U32,
    BadState,
    Bar,
    ConfigSpace,
    Field,
    Flag,
    PciIdentity,
    Struct,
    Timer,
    Unused,
    View,
    VMState,
    pci_device,
    pci_msix,
)
from vendor_drivers._e1000_link import give_up, plugged_in
from vendor_drivers._e1000_state import AT as E1000_AT
from vendor_drivers._e1000_state import pairs, words

VECTORS, QUEUES, PHY_PAGES = 5, 2, 7
IDENTITY = PciIdentity(
    *(0x8086, 0x10D3, 0x020000, 0, 0x8086, 0x0000),
    bars=(Bar(128 << 10), Bar(128 << 10), Bar(32, io=True), Bar(16 << 10)),
    irq=16,
    link_speed=1,
    link_width=1,
    reset_methods=("pm", "bus"),
)
FLOW_CONTROL = 3 << 27  # CTRL's RFCE and TFCE
DELAYS = ("rdtr", "radv", "raid", "tadv", "tidv")

# mac_reg after reset, each offset with its value (said by QEMU 7.2 itself); RA is the address's. Then the PHY's, page 0
# first, and the EEPROM, whose words 0 to 2 are the address; its last word makes the sum 0xBABA.
RESET = pairs("""
    0000 00140241  0008 00000202  0010 00000300  0014 00000002  0038 00008100  00c4 000001f4  00e8 000001f4
    00ec 000001f4  00f0 000001f4  00f4 000001f4  00f8 000001f4  0410 00602008  0e00 00068302  0f00 00000008
    0f10 0000030d  1000 00140014  1008 00000028  1010 80000000  1028 00000002  102c 00000002  1030 c0000000
    1050 00000001  2170 00040402  2828 00010000  2928 00010000  3410 00000600  3418 00000600  3420 00000600
    3428 00000600  3840 00000403  3940 00000403  5000 00000300  5820 10000000  5b00 06800200  5b30 20000004
    5b50 00000001  b634 000088f7  b638 00000319
""")
PHY_RESET = pairs("""
    00 1140  01 794d  02 0141  03 0cb1  04 0de1  05 07e0  06 0004  07 2001  09 0f00  0a 3c00  0f 3000  10 3360
    11 ac08  50 0088  55 1046  72 4005
""")
EEPROM = words("""
    0000 0000 0000 0420  f746 2010 ffff ffff  0000 0000 026b 10d3  8086 10d3 0000 8058  0000 2001 7e7c ffff
    1000 00c8 0000 2704  6cc9 3150 070e 460b  2d84 0100 f000 0706  6000 0080 0f04 7fff  4f01 c600 0000 20ff
    0028 0003 0000 0000  0000 0003 0000 ffff  0100 c000 121c c007  ffff ffff ffff ffff  ffff ffff ffff ffff
    0000 0120 ffff 0000
""")

# Capabilities, each with the bits that a guest can write or clear: all asked of QEMU 7.2, which names both where it
# refuses a byte ("Bad config data"). AER at 0x100 ends where the serial number begins.
_MSIX, _PM, _MSI, _EXP, _AER, _SERIAL = 0xA0, 0xC8, 0xD0, 0xE0, 0x100, 0x140
_LINK_STATUS = _EXP + 0x12
_UNCORRECTABLE, _CORRECTABLE = 0x03FFF030, 0xF1C1
_EXT_TAG, _INTERNAL_ERROR = 0x20, 0x00400000


@cache
def config_space(address: bytes, ext_tag: bool, err_unc_mask: bool) -> ConfigSpace:
    """With a serial number that is the MAC address, and what the compat properties x-pcie-ext-tag and
    x-pcie-err-unc-mask change. x-pcie-extcap-init changes nothing here: there is a capability at 0x100."""
    space = ConfigSpace.of(IDENTITY).with_contents({0x06: 0x10, 0x34: _PM, _LINK_STATUS: 0x11})
    space = space.with_capability(_MSIX, bytes.fromhex("110004000300000003200000"), b"\0\0\0\xc0")
    space = space.with_capability(_PM, bytes.fromhex("01d0220000000000"), b"\0\0\0\0\3\x9f")
    space = space.with_capability(_MSI, b"\5\xe0\x80" + bytes(11), b"\0\0\x71\0\xfc" + b"\xff" * 9)
    express = struct.pack("<BBHIIIH", 0x10, _MSIX, 0x91, 0x8000 | (_EXT_TAG if ext_tag else 0), 0, 0x0411, 0)
    space = space.with_capability(_EXP, express)
    mask = (_INTERNAL_ERROR, _UNCORRECTABLE) if err_unc_mask else (0, 0)
    errors = struct.pack("<7I", 0x14020001, 0, mask[0], 0x00462030, 0, 0xE000, 0xA0).ljust(0x40, b"\0")
    free = struct.pack("<7I", 0, _UNCORRECTABLE, mask[1], _UNCORRECTABLE, _CORRECTABLE, _CORRECTABLE, 0x0140)
    space = space.with_capability(_AER, errors, free)
    serial = address[5:2:-1] + b"\xff\xff" + address[2::-1]
    return space.with_capability(_SERIAL, struct.pack("<I", 0x00010003) + serial)


def space_of(values: Mapping[str, object]) -> ConfigSpace:
    """That of a device with these migration parameters."""
    return config_space(address_of(values), bool(values.get("x-pcie-ext-tag")), bool(values.get("x-pcie-err-unc-mask")))


def address_of(values: Mapping[str, object]) -> bytes:
    """The six bytes of the parameter `mac`."""
    return bytes.fromhex(str(values["mac"]).replace(":", ""))


_TIMER = VMState(
    "e1000e-intr-timer", fields=[Timer("timer", fixed=True), Flag("running")]
)  # it stands still when saved
_TX = VMState(
    "e1000e-tx",
    fields=[
        U8("sum_needed"),
        *(kind(f"props.{name}") for kind, name in ((U8, "ipcss"), (U8, "ipcso"), (U16, "ipcse"))),
        *(kind(f"props.{name}") for kind, name in ((U8, "tucss"), (U8, "tucso"), (U16, "tucse"))),
        *(kind(f"props.{name}") for kind, name in ((U8, "hdr_len"), (U16, "mss"), (U32, "paylen"), (S8, "ip"))),
        S8("props.tcp"),
        Flag("props.tse"),
        Flag("cptse"),
        Flag("skip_cp"),
    ],
)


def _before_save(view: View) -> None:
    """As e1000e_core_pre_save: nobody answers without a cable, and what that decides of flow control is decided."""
    core = view.state.core
    if give_up(view.state, core.phy):
        core.mac[0] |= FLOW_CONTROL  # e1000e_update_flowctl_status


def _after_load(view: View) -> None:
    """As e1000e_post_load: the device properties subsys and subsys_ven are sent, and must be the target's; the cable is
    inferred."""
    for name, ours in (("subsys", IDENTITY.subsystem_device), ("subsys_ven", IDENTITY.subsystem_vendor)):
        theirs = getattr(view.state, name)
        if theirs != ours:
            raise BadState(
                "field-differs",
                rule="the values must be equal",
                field=f"e1000e/{name}",
                source=f"{theirs:#06x}",
                target=f"{ours:#06x}",
                mend="use devices with the same subsystem ids",
            )
    view.state.cable = plugged_in(view.state.core.mac[E1000_AT["STATUS"]], view.state.core.phy)


def _pending(name: str, count: int | None, *, gone: bool) -> Field:
    """Flags that QEMU 8.0 and newer do not have: what they said is in the timers."""
    return Unused(count or 1) if gone else Flag(name, num=count)


@cache
def description(*, with_timadj: bool) -> VMState:
    """The section; `with_timadj`: of QEMU 8.0 and newer."""
    return VMState(
        "e1000e",
        fields=[
            Struct("parent_obj", of=pci_device(lambda view: space_of(view.values), express=True)),
            Struct("parent_obj", of=pci_msix(VECTORS)),
            U32("ioaddr"),
            U32("core.rxbuf_min_shift", reset=5),
            U8("core.rx_desc_len"),
            U32("core.rxbuf_sizes", num=4),
            U32("core.rx_desc_buf_size"),
            U16("core.eeprom", num=64, fixed=True),
            U16("core.phy", num=PHY_PAGES * 32),
            U32("core.mac", num=0x8000),
            U8("core.permanent_mac", num=6, fixed=True),
            U32("core.delayed_causes"),
            U16("subsys", reset=IDENTITY.subsystem_device, fixed=True),
            U16("subsys_ven", reset=IDENTITY.subsystem_vendor, fixed=True),
            *(Struct(f"core.{name}", of=_TIMER) for name in (*DELAYS, "itr")),
            _pending("core.itr_intr_pending", None, gone=with_timadj),
            Struct("core.eitr", of=_TIMER, num=VECTORS),
            _pending("core.eitr_intr_pending", VECTORS, gone=with_timadj),
            U32("core.itr_guest_value"),
            U32("core.eitr_guest_value", num=VECTORS),
            U16("core.vet"),
            Struct("core.tx", of=_TX, num=QUEUES),
            *([S64("core.timadj", when="migrate-timadj")] if with_timadj else []),
        ],
        before_save=_before_save,
        after_load=_after_load,
    )


def power_on(state: Any, values: Mapping[str, object]) -> None:
    """What e1000e_core_reset leaves, and the EEPROM and the address that the device was made with."""
    core, address = state.core, address_of(values)
    for offset, value in RESET.items():
        core.mac[offset // 4] = value
    if not values.get("init-vet"):
        core.mac[0x38 // 4] = 0
    core.mac[0x5400 // 4 : 0x5408 // 4] = struct.unpack("<II", address + b"\0\x80")
    core.permanent_mac = list(address)
    for place, value in PHY_RESET.items():
        core.phy[place] = value
    core.eeprom = [*struct.unpack("<3H", address), *EEPROM[3:]]
    core.eeprom[63] = (0xBABA - sum(core.eeprom[:63])) & 0xFFFF
    core.itr_intr_pending, core.eitr_intr_pending = False, [False] * VECTORS
    core.timadj = 0
    state.cable = True
