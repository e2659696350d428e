"""`mdevfs mount HOST DIR`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

EXAMPLE = "Example: mdevfs mount gvtg /tmp/sys && ls /tmp/sys/class/mdev_bus"

app = typer.Typer(add_completion=False)


@app.command(epilog=EXAMPLE)
def mount(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A shipped host's name or the path of a host.toml.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="An existing directory to mount on.")],
    foreground: Annotated[bool, typer.Option("--foreground", "-f", help="Stay, and log to the terminal.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Mounted by root: visible to root only.")] = False,
    log_file: Annotated[Path | None, typer.Option(help="Log there instead of to syslog.")] = None,
    events: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write every uevent there, a JSON line each; - is standard output."),
    ] = None,
    uevents: Annotated[
        str,
        typer.Option(
            metavar="auto|none|NETNS",
            help="Send uevents over netlink into this network namespace (/run/netns/NAME, /proc/PID/ns/net); "
            "auto: the server's own, unless it may be the machine's.",
        ),
    ] = "auto",
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write who read or wrote which attribute there, a JSON line each."),
    ] = None,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End when standard input does: with whoever holds the other end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log more.")] = False,
) -> None:
    """Mount a described host; returns when the mount answers.

    SIGTERM, SIGINT to the server and any unmount end it. Exit status: 2 for a bad host, 3 when the machine cannot.
    """
    from mdevfs.errors import InputError
    from mdevfs.mount.background import detach

    directory = directory.absolute()
    path = host if "/" not in host and not host.endswith((".toml", ".json")) else str(Path(host).absolute())
    log_file = log_file.absolute() if log_file is not None else None
    if events == "-" and not foreground:
        raise InputError("--events - needs --foreground: in the background there is no standard output")
    event_file = Path(events).absolute() if events not in (None, "-") else events
    if uevents not in ("auto", "none"):
        uevents = str(Path(uevents).absolute())
    trace = trace.absolute() if trace is not None else None
    if until_eof:
        _check_input(foreground)
    settings = Settings(path, directory, private, foreground, log_file, event_file, uevents, trace, until_eof, debug)
    work = functools.partial(_work, settings)
    if foreground:
        work(lambda: None)
    else:
        detach(work)


def _check_input(foreground: bool) -> None:
    import os
    import stat

    from mdevfs.errors import InputError

    mode = os.fstat(0).st_mode
    if not foreground:
        raise InputError("--until-eof needs --foreground: in the background there is no standard input")
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(0)):
        raise InputError("--until-eof needs a pipe, a socket or a terminal as standard input")


class Settings(NamedTuple):
    """What the command line asked for."""

    host: str
    directory: Path
    private: bool
    foreground: bool
    log_file: Path | None
    events: Path | str | None
    uevents: str
    trace: Path | None
    until_eof: bool
    debug: bool


def _work(settings: Settings, ready: Callable[[], None]) -> None:
    import os

    import trio

    from mdevfs.control.listening import listen_unseen
    from mdevfs.host.host import Host, prepare_host
    from mdevfs.mount.logs import configure, event_writer
    from mdevfs.mount.places import prepare
    from mdevfs.mount.serve import serve
    from mdevfs.mount.trace import Trace
    from mdevfs.sandbox.uevents import open_sender

    configure(settings.log_file, settings.debug, settings.foreground)
    sender = open_sender(settings.uevents)
    prepare(settings.directory)
    host: Host = prepare_host(settings.host, os.getuid(), os.getgid())
    if settings.events is not None:
        host.core.events.listeners.append(event_writer(settings.events))

    def answering() -> None:
        # Not before the tree answers; what the start announced is over, as a boot is, and udev's trigger replays it.
        if sender is not None:
            host.core.events.listeners.append(sender.send)
        ready()

    async def run() -> None:
        await host.start()
        await serve(
            host,
            settings.directory,
            listen_unseen(),
            private=settings.private,
            ready=answering,
            trace=Trace(settings.trace) if settings.trace is not None else None,
            until_eof=settings.until_eof,
        )

    trio.run(run)
