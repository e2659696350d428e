"""lspci, driverctl, systool, lshw and a static busybox: what they show is what the tree shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.clients.conftest import BeginMachine
from tests.clients.machine import PARENTS, Machine, needs

PCI = "/sys/bus/pci/devices"
GPU, OTHER, PF, VF = "0000:3b:00.0", "0000:d8:00.0", "0000:41:00.0", "0000:41:01.3"
T4 = "NVIDIA Corporation TU104GL [Tesla T4]"


@pytest.fixture(scope="module")
def t4(begin_machine: BeginMachine) -> Machine:
    return begin_machine("nvidia-t4")


@pytest.fixture(scope="module")
def a16(begin_machine: BeginMachine) -> Machine:
    return begin_machine("nvidia-a16")


@pytest.fixture
def bound(t4: Machine) -> Iterator[Machine]:
    """The two Tesla T4, which their driver has again afterwards."""
    yield t4
    t4.sh(f"for one in {GPU} {OTHER}; do echo >{PCI}/$one/driver_override; echo $one >/sys/bus/pci/drivers_probe; done")
    t4.reset()


def lspci(machine: Machine, *options: str) -> str:
    """Nothing may be wrong with a device: lspci says so in lines that begin with its name."""
    out = machine.ok("lspci", *options)
    complaints = [line for line in out.splitlines() if line.startswith(("lspci:", "pcilib:"))]
    assert [line for line in complaints if "libkmod" not in line] == []  # no modules.alias here
    return out


@needs("lspci")
@pytest.mark.parametrize("host", ["mtty", "vfio-ap"])
def test_lspci_finds_nothing_where_no_function_is(begin_machine: BeginMachine, host: str) -> None:
    """Without a PCI bus it would look into /proc and find the real machine's."""
    machine = begin_machine(host)
    try:
        assert lspci(machine) == ""
        roots = machine.sh("echo /sys/devices/pci*").split()
        assert roots == (["/sys/devices/pci0000:00"] if host == "mtty" else ["/sys/devices/pci*"])
    finally:
        machine.close()


@needs("lspci")
def test_lspci_lists_what_is_there(t4: Machine) -> None:
    rows = [line.split('"') for line in lspci(t4, "-mmnD").splitlines() if '"' in line]
    found = {row[0].strip(): (row[1], row[3], row[5]) for row in rows}
    assert sorted(found) == sorted(t4.ok("ls", PCI).split())
    for name, shown in found.items():
        kind, vendor, device = (t4.read(f"{PCI}/{name}/{file}").strip() for file in ("class", "vendor", "device"))
        assert shown == (kind[2:6], vendor[2:], device[2:])
    tree = lspci(t4, "-tv")
    assert re.search(rf"1c\.0-\[3b\]----00\.0 +{re.escape(T4)}", tree), tree
    assert re.search(rf"1d\.0-\[d8\]----00\.0 +{re.escape(T4)}", tree), tree


@needs("lspci")
@pytest.mark.parametrize("name", [GPU, OTHER])
def test_lspci_vv_agrees_with_the_attributes(t4: Machine, name: str) -> None:
    out = lspci(t4, "-vvv", "-s", name)
    group = t4.ok("readlink", f"{PCI}/{name}/iommu_group").strip().rpartition("/")[2]
    speed = float(t4.read(f"{PCI}/{name}/current_link_speed").split()[0])
    for line in (
        f"IOMMU group: {group}",
        f"NUMA node: {t4.read(f'{PCI}/{name}/numa_node').strip()}",
        f"routed to IRQ {t4.read(f'{PCI}/{name}/irq').strip()}",
        "Kernel driver in use: nvidia",
        "Express (v2) Endpoint",
        f"LnkSta:\tSpeed {speed:g}GT/s",
    ):
        assert line in out, line
    resource = [line.split() for line in t4.read(f"{PCI}/{name}/resource").splitlines()]
    shown = {int(number): int(at, 16) for number, at in re.findall(r"Region (\d): Memory at ([0-9a-f]+)", out)}
    assert shown == {index: int(one[0], 16) for index, one in enumerate(resource[:6]) if int(one[0], 16)}
    raw = bytes.fromhex("".join(re.findall(r"^[0-9a-f]+0: (.*)$", lspci(t4, "-xxxx", "-s", name), re.MULTILINE)))
    assert raw == bytes.fromhex(t4.sh(f"od -An -v -tx1 {PCI}/{name}/config"))
    assert len(raw) == 4096


