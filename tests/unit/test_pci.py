"""PCI functions: files, configuration space, bridges, groups (drivers/pci/pci-sysfs.c, probe.c)."""

from __future__ import annotations

import errno
import os
import stat
from struct import unpack_from

import pytest

from mdevfs.bus.pci_address import Address
from mdevfs.bus.pci_resource import Bar, PciIdentity, SriovCapability
from mdevfs.errors import InputError, KernelError
from tests.support import check_tree
from tests.unit.pci_host import GPU, IGD, PF, SRIOV, PciHost

IGD_AT = "0000:00:02.0"
IGD_PATH = f"devices/pci0000:00/{IGD_AT}"
PORT = "0000:00:1c.0"
PF_PATH = f"devices/pci0000:00/{PORT}/{PF}"


def test_addresses_are_parsed_moved_and_ordered() -> None:
    address = Address.parse("0000:41:00.0")
    assert str(address.moved(4)) == "0000:41:00.4"
    assert str(address.moved(4 + 31)) == "0000:41:04.3"
    assert str(address.moved(0x100)) == "0000:42:00.0"
    assert sorted(map(Address.parse, ("0001:00:00.0", "0000:41:00.0", "0000:00:1c.0")))[0].device == 0x1C
    with pytest.raises(InputError, match="beyond bus ff"):
        Address.parse("0000:ff:1f.0").moved(8)


@pytest.mark.parametrize("text", ["0000:00:02", "0:0:2.0", "0000:00:20.0", "0000:00:02.8", "0000:00:02.0\n", ""])
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"such as 0000:00:02\.0"):
        Address.parse(text)


def test_an_upper_case_address_is_told_its_lower_case_form() -> None:
    with pytest.raises(InputError, match=r'write "0000:af:00\.0"'):
        Address.parse("0000:AF:00.0")


async def test_files_modes_and_texts() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD, iommu_group=1)
    expected = {
        "vendor": (0o444, "0x8086\n"),
        "device": (0o444, "0x591d\n"),
        "class": (0o444, "0x030000\n"),
        "revision": (0o444, "0x04\n"),
        "subsystem_vendor": (0o444, "0x8086\n"),
        "subsystem_device": (0o444, "0x2212\n"),
        "modalias": (0o444, "pci:v00008086d0000591Dsv00008086sd00002212bc03sc00i00\n"),
        "irq": (0o444, "128\n"),
        "numa_node": (0o644, "-1\n"),
        "local_cpus": (0o444, "3\n"),
        "local_cpulist": (0o444, "0-1\n"),
        "driver_override": (0o644, "(null)\n"),
        "enable": (0o644, "0\n"),
        "msi_bus": (0o644, "1\n"),
        "broken_parity_status": (0o644, "0\n"),
        "d3cold_allowed": (0o644, "1\n"),
        "dma_mask_bits": (0o444, "32\n"),
        "consistent_dma_mask_bits": (0o444, "32\n"),
        "ari_enabled": (0o444, "0\n"),
        "power_state": (0o444, "unknown\n"),
        "reset_method": (0o644, "flr\n"),
        "boot_vga": (0o444, "1\n"),
        "power/control": (0o644, "on\n"),
        "uevent": (
            0o644,
            "PCI_CLASS=30000\nPCI_ID=8086:591D\nPCI_SUBSYS_ID=8086:2212\nPCI_SLOT_NAME=0000:00:02.0\n"
            "MODALIAS=pci:v00008086d0000591Dsv00008086sd00002212bc03sc00i00\n",
        ),
    }
    for name, (mode, text) in expected.items():
        assert await host.sys.read(f"{IGD_PATH}/{name}") == text, name
        assert stat.S_IMODE(host.sys.tree.walk(f"{IGD_PATH}/{name}").mode) == mode, name
    write_only = {"remove": 0o220, "rescan": 0o200, "reset": 0o200}
    for name, mode in write_only.items():
        assert stat.S_IMODE(host.sys.tree.walk(f"{IGD_PATH}/{name}").mode) == mode, name
    binary = {"config": 256, "resource0": 16 << 20, "resource2": 256 << 20, "resource2_wc": 256 << 20, "rom": 0x20000}
    for name, size in binary.items():
        node = host.sys.tree.walk(f"{IGD_PATH}/{name}")
        assert (stat.S_IMODE(node.mode), node.entry.size) == (0o644 if name == "config" else 0o600, size), name
    rest = {"power", "iommu", "iommu_group", "link", "subsystem", "resource", "resource4"}
    found = {*expected, *write_only, *binary, *rest} - {"power/control"}
    assert set(host.sys.list(IGD_PATH)) == found
    check_tree(host.core.tree)


