"""The wire between a running host and its askers: JSON lines over a Unix socket.

    -> {"op": "remove", "address": "0000:00:02.0"}            a verb, and what it takes (`mdevfs.control.verbs`)
    <- {"did": "0000:00:02.0 is gone"}                        once nobody sees the old state
    <- {"error": ["..."], "errno": "EBUSY", "exit": 1}        or every mistake; then nothing was changed
    -> {"op": "events"}                                       from now on, every uevent is a line

A verb that has begun is carried out, whether its asker stays to hear of it or not.

The socket has an abstract address that nobody can guess, so that no file can be left behind; who may look at the
mount's root finds it there, and at the directories below it, as the extended attribute `ADDRESS_XATTR`, which no
listing shows. It is as one of mode 0600: the server answers its own user and root only (SO_PEERCRED).
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
