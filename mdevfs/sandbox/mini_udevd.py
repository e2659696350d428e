"""A stand-in for systemd-udevd: what the kernel broadcasts, it broadcasts again as udevd does.

libudev's monitors (libvirt, pyudev, udevadm) listen to udevd's group, in udevd's format. No rules, no hwdb; of udev's
database only when it first saw a device.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from pathlib import Path

from mdevfs.sandbox.uevents import NETLINK_KOBJECT_UEVENT

KERNEL, UDEV = 1, 2  # the multicast groups

# systemd: src/libsystemd/sd-device/device-monitor.c, monitor_netlink_header. Hashes and bloom filter in network order.
_HEADER = struct.Struct(">8sI")
_OFFSETS = struct.Struct("=III")
_FILTERS = struct.Struct(">IIII")
_MAGIC = 0xFEEDCAFE
_HEADER_SIZE = _HEADER.size + _OFFSETS.size + _FILTERS.size
_LARGEST = 1 << 16
_BUFFER = 1 << 27  # as udevd's own; the system's limit is what comes of it


class MiniUdevd:
    """Listens from the moment it is made; `serve` does its work."""

    def __init__(self, run: Path) -> None:
        """`run` is /run/udev."""
        self._data = run / "data"
        self._data.mkdir()
        self._seen: dict[str, str] = {}  # a device's name in the database -> when it was first seen, in microseconds
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
        self._kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._kernel.bind((0, KERNEL))
        self._udev = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
        self._udev.bind((0, 0))
        (run / "control").touch()  # what libudev looks for to know whether udevd is there

    def close(self) -> None:
        """Leaves the work to another process."""
        self._kernel.close()
        self._udev.close()

    def serve(self) -> None:
        """Never returns."""
        while True:
            try:
                data, (sender, _) = self._kernel.recvfrom(_LARGEST)
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # some were lost, as udevd would lose them
                    continue
                raise
            keys = parse(data) if sender == 0 else {}
            if {"ACTION", "DEVPATH", "SUBSYSTEM", "SEQNUM"} <= keys.keys():
                keys["USEC_INITIALIZED"] = self._initialized(keys)
                self._udev.sendto(message(keys), (0, UDEV))

    def _initialized(self, keys: dict[str, str]) -> str:
        name = database_name(keys)
        when = self._seen.setdefault(name, str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))
        entry = self._data / name
        if keys["ACTION"] == "remove":
            del self._seen[name]
            entry.unlink(missing_ok=True)
        elif not entry.exists():
            entry.write_text(f"I:{when}\n")
        return when


def parse(data: bytes) -> dict[str, str]:
    """The keys of a kernel's message, in order."""
    lines = data.rstrip(b"\0").split(b"\0")[1:]
    return dict(os.fsdecode(line).split("=", 1) for line in lines if b"=" in line)


def message(keys: dict[str, str]) -> bytes:
    """The event as udevd sends it."""
    name = keys.get("DEVNAME")
    if name is not None and not name.startswith("/"):
        keys = keys | {"DEVNAME": f"/dev/{name}"}
    body = b"".join(os.fsencode(f"{key}={value}") + b"\0" for key, value in keys.items())
    kind = keys.get("DEVTYPE")
    filters = _FILTERS.pack(_hash(keys["SUBSYSTEM"]), _hash(kind) if kind is not None else 0, 0, 0)
    return _HEADER.pack(b"libudev", _MAGIC) + _OFFSETS.pack(_HEADER_SIZE, _HEADER_SIZE, len(body)) + filters + body


def database_name(keys: dict[str, str]) -> str:
    """The device's file in /run/udev/data (systemd: sd_device_get_device_id)."""
    subsystem, name = keys["SUBSYSTEM"], keys["DEVPATH"].rpartition("/")[2]
    if "MAJOR" in keys:
        return f"{'b' if subsystem == 'block' else 'c'}{keys['MAJOR']}:{keys['MINOR']}"
    if "IFINDEX" in keys:
        return f"n{keys['IFINDEX']}"
    if subsystem == "drivers":
        return f"+drivers:{keys['DEVPATH'].split('/')[2]}:{name}"
    return f"+{subsystem}:{name}"


def _hash(text: str) -> int:
    """MurmurHash2 with the seed 0, of 32 bits: what libudev's socket filters compare."""
    data = os.fsencode(text)
    mix, mask = 0x5BD1E995, 0xFFFFFFFF
    value = len(data)
    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        word = word * mix & mask
        word = (word ^ word >> 24) * mix & mask
        value = (value * mix & mask) ^ word
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * mix & mask
    value = (value ^ value >> 13) * mix & mask
    return value ^ value >> 15
