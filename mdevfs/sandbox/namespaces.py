"""Linux's namespaces and mounts through libc: one small function for each system call.

What fails raises MachineError; what the system forbids raises Forbidden, a MachineError that says how to mend it.
Python's own `os.unshare` and `os.setns` came with 3.12.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
from pathlib import Path

from mdevfs.errors import MachineError
from mdevfs.sandbox.lacks import Forbidden

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_NAMES = {CLONE_NEWUSER: "user", CLONE_NEWNS: "mount", CLONE_NEWNET: "network", CLONE_NEWPID: "PID"}

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


def unshare(flags: int) -> None:
    """unshare(2). Raises MachineError naming the namespaces, and what forbids them."""
    if _libc.unshare(flags) != 0:
        names = ", ".join(name for flag, name in _NAMES.items() if flags & flag)
        raise Forbidden(f"cannot make private namespaces ({names}): {_last_error()}")


def setns(descriptor: int, kind: int) -> None:
    """setns(2): joins the namespace that `descriptor` stands for. Raises MachineError."""
    if _libc.setns(descriptor, kind) != 0:
        raise Forbidden(f"cannot join the {_NAMES.get(kind, 'given')} namespace: {_last_error()}")


def mount(kind: str, target: Path, options: str = "", flags: int = MS_NOSUID | MS_NODEV) -> None:
    """mount(2) of a new file system of this kind. Raises MachineError."""
    _mount(kind, target, kind, flags, options, f"mount {kind} on {target}")


def bind(source: Path, target: Path) -> None:
    """Shows `source` and all that is mounted below it at `target` as well. Raises MachineError."""
    _mount(str(source), target, None, MS_BIND | MS_REC, "", f"bind {source} on {target}")


def make_readonly(target: Path) -> None:
    """What is mounted at `target` takes no writes there; below a mount of /sys. Raises MachineError."""
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    _mount("none", target, None, flags, "", f"make {target} read-only")


def make_private() -> None:
    """No mount of this namespace shows in another from here on, nor the other way. Raises MachineError."""
    _mount("none", Path("/"), None, MS_REC | MS_PRIVATE, "", "make the mounts private")


def prctl(option: int, value: int) -> None:
    """prctl(2) of one number. Raises MachineError."""
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise MachineError(f"prctl({option}, {value}): {_last_error()}")


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent, whose pidfd is `parent`, dies of whatever.

    A change of credentials takes that back (a new user namespace too): say it after the last one.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([parent], [], [], 0)[0]:  # it died before we could say so
        os._exit(1)


def map_ids(pid: int, uid: int, gid: int) -> None:
    """Writes the id maps of `pid`'s new user namespace, from the namespace above it.

    For root every id stays what it is; an ordinary user becomes root in there and is nobody else. Raises
    MachineError.
    """
    process = Path(f"/proc/{pid}")
    try:
        if uid == 0:
            for name in ("uid_map", "gid_map"):
                (process / name).write_text(_identity(Path("/proc/self") / name))
        else:
            (process / "setgroups").write_text("deny")
            (process / "uid_map").write_text(f"0 {uid} 1")
            (process / "gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise Forbidden(f"cannot map user ids ({error.filename}): {error.strerror}") from None


def raise_loopback() -> None:
    """Brings the new network namespace's `lo` up. Raises MachineError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
            (flags,) = struct.unpack_from("h", answer, 16)
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))
        except OSError as error:
            raise MachineError(f"cannot bring the private network's lo up: {error.strerror}") from None


def syscall(number: int, *arguments: int) -> int:
    """syscall(2) of numbers and addresses. Raises OSError."""
    result: int = _libc.syscall(number, *(ctypes.c_ulong(argument) for argument in arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def fstatfs(descriptor: int, size: int) -> bytearray:
    """fstatfs(2): the kernel's `struct statfs` of `size` bytes, as libc passes it on. Raises OSError."""
    buffer = (ctypes.c_char * (2 * size))()
    if _libc.fstatfs(descriptor, buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return bytearray(buffer.raw[:size])


def _mount(source: str, target: Path, kind: str | None, flags: int, options: str, what: str) -> None:
    name = kind.encode() if kind is not None else None
    if _libc.mount(os.fsencode(source), os.fsencode(target), name, flags, options.encode()) != 0:
        code = ctypes.get_errno()
        kind_of_error = Forbidden if code in (errno.EPERM, errno.EACCES) else MachineError
        raise kind_of_error(f"cannot {what}: {os.strerror(code)}")


def _identity(path: Path) -> str:
    lines = (line.split() for line in path.read_text().splitlines())
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in lines)


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())
