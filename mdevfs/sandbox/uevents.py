"""uevents over netlink, as the kernel's own come: into a network namespace that is not the machine's first one.

A process with CAP_SYS_ADMIN in the user namespace that owns a network namespace may hand the kernel a uevent, which
broadcasts it there and nowhere else, numbered by itself (lib/kobject_uevent.c, uevent_net_rcv, since 4.18).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import struct
import threading
from pathlib import Path

from mdevfs.errors import InputError, MachineError, MdevfsError, escape
from mdevfs.events import Event
from mdevfs.sandbox.namespaces import CLONE_NEWNET, setns

log = logging.getLogger("mdevfs.uevents")

NETLINK_KOBJECT_UEVENT = 15
_REQUEST_ACK = 0x1 | 0x4  # NLM_F_REQUEST | NLM_F_ACK
_MESSAGE = 0x10  # NLMSG_MIN_TYPE: the kernel looks at no type
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ERROR = struct.Struct("=16xi")  # struct nlmsgerr after its header

NS_GET_USERNS = 0xB701  # linux/nsfs.h
NS_GET_NSTYPE = 0xB703
INITIAL_USERNS = 0xEFFFFFFD  # its inode since 3.8: PROC_USER_INIT_INO
OWN = Path("/proc/thread-self/ns/net")
MACHINES = Path("/proc/1/ns/net")
# net/core/sysctl_net_core.c: the first is there in every network namespace, the second in the first one only.
_ANYWHERE = Path("/proc/sys/net/core/somaxconn")
_FIRST_ONLY = Path("/proc/sys/net/core/netdev_max_backlog")


class Sender:
    """A listener of an EventStream that hands every event to the kernel, whose answer is there when `send` returns."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is a netlink socket of the namespace, wherever the process is."""
        self._socket = sock
        self._on = True
        self._said_too_large = False

    def send(self, event: Event) -> None:
        """Never raises: an event too large (the kernel takes 2048 bytes, its number included) is left out; any other
        error ends the sending. Both are logged once."""
        if not self._on:
            return
        data = message(event)
        try:
            self._socket.sendto(data, (0, 0))
            code = -_ERROR.unpack_from(self._socket.recv(4096, socket.MSG_DONTWAIT))[0]
        except OSError as error:
            code = error.errno or errno.EIO
        if code == errno.EINVAL:
            if not self._said_too_large:
                self._said_too_large = True
                log.warning("an event of %d bytes is too large for netlink: %s", len(data), escape(event.devpath))
        elif code:
            self._on = False
            log.warning("uevents are no longer sent: %s", os.strerror(code))


def message(event: Event) -> bytes:
    """The event on the wire, without the number, which the kernel appends."""
    keys = event.environment()
    del keys["SEQNUM"]
    lines = [f"{event.action}@{event.devpath}", *(f"{key}={value}" for key, value in keys.items())]
    body = b"".join(os.fsencode(line) + b"\0" for line in lines)
    return _HEADER.pack(_HEADER.size + len(body), _MESSAGE, _REQUEST_ACK, 1, 0) + body


def open_sender(wanted: str) -> Sender | None:
    """The sender that `--uevents` asks for: `auto`, `none`, or the path of a network namespace.

    None where nothing is to be sent; with `auto` the log says why. Raises InputError for a path that is no network
    namespace or that is, or may be, the machine's first one; MachineError where it may not be entered.
    """
    if wanted == "none":
        return None
    if wanted == "auto":
        reason = why_not_here() or _why_not_ours()
        if reason is None:
            return Sender(_open_socket())
        log.info("no uevents over netlink: %s", reason)
        return None
    return Sender(_open_elsewhere(wanted))


def why_not_here() -> str | None:
    """Why this thread's network namespace is, or may be, the machine's first one; None when it is certainly not.

    The first one belongs to the initial user namespace. Of those that belong to it, one is not the first when it is
    not PID 1's (or nobody tells us which is) and lacks the sysctls that only the first one has.
    """
    try:
        if _owner() != INITIAL_USERNS:
            return None
    except OSError as error:
        return f"the owner of the network namespace is not known: {error.strerror}"
    if _is_that_of_pid_1():
        return "this is the network namespace of PID 1"
    if _FIRST_ONLY.exists() or not _ANYWHERE.exists():
        return "this may be the machine's first network namespace"
    return None


def _why_not_ours() -> str | None:
    """A container has a machine's first namespace too, in the eyes of who lives in it: not without being told to."""
    if _is_that_of_pid_1():
        return "this is the network namespace of PID 1; --uevents=/proc/self/ns/net sends there nevertheless"
    return None


def _owner() -> int:
    """The inode of the user namespace that owns this thread's network namespace; EPERM when it is above our own."""
    net = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        user = fcntl.ioctl(net, NS_GET_USERNS)
    finally:
        os.close(net)
    try:
        return os.fstat(user).st_ino
    finally:
        os.close(user)


def _is_that_of_pid_1() -> bool:
    """False where nobody tells us."""
    try:
        return OWN.samefile(MACHINES)
    except OSError:
        return False


def _open_socket() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
        sock.bind((0, 0))
    except OSError as error:
        raise MachineError(f"no netlink socket for uevents: {error.strerror}; --uevents=none does without") from None
    return sock


def _open_elsewhere(path: str) -> socket.socket:
    """A socket stays in the namespace it was made in, and setns(2) moves one thread: so a thread of its own does it."""
    made: list[socket.socket] = []
    failed: list[MdevfsError] = []

    def work() -> None:
        try:
            _enter(path)
            if (reason := why_not_here()) is not None:
                raise InputError(f"--uevents {path}: {reason}, and its users must not see an emulated machine's events")
            made.append(_open_socket())
        except MdevfsError as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="mdevfs-setns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _enter(path: str) -> None:
    """Moves this thread into the network namespace of that path."""
    try:
        net = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"--uevents {path}: {error.strerror}; name auto, none or a network namespace") from None
    try:
        if fcntl.ioctl(net, NS_GET_NSTYPE) != CLONE_NEWNET:
            raise InputError(f"--uevents {path} is a namespace, but not of networks")
        setns(net, CLONE_NEWNET)
    except OSError:
        raise InputError(f"--uevents {path} is no namespace; name auto, none or a network namespace") from None
    finally:
        os.close(net)
