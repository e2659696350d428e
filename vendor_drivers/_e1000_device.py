"""A small e1000: what reads and writes of its registers do, and what becomes of the descriptors that its guest posts.

It follows QEMU's (hw/net/e1000.c, 7.2) without its timers: time does not pass, interrupts are never held back, and
autonegotiation is over when the guest looks again.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from vendor_drivers._e1000_link import PHY_AUTONEG, PHY_RESTART, STATUS_LU, Link
from vendor_drivers._e1000_state import AT, EXTRA, MITIGATION, SIZES

ALL = 0xFFFFFFFF
# Interrupt causes, and bits of registers
TXDW, TXQE, RXDMT0, RXO, RXT0, MDAC = 0x01, 0x02, 0x10, 0x40, 0x80, 0x200
CTRL_RST, TCTL_EN, RCTL_EN, RCTL_UPE, RCTL_MPE, RCTL_BAM = 1 << 26, 2, 2, 8, 16, 1 << 15
EECD_SK, EECD_CS, EECD_DI, EECD_DO, EECD_PRES, EECD_GNT, EECD_KEPT = 0x01, 0x02, 0x04, 0x08, 0x100, 0x80, 0x77
MDIC_READ, MDIC_WRITE, MDIC_READY, MDIC_INT, MDIC_ERROR = 2 << 26, 1 << 26, 1 << 28, 1 << 29, 1 << 30
PHY_READABLE = frozenset({0, 1, 2, 3, 4, 5, 6, 9, 10, 16, 17, 20, 21})
PHY_WRITABLE = frozenset({0, 4, 9, 16, 20})
SUM_IP, SUM_TCP = 1, 2
BROADCAST = b"\xff" * 6

# What a write stores, by register; tables and those with a method of their own are not here.
STORED = {
    **dict.fromkeys(
        ("PBA", "EERD", "SWSM", "WUFC", "TDBAL", "TDBAH", "TXDCTL", "RDBAL", "RDBAH", "LEDCTL", "VET"), ALL
    ),
    **dict.fromkeys(("TDH", "RDH", "RDT", *MITIGATION), 0xFFFF),
    **dict.fromkeys(("WUC", "WUS", "IPAV", "AIT"), ALL),
    **dict.fromkeys(("TDLEN", "RDLEN"), 0xFFF80),
}
CLEARED = frozenset(("GPRC", "GPTC", "TPR", "TPT", "BPRC", "MPRC", "BPTC", "MPTC", "TSCTC")) | {
    f"P{way}C{size}" for way in "RT" for size in SIZES
}
CLEARED_WIDE = {"TORH": "TORL", "TOTH": "TOTL", "GORCH": "GORCL", "GOTCH": "GOTCL"}


@frozen
class Context:
    """A context descriptor: where checksums go and how packets are cut, for those that follow."""

    tso: bool
    props: Mapping[str, int]


@frozen
class Data:
    """A data descriptor: a part of a packet, the last one where `end`. `sums`: which checksums are put in."""

    data: bytes
    tso: bool = False
    end: bool = True
    sums: int = 0


class Nic(Link):
    """The registers of one device over its state; `sent` are the packets that have gone out since this was made."""

    at: Mapping[str, int] = AT
    stored: Mapping[str, int] = STORED

    def __init__(self, state: Any, values: Mapping[str, object]) -> None:
        self.state = state
        self.values = values
        self.sent: list[bytes] = []
        self.mac, self.phy, self.eeprom = self._places()
        self._off = self._missing(values)

    def _places(self) -> tuple[list[int], list[int], list[int]]:
        """Where the state has the registers, those of the PHY, and the EEPROM."""
        return self.state.mac_reg, self.state.phy_reg, self.state.eeprom_data

    def _missing(self, values: Mapping[str, object]) -> frozenset[str]:
        """The registers that this device does not offer."""
        on = {name for name in self.state.offered if values.get(name)}
        return frozenset((() if "mitigation" in on else MITIGATION) + (() if "extra_mac_registers" in on else EXTRA))

    def __getitem__(self, name: str) -> int:
        return self.mac[self.at[name]]

    def __setitem__(self, name: str, value: int) -> None:
        self.mac[self.at[name]] = value

    # -- what the guest reads and writes

    def read(self, name: str, index: int = 0) -> int:
        """A register, or one of a table; 0 where the device does not offer it."""
        if name in self._off:
            return 0
        if name == "EECD":
            return self._eecd()
        if name == "EERD":
            return self._eerd()
        value = self.mac[self.at[name] + index]
        if name == "ICR":
            self._interrupt(0)
        elif name in CLEARED:
            self[name] = 0
        elif name in CLEARED_WIDE:
            self[name] = self[CLEARED_WIDE[name]] = 0
        return value

    def write(self, name: str, value: int, index: int = 0) -> None:
        """A register, or one of a table; what is read-only, or not offered, stays."""
        if name in self._off:
            return
        if name in ("RA", "MTA", "VFTA"):
            self.mac[self.at[name] + index] = value
        elif name in self.stored:
            self[name] = value & self.stored[name]
        elif name in ("ICS", "IMS", "IMC", "ICR"):
            self._interrupt_write(name, value)
        elif name == "CTRL":
            self["CTRL"] = value & ~CTRL_RST
        elif name == "RCTL":
            self["RCTL"] = value
            self.state.rxbuf_size = buffer_size(value)
            self.state.rxbuf_min_shift = (value >> 8 & 3) + 1
        elif name in ("TCTL", "TDT"):
            self[name] = value
            self["TDT"] &= 0xFFFF
        elif name == "MDIC":
            self._mdic(value)
        elif name == "EECD":
            self._eecd_write(value)

    def _interrupt(self, causes: int) -> None:
        self["ICR"] = self["ICS"] = causes
        level = bool(causes & self["IMS"])
        self.state.mit_irq_level = level
        self.state.parent_obj.irq_state[0] = int(level)

    def _interrupt_write(self, name: str, value: int) -> None:
        if name == "IMS":
            self["IMS"] |= value
        elif name == "IMC":
            self["IMS"] &= ~value
        causes = {"ICS": self["ICR"] | value, "ICR": self["ICR"] & ~value}
        self._interrupt(causes.get(name, self["ICR"]))

    def interrupt(self, causes: int) -> None:
        self._interrupt(self["ICR"] | causes)

    def _mdic(self, value: int) -> None:
        at, data, phy = value >> 16 & 31, value & 0xFFFF, self.phy
        if value >> 21 & 31 != 1:
            value = self["MDIC"] | MDIC_ERROR
        elif value & MDIC_READ:
            value = value & ~0xFFFF | phy[at] if at in PHY_READABLE else value | MDIC_ERROR
        elif value & MDIC_WRITE and at not in PHY_WRITABLE:
            value |= MDIC_ERROR
        elif value & MDIC_WRITE and at == 0:
            phy[0] = data & ~(0x803F | PHY_RESTART)
            if data & PHY_RESTART and data & PHY_AUTONEG:
                self.set_link(up=False)
        elif value & MDIC_WRITE:
            phy[at] = data
        self["MDIC"] = value | MDIC_READY
        if value & MDIC_INT:
            self.interrupt(MDAC)

    # -- the EEPROM, by the register that reads words, and by its wires

    def _eerd(self) -> int:
        held = self["EERD"]
        if not held & 1:
            return held
        asked, at = held & ~1 | 0x10, (held & ~1) >> 8
        return asked | self.eeprom[at] << 16 if at < 64 else asked

    def _eecd(self) -> int:
        wires = self.state.eecd_state
        word = self.eeprom[wires.bitnum_out >> 4 & 0x3F]
        high = not wires.reading or word >> (wires.bitnum_out & 0xF ^ 0xF) & 1
        return int(EECD_PRES | EECD_GNT | wires.old_eecd | (EECD_DO if high else 0))

    def _eecd_write(self, value: int) -> None:
        wires = self.state.eecd_state
        changed = value ^ wires.old_eecd
        wires.old_eecd = value & EECD_KEPT
        if not value & EECD_CS:
            return
        if changed & EECD_CS:
            wires.val_in = wires.bitnum_in = wires.bitnum_out = wires.reading = 0
        if not changed & EECD_SK:
            return
        if not value & EECD_SK:
            wires.bitnum_out = wires.bitnum_out + 1 & 0xFFFF
            return
        wires.val_in = (wires.val_in << 1 | bool(value & EECD_DI)) & ALL
        wires.bitnum_in = wires.bitnum_in + 1 & 0xFFFF
        if wires.bitnum_in == 9 and not wires.reading:
            wires.bitnum_out = ((wires.val_in & 0x3F) << 4) - 1 & 0xFFFF
            wires.reading = int(wires.val_in >> 6 & 7 == 6)

    # -- packets out

    def transmit(self, *descriptors: Context | Data) -> None:
        """The guest puts descriptors at its ring's tail and moves the tail on."""
        ring = self["TDLEN"] // 16
        if not ring or not self["TCTL"] & TCTL_EN:
            return
        self.write("TDT", (self["TDT"] + len(descriptors)) % ring)
        for one in descriptors:
            if isinstance(one, Context):
                self._context(one)
            else:
                self._data(one)
        self["TDH"] = self["TDT"]
        self.interrupt(TXDW | TXQE)

    def _context(self, one: Context) -> None:
        tx = self.state.tx
        vars(tx.tso_props if one.tso else tx.props).update(one.props)
        tx.last_is_tso = one.tso
        if one.tso:
            tx.tso_frames = 0

    def _data(self, one: Data) -> None:
        tx = self.state.tx
        if tx.size == 0:
            tx.sum_needed = one.sums
        if one.tso:
            self._cut(one.data)
        else:
            self._append(one.data)
        if one.end:
            if not (one.tso and tx.size < tx.tso_props.hdr_len):
                self._send(tso=one.tso)
            tx.tso_frames = tx.sum_needed = tx.size = 0

    def _append(self, data: bytes) -> None:
        tx = self.state.tx
        data = data[: 0xFFFF - tx.size]
        tx.data[tx.size : tx.size + len(data)] = data
        tx.size += len(data)

    def _cut(self, data: bytes) -> None:
        """Segmentation: each time that header and segment are whole they go out, and the header begins the next."""
        tx = self.state.tx
        header, whole = tx.tso_props.hdr_len, tx.tso_props.hdr_len + tx.tso_props.mss
        while data and tx.size < whole:
            part, before = data[: whole - tx.size], tx.size
            self._append(part)
            if before < header <= tx.size:
                tx.header[:header] = tx.data[:header]
            if tx.size == whole:
                self._send(tso=True)
                tx.data[:header] = tx.header[:header]
                tx.size = header
            data = data[len(part) :]

    def _send(self, *, tso: bool) -> None:
        tx = self.state.tx
        props = tx.tso_props if tso else tx.props
        if tso and number_segment(tx, props):
            self._add("TSCTC", 1)
        if tx.sum_needed & SUM_TCP:
            put_sum(tx, props.tucss, props.tucso, props.tucse)
        if tx.sum_needed & SUM_IP:
            put_sum(tx, props.ipcss, props.ipcso, props.ipcse)
        packet = bytes(tx.data[: tx.size])
        self.sent.append(packet)
        self.count("T", len(packet), group_of(packet))

    # -- packets in

    def receive(self, packet: bytes) -> None:
        """A packet from the cable."""
        if not (self["RCTL"] & RCTL_EN and self["STATUS"] & STATUS_LU and self._wanted(packet)):
            return
        ring, size = self["RDLEN"] // 16, self.state.rxbuf_size or 2048
        free = (self["RDT"] - self["RDH"]) % ring if ring else 0
        need = -(-len(packet) // size)
        if need > free:
            self._add("MPC", 1)
            self._add("RNBC", 1)
            self.interrupt(RXO)
            return
        self["RDH"] = (self["RDH"] + need) % ring
        self.count("R", len(packet), group_of(packet))
        low = (free - need) * 16 <= self["RDLEN"] >> self.state.rxbuf_min_shift
        self.interrupt(RXT0 | (RXDMT0 if low else 0))

    def _wanted(self, packet: bytes) -> bool:
        control, group = self["RCTL"], group_of(packet)
        if group == "B":
            return bool(control & RCTL_BAM)
        if group == "M":
            at = (packet[4] >> 4 | packet[5] << 4) & 0xFFF
            return bool(control & RCTL_MPE or self.read("MTA", at >> 5) >> (at & 31) & 1)
        wanted = int.from_bytes(packet[:6], "little") | 1 << 63
        filters = (self.read("RA", at) | self.read("RA", at + 1) << 32 for at in range(0, 32, 2))
        return bool(control & RCTL_UPE) or any(one & (1 << 63 | (1 << 48) - 1) == wanted for one in filters)

    # -- statistics

    def count(self, way: str, size: int, group: str, times: int = 1) -> None:
        """`times` packets of `size` bytes, sent (T) or received (R), to a group (B, M) or not."""
        bucket = next((one for one in SIZES if size <= int(one)), SIZES[-1])
        for name in (f"TP{way}", f"G{'P'}{way}C", f"P{way}C{bucket}"):
            self._add(name, times)
        if group:
            self._add(f"{group}P{way}C", times)
        for low, high in ((f"TO{way}L", f"TO{way}H"), (f"GO{way}CL", f"GO{way}CH")):
            total = min((self[high] << 32 | self[low]) + size * times, (1 << 64) - 1)
            self[low], self[high] = total & ALL, total >> 32

    def _add(self, name: str, times: int) -> None:
        self[name] = min(self[name] + times, ALL)


def buffer_size(control: int) -> int:
    """Bytes of a receive buffer, as RCTL says (BSIZE, and BSEX for 16 times as many)."""
    size = (2048, 1024, 512, 256)[control >> 16 & 3]
    return size * 16 if control >> 25 & 1 and size < 2048 else size


def group_of(packet: bytes) -> str:
    """B for broadcast, M for multicast, empty for one receiver."""
    return "B" if packet[:6] == BROADCAST else "M" if packet[:1] and packet[0] & 1 else ""


def number_segment(tx: Any, props: Any) -> bool:
    """Writes lengths, identification and sequence number into a segment's header; whether it was the last of many."""
    done, length = tx.tso_frames * props.mss, (tx.size - props.tucss) & 0xFFFF
    if props.ip:
        _add16(tx.data, props.ipcss + 2, tx.size - props.ipcss, keep=False)
        _add16(tx.data, props.ipcss + 4, tx.tso_frames)
    else:
        _add16(tx.data, props.ipcss + 4, tx.size - props.ipcss, keep=False)
    last = False
    if props.tcp:
        (number,) = struct.unpack_from(">I", tx.data, props.tucss + 4)
        struct.pack_into(">I", tx.data, props.tucss + 4, number + done & ALL)
        last = bool(tx.tso_frames) and props.paylen - done <= props.mss
        if props.paylen - done > props.mss:
            tx.data[props.tucss + 13] &= ~9 & 0xFF  # PSH, FIN
    else:
        _add16(tx.data, props.tucss + 4, length, keep=False)
    if tx.sum_needed & SUM_TCP:  # the pseudo header's sum is there, without the length
        _add16(tx.data, props.tucso, length, fold=True)
    tx.tso_frames = tx.tso_frames + 1 & 0xFFFF
    return last


def _add16(data: bytearray, at: int, value: int, *, keep: bool = True, fold: bool = False) -> None:
    total = (struct.unpack_from(">H", data, at)[0] if keep else 0) + value
    struct.pack_into(">H", data, at, (total + (total >> 16 if fold else 0)) & 0xFFFF)


def put_sum(tx: Any, start: int, at: int, end: int) -> None:
    """The internet checksum (RFC 1071) of the packet's bytes from `start` to `end`, 0 for its last one."""
    stop = end + 1 if 0 < end < tx.size else tx.size
    if at >= stop - 1:
        return
    covered = bytes(tx.data[start:stop]) + b"\0" * (stop - start & 1)
    total = sum(struct.unpack(f">{len(covered) // 2}H", covered))
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into(">H", tx.data, at, ~(total + (total >> 16)) & 0xFFFF or 0xFFFF)
