"""PCI functions show and answer what a kernel showed and answered of QEMU's: its e1000, an NVMe disk with SR-IOV behind
a root port, their drivers and vfio-pci. The NVMe disk's part is played by a QAT."""

from __future__ import annotations

import fnmatch
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.golden.recorder import RECORDINGS
from tests.mount.conftest import why_not
from tests.mount.server import mdevfs

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

RECORDER = Path(__file__).with_name("pci_recorder.py")
KERNELS = ("6.1", "6.12")
FUNCTION, PF, ROOT = "0000:00:03.0", "0000:02:00.0", "devices/pci0000:00"
THEIR_PORT, OUR_PORT = f"{ROOT}/0000:00:1d.0", f"{ROOT}/0000:00:1c.0"
HOST = f"""
[host]
name = "pci"
kernel = "{{kernel}}"
[[device]]
driver = "e1000"
address = "{FUNCTION}"
[[device]]
driver = "qat"
address = "{PF}"
sriov = {{{{ total = 4, num = 0 }}}}
settings = {{{{ services = ["sym"] }}}}
"""
each_kernel = pytest.mark.parametrize("kernel", KERNELS)


def record(kernel: str, place: Path, what: str, *names: str) -> Any:
    """What the recorder finds on a machine of ours."""
    host, out = place / "host.toml", place / "recording.json"
    host.write_text(HOST.format(kernel=kernel))
    recorder: tuple[str | Path, ...] = (sys.executable, RECORDER, what, "/sys", out, *names)
    done = mdevfs("run", "--udevd=none", host, "--", *recorder)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


def golden(name: str) -> Any:
    return json.loads((RECORDINGS / name).read_text())


# -- what is written


def alike(step: dict[str, Any]) -> dict[str, Any]:
    """A step without what names another machine's hardware: the port, the PF's driver, the numbers of groups and of
    VFIO's major; and without events of what is no PCI function, or no mdev's parent there."""
    text = json.dumps(step).replace("0000:00:1d.0", "PORT").replace("0000:00:1c.0", "PORT")
    text = re.sub(r'"(nvme|qat)"', '"DRIVER"', re.sub("DRIVER=(nvme|qat)", "DRIVER=DRIVER", text))
    text = re.sub(r"(virtual/vfio|DEVNAME=vfio)/\d+", r"\1/N", re.sub(r"MAJOR=\d+", "MAJOR=N", text))
    same: dict[str, Any] = json.loads(text)
    same["events"] = [
        [re.sub("^(PCI_CLASS|PCI_ID|PCI_SUBSYS_ID|MODALIAS)=.*", r"\1=HARDWARE", key) for key in event]
        for event in same["events"]
        if {"SUBSYSTEM=pci", "SUBSYSTEM=vfio", "SUBSYSTEM=vfio-dev", "SUBSYSTEM=pci_bus"} & set(event)
        and not any(key.startswith("MDEV_STATE") for key in event)
    ]
    return same


@each_kernel
def test_operations(kernel: str, tmp_path: Path) -> None:
    """210 writes, each with its result, what files hold then, and the uevents in their order."""
    theirs = [alike(step) for step in golden(f"pci_ops_{kernel}.json")]
    ours = [alike(step) for step in record(kernel, tmp_path, "ops", FUNCTION, "e1000", PF, "qat")]
    assert len(theirs) == len(ours) == 210
    wrong = [
        f"{one['file']} {one['data']!r}: {key}: the kernel's {one[key]}, ours {other[key]}"
        for one, other in zip(theirs, ours, strict=True)
        for key in one
        if one[key] != other[key]
    ]
    assert not wrong, "\n".join(wrong)


# -- the tree

