"""Where the server logs: a file, the terminal, or syslog for a server in the background."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import sys
from pathlib import Path
from typing import TextIO

from mdevfs.control.protocol import to_line
from mdevfs.errors import InputError
from mdevfs.events import Event
from mdevfs.events.stream import Listener

log = logging.getLogger("mdevfs.mount")

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Formatter(logging.Formatter):
    """Escapes control characters, wherever they come from: an exception's text may quote what somebody wrote."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_CONTROLS)


def configure(log_file: Path | None, debug: bool, foreground: bool) -> None:
    """Sets the process's logging up once. Raises InputError when `log_file` cannot be opened."""
    logger = logging.getLogger("mdevfs")
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    handlers: list[logging.Handler] = []
    if log_file is not None:
        try:
            handlers.append(logging.FileHandler(log_file))
        except OSError as error:
            raise InputError(f"--log-file {log_file}: {error.strerror}") from None
    elif not foreground and Path("/dev/log").is_socket():
        handlers.append(logging.handlers.SysLogHandler("/dev/log"))
    if foreground and log_file is None:
        handlers.append(logging.StreamHandler())
    elif not foreground:
        # Until the mount answers, warnings about the host belong to whoever waits at the terminal.
        terminal = logging.StreamHandler()
        terminal.setLevel(logging.WARNING)
        handlers.append(terminal)
    for handler in handlers:
        handler.setFormatter(Formatter(FORMAT))
        logger.addHandler(handler)
    logger.propagate = False
    for other in ("pyfuse3", "trio"):
        logging.getLogger(other).handlers = list(logger.handlers)


def _close(stream: TextIO) -> None:
    with contextlib.suppress(OSError):  # of what is still in its buffer
        stream.close()


def event_writer(target: Path | str) -> Listener:
    """Writes every uevent that it is told to a file, a JSON line each, at once; "-" is standard output.

    A full disk ends it, and nothing else. Raises InputError when the file cannot be opened.
    """
    try:
        stream = sys.stdout if target == "-" else Path(target).open("w", buffering=1)  # noqa: SIM115 - as long as we run
    except OSError as error:
        raise InputError(f"--events {target}: {error.strerror}") from None

    def write(event: Event) -> None:
        if not stream.closed:
            try:
                stream.write(to_line(event))
                stream.flush()
            except OSError as error:
                log.error("the file of events ends: %s", error.strerror)  # noqa: TRY400 - the machine's, not a bug
                _close(stream)

    return write
