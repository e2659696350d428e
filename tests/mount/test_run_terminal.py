"""`mdevfs run` on a terminal: the keys reach the command as on any other terminal, and a shell is a shell."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from attrs import define

from tests.mount.conftest import why_not
from tests.mount.server import LIMIT, MDEVFS

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

CTRL_C, CTRL_Z = b"\x03", b"\x1a"


@define
class Terminal:
    """A process on a terminal of its own, and what it printed after what was waited for last."""

    process: subprocess.Popen[bytes]
    master: int
    text: bytes = b""

    def until(self, wanted: bytes) -> None:
        """Reads until this was printed."""
        while wanted not in self.text:
            assert select.select([self.master], [], [], LIMIT)[0], f"{wanted!r} is not in {self.text!r}"
            self.text += os.read(self.master, 4096)
        self.text = self.text.partition(wanted)[2]

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def exit_code(self) -> int:
        return self.process.wait(LIMIT)


Begin = Callable[..., Terminal]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts `mdevfs run` with these arguments on a terminal of its own."""
    made: list[Terminal] = []

    def start(*arguments: str, shell: str = "/bin/sh") -> Terminal:
        master, slave = pty.openpty()
        environment = {**os.environ, "SHELL": shell, "LC_ALL": "C", "TERM": "dumb"}
        command = ("setsid", "--ctty", str(MDEVFS), "run", "--udevd=none", *arguments)
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        made.append(Terminal(process, master))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()
        os.close(one.master)


COUNTING = """
import signal
signal.signal(signal.SIGINT, lambda *_: print("caught", flush=True))
print("up", flush=True)
print("<" + input() + ">", flush=True)
raise SystemExit(5)
"""


def test_ctrl_c_reaches_the_command_once(begin: Begin) -> None:
    terminal = begin("mtty", "--", sys.executable, "-c", COUNTING)
    terminal.until(b"up")
    terminal.type(CTRL_C)
    terminal.until(b"caught")
    terminal.type(b"on\n")
    terminal.until(b"on")  # its echo
    terminal.until(b"<on>")
    assert terminal.exit_code() == 5
    assert b"caught" not in terminal.text


def test_ctrl_c_ends_a_command_that_does_nothing_about_it(begin: Begin) -> None:
    terminal = begin("mtty", "--", "sh", "-c", "echo up; exec sleep 4711")
    terminal.until(b"up")
    terminal.type(CTRL_C)
    assert terminal.exit_code() == 128 + signal.SIGINT


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_shell_where_there_is_no_command(begin: Begin) -> None:
    """With its terminal by name, and job control."""
    terminal = begin("mtty", shell=shutil.which("bash") or "")
    terminal.type(b"PS1='ready> '; set +o emacs; tty; ls /sys/class/mdev_bus\n")
    terminal.until(b"/dev/console")
    terminal.until(b"mtty")
    terminal.until(b"ready> ")
    terminal.type(b"sh -c 'echo begun; exec sleep 4711'\n")
    terminal.until(b"\nbegun")
    terminal.type(CTRL_Z)
    terminal.until(b"Stopped")
    terminal.type(b"kill %1; fg\n")
    terminal.until(b"Terminated")
    terminal.type(b"exit 7\n")
    assert terminal.exit_code() == 7
