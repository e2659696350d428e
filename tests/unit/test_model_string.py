"""A declared model's string is built once per configuration: reads, handshakes and `ls` do not build it again."""

from __future__ import annotations

import pytest

from mdevfs.migration.model import DeviceModel, Values
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


async def test_a_refused_parameter_changes_neither(built: list[str]) -> None:
    shell = InProcess((await host_of(HOST)).tree)
    await shell.write(f"{TYPE}/create", UUIDS[0])
    mdev = f"{PARENT}/{UUIDS[0]}"
    before = await shell.read(f"{mdev}/migration_version")
    with pytest.raises(OSError, match="value-not-allowed"):
        await shell.write(f"{mdev}/migration/rx-filter-size", "257\n")
    assert await shell.read(f"{mdev}/migration_version") == before
    assert len(built) == 1
