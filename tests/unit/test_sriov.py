"""Virtual functions: how many, where, in which order, and who drives them (drivers/pci/iov.c)."""

from __future__ import annotations

import errno
import stat
from struct import unpack_from

import pytest
import trio
import trio.testing

from mdevfs.bus.pci_driver import PciDriver, PciId
from mdevfs.bus.pci_function import PciFunction
from mdevfs.bus.pci_resource import SriovCapability
from mdevfs.errors import KernelError
from tests.support import check_tree
from tests.unit.pci_host import GPU, IGD, PF, SRIOV, VF_BARS, PciHost

PATH = f"bus/pci/devices/{PF}"
NUMVFS = f"{PATH}/sriov_numvfs"
NVIDIA = PciId(0x10DE)


async def yes(function: PciFunction, wanted: int) -> int:
    return wanted


def allow(function: PciFunction, wanted: int) -> int:
    return wanted


async def machine(sriov: SriovCapability = SRIOV) -> PciHost:
    """A host whose one physical function has a driver that knows SR-IOV."""
    host = PciHost()
    host.pci.add(PF, GPU, sriov=sriov)
    await host.driver("nvidia", NVIDIA, sriov=yes)
    host.said()
    return host


async def test_the_files_of_a_physical_function() -> None:
    host = await machine()
    expected = {
        "sriov_totalvfs": (0o444, "16\n"),
        "sriov_numvfs": (0o644, "0\n"),
        "sriov_offset": (0o444, "4\n"),
        "sriov_stride": (0o444, "1\n"),
        "sriov_vf_device": (0o444, "25b6\n"),
        "sriov_vf_total_msix": (0o444, "0\n"),
        "sriov_drivers_autoprobe": (0o644, "1\n"),
        "ari_enabled": (0o444, "1\n"),
    }
    for name, (mode, text) in expected.items():
        assert await host.sys.read(f"{PATH}/{name}") == text, name
        assert stat.S_IMODE(host.sys.tree.walk(f"{PATH}/{name}").mode) == mode, name


async def test_vfs_come_in_the_kernels_order() -> None:
    host = await machine()
    assert await host.sys.write(NUMVFS, "2\n") == 2
    first, second = "0000:41:00.4", "0000:41:00.5"
    assert host.said() == [
        f"add {first}", f"change {first}", f"bind {first}",
        f"add {second}", f"change {second}", f"bind {second}",
        f"change {PF}",
    ]  # fmt: skip
    assert await host.sys.read(NUMVFS) == "2\n"
    assert host.sys.readlink(f"{PATH}/virtfn1") == f"../{second}"
    assert host.sys.readlink(f"bus/pci/devices/{second}/physfn") == f"../{PF}"
    check_tree(host.core.tree)
    await host.sys.write(NUMVFS, "0")
    assert host.said() == [f"unbind {first}", f"remove {first}", f"unbind {second}", f"remove {second}"]
    assert [name for name in host.sys.list(PATH) if name.startswith("virtfn")] == []
    assert host.sys.list("bus/pci/devices") == ["0000:00:1c.0", PF]
    check_tree(host.core.tree)


async def test_the_files_of_a_vf() -> None:
    host = await machine()
    await host.sys.write(NUMVFS, "16")
    vf = "bus/pci/devices/0000:41:02.3"  # the last: 4 + 15 routing ids further
    assert await host.sys.read(f"{vf}/vendor") == "0x10de\n"
    assert await host.sys.read(f"{vf}/device") == "0x25b6\n"
    assert await host.sys.read(f"{vf}/class") == "0x030200\n"
    assert await host.sys.read(f"{vf}/irq") == "0\n"
    assert await host.sys.read(f"{vf}/reset_method") == "flr\n"
    names = set(host.sys.list(vf))
    assert not names & {"remove", "rescan", "sriov_numvfs", "sriov_totalvfs", "virtfn0"}
    assert stat.S_IMODE(host.sys.tree.walk(f"{vf}/sriov_vf_msix_count").mode) == 0o200
    assert await host.refused(f"{vf}/sriov_vf_msix_count", "x") == errno.EINVAL
    assert await host.refused(f"{vf}/sriov_vf_msix_count", "8") == errno.EOPNOTSUPP
    group = host.sys.readlink(f"{vf}/iommu_group").rpartition("/")[2]
    assert host.sys.list(f"kernel/iommu_groups/{group}/devices") == ["0000:41:02.3"]


async def test_vf_bars_are_slices_of_the_physical_functions() -> None:
    host = await machine()
    await host.sys.write(NUMVFS, "3")
    of_pf = (await host.sys.read(f"{PATH}/resource")).splitlines()
    of_vf = (await host.sys.read("bus/pci/devices/0000:41:00.6/resource")).splitlines()
    assert (len(of_pf), len(of_vf)) == (13, 13)
    for place, bar in ((0, VF_BARS[0]), (1, VF_BARS[1])):
        start, end, flags = (int(one, 16) for one in of_pf[7 + place].split())
        assert (end - start + 1, flags) == (16 * bar.size, bar.flags)
        low, high, _ = (int(one, 16) for one in of_vf[place].split())
        assert (low, high) == (start + 2 * bar.size, start + 3 * bar.size - 1)
        assert host.sys.tree.walk(f"bus/pci/devices/0000:41:00.6/resource{place}").entry.size == bar.size


