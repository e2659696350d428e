"""The life of a mount: how it begins, how it ends, what a dead one leaves behind, and who may look."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import MakeRoot, Mount
from tests.mount.server import (
    LIMIT,
    MDEVFS,
    MTTY,
    NOBODY,
    ReadySocket,
    errno_of,
    mdevfs,
    mounts,
    new_uuid,
    read,
    run,
    write,
)

BAREFS = Path(__file__).parents[2] / "scripts" / "barefs.py"
PR_SET_CHILD_SUBREAPER = 36

BAD_HOST = """
[host]
nmae = "typo"
kernel = "six"
interfaces = ["migration_versoin"]

[[device]]
driver = "mtyy"
"""


class Background:
    """`mdevfs mount` without --foreground, and the server that it leaves running."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def mount(self, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
        """Mounts, and gives the server's pid, as it tells a service manager."""
        ready = ReadySocket()
        monkeypatch.setenv("NOTIFY_SOCKET", ready.address)
        try:
            done = mdevfs("mount", *arguments)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            pid = ready.receive()
        finally:
            ready.close()
            monkeypatch.delenv("NOTIFY_SOCKET")
        self.pids.add(pid)
        return pid

    def wait(self, pid: int) -> int:
        """The exit code of a server, once it has ended."""
        end = os.pidfd_open(pid)
        try:
            readable, _, _ = select.select([end], [], [], LIMIT)
            assert readable, f"the server still runs after {LIMIT} s"
        finally:
            os.close(end)
        self.pids.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def background() -> Iterator[Background]:
    """Servers in the background become this process's children, so that their exit codes are seen."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    servers = Background()
    yield servers
    for pid in servers.pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def end_by_signal(number: signal.Signals) -> Callable[[Path, int], None]:
    return lambda root, pid: os.kill(pid, number)


def end_by_command(*command: str | Path) -> Callable[[Path, int], None]:
    def end(root: Path, pid: int) -> None:
        done = run(*command, root)
        assert (done.returncode, done.stderr) == (0, "")

    return end


ENDS = pytest.mark.parametrize(
    "end",
    [
        pytest.param(end_by_signal(signal.SIGTERM), id="SIGTERM"),
        pytest.param(end_by_signal(signal.SIGINT), id="SIGINT"),
        pytest.param(end_by_command("umount"), id="umount"),
        pytest.param(end_by_command("fusermount3", "-u"), id="fusermount3"),
        pytest.param(end_by_command(MDEVFS, "umount"), id="mdevfs-umount"),
    ],
)


@ENDS
def test_a_server_in_the_foreground_ends_cleanly(mount: Mount, end: Callable[[Path, int], None]) -> None:
    server = mount("mtty")
    assert os.listdir(server.root / "class/mdev_bus") == ["mtty"]
    end(server.root, server.pid)
    assert server.wait() == 0
    assert mounts(server.root) == []
    assert os.listdir(server.root) == []


@ENDS
def test_a_server_in_the_background_ends_cleanly(
    background: Background,
    make_root: MakeRoot,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Path, int], None],
) -> None:
    root = make_root()
    pid = background.mount(monkeypatch, "mtty", root)
    end(root, pid)
    assert background.wait(pid) == 0
    assert mounts(root) == []


def test_the_command_returns_when_the_mount_answers(make_root: MakeRoot) -> None:
    """And leaves nobody at its standard output and error: `run` would wait for them to be closed."""
    for root in (make_root() for _ in range(3)):
        done = mdevfs("mount", "mtty", root)
        found = os.listdir(root / "class/mdev_bus")
        assert (done.returncode, done.stdout, done.stderr, found) == (0, "", "", ["mtty"])


def test_a_signal_ends_it_while_a_file_is_open(mount: Mount) -> None:
    server = mount("mtty")
    descriptor = os.open(server.root / MTTY / "uevent", os.O_RDONLY)
    server.end()
    assert errno_of(lambda: os.read(descriptor, 1)) == errno.ENOTCONN
    assert errno_of(lambda: os.close(descriptor)) in (0, errno.ENOTCONN)  # the kernel may ask for a flush


def test_umount_says_who_keeps_it_busy_and_lazy_does_it_all_the_same(mount: Mount) -> None:
    server = mount("mtty")
    with open(server.root / MTTY / "uevent", "rb", buffering=0):
        done = mdevfs("umount", server.root)
        assert done.returncode == 3
        assert "open" in done.stderr
        assert "--lazy" in done.stderr
        assert mounts(server.root) == ["mdevfs"]
        assert mdevfs("umount", "--lazy", server.root).returncode == 0
        assert mounts(server.root) == []
    assert server.wait() == 0


def test_umount_of_what_is_not_ours(make_root: MakeRoot) -> None:
    root = make_root()
    done = mdevfs("umount", root)
    assert done.returncode == 2
    assert "nothing is mounted" in done.stderr
    subprocess.run(["mount", "-t", "tmpfs", "foreign", root], check=True)
    done = mdevfs("umount", root)
    assert done.returncode == 2
    assert "foreign" in done.stderr
    assert mounts(root) == ["foreign"]


def test_the_mount_after_a_killed_server_takes_over(mount: Mount) -> None:
    first = mount("mtty")
    first.signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert mounts(first.root) == ["mdevfs"]
    assert errno_of(lambda: os.listdir(first.root)) == errno.ENOTCONN

    second = mount("mtty", root=first.root)
    assert mounts(first.root) == ["mdevfs"]
    assert read(second.root / MTTY / "mdev_supported_types/mtty-1/available_instances") == "24\n"


def test_umount_cleans_up_after_a_killed_server(mount: Mount) -> None:
    server = mount("mtty")
    server.signal(signal.SIGKILL)
    server.wait()
    assert mdevfs("umount", server.root).returncode == 0
    assert mounts(server.root) == []


def test_the_dead_mount_of_another_program_is_left_alone(make_root: MakeRoot) -> None:
    root = make_root()
    with subprocess.Popen([sys.executable, BAREFS, root], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        other.kill()
    assert errno_of(lambda: os.listdir(root)) == errno.ENOTCONN
    for command in (("mount", "mtty", root), ("mount", "--foreground", "mtty", root)):
        done = mdevfs(*command)
        assert done.returncode == 3
        assert "barefs" in done.stderr
        assert "Traceback" not in done.stderr
        assert mounts(root) == ["barefs"]


def test_a_directory_that_shows_a_host_already(mount: Mount) -> None:
    server = mount("mtty")
    done = mdevfs("mount", "mtty", server.root)
    assert done.returncode == 2
    assert f"mdevfs umount {server.root}" in done.stderr
    assert mounts(server.root) == ["mdevfs"]
    assert os.listdir(server.root / "class/mdev_bus") == ["mtty"]


def test_a_directory_that_cannot_be_mounted_on(make_root: MakeRoot) -> None:
    root = make_root()
    (root / "file").touch()
    for name, words in (("absent", "mkdir"), ("file", "not a directory"), ("file/below", "")):
        done = mdevfs("mount", "mtty", root / name)
        assert done.returncode == 2, done.stderr
        assert str(root / name) in done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("options", [(), ("--foreground",)], ids=["background", "foreground"])
def test_a_bad_host_is_refused_with_all_its_mistakes(
    make_root: MakeRoot, place: Path, options: tuple[str, ...]
) -> None:
    root, host = make_root(), place / "bad.toml"
    host.write_text(BAD_HOST)
    done = mdevfs("mount", *options, host, root)
    assert done.returncode == 2
    for key in ("host.nmae", "host.kernel", "host.interfaces[0]"):
        assert f"{host}: {key}" in done.stderr
    assert '"name"' in done.stderr
    assert "Traceback" not in done.stderr
    assert mounts(root) == []


def test_what_only_the_drivers_know_is_refused_as_well(make_root: MakeRoot, place: Path) -> None:
    root, host = make_root(), place / "bad.toml"
    wrong = [("mtty-3", "mtty-1"), ("mtty-22", "mtty-2")]
    mdevs = "".join(f'[[device.mdev]]\ncount = 1\ntype = "{name}"\n' for name, _ in wrong)
    host.write_text(f'[[device]]\ndriver = "mtty"\n{mdevs}')
    done = mdevfs("mount", host, root)
    assert done.returncode == 2
    for number, (name, _) in enumerate(wrong):
        assert f'device[0].mdev[{number}].type: mtty has no type "{name}"' in done.stderr
    assert mounts(root) == []


def test_a_host_that_does_not_exist(make_root: MakeRoot) -> None:
    done = mdevfs("mount", "mtyt", make_root())
    assert done.returncode == 2
    assert '"mtty"' in done.stderr


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_service_manager_hears_that_it_is_ready(
    make_root: MakeRoot, background: Background, place: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Once, and after the mount answers; `fixture mount` relies on the abstract kind."""
    root = make_root()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place / "notify") if kind == "path" else "\0mdevfs-test-notify")
        manager.settimeout(LIMIT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify") if kind == "path" else "@mdevfs-test-notify")
        assert mdevfs("mount", "mtty", root).returncode == 0
        assert manager.recv(64) == b"READY=1"
        manager.setblocking(False)
        assert errno_of(lambda: manager.recv(64)) == errno.EAGAIN
    assert mdevfs("umount", root).returncode == 0


def test_the_log_file(make_root: MakeRoot, background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is the caller's, though the server leaves its directory."""
    root = make_root()
    monkeypatch.chdir(root.parent)
    pid = background.mount(monkeypatch, "--log-file", "log", "mtty", root.name)
    assert mounts(root) == ["mdevfs"]
    os.kill(pid, signal.SIGTERM)
    assert background.wait(pid) == 0
    log = (root.parent / "log").read_text()
    assert "SIGTERM" in log
    assert str(root) in log


def test_a_log_file_that_cannot_be_written(make_root: MakeRoot) -> None:
    root = make_root()
    done = mdevfs("mount", "--log-file", root / "absent/log", "mtty", root)
    assert done.returncode == 2
    assert "--log-file" in done.stderr
    assert mounts(root) == []


def test_a_service_manager_that_is_gone_does_not_stop_the_mount(
    make_root: MakeRoot, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_root()
    monkeypatch.setenv("NOTIFY_SOCKET", str(place / "nobody-listens"))
    done = mdevfs("mount", "--log-file", place / "log", "mtty", root)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(root / "class/mdev_bus") == ["mtty"]
    assert "NOTIFY_SOCKET" in (place / "log").read_text()


# -- who may look, who may write


def test_others_may_look_and_not_write(mount: Mount) -> None:
    server = mount("mtty")
    kind = server.root / MTTY / "mdev_supported_types/mtty-1"
    write(kind / "create", new_uuid(1))
    mdev = server.root / MTTY / new_uuid(1)
    for readable in (kind, mdev):
        done = run("cat", readable / "migration_version", user=NOBODY)
        assert (done.returncode, done.stdout) == (0, read(readable / "migration_version"))
    denied = [kind / "create", kind / "migration_version", mdev / "remove", mdev / "migration_version"]
    for path in denied:
        done = run("sh", "-c", 'echo 1 > "$0"', path, user=NOBODY)
        assert done.returncode != 0
        assert "Permission denied" in done.stderr
    assert os.listdir(kind / "devices") == [new_uuid(1)]


def test_others_see_the_beginning_of_a_configuration_space(mount: Mount) -> None:
    config = mount("gvtg").root / "bus/pci/devices/0000:00:02.0/config"
    assert len(config.read_bytes()) == 256
    done = run("sh", "-c", f"wc -c <{config}; cat {config} | wc -c; tail -c +57 {config} | wc -c", user=NOBODY)
    assert (done.stdout.split()[1:], done.stderr) == (["64", "8"], "")


def test_a_private_mount_is_roots_alone(mount: Mount) -> None:
    server = mount("mtty", "--private")
    assert os.listdir(server.root / "class/mdev_bus") == ["mtty"]
    done = run("ls", server.root, user=NOBODY)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def as_nobody() -> tuple[str, ...]:
    """The prefix of a server that runs as an ordinary user, who may read this Python wherever it lives."""
    capability = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *capability)
    done = run(*prefix, sys.executable, "-c", "import mdevfs.mount.serve")
    if done.returncode != 0:
        pytest.skip(f"needs setpriv and CAP_DAC_READ_SEARCH to run mdevfs as an ordinary user: {done.stderr.strip()}")
    return prefix


ENDS_OF_ONES_OWN = ["SIGTERM", "fusermount3", "mdevfs umount"]


@pytest.mark.parametrize("end", ENDS_OF_ONES_OWN)
def test_an_ordinary_user_mounts_and_owns_the_tree(mount: Mount, make_root: MakeRoot, end: str) -> None:
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        pytest.skip("needs a /dev/fuse that ordinary users can open")
    prefix, root = as_nobody(), make_root()
    for path in (root, root.parent):
        os.chown(path, NOBODY, NOBODY)
    server = mount("mtty", root=root, prefix=prefix)
    kind = root / MTTY / "mdev_supported_types/mtty-1"
    owner = run("stat", "--format=%u:%g", root, kind / "create", user=NOBODY)
    assert owner.stdout.split() == [f"{NOBODY}:{NOBODY}"] * 2, owner.stderr
    done = run("sh", "-c", 'echo "$1" > "$0/create" && ls "$0/devices"', kind, new_uuid(1), user=NOBODY)
    assert (done.stdout, done.stderr) == (new_uuid(1) + "\n", "")
    if end == "SIGTERM":
        server.signal(signal.SIGTERM)
    elif end == "fusermount3":
        assert run("fusermount3", "-u", root, user=NOBODY).returncode == 0
    else:
        assert run(*prefix, MDEVFS, "umount", root).returncode == 0
    assert server.wait() == 0
    assert mounts(root) == []


def test_two_hosts_at_once(mount: Mount) -> None:
    """Each with its own mdevs; the same UUID may live on both."""
    first, second = mount("mtty"), mount("mtty")
    kind = f"{MTTY}/mdev_supported_types/mtty-1"
    write(first.root / kind / "create", new_uuid(1))
    assert os.listdir(first.root / "bus/mdev/devices") == [new_uuid(1)]
    assert os.listdir(second.root / "bus/mdev/devices") == []
    write(second.root / kind / "create", new_uuid(1))
    first.end()
    assert os.listdir(second.root / "bus/mdev/devices") == [new_uuid(1)]
