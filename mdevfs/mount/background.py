"""The server in the background: the caller returns when the mount answers, or with the reason why it will not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from mdevfs.errors import EXIT_MACHINE, InputError, MachineError, MdevfsError


def detach(work: Callable[[Callable[[], None]], None]) -> None:
    """Runs `work(ready)` in a new session and returns when it calls `ready`.

    Raises what `work` raised before that (InputError or MachineError, message and exit code kept); MachineError when
    its process died without a word.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_server(work, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    if answer == b"ready":
        return
    os.waitpid(child, 0)
    if not answer:
        raise MachineError("the server died before the mount answered; run it with --foreground to see why")
    report = json.loads(answer)
    if report["exit"] == EXIT_MACHINE:
        raise MachineError(report["message"])
    raise InputError(report["message"].split("\n"))


def _be_server(work: Callable[[Callable[[], None]], None], writer: int) -> NoReturn:
    code = 0

    def ready() -> None:
        # The terminal is the caller's again; what is said from here on goes to the log.
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)
        os.write(writer, b"ready")
        os.close(writer)

    try:
        os.setsid()
        os.chdir("/")
        work(ready)
    except MdevfsError as error:
        code = error.exit_code
        _report(writer, code, str(error))
    except BaseException as error:
        code = EXIT_MACHINE
        _report(writer, code, f"the server broke: {error!r}")
    os._exit(code)


def _report(writer: int, code: int, message: str) -> None:
    try:
        os.write(writer, json.dumps({"exit": code, "message": message}).encode())
    except OSError:
        pass  # the caller heard `ready` already; the log has the rest