async def test_the_capability_says_the_same_as_the_files() -> None:
    host = await machine()
    await host.sys.write(NUMVFS, "5")
    config = await host.bytes(f"{PATH}/config")
    found, at = {}, 0x100
    while at:
        header = unpack_from("<I", config, at)[0]
        found[header & 0xFFFF] = at
        at = header >> 20
    assert set(found) == {0x0E, 0x10}
    at = found[0x10]
    assert unpack_from("<HHH", config, at + 0x0C) == (16, 16, 5)
    assert unpack_from("<HH", config, at + 0x14) == (4, 1)
    assert unpack_from("<H", config, at + 0x1A) == (0x25B6,)
    assert config[at + 8] & 1
    start = int((await host.sys.read(f"{PATH}/resource")).splitlines()[7].split()[0], 16)
    assert unpack_from("<I", config, at + 0x24)[0] == start
    # What the bus returns for a VF; the kernel's own files take the ids from the physical function.
    vf = await host.bytes("bus/pci/devices/0000:41:00.4/config")
    assert unpack_from("<HH", vf) == (0xFFFF, 0xFFFF)
    assert vf[9:12] == b"\x00\x02\x03"


@pytest.mark.parametrize(
    ("text", "answer"),
    [("x", errno.EINVAL), ("-1", errno.EINVAL), ("65536", errno.EINVAL), ("17", errno.ERANGE), ("65535", errno.ERANGE)],
)
async def test_numbers_that_are_refused(text: str, answer: int) -> None:
    host = await machine()
    assert await host.refused(NUMVFS, text) == answer


async def test_the_order_of_the_errnos() -> None:
    host = PciHost()
    host.pci.add(PF, GPU, sriov=SRIOV)
    assert await host.sys.write(NUMVFS, "0") == 1  # equal to the current number: not even a driver is needed
    assert await host.refused(NUMVFS, "17") == errno.ERANGE
    assert await host.refused(NUMVFS, "1") == errno.ENOENT
    await host.driver("plain", NVIDIA)
    assert await host.refused(NUMVFS, "1") == errno.ENOENT
    await host.sys.write(f"{PATH}/driver/unbind", PF)
    await host.driver("nvidia", NVIDIA, sriov=allow)
    await host.sys.write(NUMVFS, "4")
    assert await host.sys.write(NUMVFS, "4") == 1
    assert await host.refused(NUMVFS, "5") == errno.EBUSY
    assert await host.sys.read(NUMVFS) == "4\n"
    check_tree(host.core.tree)


async def test_the_drivers_errno_and_the_drivers_number() -> None:
    host = PciHost()
    host.pci.add(PF, GPU, sriov=SRIOV)

    def some(function: PciFunction, wanted: int) -> int:
        if wanted == 7:
            raise KernelError(errno.EPERM)
        return min(wanted, 3)

    await host.driver("nvidia", NVIDIA, sriov=some)
    assert await host.refused(NUMVFS, "7") == errno.EPERM
    assert await host.sys.read(NUMVFS) == "0\n"
    await host.sys.write(NUMVFS, "8")
    assert await host.sys.read(NUMVFS) == "3\n"


async def test_a_driver_lowers_the_total_until_it_goes() -> None:
    host = await machine()
    sriov = host.pci.functions[PF].sriov
    assert sriov is not None
    sriov.driver_max = 2
    assert await host.sys.read(f"{PATH}/sriov_totalvfs") == "2\n"
    assert await host.refused(NUMVFS, "3") == errno.ERANGE
    await host.sys.write(NUMVFS, "2")
    await host.sys.write("bus/pci/drivers/nvidia/unbind", PF)
    assert await host.sys.read(f"{PATH}/sriov_totalvfs") == "16\n"
    # The VFs stay, and without a driver nobody can send them away.
    assert await host.sys.read(NUMVFS) == "2\n"
    assert await host.refused(NUMVFS, "0") == errno.ENOENT
    assert host.bound("0000:41:00.5") == "nvidia"
    await host.sys.write(f"{PATH}/driver_override", "vfio-pci")
    assert await host.refused("bus/pci/drivers/vfio-pci/bind", PF) == errno.EBUSY


