"""e1000's device state: what is sent, what of it loads where, and what a guest sees of the registers."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from mdevfs.mdev.mdev import Mdev
from mdevfs.state.refusal import BadState
from tests.support import InProcess
from tests.unit.devices import device, exercise, fingerprint, load, save
from tests.unit.handshakes import UUID
from vendor_drivers._e1000_device import BROADCAST, EECD_CS, EECD_DI, EECD_DO, EECD_SK, Context, Data, Nic

SUBSECTIONS = {"mitigation": b"e1000/mit_state", "extra_mac_registers": b"e1000/full_mac_state"} | {
    "migrate_tso_props": b"e1000/tx_tso_state"
}


async def nic(machine: str = "", release: str = "7.2", compat: str = "") -> Mdev:
    chosen = f'machine = "{machine}"\n' if machine else ""
    text = f'[host]\n{chosen}{compat}\n[[device]]\ndriver = "e1000"\nsettings = {{ release = "{release}" }}\n'
    return await device(text, "e1000-nic")


def registers(mdev: Mdev) -> Nic:
    return Nic(mdev.state, mdev.values)


def sent(data: bytes) -> list[str]:
    return [name for name, section in SUBSECTIONS.items() if section in data[: data.rindex(b"\0")]]


@pytest.mark.parametrize(
    ("machine", "release", "names"),
    [
        ("pc-i440fx-1.6", "7.2", []),
        ("pc-q35-2.4", "7.2", ["mitigation"]),
        ("", "2.4", ["mitigation"]),
        ("pc-q35-2.5", "7.2", ["mitigation", "extra_mac_registers"]),
        ("pc-q35-2.11", "7.2", ["mitigation", "extra_mac_registers"]),
        ("pc-q35-2.12", "7.2", list(SUBSECTIONS)),
        ("pc-q35-7.2", "7.2", list(SUBSECTIONS)),
        ("", "1.6", []),
    ],
)
async def test_machine_type_and_release_say_which_subsections_are_sent(
    machine: str, release: str, names: list[str]
) -> None:
    assert sent(save(await nic(machine, release))) == names


@pytest.mark.parametrize("machine", ["pc-i440fx-1.6", "pc-q35-2.4", "pc-q35-2.11", "pc-q35-7.2"])
@pytest.mark.parametrize("seed", range(4))
async def test_a_loaded_device_goes_on_as_its_twin(seed: int, machine: str) -> None:
    source, target = exercise(await nic(machine), seed), await nic(machine)
    data = save(source)
    load(target, data, 10_000)
    assert save(target) == data
    assert fingerprint(target) == fingerprint(source)
    assert fingerprint(exercise(target, 99)) == fingerprint(exercise(source, 99))


async def test_a_look_changes_nothing() -> None:
    mdev = exercise(await nic(), 1)
    before = save(mdev)
    assert fingerprint(mdev) == fingerprint(mdev)
    assert save(mdev) == before


async def test_registers_that_the_source_does_not_have_stay_off_until_reset() -> None:
    source, target = exercise(await nic("pc-i440fx-1.6"), 1), await nic()
    load(target, save(source))
    for mdev in (source, target):
        registers(mdev).write("RDTR", 7)
        registers(mdev).write("AIT", 9)
        assert (registers(mdev).read("RDTR"), registers(mdev).read("AIT")) == (0, 0)
    assert sent(save(target)) == ["migrate_tso_props"]
    target.device_state.registers = target.parent.driver.reset(target)
    registers(target).write("RDTR", 7)
    assert registers(target).read("RDTR") == 7


async def test_what_is_switched_off_in_use_is_gone_from_the_guest_too() -> None:
    source, target = exercise(await nic(), 1), await nic()
    assert registers(source).read("ITR")
    source.set_param("mitigation", False)
    load(target, save(source))
    assert registers(source).read("ITR") == registers(target).read("ITR") == 0
    assert fingerprint(target) == fingerprint(source)


async def test_one_set_of_offload_properties_is_both_where_the_other_does_not_come() -> None:
    source, target = await nic("pc-q35-2.11"), await nic()
    source.state.tx.props.mss, source.state.tx.tso_props.mss, source.state.tx.last_is_tso = 1, 2, True
    load(target, save(source))
    assert (target.state.tx.props.mss, target.state.tx.tso_props.mss) == (2, 2)


# -- what does not load


async def refused(mdev: Mdev, data: bytes) -> BadState:
    before = mdev.state
    with pytest.raises(BadState) as caught:
        load(mdev, data)
    assert mdev.state is before
    return caught.value


async def test_an_older_release_does_not_know_the_subsection() -> None:
    error = await refused(await nic(release="2.11"), save(await nic()))
    assert (error.code, error.errno, error.field) == ("state-subsection-unknown", errno.ENOENT, "e1000/tx_tso_state")


@pytest.mark.parametrize(
    ("at", "value", "source", "target"),
    [
        (0, 0x79, "0x79 in byte 0x0", "0x86 in byte 0x0"),
        (14, 0x80, "0x80 in byte 0xe", "0x00 in byte 0xe"),
        (20, 0x00, "0x00 in byte 0x14", "0x01 in byte 0x14"),
    ],
)
async def test_another_function_is_refused_by_its_configuration_space(
    at: int, value: int, source: str, target: str
) -> None:
    data = bytearray(save(await nic()))
    begin = data.index(b"\x86\x80\x0e\x10")
    data[begin + at] = value
    error = await refused(await nic(), bytes(data))
    assert (error.code, error.errno) == ("state-config-differs", errno.EINVAL)
    assert (error.device, error.field) == ("0000:00:03.0/e1000", "e1000/parent_obj:PCIDevice/config")
    assert (error.offset, error.source, error.target) == (begin + at, source, target)


async def test_an_interrupt_line_is_high_or_low() -> None:
    data = bytearray(save(await nic()))
    begin = data.index(b"\x86\x80\x0e\x10") + 256
    data[begin + 4 : begin + 8] = struct.pack(">I", 2)
    error = await refused(await nic(), bytes(data))
    assert (error.code, error.source, error.offset) == ("field-out-of-bounds", "2", begin + 4)


# -- the registers


async def test_interrupts_follow_their_causes_and_a_read_clears_them() -> None:
    mdev = await nic()
    one = registers(mdev)
    one.write("ICS", 0x80)
    assert (one.read("ICS"), mdev.state.parent_obj.irq_state[0]) == (0x80, 0)
    one.write("IMS", 0x80)
    assert mdev.state.parent_obj.irq_state[0] == 1
    assert (one.read("ICR"), one.read("ICR"), mdev.state.parent_obj.irq_state[0]) == (0x80, 0, 0)


async def test_the_eeprom_is_read_by_register_and_by_wire() -> None:
    mdev = await nic()
    one, address = registers(mdev), bytes.fromhex("525400" + mdev.uuid[-6:])
    words = []
    for at in range(64):
        one.write("EERD", at << 8 | 1)
        words.append(one.read("EERD") >> 16)
    assert struct.pack("<3H", *words[:3]) == address
    assert sum(words) & 0xFFFF == 0xBABA
    bits = []
    one.write("EECD", EECD_CS)
    for bit in "110" + f"{5:06b}":
        wire = EECD_CS | (EECD_DI if bit == "1" else 0)
        one.write("EECD", wire | EECD_SK)
        one.write("EECD", wire)
    for _ in range(16):
        bits.append(bool(one.read("EECD") & EECD_DO))
        one.write("EECD", EECD_CS | EECD_SK)
        one.write("EECD", EECD_CS)
    assert int("".join(str(int(bit)) for bit in bits), 2) == words[5]


def ready(one: Nic) -> None:
    for way in "RT":
        one.write(f"{way}DLEN", 16 * 64)
        one.write(f"{way}CTL", 2 | (8 if way == "R" else 0))


async def test_a_large_packet_goes_out_in_segments() -> None:
    one = registers(await nic())
    ready(one)
    props: dict[str, int] = {"hdr_len": 54, "mss": 100, "paylen": 250, "ip": 1, "tcp": 1, "ipcss": 14, "tucss": 34}
    props |= {"ipcso": 24, "ipcse": 33, "tucso": 50, "tucse": 0}
    header = bytes(14) + b"\x45" + bytes(33) + b"\x09" + bytes(5)
    one.transmit(Context(True, props), Data(header + bytes(250), tso=True, sums=3))
    assert [len(packet) for packet in one.sent] == [154, 154, 104]
    lengths, numbers = ([struct.unpack_from(">H", one_sent, at)[0] for one_sent in one.sent] for at in (16, 18))
    assert (lengths, numbers) == ([140, 140, 90], [0, 1, 2])
    assert [struct.unpack_from(">I", packet, 38)[0] for packet in one.sent] == [0, 100, 200]
    for packet in one.sent:  # a checksum makes the sum of what it covers all ones
        assert sum(struct.unpack(">10H", packet[14:34])) % 0xFFFF == 0
    assert (one.read("TPT"), one.read("TPT"), one.read("TSCTC"), one.read("TOTL")) == (3, 0, 1, 412)


async def test_a_packet_takes_buffers_and_the_one_that_finds_none_is_counted() -> None:
    one = registers(await nic())
    ready(one)
    one.write("RDT", 3)
    one.receive(b"\2" * 5000)
    one.receive(b"\2" * 60)
    one.receive(BROADCAST + bytes(60))  # not wanted
    assert (one.read("RDH"), one.read("MPC"), one.read("GPRC"), one.read("TORL")) == (3, 1, 1, 5000)
    assert one.read("ICR") == 0x80 | 0x10 | 0x40


async def test_statistics_stop_at_their_largest_value() -> None:
    one = registers(await nic())
    one.count("R", 1500, "M", times=2**40)
    assert (one.read("GPRC"), one.read("MPRC"), one.read("TORH")) == (2**32 - 1, 2**32 - 1, 1500 * 2**8)


async def test_the_link_is_down_while_it_is_negotiated() -> None:
    one: Any = registers(await nic())
    one.write("MDIC", 1 << 21 | 1 << 26 | 0x1200)
    assert (one.read("STATUS") & 2, one.read("MDIC") >> 28) == (0, 1)
    one.negotiated()
    assert (one.read("STATUS") & 2, one.read("ICR")) == (2, 4)


@pytest.mark.parametrize("driver", ["e1000", "e1000e"])
async def test_a_reset_leaves_the_cable_as_it_is(driver: str) -> None:
    mdev = await device(f'[[device]]\ndriver = "{driver}"\n', f"{driver}-nic")
    tree = InProcess(mdev.mdev_core.core.tree)
    link, attribute = f"bus/mdev/devices/{UUID}/qemu/link", f"bus/mdev/devices/{UUID}/migration/init-vet"
    assert await tree.read(link) == "1\n"
    await tree.write(link, "off")
    before = mdev.state
    await tree.write(attribute, "off\n")
    assert mdev.state is not before
    assert await tree.read(link) == "0\n"
    await tree.write(link, "y")
    await tree.write(attribute, "on\n")
    assert await tree.read(link) == "1\n"
    with pytest.raises(OSError, match="link") as refused:
        await tree.write(link, "up")
    assert refused.value.errno == errno.EINVAL
