"""A guest's driver for the e1000e, and all that a guest can find out of one."""

from __future__ import annotations

import struct
from random import Random

from vendor_drivers._e1000_device import (
    BROADCAST,
    MDIC_READ,
    MDIC_WRITE,
    RCTL_EN,
    SUM_IP,
    SUM_TCP,
    TCTL_EN,
    Context,
    Data,
)
from vendor_drivers._e1000_guest import PHY, props
from vendor_drivers._e1000e_device import AT, MSIX_CONTROL, MSIX_ENABLE, OTHER, TABLES, E1000eNic
from vendor_drivers._e1000e_state import PHY_PAGES, VECTORS, space_of

READABLE = tuple(name for name in AT if name not in TABLES and name != "IMC")
TUNED = (
    "LEDCTL",
    "PBA",
    "SWSM",
    "VET",
    "TXDCTL1",
    "WUFC",
    "ICS",
    "IMS",
    "IMC",
    "IVAR",
    "EIAC",
    "MRQC",
    "TIMINCA",
    "PSRCTL",
)

USED = 0x1F << 20 | 0xD7  # interrupt causes
PHY_USED = (0, 1, 4, 9, 16, 17, 18, 20, 21)


def drive(nic: E1000eNic, seed: int) -> None:
    """A guest's work: the same device and seed do the same. Guests of even seeds use MSI-X, those of every fifth seed
    delay no interrupt."""
    random = Random(seed)
    nic.time_passes()
    if not nic["RCTL"] & RCTL_EN:
        _set_up(nic, random, messages=seed % 2 == 0, delayed=seed % 5 != 0)
    for _ in range(8):
        random.choice((_retune, _tables, _phy, _receive, _send, _count))(nic, random)
    _count(nic, random)
    _phy(nic, random)
    nic.state.ioaddr = random.randrange(1 << 17)
    nic.write("EERD", random.randrange(64) << 8 | 1)
    nic.write("TIMADJL", random.getrandbits(32))
    nic.write("TIMADJH", random.getrandbits(20))
    nic.write("VET", random.getrandbits(16))
    nic.read("ICR")
    nic.time_passes()
    nic.write("IMS", USED)
    _mask(nic, random)
    _send(nic, random)
    _send(nic, random)
    give_buffers(nic, 20)
    nic.receive(BROADCAST + random.randbytes(54))
    for _ in range(2):
        nic.write("ICS", USED & random.getrandbits(25) | OTHER)
    if random.random() < 0.5:  # what begins with an address that is nowhere, to be ended later
        nic.send(random.randrange(2), Data(b"", end=False))


def _set_up(nic: E1000eNic, random: Random, *, messages: bool, delayed: bool) -> None:
    config, space = nic.state.parent_obj.config, space_of(nic.values)
    space.write(config, 0x04, bytes((7, random.choice((0, 4)))))
    space.write(config, 0x10, struct.pack("<4I", *(random.getrandbits(32) for _ in range(4))))
    space.write(config, 0x3C, bytes((random.randrange(1, 16),)))
    space.write(config, 0xCC, random.randbytes(2))
    for way in "RT":
        for queue in ("", "1"):
            nic.write(f"{way}DBAL{queue}", random.getrandbits(32) & ~15)
            nic.write(f"{way}DBAH{queue}", random.getrandbits(8))
            nic.write(f"{way}DLEN{queue}", 16 * 8 * random.randrange(4, 33))
    for name in ("RDTR", "RADV", "RAID", "TIDV", "TADV", "ITR", *(f"EITR{at}" for at in range(VECTORS))):
        nic.write(name, random.getrandbits(16) | 1 if delayed else 0)
    for name in ("CTRL", "CTRL_EXT", "IAM", "TXDCTL", "RXDCTL", "RXCSUM", "RFCTL"):
        nic.write(name, random.getrandbits(26))
    entries = [8 | random.randrange(VECTORS) for _ in range(VECTORS)]
    nic.write("IVAR", sum(entry << 4 * at for at, entry in enumerate(entries)))
    nic.write("IMS", USED)
    nic.write(
        "RCTL", RCTL_EN | 0x8018 | random.getrandbits(2) << 8 | random.choice((0, 0x400)) | random.getrandbits(2) << 16
    )
    nic.write("TCTL", TCTL_EN | random.getrandbits(20) << 2)
    _mask(nic, random)
    for _ in range(2):  # drivers try the interrupt line before they use messages
        nic.write("ICS", OTHER)
    if messages:
        space.write(config, MSIX_CONTROL, bytes((MSIX_ENABLE,)))
        nic.state.parent_obj.irq_state[0] = 0


