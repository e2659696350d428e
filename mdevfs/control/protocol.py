"""The wire between a running host and its askers: JSON lines over a Unix socket.

The socket has an abstract address that nobody can guess; who may look at the mount's root finds it there as the
extended attribute `ADDRESS_XATTR`, which no listing shows. The server answers its own user and root only.
"""

from __future__ import annotations

import json

from mdevfs.events import Event

ADDRESS_XATTR = "user.mdevfs.control"


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
