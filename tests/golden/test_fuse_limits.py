"""What no FUSE server can answer as sysfs does: one proof for each recorded case that a mount deviates in.

Each test is named after its case in the recording. Where the bare server would answer as sysfs does, the
kernel does not ask it.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.golden.bare import bare_mount

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse to mount"
)

SYSFS_ATTRIBUTE = Path("/sys/class/net/lo/mtu")
SYSFS_MAGIC, FUSE_MAGIC = 0x62656572, 0x65735546  # linux/magic.h


@pytest.fixture
def mdev(tmp_path: Path) -> Iterator[Path]:
    with bare_mount(tmp_path) as directory:
        yield directory


def errno_of(call: Callable[[], object]) -> int:
    """The errno that `call` fails with, 0 when it succeeds."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def filesystem_magic(path: Path) -> int:
    words = (ctypes.c_long * 32)()  # struct statfs begins with f_type
    assert ctypes.CDLL(None).statfs(os.fsencode(path), words) == 0
    return words[0]


def test_fs_statfs(mdev: Path) -> None:
    """The kernel puts in FUSE's own f_type; a server's statfs reply has no such field."""
    assert filesystem_magic(SYSFS_ATTRIBUTE) == SYSFS_MAGIC
    assert filesystem_magic(mdev / "uevent") == FUSE_MAGIC


def test_fs_mmap(mdev: Path) -> None:
    """The kernel maps a direct_io file privately without asking the server; shared fails as on sysfs."""

    def map_errno(path: Path, kind: int) -> int:
        with path.open("rb") as file:
            return errno_of(lambda: mmap.mmap(file.fileno(), 4096, kind, mmap.PROT_READ))

    assert map_errno(SYSFS_ATTRIBUTE, mmap.MAP_SHARED) == errno.ENODEV
    assert map_errno(SYSFS_ATTRIBUTE, mmap.MAP_PRIVATE) == errno.ENODEV
    assert map_errno(mdev / "uevent", mmap.MAP_SHARED) == errno.ENODEV
    assert map_errno(mdev / "uevent", mmap.MAP_PRIVATE) == 0


@pytest.mark.parametrize("offset", [2**31, 2**40, 2**63 - 1])
def test_seek_read_only(mdev: Path, offset: int) -> None:
    """The kernel checks lseek against its own limit, 2^31 - 1 on kernfs, and never asks a FUSE server."""
    with SYSFS_ATTRIBUTE.open("rb", buffering=0) as file:
        assert errno_of(lambda: file.seek(offset)) == errno.EINVAL
    with (mdev / "uevent").open("rb", buffering=0) as file:
        assert file.seek(offset) == offset


def test_remove_same_fd_twice(mdev: Path) -> None:
    """A stale descriptor answers ENODEV to every write, and direct I/O sends no request for 0 bytes."""
    remove = os.open(mdev / "remove", os.O_WRONLY)
    assert os.write(remove, b"1") == 1
    assert errno_of(lambda: os.write(remove, b"1")) == errno.ENODEV
    assert os.write(remove, b"") == 0
    os.close(remove)


def test_remove_second_fd(mdev: Path) -> None:
    """The same through a descriptor that was opened before the removal by another."""
    first, second = (os.open(mdev / "remove", os.O_WRONLY) for _ in range(2))
    assert os.write(first, b"1") == 1
    assert errno_of(lambda: os.write(second, b"1")) == errno.ENODEV
    assert os.write(second, b"") == 0
    os.close(first)
    os.close(second)


def test_stale_attr(mdev: Path) -> None:
    """The same on another attribute of what was removed."""
    uevent = os.open(mdev / "uevent", os.O_RDWR)
    (mdev / "remove").write_text("1")
    assert errno_of(lambda: os.write(uevent, b"change")) == errno.ENODEV
    assert os.write(uevent, b"") == 0
    os.close(uevent)


def test_stale_dir(mdev: Path) -> None:
    """An invalidated name is forgotten at once, and with it the path of who stands there; kernfs, whose names
    nobody invalidates, forgets a removed one when it is looked up."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(mdev)
        assert os.getcwd() == str(mdev)
        (mdev / "remove").write_text("1")
        assert errno_of(os.getcwd) == errno.ENOENT
    finally:
        os.fchdir(here)
        os.close(here)


def test_lseek_on_a_stale_descriptor(mdev: Path) -> None:
    """6.12 answers ENODEV (6.1: 0, as here); lseek never reaches a FUSE server, so `kernel = "6.12"` cannot."""
    uevent = os.open(mdev / "uevent", os.O_RDWR)
    (mdev / "remove").write_text("1")
    assert os.lseek(uevent, 0, os.SEEK_SET) == 0
    os.close(uevent)
