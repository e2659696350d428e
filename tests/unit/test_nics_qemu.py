"""e1000, e1000e and a real QEMU: each loads what the other writes and writes it back, or refuses it alike."""

from __future__ import annotations

import gzip
import json
import shlex
import struct
from pathlib import Path

import pytest

from mdevfs.cli.main import run
from mdevfs.mdev.mdev import Mdev
from mdevfs.state.refusal import BadState
from tests.qemu import VMSTATE, judge, needs_qemu, needs_scripts
from tests.qemu_machine import alone, capture, described_by, machine_types, section, through
from tests.support import InProcess
from tests.unit.devices import device, exercise, load, save
from tests.unit.handshakes import UUID
from tests.unit.test_cli_streams import COMMAND

DEVICES = {  # with the MAC address that the mdev has: e1000's is of its UUID, e1000e's the parameter's
    "e1000": "e1000,addr=3,romfile=,mac=52:54:00:fa:10:01",
    "e1000e": "e1000e,addr=3,romfile=,mac=52:54:00:12:34:56",
}
LINK = f"bus/mdev/devices/{UUID}/qemu/link"
PASSED = "PASS (0 failure(s))"
RECORDED = ("pc-q35-2.4", "pc-q35-7.2")
FORMS = ("pc-q35-2.4", "pc-q35-2.11", "pc-q35-6.0", "pc-q35-7.2")  # each sends other subsections, or resets otherwise
pytestmark = needs_qemu
each_driver = pytest.mark.parametrize("driver", DEVICES)
each_machine = pytest.mark.parametrize("machine", machine_types())


async def nic(driver: str, machine: str) -> Mdev:
    host = f'[host]\nmachine = "{machine}"\n[[device]]\ndriver = "{driver}"\nsettings = {{ release = "7.2" }}\n'
    return await device(host, f"{driver}-nic")


def tree_of(mdev: Mdev) -> InProcess:
    return InProcess(mdev.mdev_core.core.tree)


def saved(mdev: Mdev, stream: bytes) -> bytes:
    """The mdev's section of a stream."""
    return section(stream, mdev.device_state.section_name)


async def comes_back(mdev: Mdev, machine: str) -> None:
    """QEMU loads its state, and writes the same."""
    ours = save(mdev, machine)
    again, said = through(machine, [DEVICES[mdev.parent.driver.name]], ours)
    assert again is not None, said
    assert saved(mdev, again) == saved(mdev, ours)


@each_machine
@each_driver
async def test_qemu_loads_ours_and_writes_it_back(driver: str, machine: str) -> None:
    await comes_back(exercise(await nic(driver, machine), 1), machine)


@pytest.mark.parametrize("seed", range(2, 5))
@pytest.mark.parametrize("machine", FORMS)
@each_driver
async def test_qemu_loads_ours_of_any_seed(driver: str, machine: str, seed: int) -> None:
    mdev = await nic(driver, machine)
    for step in range(3):
        exercise(mdev, seed * 100 + step)
    await comes_back(mdev, machine)


@each_machine
@each_driver
async def test_a_new_device_is_qemus_to_the_byte(driver: str, machine: str) -> None:
    theirs = capture(machine, DEVICES[driver])
    mdev = await nic(driver, machine)
    ours = save(mdev, machine)
    assert saved(mdev, ours) == saved(mdev, theirs)
    name = mdev.device_state.section_name
    assert described_by(ours)["devices"] == [one for one in described_by(theirs)["devices"] if one["name"] == name]
    load(exercise(mdev, 1), alone(machine, saved(mdev, theirs)), machine=machine)
    assert save(mdev, machine) == ours


@pytest.mark.parametrize("links", [(False,), (False, True), (True,)], ids=str)
@each_driver
async def test_a_pulled_cable_is_qemus_to_the_byte(driver: str, links: tuple[bool, ...]) -> None:
    machine = "pc-q35-7.2"
    theirs = capture(machine, f"{DEVICES[driver]},id=nic", links=links)
    mdev = await nic(driver, machine)
    for up in links:
        await tree_of(mdev).write(LINK, f"{up:d}\n")
    assert await tree_of(mdev).read(LINK) == f"{links[-1]:d}\n"
    assert saved(mdev, save(mdev, machine)) == saved(mdev, theirs)
    new = await nic(driver, machine)
    load(new, alone(machine, saved(mdev, theirs)), machine=machine)
    assert await tree_of(new).read(LINK) == f"{links[-1]:d}\n"


