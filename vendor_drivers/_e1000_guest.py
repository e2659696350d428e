"""A guest's driver for the e1000: sets the device up once, then keeps it busy; and all that a guest can find out.

What it posts lies in its own memory, which migrates with it; so a packet that is under way goes on with what the state
says of it. It gives a context descriptor before each packet that wants one, as Linux does.
"""

from __future__ import annotations

import struct
from random import Random

from vendor_drivers._e1000_device import (
    BROADCAST,
    EECD_CS,
    EECD_DI,
    EECD_SK,
    MDIC_INT,
    MDIC_READ,
    MDIC_WRITE,
    PHY_READABLE,
    RCTL_EN,
    SUM_IP,
    SUM_TCP,
    TCTL_EN,
    Context,
    Data,
    Nic,
)
from vendor_drivers._e1000_state import AT, SPACE, TABLES

PHY = 1 << 21
HEADER = 54  # Ethernet, IPv4, TCP
READABLE = tuple(name for name in AT if name not in TABLES and name != "IMC")

TUNED = ("LEDCTL", "PBA", "SWSM", "VET", "TXDCTL", "WUFC", "WUS", "IPAV", "ICS", "IMS", "IMC")


def drive(nic: Nic, random: Random) -> None:
    """A guest's work: the same device and generator do the same."""
    if not nic["RCTL"] & RCTL_EN:
        _set_up(nic, random)
    nic.negotiated()
    _finish(nic, random)
    work = [_retune, _addresses, _eeprom, _phy, _receive, _send_plain, _send_many, _look]
    for _ in range(8):
        random.choice(work)(nic, random)
    _overrun(nic, random)
    _send_many(nic, random)
    _send_plain(nic, random)
    _eeprom(nic, random)
    random.choice((_begin_plain, _begin_segments, _begin_segments, _retune))(nic, random)
    if random.random() < 0.3:
        nic.write("MDIC", PHY | MDIC_WRITE | 0x1340)  # the link is down until it is negotiated anew


def _word(random: Random, bits: int = 32) -> int:
    return random.getrandbits(bits)


def _set_up(nic: Nic, random: Random) -> None:
    config = nic.state.parent_obj.config
    SPACE.write(config, 0x04, bytes((7, random.choice((0, 4)))))
    SPACE.write(config, 0x0C, b"\x10")
    SPACE.write(config, 0x10, struct.pack("<II", _word(random), _word(random)))
    SPACE.write(config, 0x3C, bytes((random.randrange(1, 16),)))
    for way in "RT":
        nic.write(f"{way}DBAL", _word(random) & ~15)
        nic.write(f"{way}DBAH", _word(random, 8))
        nic.write(f"{way}DLEN", 16 * 8 * random.randrange(4, 33))
    nic.write("RDH", random.randrange(4))
    for name in ("RDTR", "RADV", "TADV", "ITR", "TXDCTL", "WUFC", "WUC", "AIT"):
        nic.write(name, _word(random, 16) | 1)
    nic.write("CTRL", nic.read("CTRL") | _word(random, 12))
    nic.write("RCTL", RCTL_EN | random.choice((0, 0x8000)) | random.choice((8, 16)) | random.randrange(1, 4) << 16)
    nic.write("TCTL", TCTL_EN | _word(random, 20) << 2)
    nic.write("IMS", 0xDF)


def _retune(nic: Nic, random: Random) -> None:
    for name in random.sample(TUNED, 4):
        nic.write(name, _word(random, 31))
    size = _word(random, 2) << 8 | _word(random, 2) << 16 | _word(random, 1) << 25
    nic.write("RCTL", nic.read("RCTL") & ~0x02030300 | size)


def _addresses(nic: Nic, random: Random) -> None:
    for name, size in TABLES.items():
        nic.write(name, _word(random), random.randrange(2 if name == "RA" else 0, size))


def _eeprom(nic: Nic, random: Random) -> None:
    """Asks for a word, by the register and by the wires, where it may stop half way."""
    nic.write("EERD", random.randrange(64) << 8 | 1)
    bits = f"{0b110:03b}{random.randrange(64):06b}" + "0" * random.randrange(12)
    nic.write("EECD", 0)
    nic.write("EECD", EECD_CS)
    for bit in bits:
        wire = EECD_CS | (EECD_DI if bit == "1" else 0)
        nic.write("EECD", wire | EECD_SK)
        nic.write("EECD", wire)


def _phy(nic: Nic, random: Random) -> None:
    nic.write("MDIC", PHY | MDIC_READ | random.randrange(32) << 16)
    at = random.choice((4, 9, 16, 20))
    nic.write("MDIC", PHY | MDIC_WRITE | at << 16 | _word(random, 16) | random.choice((0, MDIC_INT)))
    nic.negotiated()


