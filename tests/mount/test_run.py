"""`mdevfs run`: the command's view, its end, and nothing left of either."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mdevfs.sandbox import udevd
from tests.mount.conftest import why_not
from tests.mount.server import LIMIT, MDEVFS, mdevfs, mounts, run
from tests.mount.test_life import as_nobody

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

# In sh: says that it is up, with a daemon that forked twice, and waits for ever.
LINGER = '(setsid sh -c "exec sleep 4711" &); echo up; exec sleep 4711'

Begin = Callable[[], "subprocess.Popen[str]"]


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, the direct children first."""
    done = run("ps", "-o", "pid=", "--ppid", str(pid))
    below = [int(word) for word in done.stdout.split()]
    return below + [other for one in below for other in descendants(one)]


def machine_mounts() -> list[str]:
    """The mount table's lines of where a machine mounts; other tests' hosts may come and go elsewhere."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(("/sys", "/run", "/dev", "/etc", "/proc", "/var"))]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts a machine whose command lingers, in a session of its own; returns when it says that it is up."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [MDEVFS, "run", "mtty", "--", "sh", "-c", LINGER],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def all_end(handles: list[int]) -> bool:
    """Whether every process of these pidfds ends in time."""
    try:
        return all(select.select([handle], [], [], LIMIT)[0] for handle in handles)
    finally:
        for handle in handles:
            os.close(handle)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL),
        (("/etc/passwd",), 126),
        (("no-such-command",), 127),
    ],
)
def test_the_exit_code_is_the_commands(command: tuple[str, ...], code: int) -> None:
    done = mdevfs("run", "mtty", "--", *command)
    assert done.returncode == code, done.stderr
    assert bool(done.stderr) == (code in (126, 127)), done.stderr


def test_failures_of_our_own_are_125() -> None:
    done = mdevfs("run", "no-such-host", "true")
    assert (done.returncode, "no-such-host" in done.stderr) == (125, True)
    done = mdevfs("run", "mtty", "--net", "true")
    assert (done.returncode, "before HOST" in done.stderr) == (125, True)
    for words in (("run",), ("run", "--udevd=none of these", "mtty", "true")):
        done = mdevfs(*words)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (125, "mdevfs: see mdevfs run --help")


def test_a_static_program_sees_the_tree_and_the_rest_stays_real() -> None:
    if shutil.which("busybox") is None:
        pytest.skip("needs busybox (package busybox-static)")
    there = sorted(os.listdir("/sys/devices/system/cpu"))
    done = mdevfs("run", "mtty", "--", "busybox", "ls", "/sys/class/mdev_bus", "/sys/devices/system/cpu")
    names = done.stdout.split()
    assert names[1] == "mtty", done.stderr
    assert sorted(names[3:]) == there


def test_the_rest_of_sys_is_to_be_looked_at_only() -> None:
    """Whoever asks here is root inside, and may be root outside."""
    real = [path for part in ("kernel", "power") for path in sorted(Path("/sys", part).glob("*")) if path.is_file()]
    writable = [path for path in real if path.stat().st_mode & 0o200]
    assert writable
    script = "".join(f"(: >> {path}) 2>&1; " for path in writable) + "cat /sys/kernel/uevent_seqnum >&2"
    done = mdevfs("run", "--udevd=none", "mtty", "--", "sh", "-c", script)
    said = done.stdout.splitlines()
    assert [line.rpartition(": ")[2] for line in said] == ["Read-only file system"] * len(writable)
    assert done.stderr.strip().isdecimal()


def test_mounts_that_an_ordinary_user_cannot_reach_are_nobodys_trouble() -> None:
    """A system with debugfs, which is root's, and something in it."""
    mounted = "mount -t debugfs none /sys/kernel/debug && mount -t tracefs none /sys/kernel/debug/tracing"
    command = (*as_nobody(), str(MDEVFS), "run", "--udevd=none", "mtty", "--", "ls", "/sys/class/mdev_bus")
    done = run("unshare", "--mount", "sh", "-c", f'{mounted} && exec "$@"', "sh", *command)
    assert (done.stdout, done.stderr) == ("mtty\n", "")


