"""`mdevfs wait DIR EVENT`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: mdevfs wait /tmp/sys 'bind@*/'$UUID --timeout 5 -- sh -c \"echo $UUID > $TYPE/create\""

app = typer.Typer(add_completion=False)


@app.command(epilog=EXAMPLE)
def wait(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the host is mounted.")],
    event: Annotated[
        list[str],
        typer.Argument(metavar="EVENT [-- COMMAND...]", help="ACTION[@DEVPATH] and KEY=VALUE, as in uevents."),
    ],
    timeout: Annotated[float | None, typer.Option(help="Seconds after which to give up (exit status 1).")] = None,
) -> None:
    """Wait for a uevent of a mounted host and print it as JSON.

    With a COMMAND, it is run once the waiting has begun, so that none of its events is missed. DEVPATH may hold
    shell wildcards.
    """
    from mdevfs.control.asker import Subscription, Wanted

    words, command = _split(event)
    wanted = Wanted.parse(words)
    try:
        with Subscription(directory, timeout) as events:
            if command and (code := _run(command)):
                print(f"mdevfs: the command ended with {code}", file=sys.stderr)
                raise typer.Exit(1)
            print(json.dumps(events.first(wanted)))
    except TimeoutError:
        print(f"mdevfs: no such event within {timeout:g} s: {' '.join(words)}", file=sys.stderr)
        raise typer.Exit(1) from None


def _run(command: list[str]) -> int:
    """The command's exit code."""
    from mdevfs.errors import InputError

    try:
        return subprocess.run(command, check=False).returncode
    except OSError as error:
        raise InputError(f"cannot run {command[0]}: {error.strerror}") from None


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The event's words and the command's: the event's are the first and every KEY=VALUE after it."""
    count = 1
    while count < len(words) and "=" in words[count] and "/" not in words[count].split("=", 1)[0]:
        count += 1
    return words[:count], words[count:]
