"""The control socket itself: of mode 0600, and with no file that could be left behind."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
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
    try:
        with tempfile.TemporaryDirectory(prefix="mdevfs-") as place:  # of mode 0700
            listening, name, file = _listen(Path(place))
            descriptor = os.open(file, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(
            f"no place for the control socket: {error.strerror}; set TMPDIR to a directory for it"
        ) from None
    return Endpoint(listening, Address(f"/proc/{os.getpid()}/fd/{descriptor}", name))


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
