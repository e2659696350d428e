"""The running host's side of the control socket."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable

import trio

from mdevfs.control.devices import Add, Reboot, Register, Remove, Status, Unregister
from mdevfs.control.faults import ClearFaults, ListFaults, SetFault
from mdevfs.control.protocol import peer_uid, to_line
from mdevfs.control.running import Running
from mdevfs.control.types import AddType, RemoveType
from mdevfs.control.uses import Release, Use
from mdevfs.control.verbs import Answer, Verb, parse
from mdevfs.errors import MdevfsError, escape
from mdevfs.events import Event, EventStream
from mdevfs.host.host import Host

log = logging.getLogger("mdevfs.control")

BACKLOG = 10_000  # events that a slow asker may lag behind before it is cut off
LONGEST = 65536  # bytes of a request
VERBS: tuple[type[Verb], ...] = (
    *(Status, Add, Remove, Register, Unregister, Reboot, AddType, RemoveType, Use, Release),
    *(SetFault, ListFaults, ClearFaults),
)
BY_NAME = {verb.op: verb for verb in VERBS} | {"events": Verb}


class ControlServer:
    """Answers who asks at `listening`, which the caller has told the address of."""

    def __init__(self, host: Host, listening: socket.socket) -> None:
        self.host = host
        self.events: EventStream = host.core.events  # which outlasts every boot
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))

    async def serve(self, settle: Callable[[], Awaitable[None]]) -> None:
        """Answers askers, and lets late devices come, until it is cancelled; `settle` is `Running`'s."""
        async with trio.open_nursery() as nursery:
            running = Running(self.host, settle, nursery)
            running.expect()

            async def answer(stream: trio.SocketStream) -> None:
                await self._answer(stream, running)

            await trio.serve_listeners(answer, [self._listener], handler_nursery=nursery)

    async def _answer(self, stream: trio.SocketStream, running: Running) -> None:
        try:
            async with stream:
                if not _may_ask(stream.socket):
                    return
                request = _parse(await _line(stream))
                if request == {"op": "events"}:
                    await self._stream_events(stream)
                else:
                    await stream.send_all(json.dumps(await _carry_out(request, running)).encode() + b"\n")
        except* trio.BrokenResourceError:
            pass  # the asker has left; a nursery may have put that into a group

    async def _stream_events(self, stream: trio.SocketStream) -> None:
        send, receive = trio.open_memory_channel[Event](BACKLOG)

        def listen(event: Event) -> None:
            try:
                send.send_nowait(event)
            except trio.WouldBlock:
                send.close()
                self.events.listeners.remove(listen)
                log.warning("control: an asker was too slow for the events and is cut off")

        self.events.listeners.append(listen)
        try:
            await stream.send_all(b'{"ready": true}\n')
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_on_eof, stream, nursery.cancel_scope)
                async for event in receive:
                    await stream.send_all(to_line(event).encode())
                nursery.cancel_scope.cancel()
        finally:
            if listen in self.events.listeners:
                self.events.listeners.remove(listen)


async def _carry_out(request: object, running: Running) -> Answer:
    """The answer; whatever goes wrong, the host goes on."""
    try:
        verb = parse(request, BY_NAME)
        log.info("control: %s %s", verb.op, escape(verb.model_dump_json(exclude_defaults=True)))
        return await verb.carry_out(running)
    except MdevfsError as error:
        name = errno.errorcode.get(error.errno, str(error.errno))
        return {"error": str(error).splitlines(), "errno": name, "exit": error.exit_code}
    except Exception as error:
        log.exception("control: %r", request)
        return {"error": [f"the server's own mistake, see its log: {error!r}"], "errno": "EIO", "exit": 1}


def _may_ask(sock: trio.socket.SocketType) -> bool:
    return peer_uid(sock.getsockopt) in (0, os.getuid())


def _parse(line: bytes) -> object:
    """What a request says; None for what is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


async def _line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST:
        more = await stream.receive_some()
        if not more:
            break
        line += more
    return line


async def _end_on_eof(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass
    scope.cancel()