# What is the hardware's, and so another machine's: its texts, sizes and link targets are not compared.
HARDWARE = {
    *("class", "config", "device", "irq", "modalias", "resource", "resource0", "revision", "subsystem_device"),
    *("subsystem_vendor", "uevent", "vendor", "driver", "iommu_group", "sriov_vf_device", "domains_used"),
    *("current_link_speed", "current_link_width", "max_link_speed", "max_link_width", "cap", "ecap"),
    *("dma_mask_bits", "consistent_dma_mask_bits"),  # the drivers'
    *("runtime_active_time", "runtime_active_kids", "runtime_suspended_time"),
}
# (theirs, ours, what only theirs has, what only ours has)
DIRECTORIES = {
    "a function": (
        f"{ROOT}/{FUNCTION}",
        f"{ROOT}/{FUNCTION}",
        {"firmware_node": "ACPI's"},
        {"mdev_supported_types*": "it is a parent"},
    ),
    "a physical function": (
        f"{THEIR_PORT}/{PF}",
        f"{OUR_PORT}/{PF}",
        {
            "firmware_node": "ACPI's",
            "link/l0s_aspm": "links of ours have no power management",
            "pools": "of DMA memory; the driver's",
            "power/wakeup*": "it could wake the machine",
        },
        {"resource0_wc": "its BARs", "resource2": "its BARs"},
    ),
    "a root port": (
        THEIR_PORT,
        OUR_PORT,
        {
            "firmware_node": "ACPI's",
            "aer_*": "error reporting: ours have no such capability",
            "power/wakeup*": "it could wake the machine",
            "reset_subordinate": "came with 6.14 and with late releases of the older ones",
            "resource0": "its BAR",
        },
        {},
    ),
    "a bus": (f"{ROOT}/pci_bus/0000:00", f"{ROOT}/pci_bus/0000:00", {}, {}),
    "a bus behind a port": (f"{THEIR_PORT}/pci_bus/0000:02", f"{OUR_PORT}/pci_bus/0000:02", {}, {}),
    "the class of IOMMUs": ("class/iommu", "class/iommu", {}, {}),
    "the IOMMU": ("devices/virtual/iommu/dmar0", "devices/virtual/iommu/dmar0", {"devices/*": "other functions"}, {}),
}


def below(tree: dict[str, Any], top: str, *others: str) -> dict[str, Any]:
    """A directory's nodes by their names from there, without those of other directories in it."""
    found = {path.removeprefix(f"{top}/"): node for path, node in tree.items() if path.startswith(f"{top}/")}
    return {name: node for name, node in found.items() if not f"{name}/".startswith(others)} if others else found


@each_kernel
def test_tree(kernel: str, tmp_path: Path) -> None:
    """Names, modes, sizes, link targets and texts, but for what is the hardware's; 6.12 showed what 6.1 did."""
    tops = (f"{ROOT}/{FUNCTION}", OUR_PORT, f"{ROOT}/pci_bus", "devices/virtual/iommu", "class/iommu")
    ours, theirs = record(kernel, tmp_path, "tree", *tops), golden("pci_tree.json")
    wrong: list[str] = []
    for what, (their_top, our_top, only_theirs, only_ours) in DIRECTORIES.items():
        others = (f"{PF}/", "pci_bus/") if what == "a root port" else ()
        one, other = below(theirs, their_top, *others), below(ours, our_top, *others)
        wrong += unlisted(f"{what}: only the kernel has", one.keys() - other.keys(), only_theirs)
        wrong += unlisted(f"{what}: only we have", other.keys() - one.keys(), only_ours)
        for name in one.keys() & other.keys():
            wrong += [f"{what}: {name}: {key}: {a} {b}" for key, a, b in differing(name, one[name], other[name])]
    assert not wrong, "\n".join(sorted(wrong))


def unlisted(what: str, names: set[str], listed: dict[str, str]) -> list[str]:
    """Names that no pattern lists, and patterns without a name."""
    unknown = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in listed)]
    idle = [pattern for pattern in listed if not fnmatch.filter(names, pattern)]
    return [f"{what} {name}" for name in unknown] + [f"{what} no {pattern}" for pattern in idle]


def differing(name: str, one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys of two nodes whose values differ; link counts are those of directories that may differ."""
    last = name.rpartition("/")[2]
    keys = {"mode", "errno"} if last in HARDWARE else {"mode", "errno", "size", "text", "link"}
    pairs = [(key, str(one.get(key)), str(other.get(key))) for key in keys]
    return [(key, a, b) for key, a, b in pairs if a.replace("0000:00:1d.0", "0000:00:1c.0") != b]