async def test_without_autoprobe_vfs_stay_unbound() -> None:
    host = await machine()
    assert await host.refused(f"{PATH}/sriov_drivers_autoprobe", "x") == errno.EINVAL
    await host.sys.write(f"{PATH}/sriov_drivers_autoprobe", "N")
    assert await host.sys.read(f"{PATH}/sriov_drivers_autoprobe") == "0\n"
    await host.sys.write(NUMVFS, "2")
    vf = "0000:41:00.4"
    assert host.bound(vf) is None
    assert await host.refused("bus/pci/drivers/nvidia/bind", vf) == errno.ENODEV
    await host.sys.write(f"bus/pci/devices/{vf}/driver_override", "vfio-pci")
    await host.sys.write("bus/pci/drivers/vfio-pci/bind", vf)
    assert host.bound(vf) == "vfio-pci"
    await host.sys.write(NUMVFS, "0")
    assert host.sys.list("class/vfio") == []
    check_tree(host.core.tree)


async def test_vfs_reach_the_next_bus() -> None:
    host = await machine(SriovCapability(total=4, offset=0x80, stride=0x40, vf_device=0x1234))
    port = "devices/pci0000:00/0000:00:1c.0"
    assert await host.sys.read(f"{port}/subordinate_bus_number") == "66\n"
    await host.sys.write(NUMVFS, "4")
    assert host.sys.list("class/pci_bus") == ["0000:00", "0000:41", "0000:42"]
    assert host.sys.readlink(f"{PATH}/virtfn3") == "../0000:42:08.0"
    assert host.sys.readlink("bus/pci/devices/0000:42:08.0/physfn") == f"../{PF}"
    check_tree(host.core.tree)
    await host.sys.write(NUMVFS, "0")
    assert host.sys.list("class/pci_bus") == ["0000:00", "0000:41"]
    check_tree(host.core.tree)


async def test_a_removed_physical_function_takes_its_vfs_along() -> None:
    host = await machine()
    await host.sys.write(NUMVFS, "2")
    host.said()
    await host.sys.write(f"{PATH}/remove", "1")
    assert host.said()[-2:] == [f"unbind {PF}", f"remove {PF}"]
    assert host.sys.list("bus/pci/devices") == ["0000:00:1c.0"]
    check_tree(host.core.tree)
    await host.sys.write("bus/pci/rescan", "1")
    assert await host.sys.read(NUMVFS) == "0\n"
    assert host.bound(PF) == "nvidia"


async def test_a_reader_waits_while_vfs_come() -> None:
    host = PciHost()
    host.pci.add(PF, GPU, sriov=SRIOV)
    go, texts = trio.Event(), []

    async def slow(function: PciFunction, wanted: int) -> int:
        await go.wait()
        return wanted

    await host.driver("nvidia", NVIDIA, sriov=slow)

    async def read() -> None:
        texts.append(await host.sys.read(NUMVFS))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.sys.write, NUMVFS, "3")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert texts == []
        go.set()
    assert texts == ["3\n"]


async def test_a_vf_whose_driver_clings_stays_and_the_next_try_goes_on() -> None:
    host = await machine()
    await host.sys.write(NUMVFS, "3")
    clinging, middle = True, "0000:41:00.5"

    async def cling(function: PciFunction) -> None:
        if clinging:
            raise KernelError(errno.EBUSY)

    await host.pci.load(PciDriver("clingy", host.pci.bus, on_remove=cling))
    await host.sys.write(f"bus/pci/devices/{middle}/driver/unbind", middle)
    await host.sys.write(f"bus/pci/devices/{middle}/driver_override", "clingy")
    await host.sys.write("bus/pci/drivers_probe", middle)
    assert await host.refused(NUMVFS, "0") == errno.EBUSY
    assert host.bound(middle) == "clingy"
    assert [name for name in host.sys.list(PATH) if name.startswith("virtfn")] == ["virtfn1", "virtfn2"]
    check_tree(host.core.tree)
    clinging = False
    await host.sys.write(NUMVFS, "0")
    assert host.sys.list("bus/pci/devices") == ["0000:00:1c.0", PF]
    check_tree(host.core.tree)


async def test_only_functions_with_the_capability_have_the_files() -> None:
    host = PciHost()
    host.pci.add("0000:00:02.0", IGD)
    host.pci.add(PF, GPU)
    for address in ("0000:00:02.0", PF):
        assert not host.sys.exists(f"bus/pci/devices/{address}/sriov_numvfs")
    assert await host.sys.read(f"{PATH}/ari_enabled") == "0\n"


async def test_256_vfs_make_no_entries_until_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    host = await machine(SriovCapability(total=256, offset=0x80, stride=1, vf_device=0x1234, vf_bars=VF_BARS[:1]))
    made: list[str] = []
    entries = PciFunction.entries

    def counted(function: PciFunction):  # type: ignore[no-untyped-def]
        made.append(function.name)
        return entries(function)

    monkeypatch.setattr(PciFunction, "entries", counted)
    await host.sys.write(NUMVFS, "256")
    assert set(made) <= {PF, "0000:00:1c.0"}
    assert len(made) <= 3
    assert host.sys.readlink(f"{PATH}/virtfn255") == "../0000:42:0f.7"
    await host.sys.write(NUMVFS, "0")
    check_tree(host.core.tree)
