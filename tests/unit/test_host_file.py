"""host.toml: every mistake at once, each with its key path, its value and the near miss; and what a good one makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mdevfs.bus.kernel import Kernel
from mdevfs.errors import InputError
from mdevfs.host.host import Host, load
from mdevfs.host.plan import plan
from mdevfs.host.read import locate, read, shipped
from tests.support import MTTY_AND_MDPY, InProcess, check_tree, host_of

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
MTTY = "[[device]]\ndriver = 'mtty'\n"
DRIVER = """
from pydantic import Field
from mdevfs.vendor import MdevType, VendorDriver
from mdevfs.vendor import Settings as Base

class Acme(VendorDriver):
    api = 1
    name = "acme"
    types = [MdevType("a")]

    class Settings(Base):
        ports: int = Field(default=1, ge=1, le=8)
        mode: str = "fast"
"""


async def mistakes(folder: Path, text: str) -> list[str]:
    """What is said of this host file, without the file's name; it must be said of each line."""
    path = folder / "host.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        await load(str(path))
    assert all(line.startswith(f"{path}: ") for line in caught.value.mistakes), caught.value.mistakes
    return [line.removeprefix(f"{path}: ") for line in caught.value.mistakes]


# -- the schema


async def test_everything_wrong_at_once(tmp_path: Path) -> None:
    told = await mistakes(
        tmp_path,
        f"""
        colour = "red"
        [host]
        nmae = "x"
        kernel = "six"
        interfaces = ["migration_versions", "query", "nothing_like_it"]
        kernel_quirks = ["remove-rase"]
        drivers = "a.py"
        [[device]]
        driver = 5
        adress = "x"
        iommu_group = -1
        sriov = {{ total = 4, nmu = 1 }}
        [[device]]
        [[device.mdev]]
        uuid = "{UUID[:-1]}"
        type = "mtty-1"
        [[device.mdev]]
        uuid = "{UUID}"
        count = 2
        type = "mtty-1"
        [[device.mdev]]
        count = 0
        typ = "mtty-1"
        """,
    )
    expected = [
        r"colour: unknown key \(known: device, fault, host\)",
        r'host\.nmae: unknown key, did you mean "name"\?',
        r'host\.kernel: "six" is not a kernel release such as 6\.1',
        r'host\.interfaces\[0\]: "migration_versions" is unknown, did you mean "migration_version"\?',
        r'host\.interfaces\[2\]: "nothing_like_it" is unknown.*',
        r'host\.kernel_quirks\[0\]: "remove-rase" is unknown, did you mean "remove-race"\?',
        r'host\.drivers: .*valid list \(is "a\.py"\)',
        r'device\[0\]\.driver: .*valid string \(is "5"\)',
        r'device\[0\]\.adress: unknown key, did you mean "address"\?',
        r'device\[0\]\.iommu_group: .*greater than or equal to 0 \(is "-1"\)',
        r'device\[0\]\.sriov\.nmu: unknown key, did you mean "num"\?',
        r"device\[1\]\.driver: is required",
        rf'device\[1\]\.mdev\[0\]\.uuid: "{UUID[:-1]}" is not a UUID such as uuidgen prints',
        r"device\[1\]\.mdev\[1\]: give either uuid or count",
        r'device\[1\]\.mdev\[2\]\.count: .*greater than or equal to 1 \(is "0"\)',
        r"device\[1\]\.mdev\[2\]\.type: is required",
        r'device\[1\]\.mdev\[2\]\.typ: unknown key, did you mean "type"\?',
    ]
    for pattern in expected:
        assert [line for line in told if re.fullmatch(pattern, line)], (pattern, told)
    assert len(told) == len(expected), told


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[host", "not TOML"),
        ("[host]\nname = 1\nname = 2\n", "not TOML"),
        ("host = 5\n", "host: "),
        ("device = {}\n", "device: "),
    ],
)
async def test_files_of_another_kind(tmp_path: Path, text: str, part: str) -> None:
    [line] = await mistakes(tmp_path, text)
    assert part in line


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read(str(path))


async def test_hostile_values_are_shown_escaped(tmp_path: Path) -> None:
    for text in (
        '["\\u001b[2J"]\nx = 1\n',
        '[[device]]\ndriver = "\\u001b[31m"\n',
        '[[device]]\ndriver = "mtty"\n[[device.mdev]]\ncount = 1\ntype = "\\u001b[31m"\n',
    ):
        [line] = await mistakes(tmp_path, text)
        assert "\x1b" not in line
        assert "\\x1b[" in line


# -- what the drivers know


def write_driver(folder: Path) -> None:
    folder.chmod(0o755)
    path = folder / "acme.py"
    path.write_text(DRIVER)
    path.chmod(0o644)


