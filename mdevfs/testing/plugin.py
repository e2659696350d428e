"""The pytest plug-in `mdevfs`: the fixtures `mdevfs_host` and `mdevfs_run`.

It imports nothing of mdevfs before a test asks for one of them, and keeps no state but on the test's own item, so that
it costs a run without them nothing, and works in every process of pytest-xdist.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from mdevfs.testing.describe import Description
    from mdevfs.testing.host import HostFactory, MountedHost
    from mdevfs.testing.machine import Ended, MachineRunner
    from mdevfs.testing.server import Server

UNAVAILABLE = "mdevfs_unavailable"
TOLD = 200  # lines of a log that a report gives
LOGS = pytest.StashKey[list[tuple[str, Callable[[], str]]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        UNAVAILABLE,
        "what becomes of a test that needs a host where the machine cannot mount one (no /dev/fuse): error or skip",
        default="error",
    )


@pytest.fixture
def mdevfs_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostFactory]:
    """Mounts emulated hosts for this test: mdevfs_host("nvidia-t4").root is what /sys is on such a machine.

    Takes a shipped host's name, a file's path, a host.toml's text or the same as a dict. What it gives has create,
    check, events, wait, fault, control and accesses; see `mdevfs.testing.host.MountedHost`.
    """
    from mdevfs.errors import MachineError
    from mdevfs.testing.describe import as_file
    from mdevfs.testing.host import MountedHost
    from mdevfs.testing.server import Server

    servers: list[Server] = []

    def make(host: Description = "mtty") -> MountedHost:
        place = tmp_path_factory.mktemp("mdevfs")
        name = as_file(host, request.path.parent, place)
        try:
            server = Server(name, place)
        except MachineError as error:
            _unavailable(request, str(error))
        servers.append(server)
        _attach(request, f"mdevfs mount {name}", lambda: server.log)
        return MountedHost(server)

    yield make
    with ExitStack() as stack:
        for server in servers:
            stack.callback(_end, server)


def _end(server: Server) -> None:
    if code := server.end():
        pytest.fail(f"the server of a host ended by itself, with {code}:\n{_last(server.log)}", pytrace=False)


@pytest.fixture
def mdevfs_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MachineRunner:
    """Runs a command on an emulated machine of its own: mdevfs_run("nvidia-t4", ["mdevctl", "types"]).

    Gives the subprocess.CompletedProcess, with accesses and events; see `mdevfs.testing.machine.MachineRunner`.
    """
    from mdevfs.errors import MachineError
    from mdevfs.testing.describe import as_file
    from mdevfs.testing.machine import run

    def call(
        host: Description,
        command: Sequence[str | os.PathLike[str]],
        *,
        options: Sequence[str] = (),
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        timeout: float = 60.0,
    ) -> Ended:
        place = tmp_path_factory.mktemp("mdevfs")
        name, log = as_file(host, request.path.parent, place), place / "server.log"
        _attach(request, f"mdevfs run {name}", lambda: log.read_text() if log.exists() else "")
        try:
            return run(name, command, place, options=options, input=input, env=env, cwd=cwd, timeout=timeout)
        except MachineError as error:
            _unavailable(request, str(error))

    return call


def _unavailable(request: pytest.FixtureRequest, why: str) -> NoReturn:
    """An error unless the user prefers a skip: tests that silently test nothing are the worse surprise in a CI."""
    chosen = str(request.config.getini(UNAVAILABLE))
    if chosen == "skip":
        pytest.skip(f"mdevfs: {why}")
    hint = f"to skip such tests: {UNAVAILABLE} = skip"
    if chosen != "error":
        hint = f'{UNAVAILABLE} = "{chosen}" is unknown: error or skip'
    pytest.fail(f"mdevfs: {why}\n({hint})", pytrace=False)


def _attach(request: pytest.FixtureRequest, title: str, log: Callable[[], str]) -> None:
    request.node.stash.setdefault(LOGS, []).append((title, log))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing test's report has the logs of its hosts."""
    report = yield
    if report.failed:
        for title, log in item.stash.get(LOGS, []):
            report.sections.append((title, _last(log()) or "(nothing was logged)"))
    return report


def _last(log: str) -> str:
    return "\n".join(log.splitlines()[-TOLD:])
