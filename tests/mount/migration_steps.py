"""Migrations that something happens to, between two of their steps: forked off one process, as each is soon over.

A line of JSON on standard input: {"step": N, "action": [...], "arguments": [...]}; one on standard output: {"code",
"output"}. A step is a call of `mdevfs.client.device.Moving`, its begin or its end. The action comes before step N:
["signal", NUMBER, "itself", "twin" or a PID], ["write", PATH, TEXT], ["die", SECONDS later, wherever it is then].
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mdevfs.cli.migrate
import mdevfs.client.twin
from mdevfs.cli.main import run
from mdevfs.client.device import Moving

STEPS = ("move", "open_data", "read", "write", "sync")


class Steps:
    """Counts to the step, in the process that began."""

    def __init__(self, left: int, action: list[Any]) -> None:
        self.left = left
        self.action = action
        self.pid = os.getpid()

    def pass_one(self) -> None:
        if os.getpid() != self.pid:
            return
        if self.left == 0:
            self._act(*self.action)
        self.left -= 1

    def _act(self, what: str, *arguments: Any) -> None:
        if what == "signal":
            number, pid = arguments
            if pid == "twin":
                for one in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                    _signal(number, int(one))
            elif pid == "itself":
                os.kill(self.pid, number)
            else:
                _signal(number, pid)
        elif what == "die":
            signal.setitimer(signal.ITIMER_REAL, *arguments)  # nobody handles SIGALRM
        elif what == "write":
            path, text = arguments
            descriptor = os.open(path, os.O_WRONLY)
            os.write(descriptor, text.encode())
            os.close(descriptor)

    def wrap(self, method: Callable[..., object]) -> Callable[..., object]:
        def stepped(*arguments: object, **options: object) -> object:
            self.pass_one()
            result = method(*arguments, **options)
            self.pass_one()
            return result

        return stepped


def _signal(number: int, pid: int) -> None:
    """Sends it, and waits for the end."""
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, number)
    select.select([process], [], [])
    os.close(process)


def child(request: dict[str, Any], output: int) -> None:
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    steps = Steps(request["step"], request["action"])
    for name in STEPS:
        setattr(Moving, name, steps.wrap(getattr(Moving, name)))
    code = run(["migrate", *request["arguments"]])
    sys.stdout.flush()
    os._exit(code)


def serve(line: str) -> dict[str, object]:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        child(json.loads(line), writer)
    os.close(writer)
    with os.fdopen(reader) as stream:  # until the last process is gone, the twin too
        output = stream.read()
    return {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "output": output}


assert mdevfs.cli.migrate.app is not None and mdevfs.client.twin is not None  # imported once, for all
for line in sys.stdin:
    sys.stdout.write(json.dumps(serve(line)) + "\n")
    sys.stdout.flush()
