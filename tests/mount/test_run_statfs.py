"""statfs inside `mdevfs run`, answered by another process: the right answers, under load, and never a hang."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.conftest import why_not
from tests.mount.server import LIMIT, MDEVFS, mdevfs, run
from tests.mount.test_run import all_end, descendants

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

SYSFS = "62656572"

# The raw calls, as a static program makes them: f_type, or minus the errno.
CALLS = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
def answered(call, *arguments):
    buffer = ctypes.create_string_buffer(256)
    done = call(*arguments, buffer)
    return -ctypes.get_errno() if done else int.from_bytes(buffer[:8], "little")
def statfs(path):
    return answered(libc.statfs, path)
def fstatfs(descriptor):
    return answered(libc.fstatfs, descriptor)
"""

CORNERS = (
    CALLS
    + """
import errno, sys
S = 0x62656572
os.chdir("/sys/class")
assert [statfs(path) for path in (b".", b"..", b"mdev_bus/mtty", b"/sys/bus/../bus")] == [S] * 4
assert statfs(b"/dev/../sys/class") == S
assert statfs(b"/sys/kernel") == S and statfs(b"/proc") == 0x9FA0 and statfs(b"/dev/null") != S
fds = [os.open(path, os.O_RDONLY) for path in ("/sys/class", "/sys/class/mdev_bus/mtty/uevent", "/proc")]
fds.append(os.open("/sys/bus", os.O_PATH))
assert [fstatfs(fd) for fd in fds] == [S, S, 0x9FA0, S]
assert [statfs(b"/no/such"), statfs(b""), statfs(b"x" * 5000)] == [-errno.ENOENT, -errno.ENOENT, -errno.ENAMETOOLONG]
assert [fstatfs(999), fstatfs(-1)] == [-errno.EBADF] * 2
# a path that ends with its page, and the next page is not there
page = mmap.mmap(-1, 2 * mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(page))
assert libc.munmap(ctypes.c_void_p(start + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE)) == 0
path = b"/sys/class\\0"
ctypes.memmove(start + mmap.PAGESIZE - len(path), path, len(path))
assert statfs(ctypes.c_void_p(start + mmap.PAGESIZE - len(path))) == S
assert statfs(ctypes.c_void_p(start + mmap.PAGESIZE)) == -errno.EFAULT
assert libc.statfs(b"/sys/class", ctypes.c_void_p(8)) == -1 and ctypes.get_errno() == errno.EFAULT
os.mkdir("/run/root"); os.mkdir("/run/root/sys"); os.mkdir("/run/root/elsewhere")
assert libc.mount(b"/sys", b"/run/root/sys", None, ctypes.c_ulong(0x5000), None) == 0
os.chroot("/run/root")
os.chdir("/elsewhere")
assert [statfs(path) for path in (b"/sys/class", b"../sys/class", b"/../../sys/class")] == [S] * 3
print("right")
os._exit(0)
"""
)


def test_answers_as_the_kernel_gives_them_for_sysfs() -> None:
    done = mdevfs("run", "--statfs=seccomp", "--udevd=none", "mtty", "--", sys.executable, "-c", CORNERS)
    assert done.stdout == "right\n", done.stderr


MANY = (
    CALLS
    + """
import threading
def work():
    fd = os.open("/sys/class", os.O_RDONLY)
    for _ in range(50):
        assert statfs(b"/sys/bus") == fstatfs(fd) == 0x62656572
        assert statfs(b"/proc") == 0x9FA0
pids = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        threads = [threading.Thread(target=work) for _ in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        os._exit(0)
    pids.append(pid)
print(sum(os.waitpid(pid, 0)[1] for pid in pids), flush=True)
"""
)


def test_many_processes_and_threads_at_once() -> None:
    done = mdevfs("run", "--statfs=seccomp", "--udevd=none", "mtty", "--", sys.executable, "-c", MANY)
    assert (done.stdout, done.stderr) == ("0\n", "")


# Eight processes that ask without a pause; told when all have begun.
ASKING = (
    CALLS
    + """
begun, begin = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        statfs(b"/sys/bus")
        os.write(begin, b"x")
        while True:
            statfs(b"/sys/bus")
got = b""
while len(got) < 8:
    got += os.read(begun, 8)
print("asking", flush=True)
"""
)


def test_callers_killed_while_they_ask() -> None:
    """The supervisor goes on for the others."""
    killing = """
import random, signal, time
pids = []
for round in range(150):
    pid = os.fork()
    if pid == 0:
        while True:
            statfs(b"/sys/bus")
    pids.append(pid)
    if len(pids) > 5:
        os.kill(victim := pids.pop(random.randrange(5)), signal.SIGKILL)
        os.waitpid(victim, 0)
print(hex(statfs(b"/sys/bus")), flush=True)
"""
    done = mdevfs("run", "--statfs=seccomp", "--udevd=none", "mtty", "--", sys.executable, "-c", CALLS + killing)
    assert (done.stdout, done.returncode) == ("0x62656572\n", 0), done.stderr


def test_a_supervisor_killed_while_it_is_asked_ends_the_machine() -> None:
    script = ASKING + "import signal; signal.pause()"
    with subprocess.Popen(
        (MDEVFS, "run", "--statfs=seccomp", "--udevd=none", "mtty", "--", sys.executable, "-c", script),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        everybody = descendants(process.pid)
        handles = [os.pidfd_open(pid) for pid in everybody]
        _, supervisor, *_ = everybody
        os.kill(supervisor, signal.SIGKILL)
        assert process.wait(LIMIT) == 125
        assert process.stderr is not None
        assert process.stderr.read() == ("mdevfs: the process that answers statfs died, and the command with it\n")
        assert all_end(handles)


def test_in_namespaces_within() -> None:
    if run("unshare", "-U", "-r", "true").returncode != 0:
        pytest.skip("needs user namespaces: unshare -U fails")
    script = "unshare -U -r -m -p -f stat -f -c %t /sys/bus; unshare -m stat -f -c %t /sys/class"
    done = mdevfs("run", "--statfs=seccomp", "--udevd=none", "mtty", "--", "sh", "-c", script)
    assert done.stdout.split() == [SYSFS, SYSFS], done.stderr


def test_a_supervisor_inside_a_supervised_machine(tmp_path: Path) -> None:
    """The kernel has one listener for a process: a machine in a machine falls back to the variable."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (package util-linux)")
    install = "from mdevfs.sandbox.statfs import install; install()"
    done = mdevfs("run", "--statfs=seccomp", "--udevd=none", "mtty", "--", sys.executable, "-c", install)
    assert "Device or resource busy" in done.stderr, done.stderr