def test_mounts_that_are_covered_are_nobodys_trouble() -> None:
    mounted = "mount -t securityfs none /sys/kernel/security && mount -t tmpfs none /sys/kernel"
    for more in ("", " && mkdir /sys/kernel/security"):
        command = (str(MDEVFS), "run", "--udevd=none", "mtty", "--", "ls", "/sys/class/mdev_bus")
        done = run("unshare", "--mount", "sh", "-c", f'{mounted}{more} && exec "$@"', "sh", *command)
        assert (done.stdout, done.stderr) == ("mtty\n", "")


def test_a_full_disk_ends_the_file_of_events_and_nothing_else() -> None:
    one = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
    create = f"echo {one} >/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create; ls /sys/bus/mdev/devices"
    done = mdevfs("run", "--udevd=none", "--events", "/dev/full", "mtty", "--", "sh", "-c", create)
    assert (done.returncode, done.stdout) == (0, f"{one}\n")


def test_statfs_answers_as_sysfs_does() -> None:
    ask = "cd /sys/bus; env -i stat --file-system --format=%t . /sys/class /; echo $SYSTEMD_DEVICE_VERIFY_SYSFS"
    root = f"{run('stat', '--file-system', '--format=%t', '/').stdout.strip()}"
    sysfs, fuse = "62656572", "65735546"
    for way, expected in (
        ("seccomp", [sysfs, sysfs, root]),
        ("env", [fuse, fuse, root, "0"]),
        ("none", [fuse, fuse, root]),
    ):
        done = mdevfs("run", f"--statfs={way}", "mtty", "--", "sh", "-c", ask)
        assert done.stdout.split() == expected, (way, done.stderr)


def test_mdevctl_works_and_the_host_is_untouched(tmp_path: Path) -> None:
    if shutil.which("mdevctl") is None:
        pytest.skip("needs mdevctl (package mdevctl)")
    before = [sorted(os.listdir(path)) for path in ("/sys/class", "/sys/bus", "/sys/devices/virtual", "/run", "/etc")]
    table = machine_mounts()
    verbs = (
        'mdevctl types | head -1; u=$(mdevctl start -p mtty -t mtty-1) && mdevctl list | grep -c "$u mtty mtty-1"'
        ' && mdevctl define -u $u && mdevctl stop -u $u && mdevctl list && echo "stopped" > /run/said && cat /run/said'
    )
    done = mdevfs("run", "--keep", tmp_path / "kept", "mtty", "--", "sh", "-ec", verbs)
    assert done.stdout.split() == ["mtty", "1", "stopped"], done.stderr
    assert len(list((tmp_path / "kept/mdevctl.d/mtty").iterdir())) == 1
    after = [sorted(os.listdir(path)) for path in ("/sys/class", "/sys/bus", "/sys/devices/virtual", "/run", "/etc")]
    assert after == before
    assert machine_mounts() == table


USERS = """
id -u; ls /sys/class/mdev_bus; stat -f -c %T /sys/class
! command -v udevadm > /dev/null || udevadm settle || ! test -S /run/udev/control
mkdir /etc/mdevctl.d/mtty /var/lib/libvirt/x && touch /run/x /dev/x
echo 5eed0000-0000-0000-0000-000000000001 > /sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create
ls /dev/vfio/devices; cat /dev/vfio/devices/vfio0 2>&1
cat /sys/kernel/debug/vfio/*/migration/state
"""