# -- what is not a stream of this device, byte by byte: (where, its new value)

CONFIG, IRQ = 4, 4 + 256
CHANGES = {
    "version_id": (0, b"\0\0\0\3"),
    "version_id negative": (0, b"\xff\xff\xff\xff"),
    "version_id older": (0, b"\0\0\0\0"),
    "vendor": (CONFIG + 1, b"\x81"),
    "device": (CONFIG + 3, b"\x11"),
    "command": (CONFIG + 4, b"\x07\x05"),
    "capabilities bit": (CONFIG + 6, b"\x10"),
    "other status": (CONFIG + 6, b"\xef\xff"),
    "revision": (CONFIG + 8, b"\4"),
    "interface": (CONFIG + 9, b"\1"),
    "class": (CONFIG + 10, b"\x80"),
    "cache line": (CONFIG + 12, b"\x40\x20"),
    "header type": (CONFIG + 14, b"\x80"),
    "BAR 0": (CONFIG + 16, b"\0\0\xfe\xff"),
    "BAR 0 size": (CONFIG + 16, b"\0\0\xff\xff"),
    "BAR 0 type": (CONFIG + 16, b"\4"),
    "BAR 1": (CONFIG + 20, b"\xc1\xff\xff\xff"),
    "BAR 1 type": (CONFIG + 20, b"\0"),
    "BAR 2": (CONFIG + 24, b"\xff\xff\xff\xff"),
    "subsystem": (CONFIG + 44, b"\xff\xff\xff\xff"),
    "ROM": (CONFIG + 48, b"\1"),
    "capabilities": (CONFIG + 52, b"\x40"),
    "interrupt line and pin": (CONFIG + 60, b"\x0b\2"),
    "beyond the header": (CONFIG + 64, b"\xff" * 192),
    "an interrupt": (IRQ, struct.pack(">4I", 1, 0, 0, 1)),
    "interrupt level": (IRQ, struct.pack(">4I", 0, 2, 0, 0)),
    "unused": (IRQ + 16, b"\xff\xff\xff\xff"),
}
EXPRESS_IRQ = CONFIG + 4096
EXPRESS_CHANGES = {
    "command": (CONFIG + 4, b"\x07\x05"),
    "BARs": (CONFIG + 16, struct.pack("<4I", 0xFFFE0000, 0xFFFE0000, 0xFFFFFFE1, 0xFFFFC000)),
    "BAR 2 size": (CONFIG + 24, b"\x11"),
    "MSI-X control": (CONFIG + 0xA3, b"\xc0"),
    "MSI-X size": (CONFIG + 0xA2, b"\5"),
    "power management": (CONFIG + 0xCC, b"\3\x9f"),
    "power management data": (CONFIG + 0xCF, b"\1"),
    "MSI": (CONFIG + 0xD2, b"\xf1\0\xfc" + b"\xff" * 9),
    "extended tags": (CONFIG + 0xE4, b"\x20"),
    "link status": (CONFIG + 0xF2, b"\xff\xff"),
    "mask of uncorrectable errors": (CONFIG + 0x10A, b"\x40"),
    "severity of errors": (CONFIG + 0x10C, b"\0\0\xff\3"),
    "next capability": (CONFIG + 0x103, b"\x15"),
    "serial number": (CONFIG + 0x144, b"\0"),
    "beyond the capabilities": (CONFIG + 0x14C, b"\xff" * 64),
    "interrupt level": (EXPRESS_IRQ, struct.pack(">4I", 0, 0, 2, 0)),
    "MSI-X table": (EXPRESS_IRQ + 16, b"\1" * 80),
    "subsys": (EXPRESS_IRQ + 16 + 81 + 29 + 128 + 448 + 4 * 0x8000 + 10, b"\0\1"),
    "subsys_ven": (EXPRESS_IRQ + 16 + 81 + 29 + 128 + 448 + 4 * 0x8000 + 12, b"\x1a\xf4"),
}
CASES = [("e1000", what, *change) for what, change in CHANGES.items()]
CASES += [("e1000e", what, *change) for what, change in EXPRESS_CHANGES.items()]


