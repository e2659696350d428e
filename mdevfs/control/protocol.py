"""The wire between a running host and its askers: JSON lines over a Unix socket.

    -> {"op": "remove", "address": "0000:00:02.0"}            a verb, and what it takes (`mdevfs.control.verbs`)
    <- {"did": "0000:00:02.0 is gone"}                        once nobody sees the old state
    <- {"error": ["..."], "errno": "EBUSY", "exit": 1}        or every mistake; then nothing was changed
    -> {"op": "events"}                                       from now on, every uevent is a line

A verb that has begun is carried out, whether its asker stays to hear of it or not.

The socket has mode 0600, and the server answers its own user and root only (SO_PEERCRED). Whoever may look at the
mount's root finds its address there, and at the directories below it, as the extended attribute `ADDRESS_XATTR`, which
no listing shows. No file is left behind, but by a SIGKILL in the moment of its making: `mdevfs mount` unlinks the
socket at once and is asked through its descriptor of it, /proc/PID/fd/N, in every network namespace; a machine of
`mdevfs run` has the socket in its own /run, which goes with the machine.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable

from attrs import frozen

from mdevfs.events import Event

ADDRESS_XATTR = "user.mdevfs.control"


@frozen
class Address:
    """Where askers find a host's socket, and the name that it alone is bound to.

    In another PID or mount namespace the path may lead to another host's.
    """

    path: str
    name: str

    def to_bytes(self) -> bytes:
        """The value of the extended attribute: `PATH NAME`."""
        return f"{self.path} {self.name}".encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Address:
        path, _, name = value.decode().partition(" ")
        return cls(path, name)


def peer_uid(getsockopt: Callable[[int, int, int], bytes]) -> int:
    """The user at the other end of the socket that this is the method of: who connected, or who listens."""
    peer = getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", peer)[1]
    return uid


def to_line(event: Event) -> str:
    """One event as a JSON line: action, devpath, subsystem, seqnum, and `env` with all keys in the kernel's order."""
    document = {
        "action": event.action,
        "devpath": event.devpath,
        "subsystem": event.subsystem,
        "seqnum": event.seqnum,
        "env": event.environment(),
    }
    return json.dumps(document) + "\n"
