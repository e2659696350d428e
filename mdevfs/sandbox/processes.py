"""Processes that belong together: what a child says to its parent, how signals and the end of one pass on."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from mdevfs.errors import EXIT_MACHINE, EXIT_USAGE, InputError, MachineError, MdevfsError
from mdevfs.sandbox.namespaces import die_with

# What a caller may send and the command should see; SIGKILL and the stop signals take their own way.
PASSED_ON = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
}
_ATTENDED = PASSED_ON | {signal.SIGCHLD}


class CommandError(MdevfsError):
    """The command cannot be started; `exit_code` is 126 (not executable) or 127 (not found), as a shell's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Word:
    """A pipe for the one thing that a child has to say: that it is ready, or why it failed."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def ready(self) -> None:
        """The child's good word."""
        os.write(self._writer, b"ready")
        os.close(self._writer)

    def failed(self, error: MdevfsError) -> None:
        """The child's bad word."""
        os.write(self._writer, json.dumps({"exit": error.exit_code, "message": str(error)}).encode())

    def hear(self) -> bool:
        """The parent's part: whether the child got ready; False when all who could say so ended without a word.

        Raises what the child failed with.
        """
        os.close(self._writer)
        with os.fdopen(self._reader, "rb") as pipe:
            answer = pipe.read()
        if answer in (b"", b"ready"):
            return bool(answer)
        report = json.loads(answer)
        code, message = report["exit"], report["message"]
        if code == EXIT_USAGE:
            raise InputError(message.split("\n"))
        raise CommandError(message, code) if code > EXIT_MACHINE else MachineError(message)


def child(work: Callable[[], int]) -> int:
    """A child that does `work`, exits with its result, and dies with its parent. Its pid.

    An exception that leaves `work` is a bug: told on standard error, exit code 125.
    """
    parent = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid == 0:
        code = 125
        try:
            die_with(parent)
            os.close(parent)
            code = work()
        except BaseException as error:
            os.write(2, f"mdevfs: {error!r}\n".encode())
        finally:
            os._exit(code)
    os.close(parent)
    return pid


def go_backstage() -> None:
    """Leaves the terminal, its signals and the caller's files to the command."""
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


@contextmanager
def signals_held() -> Iterator[set[int]]:
    """Signals wait to be passed on while this lasts; gives the mask that was, for the command to have."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ATTENDED)
    try:
        yield {int(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def attend(pid: int, vital: Collection[int] = ()) -> tuple[int, int | None]:
    """Waits, with signals held, until `pid` ends: its exit code as a shell tells it, and who of `vital` ended first.

    Reaps whoever ends. The command goes when a vital process does. A signal that somebody sent is passed on; one that
    the terminal sent has reached the command already, as it has everybody in the terminal's foreground.
    """
    missing = None
    while True:
        for ended, status in _reap():
            if ended == pid:
                return shell_code(status), missing
            if ended in vital and missing is None:
                missing = ended
                os.kill(pid, signal.SIGKILL)
        info = signal.sigwaitinfo(_ATTENDED)
        if info.si_signo != signal.SIGCHLD and info.si_code <= 0:
            os.kill(pid, info.si_signo)


def shell_code(status: int) -> int:
    """A wait status as a shell tells it: 128 + n for the signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def end(pid: int, grace: float) -> None:
    """Ends a child: asked by SIGTERM, killed after `grace` seconds. Returns when it is gone."""
    try:
        handle = os.pidfd_open(pid)
        if grace:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            select.select([handle], [], [], grace)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # ended by itself, and reaped


def _reap() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status
