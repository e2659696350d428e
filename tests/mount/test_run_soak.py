"""Machines started, stopped and killed again and again: nothing of them remains, and the host saw nothing.

The short form is for every run; `pytest --soak` counts to 200 and 50.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from attrs import field, frozen

from mdevfs.sandbox.mini_udevd import KERNEL, UDEV
from mdevfs.sandbox.uevents import NETLINK_KOBJECT_UEVENT
from tests.mount.conftest import why_not
from tests.mount.server import LIMIT, MDEVFS, new_uuid
from tests.mount.test_run import descendants, machine_mounts

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

MARK = "MDEVFS_SOAK"
HOST = "nvidia-t4"
U = new_uuid(1)
KINDS = ("user", "mnt", "net", "pid")

# What a test of a tool does: makes an mdev, waits for udev, leaves a daemon that forked twice.
WORK = f"""
echo {U} > /sys/class/mdev_bus/0000:3b:00.0/mdev_supported_types/nvidia-222/create || exit 1
test -e /dev/vfio/devices/vfio0 || exit 2
! command -v udevadm > /dev/null || udevadm settle || exit 3
(setsid sh -c "exec sleep 4711" &)
"""
LINGER = f"{WORK}\nexec sleep 4711"

SEEN = (
    "/run",
    "/dev",
    "/dev/vfio",
    "/etc/mdevctl.d",
    "/etc/driverctl.d",
    "/var/lib",
    "/var/cache",
    "/var/log",
)
SHOWN = ("/sys", "/sys/class", "/sys/bus", "/sys/devices", "/sys/devices/virtual", "/sys/kernel/iommu_groups")


@frozen
class Held:
    """A machine's namespaces, held so that no other may get their numbers."""

    mark: str
    kept: dict[tuple[int, int], int] = field(factory=dict)

    def take(self, pids: Sequence[int]) -> None:
        """Those of these processes that are not the test's own."""
        for pid in pids:
            for kind in KINDS:
                with suppress(OSError):
                    namespace = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
                    key = _identity(namespace)
                    if key in self.kept or key == _identity(f"/proc/self/ns/{kind}"):
                        os.close(namespace)
                    else:
                        self.kept[key] = namespace

    def processes(self) -> list[int]:
        """Who lives in one of the namespaces, or was started by the machine's caller."""
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and self._has(entry)]

    def _has(self, entry: Path) -> bool:
        try:
            if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                return True
            return any(_identity(str(entry / "ns" / kind)) in self.kept for kind in KINDS)
        except OSError:
            return False

    def all_gone(self) -> bool:
        """Whether nobody is left, once those who are ending have ended."""
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    handle = os.pidfd_open(pid)
                    ended = select.select([handle], [], [], LIMIT)[0]
                    os.close(handle)
                    if not ended:
                        return False
        return True

    def release(self) -> None:
        for namespace in self.kept.values():
            os.close(namespace)


def _identity(what: int | str) -> tuple[int, int]:
    status = os.stat(what)
    return status.st_dev, status.st_ino


def start(command: str, mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        (MDEVFS, "run", HOST, "--", "sh", "-c", command),
        env={**os.environ, MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """The host's /sys, /dev, /run, mounts and uevents, before and after."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(_listener(group)) for group in (KERNEL, UDEV)]
        names, mounts = _all_names(), machine_mounts()
        yield
        assert _all_names() ^ names == set()
        assert machine_mounts() == mounts
        for listener in listeners:
            assert [one for one in _messages(listener) if not _by_the_kernel(one)] == []


def _listener(group: int) -> socket.socket:
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    listener.bind((0, group))
    return listener


def _all_names() -> set[str]:
    """What is in the directories that a machine covers."""
    return {f"{path}/{name}" for path in (*SEEN, *SHOWN) if os.path.isdir(path) for name in os.listdir(path)}


def _messages(listener: socket.socket) -> Iterator[bytes]:
    with suppress(BlockingIOError):
        while True:
            yield listener.recv(65536, socket.MSG_DONTWAIT)


def _by_the_kernel(message: bytes) -> bool:
    """Every mount of FUSE or of an overlay, wherever, has a backing device, of which the kernel tells everybody."""
    return b"/devices/virtual/bdi/" in message


@contextmanager
def held(number: int) -> Iterator[Held]:
    machine = Held(f"{os.getpid()}-{number}")
    yield machine
    assert machine.all_gone(), machine.processes()
    machine.release()


def test_in_a_row(soak: bool) -> None:
    for number in range(200 if soak else 4):
        with held(number) as machine:
            process = start(WORK, machine.mark)
            assert process.communicate(timeout=LIMIT)[1] == b""
            assert process.returncode == 0


def test_ten_at_once(soak: bool) -> None:
    for _ in range(20 if soak else 1):
        machines = [Held(f"{os.getpid()}-{number}") for number in range(10)]
        processes = [start(WORK, machine.mark) for machine in machines]
        for process in processes:
            assert process.communicate(timeout=3 * LIMIT)[1] == b""
            assert process.returncode == 0
        assert all(machine.all_gone() for machine in machines)


def test_any_process_killed_at_any_moment(soak: bool) -> None:
    seed = time.time_ns()
    chance = random.Random(seed)
    for number in range(50 if soak else 5):
        with held(number) as machine:
            process = start(LINGER, machine.mark)
            caller = os.pidfd_open(process.pid)
            assert not select.select([caller], [], [], chance.uniform(0, 1.5))[0]
            os.close(caller)
            everybody = [process.pid, *descendants(process.pid)]
            machine.take(everybody)
            with suppress(ProcessLookupError):
                os.kill(chance.choice(everybody), signal.SIGKILL)
            try:
                process.communicate(timeout=0.5)
            except subprocess.TimeoutExpired:  # it can do without that one: udevd, a daemon
                process.kill()
                process.communicate()
