"""mtty's migration data as the kernel lays it out, and its serial ports (samples/vfio-mdev/mtty.c, Linux 6.7).

A port is a 16550 whose transmitter is wired to its own receiver: what the guest writes, it reads.
"""

from __future__ import annotations

import errno
from random import Random
from typing import Any

from mdevfs.vendor import U8, U16, U32, U64, BadState, Flag, Page, Struct, Unused, View, VMState

MAGIC = 0x7E9D09898C3E2C4E
MAJOR, MINOR, FLAGS = 1, 0, 0

# linux/serial_reg.h: registers, and those bits that do something here
RX = TX = 0
IER, IIR, LCR, MCR, LSR, MSR, SCR = range(1, 8)
FCR = IIR
IER_RDI, IER_THRI, IER_RLSI, IER_MSI = 1, 2, 4, 8
IIR_MSI, IIR_NO_INT, IIR_THRI, IIR_RDI, IIR_RLSI = 0, 1, 2, 4, 6
FCR_ENABLE, FCR_CLEAR, LCR_DLAB = 0x01, 0x06, 0x80
MCR_LINES, MCR_AFE = 0x03, 0x20
LSR_DR, LSR_OE, LSR_EMPTY = 0x01, 0x02, 0x60
MSR_PRESENT, MSR_CLEAR_TO_SEND = 0xA2, 0x11
FIFO = 16


def _say(view: View) -> None:
    view.state.nr_ports = view.values["ports"]


def _check(view: View) -> None:
    """One check for all, as mtty_resume_write does it once the header is complete."""
    wanted = {"magic": MAGIC, "major_ver": MAJOR, "minor_ver": MINOR, "nr_ports": view.values["ports"], "flags": FLAGS}
    wrong = [name for name, value in wanted.items() if getattr(view.state, name) != value]
    if wrong:
        raise BadState(
            "mtty-header",
            errno.EFAULT,
            rule="the header of the migration data must be the target's",
            field=f"mtty_data/header:mtty_header/{wrong[0]}",
            offset=OFFSETS[wrong[0]],
            source=", ".join(f"{name} {getattr(view.state, name):#x}" for name in wrong),
            target=", ".join(f"{name} {wanted[name]:#x}" for name in wrong),
            mend="choose a source of this type, with this version of mtty",
        )


HEADER = VMState(
    "mtty_header",
    fields=[
        U64("magic", reset=MAGIC, fixed=True),
        U32("major_ver", reset=MAJOR, fixed=True),
        U32("minor_ver", reset=MINOR, fixed=True),
        U32("nr_ports", fixed=True),
        U32("flags", reset=FLAGS, fixed=True),
    ],
    before_save=_say,
    after_load=_check,
)
OFFSETS = {"magic": 0, "major_ver": 8, "minor_ver": 12, "nr_ports": 16, "flags": 20}
PORT = VMState(
    "serial_port",
    fields=[
        U8("uart_reg", num=8, doc="what was written to IER, LCR, MCR and SCR"),
        U8("fifo", num=FIFO),
        U8("head"),
        U8("tail"),
        U8("count"),
        Flag("dlab", doc="registers 0 and 1 are the divisor"),
        Flag("overrun"),
        Unused(1),
        U16("divisor"),
        U8("fcr"),
        U8("max_fifo_size", doc="16, or 1 while the FIFO is off; 0 until FCR is written"),
        U8("intr_trigger_level"),
        Unused(1),
    ],
)
STATE = VMState(
    "mtty_data", fields=[Struct("header", of=HEADER), Struct("ports", of=PORT, num="ports")], bare="<", initial=24
)

PAGES = [
    Page(
        code="mtty-header",
        title="another header of mtty's migration data",
        what="The first 24 bytes give a magic number, a major and a minor version, the number of ports and flags. The\n"
        "kernel's driver takes its own and no other, and says so with the write that completes them.",
        example="source nr_ports 0x2, target nr_ports 0x1",
        side="both",
        mend="Move between mdevs of one type (mtty-1 or mtty-2), of drivers with the same version of the data.",
        source="Linux 6.7, samples/vfio-mdev/mtty.c, mtty_resume_write: EFAULT",
    )
]


