"""/dev inside `mdevfs run`: a placeholder for each VFIO device, there before its event and gone before its event."""

from __future__ import annotations

import errno
import json
import stat
import sys
from pathlib import Path

import pytest

from tests.mount.conftest import why_not
from tests.mount.server import mdevfs, new_uuid

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

U = new_uuid(1)

# What a device plugin does. Prints what inotify told of /dev/vfio, what each kernel event finds in /dev, and what stat
# and open say of each placeholder while the mdev is there.
PLUGIN = f"""
import ctypes, json, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
watch = libc.inotify_init1(os.O_NONBLOCK)
assert libc.inotify_add_watch(watch, b"/dev/vfio", 0x100 | 0x200) >= 0  # IN_CREATE, IN_DELETE
sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
sock.bind((0, 1))
def told():
    data, names = os.read(watch, 65536), []
    while data:
        _, mask, _, length = struct.unpack_from("iIII", data)
        names.append([("made" if mask & 0x100 else "gone"), data[16 : 16 + length].rstrip(b"\\0").decode()])
        data = data[16 + length :]
    return names
def events():
    found = []
    for _ in range(EVENTS):
        lines = sock.recv(65536).rstrip(b"\\0").decode().split("\\0")
        keys = dict(line.split("=", 1) for line in lines[1:])
        name = keys.get("DEVNAME", "")
        found.append([keys["ACTION"], name, os.path.exists("/dev/" + name)])
    return found
def write(path, text):
    with open(path, "w") as file:
        file.write(text)
def codes():
    found = {{}}
    for place, _, names in os.walk("/dev/vfio"):
        for name in names:
            try:
                os.close(os.open(os.path.join(place, name), os.O_RDWR))
                code = 0
            except OSError as error:
                code = error.errno
            found[os.path.join(place, name)] = [code, os.stat(os.path.join(place, name)).st_mode]
    return found
parent = "/sys/class/mdev_bus/mtty"
write(parent + "/mdev_supported_types/mtty-1/create", "{U}")
made, created, there = told(), [e for e in events() if e[1]], codes()
write("/sys/class/vfio/" + os.listdir("/sys/class/vfio")[0] + "/uevent", "remove")  # says it, and does nothing
assert "SYNTH_UUID=0" in sock.recv(65536).decode()
assert list(codes()) == list(there)
write(parent + "/{U}/remove", "1")
print(json.dumps([made, created, there, told(), [e for e in events() if e[1]], codes()]))
"""


@pytest.mark.parametrize("kernel", ["5.15", "6.1", "6.8"])
@pytest.mark.parametrize("hermetic", [False, True])
def test_placeholders_come_and_go_with_the_devices(tmp_path: Path, kernel: str, hermetic: bool) -> None:
    host = f"{tmp_path}/host.toml"
    with open(host, "w") as file:
        file.write(f'[host]\nname = "samples"\nkernel = "{kernel}"\n[[device]]\ndriver = "mtty"\n')
    devices = kernel != "5.15"
    script = PLUGIN.replace("EVENTS", "4" if devices else "3")
    option = ["--hermetic"] if hermetic else []
    done = mdevfs("run", *option, "--udevd=none", host, "--", sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    made, created, there, gone, removed, left = json.loads(done.stdout)
    (group,) = (name for how, name in made if name != "devices")
    names = {"/dev/vfio/vfio", f"/dev/vfio/{group}"} | ({"/dev/vfio/devices/vfio0"} if devices else set())
    assert set(there) == names
    for code, mode in there.values():
        assert (code, stat.S_ISREG(mode)) == (errno.ENODEV, True)
    assert sorted(made) == sorted([["made", group], *([["made", "devices"]] if devices else [])])
    assert sorted(gone) == sorted([["gone", group], *([["gone", "devices"]] if devices else [])])
    assert ["add", f"vfio/{group}", True] in created
    assert ["remove", f"vfio/{group}", False] in removed
    assert set(left) == {"/dev/vfio/vfio"}


def test_what_a_host_has_from_the_start_is_there(tmp_path: Path) -> None:
    host = f"{tmp_path}/host.toml"
    with open(host, "w") as file:
        file.write(
            '[host]\nname = "samples"\n[[device]]\ndriver = "mtty"\n[[device.mdev]]\ncount = 3\ntype = "mtty-1"\n'
        )
    done = mdevfs("run", "--udevd=none", host, "--", "sh", "-c", "ls /dev/vfio /dev/vfio/devices; ls /sys/class/vfio")
    there, _, sysfs = done.stdout.partition("/dev/vfio/devices:\n")
    assert sysfs.split()[:3] == ["vfio0", "vfio1", "vfio2"], done.stderr
    assert there.split() == ["/dev/vfio:", *sysfs.split()[3:], "devices", "vfio"]


def test_the_machines_root_may_spoil_dev_and_the_host_lives(tmp_path: Path) -> None:
    create = f"echo {U} > /sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create"
    script = f"rm -r /dev/vfio; touch /dev/vfio; {create}; echo 1 > /sys/bus/mdev/devices/{U}/remove && echo done"
    done = mdevfs("run", "--udevd=none", "mtty", "--", "sh", "-ec", script)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
