"""Many at once: who wins, what the others are told, and that nobody sees what is no longer true."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.mount.server import LIMIT, MTTY, Server, errno_of, new_uuid, read, write, write_errno

TYPES = f"{MTTY}/mdev_supported_types"
TRIES = 200

# Says of each path that it is told whether it is there; with an argument, asks again and again on its own.
WITNESS = """
import os, sys
def there(path):
    try:
        return str(os.lstat(path).st_ino)
    except OSError as error:
        return "-" if error.errno in (2, 19) else f"errno {error.errno}"
if len(sys.argv) > 1:
    print("looks", flush=True)
    while True:
        for path in sys.argv[1:]:
            there(path)
            os.listdir(os.path.dirname(path))
for line in sys.stdin:
    print(" ".join(there(path) for path in line.split()), flush=True)
"""


def together(count: int, call: Callable[[int], int]) -> list[int]:
    """Runs `call(number)` in that many threads, which begin at once; their results."""
    barrier = threading.Barrier(count, timeout=LIMIT)

    def work(number: int) -> int:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def test_one_uuid_has_one_creator(mount: Mount) -> None:
    server = mount("mtty")
    for number in range(10):
        kinds = [server.root / TYPES / f"mtty-{1 + thread % 2}" for thread in range(8)]
        results = together(8, lambda thread: write_errno(kinds[thread] / "create", new_uuid(number)))  # noqa: B023
        assert Counter(results) == {0: 1, errno.EEXIST: 7}
        assert os.listdir(server.root / "bus/mdev/devices") == [new_uuid(number)]
        write(server.root / MTTY / new_uuid(number) / "remove", "1")


def test_three_free_places_take_three(mount: Mount) -> None:
    server = mount('[[device]]\ndriver = "mtty"\n[[device.mdev]]\ncount = 21\ntype = "mtty-1"\n')
    kind = server.root / TYPES / "mtty-1"
    for _ in range(5):
        assert read(kind / "available_instances") == "3\n"
        results = together(8, lambda thread: write_errno(kind / "create", new_uuid(thread)))
        assert Counter(results) == {0: 3, errno.ENOSPC: 5}
        made = [new_uuid(thread) for thread, result in enumerate(results) if result == 0]
        assert sorted(set(os.listdir(kind / "devices")) & {new_uuid(n) for n in range(8)}) == made
        assert read(kind / "available_instances") == "0\n"
        for uuid in made:
            write(server.root / MTTY / uuid / "remove", "1")


def test_one_mdev_is_removed_once(mount: Mount) -> None:
    server = mount("mtty")
    for number in range(10):
        write(server.root / TYPES / "mtty-1/create", new_uuid(number))
        remove = server.root / MTTY / new_uuid(number) / "remove"
        results = Counter(together(8, lambda _: write_errno(remove, "1")))  # noqa: B023
        assert results[0] == 1
        assert results[errno.ENODEV] + results[errno.ENOENT] == 7


@contextmanager
def witness(*paths: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WITNESS, *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[str], paths: list[Path]) -> list[str]:
    """What another process sees at these paths: "-" for nothing, else an inode's number."""
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write(" ".join(map(str, paths)) + "\n")
    stdin.flush()
    return stdout.readline().split()


def aliases(server: Server, uuid: str, group: str) -> list[Path]:
    """Every path by which an mdev can be seen, and one file below each."""
    root = server.root
    paths = [
        root / MTTY / uuid,
        root / "bus/mdev/devices" / uuid,
        root / TYPES / "mtty-1/devices" / uuid,
        root / "bus/mdev/drivers/mtty" / uuid,
        root / "kernel/iommu_groups" / group / "devices" / uuid,
    ]
    return [*paths, root / "kernel/iommu_groups" / group, *(path / "mdev_type/name" for path in paths)]


