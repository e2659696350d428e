"""`mdevfs migrate SOURCE TARGET`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import attrs
import typer

from mdevfs.cli.check import lines, reason_lines
from mdevfs.cli.output import Json, print_json
from mdevfs.cli.progress import progress as shown_progress
from mdevfs.client import Answer, check
from mdevfs.client.link import Elsewhere, receive
from mdevfs.client.migrate import Here, Outcome, resume
from mdevfs.client.migrate import migrate as do_migrate
from mdevfs.errors import EXIT_NO, EXIT_YES, InputError

app = typer.Typer(add_completion=False)

EXAMPLE = """\b
Examples:
  mdevfs migrate /mnt/a/bus/mdev/devices/UUID /mnt/b/bus/mdev/devices/UUID
  mdevfs migrate /mnt/a/bus/mdev/devices/UUID --exec 'ssh host mdevfs migrate - /mnt/b/bus/mdev/devices/UUID'"""


@app.command(epilog=EXAMPLE)
def migrate(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE TARGET", help="Two mdevs by their paths; - as SOURCE: another machine's."),
    ] = None,
    command: Annotated[
        str | None, typer.Option("--exec", metavar="COMMAND", help="What leads to the target, in place of TARGET.")
    ] = None,
    precopy: Annotated[bool, typer.Option(help="Send what can be sent before the source stops.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only the handshake.")] = False,
    resume_: Annotated[
        Path | None,
        typer.Option("--resume", metavar="DEVICE", help="Run a device that a broken migration left stopped."),
    ] = None,
    json: Json = False,
) -> int:
    """Move a device's state: handshake, save, load, and then exactly one of the two runs.

    On success the target runs; on any failure the source does, and the target is as it was. Where a link between two
    machines dies after the source has given its device away, both stay stopped and each says how to decide.

    Exit code: 0 migrated, 1 not, 2 wrong use, 3 not permitted.
    """
    if resume_ is not None:
        return _resume(resume_, paths, command)
    given = paths or []
    if given[:1] == ["-"]:
        return _receive(given)
    source, target = _ends(given, command)
    if dry_run:
        if target is None:
            raise InputError("--dry-run asks a target of this machine; elsewhere, mdevfs check --string does")
        return _told(check(source, target), json)
    return _said(_move(source, target, command, precopy, json), json)


def _told(answer: Answer, json: bool) -> int:
    if json:
        print_json(answer.as_dict())
    else:
        print("\n".join(lines(answer)))
    return EXIT_YES if answer.compatible else EXIT_NO


def _ends(paths: list[str], command: str | None) -> tuple[Path, Path | None]:
    expected = 1 if command is not None else 2
    if len(paths) != expected:
        what = "with --exec, SOURCE alone" if command is not None else "SOURCE and TARGET, or SOURCE and --exec COMMAND"
        raise InputError(f"migrate takes {what}: {len(paths)} given; see mdevfs migrate --help")
    return Path(paths[0]), Path(paths[1]) if command is None else None


def _move(source: Path, target: Path | None, command: str | None, precopy: bool, quiet: bool) -> Outcome:
    with ExitStack() as stack:
        if target is not None:
            answer = check(source, target)
            if not answer.compatible:
                return Outcome(False, "source", 0, "the handshake says no", answer.reasons)
            receiver: Here | Elsewhere = Here(stack, target)
        else:
            receiver = Elsewhere(stack, command or "")
        progress = stack.enter_context(shown_progress(quiet))
        return do_migrate(source, receiver, precopy=precopy, progress=progress)


def _said(outcome: Outcome, json: bool) -> int:
    if json:
        print_json({"schema": 1, **attrs.asdict(outcome)})
    elif outcome.migrated:
        print(f"migrated: {outcome.sent} bytes of device state; the target runs, the source is stopped")
    else:
        print(_failed(outcome), f"  {outcome.message}", sep="\n")
        for line in reason_lines(outcome.reasons):
            print(line)
    return EXIT_YES if outcome.migrated else EXIT_NO


def _failed(outcome: Outcome) -> str:
    if outcome.migrated is None:
        return "in doubt: the source is stopped, and nobody can say whether the target runs"
    if outcome.running is None:
        return "not migrated: the source does not run"
    return "not migrated: the source runs on, the target is as it was"


def _receive(paths: list[str]) -> int:
    """The target's side; standard output belongs to the protocol."""
    if len(paths) != 2:
        raise InputError("migrate - takes one TARGET; see mdevfs migrate --help")

    def told(message: str) -> None:
        print(f"mdevfs: target: {message}", file=sys.stderr)

    return EXIT_YES if receive(Path(paths[1]), sys.stdin.fileno(), sys.stdout.fileno(), told) else EXIT_NO


def _resume(device: Path, paths: list[str] | None, command: str | None) -> int:
    if paths or command is not None:
        raise InputError("--resume takes a device and nothing else")
    was = resume(device)
    print(f"it runs: it was in {was}. Make sure that its other side stays stopped.")
    return EXIT_YES
