"""A migration between two machines: frames over a program's standard input and output.

    source                                     target
    HELLO  {"protocol": 1, "string": ...}  ->
                                           <-  READY
    DATA   bytes, again and again          ->
    END                                    ->
                                           <-  LOADED
    RUN    (the source has stopped for good) ->
                                           <-  RUNNING
    or, in place of RUN, BACK (it has not, and runs on) ->
    or, in place of any answer, <- REFUSED {"message": ..., "reasons": [...]}

A frame is one byte that names it, four of length (big-endian), and at most 1 MiB. A link that dies before LOADED leaves
the source running. After RUN was sent nobody knows whether it came: both sides stay stopped and say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import struct
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import attrs

from mdevfs.client.answer import Reason, parse_reason
from mdevfs.client.device import PIECE, MoveFailed, Moving
from mdevfs.client.handshake import OpenRefused, ask_check, write_string
from mdevfs.client.migrate import DECIDE, Here, InDoubt
from mdevfs.client.places import Place, identify
from mdevfs.client.text import SourceString
from mdevfs.client.twin import held_back
from mdevfs.errors import EXIT_NO, InputError, MachineError, MdevfsError, escape

HELLO, READY, DATA, END, LOADED, RUN, BACK, RUNNING, REFUSED = b"H", b"y", b"D", b"E", b"L", b"R", b"B", b"K", b"N"
PROTOCOL = 1
LONGEST = PIECE
PATIENCE = 5.0  # seconds that a program gets to end once its input is closed


class LinkDied(MdevfsError):
    """The other side is gone, or speaks something else."""

    exit_code = EXIT_NO


@attrs.define
class Link:
    """Two descriptors, and frames on them."""

    reader: int
    writer: int

    def send(self, kind: bytes, data: bytes = b"") -> None:
        """One frame. Raises LinkDied."""
        frame = memoryview(struct.pack(">cI", kind, len(data)) + data)
        try:
            while len(frame):
                frame = frame[os.write(self.writer, frame) :]
        except OSError as error:
            raise LinkDied(f"the link to the other side died: {error.strerror}") from None

    def receive(self) -> tuple[bytes, bytes]:
        """The next frame. Raises LinkDied."""
        kind, length = struct.unpack(">cI", self._exactly(5))
        if length > LONGEST:
            raise LinkDied(f"the other side sent a frame of {length} bytes, at most {LONGEST} are allowed")
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while size:
            try:
                piece = os.read(self.reader, size)
            except OSError as error:
                raise LinkDied(f"the link to the other side died: {error.strerror}") from None
            if not piece:
                raise LinkDied("the other side closed the link")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


class Elsewhere:
    """A target behind a program, such as `ssh host mdevfs migrate - TARGET`."""

    def __init__(self, stack: ExitStack, command: str) -> None:
        words = shlex.split(command)
        if not words:
            raise InputError("--exec takes a command, such as 'ssh host mdevfs migrate - TARGET'")
        try:
            self._child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise MachineError(f"--exec {escape(words[0])}: {error.strerror}") from None
        stack.callback(self._end)
        assert self._child.stdin is not None and self._child.stdout is not None
        self._link = Link(self._child.stdout.fileno(), self._child.stdin.fileno())

    def _end(self) -> None:
        """Closing its input ends a target that still waits; a program that goes on for all that is ended."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        try:
            self._child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def begin(self, source: Place, string: bytes) -> None:
        """Sends the string; the target's handshake answers."""
        hello = {"protocol": PROTOCOL, "string": string.decode("latin-1")}
        self._send(HELLO, json.dumps(hello).encode())
        self._expect(READY)

    def write(self, data: bytes) -> None:
        """One piece."""
        self._send(DATA, data)

    def loaded(self) -> None:
        """Asks whether it has the whole state."""
        self._send(END)
        self._expect(LOADED)

    def finish(self, source: Moving) -> None:
        """No answer is no answer: the target may run, or wait."""
        try:
            with held_back():
                self._commit(source)
            kind, data = self._link.receive()
        except LinkDied as error:
            why = f"{error}; the source has stopped for good, the target may have it and waits: {DECIDE}"
            raise InDoubt(why) from None
        except KeyboardInterrupt:
            raise InDoubt(f"interrupted; the source has stopped for good, the target may run: {DECIDE}") from None
        if kind == REFUSED:
            source.move("RUNNING")
            raise _failure(kind, data)
        if kind != RUNNING:
            raise InDoubt(f"the source has stopped for good, and the target does not say whether it runs; {DECIDE}")

    def _commit(self, source: Moving) -> None:
        try:
            source.move("STOP")
        except MoveFailed:
            with contextlib.suppress(LinkDied):
                self._link.send(BACK)
            raise
        self._link.send(RUN)

    def _send(self, kind: bytes, data: bytes = b"") -> None:
        try:
            self._link.send(kind, data)
        except LinkDied as died:
            raise self._last_word(died) from None

    def _last_word(self, died: LinkDied) -> MoveFailed:
        """What it said before it went."""
        try:
            return _failure(*self._link.receive())
        except LinkDied:
            return MoveFailed(f"{died}; the source runs on")

    def _expect(self, wanted: bytes) -> None:
        try:
            kind, data = self._link.receive()
        except LinkDied as died:
            raise MoveFailed(f"{died}; the source runs on") from None
        if kind != wanted:
            raise _failure(kind, data)


