"""The kernel keeps the text of links: FUSE_CACHE_SYMLINKS (Linux 4.20), which pyfuse3 does not ask for.

Clients walk by links: `mdevctl list` reads four for every mdev, and each would be a question to us. A link of the tree
never changes its text, for another text is another inode; so the kernel may answer by itself.

libfuse wants that flag in its answer to the kernel's first request, and pyfuse3 gives no way to set it. So that one
request and its answer go through a socket of ours: until then libfuse's descriptor is the socket's other end.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import struct
from pathlib import Path

import trio

# linux/fuse.h. Header, then major, minor, max_readahead, flags: both in the request and in the answer.
CACHE_SYMLINKS = 1 << 23
_REQUEST = struct.Struct("=40x12xI")
_ANSWER = struct.Struct("=16x12xI")
_ROOM = 1 << 17  # for a request; the kernel insists on 8 KiB and more

# Before it, the kernel cuts what it kept to the size that stat shows, which is 0 for sysfs's links: "fuse: don't
# truncate cached, mutated symlink" (fs/fuse/dir.c).
SINCE = (6, 15)


class FirstRequest:
    """Between `pyfuse3.init` and `pyfuse3.main`: takes the kernel's first request, and hands it to libfuse."""

    def __init__(self) -> None:
        self._libfuse = _descriptor()
        self._device = os.dup(self._libfuse)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            os.dup2(theirs.fileno(), self._libfuse, inheritable=False)
        request = os.read(self._device, _ROOM)
        (self._offered,) = _REQUEST.unpack_from(request)
        self._socket.send(request)

    async def answer(self) -> None:
        """To be run beside `pyfuse3.main`: hands libfuse's answer to the kernel, and libfuse the kernel's requests."""
        await trio.lowlevel.wait_readable(self._socket)
        answer = bytearray(self._socket.recv(_ROOM))
        if self._offered & CACHE_SYMLINKS and _kernel() >= SINCE:
            (flags,) = _ANSWER.unpack_from(answer)
            struct.pack_into("=I", answer, _ANSWER.size - 4, flags | CACHE_SYMLINKS)
        os.write(self._device, answer)
        os.dup2(self._device, self._libfuse, inheritable=False)
        os.close(self._device)
        self._socket.close()
        # Of pyfuse3's two tasks, one may wait for the socket already: it ends, and the other one waits for the kernel.
        trio.lowlevel.notify_closing(self._libfuse)


def _descriptor() -> int:
    """Of /dev/fuse, the one that libfuse opened: there is one mount per process."""
    opened = Path("/proc/self/fd")
    (number,) = (int(name.name) for name in opened.iterdir() if _leads_to(name) == "/dev/fuse")
    return number


def _leads_to(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # the listing's own
        return ""


def _kernel() -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(match[1]), int(match[2])) if match is not None else (0, 0)
