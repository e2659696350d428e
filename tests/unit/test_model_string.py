"""A declared model's string is built once per configuration: reads, handshakes and `ls` do not build it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdevfs.errors import InputError
from mdevfs.migration.model import DeviceModel, Values
from mdevfs.migration.parameters import Str
from tests.support import InProcess, host_of

HOST = '[host]\nname = "nic"\n[[device]]\ndriver = "my_nic"\n'
PARENT = "devices/virtual/my_nic/my_nic"
TYPE = f"{PARENT}/mdev_supported_types/my_nic-nic"
UUIDS = [f"facade00-0000-4000-8000-{number:012x}" for number in range(2)]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every string that is built from now on; the model still builds it."""
    strings: list[str] = []
    write = DeviceModel.write

    def counted(self: DeviceModel, values: Values) -> str:
        strings.append(write(self, values))
        return strings[-1]

    monkeypatch.setattr(DeviceModel, "write", counted)
    return strings


async def test_a_string_is_built_once_per_configuration(built: list[str]) -> None:
    shell = InProcess((await host_of(HOST)).tree)
    for uuid in UUIDS:
        await shell.write(f"{TYPE}/create", uuid)
    assert built == []
    paths = [TYPE, *(f"{PARENT}/{uuid}" for uuid in UUIDS)]
    for path in paths * 5:
        string = await shell.read(f"{path}/migration_version")
        await shell.write(f"{path}/migration_version", string)
    assert built == ["vendor-a.com/my-nic,rx-filter-size=64"] * len(paths)


async def test_a_changed_parameter_builds_it_once_more(built: list[str]) -> None:
    shell = InProcess((await host_of(HOST)).tree)
    await shell.write(f"{TYPE}/create", UUIDS[0])
    mdev = f"{PARENT}/{UUIDS[0]}"
    before = [await shell.read(f"{mdev}/migration_version") for _ in range(3)]
    await shell.write(f"{mdev}/migration/rx-filter-size", "0\n")
    after = [await shell.read(f"{mdev}/migration_version") for _ in range(3)]
    assert before == ["vendor-a.com/my-nic,rx-filter-size=64\n"] * 3
    assert after == ["vendor-a.com/my-nic\n"] * 3
    assert built == ["vendor-a.com/my-nic,rx-filter-size=64", "vendor-a.com/my-nic"]


LONG = """
from mdevfs.vendor import DeviceModel, MdevType, Str, VendorDriver

class Long(VendorDriver):
    api, name, types = 1, "long", [MdevType("a")]
    model = DeviceModel("a.b/c", [Str("x", "a" * 40, ""), Str("y", "", "")])
"""


async def test_no_device_says_more_than_a_string_can(tmp_path: Path) -> None:
    """Else its own string would be cut off when it is read, and refused when it is written."""
    (tmp_path / "long.py").write_text(LONG)
    shell = InProcess((await host_of('[host]\ndrivers = ["long.py"]\n[[device]]\ndriver = "long"\n', tmp_path)).tree)
    kind, mdev = "class/mdev_bus/long/mdev_supported_types/long-a", f"class/mdev_bus/long/{UUIDS[0]}"
    most = 4094 - len("a.b/c,x=,y=")
    with pytest.raises(OSError, match="string-too-long"):
        await shell.write(f"{kind}/create", f"{UUIDS[0]},y={'%7E' * 1350}")  # 4050 characters, and x has 40
    assert not shell.exists(mdev)
    await shell.write(f"{kind}/create", f"{UUIDS[0]},x={'a' * 100}")
    with pytest.raises(OSError, match="string-too-long: the device's string would have 4095 characters"):
        await shell.write(f"{mdev}/migration/y", "a" * (most - 99))
    assert await shell.read(f"{mdev}/migration/y") == "\n"
    await shell.write(f"{mdev}/migration/y", "a" * (most - 100))
    string = await shell.read(f"{mdev}/migration_version")
    assert len(string) == 4095
    assert await shell.write(f"{mdev}/migration_version", string) == 4095


def test_a_model_whose_devices_say_too_much_is_impossible() -> None:
    with pytest.raises(InputError, match="would have 4101 characters"):
        DeviceModel("a.b/c", [Str("long", "a" * 4090)])


async def test_a_refused_parameter_changes_neither(built: list[str]) -> None:
    shell = InProcess((await host_of(HOST)).tree)
    await shell.write(f"{TYPE}/create", UUIDS[0])
    mdev = f"{PARENT}/{UUIDS[0]}"
    before = await shell.read(f"{mdev}/migration_version")
    with pytest.raises(OSError, match="value-not-allowed"):
        await shell.write(f"{mdev}/migration/rx-filter-size", "257\n")
    assert await shell.read(f"{mdev}/migration_version") == before
    assert len(built) == 1
