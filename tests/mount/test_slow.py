"""Vendor drivers that take their time: the rest of the tree goes on, and the log says who was slow."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.faulty import PARENT, TYPES, driver, entries
from tests.mount.server import LIMIT, Server, errno_of, new_uuid, read, run, write, write_errno

SLOW = """\
types = [MdevType('a'), MdevType('b')]

def wait(self):
    with FIFO.open() as fifo:
        return fifo.read()

@show('vendor/quick')
def quick(self, mdev): return 'quick\\n'
"""
WAITING = {
    "show": "@show('vendor/held')\n@blocking\ndef held(self, mdev): return self.wait()",
    "store": "@store('vendor/held')\n@blocking\ndef held(self, mdev, data): self.wait()",
    "probe": "@blocking\ndef probe(self, mdev):\n    if mdev.uuid.endswith('2'): self.wait()",
    "remove": "@blocking\ndef remove(self, mdev):\n    if mdev.uuid.endswith('2'): self.wait()",
    "available": "@blocking\ndef available(self, type): self.wait(); return 3",
    "migration_string": "@blocking\ndef migration_string(self, device): self.wait(); return 'x'",
    "check": "def migration_string(self, device): return 'x'\n"
    "@blocking\ndef check(self, device, source): self.wait(); return Verdict()",
}


def begin(server: Server, hook: str) -> Callable[[], object]:
    """The client's call that ends up in this hook."""
    kind, mdevs = server.root / TYPES / "faulty-a", server.root / PARENT
    held = mdevs / new_uuid(1) / "vendor/held"
    calls: dict[str, Callable[[], object]] = {
        "show": lambda: read(held),
        "store": lambda: write(held, "1"),
        "probe": lambda: write(kind / "create", new_uuid(2)),
        "remove": lambda: write(mdevs / new_uuid(2) / "remove", "1"),
        "available": lambda: read(kind / "available_instances"),
        "migration_string": lambda: read(kind / "migration_version"),
        "check": lambda: write(kind / "migration_version", "x"),
    }
    return calls[hook]


