"""Where a system forbids what `mdevfs run` needs, one line says so and how to mend it; doctor says it beforehand."""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from pathlib import Path

import pytest

from mdevfs.sandbox import statfs
from tests.mount.conftest import why_not
from tests.mount.server import MDEVFS, mdevfs, run
from tests.mount.test_life import as_nobody

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.skipif(run("unshare", "-U", "-r", "true").returncode != 0, reason="needs user namespaces"),
]

NO_MORE = ("unshare", "-U", "-r", "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$0" "$@"')

UNSHARE = {"x86_64": 272, "aarch64": 97}

# As Docker's own profile: without CAP_SYS_ADMIN, unshare(2) is EPERM.
FILTERED = """
import ctypes, os, sys
code = ctypes.create_string_buffer(bytes.fromhex(sys.argv[1]))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
program = Program(len(sys.argv[1]) // 16, ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
os.execv(sys.argv[2], sys.argv[2:])
"""


def docker() -> tuple[str, ...]:
    """The prefix of a command that may not make namespaces, by a filter that has nothing but that to forbid."""
    here = statfs.machine()
    if here is None:
        pytest.skip("needs x86_64 or aarch64")
    number = next(UNSHARE[name] for name, one in statfs.MACHINES.items() if one is here)
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    return sys.executable, "-c", FILTERED, b"".join(struct.pack("HBBI", *step) for step in steps).hex()


def refusals(prefix: tuple[str, ...]) -> tuple[str, str, str]:
    """What run says, and doctor's detail and mend."""
    done = run(*prefix, MDEVFS, "run", "mtty", "--", "true")
    assert (done.returncode, done.stdout) == (125, "")
    (line,) = done.stderr.splitlines()
    asked = run(*prefix, MDEVFS, "doctor", "--json")
    (check,) = (check for check in json.loads(asked.stdout)["checks"] if check["name"] == "mdevfs run")
    assert not check["ok"]
    assert "mdevfs can mount here, but not run" in run(*prefix, MDEVFS, "doctor").stdout
    return line, check["detail"], check["mend"]


def test_no_user_namespace_left() -> None:
    line, detail, mend = refusals(NO_MORE)
    assert line == f"mdevfs: {detail}; to mend: {mend}"
    assert detail == "cannot make private namespaces (user, mount, network): No space left on device"
    assert mend.startswith("user.max_user_namespaces is 0: sysctl -w user.max_user_namespaces=15000")


def test_in_a_container_without_the_capability() -> None:
    line, detail, mend = refusals(docker())
    assert line == f"mdevfs: {detail}; to mend: {mend}"
    assert detail == "cannot make private namespaces (user, mount, network): Operation not permitted"
    assert mend.startswith("a seccomp filter is on here: start the container with --privileged")


def test_nothing_is_left_of_what_could_not_begin(tmp_path: Path) -> None:
    run(*NO_MORE, MDEVFS, "run", "--keep", tmp_path / "kept", "mtty", "--", "true")
    assert list(tmp_path.iterdir()) == []
    done = mdevfs("run", "--keep", tmp_path / "kept", "no-such-host", "--", "true")
    assert done.returncode == 125
    assert list(tmp_path.iterdir()) == []


def test_a_working_directory_that_is_not_in_the_machine() -> None:
    with tempfile.TemporaryDirectory(dir="/run") as place:
        done = run("env", "-C", place, MDEVFS, "run", "mtty", "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith(f"mdevfs: there is no {place} in the machine (No such file or directory)")


def test_a_dev_fuse_that_may_not_be_opened(place: Path) -> None:
    closed = place / "fuse"
    closed.touch(mode=0)
    prefix = ("unshare", "-m", "sh", "-c", f'mount --bind {closed} /dev/fuse; exec "$0" "$@"', *as_nobody())
    done = run(*prefix, MDEVFS, "run", "mtty", "--", "true")
    said = "mdevfs: /dev/fuse cannot be opened: Permission denied; see `mdevfs doctor`\n"
    assert (done.returncode, done.stderr) == (125, said)