async def test_all_that_only_drivers_know_at_once(tmp_path: Path) -> None:
    write_driver(tmp_path)
    told = await mistakes(
        tmp_path,
        f"""
        [host]
        drivers = ["acme.py", "none.py"]
        [[device]]
        driver = "mtyt"
        [[device]]
        driver = "nothing-like-it"
        [[device]]
        driver = "mtty"
        settings = {{ prots = 1 }}
        [[device]]
        driver = "mtty"
        address = "a b"
        iommu_group = 3
        sriov = {{ total = 1 }}
        [[device]]
        driver = "acme"
        settings = {{ prots = 1, ports = 9, mode = 5 }}
        [[device]]
        driver = "mdpy"
        [[device.mdev]]
        uuid = "{UUID}"
        type = "mdpy-hd"
        [[device.mdev]]
        uuid = "{UUID.upper()}"
        type = "mdpy-hd"
        [[device]]
        driver = "mdpy"
        """,
    )
    expected = [
        rf"host\.drivers\[1\]: driver file {tmp_path}/none\.py does not exist",
        r'device\[0\]\.driver: vendor driver "mtyt" is unknown, did you mean "mtty"\?',
        r'device\[1\]\.driver: vendor driver "nothing-like-it" is unknown.*',
        r"device\[2\]\.settings\.prots: unknown key.*",
        r'device\[3\]\.address: "a b" is not a name, as the bus of driver mtty has them',
        r"device\[3\]\.iommu_group: only PCI functions have one, driver mtty is on virtual",
        r"device\[3\]\.sriov: only PCI functions have one, driver mtty is on virtual",
        r'device\[4\]\.settings\.prots: unknown key, did you mean "ports"\?',
        r'device\[4\]\.settings\.ports: .*less than or equal to 8 \(is "9"\)',
        r'device\[4\]\.settings\.mode: .*valid string \(is "5"\)',
        rf'device\[5\]\.mdev\[1\]\.uuid: "{UUID}" is taken by device\[5\]\.mdev\[0\]',
        r'device\[6\]\.address: "mdpy" is taken by device\[5\]',
    ]
    for pattern in expected:
        assert [line for line in told if re.fullmatch(pattern, line)], (pattern, told)
    assert len(told) == len(expected), told


@pytest.mark.parametrize("address", [".", "..", "a/b", "", "a b", "x\ty", "\\u0000", "x\\u001b", "gr\u00fcn"])
async def test_names_that_no_directory_can_have(tmp_path: Path, address: str) -> None:
    [line] = await mistakes(tmp_path, f'[[device]]\ndriver = "mtty"\naddress = "{address}"\n')
    assert line.startswith("device[0].address: ")
    assert line.isascii()


async def test_one_name_for_two_parents(tmp_path: Path) -> None:
    """class/mdev_bus lists all parents by name, whatever their bus."""
    text = "[[device]]\ndriver = 'mtty'\naddress = 'x'\n[[device]]\ndriver = 'mdpy'\naddress = 'x'\n"
    assert await mistakes(tmp_path, text) == ['device[1].address: "x" is taken by device[0]']


async def test_mistakes_that_show_when_the_mdevs_are_made(tmp_path: Path) -> None:
    told = await mistakes(
        tmp_path,
        f"""
        [[device]]
        driver = "mtty"
        [[device.mdev]]
        count = 2
        type = "mtty-3"
        [[device.mdev]]
        count = 25
        type = "mtty-1"
        [[device]]
        driver = "mdpy"
        [[device.mdev]]
        uuid = "{UUID}"
        type = "nothing"
        """,
    )
    assert told[0] == 'device[0].mdev[0].type: mtty has no type "mtty-3", did you mean "mtty-2"?'
    assert re.match(r"device\[0\]\.mdev\[1\]: [0-9a-f-]{36} on mtty-1: no-instances: ", told[1])
    assert told[2:] == ['device[1].mdev[0].type: mdpy has no type "nothing" (known: mdpy-hd, mdpy-vga, mdpy-xga)']


# -- finding


def test_shipped_hosts_have_names() -> None:
    assert {"mtty", "gvtg", "gvtg-newer", "gvtg-other-sku"} <= set(shipped())
    assert locate("mtty") == shipped()["mtty"]
    with pytest.raises(InputError, match='no shipped host "gvgt", did you mean "gvtg"'):
        locate("gvgt")
    for name in ("./none", "none.toml", "/no/such/host.toml"):
        with pytest.raises(InputError, match="does not exist"):
            locate(name)


@pytest.mark.parametrize("name", sorted(shipped()))
async def test_shipped_hosts_load(name: str) -> None:
    host = await load(name)
    assert host.name == name
    assert InProcess(host.tree).list("class/mdev_bus")
    check_tree(host.tree)


# -- what a good one makes


