"""A small e1000e: what differs from the e1000 in what registers do, its interrupts, its two queues.

It follows QEMU's (hw/net/e1000e_core.c, 7.2). Time passes only when `time_passes` is called: then every timer fires.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from vendor_drivers._e1000_device import (
    ALL,
    MDIC_READ,
    MDIC_READY,
    MDIC_WRITE,
    RCTL_EN,
    RXDMT0,
    RXO,
    RXT0,
    STORED,
    SUM_IP,
    SUM_TCP,
    TCTL_EN,
    TXDW,
    Context,
    Data,
    Nic,
    buffer_size,
    group_of,
    number_segment,
    put_sum,
)
from vendor_drivers._e1000_link import STATUS_LU
from vendor_drivers._e1000_state import AT as E1000_AT
from vendor_drivers._e1000_state import offsets
from vendor_drivers._e1000e_state import DELAYS, FLOW_CONTROL, VECTORS

_OWN = offsets("""
    CTRL_EXT 0018  EIAC 00dc  IAM 00e0  IVAR 00e4  EITR0 00e8  EITR1 00ec  EITR2 00f0  EITR3 00f4  EITR4 00f8
    PSRCTL 2170  RXDCTL 2828  RDBAL1 2900  RDBAH1 2904  RDLEN1 2908  RDH1 2910  RDT1 2918  RXDCTL1 2928  RAID 2c08
    TIDV 3820  TDBAL1 3900  TDBAH1 3904  TDLEN1 3908  TDH1 3910  TDT1 3918  TXDCTL1 3928  RXCSUM 5000  RFCTL 5008
    MRQC 5818  RETA 5c00  RSSRK 5c80  SYSTIML b600  SYSTIMH b604  TIMINCA b608  TIMADJL b60c  TIMADJH b610