async def test_the_bus_the_host_bridge_and_the_class() -> None:
    host = PciHost()
    assert host.sys.list("bus/pci") == [
        "devices", "drivers", "drivers_autoprobe", "drivers_probe", "rescan", "resource_alignment", "slots", "uevent"
    ]  # fmt: skip
    assert host.sys.list("devices/pci0000:00") == ["pci_bus", "power", "uevent"]
    assert host.sys.readlink("class/pci_bus/0000:00") == "../../devices/pci0000:00/pci_bus/0000:00"
    assert host.sys.readlink("class/pci_bus/0000:00/device") == "../../../pci0000:00"
    assert await host.sys.read("class/pci_bus/0000:00/cpulistaffinity") == "0-1\n"
    await host.sys.write("devices/pci0000:00/uevent", "add")
    assert host.events == []
    await host.sys.write("bus/pci/resource_alignment", "20@0000:00:02.0\n")
    await host.sys.write("bus/pci/resource_alignment", "20@0000:00:02.0\nmore\n")
    assert await host.refused("bus/pci/resource_alignment", "2" * 4095) == errno.EINVAL
    assert await host.sys.read("bus/pci/resource_alignment") == "20@0000:00:02.0\n"
    check_tree(host.core.tree)


async def test_resource_and_config_say_the_same() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    lines = [
        [int(one, 16) for one in line.split()] for line in (await host.sys.read(f"{IGD_PATH}/resource")).splitlines()
    ]
    config = await host.bytes(f"{IGD_PATH}/config")
    assert (len(lines), len(config)) == (13, 256)
    assert [line[2] for line in lines[:7]] == [0x140204, 0, 0x14220C, 0, 0x40101, 0, 0x44200]
    assert [end - start + 1 for start, end, flags in lines if flags] == [16 << 20, 256 << 20, 64, 0x20000]
    assert unpack_from("<HH", config, 0) == (0x8086, 0x591D)
    assert unpack_from("<I", config, 8)[0] == 0x030000 << 8 | 4
    assert unpack_from("<HH", config, 0x2C) == (0x8086, 0x2212)
    for bar in (0, 2):
        low, high = unpack_from("<II", config, 0x10 + 4 * bar)
        assert (high << 32 | low & ~0xF, low & 0xF) == (lines[bar][0], lines[bar][2] & 0xF)
    assert unpack_from("<I", config, 0x20)[0] == lines[4][0] | 1
    assert unpack_from("<I", config, 0x30)[0] == lines[6][0]
    assert config[0x3C:0x3E] == b"\x80\x01"


def capabilities(config: bytes) -> list[int]:
    found, at = [], config[0x34]
    while at:
        found.append(config[at])
        at = config[at + 1]
    return found


async def test_only_pcie_has_4096_bytes_the_capability_and_link_files() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    host.pci.add(PF, GPU)
    assert capabilities(await host.bytes(f"{IGD_PATH}/config")) == [1, 5]
    config = await host.bytes(f"{PF_PATH}/config")
    assert (len(config), capabilities(config)) == (4096, [1, 5, 0x10])
    assert not host.sys.exists(f"{IGD_PATH}/current_link_speed")
    assert await host.sys.read(f"{PF_PATH}/current_link_speed") == "16.0 GT/s PCIe\n"
    assert await host.sys.read(f"{PF_PATH}/max_link_width") == "16\n"