@pytest.mark.parametrize("watched", [False, True], ids=["quiet", "watched"])
def test_nobody_sees_the_old_state(mount: Mount, watched: bool) -> None:
    """By any path, from this process or another, once the write has returned; `watched`: while others look there all
    the time, so that the kernel is about to learn of a name when the name goes."""
    server = mount("mtty")
    uuid, create = new_uuid(1), server.root / TYPES / "mtty-1/create"
    links = [server.root / directory for directory in (MTTY, "bus/mdev/devices", "bus/mdev/drivers/mtty")]
    counts = server.root / MTTY
    write(create, uuid)
    group = os.path.basename(os.readlink(server.root / MTTY / uuid / "iommu_group"))
    write(server.root / MTTY / uuid / "remove", "1")
    paths, before = aliases(server, uuid, group), counts.stat().st_nlink
    with witness() as other, witness(*(paths[:5] if watched else ())) as looker:
        if watched:
            assert looker.stdout is not None
            assert looker.stdout.readline() == "looks\n"
        for _ in range(TRIES):
            write(create, uuid)
            seen = ask(other, paths)
            assert "-" not in seen
            assert [str(path.lstat().st_ino) for path in paths] == seen
            assert [path for path in links if uuid not in os.listdir(path)] == []
            assert counts.stat().st_nlink == before + 1
            write(server.root / MTTY / uuid / "remove", "1")
            assert ask(other, paths) == ["-"] * len(paths)
            assert [path for path in paths if errno_of(path.lstat) == 0] == []
            assert [path for path in links if uuid in os.listdir(path)] == []
            assert counts.stat().st_nlink == before


def test_a_name_that_comes_again_is_another_file(mount: Mount) -> None:
    """What was opened before belongs to the mdev that is gone."""
    server = mount("mtty")
    uuid = new_uuid(1)
    write(server.root / TYPES / "mtty-1/create", uuid)
    old = os.open(server.root / MTTY / uuid / "remove", os.O_WRONLY)
    write(server.root / MTTY / uuid / "remove", "1")
    write(server.root / TYPES / "mtty-2/create", uuid)
    assert errno_of(lambda: os.write(old, b"1")) == errno.ENODEV
    os.close(old)
    assert os.path.basename(os.readlink(server.root / MTTY / uuid / "mdev_type")) == "mtty-2"


def test_listing_while_others_create_and_remove(mount: Mount, place: Path) -> None:
    """No name twice, and none skipped that was there throughout, however many calls the listing takes."""
    host = '[[device]]\ndriver = "many"\n[[device.mdev]]\ncount = 100\ntype = "many-a"\n'
    driver = (
        "from mdevfs.vendor import MdevType, VendorDriver\n"
        "class Many(VendorDriver):\n    api = 1\n    name = 'many'\n    types = [MdevType('a')]\n"
    )
    (place / "many.py").write_text(driver)
    server = mount('[host]\ndrivers = ["many.py"]\n' + host)
    devices, parent = server.root / "bus/mdev/devices", server.root / "devices/virtual/many/many"
    lasting, stop = set(os.listdir(devices)), threading.Event()
    assert len(lasting) == 100

    def churn(base: int) -> int:
        rounds = 0
        while not stop.is_set():
            for number in range(base, base + 5):
                write(parent / "mdev_supported_types/many-a/create", new_uuid(number))
            for number in range(base, base + 5):
                write(parent / new_uuid(number) / "remove", "1")
            rounds += 1
        return rounds

    with ThreadPoolExecutor(2) as pool:
        churners = [pool.submit(churn, base) for base in (1000, 2000)]
        try:
            for _ in range(40):
                names = os.listdir(devices)
                assert len(names) == len(set(names))
                assert lasting <= set(names)
        finally:
            stop.set()
        assert all(churner.result(LIMIT) > 0 for churner in churners)


def test_a_signal_ends_it_while_many_work_in_it(mount: Mount) -> None:
    server = mount("mtty")
    begun = threading.Barrier(9, timeout=LIMIT)

    def work(number: int) -> int:
        kind, failed = server.root / TYPES / "mtty-1", 0
        for turn in range(1_000_000):
            if turn == 3:
                begun.wait()
            failed = write_errno(kind / "create", new_uuid(number))
            failed = failed or errno_of(lambda: os.listdir(server.root / "bus/mdev/devices"))
            failed = failed or write_errno(server.root / MTTY / new_uuid(number) / "remove", "1")
            if failed:
                break
        return failed

    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(work, number) for number in range(8)]
        begun.wait()
        server.end()
        gone = {errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT, errno.EINTR}
        assert {worker.result(LIMIT) for worker in workers} <= gone
