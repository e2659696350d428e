"""The asker's side of the control socket, without trio: for commands and for tests of other people's tools."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from attrs import frozen

from mdevfs.control.protocol import ADDRESS_XATTR, Address, peer_uid
from mdevfs.errors import EXIT_USAGE, InputError, KernelError, MachineError
from mdevfs.events.stream import ACTIONS


class SentEvent(TypedDict):
    """An event as it comes over the wire."""

    action: str
    devpath: str
    subsystem: str
    seqnum: int
    env: Mapping[str, str]


@frozen
class Wanted:
    """What to wait for: an action or "" for any, a shell pattern of device paths, keys with their values."""

    action: str
    devpath: str
    keys: Mapping[str, str]

    @classmethod
    def parse(cls, words: Sequence[str]) -> Wanted:
        """`ACTION[@DEVPATH] [KEY=VALUE ...]`, such as `add@*/UUID` or `change MDEV_STATE=registered`.

        Raises InputError with every mistake.
        """
        action, _, devpath = words[0].partition("@")
        wrong = []
        if action and action not in ACTIONS:
            wrong.append(f'"{action}" is no action of a uevent; there are {", ".join(ACTIONS)}')
        wrong += [f'"{word}" is not of the form KEY=VALUE' for word in words[1:] if "=" not in word]
        if wrong:
            raise InputError(wrong)
        keys = dict(word.split("=", 1) for word in words[1:])
        return cls(action, devpath or "*", keys)

    def matches(self, event: SentEvent) -> bool:
        if self.action and event["action"] != self.action:
            return False
        if not fnmatch.fnmatchcase(event["devpath"], self.devpath):
            return False
        return all(event["env"].get(key) == value for key, value in self.keys.items())


class Connection:
    """One request to a running host, and what it answers, line by line.

    `timeout` is in seconds, for all of it. Raises InputError where no host is mounted, MachineError where it does not
    answer, TimeoutError.
    """

    def __init__(self, directory: Path, request: Mapping[str, object], timeout: float | None = None) -> None:
        self.directory = directory
        self._deadline = time.monotonic() + timeout if timeout is not None else None
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._ask(request)
        except BaseException:
            self._socket.close()
            raise

    def _ask(self, request: Mapping[str, object]) -> None:
        address, owner = _find(self.directory)
        try:
            self._socket.connect(address.path)
            ours = self._socket.getpeername() == address.name and peer_uid(self._socket.getsockopt) in (0, owner)
            problem = None if ours else "another listens there"
        except PermissionError:
            raise MachineError(
                f"the host on {self.directory} refuses to answer this user: its control socket is for its owner and "
                "root, in the user namespace that it was mounted in and with no fewer capabilities"
            ) from None
        except OSError as error:
            problem = str(error.strerror)
        if problem is not None:
            raise MachineError(
                f"the host on {self.directory} does not answer at {address.path}: {problem}; if it was mounted in "
                "another container or PID namespace, ask in there, as with nsenter(1)"
            )
        with contextlib.suppress(BrokenPipeError):  # hung up on already; reading says so
            self._socket.sendall(json.dumps(request).encode() + b"\n")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up; what was asked for is done all the same."""
        self._socket.close()

    def line(self) -> Any:
        """The next line, parsed."""
        while b"\n" not in self._rest:
            left = None if self._deadline is None else self._deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            try:
                more = self._socket.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                raise MachineError("the host has ended, or refuses to answer this user")
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return json.loads(line)


class Subscription:
    """The events of a running host from now on. Raises as `Connection` does."""

    def __init__(self, directory: Path, timeout: float | None = None) -> None:
        self._connection = Connection(directory, {"op": "events"}, timeout)
        try:
            self._connection.line()  # it is ready
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __iter__(self) -> Iterator[SentEvent]:
        """Event by event. Raises TimeoutError when the time is up, MachineError when the host ends."""
        while True:
            yield self._connection.line()

    def first(self, wanted: Wanted) -> SentEvent:
        """The first event that matches."""
        return next(event for event in self if wanted.matches(event))


def ask(directory: Path, op: str, what: Mapping[str, object], timeout: float | None = None) -> dict[str, Any]:
    """Asks a running host for a verb and `what` it takes (`mdevfs.control.server.VERBS`); the answer, once nobody sees
    the old state.

    Raises InputError for mistakes, KernelError for what is refused, and as `Connection` does. A TimeoutError is the
    asker's alone: what has begun goes on.
    """
    with Connection(directory, {"op": op, **what}, timeout) as connection:
        answer: dict[str, Any] = connection.line()
    if "error" not in answer:
        return answer
    if answer["exit"] == EXIT_USAGE:
        raise InputError(answer["error"])
    raise KernelError(getattr(errno, answer["errno"], errno.EIO), "\n".join(answer["error"]))


def _find(directory: Path) -> tuple[Address, int]:
    """Of the host that is mounted on a directory, or, as in `mdevfs run`, on those in it; the second is its owner."""
    failure = ""
    for place in (directory, directory / "bus"):
        try:
            return Address.from_bytes(os.getxattr(place, ADDRESS_XATTR)), place.stat().st_uid
        except OSError as error:
            failure = failure or str(error.strerror)
    raise InputError(f"no host of mdevfs is mounted on {directory}: {failure}")