async def test_config_keeps_what_hardware_would_keep() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    file = await host.sys.open(f"{IGD_PATH}/config", os.O_RDWR)
    assert await file.read(0, 64) == (await host.bytes(f"{IGD_PATH}/config"))[:64]
    assert await file.write(0, b"\x12\x34") == 2
    assert await file.write(4, b"\x06\x04") == 2
    assert unpack_from("<HHH", await file.read(0, 64)) == (0x8086, 0x591D, 0x0406)
    with pytest.raises(KernelError) as caught:
        await file.write(256, b"\0")
    assert caught.value.errno == errno.EFBIG


async def test_memory_bars_are_only_mapped_ports_take_single_accesses() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    memory = await host.sys.open(f"{IGD_PATH}/resource0", os.O_RDWR)
    with pytest.raises(KernelError) as caught:
        await memory.read(0, 4)
    assert caught.value.errno == errno.EIO
    assert await memory.read(16 << 20, 4) == b""
    ports = await host.sys.open(f"{IGD_PATH}/resource4", os.O_RDWR)
    assert (await ports.read(8, 4), await ports.write(8, b"\0\0")) == (bytes(4), 2)
    with pytest.raises(KernelError) as caught:
        await ports.read(0, 3)
    assert caught.value.errno == errno.EINVAL


async def test_the_rom_is_read_after_it_was_enabled() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    rom = await host.sys.open(f"{IGD_PATH}/rom", os.O_RDWR)
    with pytest.raises(KernelError) as caught:
        await rom.read(0, 16)
    assert caught.value.errno == errno.EINVAL
    await rom.write(0, b"1\n")
    assert await rom.read(0, 16) == bytes(16)


async def test_a_bridge_appears_before_a_function_on_another_bus() -> None:
    host = PciHost()
    host.pci.add(PF, GPU, numa_node=1)
    assert host.said() == ["add dmar0", f"add {PORT}", "add 0000:41", f"add {PF}"]
    assert host.sys.readlink(f"bus/pci/devices/{PF}") == f"../../../{PF_PATH}"
    port = f"devices/pci0000:00/{PORT}"
    assert await host.sys.read(f"{port}/class") == "0x060400\n"
    assert await host.sys.read(f"{port}/secondary_bus_number") == "65\n"
    assert host.sys.readlink("class/pci_bus/0000:41/device") == f"../../../{PORT}"
    assert len((await host.sys.read(f"{port}/resource")).splitlines()) == 17
    config = await host.bytes(f"{port}/config")
    assert (config[0x0E], config[0x18:0x1B]) == (1, b"\x00\x41\x41")
    assert not host.sys.exists(f"{port}/reset")
    host.pci.add("0000:41:00.1", GPU)
    assert host.said() == ["add 0000:41:00.1"]
    assert (await host.bytes(f"{PF_PATH}/config"))[0x0E] == 0x80
    assert await host.sys.read(f"{PF_PATH}/numa_node") == "1\n"
    check_tree(host.core.tree)


async def test_a_bridge_forwards_what_lies_behind_it_and_nothing_else() -> None:
    host = PciHost()
    for bus in range(1, 9):
        host.pci.add(f"0000:{bus:02x}:00.0", GPU)
    windows = {}
    for function in host.pci.functions.values():
        if function.is_bridge:
            windows[function.secondary] = [(one.start, one.end) for one in function.resources.values()]
    for function in host.pci.functions.values():
        for bar in function.slot.resources.values():
            at = [
                bus for bus, spans in windows.items() if any(low <= bar.start <= bar.end <= high for low, high in spans)
            ]
            assert at == [function.address.bus]


async def test_domains_have_their_own_host_bridge() -> None:
    host = PciHost()
    host.pci.add("0001:00:03.0", IGD)
    assert host.sys.exists("devices/pci0001:00/0001:00:03.0/vendor")
    assert host.sys.exists("class/pci_bus/0001:00")
    check_tree(host.core.tree)


async def test_iommu_groups_are_shared_by_number_and_look_like_intels() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD, iommu_group=7)
    host.pci.add("0000:00:03.0", GPU, iommu_group=7)
    host.pci.add("0000:00:04.0", GPU)
    assert host.sys.list("kernel/iommu_groups") == ["0", "7"]
    assert host.sys.list("kernel/iommu_groups/7") == ["devices", "reserved_regions", "type"]
    assert host.sys.list("kernel/iommu_groups/7/devices") == [IGD_AT, "0000:00:03.0"]
    assert host.sys.readlink(f"{IGD_PATH}/iommu_group") == "../../../kernel/iommu_groups/7"
    assert await host.sys.read("kernel/iommu_groups/7/type") == "DMA-FQ\n"
    assert (
        await host.sys.read("kernel/iommu_groups/7/reserved_regions") == "0x00000000fee00000 0x00000000feefffff msi\n"
    )


