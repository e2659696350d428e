"""systemd-udevd, udevadm and pyudev on an emulated machine: rules, settling, the database, and who hears what when."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import BeginMachine
from tests.clients.machine import DEVICES, PARENTS, SYSTEM_PYTHON, UDEVD, Machine, needs

pytestmark = needs("udevadm", UDEVD)

GPU, TYPE = "0000:3b:00.0", "nvidia-222"
CREATE = f"{PARENTS}/{GPU}/mdev_supported_types/{TYPE}/create"
RULES = """\
SUBSYSTEM=="mdev", ACTION!="remove", ATTR{mdev_type/name}=="GRID T4-1B", ENV{VGPU}="$attr{mdev_type/name}", TAG+="vgpu"
SUBSYSTEM=="mdev", ACTION=="bind", ENV{BOUND}="$env{DRIVER}", RUN+="/bin/sh -c 'echo $kernel >>/run/bound'"
SUBSYSTEM=="mdev", ACTION=="remove", RUN+="/bin/sh -c 'echo $kernel >>/run/removed'"
"""
PYUDEV = """
import json, pyudev, sys
context = pyudev.Context()
gpus = [one for one in context.list_devices(subsystem="pci") if one.driver == "nvidia"]
attributes = list(gpus[0].attributes.available_attributes)
kernel = pyudev.Monitor.from_netlink(context, source="kernel")
told = pyudev.Monitor.from_netlink(context, source="udev")
for monitor in (kernel, told):
    monitor.filter_by("mdev")
    monitor.start()