@needs("lspci")
def test_lspci_sees_virtual_functions(a16: Machine) -> None:
    capability = lspci(a16, "-vvv", "-s", PF)
    assert "Initial VFs: 16, Total VFs: 16, Number of VFs: 16" in capability
    assert "VF offset: 4, stride: 1, Device ID: 25b6" in capability
    vf = lspci(a16, "-vvv", "-s", VF)
    assert "[virtual]" in vf and "Kernel driver in use: nvidia" in vf
    a16.sh(f"echo 0 >{PCI}/{PF}/sriov_numvfs")
    assert "Number of VFs: 0" in lspci(a16, "-vvv", "-s", PF)
    assert lspci(a16, "-s", VF) == ""
    a16.sh(f"echo 16 >{PCI}/{PF}/sriov_numvfs")
    assert lspci(a16, "-vvv", "-s", VF) == vf


@needs("driverctl")
def test_driverctl_takes_a_gpu_from_its_driver_and_gives_it_back(bound: Machine) -> None:
    assert f"{GPU} nvidia" in bound.ok("driverctl", "list-devices").splitlines()
    bound.ok("driverctl", "set-override", GPU, "none")
    assert bound.ok("driverctl", "list-overrides") == f"{GPU} (none)\n"
    assert f"{GPU} (none) [*]" in bound.ok("driverctl", "list-devices").splitlines()
    assert bound.ok("ls", PARENTS).split() == [OTHER]
    bound.ok("driverctl", "unset-override", GPU)
    assert bound.ok("ls", PARENTS).split() == [GPU, OTHER]
    assert f"{GPU} nvidia" in bound.ok("driverctl", "list-devices").splitlines()
    assert bound.read(f"{PCI}/{GPU}/driver_override") == "(null)\n"


@needs("driverctl")
def test_driverctl_keeps_an_override(bound: Machine) -> None:
    bound.ok("driverctl", "set-override", GPU, "nvidia")
    assert bound.ok("driverctl", "list-overrides") == f"{GPU} nvidia\n"
    assert bound.read(f"/etc/driverctl.d/pci-{GPU}") == "nvidia\n"
    bound.sh(f"echo >{PCI}/{GPU}/driver_override; echo {GPU} >{PCI}/{GPU}/driver/unbind")
    bound.ok("driverctl", "load-override", GPU)
    assert bound.ok("driverctl", "list-overrides") == f"{GPU} nvidia\n"
    assert GPU in bound.ok("ls", PARENTS).split()
    assert "no such device" in bound.no("driverctl", "set-override", "0000:ff:1f.7", "nvidia")


@needs("systool")
def test_systool_reads_every_attribute(t4: Machine) -> None:
    listed = t4.ok("systool", "-b", "pci").splitlines()
    assert [line.split()[0] for line in listed if line.startswith("  ")] == t4.ok("ls", PCI).split()
    assert re.findall(r'Class Device = "(\S+)"', t4.ok("systool", "-c", "mdev_bus")) == [GPU[5:], OTHER[5:]]  # its way
    shown = t4.ok("systool", "-b", "pci", "-v")
    assert re.findall(r'^ +numa_node += "(\S+)"$', shown, re.MULTILINE) == ["-1", "-1", "0", "1"]
    assert shown.count('driver_override     = "(null)"') == 4


@needs("lshw")
def test_lshw_finds_the_gpus(t4: Machine) -> None:
    shown = t4.ok("lshw", "-quiet", "-businfo")
    assert re.findall(r"^pci@(\S+) +display +(.*?) *$", shown, re.MULTILINE) == [(GPU, T4[19:]), (OTHER, T4[19:])]


@needs("busybox")
def test_a_static_program_without_an_environment(t4: Machine) -> None:
    assert t4.ok("env", "-i", "busybox", "ls", PARENTS).split() == [GPU, OTHER]
    uevent = t4.ok("env", "-i", "busybox", "cat", f"{PCI}/{GPU}/uevent").splitlines()
    assert uevent[:2] == ["DRIVER=nvidia", "PCI_CLASS=30200"]