def test_all_mistakes_of_a_function_are_told_at_once() -> None:
    host = PciHost()
    host.pci.add(PF, GPU, sriov=SRIOV)
    bad = PciIdentity(
        0x10000, 1, 1 << 24, bars=(Bar(17), *[Bar(16, bits64=True)] * 3), pcie=False, reset_methods=("kick",)
    )
    with pytest.raises(InputError) as caught:
        host.pci.add(PF, bad, numa_node=-2, sriov=SriovCapability(0, 1, 1, 1))
    assert len(caught.value.mistakes) == 9, caught.value.mistakes
    for at, why in {PORT: "root port", "0000:41:00.5": "among the VFs", "0000:41:1f.7": None}.items():
        if why is None:
            host.pci.add(at, GPU)
        else:
            with pytest.raises(InputError, match=why):
                host.pci.add(at, GPU)
    wide = SriovCapability(8, 0x100, 1, 1)
    host.pci.add("0000:51:00.0", GPU, sriov=wide)
    with pytest.raises(InputError, match="bus 52 is used by the VFs"):
        host.pci.add("0000:52:1f.0", GPU)
    check_tree(host.core.tree)


# -- attributes that are written


async def test_attributes_that_take_numbers() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    host.pci.add(PF, GPU, numa_node=1)
    for name in ("msi_bus", "broken_parity_status", "d3cold_allowed"):
        for text, shown in (("0", "0\n"), ("7\n", "1\n"), ("0x0", "0\n")):
            await host.sys.write(f"{IGD_PATH}/{name}", text)
            assert await host.sys.read(f"{IGD_PATH}/{name}") == shown
        assert await host.refused(f"{IGD_PATH}/{name}", "yes") == errno.EINVAL
    await host.sys.write(f"{IGD_PATH}/numa_node", "1")
    assert await host.sys.read(f"{IGD_PATH}/numa_node") == "1\n"
    await host.sys.write(f"{IGD_PATH}/numa_node", "-1")
    for text in ("2", "-2", "one"):
        assert await host.refused(f"{IGD_PATH}/numa_node", text) == errno.EINVAL
    await host.sys.write(f"{IGD_PATH}/power/control", "auto")
    host.pci.functions[IGD_AT].refresh()
    assert await host.sys.read(f"{IGD_PATH}/power/control") == "auto\n"


async def test_enable_counts() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    enable = f"{IGD_PATH}/enable"
    assert await host.refused(enable, "0") == errno.EIO
    assert await host.refused(enable, "on") == errno.EINVAL
    await host.sys.write(enable, "1")
    await host.sys.write(enable, "2")
    assert await host.sys.read(enable) == "2\n"
    assert (await host.bytes(f"{IGD_PATH}/config"))[4] == 0x07
    await host.sys.write(enable, "0")
    assert await host.sys.read(enable) == "1\n"


async def test_reset_and_its_methods() -> None:
    host = PciHost()
    host.pci.add(PF, GPU)
    reset, method = f"{PF_PATH}/reset", f"{PF_PATH}/reset_method"
    assert await host.sys.read(method) == "flr bus\n"
    assert await host.sys.write(reset, "1\n") == 2
    for text in ("0", "2", "x"):
        assert await host.refused(reset, text) == errno.EINVAL
    for text in ("kick", "flr pm", "flr,bus"):
        assert await host.refused(method, text) == errno.EINVAL
        assert await host.sys.read(method) == "flr bus\n"
    await host.sys.write(method, "bus flr\n")
    assert await host.sys.read(method) == "bus flr\n"
    await host.sys.write(method, "\n")
    assert await host.sys.read(method) == ""
    assert await host.refused(reset, "1") == errno.ENOTTY
    await host.sys.write(method, "default")
    assert await host.sys.read(method) == "flr bus\n"
