"""The process behind a host of a test: it is there before the test goes on, and gone whatever becomes of the test."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

from mdevfs.errors import EXIT_USAGE, InputError, MachineError
from mdevfs.mount.places import mounted_at, unmount

COMMAND = (sys.executable, "-P", "-m", "mdevfs")
START = 60.0  # seconds in which the mount answers, on a very busy machine
END = 10.0  # seconds that the server gets to unmount


class Server:
    """`mdevfs mount` of one host, below `place`; it ends with this process, however that ends (`--until-eof`)."""

    def __init__(self, host: str, place: Path) -> None:
        self.root = place / "sys"
        self.root.mkdir()
        self.events, self.trace = place / "events", place / "trace"
        self._log, self._errors = place / "log", place / "errors"
        self._ended = False
        files = ("--log-file", self._log, "--events", self.events, "--trace", self.trace)
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        with ready, self._errors.open("wb") as errors:
            ready.bind("")  # the kernel chooses an abstract name
            environment = {**os.environ, "NOTIFY_SOCKET": "@" + ready.getsockname()[1:].decode()}
            self._process = subprocess.Popen(
                [*COMMAND, "mount", "--foreground", "--until-eof", *files, "--uevents", "none", host, self.root],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                env=environment,
                cwd="/",
            )
            try:
                self._wait(ready)
            except BaseException:
                self.end()
                raise

    def _wait(self, ready: socket.socket) -> None:
        end = os.pidfd_open(self._process.pid)
        try:
            readable, _, _ = select.select([ready.fileno(), end], [], [], START)
        finally:
            os.close(end)
        if ready.fileno() in readable:
            return
        if not readable:
            raise MachineError(f"the mount does not answer after {START:g} s\n{self.log}")
        code, told = self._process.wait(), self._errors.read_text(errors="backslashreplace")
        lines = [line.removeprefix("mdevfs: ") for line in told.splitlines()] or [f"the server ended with {code}"]
        raise InputError(lines) if code == EXIT_USAGE else MachineError("\n".join(lines))

    @property
    def log(self) -> str:
        """What it logged, then what it wrote to standard error."""
        files = (path for path in (self._log, self._errors) if path.exists())
        return "".join(path.read_text(errors="backslashreplace") for path in files)

    def end(self) -> int | None:
        """Ends it, and leaves nothing mounted; the exit code, if it had ended by itself."""
        if self._ended:
            return None
        self._ended, before = True, self._process.poll()
        try:
            if before is None:
                self._process.terminate()
                self._process.wait(END)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            if (there := mounted_at(self.root)) is not None and there.ours:
                unmount(self.root, lazy=True)
        return before
