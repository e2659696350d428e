"""Links are answered by the kernel once they were read, and never with what they said in another life."""

from __future__ import annotations

import os
import platform
import signal

import pytest

from mdevfs.mount.links import SINCE
from tests.mount.conftest import Mount
from tests.mount.server import MTTY, new_uuid, run, write

TYPES = f"{MTTY}/mdev_supported_types"


def test_who_reads_a_link_again_asks_nobody(mount: Mount) -> None:
    release = tuple(int(number) for number in platform.release().split(".")[:2])
    if release < SINCE:
        pytest.skip(f"needs Linux {SINCE[0]}.{SINCE[1]}, older ones cut a link that they keep")
    server = mount("mtty")
    link = server.root / "class/mdev_bus/mtty"
    there = os.readlink(link)
    server.signal(signal.SIGSTOP)
    try:
        assert run("readlink", link).stdout.strip() == there  # times out where the server is asked
    finally:
        server.signal(signal.SIGCONT)


def test_a_name_that_comes_again_leads_where_it_leads_now(mount: Mount) -> None:
    root, name = mount("mtty").root, new_uuid(1)
    kind = root / "bus/mdev/devices" / name / "mdev_type"
    for number in (1, 2, 1, 2):
        write(root / TYPES / f"mtty-{number}/create", name)
        assert [os.readlink(kind) for _ in range(2)] == [f"../mdev_supported_types/mtty-{number}"] * 2
        write(root / MTTY / name / "remove", "1")
        with pytest.raises(FileNotFoundError):
            os.readlink(kind)