def _receive(nic: Nic, random: Random) -> None:
    """A few buffers, and packets for anybody."""
    _give_buffers(nic, random.randrange(12))
    for _ in range(random.randrange(1, 9)):
        to = random.choice((_own(nic), BROADCAST, b"\x01" + random.randbytes(5), random.randbytes(6)))
        nic.receive(to + random.randbytes(random.choice((54, 90, 250, 1000, 1494, 9000))))


def _overrun(nic: Nic, random: Random) -> None:
    """Fewer buffers than packets."""
    count = random.randrange(6)
    _give_buffers(nic, count)
    for _ in range(count + 1):
        nic.receive(_own(nic) + random.randbytes(1000))


def _own(nic: Nic) -> bytes:
    return struct.pack("<II", nic.read("RA"), nic.read("RA", 1))[:6]


def _give_buffers(nic: Nic, count: int) -> None:
    if ring := nic.read("RDLEN") // 16:
        nic.write("RDT", (nic.read("RDH") + count) % ring)


def _send_plain(nic: Nic, random: Random) -> None:
    _begin_plain(nic, random)
    _finish(nic, random)


def _begin_plain(nic: Nic, random: Random) -> None:
    to = random.choice((random.randbytes(6), BROADCAST))
    offload = props(random, 0, 0) | {"paylen": random.randrange(900), "hdr_len": 42, "mss": random.randrange(1460)}
    nic.transmit(Context(False, offload), Data(to + random.randbytes(random.randrange(60, 900)), end=False, sums=3))


def _begin_segments(nic: Nic, random: Random) -> None:
    """More than a segment, so that one has gone out."""
    size = random.randrange(200, 1400)
    length = size * random.randrange(2, 5)
    offload = props(random, length, size)
    header = random.randbytes(6) + random.randbytes(HEADER - 6)
    body = random.randbytes(size + random.randrange(1, size))
    nic.transmit(Context(True, offload), Data(header + body, tso=True, end=False, sums=SUM_IP | SUM_TCP))


def _finish(nic: Nic, random: Random) -> None:
    """The last descriptor of what is under way: of segments where one has gone out."""
    tx = nic.state.tx
    if tx.size:
        nic.transmit(Data(random.randbytes(random.randrange(1, 600)), tso=tx.tso_frames > 0))


def props(random: Random, length: int, size: int) -> dict[str, int]:
    """Offload properties for TCP or UDP in IP; `size`: of segments, 0 for a packet that goes out whole."""
    tcp = random.randrange(2)
    return {
        "ipcss": 14,
        "ipcso": 24,
        "ipcse": random.choice((33, 34)),
        "ip": random.randrange(2),
        "tcp": tcp,
        "tucss": 34,
        "tucso": 50 if tcp else 40,
        "tucse": random.randrange(3) * 60,
        "paylen": length,
        "hdr_len": HEADER if size else 0,
        "mss": size,
    }


def _send_many(nic: Nic, random: Random) -> None:
    """What lies behind a guest that has been up for days."""
    for way in "RT":
        size = random.choice((64, 100, 200, 500, 1000, 1514, 1514))
        nic.count(way, size, random.choice(("", "", "M", "B")), times=random.randrange(20_000_000))
    _begin_segments(nic, random)
    _finish(nic, random)


def _look(nic: Nic, random: Random) -> None:
    for name in random.sample(("ICR", "TOTH", "TORH", "GPTC", "GPRC", "PTC127", "PRC1522", "TPR", "BPRC"), 2):
        nic.read(name)


def seen(nic: Nic) -> dict[str, object]:
    """All that a guest can find out; the device is another one afterwards, so that it wants a copy."""
    state = nic.state
    found: dict[str, object] = {"config": bytes(state.parent_obj.config), "INTx": tuple(state.parent_obj.irq_state)}
    found |= {name: nic.read(name) for name in READABLE}
    found |= {name: tuple(nic.read(name, at) for at in range(size)) for name, size in TABLES.items()}
    found["EEPROM, rest of the word"] = tuple(_clock(nic) for _ in range(16))
    found["EEPROM"] = tuple(_read_word(nic, at) for at in range(64))
    found["PHY"] = tuple(_read_phy(nic, at) for at in sorted(PHY_READABLE))
    nic.negotiated()
    nic.write("TCTL", TCTL_EN)
    _finish(nic, Random(0))
    found["sent"] = tuple(nic.sent)
    _give_buffers(nic, -1)
    for first in (0xFF, 0x01, 0x02):
        nic.receive(bytes([first] * 6) + bytes(9000))
        found |= {f"{name} after a packet": nic.read(name) for name in ("RDH", "TDH", "MPC", "GPRC", "ICR")}
    return found


def _clock(nic: Nic) -> int:
    nic.write("EECD", EECD_CS | EECD_SK)
    nic.write("EECD", EECD_CS)
    return nic.read("EECD")


def _read_word(nic: Nic, at: int) -> int:
    nic.write("EERD", at << 8 | 1)
    return nic.read("EERD")


def _read_phy(nic: Nic, at: int) -> int:
    nic.write("MDIC", PHY | MDIC_READ | at << 16)
    return nic.read("MDIC")
