"""A host on a real mount: the server's process, its log, and the kernel's view of what it serves."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, field

MDEVFS = Path(sys.executable).with_name("mdevfs")
NOBODY = 65534
LIMIT = 20.0  # seconds until a test gives up waiting for something that takes far less

MTTY = "devices/virtual/mtty/mtty"
# Their text is a clock, or tells the past by design.
VOLATILE = {"runtime_suspended_time", "runtime_active_time", "last_verdict"}


def run(*arguments: str | Path, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """A command with its output, as another user if asked."""
    ids = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(arguments, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment, **ids)  # type: ignore[call-overload, no-any-return]


def mdevfs(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line, as a user types it."""
    return run(MDEVFS, *arguments)


def mounts(path: Path) -> list[str]:
    """The sources of what is mounted at `path`, the lowest first; asks the mount table and touches no server."""
    lines = [line.partition(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [right.split()[1] for left, _, right in lines if left.split()[4] == str(path)]


def errno_of(call: Callable[[], object]) -> int:
    """The errno that `call` fails with, 0 when it succeeds."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def until(condition: Callable[[], object]) -> None:
    """Waits for what nobody announces; fails when it does not come in time."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def read(path: Path) -> str:
    """All of a file, as cat reads it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        pieces = []
        while piece := os.read(descriptor, 131072):
            pieces.append(piece)
        return b"".join(pieces).decode(errors="backslashreplace")
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes | str) -> int:
    """One open, one write(2) and one close; what the write returned."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return os.write(descriptor, data.encode() if isinstance(data, str) else data)
    finally:
        os.close(descriptor)


def write_errno(path: Path, data: bytes | str) -> int:
    """The errno of a write, 0 when it succeeds."""
    return errno_of(lambda: write(path, data))


def verdict(path: Path) -> dict[str, object]:
    """A verdict file's one JSON object."""
    document = json.loads(read(path))
    assert isinstance(document, dict)
    return document


def codes(document: dict[str, object]) -> list[str]:
    """The codes of a verdict's reasons."""
    reasons = document["reasons"]
    assert isinstance(reasons, list)
    return [reason["code"] for reason in reasons]


def new_uuid(number: int) -> str:
    """The UUID of a test's mdev."""
    return str(uuid.UUID(int=(0x5EED << 112) + number))


def listing(root: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below `root`: mode, st_nlink, and a link's target or a readable file's text."""
    found: dict[str, tuple[int, int, str]] = {}
    for directory, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(directory, name)
            status = path.lstat()
            text = ""
            if stat.S_ISLNK(status.st_mode):
                text = str(path.readlink())
            elif stat.S_ISREG(status.st_mode) and status.st_mode & 0o444 and name not in VOLATILE:
                text = _text(path)
            found[str(path.relative_to(root))] = (status.st_mode, status.st_nlink, text)
    return found


def _text(path: Path) -> str:
    try:
        return read(path)
    except OSError as error:
        return f"errno {error.errno}"


def check_invariants(root: Path) -> None:
    """What must hold of every tree: links resolve, no name twice, st_nlink counts the subdirectories, and both
    directions of an mdev's links agree."""
    for directory, folders, files in os.walk(root):
        names = os.listdir(directory)
        assert len(names) == len(set(names)), f"{directory} lists a name twice: {sorted(names)}"
        inside = sum(not Path(directory, name).is_symlink() for name in folders)
        assert os.lstat(directory).st_nlink == 2 + inside, f"{directory} has {inside} subdirectories"
        for name in (*folders, *files):
            os.stat(os.path.join(directory, name))
    everywhere = {
        name: os.path.realpath(root / "bus/mdev/devices" / name) for name in _names(root / "bus/mdev/devices")
    }
    by_type: dict[str, str] = {}
    for kind in root.glob("class/mdev_bus/*/mdev_supported_types/*"):
        for name in _names(kind / "devices"):
            assert os.path.realpath(kind / "devices" / name / "mdev_type") == os.path.realpath(kind)
            by_type[name] = os.path.realpath(kind / "devices" / name)
    assert by_type == everywhere


def _names(directory: Path) -> list[str]:
    return os.listdir(directory) if directory.exists() else []


class ReadySocket:
    """What a service manager listens on: an abstract datagram socket that tells who sent READY=1."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.bind("")  # the kernel chooses an abstract name
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.address = "@" + self.socket.getsockname()[1:].decode()

    def pid(self, starter: int) -> int | None:
        """The pid of who got ready; None when the process `starter` ended first."""
        end = os.pidfd_open(starter)
        try:
            mine = self.socket.fileno()
            readable, _, _ = select.select([mine, end], [], [], LIMIT)
            assert readable, f"neither ready nor ended after {LIMIT} s"
            return self.receive() if mine in readable else None
        finally:
            os.close(end)

    def receive(self) -> int:
        """Waits for READY=1; the sender's pid."""
        self.socket.settimeout(LIMIT)
        size = struct.calcsize("3i")
        message, control, _, _ = self.socket.recvmsg(64, socket.CMSG_SPACE(size))
        assert message == b"READY=1"
        pid, _, _ = struct.unpack("3i", control[0][2][:size])
        assert isinstance(pid, int)
        return pid

    def close(self) -> None:
        self.socket.close()


@define
class Server:
    """One `mdevfs mount --foreground`, its mount answering. `root` is the tree; `process` the server."""

    root: Path
    process: subprocess.Popen[bytes]
    log_file: Path
    errors: Path
    _seen: int = field(default=0, init=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """The log so far, then what the server wrote to standard error."""
        return "".join(path.read_text(errors="replace") for path in (self.log_file, self.errors) if path.exists())

    def news(self) -> str:
        """What was logged since this was last asked for."""
        log = self.log_file.read_text(errors="replace")
        self._seen, begin = len(log), self._seen
        return log[begin:]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self.process.wait(LIMIT)

    def end(self) -> None:
        """As a service manager ends it. Fails unless it exits with 0 and leaves nothing mounted."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"the server exited with {code}\n{self.log}"
        assert mounts(self.root) == []


def start(
    host: str | Path, root: Path, options: Sequence[str | Path], log_file: Path, prefix: Sequence[str | Path] = ()
) -> Server:
    """Mounts a host and returns when it answers. Fails with the server's words when it ends before."""
    ready, errors = ReadySocket(), log_file.with_suffix(".stderr")
    command = (*prefix, MDEVFS, "mount", "--foreground", "--log-file", log_file, *options, host, root)
    try:
        with errors.open("wb") as stream:
            environment = {**os.environ, "NOTIFY_SOCKET": ready.address}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stream, env=environment)
        server = Server(root, process, log_file, errors)
        if ready.pid(process.pid) is None:
            raise AssertionError(f"mdevfs mount exited with {server.wait()}\n{server.log}")
        return server
    finally:
        ready.close()
