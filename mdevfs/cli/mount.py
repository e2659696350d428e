"""`mdevfs mount HOST DIR`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

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
    debug: Annotated[bool, typer.Option("--debug", help="Log more.")] = False,
) -> None:
    """Mount a described host; returns when the mount answers.

    SIGTERM, SIGINT to the server and any unmount end it. Exit status: 2 for a bad host, 3 when the machine cannot.
    """
    from mdevfs.mount.background import detach

    directory = directory.absolute()
    path = host if "/" not in host and not host.endswith(".toml") else str(Path(host).absolute())
    log_file = log_file.absolute() if log_file is not None else None
    work = functools.partial(_work, path, directory, private, foreground, log_file, debug)
    if foreground:
        work(lambda: None)
    else:
        detach(work)


def _work(
    host: str,
    directory: Path,
    private: bool,
    foreground: bool,
    log_file: Path | None,
    debug: bool,
    ready: Callable[[], None],
) -> None:
    import os

    import trio

    from mdevfs.host.host import load
    from mdevfs.mount.logs import configure
    from mdevfs.mount.places import prepare
    from mdevfs.mount.serve import serve

    configure(log_file, debug, foreground)
    prepare(directory)

    async def run() -> None:
        running = await load(host, os.getuid(), os.getgid())
        await serve(running.tree, directory, private=private, ready=ready)

    trio.run(run)
