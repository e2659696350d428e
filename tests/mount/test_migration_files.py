"""`mdevfs/migration_state` and `migration_data` as only a mount shows them: other users, tools that read trees."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.mount.server import NOBODY, errno_of, read, run, write, write_errno

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
HOST = f"""
[host]
kernel = "6.18"
[[device]]
driver = "mtty"
[[device.mdev]]
type = "mtty-2"
uuid = "{UUID}"
"""


@pytest.fixture
def folder(mount: Mount) -> Path:
    return mount(HOST).root / "bus/mdev/devices" / UUID / "mdevfs"


def test_what_stat_shows(folder: Path) -> None:
    data, state = (folder / "migration_data").stat(), (folder / "migration_state").stat()
    assert (data.st_size, data.st_mode & 0o777) == (0, 0o600)
    assert state.st_mode & 0o777 == 0o644


def test_tools_that_read_whole_trees_do_no_harm(folder: Path) -> None:
    device = folder.parent.resolve()
    for command in (("grep", "-rs", "RUNNING", device), ("find", device, "-type", "f", "-exec", "cat", "{}", "+")):
        assert "RUNNING" in run(*command).stdout
        assert read(folder / "migration_state") == "RUNNING\n"
    assert errno_of(lambda: os.open(folder / "migration_data", os.O_RDONLY)) == errno.EINVAL


def test_an_ordinary_user_moves_nothing(folder: Path) -> None:
    write(folder / "migration_state", "STOP_COPY")
    denied = "Permission denied"
    assert denied in run("cat", folder / "migration_data", user=NOBODY).stderr
    assert denied in run("sh", "-c", f"echo RUNNING > {folder}/migration_state", user=NOBODY).stderr
    assert run("cat", folder / "migration_state", user=NOBODY).stdout == "STOP_COPY\n"
    write(folder / "migration_state", "RUNNING")


def test_a_cat_is_a_snapshot(folder: Path, tmp_path: Path) -> None:
    write(folder / "migration_state", "STOP_COPY")
    assert run("sh", "-c", f"cat {folder}/migration_data > {tmp_path}/state").returncode == 0
    assert (tmp_path / "state").stat().st_size == 96
    assert read(folder / "migration_state") == "RUNNING\n"


def test_two_descriptors_are_one_lease(folder: Path) -> None:
    """Only the last close ends it, and what a dead process held is closed."""
    write(folder / "migration_state", "STOP_COPY")
    first = os.open(folder / "migration_data", os.O_RDONLY)
    assert errno_of(lambda: os.open(folder / "migration_data", os.O_RDONLY)) == errno.EBUSY
    second = os.dup(first)
    os.close(first)
    assert os.read(second, 24)
    assert read(folder / "migration_state") == "STOP_COPY\n"
    assert errno_of(lambda: os.pread(second, 4, 0)) == errno.ESPIPE
    os.close(second)
    assert read(folder / "migration_state") == "RUNNING\n"
    write(folder / "migration_state", "STOP_COPY")
    assert run("sh", "-c", f"exec 3< {folder}/migration_data; kill -9 $$").returncode == -9
    assert read(folder / "migration_state") == "RUNNING\n"


def test_fsync_says_whether_all_has_come(folder: Path, tmp_path: Path) -> None:
    write(folder / "migration_state", "STOP_COPY")
    state = (folder / "migration_data").read_bytes()
    for data, number in ((state, 0), (state[:-1], errno.EINVAL)):
        write(folder / "migration_state", "RESUMING")
        file = os.open(folder / "migration_data", os.O_WRONLY)
        os.write(file, data)
        assert errno_of(lambda: os.fsync(file)) == number  # noqa: B023 -- called at once
        assert write_errno(folder / "migration_state", "RUNNING") == number
        os.close(file)
        assert read(folder / "migration_state") == "RUNNING\n"


def test_a_session_that_is_over_answers_enodev(folder: Path) -> None:
    write(folder / "migration_state", "STOP_COPY")
    file = os.open(folder / "migration_data", os.O_RDONLY)
    write(folder / "migration_state", "STOP")
    assert errno_of(lambda: os.read(file, 4)) == errno.ENODEV
    assert errno_of(lambda: os.fsync(file)) == errno.ENODEV
    os.close(file)
    assert read(folder / "migration_state") == "STOP\n"
