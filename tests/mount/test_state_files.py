"""`mdevfs state save` and `load` on real mounts: a device's state in a file, and nothing half done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mdevfs.state import believe
from tests.mount.conftest import Mount
from tests.mount.server import MDEVFS, mdevfs, read, run, write

ONE, TWO, PORT = (f"83b8f4f2-509f-382f-3c1e-e6bfe0fa100{number}" for number in (1, 2, 3))
DRIVER = """
from mdevfs.vendor import U32, BadState, Bool, Bytes, DeviceModel, MdevType, VendorDriver, VMState, show, store

def odd(view):
    if view.state.ctrl == 13:
        raise BadState("test-odd", rule="13 is odd", mend="be even")

class Nic(VendorDriver):
    api, name, types = 1, "nic", [MdevType("a", instances=8)]
    model = DeviceModel("vendor-a.com/nic", [Bool("rss", False, False)])
    state = VMState("nic", fields=[U32("ctrl", reset=1), Bytes("ring", 3000000)], after_load=odd)

    @show("vendor/ctrl")
    def show_ctrl(self, mdev):
        return f"{mdev.state.ctrl}\\n"

    @store("vendor/ctrl")
    def store_ctrl(self, mdev, data):
        mdev.state.ctrl = int(data)
"""
HOST = f"""
[host]
drivers = ["./nic.py"]
[[device]]
driver = "nic"
mdev = [{{ type = "nic-a", uuid = "{ONE}" }}, {{ type = "nic-a", uuid = "{TWO}" }}]
[[device]]
driver = "mtty"
mdev = [{{ type = "mtty-2", uuid = "{PORT}" }}]
"""


@pytest.fixture
def devices(mount: Mount, place: Path) -> Path:
    """A mount's bus/mdev/devices; the first device's register is not as after reset."""
    (place / "nic.py").write_text(DRIVER)
    found = mount(HOST).root / "bus/mdev/devices"
    write(found / ONE / "vendor/ctrl", "7")
    return found


def runs(device: Path, ctrl: int) -> bool:
    state = read(device / "mdevfs/migration_state").strip()
    return (state, int(read(device / "vendor/ctrl"))) == ("RUNNING", ctrl)


def test_what_is_saved_loads(devices: Path, place: Path) -> None:
    file = place / "one.mig"
    assert mdevfs("state", "save", devices / ONE, "-o", file).returncode == 0
    assert runs(devices / ONE, 7)
    shown = mdevfs("state", "show", "--json", file)
    assert json.loads(shown.stdout)["nic (1)"]["ctrl"] == "0x00000007"
    done = mdevfs("state", "load", file, devices / TWO)
    assert (done.returncode, done.stderr) == (0, "")
    assert runs(devices / TWO, 7)
    again = place / "two.mig"
    mdevfs("state", "save", devices / TWO, "-o", again)
    assert mdevfs("state", "diff", file, again).stdout == "no difference\n"


def test_standard_output_and_input(devices: Path) -> None:
    script = f"{MDEVFS} state save {devices / ONE} -o - | {MDEVFS} state load - {devices / TWO}"
    done = run("bash", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    assert runs(devices / TWO, 7)


ALTERED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("state-cut-short", lambda data: data[:-500_000]),
    ("state-cut-short", lambda data: data[:2_000_000]),
    ("state-cut-short", lambda data: b""),
    ("state-not-a-stream", lambda data: b"\x7fELF" + data[4:]),
    ("state-version-too-new", lambda data: data.replace(b"\3nic\0\0\0\0\0\0\0\1", b"\3nic\0\0\0\0\0\0\0\2", 1)),
    ("model-differs", lambda data: data.replace(b"vendor-a.com/nic", b"vendor-b.com/nic")),
    ("test-odd", lambda data: data.replace(b"\0\0\0\7", b"\0\0\0\x0d", 1)),
]


def test_what_does_not_load_leaves_the_device_as_it_was(devices: Path, place: Path) -> None:
    file = place / "one.mig"
    mdevfs("state", "save", devices / ONE, "-o", file)
    whole = file.read_bytes()
    for code, alter in ALTERED:
        file.write_bytes(alter(whole))
        done = mdevfs("state", "load", file, devices / TWO)
        assert done.returncode == 1
        assert f"  {code}: " in done.stderr
        assert f"mdevfs explain {code}" in done.stderr
        assert runs(devices / TWO, 1)


def test_a_device_that_is_moved_already_is_left_alone(devices: Path, place: Path) -> None:
    write(devices / ONE / "mdevfs/migration_state", "STOP_COPY")
    with open(devices / ONE / "mdevfs/migration_data", "rb", buffering=0):
        for words in (("save", devices / ONE, "-o", place / "x"), ("load", place / "nic.py", devices / ONE)):
            done = mdevfs("state", *words)
            assert (done.returncode, "somebody else is moving it" in done.stderr) == (1, True)
    assert not (place / "x").exists()
    assert runs(devices / ONE, 7)


def test_a_file_that_cannot_be_written_stops_nobody(devices: Path, place: Path) -> None:
    done = mdevfs("state", "save", devices / ONE, "-o", place / "no" / "x")
    assert (done.returncode, "No such file or directory" in done.stderr) == (2, True)
    assert runs(devices / ONE, 7)
    done = mdevfs("state", "save", devices / ONE, "-o", "/dev/full")
    assert (done.returncode, "No space left" in done.stderr) == (2, True)
    assert runs(devices / ONE, 7)


def test_a_path_that_is_no_device_is_wrong_use(place: Path) -> None:
    for words in (("save", "-o", place / "x", place), ("load", "/dev/null", place)):
        done = mdevfs("state", *words)
        assert (done.returncode, "DEVICE" in done.stderr) == (2, True)
    assert list(place.iterdir()) == []


def test_bare_state_gets_a_description_and_loses_it(devices: Path, place: Path) -> None:
    """mtty's 96 bytes: in the file a stream that QEMU's analyzer reads, at the device the kernel's layout."""
    file, raw = place / "port.mig", place / "port.raw"
    emitted = mdevfs("state", "emit", "--driver", "mtty", "--type", "mtty-2", "--seed", "1", "-o", file)
    assert emitted.returncode == 0
    done = mdevfs("state", "load", file, devices / PORT)
    assert (done.returncode, done.stderr) == (0, "")
    again = place / "again.mig"
    assert mdevfs("state", "save", devices / PORT, "-o", again).returncode == 0
    assert again.read_bytes() == file.read_bytes()
    (section,) = believe.read(again.read_bytes()).sections
    assert section.size == 96
    raw.write_bytes(again.read_bytes()[section.body : section.body + 96])
    assert mdevfs("state", "load", raw, devices / PORT).returncode == 0
    raw.write_bytes(b"\0" * 96)
    done = mdevfs("state", "load", raw, devices / PORT)
    assert (done.returncode, "mtty-" in done.stderr) == (1, True)
