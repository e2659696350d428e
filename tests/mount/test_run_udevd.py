"""The udevd of `mdevfs run`: what libudev's clients hear, and what became of the database and the rules."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from mdevfs.sandbox import udevd
from tests.mount.conftest import why_not
from tests.mount.server import mdevfs, new_uuid

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.skipif(shutil.which("udevadm") is None, reason="needs udevadm (package udev)"),
]

U = new_uuid(1)
PARENT = "/sys/class/mdev_bus/mtty"
CREATE = f"{PARENT}/mdev_supported_types/mtty-1/create"
REMOVE = f"/sys/bus/mdev/devices/{U}/remove"

needs_real = pytest.mark.skipif(udevd.program() is None, reason="needs systemd-udevd (package udev)")

# libudev's own monitor, which filters by subsystem with a hash that the sender gives.
MONITOR = f"""
import subprocess
command = ["udevadm", "monitor", "--udev", "--property", "--subsystem-match=mdev"]
monitor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
def event():
    lines = iter(monitor.stdout.readline, "")
    head = next(line for line in lines if line.startswith("UDEV  ["))
    keys = dict(line.strip().split("=", 1) for line in iter(monitor.stdout.readline, "\\n"))
    return head.split()[2:], keys
while not monitor.stdout.readline().startswith("UDEV"):
    pass
open("{CREATE}", "w").write("{U}")
heard = [event(), event()]
open("{REMOVE}", "w").write("1")
heard += [event(), event()]
for (action, path, subsystem), keys in heard:
    assert (path, subsystem) == ("/devices/virtual/mtty/mtty/{U}", "(mdev)"), path
    print(action, keys["ACTION"], "USEC_INITIALIZED" in keys, "SEQNUM" in keys)
monitor.kill()
"""


@pytest.mark.parametrize("way", ["mini", pytest.param("real", marks=needs_real)])
@pytest.mark.parametrize("statfs", ["seccomp", "env"])
def test_libudev_hears_of_what_comes_and_goes(way: str, statfs: str) -> None:
    done = mdevfs("run", f"--udevd={way}", f"--statfs={statfs}", "mtty", "--", sys.executable, "-c", MONITOR)
    lines = [f"{action} {action} True True" for action in ("add", "bind", "unbind", "remove")]
    assert done.stdout.splitlines() == lines, done.stderr


def test_the_stand_in_remembers_when_it_first_saw_a_device() -> None:
    look = "cat /run/udev/data/+mdev:* 2>&1"
    script = f"echo {U} > {CREATE}; udevadm info --query=property {PARENT}/{U} | grep USEC; {look}"
    script += f"; echo change > {PARENT}/{U}/uevent; {look}"
    wait = "until test -e /run/udev/data/+mdev:*; do :; done; "
    done = mdevfs("run", "--udevd=mini", "mtty", "--", "sh", "-c", script.replace("udevadm", wait + "udevadm", 1))
    shown, *entries = done.stdout.splitlines()
    assert entries == [f"I:{shown.removeprefix('USEC_INITIALIZED=')}"] * 2, done.stderr


@needs_real
def test_rules_and_hwdb_are_applied_to_what_was_there_before() -> None:
    script = "udevadm settle; udevadm info --query=property /sys/class/mdev_bus/0000:3b:00.0; ls /run/udev/rules.d -l"
    done = mdevfs("run", "nvidia-t4", "--", "sh", "-c", script)
    assert "USEC_INITIALIZED=" in done.stdout, done.stderr
    assert "80-drivers.rules -> /dev/null" in done.stdout
    if Path("/usr/lib/udev/hwdb.bin").exists() or Path("/etc/udev/hwdb.bin").exists():
        assert "ID_MODEL_FROM_DATABASE=TU104GL [Tesla T4]" in done.stdout


@needs_real
@pytest.mark.skipif(shutil.which("mdevctl") is None, reason="needs mdevctl (package mdevctl)")
def test_mdevs_that_start_with_the_machine(tmp_path: Path) -> None:
    """By mdevctl's rule: what was defined on a machine is there when a machine with the same state starts."""
    keep = ("--keep", tmp_path / "state")
    done = mdevfs("run", *keep, "mtty", "--", "mdevctl", "define", "-u", U, "-p", "mtty", "-t", "mtty-1", "--auto")
    assert done.returncode == 0, done.stderr
    done = mdevfs("run", *keep, "mtty", "--", "mdevctl", "list")
    assert done.stdout.strip() == f"{U} mtty mtty-1 auto (defined)", done.stderr


@needs_real
def test_what_a_rule_runs_gets_the_variable_where_statfs_is_not_answered() -> None:
    rule = """SUBSYSTEM=="mdev", ACTION=="add", RUN+="/bin/sh -c 'echo $$SYSTEMD_DEVICE_VERIFY_SYSFS > /run/said'" """
    script = 'echo "$0" > /run/udev/rules.d/99-say.rules; udevadm control --reload'
    script += f"; echo {U} > {CREATE}; udevadm settle; cat /run/said"
    done = mdevfs("run", "--statfs=env", "mtty", "--", "sh", "-c", script, rule)
    assert done.stdout == "0\n", done.stderr


@pytest.mark.parametrize("way", ["mini", "real"])
def test_none_in_the_network_of_the_caller(way: str) -> None:
    done = mdevfs("run", "--net", f"--udevd={way}", "mtty", "--", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == f"mdevfs: --udevd={way} would act on the events of --net's network: leave one of them out\n"
    done = mdevfs("run", "--net", "mtty", "--", "ls", "/run")
    assert done.stdout.split() == ["libvirt", "lock", "mdevfs", "user"]
