"""mtty: the kernel's migration data, byte for byte, and its ports as a guest sees them."""

from __future__ import annotations

import ctypes
import errno
import struct

import pytest

from mdevfs.mdev.mdev import Mdev
from mdevfs.state.refusal import BadState
from tests.unit.devices import SEEDS, device, exercise, fingerprint, load, save
from vendor_drivers._mtty_state import FCR, IER, IIR, LCR, LSR, MSR, SCR, TX, read, write

HEADER = struct.pack("<QIIII", 0x7E9D09898C3E2C4E, 1, 0, 2, 0)


class SerialPort(ctypes.LittleEndianStructure):
    """`struct serial_port` as a C compiler lays it out."""

    _fields_ = [
        ("uart_reg", ctypes.c_uint8 * 8),
        ("fifo", ctypes.c_uint8 * 16),
        ("head", ctypes.c_uint8),
        ("tail", ctypes.c_uint8),
        ("count", ctypes.c_uint8),
        ("dlab", ctypes.c_bool),
        ("overrun", ctypes.c_bool),
        ("divisor", ctypes.c_uint16),
        ("fcr", ctypes.c_uint8),
        ("max_fifo_size", ctypes.c_uint8),
        ("intr_trigger_level", ctypes.c_uint8),
    ]


async def mtty(ports: int) -> Mdev:
    return await device('[[device]]\ndriver = "mtty"\n', f"mtty-{ports}")


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_bytes_are_the_kernels(seed: int) -> None:
    mdev = exercise(await mtty(2), seed)
    data = save(mdev)
    assert (len(data), data[:24]) == (96, HEADER)
    for at, port in enumerate(mdev.state.ports):
        raw = SerialPort.from_buffer_copy(data, 24 + 36 * at)
        for name in vars(port):
            kept = getattr(raw, name)
            assert getattr(port, name) == (list(kept) if isinstance(kept, ctypes.Array) else kept), name
        assert bytes(raw) == data[24 + 36 * at :][:36]  # the padding is zero


async def test_one_port_is_60_bytes() -> None:
    assert len(save(await mtty(1))) == 60


@pytest.mark.parametrize("step", [1, 7, 24, 96])
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_loaded_device_goes_on_as_its_twin(seed: int, step: int) -> None:
    source = exercise(await mtty(2), seed)
    target = load(await mtty(2), save(source), step)
    assert (target.state, save(target)) == (source.state, save(source))
    assert fingerprint(target) == fingerprint(source)
    assert fingerprint(exercise(target, 99)) == fingerprint(exercise(source, 99))


async def test_every_field_is_driven() -> None:
    untouched = vars((await mtty(1)).state.ports[0])
    driven = [vars(exercise(await mtty(1), seed).state.ports[0]) for seed in SEEDS]
    assert {name for one in driven for name in one if one[name] != untouched[name]} == set(untouched)


@pytest.mark.parametrize(
    ("change", "field", "source", "target"),
    [
        ({"magic": 1}, "magic", "magic 0x1", "magic 0x7e9d09898c3e2c4e"),
        ({"major": 2}, "major_ver", "major_ver 0x2", "major_ver 0x1"),
        ({"minor": 1}, "minor_ver", "minor_ver 0x1", "minor_ver 0x0"),
        ({"ports": 1}, "nr_ports", "nr_ports 0x1", "nr_ports 0x2"),
        ({"flags": 4}, "flags", "flags 0x4", "flags 0x0"),
        ({"major": 2, "ports": 3}, "major_ver", "major_ver 0x2, nr_ports 0x3", "major_ver 0x1, nr_ports 0x2"),
    ],
)
async def test_another_header_is_refused_when_it_is_complete(
    change: dict[str, int], field: str, source: str, target: str
) -> None:
    header = {"magic": 0x7E9D09898C3E2C4E, "major": 1, "minor": 0, "ports": 2, "flags": 0} | change
    mdev = await mtty(2)
    before = mdev.state
    with pytest.raises(BadState) as early:  # nothing is wrong with it yet
        load(mdev, struct.pack("<QIIII", *header.values())[:23])
    assert early.value.code == "state-cut-short"
    with pytest.raises(BadState) as caught:
        load(mdev, struct.pack("<QIIII", *header.values()))
    refusal = caught.value
    assert (refusal.code, refusal.errno) == ("mtty-header", errno.EFAULT)
    assert (refusal.field, refusal.source, refusal.target) == (
        f"mtty_data/header:mtty_header/{field}",
        source,
        target,
    )
    assert mdev.state is before


async def test_the_registers_are_the_samples() -> None:
    port = (await mtty(1)).state.ports[0]
    write(port, TX, 65)
    assert read(port, LSR) == 0x62  # no FIFO until FCR is written: it overruns, and stays empty
    write(port, FCR, 0xC1)
    write(port, IER, 0x0F)
    assert read(port, IIR) == 0xC6  # the overrun first
    for at in range(16):
        write(port, TX, at)
    assert (read(port, LSR), read(port, IIR)) == (0x60, 0xC6)  # head meets tail: a full FIFO counts as empty
    write(port, TX, 16)
    assert read(port, LSR) == 0x62
    write(port, LCR, 0x83)
    write(port, TX, 0x34)
    write(port, IER, 0x12)
    assert (read(port, TX), read(port, IER), read(port, LCR)) == (0x34, 0x12, 0x83)
    write(port, LCR, 0x03)
    write(port, SCR, 0x5A)
    assert (read(port, IER), read(port, SCR), read(port, MSR)) == (0x0F, 0x5A, 0xB3)


async def test_a_changed_parameter_makes_the_device_anew() -> None:
    mdev = exercise(await mtty(1), 3)
    assert mdev.state.ports[0].fcr
    mdev.set_param("minor", 0)
    assert mdev.state.ports[0].fcr == 0
