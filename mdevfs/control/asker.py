"""The asker's side of the control socket, without trio: for commands and for tests of other people's tools."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from attrs import frozen

from mdevfs.control.protocol import ADDRESS_XATTR
from mdevfs.errors import InputError, MachineError
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


class Subscription:
    """The events of a running host from now on. Raises InputError where no host is mounted."""

    def __init__(self, directory: Path, timeout: float | None = None) -> None:
        self._deadline = time.monotonic() + timeout if timeout is not None else None
        self._rest = b""
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._subscribe(directory)
        except BaseException:
            self._socket.close()
            raise

    def _subscribe(self, directory: Path) -> None:
        address = _address(directory)
        try:
            self._socket.connect("\0" + address)
        except OSError as error:
            raise MachineError(f"the host on {directory} does not answer: {error.strerror}") from None
        with contextlib.suppress(BrokenPipeError):  # hung up on already; reading says so
            self._socket.sendall(b'{"op": "events"}\n')
        if "ready" not in json.loads(self._line()):
            raise MachineError(f"the host on {directory} does not tell its events")

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __iter__(self) -> Iterator[SentEvent]:
        """Event by event. Raises TimeoutError when the time is up, MachineError when the host ends."""
        while True:
            yield json.loads(self._line())

    def first(self, wanted: Wanted) -> SentEvent:
        """The first event that matches."""
        return next(event for event in self if wanted.matches(event))

    def _line(self) -> bytes:
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
        return line


def _address(directory: Path) -> str:
    try:
        return os.getxattr(directory, ADDRESS_XATTR).decode()
    except OSError as error:
        raise InputError(f"no host of mdevfs is mounted on {directory}: {error.strerror}") from None