def write(port: Any, register: int, data: int) -> None:
    """What the guest's write of a byte does (handle_bar_write)."""
    if register == TX and port.dlab:
        port.divisor |= data
    elif register == TX:
        _transmit(port, data)
    elif register == IER and port.dlab:
        port.divisor |= data << 8
    elif register == FCR:
        port.fcr = data
        if data & FCR_CLEAR:
            port.count = port.head = port.tail = 0
        port.intr_trigger_level = 1  # whatever the guest asks for
        port.max_fifo_size = FIFO if data & FCR_ENABLE else 1
    elif register in (IER, LCR, MCR, SCR):
        port.uart_reg[register] = data
        if register == LCR:
            port.dlab = bool(data & LCR_DLAB)
            port.divisor = 0 if port.dlab else port.divisor


def _transmit(port: Any, data: int) -> None:
    port.overrun = port.count >= port.max_fifo_size
    if not port.overrun:
        port.fifo[port.head % FIFO] = data
        port.head = (port.head + 1) % FIFO
        port.count += 1


def read(port: Any, register: int) -> int:
    """What the guest reads (handle_bar_read). A full FIFO counts as empty, for head and tail meet there too."""
    empty, ier, mcr = port.head == port.tail, port.uart_reg[IER], port.uart_reg[MCR]
    found: int = port.uart_reg[register]
    if register == RX and port.dlab:
        return int(port.divisor & 0xFF)
    if register == RX:
        return 0 if empty else _receive(port)
    if register == IER:
        return int(port.divisor >> 8) if port.dlab else found & 0x0F
    if register == IIR:
        causes = IIR_RLSI if ier & IER_RLSI and port.overrun else 0
        causes |= IIR_RDI if ier & IER_RDI and port.count >= port.intr_trigger_level else 0
        causes |= IIR_THRI if ier & IER_THRI and empty else 0
        causes |= IIR_MSI if ier & IER_MSI and mcr & MCR_LINES else 0
        return (causes or IIR_NO_INT) | 0xC0
    if register == LSR:
        return (LSR_EMPTY if empty else LSR_DR) | (LSR_OE if port.overrun else 0)
    if register == MSR:
        full = mcr & MCR_AFE and port.count >= port.max_fifo_size
        return MSR_PRESENT | (0 if full else MSR_CLEAR_TO_SEND)
    return found


def _receive(port: Any) -> int:
    data: int = port.fifo[port.tail % FIFO]
    port.count = (port.count - 1) & 0xFF  # a byte in C
    port.tail = (port.tail + 1) % FIFO
    return data


def drive(port: Any, random: Random) -> None:
    """What a guest does: sets the line up, now and then the FIFO too, sends, and reads a part of what comes back."""
    write(port, LCR, LCR_DLAB | random.randrange(0x20))
    write(port, TX, random.randrange(256))
    write(port, IER, random.randrange(256))
    if random.random() < 0.8:  # else it stays at the divisor
        write(port, LCR, random.randrange(0x20))
    write(port, IER, random.randrange(16))
    write(port, MCR, random.randrange(0x40))
    write(port, SCR, random.randrange(256))
    if random.random() < 0.5 or not port.fcr:
        write(port, FCR, random.choice((FCR_ENABLE, FCR_ENABLE | FCR_CLEAR, 0)) | random.randrange(4) << 6)
    for _ in range(random.randrange(FIFO + 4)):
        write(port, TX, random.randrange(256))
    for _ in range(random.randrange(FIFO)):
        read(port, RX)


def seen(port: Any) -> dict[str, object]:
    """All that a guest can find out about a port; it is another one afterwards.

    The registers, what waits in the FIFO, and how much it takes until it overruns, with the interrupt that each says.
    """
    names = ("rx", "ier", "iir", "lcr", "mcr", "lsr", "msr", "scr")
    found: dict[str, object] = {name: read(port, at) for at, name in enumerate(names)}
    write(port, LCR, 0)
    write(port, IER, 0x0F)
    found["waiting"] = tuple((read(port, IIR), read(port, LSR), read(port, RX)) for _ in range(FIFO))
    taken: list[int] = []
    while not read(port, LSR) & LSR_OE:
        write(port, TX, len(taken))
        taken.append(read(port, IIR))
    return found | {"takes": tuple(taken), "given": tuple(read(port, RX) for _ in range(FIFO))}