@pytest.mark.parametrize("option", ["--udevd=real", "--udevd=mini", "--hermetic"])
def test_an_ordinary_user_needs_no_privilege(place: Path, option: str) -> None:
    """On a kernel whose tree has a debugfs, and where there is a real one that the user may not enter."""
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        pytest.skip("needs a /dev/fuse that ordinary users can open")
    if option == "--udevd=real" and udevd.program() is None:
        pytest.skip("needs systemd-udevd (package udev)")
    host = place / "host.toml"
    host.write_text('[host]\nname = "new"\nkernel = "6.8"\n[[device]]\ndriver = "mtty"\n')
    debugfs = (
        "unshare",
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        'mount -t debugfs d /sys/kernel/debug; "$0" "$@"',
    )
    done = run(*debugfs, *as_nobody(), MDEVFS, "run", option, host, "--", "sh", "-c", USERS)
    said = ["0", "mtty", "sysfs", "vfio0", "cat: /dev/vfio/devices/vfio0: No such device", "RUNNING"]
    assert (done.stdout.splitlines(), done.stderr) == (said, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command_and_nothing_is_left(begin: Begin, number: signal.Signals) -> None:
    process = begin()
    below = [os.pidfd_open(pid) for pid in descendants(process.pid)]
    assert len(below) >= 5  # server, supervisor, init, command, daemon
    process.send_signal(number)
    assert process.wait(LIMIT) == 128 + number
    assert all_end(below)
    assert mounts(Path("/run/tree")) == []


@pytest.mark.parametrize("victim", ["caller", "server", "init"])
def test_a_killed_process_takes_the_others_along(begin: Begin, victim: str) -> None:
    process = begin()
    table = machine_mounts()
    everybody = descendants(process.pid)
    handles = [os.pidfd_open(pid) for pid in everybody]
    server, _, init, *_ = everybody
    os.kill({"caller": process.pid, "server": server, "init": init}[victim], signal.SIGKILL)
    code = process.wait(LIMIT)
    assert code == {"caller": -signal.SIGKILL, "server": 125, "init": 128 + signal.SIGKILL}[victim]
    assert all_end(handles)
    assert machine_mounts() == table


def test_the_kernel_knows_the_mdevs_before_the_command_does(tmp_path: Path) -> None:
    """sysfs's times are those of the kernel's first look."""
    host = tmp_path / "host.toml"
    host.write_text('[host]\nname = "many"\n[[device]]\ndriver = "mtty"\n[[device.mdev]]\ncount = 9\ntype = "mtty-1"\n')
    look = "date +%s.%N; stat -c %.9Z /sys/bus/mdev/devices/*/mdev_type"
    done = mdevfs("run", "--udevd=none", str(host), "--", "sh", "-c", look)
    begun, *times = map(float, done.stdout.split())
    assert len(times) == 9
    assert max(times) < begun


def test_what_happens_is_told(tmp_path: Path) -> None:
    """Who reads and writes, and what is announced, from the host's start on; files that cannot be had are refused."""
    trace, events = tmp_path / "trace", tmp_path / "events"
    kind = "/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1"
    one = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
    told = ("--udevd=none", "--trace", trace, "--events", events)
    done = mdevfs("run", *told, "mtty", "--", "sh", "-c", f"echo {one} >{kind}/create; cat {kind}/available_instances")
    assert (done.stdout, done.stderr) == ("23\n", "")
    accesses = [json.loads(line) for line in trace.read_text().splitlines()]
    path = "devices/virtual/mtty/mtty/mdev_supported_types/mtty-1"
    assert [(access["operation"], access["path"], access["comm"], access["text"]) for access in accesses] == [
        ("write", f"{path}/create", "sh", f"{one}\n"),
        ("read", f"{path}/available_instances", "cat", "23\n"),
    ]
    heard = [json.loads(line) for line in events.read_text().splitlines()]
    announced = [f"{event['action']}@{event['devpath']}" for event in heard]
    mtty = "/devices/virtual/mtty/mtty"
    assert announced.index(f"add@{mtty}") < announced.index(f"add@{mtty}/{one}") < announced.index(f"bind@{mtty}/{one}")
    done = mdevfs("run", "--events", "-", "mtty", "--", "true")
    assert (done.returncode, "name a file" in done.stderr) == (125, True)
    for option in ("--trace", "--events"):
        done = mdevfs("run", option, tmp_path / "no/file", "mtty", "--", "true")
        assert (done.returncode, done.stderr) == (
            125,
            f"mdevfs: {option} {tmp_path}/no/file: No such file or directory\n",
        )
