"""e1000e's device state: configuration space as QEMU compares it, timers and vectors, and what the releases changed."""

from __future__ import annotations

import errno

import pytest

from mdevfs.mdev.mdev import Mdev
from mdevfs.state.refusal import BadState
from tests.unit.devices import device, exercise, fingerprint, load, save
from tests.unit.handshakes import answer, end
from vendor_drivers._e1000_device import BROADCAST, Context, Data
from vendor_drivers._e1000e_device import E1000eNic
from vendor_drivers._e1000e_state import space_of

# What a real QEMU 7.2 compares of the first 0x150 bytes: each byte was flipped, and the refusal names its masks.
COMPARED = """
ffffffff 00001000 ffffffff 0000ff00 ffff0100 ffff0100 1f000000 ff3f0000 00000000 00000000 00000000 00000000
00000000 ff000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
00000000 00000000 00000000 00000000 ffffff3f ffffffff ffffffff 00000000 00000000 00000000 00000000 00000000
00000000 00000000 ffffffff fc60ffff ffff8eff 03000000 00000000 00000000 ffffffff ffffffff ffffffff ffffffff
ffff0000 00000000 00000000 00000000 ffffffff cf0f00fc ffffffff cf0f00fc 3e0effff 3e0effff bffeffff ffffffff
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 00000000
"""


def text(machine: str = "", release: str = "7.2", compat: str = "") -> str:
    chosen = f'machine = "{machine}"\n' if machine else ""
    return f'[host]\n{chosen}{compat}\n[[device]]\ndriver = "e1000e"\nsettings = {{ release = "{release}" }}\n'


async def nic(release: str = "7.2", arguments: str = "", compat: str = "", machine: str = "") -> Mdev:
    return await device(text(machine, release, compat), "e1000e-nic", arguments)


def registers(mdev: Mdev) -> E1000eNic:
    return E1000eNic(mdev.state, mdev.values)


async def test_what_is_compared_of_configuration_space_is_what_qemu_compares() -> None:
    space = space_of((await nic()).values)
    both = zip(space.compared, space.writable, strict=True)
    compared = bytes(wanted & ~free & 0xFF for wanted, free in both)
    assert compared[:0x150].hex() == "".join(COMPARED.split())
    assert not any(compared[0x150:])


@pytest.mark.parametrize("release", ["2.4", "7.2", "8.0", "11.1"])
@pytest.mark.parametrize("seed", range(4))
async def test_a_loaded_device_goes_on_as_its_twin(seed: int, release: str) -> None:
    source, target = exercise(await nic(release), seed), await nic(release)
    data = save(source)
    load(target, data, 10_000)
    assert save(target) == data
    assert fingerprint(target) == fingerprint(source)
    assert fingerprint(exercise(target, 99)) == fingerprint(exercise(source, 99))


async def refused(target: Mdev, source: Mdev) -> BadState:
    with pytest.raises(BadState) as caught:
        load(target, save(source))
    return caught.value


@pytest.mark.parametrize(
    ("source", "target", "code", "values"),
    [
        # README section 4, "what a forgotten entry does": i=0x10a read: 40 device: 0; i=0xe4 read: 20
        (("8.0.0", ""), ("7.2", ""), "state-config-differs", ("0x40 in byte 0x10a", "0x00 in byte 0x10a")),
        (("11.1", ""), ("8.0.1", ""), "state-config-differs", ("0x20 in byte 0xe4", "0x00 in byte 0xe4")),
        (("8.0.1", "e1000e.migrate-timadj"), ("7.2", ""), "state-footer-missing", ("byte 0x00", "136061 bytes")),
    ],
)
async def test_what_a_release_added_is_refused_as_qemu_refuses_it(
    source: tuple[str, str], target: tuple[str, str], code: str, values: tuple[str, str]
) -> None:
    compat = f'compat = {{ "{source[1]}" = "on" }}' if source[1] else ""
    one = await nic(source[0], compat=compat, machine="pc-q35-7.2" if source[1] else "")
    error = await refused(await nic(target[0]), one)
    assert (error.code, error.errno) == (code, errno.EINVAL)
    assert values[0] in str(error.source)
    assert values[1] in str(error.target)