""")
AT = {**E1000_AT, **{name: offset // 4 for name, offset in _OWN.items()}}
TABLES = {"RA": 32, "MTA": 128, "VFTA": 128, "RETA": 32, "RSSRK": 10}
RXQ0, TXQ0, OTHER = 1 << 20, 1 << 22, 1 << 24
# In ICR: LSC, RXO, MDAC, SRPD, ACK and MNG, which raise OTHER with MSI-X; and the bit that stands while any cause does.
OTHER_CAUSES, ASSERTED = 0x70244, 1 << 31
CAUSES = {RXQ0: 0, 1 << 21: 4, TXQ0: 8, 1 << 23: 12, OTHER: 16}  # each with its place in IVAR
MIN_THROTTLE, THROTTLE_STEP, DELAY_STEP = 500, 256, 1024  # the steps in nanoseconds
PACKET_SPLIT, EXTENDED = 0x0400, 0x8000
MSIX_CONTROL, MSIX_ENABLE, MSIX_MASK = 0xA3, 0x80, 0x40


class E1000eNic(Nic):
    """The registers over a state; `received` are descriptor length and buffer sizes of packets that came in."""

    at = AT
    stored = STORED | {
        **dict.fromkeys(("CTRL_EXT", "EIAC", "IAM", "IVAR", "RXCSUM", "RFCTL", "MRQC", "TIMINCA", "TIMADJL"), ALL),
        **dict.fromkeys(("RXDCTL", "RXDCTL1", "TXDCTL1", "RDBAL1", "RDBAH1", "TDBAL1", "TDBAH1"), ALL),
        **dict.fromkeys(("RDH1", "RDT1", "TDH1", "TDT1", "RAID", "TIDV"), 0xFFFF),
        **dict.fromkeys(("RDLEN1", "TDLEN1"), 0xFFF80),
    }

    def __init__(self, state: Any, values: Mapping[str, object]) -> None:
        self.core = state.core
        self.adjusts_time = bool(values.get("migrate-timadj"))  # without it nobody could take the adjustment along
        self.received: list[tuple[int, tuple[int, ...]]] = []
        super().__init__(state, values)

    def _places(self) -> tuple[list[int], list[int], list[int]]:
        return self.core.mac, self.core.phy, self.core.eeprom

    def _missing(self, values: Mapping[str, object]) -> frozenset[str]:
        return frozenset()

    # -- what the guest reads and writes

    def read(self, name: str, index: int = 0) -> int:
        if name == "ITR":
            return int(self.core.itr_guest_value)
        if name.startswith("EITR"):
            return int(self.core.eitr_guest_value[int(name[4:])])
        if name == "EECD":
            return self["EECD"]
        if name in ("SYSTIML", "SYSTIMH"):
            return int(self.core.timadj >> (32 if name[-1] == "H" else 0) & ALL)
        return super().read(name, index)

    def write(self, name: str, value: int, index: int = 0) -> None:
        core = self.core
        if name == "ITR":
            core.itr_guest_value, self[name] = value & 0xFFFF, max(value & 0xFFFF, MIN_THROTTLE)
        elif name.startswith("EITR"):
            core.eitr_guest_value[int(name[4:])] = value & 0xFFFF
            self[name] = max(value & 0xFFFF, MIN_THROTTLE)
        elif name == "VET":
            core.vet = self["VET"] = value & 0xFFFF
        elif name in ("RETA", "RSSRK"):
            self.mac[self.at[name] + index] = value
        elif name in ("RCTL", "PSRCTL", "RFCTL"):
            self[name] = value
            self._set_buffers()
        elif name == "TIMADJH":
            self._adjust_time(value)
        elif name == "EECD":
            self[name] = self[name] & 0x0300 | value & 0xC0
        else:
            super().write(name, value, index)

    def _set_buffers(self) -> None:
        core, control, split = self.core, self["RCTL"], self["PSRCTL"]
        core.rxbuf_min_shift = (control >> 8 & 3) + 1 + 4
        core.rx_desc_len = 32 if self["RFCTL"] & EXTENDED and control & PACKET_SPLIT else 16
        if control & PACKET_SPLIT:
            core.rxbuf_sizes = [(split & 0x7F) * 128, *((split >> shift & 0x3F) * 1024 for shift in (8, 16, 24))]
        else:
            core.rxbuf_sizes = [(control >> 27 & 15) * 1024 or buffer_size(control), 0, 0, 0]
        core.rx_desc_buf_size = sum(core.rxbuf_sizes)

    def _adjust_time(self, value: int) -> None:
        self["TIMADJH"] = value
        if self.adjusts_time:
            total = self.core.timadj + (value << 32 | self["TIMADJL"]) & (1 << 64) - 1
            self.core.timadj = total - (1 << 64) if total >> 63 else total

    def _mdic(self, value: int) -> None:
        """Register 31 chooses the page of all others."""
        at, page = value >> 16 & 31, self.phy[31] % 7
        place = 31 if at == 31 else page * 32 + at
        if place < 31:
            super()._mdic(value)
            return
        if value & MDIC_WRITE:
            self.phy[place] = value & 0xFFFF
        elif value & MDIC_READ:
            value = value & ~0xFFFF | self.phy[place]
        self["MDIC"] = value | MDIC_READY

    # -- the link, and interrupts

    def set_link(self, *, up: bool) -> None:
        super().set_link(up=up)
        if up:
            self["CTRL"] |= FLOW_CONTROL

    def _interrupt(self, causes: int) -> None:
        if self.state.parent_obj.config[MSIX_CONTROL] & MSIX_ENABLE and causes & OTHER_CAUSES:
            causes |= OTHER
        causes = causes | ASSERTED if causes & ~ASSERTED else 0
        self["ICR"] = self["ICS"] = causes
        pending, config, irq = causes & self["IMS"], self.state.parent_obj.config, self.state.parent_obj.irq_state
        if config[MSIX_CONTROL] & MSIX_ENABLE:
            for cause, shift in CAUSES.items():
                entry = self["IVAR"] >> shift & 15
                if pending & cause and entry & 8 and entry & 7 < VECTORS:
                    self._notify(entry & 7)
        elif not pending:
            irq[0] = 0
        elif self.core.itr.running:
            self.core.itr_intr_pending = True
        else:
            irq[0] = 1
            if self.core.itr_guest_value:
                _arm(self.core.itr, self["ITR"] * THROTTLE_STEP)

    def _notify(self, vector: int) -> None:
        core, table = self.core, self.state.parent_obj.msix
        if table[16 * vector + 12] & 1 or self.state.parent_obj.config[MSIX_CONTROL] & MSIX_MASK:
            table[16 * VECTORS] |= 1 << vector
        elif core.eitr[vector].running:
            core.eitr_intr_pending[vector] = True
        elif core.eitr_guest_value[vector]:
            _arm(core.eitr[vector], self[f"EITR{vector}"] * THROTTLE_STEP)

    def _delay(self, causes: int, *timers: str) -> None:
        """Raises causes at once, or when the first of these timers fires that the guest has set."""
        wanted = [name for name in timers if self[name.upper()]]
        for name in wanted:
            _arm(getattr(self.core, name), self[name.upper()] * DELAY_STEP)
        if wanted:
            self.core.delayed_causes |= causes
        else:
            self.interrupt(causes)

    def time_passes(self) -> None:
        """Every timer fires."""
        core = self.core
        for timer in (core.itr, *core.eitr, *(getattr(core, name) for name in DELAYS)):
            timer.running, timer.timer = False, -1
        causes, core.delayed_causes = core.delayed_causes, 0
        core.itr_intr_pending, core.eitr_intr_pending = False, [False] * VECTORS
        self.interrupt(causes)
        self.negotiated()

    # -- packets

    def send(self, queue: int, *descriptors: Context | Data) -> None:
        """The guest puts descriptors, of whole packets, at the tail of one of the rings. One without data has an
        address that is nowhere: the rest of that packet is skipped."""
        end = "1" if queue else ""
        ring, tx = self[f"TDLEN{end}"] // 16, self.core.tx[queue]
        if not ring or not self["TCTL"] & TCTL_EN:
            return
        for one in descriptors:
            if isinstance(one, Context):
                vars(tx.props).update(one.props, tse=one.tso)
            else:
                self._part(tx, one)
        self[f"TDT{end}"] = self[f"TDH{end}"] = (self[f"TDT{end}"] + len(descriptors)) % ring
        self._delay(TXDW | (TXQ0 << queue), "tidv", "tadv")

    def _part(self, tx: Any, one: Data) -> None:
        tx.sum_needed, tx.cptse = one.sums, one.tso
        tx.skip_cp = tx.skip_cp or not one.data
        if not one.end:
            return
        if not tx.skip_cp:
            for number, packet in enumerate(_cut(one.data, tx)):
                self._put_out(packet, tx, number)
        tx.skip_cp = False

    def _put_out(self, packet: bytes, tx: Any, number: int) -> None:
        buffer = bytearray(packet).ljust(len(packet) + 512, b"\0")  # for offsets that are beyond the packet
        out = SimpleNamespace(data=buffer, size=len(packet), sum_needed=tx.sum_needed, tso_frames=number)
        if tx.cptse and number_segment(out, tx.props):
            self._add("TSCTC", 1)
        if tx.sum_needed & SUM_TCP:
            put_sum(out, tx.props.tucss, tx.props.tucso, tx.props.tucse)
        if tx.sum_needed & SUM_IP:
            put_sum(out, tx.props.ipcss, tx.props.ipcso, tx.props.ipcse)
        self.sent.append(bytes(out.data[: out.size]))
        self.count("T", out.size, group_of(packet))

    def receive(self, packet: bytes) -> None:
        """A packet from the cable, for the first queue."""
        if not (self["RCTL"] & RCTL_EN and self["STATUS"] & STATUS_LU and self._wanted(packet)):
            return
        core, ring = self.core, self["RDLEN"] // 16
        size = core.rx_desc_buf_size or 2048
        free = (self["RDT"] - self["RDH"]) % ring if ring else 0
        need = -(-len(packet) // size)
        if need > free:
            self._add("MPC", 1)
            self.interrupt(RXO | OTHER)
            return
        self["RDH"] = (self["RDH"] + need) % ring
        self.received.append((core.rx_desc_len, tuple(core.rxbuf_sizes)))
        self.count("R", len(packet), group_of(packet))
        if (free - need) * 16 <= self["RDLEN"] >> core.rxbuf_min_shift - 4:
            self.interrupt(RXDMT0 | RXQ0)
        self._delay(RXT0 | RXQ0, "rdtr", "radv", *(("raid",) if len(packet) < 128 else ()))


def _arm(timer: Any, delay: int) -> None:
    timer.running, timer.timer = True, delay


def _cut(data: bytes, tx: Any) -> list[bytes]:
    props = tx.props
    if not (tx.cptse and props.mss and len(data) > props.hdr_len):
        return [data]
    header, body = data[: props.hdr_len], data[props.hdr_len :]
    return [header + body[at : at + props.mss] for at in range(0, len(body), props.mss)]
