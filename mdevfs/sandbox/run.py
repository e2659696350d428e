"""`mdevfs run`: a command on an emulated machine, and nothing left of it.

    caller ─┬─ server       the tree; in the machine's user and network namespace, with the real /sys
            ├─ supervisor   answers statfs (see statfs.py)
            └─ init         PID 1 of the machine: builds it by the recipe, reaps, ends with the command
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
from attrs import frozen

from mdevfs.bus.kobject import Kobject
from mdevfs.errors import InputError, MachineError, MdevfsError
from mdevfs.host.host import Host, prepare_host
from mdevfs.mount.logs import configure
from mdevfs.mount.places import prepare
from mdevfs.mount.serve import serve as serve_tree
from mdevfs.sandbox import namespaces, recipe, statfs
from mdevfs.sandbox.processes import CommandError, Word, attend, child, end, go_backstage, signals_held
from mdevfs.sandbox.uevents import open_sender

STATFS_WAYS = ("seccomp", "env", "none")
NOT_EXECUTABLE, NOT_FOUND = 126, 127
GRACE = 3.0  # seconds for the server to unmount; its mount goes with the namespace anyway


@frozen
class Machine:
    """What to run where. `statfs` is one of STATFS_WAYS, or None: seccomp where the kernel grants it, else env."""

    host: str
    command: Sequence[str]
    keep: Path | None = None
    own_network: bool = True
    statfs: str | None = None


def run(machine: Machine) -> int:
    """Runs the command and returns its exit code, 128 + n when signal n ended it.

    The calling process must have one thread only, and stays in the machine's namespaces: it has nothing to do
    afterwards but to exit. Raises InputError (a bad host), MachineError (what the system forbids), CommandError.
    """
    host = _host(machine.host)
    _keepable(machine.keep)
    enter(machine.own_network)
    recipe.set_backstage(machine.keep)
    helpers = [serve(host)]
    try:
        ours, theirs = socket.socketpair()
        device = recipe.TREE.stat().st_dev
        helpers.append(child(lambda: _supervise(ours, theirs, device)))
        ours.close()
        return _attend_machine(machine, theirs, helpers[0])
    finally:
        for helper, grace in zip(helpers, (GRACE, 0), strict=False):
            end(helper, grace)


def _host(name: str) -> Host:
    """The host with the one directory more that the recipe mounts on. Its tree belongs to root, as all callers are."""
    host = prepare_host(name)
    above, _, own = recipe.REAL.rpartition("/")
    assert above == host.core.devices.path
    host.core.devices.adopt(Kobject(own, host.core.devices, 0))
    return host


def _keepable(keep: Path | None) -> None:
    if keep is None:
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--keep {keep}: {error.strerror}") from None


def enter(own_network: bool) -> None:
    """Moves this process into a user, a mount and, if asked, a network namespace of its own."""
    uid, gid, me = os.geteuid(), os.getegid(), os.getpid()
    start, started = os.pipe()
    word = Word()

    def map_ids() -> int:  # root's maps are written from the namespace above
        os.close(started)
        if os.read(start, 1):
            try:
                namespaces.map_ids(me, uid, gid)
                word.ready()
            except MdevfsError as error:
                word.failed(error)
        return 0

    mapper = child(map_ids)
    try:
        network = namespaces.CLONE_NEWNET if own_network else 0
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS | network)
        namespaces.prctl(namespaces.PR_SET_DUMPABLE, 1)  # else /proc/<pid>/uid_map is not the mapper's to write
        os.write(started, b"x")
    finally:
        os.close(started)
        os.close(start)
        try:
            mapped = word.hear()
        finally:
            os.waitpid(mapper, 0)
    if not mapped:
        raise MachineError("nobody wrote the user id maps: the process for it was killed")
    if own_network:
        namespaces.raise_loopback()


def serve(host: Host) -> int:
    """Starts the server; returns its pid when the tree is mounted on the recipe's place. Raises what it failed with."""
    word = Word()
    server = child(lambda: _serve(host, word))
    try:
        if not word.hear():
            raise MachineError("the server died before the mount answered")
    except MdevfsError:
        end(server, 0)
        raise
    return server


def _serve(host: Host, word: Word) -> int:
    async def main() -> None:
        await host.start()
        await serve_tree(host, recipe.TREE, private=False, ready=word.ready)

    go_backstage()
    try:
        configure(recipe.STATE / "server.log", debug=False, foreground=False)
        prepare(recipe.TREE)
        if (sender := open_sender("auto")) is not None:
            host.core.events.listeners.append(sender.send)
        trio.run(main)
    except MdevfsError as error:
        word.failed(error)
    return 0


def _supervise(ours: socket.socket, theirs: socket.socket, device: int) -> int:
    go_backstage()
    theirs.close()
    statfs.supervise(ours, device)
    return 0


def _attend_machine(machine: Machine, channel: socket.socket, server: int) -> int:
    namespaces.unshare(namespaces.CLONE_NEWPID)  # for the children to come; the first of them is PID 1
    word = Word()
    with signals_held() as mask:
        init = child(lambda: _be_init(machine, channel, word, mask))
        channel.close()
        code, served = attend(init, vital=server)
    word.hear()
    if not served:
        raise MachineError("the server of the emulated host died, and the command with it")
    return code


def _be_init(machine: Machine, channel: socket.socket, word: Word, mask: set[int]) -> int:
    try:
        directory = os.getcwd()
        umask = os.umask(0o022)
        namespaces.unshare(namespaces.CLONE_NEWNS)
        recipe.build()
        os.umask(umask)
        os.chdir(directory)  # the same name, and what it means in here
    except MdevfsError as error:
        word.failed(error)
        return 0
    except OSError as error:
        word.failed(MachineError(f"cannot build the machine: {error}"))
        return 0
    command = child(lambda: _be_command(machine, channel, word, mask))
    channel.close()
    code, _ = attend(command)
    return code


def _be_command(machine: Machine, channel: socket.socket, word: Word, mask: set[int]) -> int:
    try:
        environment = {**os.environ, **_believe(machine.statfs, channel)}
        channel.close()
        namespaces.prctl(namespaces.PR_SET_PDEATHSIG, 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvpe(machine.command[0], list(machine.command), environment)
    except FileNotFoundError:
        word.failed(CommandError(f"{machine.command[0]}: command not found", NOT_FOUND))
    except OSError as error:
        word.failed(CommandError(f"{machine.command[0]}: {error.strerror}", NOT_EXECUTABLE))
    except MdevfsError as error:
        word.failed(error)
    return 0


def _believe(way: str | None, channel: socket.socket) -> dict[str, str]:
    """Makes libudev believe in the tree; what the command's environment needs for it. Raises MachineError."""
    if way == "none":
        return {}
    if way == "env":
        return statfs.FALLBACK
    try:
        listener = statfs.install()
    except OSError as error:
        if way is None:
            return statfs.FALLBACK
        raise MachineError(
            f"--statfs=seccomp: the kernel grants no seccomp listener here: {error.strerror}; use --statfs=env"
        ) from None
    socket.send_fds(channel, [b"x"], [listener])
    os.close(listener)
    return {}
