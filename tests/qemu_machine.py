"""A paused QEMU of ours: writes its state into a stream, or says what it thinks of one. No guest, no KVM, 16 MiB."""

from __future__ import annotations

import itertools
import json
import socket
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
def capture(machine: str, *devices: str) -> bytes:
    """What a QEMU that has just started writes."""
    with TemporaryDirectory(prefix="mdevfs-test-") as folder:
        file = Path(folder) / "stream"
        with _machine(machine, devices) as (qmp, _):
            qmp.ask("migrate", uri=f"exec:cat > {file}")
            assert qmp.migrated()
        return file.read_bytes()


def judge_load(machine: str, devices: Sequence[str], data: bytes) -> tuple[bool, str]:
    """Whether a QEMU loads a stream, and its messages, joined by " || "."""
    with TemporaryDirectory(prefix="mdevfs-test-") as folder:
        file = Path(folder) / "stream"
        file.write_bytes(data)
        with _machine(machine, devices, "-incoming", "defer") as (qmp, said):
            qmp.ask("migrate-incoming", uri=f"exec:cat {file}")
            loaded = qmp.migrated()
    return loaded, " || ".join(said)