made = sys.argv[2]
open(sys.argv[1], "w").write(made)
heard = [[one.action, one.sys_name, one.properties.get("DRIVER")] for _ in range(2) if (one := kernel.poll(20))]
after = [[one.action, one.sys_name, one.properties.get("VGPU")] for _ in range(2) if (one := told.poll(20))]
mdev = pyudev.Devices.from_name(context, "mdev", made)
print(json.dumps({
    "gpus": [[one.sys_name, one.properties.get("PCI_ID"), one.is_initialized] for one in gpus],
    "offers": [one for one in attributes if one.endswith("/available_instances")],
    "heard": heard, "after": after,
    "mdev": [mdev.parent.sys_name, sorted(mdev.tags), mdev.attributes.asstring("mdev_type/device_api")],
}))
"""


@pytest.fixture(scope="module")
def t4(begin_machine: BeginMachine) -> Machine:
    machine = begin_machine("nvidia-t4", "--udevd=real")
    machine.ok("sh", "-c", "cat >/run/udev/rules.d/90-test.rules && udevadm control --reload", input=RULES)
    return machine


@pytest.fixture
def machine(t4: Machine) -> Iterator[Machine]:
    """Two Tesla T4, systemd-udevd with the rules above, no mdev."""
    yield t4
    t4.reset()
    t4.ok("udevadm", "settle")


def properties(machine: Machine, path: str) -> dict[str, str]:
    """What udevadm says of a device."""
    lines = machine.ok("udevadm", "info", "--query=property", path).splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_the_database_knows_the_devices(machine: Machine) -> None:
    found = properties(machine, f"{PARENTS}/{GPU}")
    assert found["SUBSYSTEM"] == "pci" and found["DRIVER"] == "nvidia" and found["PCI_ID"] == "10DE:1EB8"
    assert int(found["USEC_INITIALIZED"]) > 0
    assert found["ID_PCI_CLASS_FROM_DATABASE"] == "Display controller"
    exported = machine.ok("udevadm", "info", "--export-db")
    assert {f"P: /devices/pci0000:00/0000:00:{slot}.0" for slot in ("1c", "1d")} <= set(exported.splitlines())
    walked = machine.ok("udevadm", "info", "--attribute-walk", f"{PARENTS}/{GPU}")
    assert f'ATTR{{mdev_supported_types/{TYPE}/available_instances}}=="16"' in walked
    assert f'ATTR{{mdev_supported_types/{TYPE}/create}}=="(not readable)"' in walked
    assert 'KERNELS=="pci0000:00"' in walked


def test_rules_see_a_device_whole(machine: Machine) -> None:
    made = machine.create(GPU, TYPE)
    machine.ok("udevadm", "settle")
    found = properties(machine, f"{DEVICES}/{made}")
    assert (found["VGPU"], found["BOUND"], found["TAGS"]) == ("GRID T4-1B", "nvidia-vgpu-vfio", ":vgpu:")
    assert machine.read("/run/bound").splitlines()[-1] == made
    machine.remove(made)
    machine.ok("udevadm", "settle")
    assert machine.read("/run/removed").splitlines()[-1] == made
    assert machine.ok("ls", "/run/udev/data").count(made) == 0


def test_events_come_in_the_kernels_order_before_and_behind_udevd(machine: Machine) -> None:
    machine.start("monitor", "stdbuf", "-oL", "udevadm", "monitor", "--subsystem-match=mdev")
    machine.heard("monitor", "^KERNEL - ")  # the last that is said before events: it listens to both
    made = machine.create(GPU, TYPE)
    machine.remove(made)
    machine.heard("monitor", f"^UDEV .* remove .*/{made} ")
    machine.stop("monitor")
    for source in ("KERNEL", "UDEV"):
        actions = re.findall(
            rf"^{source} *\[[0-9.]+\] (\w+) +\S+/{made} \(mdev\)$", machine.log("monitor"), re.MULTILINE
        )
        assert actions == ["add", "bind", "unbind", "remove"]


@pytest.mark.parametrize("action", ["add", "change", "bind"])
def test_trigger_settles(machine: Machine, action: str) -> None:
    """It waits for an event of its own for every device that there is, with the UUID that it wrote."""
    machine.create(GPU, TYPE)
    machine.ok("udevadm", "trigger", "--settle", f"--action={action}")
    command = ("udevadm", "trigger", "--uuid", "--settle", f"--action={action}", f"{PARENTS}/{GPU}")
    lines = machine.ok(*command).splitlines()
    sent = {line for line in lines if " " not in line}
    settled = {line.removeprefix("settle ") for line in lines if " " in line}
    assert len(sent) >= 2 and settled == sent  # the GPU and what hangs below it


def test_mdevctls_rule_starts_what_is_defined(machine: Machine) -> None:
    """As at boot: the driver registers its GPU with the mdev core, and udevd tells mdevctl."""
    if needs("mdevctl").args[0]:
        pytest.skip(needs("mdevctl").kwargs["reason"])
    auto, manual = str(uuid.uuid4()), str(uuid.uuid4())
    for one, how in ((auto, ["--auto"]), (manual, [])):
        machine.ok("mdevctl", "define", "-u", one, "-p", GPU, "-t", TYPE, *how)
    machine.ok("mdevctl", "modify", "-u", auto, "--addattr", "nvidia/vgpu_params", "--value", "enable_uvm=1 ")
    driver = machine.ok("readlink", "-f", f"{PARENTS}/{GPU}/driver").strip()
    machine.sh(f"echo {GPU} >{driver}/unbind; [ ! -e {PARENTS}/{GPU} ]; echo {GPU} >{driver}/bind")
    machine.ok("udevadm", "settle")
    assert machine.mdevs() == [auto]
    assert machine.read(f"{DEVICES}/{auto}/nvidia/vgpu_params") == "enable_uvm=1\n"
    machine.remove(auto)
    machine.sh(f"echo add >{PARENTS}/{GPU}/uevent; udevadm settle")  # older kernels' way
    assert machine.mdevs() == [auto]


def test_pyudev(machine: Machine, tmp_path: Path) -> None:
    if subprocess.run([SYSTEM_PYTHON, "-c", "import pyudev"], capture_output=True, check=False).returncode:
        pytest.skip("needs pyudev (package python3-pyudev)")
    made = str(uuid.uuid4())
    told = json.loads(machine.ok(SYSTEM_PYTHON, "-W", "ignore", "-c", PYUDEV, CREATE, made))
    assert told["gpus"] == [[GPU, "10DE:1EB8", True], ["0000:d8:00.0", "10DE:1EB8", True]]
    assert f"mdev_supported_types/{TYPE}/available_instances" in told["offers"]
    assert told["heard"] == [["add", made, None], ["bind", made, "nvidia-vgpu-vfio"]]
    assert [one[:2] for one in told["after"]] == [["add", made], ["bind", made]]
    assert told["after"][0][2] == "GRID T4-1B"
    assert told["mdev"] == [GPU, ["vgpu"], "vfio-pci"]
