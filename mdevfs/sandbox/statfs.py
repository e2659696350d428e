"""libudev without a variable: statfs(2) and fstatfs(2) on our tree answer sysfs's magic.

libudev believes in a device only below a file system whose type is SYSFS_MAGIC, and FUSE cannot set its type. So the
command is started with a seccomp filter that hands these two system calls to a supervisor (seccomp_unotify(2)), and
all others to the kernel at once. The supervisor answers for our tree, by its device number, and lets the kernel
answer for everything else. Static programs and those that drop the environment are covered, as are all descendants.

Neither side can hang: a caller that dies takes its question along, a supervisor that dies leaves ENOSYS. Not told from
others: a path through /proc/self, which is the supervisor's own when it looks.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from mdevfs.errors import MachineError
from mdevfs.sandbox.namespaces import fstatfs, syscall

WAYS = ("seccomp", "env", "none")
FALLBACK = {"SYSTEMD_DEVICE_VERIFY_SYSFS": "0"}  # what libudev's programs understand; of systemd, so of libudev only

SYSFS_MAGIC = 0x62656572


@frozen
class Machine:
    """What differs between architectures: the audit number and the numbers of three system calls."""

    audit: int
    seccomp: int
    statfs: int
    fstatfs: int


MACHINES = {
    "x86_64": Machine(0xC000003E, 317, 137, 138),
    "aarch64": Machine(0xC00000B7, 277, 43, 44),
}

# linux/seccomp.h
_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_USER_NOTIF, _ALLOW = 0x7FC00000, 0x7FFF0000
_CONTINUE = 1
NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, then struct seccomp_data: nr, arch, pointer, arguments
ANSWER = struct.Struct("=QqiI")  # id, val, error, flags
RECEIVE = 3 << 30 | NOTIFICATION.size << 16 | ord("!") << 8 | 0
SEND = 3 << 30 | ANSWER.size << 16 | ord("!") << 8 | 1
VALID = 1 << 30 | 8 << 16 | ord("!") << 8 | 2

# include/uapi/asm-generic/statfs.h, of 64 bits: f_type, bsize, blocks, bfree, bavail, files, ffree; f_fsid; namelen,
# frsize, flags, spare[4]. Both architectures take it as it is.
STATFS = struct.Struct("=7q2i7q")
_TYPE = struct.Struct("=q")

OPENAT2 = 437  # on every architecture
_RESOLVE_IN_ROOT = 0x10
_PATH_MAX = 4096


def machine() -> Machine | None:
    """This architecture, None for one that nobody described."""
    return MACHINES.get(platform.machine())


def install() -> int:
    """Puts the filter on this process and all that it starts; the listener's descriptor. Raises OSError.

    Needs CAP_SYS_ADMIN in the process's user namespace. EBUSY: it runs under a supervisor already.
    """
    here = machine()
    if here is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    text = program(here)
    code = ctypes.create_string_buffer(text, len(text))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(text) // 8, ctypes.addressof(code)))
    address = ctypes.addressof(head)
    try:  # a question is then not asked again for each of the caller's signals; Linux 5.19
        return syscall(here.seccomp, _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE, address)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return syscall(here.seccomp, _SET_MODE_FILTER, _NEW_LISTENER, address)


def believe(way: str | None, channel: socket.socket) -> dict[str, str]:
    """Makes libudev believe in the tree, in this process and all that it starts; what their environment needs for it.

    `way` is one of WAYS, or None: seccomp where the kernel grants it, else env. The supervisor is at the other end of
    `channel`. Raises MachineError.
    """
    if way == "none":
        return {}
    if way == "env":
        return FALLBACK
    try:
        listener = install()
    except OSError as error:
        if way is None:
            return FALLBACK
        raise MachineError(
            f"--statfs=seccomp: the kernel grants no seccomp listener here: {error.strerror}; use --statfs=env"
        ) from None
    socket.send_fds(channel, [b"x"], [listener])
    os.close(listener)
    return {}


def program(here: Machine) -> bytes:
    """Classic BPF: our architecture's statfs and fstatfs go to the supervisor."""
    load, equal, give = 0x20, 0x15, 0x06
    steps = [
        (load, 0, 0, 4),
        (equal, 0, 4, here.audit),
        (load, 0, 0, 0),
        (equal, 1, 0, here.statfs),
        (equal, 0, 1, here.fstatfs),
        (give, 0, 0, _USER_NOTIF),
        (give, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def supervise(channel: socket.socket, device: int) -> None:
    """Answers for the tree whose st_dev is `device` until the last process under the filter has ended.

    The listener comes through `channel`; when nobody sends one there is nothing to do.
    """
    _, listeners, _, _ = socket.recv_fds(channel, 1, 1)
    if not listeners:
        return
    here, listener = machine(), listeners[0]
    assert here is not None
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while poll.poll()[0][1] & select.POLLIN:
        question = bytearray(NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, RECEIVE, question)
        except OSError as error:  # the caller was killed, or a signal came
            if error.errno in (errno.ENOENT, errno.EINTR):
                continue
            raise
        number, tid, _, call, _, _, first, second, *_ = NOTIFICATION.unpack(question)
        answered = _answer(listener, here, device, (number, tid, call, first, second))
        try:
            fcntl.ioctl(listener, SEND, ANSWER.pack(number, 0, 0, 0 if answered else _CONTINUE))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINPROGRESS):
                raise


def _answer(listener: int, here: Machine, device: int, question: tuple[int, int, int, int, int]) -> bool:
    """Whether the answer is written into the caller's memory; whatever goes wrong is left for the kernel to say."""
    number, tid, call, first, second = question
    try:
        with _opened(f"/proc/{tid}/mem", os.O_RDWR) as memory:
            fcntl.ioctl(listener, VALID, struct.pack("=Q", number))  # so the memory is still the caller's
            place = _by_path(tid, memory, first) if call == here.statfs else _by_descriptor(tid, first)
            with place as descriptor:
                if os.fstat(descriptor).st_dev != device:
                    return False
                told = fstatfs(descriptor, STATFS.size)
            disguise(told)
            return os.pwrite(memory, told, second) == STATFS.size
    except (OSError, OverflowError, ValueError):
        return False


def disguise(told: bytearray) -> None:
    """Makes a `struct statfs` one of sysfs's."""
    _TYPE.pack_into(told, 0, SYSFS_MAGIC)


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _by_descriptor(tid: int, descriptor: int) -> Iterator[int]:
    with _opened(f"/proc/{tid}/fd/{descriptor & 0xFFFFFFFF}", os.O_PATH) as place:
        yield place


@contextmanager
def _by_path(tid: int, memory: int, address: int) -> Iterator[int]:
    """What the caller's path leads to, from its own root and working directory."""
    path = _string(memory, address)
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not path.startswith(b"/"):
        directory, root = (Path(f"/proc/{tid}/{name}").readlink() for name in ("cwd", "root"))
        path = os.fsencode(directory.relative_to(root)) + b"/" + path
    with _opened(f"/proc/{tid}/root", os.O_PATH | os.O_DIRECTORY) as top:
        text = ctypes.create_string_buffer(path)
        how = ctypes.create_string_buffer(struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT), 24)
        place = syscall(OPENAT2, top, ctypes.addressof(text), ctypes.addressof(how), 24)
        try:
            yield place
        finally:
            os.close(place)


def _string(memory: int, address: int) -> bytes:
    """A path in the caller's memory; read page by page, since the next one may not be there."""
    text = b""
    while b"\0" not in text and len(text) < _PATH_MAX:
        start = address + len(text)
        piece = os.pread(memory, _PATH_MAX - start % _PATH_MAX, start)
        if not piece:
            break
        text += piece
    return text.partition(b"\0")[0]
