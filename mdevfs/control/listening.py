"""The control socket itself: of mode 0600, and with no file that could be left behind."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from mdevfs.control.protocol import Address
from mdevfs.errors import MachineError


@frozen
class Endpoint:
    """A listening socket, and where askers find it."""

    socket: socket.socket
    address: Address


def listen_unseen() -> Endpoint:
    """Listens at a file that is gone when this returns; the path is this process's own descriptor of it, until it ends.

    Raises MachineError where there is no directory for the file.
    """
    told = "no such directory"
    for above in _places():
        try:
            with _signals_held(), tempfile.TemporaryDirectory(prefix="mdevfs-", dir=above) as place:  # of mode 0700
                listening, name, file = _listen(Path(place))
                descriptor = os.open(file, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            told = str(error.strerror)
            continue
        # As this /proc counts processes; it may be another PID namespace's.
        return Endpoint(listening, Address(f"/proc/{Path('/proc/self').readlink()}/fd/{descriptor}", name))
    raise MachineError(f"no place for the control socket: {told}; set TMPDIR to a directory for it")


def _places() -> Iterator[str]:
    """Where a file may lie for a moment, first choice first."""
    yield from filter(None, (os.environ.get("TMPDIR"), os.environ.get("XDG_RUNTIME_DIR")))
    yield from ("/tmp", "/var/tmp", "/run", "/dev/shm")


@contextmanager
def _signals_held() -> Iterator[None]:
    """Whoever ends this process waits until it has left no file."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def listen_at(file: Path, seen_at: Path) -> Endpoint:
    """Listens at a file, which askers see at `seen_at`; its directory is made. Raises MachineError."""
    try:
        file.parent.mkdir(exist_ok=True)
        listening, name, made = _listen(file.parent)
        made.rename(file)
    except OSError as error:
        raise MachineError(f"cannot make the control socket {file}: {error.strerror}") from None
    return Endpoint(listening, Address(str(seen_at), name))


def _listen(directory: Path) -> tuple[socket.socket, str, Path]:
    """A socket of mode 0600 with a new name in a directory, its name as bound, and its file."""
    new = secrets.token_hex(8)
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = f"/proc/self/fd/{opened}/{new}"  # for the directory's own may be longer than the 107 bytes of an address
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listening.bind(name)
    finally:
        os.close(opened)
    file = directory / new
    file.chmod(0o600)  # nobody can connect before listen(2)
    listening.listen()
    return listening, name, file