def _failure(kind: bytes, data: bytes) -> MoveFailed:
    if kind != REFUSED:
        return MoveFailed(f"the other side does not speak this protocol: it sent {kind!r}")
    return MoveFailed(_message(data), _reasons(data))


def _document(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _message(data: bytes) -> str:
    message = _document(data).get("message")
    return escape(message)[:500] if isinstance(message, str) else "the other side refused, and did not say why"


def _reasons(data: bytes) -> tuple[Reason, ...]:
    found = _document(data).get("reasons")
    try:
        return tuple(parse_reason(one) for one in found) if isinstance(found, list) else ()
    except ValueError:
        return ()


# -- the target's side


def receive(path: Path, reader: int, writer: int, told: Callable[[str], None]) -> bool:
    """`mdevfs migrate - TARGET`: serves one source; whether the target runs. `told` hears what a person must know."""
    link = Link(reader, writer)
    with ExitStack() as stack:
        try:
            _greet(link, path)
            here = Here(stack, path)
            here.open()
            link.send(READY)
            _take(link, here)
        except MoveFailed as error:
            _refuse(link, error)
            told(str(error))
            return False
        except (InputError, MachineError) as error:
            _refuse(link, error)
            raise
        link.send(LOADED)
        return _decided(link, here, told)


def _greet(link: Link, path: Path) -> None:
    """The handshake. Raises MoveFailed, MachineError where its file may not be opened."""
    kind, data = link.receive()
    hello = _document(data)
    if kind != HELLO or hello.get("protocol") != PROTOCOL or not isinstance(hello.get("string"), str):
        raise MoveFailed(f"the source speaks another protocol than {PROTOCOL}")
    string = SourceString(hello["string"].encode("latin-1", "replace"))
    place = identify("TARGET", path)
    try:
        number = write_string(place.attribute, string)
    except OpenRefused as error:
        raise MachineError(f"TARGET {place}: {error}") from None
    if number:
        verdict = ask_check(place.directory, string).verdict
        reasons = verdict.reasons if verdict is not None else ()
        raise MoveFailed(f"TARGET {place} refuses the handshake: {os.strerror(number)}", reasons)


def _take(link: Link, here: Here) -> None:
    """The whole state. Raises MoveFailed, and LinkDied, both before the source's commit."""
    while True:
        kind, data = link.receive()
        if kind == END:
            here.loaded()
            return
        if kind != DATA:
            raise MoveFailed(f"the source sent {kind!r} where data was due")
        here.write(data)


def _decided(link: Link, here: Here, told: Callable[[str], None]) -> bool:
    """The source has our word: from here on it may have stopped for good."""
    try:
        kind, _ = link.receive()
    except LinkDied as died:
        return _kept(here, str(died), told)
    if kind == BACK:
        told("the source runs on: this target is as it was")
        return False
    if kind != RUN:
        return _kept(here, f"the source sent {kind!r} where RUN was due", told)
    try:
        here.run()
    except MoveFailed as error:
        _refuse(link, error)
        told(str(error))
        return False
    try:
        link.send(RUNNING)
    except LinkDied:
        told("the target runs, but the source did not hear of it: leave the source stopped")
    return True


def _kept(here: Here, why: str, told: Callable[[str], None]) -> bool:
    """Nobody knows whether the source has stopped for good."""
    here.keep()
    told(f"{why}, after the state was loaded: this target has it and stays stopped; {DECIDE}")
    return False


def _refuse(link: Link, error: MdevfsError) -> None:
    reasons = error.reasons if isinstance(error, MoveFailed) else ()
    document = {"message": str(error), "reasons": [attrs.asdict(one) for one in reasons]}
    with contextlib.suppress(LinkDied):  # it is told on standard error
        link.send(REFUSED, json.dumps(document).encode()[:LONGEST])