def _mask(nic: E1000eNic, random: Random) -> None:
    """Other messages for the vectors that are masked while they change; one that is unmasked is delivered."""
    table = nic.state.parent_obj.msix
    for vector in range(VECTORS):
        masked = random.randrange(2)
        table[16 * vector : 16 * vector + 16] = random.randbytes(12) + bytes((masked, 0, 0, 0))
        if not masked:
            table[16 * VECTORS] &= ~(1 << vector)


def _retune(nic: E1000eNic, random: Random) -> None:
    for name in random.sample(TUNED, 4):
        nic.write(name, random.getrandbits(31))


def _tables(nic: E1000eNic, random: Random) -> None:
    for name, size in TABLES.items():
        nic.write(name, random.getrandbits(32), random.randrange(2 if name == "RA" else 0, size))


def _phy(nic: E1000eNic, random: Random) -> None:
    for at, value in ((31, random.randrange(PHY_PAGES)), (random.choice((4, 9, 16, 20)), random.getrandbits(16))):
        nic.write("MDIC", PHY | MDIC_WRITE | at << 16 | value)


def _receive(nic: E1000eNic, random: Random) -> None:
    give_buffers(nic, random.randrange(12))
    for _ in range(random.randrange(1, 14)):
        to = random.choice((BROADCAST, b"\x01" + random.randbytes(5), random.randbytes(6)))
        nic.receive(to + random.randbytes(random.choice((54, 90, 1000, 1494))))


def give_buffers(nic: E1000eNic, count: int) -> None:
    """As many to the first ring."""
    if ring := nic.read("RDLEN") // 16:
        nic.write("RDT", (nic.read("RDH") + count) % ring)


def _send(nic: E1000eNic, random: Random) -> None:
    size = random.choice((0, random.randrange(200, 1400)))
    packet = random.randbytes(54 + (size or 300) * random.randrange(1, 4))
    context = Context(bool(size), props(random, len(packet) - 54 if size else 0, size))
    nic.send(random.randrange(2), context, Data(packet, tso=bool(size), sums=random.choice((SUM_IP, SUM_TCP, 3))))


def _count(nic: E1000eNic, random: Random) -> None:
    for way in "RT":
        nic.count(
            way, random.choice((64, 200, 1514)), random.choice(("", "M", "B")), times=random.randrange(20_000_000)
        )


def seen(nic: E1000eNic) -> dict[str, object]:
    """All that a guest can find out; the device is another one afterwards, so that it wants a copy."""
    parent = nic.state.parent_obj
    found: dict[str, object] = {"config": bytes(parent.config), "INTx": tuple(parent.irq_state)}
    found |= {"MSI-X": bytes(parent.msix), "IOADDR": nic.state.ioaddr}
    found |= {name: nic.read(name) for name in READABLE}
    found |= {name: tuple(nic.read(name, at) for at in range(size)) for name, size in TABLES.items()}
    found["EEPROM"] = tuple(_word(nic, at) for at in range(64))
    page = nic.phy[31]
    for number in (page, *range(PHY_PAGES)):
        nic.write("MDIC", PHY | MDIC_WRITE | 31 << 16 | number)
        found[f"PHY page {number}"] = tuple(_register(nic, at) for at in PHY_USED)
    nic.time_passes()
    found |= {"later": (nic.read("ICS"), tuple(parent.irq_state), bytes(parent.msix))}
    nic.write("TCTL", TCTL_EN)
    for queue, tx in enumerate(nic.core.tx):
        nic.send(
            queue, Data(bytes(range(256)) * 4, sums=3), Data(bytes(range(256)) * 4, tso=bool(tx.props.tse), sums=3)
        )
    give_buffers(nic, -1)
    nic.receive(BROADCAST + bytes(5000))
    found |= {"sent": tuple(nic.sent), "received": tuple(nic.received)}
    return found | {f"{name} at the end": nic.read(name) for name in ("RDH", "TDH", "TDH1", "MPC", "ICR")}


def _word(nic: E1000eNic, at: int) -> int:
    nic.write("EERD", at << 8 | 1)
    return nic.read("EERD")


def _register(nic: E1000eNic, at: int) -> int:
    nic.write("MDIC", PHY | MDIC_READ | at << 16)
    return nic.read("MDIC")
