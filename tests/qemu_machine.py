"""A paused QEMU of ours: writes its state into a stream, or says what it thinks of one. No guest, no KVM, 16 MiB."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

BINARY = "qemu-system-x86_64"
E1000 = "e1000,addr=3,mac=52:54:00:12:34:56,romfile="
E1000E = "e1000e,addr=3,mac=52:54:00:12:34:56,romfile="
VIRTIO = "virtio-net-pci,addr=4,mac=52:54:00:12:34:57,romfile="
LIMIT = 60.0


class Qmp:
    """The monitor of one QEMU."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(LIMIT)
        self._end = end
        self._lines = end.makefile("r")
        self._events: list[Any] = []
        self._lines.readline()  # the greeting
        self.ask("qmp_capabilities")
        self.ask("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])

    def ask(self, command: str, **arguments: object) -> Any:
        self._end.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        for answer in map(json.loads, self._lines):
            if "event" in answer:
                self._events.append(answer)
                continue
            assert "return" in answer, answer
            return answer["return"]
        return None  # it has ended

    def migrated(self) -> bool:
        """Waits for a migration's end, which is QEMU's own where it refuses; whether it went well."""
        for event in itertools.chain(self._events, map(json.loads, self._lines)):
            status = event.get("data", {}).get("status") if event.get("event") == "MIGRATION" else None
            if status in ("completed", "failed"):
                return bool(status == "completed")
        return False

    def save(self, folder: Path) -> bytes:
        """What it writes of its machine, to the end."""
        with socket.socket(socket.AF_UNIX) as target:
            target.settimeout(LIMIT)
            target.bind(str(folder / "out"))
            target.listen()
            self.ask("migrate", uri=f"unix:{folder}/out")
            connection, _ = target.accept()
            with connection, connection.makefile("rb") as stream:
                data = stream.read()
        assert self.migrated()
        return data

    def quit(self) -> None:
        """Ends it, if it has not ended by itself."""
        with suppress(OSError):
            self.ask("quit")


@contextmanager
def _machine(machine: str, devices: Sequence[str], *more: str) -> Iterator[tuple[Qmp, list[str]]]:
    """A QEMU, and what it says on standard error, which is there when the context has ended."""
    ours, theirs = socket.socketpair()
    said: list[str] = []
    options = ["-display", "none", "-nodefaults", "-nic", "none", "-vga", "none", *more]
    monitor = ["-chardev", f"socket,id=q,fd={theirs.fileno()}", "-mon", "chardev=q,mode=control"]
    added = [word for device in devices for word in ("-device", device)]
    command = [BINARY, "-M", f"{machine},accel=tcg", "-m", "16", "-S", *options, *monitor, *added]
    with subprocess.Popen(
        command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        theirs.close()
        try:
            with ours:
                qmp = Qmp(ours)
                yield qmp, said
                qmp.quit()
            _, errors = process.communicate(timeout=LIMIT)
        except BaseException:
            process.kill()
            raise
    said += [line for line in errors.decode("utf-8", "replace").splitlines() if "warning:" not in line]


@cache
def machine_types(family: str = "pc-q35-") -> tuple[str, ...]:
    """The machine types of the QEMU that is here, oldest first; none where there is none."""
    if shutil.which(BINARY) is None:
        return ()
    text = subprocess.run([BINARY, "-M", "help"], capture_output=True, text=True, check=True).stdout
    names = [line.split()[0] for line in text.splitlines() if line.startswith(family)]
    return tuple(sorted(names, key=lambda name: [int(part) for part in name.removeprefix(family).split(".")]))


@cache
def capture(machine: str, *devices: str, links: tuple[bool, ...] = ()) -> bytes:
    """What a QEMU that has just started writes; `links`: the cable of the device "nic" was plugged in or pulled so."""
    with TemporaryDirectory(prefix="mdevfs-test-") as folder, _machine(machine, devices) as (qmp, _):
        for up in links:
            qmp.ask("set_link", name="nic", up=up)
        return qmp.save(Path(folder))


def judge_load(machine: str, devices: Sequence[str], data: bytes) -> tuple[bool, str]:
    """Whether a QEMU loads a stream, and its messages, joined by " || "."""
    again, said = through(machine, devices, data)
    return again is not None, said


def through(machine: str, devices: Sequence[str], data: bytes) -> tuple[bytes | None, str]:
    """What a QEMU writes after it has loaded a stream, None where it does not load; and its messages."""
    again = None
    with TemporaryDirectory(prefix="mdevfs-test-") as folder:
        file = Path(folder) / "stream"
        file.write_bytes(data)
        with _machine(machine, devices, "-incoming", "defer") as (qmp, said):
            qmp.ask("migrate-incoming", uri=f"exec:cat {file}")
            if qmp.migrated():
                again = qmp.save(Path(folder))
    return again, " || ".join(said)


def section(stream: bytes, name: str) -> bytes:
    """One device's section from its name to the end of its body; its size is what the stream's JSON says."""
    described = next(one for one in described_by(stream)["devices"] if one["name"] == name)
    counted = bytes([len(name)]) + name.encode()
    length = len(counted) + 8 + _size(described)
    at = stream.find(counted)
    while stream[at - 5] != 4 or stream[at + length : at + length + 5] != b"\x7e" + stream[at - 4 : at]:
        at = stream.find(counted, at + 1)
        assert at > 0, f"no section {name}"
    return stream[at : at + length]


def described_by(stream: bytes) -> dict[str, Any]:
    """The JSON at a stream's end, found by its length."""
    places = range(stream.rfind(b"\0") - 4, len(stream))
    at = next(one for one in places if stream[one : one + 5] == struct.pack(">BI", 6, len(stream) - one - 5))
    return dict(json.loads(stream[at + 5 :]))


def _size(described: dict[str, Any]) -> int:
    own = sum(one["size"] * one.get("array_len", 1) for one in described["fields"])
    return int(own + sum(6 + len(sub["vmsd_name"]) + _size(sub) for sub in described.get("subsections", [])))


def alone(machine: str, section: bytes, number: int = 1) -> bytes:
    """A stream of one section and no JSON: what a device's loader wants of a whole machine's."""
    configuration = b"QEVM\0\0\0\3\7" + struct.pack(">I", len(machine)) + machine.encode()
    return configuration + struct.pack(">BI", 4, number) + section + struct.pack(">BIB", 0x7E, number, 0)
