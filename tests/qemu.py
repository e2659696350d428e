"""QEMU as a judge of device state: the scripts of tests/judges, and the recordings of tests/vmstate."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
VMSTATE = TESTS / "vmstate"
SCRIPTS = Path(os.environ.get("QEMU_SCRIPTS", TESTS.parent / ".venv/qemu-scripts"))

needs_scripts = pytest.mark.skipif(
    not all((SCRIPTS / name).is_file() for name in ("vmstate-static-checker.py", "analyze-migration.py")),
    reason="QEMU's scripts are missing; scripts/setup --judges fetches them",
)
needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None,
    reason="qemu-system-x86_64 is missing; scripts/setup --judges installs it",
)


def judge(name: str, *arguments: str | Path, timeout: float = 300) -> list[str]:
    """What a judge printed, by lines; fails the test with all of it when the judge says no."""
    command = [sys.executable, str(TESTS / "judges" / name), *map(str, arguments)]
    environment = {**os.environ, "QEMU_SCRIPTS": str(SCRIPTS)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


# -- a real QEMU, whose guest never runs

QEMU = "qemu-system-x86_64"


@cache
def machine_types(family: str = "pc-q35-") -> tuple[str, ...]:
    """The machine types of the QEMU that is here, oldest first; none where there is none."""
    if shutil.which(QEMU) is None:
        return ()
    text = subprocess.run([QEMU, "-M", "help"], capture_output=True, text=True, check=True).stdout
    names = [line.split()[0] for line in text.splitlines() if line.startswith(family)]
    return tuple(sorted(names, key=lambda name: [int(part) for part in name.removeprefix(family).split(".")]))


class Vm:
    """A paused QEMU with one device, driven over QMP; a context manager, as it must be ended."""

    def __init__(self, machine: str, device: str, *options: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [QEMU, "-M", f"{machine},accel=tcg", "-m", "16", "-S", "-display", "none", "-nodefaults"]
            command += ["-nic", "none", "-vga", "none", "-device", device, *options]
            command += ["-chardev", f"socket,id=q,fd={theirs.fileno()}", "-mon", "chardev=q,mode=control"]
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        self._socket = ours
        ours.settimeout(60)
        self._lines = ours.makefile("r")

    def __enter__(self) -> Vm:
        if not self._lines.readline():
            pytest.fail(self.end())
        self.command("qmp_capabilities")
        self.command("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        return self

    def __exit__(self, *error: object) -> None:
        if not self._lines.closed:
            self.end()

    def end(self) -> str:
        """Ends it; what it said."""
        self.process.kill()
        _, said = self.process.communicate()
        self._lines.close()
        self._socket.close()
        return said

    def command(self, name: str, **arguments: object) -> None:
        """Fails the test where QEMU does not take it."""
        self._socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        answer = next(one for one in map(json.loads, self._lines) if "return" in one or "error" in one)
        assert "return" in answer, answer

    def load(self, stream: bytes, folder: Path) -> bool:
        """Whether it takes a stream; where not, it is gone."""
        (folder / "in").write_bytes(stream)
        self.command("migrate-incoming", uri=f"exec:cat {folder}/in")
        return self._moved()

    def save(self, folder: Path) -> bytes:
        """The stream that it writes."""
        with socket.socket(socket.AF_UNIX) as target:
            target.bind(str(folder / "out"))
            target.listen()
            self.command("migrate", uri=f"unix:{folder}/out")
            connection, _ = target.accept()
            with connection, connection.makefile("rb") as stream:
                data = stream.read()
        if not self._moved():
            pytest.fail(self.end())
        return data

    def _moved(self) -> bool:
        states = (one["data"]["status"] for one in map(json.loads, self._lines) if one.get("event") == "MIGRATION")
        return next((one for one in states if one in ("completed", "failed")), "gone") == "completed"


def through(machine: str, device: str, stream: bytes, folder: Path) -> bytes | None:
    """What QEMU writes after it has loaded a stream; None: it does not load."""
    with Vm(machine, device, "-incoming", "defer") as vm:
        return vm.save(folder) if vm.load(stream, folder) else None


def fresh(machine: str, device: str, folder: Path) -> bytes:
    """What QEMU writes of a machine that has just been made."""
    with Vm(machine, device) as vm:
        return vm.save(folder)


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
