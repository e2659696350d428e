"""Hosts on real mounts: started, watched and reaped, whatever a test does to them."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.mount.faulty import HOST
from tests.mount.server import Server, check_invariants, mounts, start

MakeRoot = Callable[[], Path]
Mount = Callable[..., Server]


def why_not() -> str | None:
    """What this machine lacks to mount hosts, None when nothing."""
    if os.geteuid() != 0:
        return "needs root to mount hosts for all users"
    if not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse to mount hosts"
    return None


@contextmanager
def new_place() -> Iterator[Path]:
    """A new directory that every user can reach, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="mdevfs-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name).resolve()


@contextmanager
def roots(place: Path) -> Iterator[MakeRoot]:
    """Makes empty directories to mount on; whatever is mounted there at the end is detached."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    made: list[Path] = []

    def make() -> Path:
        made.append(place / f"sys{len(made)}")
        made[-1].mkdir()
        return made[-1]

    yield make
    for root in made:
        while mounts(root):
            subprocess.run(["umount", "--lazy", root], check=True)


@contextmanager
def hosts(place: Path, make_root: MakeRoot, *, tracebacks: bool = False) -> Iterator[Mount]:
    """Mounts hosts: `mount(host, *options, root=None, prefix=())`, the host a shipped name, a path, or TOML text.

    At the end every server must still be alive, serve a tree in which the invariants hold, have logged no traceback
    unless `tracebacks`, and end with exit code 0 and nothing mounted. A test may end them itself before that.
    """
    servers: list[Server] = []
    numbers = itertools.count()

    def make(host: str | Path, *options: str | Path, root: Path | None = None, prefix: tuple[str, ...] = ()) -> Server:
        number = next(numbers)
        if isinstance(host, str) and "\n" in host:
            toml, host = host, place / f"host{number}.toml"
            host.write_text(toml)
        server = start(host, root or make_root(), options, place / f"log{number}", prefix)
        servers.append(server)
        return server

    yield make
    with ExitStack() as stack:
        for server in servers:
            stack.callback(_reap, server)
        for server in servers:
            if server.process.poll() is None:
                if os.access(server.root, os.R_OK):
                    check_invariants(server.root)
                server.end()
            assert tracebacks or "Traceback" not in server.log, server.log


@pytest.fixture
def place() -> Iterator[Path]:
    """A new directory that every user can reach."""
    with new_place() as place:
        yield place


@pytest.fixture
def make_root(place: Path) -> Iterator[MakeRoot]:
    """See `roots`."""
    with roots(place) as make:
        yield make


@pytest.fixture
def expected_tracebacks() -> None:
    """Asking for it permits tracebacks in a server's log."""


@pytest.fixture
def mount(request: pytest.FixtureRequest, place: Path, make_root: MakeRoot) -> Iterator[Mount]:
    """See `hosts`; tracebacks are permitted where the test asks for `expected_tracebacks`."""
    with hosts(place, make_root, tracebacks="expected_tracebacks" in request.fixturenames) as make:
        yield make


@pytest.fixture
def faulty(mount: Mount, place: Path, expected_tracebacks: None) -> Callable[[str], Server]:
    """Mounts a host with the driver of this text; next to it lies the FIFO that its hooks may wait for."""

    def make(text: str) -> Server:
        os.mkfifo(place / "fifo")
        (place / "driver.py").write_text(text)
        server = mount(HOST)
        server.news()
        return server

    return make


def _reap(server: Server) -> None:
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()