async def test_no_interfaces_is_the_kernels_tree() -> None:
    host = await host_of(MTTY_AND_MDPY.replace("[host]", "[host]\ninterfaces = []"))
    sys = InProcess(host.tree)
    kind = "devices/virtual/mtty/mtty/mdev_supported_types/mtty-1"
    await sys.write(f"{kind}/create", UUID)
    mdev = ["driver", "iommu_group", "mdev_type", "power", "remove", "subsystem", "uevent", "vendor", "vfio-dev"]
    assert sys.list(kind) == ["available_instances", "create", "device_api", "devices", "name"]
    assert sys.list(f"bus/mdev/devices/{UUID}") == mdev
    assert sys.list("devices/virtual/mtty/mtty") == [UUID, "mdev_supported_types", "power", "subsystem", "uevent"]
    assert not [path for path, _ in host.tree.everything() if "migration" in path or "mdevfs" in path]
    check_tree(host.tree)


@pytest.mark.parametrize(
    ("interfaces", "there"),
    [
        ("", {"migration_version", "mdevfs/last_verdict", "mdevfs/check"}),
        ("interfaces = ['migration_version']", {"migration_version"}),
        ("interfaces = ['verdicts']", {"mdevfs/last_verdict", "mdevfs/check"}),
    ],
)
async def test_chosen_interfaces(interfaces: str, there: set[str]) -> None:
    sys = InProcess((await host_of(f"[host]\n{interfaces}\n{MTTY}[[device.mdev]]\nuuid='{UUID}'\ntype='mtty-1'")).tree)
    for place in ("class/mdev_bus/mtty/mdev_supported_types/mtty-1", f"bus/mdev/devices/{UUID}"):
        for name in ("migration_version", "mdevfs/last_verdict", "mdevfs/check"):
            assert sys.exists(f"{place}/{name}") == (name in there), name


async def test_a_driver_without_migration_has_no_handshake() -> None:
    sys = InProcess((await host_of()).tree)
    place = "class/mdev_bus/mdpy/mdev_supported_types/mdpy-hd"
    assert sys.list(f"{place}/mdevfs") == ["last_verdict"]
    assert not sys.exists(f"{place}/migration_version")


def uuids(host: Host, parent: str = "mtty") -> list[str]:
    return sorted(mdev.uuid for mdev in host.mdev.parents[parent].mdevs)


async def test_counted_uuids_are_stable() -> None:
    several = "[[device.mdev]]\ncount = 3\ntype = 'mtty-1'\n"
    first = uuids(await host_of(MTTY + several))
    assert len(set(first)) == 3
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}", uuid) for uuid in first)
    assert uuids(await host_of(MTTY + several)) == first
    more = several.replace("3", "5")
    assert set(first) < set(uuids(await host_of(MTTY + more)))
    other = "[[device.mdev]]\ncount = 2\ntype = 'mtty-2'\n"
    assert set(first) < set(uuids(await host_of("[[device]]\ndriver = 'mdpy'\n" + MTTY + other + several)))
    assert not set(first) & set(uuids(await host_of("[host]\nname = 'other'\n" + MTTY + several)))
    assert not set(first) & set(uuids(await host_of(MTTY + "address = 'x'\n" + several), "x"))


async def test_two_counts_of_one_type() -> None:
    two = "[[device.mdev]]\ncount = 2\ntype = 'mtty-1'\n" * 2
    host = await host_of(MTTY + two)
    assert len(uuids(host)) == 4
    assert uuids(host) == uuids(await host_of(MTTY + "[[device.mdev]]\ncount = 4\ntype = 'mtty-1'\n"))
    check_tree(host.tree)


async def test_the_owner_and_the_kernel() -> None:
    host = Host(plan(read("mtty")), uid=1000, gid=100)
    await host.start()
    assert (host.tree.uid, host.tree.gid) == (1000, 100)
    old = await host_of(f"[host]\nkernel = '5.10'\n{MTTY}[[device.mdev]]\nuuid='{UUID}'\ntype='mtty-1'")
    sys = InProcess(old.tree)
    assert sys.list("bus/mdev/drivers") == ["vfio_mdev"]
    assert not sys.exists(f"bus/mdev/devices/{UUID}/vfio-dev")
    check_tree(old.tree)


@pytest.mark.parametrize("text", ["", "6", "6.1.", "six", "6.1-rc1", "v6.1", "6.1.2.3", "1000.1"])
def test_releases_that_are_none(text: str) -> None:
    with pytest.raises(InputError):
        Kernel.parse(text)


def test_releases_compare_by_numbers() -> None:
    assert Kernel.parse("6.12.117").since("6.2")
    assert not Kernel.parse("6.1").since("6.12")
    assert Kernel.parse("5.19") < Kernel.parse("6.1") <= Kernel.parse("6.1.192")
    assert str(Kernel.parse("6.12.117")) == "6.12"
