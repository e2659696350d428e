"""Where things are mounted: whether a directory may be mounted on, and how to take a mount away."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

from attrs import frozen

from mdevfs.errors import InputError, MachineError

FSNAME = "mdevfs"
MNT_DETACH = 2
_OCTAL = re.compile(r"\\([0-7]{3})")


@frozen
class Mounted:
    """One line of /proc/self/mountinfo."""

    path: str
    fstype: str
    source: str

    @property
    def ours(self) -> bool:
        return self.source == FSNAME and self.fstype.startswith("fuse")


def mounted_at(path: Path) -> Mounted | None:
    """The topmost mount exactly at `path`, dead or alive."""
    found = None
    wanted = os.path.abspath(path)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        where = unescape(left.split()[4])
        if where == wanted:
            fstype, source = right.split()[:2]
            found = Mounted(where, fstype, source)
    return found


def unescape(path: str) -> str:
    """A path as mountinfo writes it, where white space is octal."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), path)


def is_dead(path: Path) -> bool:
    """Whether the server behind a FUSE mount has died. statvfs(2) always asks it; stat(2) may be answered without."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def prepare(path: Path) -> None:
    """Makes sure that `path` can be mounted on; takes over what a killed server of ours left behind.

    Raises InputError (no such directory, a live host there) or MachineError (another's dead mount, no /dev/fuse).
    """
    there = mounted_at(path)
    if is_dead(path):
        if there is None or not there.ours:
            what = f"{there.fstype} {there.source}" if there else "a file system"
            raise MachineError(
                f"{path} holds the dead mount of {what}, which is not ours to take away: unmount it first"
            )
        unmount(path, lazy=True)
    elif there is not None and there.ours:
        raise InputError(f"{path} already shows a host; end that one first: mdevfs umount {path}")
    if not path.exists():
        raise InputError(f"{path} does not exist; make it first: mkdir {path}")
    if not path.is_dir():
        raise InputError(f"{path} is not a directory")
    _check_fuse()


def _check_fuse() -> None:
    """Opened, not only looked at: in `mdevfs run` everybody is root, and a container's device rules refuse the open."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise MachineError(
            "there is no /dev/fuse: load the module fuse, or give it to this container; see `mdevfs doctor`"
        ) from None
    except OSError as error:
        raise MachineError(f"/dev/fuse cannot be opened: {error.strerror}; see `mdevfs doctor`") from None
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MachineError("fusermount3 is missing: install the package fuse3; see `mdevfs doctor`")


def unmount(path: Path, lazy: bool = False) -> None:
    """Takes the topmost mount at `path` away. Raises MachineError with the reason when that cannot be."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(path), MNT_DETACH if lazy else 0) == 0:
            return
        code = ctypes.get_errno()
        reason = os.strerror(code)
        if code == errno.EBUSY:
            reason = "somebody has a file open there or works in it (lsof or fuser show who; --lazy detaches it now)"
        raise MachineError(f"cannot unmount {path}: {reason}")
    tool = shutil.which("fusermount3")
    if tool is None:
        raise MachineError("fusermount3 is missing: install the package fuse3")
    command = [tool, "-u", *(["-z"] if lazy else []), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(f"cannot unmount {path}: {done.stderr.strip()}")