async def test_the_time_adjustment_is_there_where_it_migrates() -> None:
    for release, expected in (("7.2", 0), ("8.0", 5)):
        one = registers(await nic(release))
        one.write("TIMADJL", 5)
        one.write("TIMADJH", 0)
        assert one.read("SYSTIML") == expected


async def test_the_mac_address_is_a_parameter_as_the_serial_number_shows_it() -> None:
    one, other = await nic(), await nic(arguments="mac=52:54:00:00:00:01")
    error = await refused(other, one)
    assert (error.code, error.source, error.target) == (
        "state-config-differs",
        "0x56 in byte 0x144",
        "0x01 in byte 0x144",
    )
    target = await end(text(), "e1000e-nic", "mac=52:54:00:00:00:01")
    assert await answer(target, (await end(text(), "e1000e-nic")).string) == ["value-differs"]
    with pytest.raises(OSError, match="value-malformed"):
        await end(text(), "e1000e-nic", "mac=here")


async def test_the_subsystem_must_be_the_targets() -> None:
    source = await nic()
    source.state.subsys_ven = 0x1AF4
    error = await refused(await nic(), source)
    assert (error.code, error.field, error.source, error.target) == (
        "field-differs",
        "e1000e/subsys_ven",
        "0x1af4",
        "0x8086",
    )


# -- the registers


async def test_a_masked_vector_is_pending_and_a_throttled_one_waits() -> None:
    mdev = await nic()
    one, parent = registers(mdev), mdev.state.parent_obj
    parent.config[0xA3] = 0x80
    one.write("IVAR", 0x88)  # the receive queues, vector 0
    one.write("IMS", 1 << 20)
    one.write("ICS", 1 << 20)
    assert (parent.msix[80], parent.irq_state[0]) == (1, 0)
    parent.msix[12], parent.msix[80] = 0, 0
    one.write("EITR0", 1000)
    one.write("ICS", 1 << 20)
    assert (mdev.state.core.eitr[0].running, mdev.state.core.eitr[0].timer) == (True, 1000 * 256)
    one.write("ICS", 1 << 20)
    assert mdev.state.core.eitr_intr_pending[0]
    one.time_passes()
    assert not mdev.state.core.eitr_intr_pending[0]


async def test_a_delayed_interrupt_comes_when_time_has_passed() -> None:
    mdev = await nic()
    one = registers(mdev)
    for name, value in (("RDLEN", 1024), ("RDTR", 10), ("RCTL", 2 | 1 << 15), ("IMS", 0x80)):
        one.write(name, value)
    one.write("RDT", 40)
    one.receive(BROADCAST + bytes(100))
    assert (one.read("ICS"), mdev.state.core.delayed_causes & 0x80) == (0, 0x80)
    assert mdev.state.core.rdtr.timer == 10 * 1024
    one.time_passes()
    assert (one.read("ICR") & 0x80, mdev.state.core.rdtr.timer) == (0x80, -1)


async def test_a_packet_that_begins_nowhere_is_skipped_to_its_end() -> None:
    mdev = await nic()
    one = registers(mdev)
    one.write("TDLEN1", 1024)
    one.write("TCTL", 2)
    one.send(1, Data(b"", end=False))
    assert mdev.state.core.tx[1].skip_cp
    target = load(await nic(), save(mdev))
    for nic_after in (one, registers(target)):
        nic_after.send(1, Data(bytes(60)), Data(bytes(70)))
        assert [len(packet) for packet in nic_after.sent] == [70]


async def test_segments_of_the_second_queue() -> None:
    one = registers(await nic())
    one.write("TDLEN1", 1024)
    one.write("TCTL", 2)
    props: dict[str, int] = {"hdr_len": 54, "mss": 100, "paylen": 150, "ip": 1, "tcp": 1, "ipcss": 14, "tucss": 34}
    one.send(1, Context(True, props), Data(bytes(54 + 150), tso=True))
    assert [len(packet) for packet in one.sent] == [154, 104]
    assert (one.read("TDH1"), one.read("TPT")) == (2, 2)
