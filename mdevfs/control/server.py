"""The running host's side of the control socket."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import struct

import trio

from mdevfs.control.protocol import to_line
from mdevfs.events import Event, EventStream

log = logging.getLogger("mdevfs.control")

BACKLOG = 10_000  # events that a slow asker may lag behind before it is cut off


class ControlServer:
    """Listens from its making on, so that its address can be told before it serves."""

    def __init__(self, events: EventStream) -> None:
        self.events = events
        self.address = f"mdevfs-{os.getpid()}-{secrets.token_hex(8)}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listening.bind("\0" + self.address)
        listening.listen()
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))

    async def serve(self) -> None:
        """Answers askers until it is cancelled."""
        await trio.serve_listeners(self._answer, [self._listener])

    async def _answer(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                if not _may_ask(stream.socket):
                    return
                if _parse(await _line(stream)) == {"op": "events"}:
                    await self._stream_events(stream)
                else:
                    await stream.send_all(b'{"error": "unknown request"}\n')
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


def _may_ask(sock: trio.socket.SocketType) -> bool:
    peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", peer)
    return uid in (0, os.getuid())


def _parse(line: bytes) -> object:
    """What a request says; None for what is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


async def _line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < 65536:
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
