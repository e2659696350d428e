"""e1000 and a real QEMU: each loads what the other writes and writes it back byte for byte, or refuses it alike."""

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
from tests.unit.devices import device, exercise, load, save
from tests.unit.test_cli_streams import COMMAND

NAME = "0000:00:03.0/e1000"
DEVICE = "e1000,addr=3,romfile=,mac=52:54:00:fa:10:01"  # the MAC address that the mdev has by its UUID
PASSED = "PASS (0 failure(s))"
RECORDED = ("pc-q35-2.4", "pc-q35-7.2")
FORMS = ("pc-q35-2.4", "pc-q35-2.11", "pc-q35-6.0", "pc-q35-7.2")  # each sends other subsections, or resets otherwise
pytestmark = needs_qemu


async def nic(machine: str) -> Mdev:
    host = f'[host]\nmachine = "{machine}"\n[[device]]\ndriver = "e1000"\nsettings = {{ release = "7.2" }}\n'
    return await device(host, "e1000-nic")


@pytest.mark.parametrize("machine", machine_types())
async def test_qemu_loads_ours_and_writes_it_back(machine: str) -> None:
    ours = save(exercise(await nic(machine), 1), machine)
    again, said = through(machine, [DEVICE], ours)
    assert again is not None, said
    assert section(again, NAME) == section(ours, NAME)


@pytest.mark.parametrize("seed", range(2, 6))
@pytest.mark.parametrize("machine", FORMS)
async def test_qemu_loads_ours_of_any_seed(machine: str, seed: int) -> None:
    mdev = await nic(machine)
    for step in range(3):
        exercise(mdev, seed * 100 + step)
    ours = save(mdev, machine)
    again, said = through(machine, [DEVICE], ours)
    assert again is not None, said
    assert section(again, NAME) == section(ours, NAME)


@pytest.mark.parametrize("machine", machine_types())
async def test_a_new_device_is_qemus_to_the_byte(machine: str) -> None:
    theirs = capture(machine, DEVICE)
    mdev = await nic(machine)
    ours = save(mdev, machine)
    assert section(ours, NAME) == section(theirs, NAME)
    (described,) = [one for one in described_by(theirs)["devices"] if one["name"] == NAME]
    assert described_by(ours)["devices"] == [described]
    load(exercise(mdev, 1), alone(machine, section(theirs, NAME)), machine=machine)
    assert save(mdev, machine) == ours


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


@pytest.mark.parametrize("what", CHANGES)
async def test_a_changed_byte_gets_qemus_answer(what: str) -> None:
    machine = "pc-q35-7.2"
    if machine not in machine_types():
        pytest.skip(f"this QEMU has no {machine}")
    at, value = CHANGES[what]
    mdev = await nic(machine)
    whole = section(save(mdev, machine), NAME)
    begin = len(NAME) + 9 + at
    changed = alone(machine, whole[:begin] + value + whole[begin + len(value) :])
    theirs, said = through(machine, [DEVICE], changed)
    refusal = None
    try:
        load(mdev, changed, machine=machine)
    except BadState as error:
        refusal = error
    assert (refusal is None) == (theirs is not None), f"QEMU: {said or 'loads'}; here: {refusal or 'loads'}"
    if refusal is not None:
        assert refusal.field.startswith("e1000/parent_obj:PCIDevice/")
    else:
        assert section(save(mdev, machine), NAME) == section(theirs or b"", NAME)


# -- recordings, and the judges


@pytest.mark.parametrize("machine", RECORDED)
async def test_a_recording_loads_and_comes_back(machine: str) -> None:
    recorded = gzip.decompress((VMSTATE / f"real-e1000-{machine}.mig.gz").read_bytes())
    mdev = await nic(machine)
    load(exercise(mdev, 3), recorded, 1000, machine)
    assert section(save(mdev, machine), NAME) == section(recorded, NAME)
    assert mdev.state.eeprom_data[:3] == [0x5452, 0x1200, 0x5634]  # the recorded machine's MAC address


async def test_the_json_is_the_recorded_one() -> None:
    described = described_by(save(exercise(await nic("pc-q35-7.2"), 1)))
    assert described["devices"] == [json.loads((VMSTATE / "e1000.stream-desc.json").read_text())]


@needs_scripts
def test_the_judges_pass_what_emit_writes(tmp_path: Path) -> None:
    stream, machine = tmp_path / "e1000.mig", "pc-q35-7.2"
    assert run(["state", "emit", "--driver", "e1000", "--machine", machine, "--seed", "1", "-o", str(stream)]) == 0
    show = f"{shlex.join(COMMAND)} state show --json"
    assert judge("accept_stream.py", "--mutate", "--product-values", show, stream)[-1] == PASSED
    assert judge("accept_qemu_load.py", "--machine", machine, stream)[-1] == PASSED


@needs_scripts
@pytest.mark.parametrize("qemu", ["7.2", "10.0", "11.1"])
def test_the_description_is_qemus(qemu: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "describe", "e1000"]) == 0
    ours, theirs = tmp_path / "ours.json", VMSTATE / f"dump-qemu{qemu}-pc-q35-7.2.json"
    ours.write_text(capsys.readouterr().out)
    for pair in ((ours, theirs), (theirs, ours)):
        assert judge("accept_description.py", *pair, "--only", "e1000", "--forward", "ok")[-1] == PASSED
    described, recorded = (json.loads(one.read_text())["e1000"] for one in (ours, theirs))
    described["Description"]["Fields"][0]["size"] = recorded["Description"]["Fields"][0]["size"]  # a C struct's
    assert described == recorded or qemu == "7.2"  # which does not say how long arrays are
