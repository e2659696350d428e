"""A machine's /dev: nothing in it could touch the host's hardware.

Harmless nodes are the real ones. Each VFIO device of the host has a placeholder, made before the others hear of the
device and gone before they hear that it went, as devtmpfs does (drivers/base/devtmpfs.c); so inotify tells of it.

A placeholder is a link to one file of the tree, whose open gives ENODEV. It is no character device: those that can be
had in a user namespace fail otherwise (measured: 0:0 on a tmpfs or on FUSE with EACCES, /dev/ptmx bound elsewhere with
ENOENT). And it is a link, not a mount on each name, so that 100,000 mdevs are no 100,000 mounts.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from mdevfs.bus.core import Core
from mdevfs.bus.device import Device
from mdevfs.bus.kobject import Kobject
from mdevfs.errors import KernelError
from mdevfs.events import Event
from mdevfs.sandbox.backstage import DEV, REAL_DEV, TREE
from mdevfs.sandbox.namespaces import MS_NOEXEC, MS_NOSUID, bind, mount
from mdevfs.sysfs.entries import Entry, Session, SessionFile

log = logging.getLogger("mdevfs.dev")

NODES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
PLACEHOLDER = "mdevfs/placeholder"  # in /dev, what all placeholders lead to


class System(Kobject):
    """`devices/system`, which the real one covers; below it, so out of sight, the file that nobody can open."""

    __slots__ = ()

    def __init__(self, devices: Kobject) -> None:
        super().__init__("system", devices, 0)

    def entries(self) -> dict[str, Entry]:
        return {"placeholder": SessionFile(_refuse, 0o666)}


def _refuse() -> Session:
    raise KernelError(errno.ENODEV)


class Placeholders:
    """A listener of a host's events that makes and removes its placeholders below `dev`."""

    def __init__(self, core: Core, dev: Path = DEV) -> None:
        """Those of the devices that are there already are made at once."""
        self._dev = dev
        for kind in core.classes.values():
            for device in kind.devices.values():
                if isinstance(device, Device):
                    self._change("add", devname(kind.name, device.name, device.uevent_keys()))

    def send(self, event: Event) -> None:
        """Takes one event; who writes an action to a `uevent` file changes no device."""
        if "SYNTH_UUID" not in event.keys:
            self._change(event.action, devname(event.subsystem, event.devpath.rpartition("/")[2], event.keys))

    def _change(self, action: str, name: str | None) -> None:
        if name is None:
            return
        try:
            if action == "add":
                self._make(name)
            elif action == "remove":
                self._remove(self._dev / name)
        except OSError as error:  # the machine's root may do in /dev what he likes
            log.warning("the placeholder /dev/%s: %s", name, error.strerror)

    def _make(self, name: str) -> None:
        target, path = "../" * name.count("/") + PLACEHOLDER, f"{self._dev}/{name}"
        try:
            os.symlink(target, path)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(target, path)

    def _remove(self, path: Path) -> None:
        path.unlink()
        while not any((path := path.parent).iterdir()):
            path.rmdir()


def devname(subsystem: str, name: str, keys: Mapping[str, str]) -> str | None:
    """The node below /dev of the device of this name and these keys, None where it has none.

    vfioN has one whatever the kernel: before 6.6, which brought that interface, the device says none.
    """
    return f"vfio/devices/{name}" if subsystem == "vfio-dev" else keys.get("DEVNAME")


def private_dev() -> None:
    """Shows the machine's own /dev, which the server fills with placeholders meanwhile."""
    dev, terminal = Path("/dev"), terminal_name()
    bind(dev, REAL_DEV)
    bind(DEV, dev)
    nodes = {dev / name: REAL_DEV / name for name in NODES}
    if terminal is not None:
        nodes[dev / "console"] = REAL_DEV / terminal
    nodes[dev / PLACEHOLDER] = TREE / "devices/system/placeholder"
    for place, real in nodes.items():
        if real.exists():
            place.parent.mkdir(exist_ok=True)
            place.touch()
            bind(real, place)
    (dev / "pts").mkdir()
    mount("devpts", dev / "pts", "newinstance,ptmxmode=0666,mode=620", MS_NOSUID | MS_NOEXEC)
    (dev / "shm").mkdir()
    mount("tmpfs", dev / "shm", "mode=1777")
    for name, target in LINKS.items():
        (dev / name).symlink_to(target)


def terminal_name() -> str | None:
    """The name below /dev of the terminal on standard input, so that ttyname(3) finds it as /dev/console."""
    try:
        return os.path.relpath(os.ttyname(0), "/dev")
    except OSError:
        return None
