"""`mdevfs run`: a command on an emulated machine, and nothing left of it.

    caller ─┬─ server       the tree; in the machine's user and network namespace, with the real /sys
            ├─ supervisor   answers statfs (see statfs.py)
            └─ init         PID 1 of the machine: builds it by the recipe, reaps, ends with the command
                ├─ udevd    systemd's, or a stand-in (see udevd.py)
                └─ command

The caller itself joins the outer namespaces. The others die with it, and all of the machine with its PID 1, so
that even SIGKILL leaves no process; the mounts live in the namespaces, and no file is written outside.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import trio
from attrs import evolve, frozen

from mdevfs.bus.core import Core
from mdevfs.control.listening import listen_at
from mdevfs.errors import InputError, MachineError, MdevfsError
from mdevfs.events.stream import Listener
from mdevfs.host.host import Host, prepare_host
from mdevfs.mount.logs import configure, event_writer
from mdevfs.mount.places import prepare
from mdevfs.mount.serve import serve as serve_tree
from mdevfs.mount.trace import Trace
from mdevfs.sandbox import namespaces, recipe, statfs, udevd
from mdevfs.sandbox.acquaint import Acquaintance
from mdevfs.sandbox.backstage import BACKSTAGE, CONTROL, RUN, STATE, TREE
from mdevfs.sandbox.dev import Placeholders, System
from mdevfs.sandbox.enter import enter
from mdevfs.sandbox.processes import CommandError, Word, attend, child, end, go_backstage, signals_held
from mdevfs.sandbox.uevents import open_sender
from mdevfs.sysfs.entries import Folder

NOT_EXECUTABLE, NOT_FOUND = 126, 127
GRACE = 3.0  # seconds for the server to unmount; its mount goes with the namespace anyway


@frozen
class Machine:
    """What to run where.

    `keep` is the directory that the private state goes to; accesses to attributes are told to the file `trace`, uevents
    to the file `events`, a JSON line each; `hermetic` makes the tree all of /sys. `statfs` is one of
    statfs.WAYS, or None: seccomp where the kernel grants it, else env; `udevd` one of udevd.WAYS, or None: real where
    it is installed, else mini. In the caller's network (`own_network` false) neither uevents nor udevd are to be had.
    """

    host: str
    command: Sequence[str]
    keep: Path | None = None
    trace: Path | None = None
    events: Path | None = None
    own_network: bool = True
    hermetic: bool = False
    statfs: str | None = None
    udevd: str | None = None


@frozen
class Told:
    """Who is told of what happens on a machine, beside the machine itself."""

    trace: Trace | None = None
    events: Listener | None = None

    @classmethod
    def by(cls, machine: Machine) -> Told:
        """The files that were asked for. Raises InputError when one cannot be opened."""
        trace = Trace(machine.trace) if machine.trace is not None else None
        return cls(trace, event_writer(machine.events) if machine.events is not None else None)


@frozen
class Helpers:
    """The processes that a machine cannot do without."""

    server: int
    supervisor: int


def run(machine: Machine) -> int:
    """Runs the command and returns its exit code, 128 + n when signal n ended it.

    The calling process must have one thread only, and stays in the machine's namespaces: it has nothing to do
    afterwards but to exit. Raises InputError (a bad host), MachineError (what the system forbids), CommandError.
    """
    machine = evolve(machine, udevd=udevd.choose(machine.udevd, machine.own_network))
    host = _host(machine.host)
    told = Told.by(machine)  # before files of this /run are out of sight
    enter(machine.own_network)
    _keepable(machine.keep)
    recipe.set_backstage(machine.keep)
    server = serve(host, told)
    try:
        acquaintance = Acquaintance()
        ours, theirs = socket.socketpair()
        device = TREE.stat().st_dev
        supervisor = child(lambda: _supervise(ours, theirs, device))
        ours.close()
        try:
            return _attend_machine(machine, theirs, Helpers(server, supervisor), acquaintance)
        finally:
            end(supervisor, 0)
    finally:
        end(server, GRACE)


def _host(name: str) -> Host:
    """The host with the directories more that the recipe mounts on. Its tree belongs to root, as all callers are."""
    host = prepare_host(name)
    host.core.furnish(_furnish)
    return host


def _furnish(core: Core) -> None:
    core.devices.adopt(System(core.devices))
    above, _, own = recipe.CGROUP.partition("/")
    folder = core.top[above]
    assert isinstance(folder, Folder)
    folder.entries[own] = Folder()


def _keepable(keep: Path | None) -> None:
    if keep is None:
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--keep {keep}: {error.strerror}") from None


def serve(host: Host, told: Told) -> int:
    """Starts the server; returns its pid when the tree is mounted on the recipe's place. Raises what it failed with."""
    word = Word()
    server = child(lambda: _serve(host, told, word))
    try:
        if not word.hear():
            raise MachineError("the server died before the mount answered")
    except MdevfsError:
        end(server, 0)
        raise
    return server