@contextmanager
def held(place: Path, call: Callable[[], object]) -> Iterator[Future[object]]:
    """Runs `call` in a thread; inside, its hook waits. Afterwards the hook has got the text "done" and has ended."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        with open(place / "fifo", "w") as fifo:  # opens once the hook reads
            yield future
            assert not future.done()
            fifo.write("done\n")
        future.result(LIMIT)


def slowest(path: Path, seconds: float) -> float:
    """Reads an attribute again and again for that long; the longest time that one reading took, in seconds, but for
    one in twenty, which a busy machine may hold up."""
    times, end = [], time.monotonic() + seconds
    with ThreadPoolExecutor(1) as reader:
        while (before := time.monotonic()) < end:
            assert reader.submit(read, path).result(LIMIT) == "quick\n"
            times.append(time.monotonic() - before)
    return sorted(times)[len(times) * 95 // 100]


def test_the_tree_answers_while_a_hook_takes_long(faulty: Callable[[str], Server], place: Path) -> None:
    server = faulty(driver(SLOW, WAITING["show"]))
    write(server.root / TYPES / "faulty-a/create", new_uuid(1))
    with held(place, begin(server, "show")) as waiting:
        assert slowest(server.root / PARENT / new_uuid(1) / "vendor/quick", 1.2) < 0.1
    assert waiting.result() == "done\n"
    told = entries(server)
    assert len(told) == 1
    assert re.search(rf"driver faulty: show of {PARENT}/{new_uuid(1)}/vendor/held took 1\.\d s", told[0])


def test_an_inline_hook_that_takes_long_is_told_as_well(faulty: Callable[[str], Server]) -> None:
    body = "import time; end = time.monotonic() + 1.05\n    while time.monotonic() < end: pass\n    return 'text'"
    server = faulty(driver("types = [MdevType('a')]", f"@show('busy', of='type')\ndef busy(self, type):\n    {body}"))
    assert read(server.root / TYPES / "faulty-a/busy") == "text"
    told = entries(server)
    assert len(told) == 1
    assert f"driver faulty: show of {TYPES}/faulty-a/busy took 1." in told[0]


@pytest.mark.parametrize("hook", WAITING)
def test_every_hook_may_be_declared_blocking(faulty: Callable[[str], Server], place: Path, hook: str) -> None:
    server = faulty(driver(SLOW, WAITING[hook]))
    kind, other, mdevs = server.root / TYPES / "faulty-a", server.root / TYPES / "faulty-b", server.root / PARENT
    if hook == "available":  # a creation asks it as well
        with held(place, lambda: write(kind / "create", new_uuid(1))):
            assert run("cat", kind / "device_api").stdout == "vfio-pci\n"
    else:
        write(kind / "create", new_uuid(1))
    if hook == "remove":
        write(kind / "create", new_uuid(2))
    with held(place, begin(server, hook)):
        assert run("cat", mdevs / new_uuid(1) / "vendor/quick").stdout == "quick\n"
        if hook == "probe":
            assert not (mdevs / new_uuid(2)).exists()
        if hook in ("probe", "remove"):  # the kernel lets nobody write to the same file of a FUSE mount meanwhile
            assert write_errno(other / "create", new_uuid(2)) == errno.EEXIST
            assert write_errno(mdevs / new_uuid(2) / "remove", "1") in (errno.ENOENT, errno.ENODEV)
    assert (mdevs / new_uuid(2)).exists() == (hook == "probe")


def test_creations_that_wait_for_available_do_not_overbook(faulty: Callable[[str], Server], place: Path) -> None:
    """Two ask at once, while the driver still counts one free place."""
    text = "@blocking\ndef available(self, type): free = 1 - type.parent.used; self.wait(); return free"
    server = faulty(driver(SLOW, text))
    kind, other = server.root / TYPES / "faulty-a", server.root / TYPES / "faulty-b"
    with ThreadPoolExecutor(1) as pool:
        with held(place, lambda: write(kind / "create", new_uuid(1))):
            second = pool.submit(write_errno, other / "create", new_uuid(2))
        with open(place / "fifo", "w") as fifo:
            fifo.write("done\n")
        assert second.result(LIMIT) == errno.ENOSPC
    assert os.listdir(server.root / "bus/mdev/devices") == [new_uuid(1)]


def test_many_held_calls_do_not_stop_creations(faulty: Callable[[str], Server], place: Path) -> None:
    """More than there are worker threads: a creation needs none of them."""
    body = "with FIFO.open('rb', buffering=0) as fifo: return fifo.read(1)"
    server = faulty(driver(SLOW, f"@show('vendor/held')\n@blocking\ndef held(self, mdev):\n    {body}"))
    kind = server.root / TYPES / "faulty-a"
    write(kind / "create", new_uuid(1))
    attribute, calls = server.root / PARENT / new_uuid(1) / "vendor/held", 60
    fifo = os.open(place / "fifo", os.O_RDWR)
    with ThreadPoolExecutor(calls) as pool:
        readers = [pool.submit(read, attribute) for _ in range(calls)]
        for number in range(2, 6):
            assert run("sh", "-c", 'echo "$0" > "$1/create"', new_uuid(number), kind).returncode == 0
            assert run("sh", "-c", 'echo 1 > "$0/remove"', server.root / PARENT / new_uuid(number)).returncode == 0
        assert not any(reader.done() for reader in readers)
        assert os.write(fifo, b"x" * calls) == calls
        assert [reader.result(LIMIT) for reader in readers] == ["x"] * calls
    os.close(fifo)


def test_a_held_call_does_not_keep_the_server_from_ending(faulty: Callable[[str], Server], place: Path) -> None:
    server = faulty(driver(SLOW, WAITING["show"]))
    write(server.root / TYPES / "faulty-a/create", new_uuid(1))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(errno_of, begin(server, "show"))
        with open(place / "fifo", "w"):
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert future.result(LIMIT) != 0
