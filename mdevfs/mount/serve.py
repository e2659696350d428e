"""The server's process: from a mounted directory to nothing left of it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pyfuse3
import trio

from mdevfs.control.listening import Endpoint
from mdevfs.control.protocol import ADDRESS_XATTR
from mdevfs.control.server import ControlServer
from mdevfs.errors import MachineError, escape
from mdevfs.host.host import Host
from mdevfs.mount.links import FirstRequest
from mdevfs.mount.operations import SysfsOperations
from mdevfs.mount.places import FSNAME
from mdevfs.mount.trace import Trace, TracedOperations

log = logging.getLogger("mdevfs.mount")

GRACE = 1.0  # seconds that requests in flight get once the mount ends


def options(private: bool) -> set[str]:
    """Mount options: what /sys has, and visible to all users when root mounts."""
    chosen = set(pyfuse3.default_options) | {f"fsname={FSNAME}", "subtype=sysfs", "nosuid", "nodev", "noexec"}
    if os.geteuid() == 0 and not private:
        chosen.add("allow_other")
    return chosen


async def serve(
    host: Host,
    mountpoint: Path,
    endpoint: Endpoint,
    *,
    private: bool,
    ready: Callable[[], None],
    trace: Trace | None = None,
    until_eof: bool = False,
) -> None:
    """Mounts a host's tree, calls `ready` once the mount answers, and returns when it has ended and nothing is mounted.

    Askers of `mdevfs control` come to `endpoint`. SIGTERM, SIGINT and an unmount from outside all end it, with
    `until_eof` the end of standard input, too. Accesses are told to `trace`. Raises MachineError when it cannot be
    mounted.
    """
    control = ControlServer(host, endpoint.socket)
    hidden = {ADDRESS_XATTR: endpoint.address.to_bytes()}
    operations = SysfsOperations(host.tree, hidden, host.core.events.listeners)
    if trace is not None:
        operations = TracedOperations(host.tree, hidden, host.core.events.listeners, trace)
    try:
        pyfuse3.init(operations, str(mountpoint), options(private))
    except RuntimeError as error:
        raise MachineError(f"cannot mount on {mountpoint}: {error}; see `mdevfs doctor`") from None
    operations.invalidator.start()
    first = FirstRequest()
    _calm_gc()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signal, nursery.cancel_scope)
            if until_eof:
                nursery.start_soon(_end_on_eof, nursery.cancel_scope)
            nursery.start_soon(control.serve, operations.settle)
            nursery.start_soon(first.answer)
            nursery.start_soon(_announce, mountpoint, ready)
            await pyfuse3.main(max_tasks=1000)
            nursery.cancel_scope.cancel()
    finally:
        operations.invalidator.stop()
        pyfuse3.close(unmount=True)
        log.info("%s is unmounted", mountpoint)


def _calm_gc() -> None:
    # Reference counts free what a request makes. The collector, left as it is, walks all of a large host again and
    # again while the kernel lists it: a third of the time of an `ls` of 100,000 names.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


async def _end_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            _end(scope, f"on {signal.Signals(number).name}")


async def _end_on_eof(scope: trio.CancelScope) -> None:
    while True:
        await trio.lowlevel.wait_readable(0)
        if not os.read(0, 4096):
            _end(scope, "with its standard input")
            return


def _end(scope: trio.CancelScope, how: str) -> None:
    log.info("ends %s", how)
    pyfuse3.terminate()
    scope.deadline = trio.current_time() + GRACE


async def _announce(mountpoint: Path, ready: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(os.stat, mountpoint / "bus")
    ready()
    _notify_systemd()


def _notify_systemd() -> None:
    """sd_notify(3): READY=1 to whoever waits for a unit of Type=notify."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.sendall(b"READY=1")
    except OSError as error:
        log.warning("NOTIFY_SOCKET %s: %s; nobody is told that the mount answers", escape(address), error.strerror)