def _serve(host: Host, told: Told, word: Word) -> int:
    go_backstage()
    try:
        configure(STATE / "server.log", debug=False, foreground=False)
        sender = open_sender("auto")
        prepare(TREE)
        endpoint = listen_at(RUN / CONTROL, seen_at=BACKSTAGE / CONTROL)

        async def main() -> None:
            if told.events is not None:
                host.core.events.listeners.append(told.events)
            await host.start()
            listeners = host.core.events.listeners
            listeners.insert(0, Placeholders(host.core).send)  # before anybody else hears of it
            if sender is not None:
                listeners.append(sender.send)
            await serve_tree(host, TREE, endpoint, private=False, ready=word.ready, trace=told.trace)

        trio.run(main)
    except MdevfsError as error:
        word.failed(error)
    return 0


def _supervise(ours: socket.socket, theirs: socket.socket, device: int) -> int:
    go_backstage()
    theirs.close()
    statfs.supervise(ours, device)
    signal.pause()  # who ends is missed
    return 0


def _attend_machine(machine: Machine, channel: socket.socket, helpers: Helpers, acquaintance: Acquaintance) -> int:
    namespaces.unshare(namespaces.CLONE_NEWPID)  # for the children to come; the first of them is PID 1
    word = Word()
    with signals_held() as mask:
        init = child(lambda: _be_init(machine, channel, acquaintance, word, mask))
        channel.close()
        code, missing = attend(init, vital=(helpers.server, helpers.supervisor))
    word.hear()
    if missing is not None:
        who = "server of the emulated host" if missing == helpers.server else "process that answers statfs"
        raise MachineError(f"the {who} died, and the command with it")
    return code


def _be_init(machine: Machine, channel: socket.socket, acquaintance: Acquaintance, word: Word, mask: set[int]) -> int:
    try:
        environment = _build(machine, channel, mask)
        acquaintance.wait()
    except MdevfsError as error:
        word.failed(error)
        return 0
    except OSError as error:
        word.failed(MachineError(f"cannot build the machine: {error}"))
        return 0
    command = child(lambda: _be_command(machine.command, environment, word, mask))
    code, _ = attend(command)
    return code


def _build(machine: Machine, channel: socket.socket, mask: set[int]) -> dict[str, str]:
    """Makes the machine, up to its udevd; what the environment of its programs needs."""
    directory, umask = os.getcwd(), os.umask(0o022)
    log = os.open(STATE / "udevd.log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    namespaces.unshare(namespaces.CLONE_NEWNS)
    recipe.build(machine.hermetic)
    environment = statfs.believe(machine.statfs, channel)
    channel.close()
    assert machine.udevd is not None
    udevd.start(machine.udevd, environment, log, mask)
    os.close(log)
    os.umask(umask)
    try:
        os.chdir(directory)  # the same name, and what it means in here
    except OSError as error:
        raise InputError(f"there is no {directory} in the machine ({error.strerror}): start from another one") from None
    return environment


def _be_command(command: Sequence[str], environment: dict[str, str], word: Word, mask: set[int]) -> int:
    namespaces.prctl(namespaces.PR_SET_PDEATHSIG, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execvpe(command[0], list(command), {**os.environ, **environment})
    except FileNotFoundError:
        word.failed(CommandError(f"{command[0]}: command not found", NOT_FOUND))
    except OSError as error:
        word.failed(CommandError(f"{command[0]}: {error.strerror}", NOT_EXECUTABLE))
    return 0