@pytest.mark.parametrize(("driver", "what", "at", "value"), CASES)
async def test_a_changed_byte_gets_qemus_answer(driver: str, what: str, at: int, value: bytes) -> None:
    machine = "pc-q35-7.2"
    if machine not in machine_types():
        pytest.skip(f"this QEMU has no {machine}")
    mdev = await nic(driver, machine)
    whole = saved(mdev, save(mdev, machine))
    begin = len(mdev.device_state.section_name) + 9 + at
    changed = alone(machine, whole[:begin] + value + whole[begin + len(value) :])
    theirs, said = through(machine, [DEVICES[driver]], changed)
    refusal = None
    try:
        load(mdev, changed, machine=machine)
    except BadState as error:
        refusal = error
    assert (refusal is None) == (theirs is not None), f"{what}: QEMU: {said or 'loads'}; here: {refusal or 'loads'}"
    if refusal is not None:
        assert refusal.field.startswith((f"{driver}/parent_obj:PCIDevice/", "e1000e/subsys"))
    else:
        assert saved(mdev, save(mdev, machine)) == saved(mdev, theirs or b"")


# -- recordings, and the judges


@pytest.mark.parametrize("machine", RECORDED)
async def test_a_recording_loads_and_comes_back(machine: str) -> None:
    recorded = gzip.decompress((VMSTATE / f"real-e1000-{machine}.mig.gz").read_bytes())
    mdev = await nic("e1000", machine)
    load(exercise(mdev, 3), recorded, 1000, machine)
    assert saved(mdev, save(mdev, machine)) == saved(mdev, recorded)
    assert mdev.state.eeprom_data[:3] == [0x5452, 0x1200, 0x5634]  # the recorded machine's MAC address


async def test_the_json_is_the_recorded_one() -> None:
    described = described_by(save(exercise(await nic("e1000", "pc-q35-7.2"), 1)))
    assert described["devices"] == [json.loads((VMSTATE / "e1000.stream-desc.json").read_text())]


@needs_scripts
@each_driver
def test_the_judges_pass_what_emit_writes(driver: str, tmp_path: Path) -> None:
    stream, machine = tmp_path / "nic.mig", "pc-q35-7.2"
    emit = ["--driver", driver, "--setting", "release=7.2", "--machine", machine, "--seed", "1", "-o", str(stream)]
    assert run(["state", "emit", *emit]) == 0
    show = f"{shlex.join(COMMAND)} state show --json"
    assert judge("accept_stream.py", "--product-values", show, stream)[-1] == PASSED
    assert judge("accept_qemu_load.py", "--machine", machine, "--device", DEVICES[driver], stream)[-1] == PASSED


@needs_scripts
@pytest.mark.parametrize(
    ("driver", "release", "qemu"),
    [("e1000", "7.2", "7.2"), ("e1000", "11.1", "10.0"), ("e1000", "11.1", "11.1"),
     ("e1000e", "7.2", "7.2"), ("e1000e", "8.0", "10.0"), ("e1000e", "11.1", "11.1")],
)  # fmt: skip
def test_the_description_is_qemus(
    driver: str, release: str, qemu: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["state", "describe", driver, "--setting", f"release={release}"]) == 0
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    described = json.loads(capsys.readouterr().out)
    recorded = json.loads((VMSTATE / f"dump-qemu{qemu}-pc-q35-7.2.json").read_text())
    for one, other in zip(*(dump[driver]["Description"]["Fields"] for dump in (described, recorded)), strict=True):
        if "Description" in one:
            one["size"] = other["size"]  # a C struct's, which is not on the wire
    ours.write_text(json.dumps(described))
    theirs.write_text(json.dumps(recorded))
    for pair in ((ours, theirs), (theirs, ours)):
        assert judge("accept_description.py", *pair, "--only", driver, "--forward", "ok")[-1] == PASSED
    assert described[driver] == recorded[driver] or qemu == "7.2"  # which does not say how long arrays are
