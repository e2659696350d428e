"""The command `mdevfs`: finds the command by its name, and turns errors into messages and exit codes.

Each command is a module with a typer application called `app`; it is imported when its name is asked for, and not
before, so that `mdevfs --help` costs no more than Python's own start.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import mdevfs
from mdevfs.errors import EXIT_NO, EXIT_USAGE, EXIT_YES, InputError, MachineError, MdevfsError

if TYPE_CHECKING:
    import typer

COMMANDS = {  # name -> module, one line of help
    "mount": ("mdevfs.cli.mount", "Mount a described host on a directory."),
    "umount": ("mdevfs.cli.umount", "End a mounted host."),
    "run": ("mdevfs.cli.run", "Run a command on an emulated machine."),
    "wait": ("mdevfs.cli.wait", "Wait for a uevent of a mounted host."),
    "control": ("mdevfs.cli.control", "Change a mounted host: devices, types and faults come and go."),
    "check": ("mdevfs.cli.check", "Say whether a source device could migrate to a target, and why not."),
    "migrate": ("mdevfs.cli.migrate", "Move a device's state from a source to a target."),
    "explain": ("mdevfs.cli.explain", "Say what a reason's code means, and how to mend it."),
    "doctor": ("mdevfs.cli.doctor_command", "Say what this machine lacks to mount hosts."),
    "host": ("mdevfs.cli.host", "List, check and describe host files."),
    "driver": ("mdevfs.cli.driver", "List and describe vendor drivers."),
    "state": ("mdevfs.cli.state", "Device state: make, show, compare, save and load it, and check its descriptions."),
}

HELP = """\
Usage: mdevfs COMMAND [ARGUMENT]...

A live /sys for mediated devices, and the handshake that the kernel never merged.

Commands:
{commands}

Options:
  --version  Print the version.
  --help     Print this; after a command, its own help.

Example:
  mdevfs mount gvtg /mnt/a && ls /mnt/a/class/mdev_bus

Exit codes: 0 yes, 1 no, 2 wrong use or input, 3 the machine cannot.
"""

INTERRUPTED = 130


RUN_FAILED = 125  # as of env(1), timeout(1): what went wrong was ours and not the command's


def main() -> None:
    """The console's entry point; never returns."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader left; Python would complain when it closes its standard output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Do what the command line asks; the exit code. Exceptions other than MdevfsError are bugs, and leave."""
    try:
        return _dispatch(list(arguments))
    except InputError as error:
        complain(*error.mistakes)
        return error.exit_code
    except MdevfsError as error:
        complain(str(error))
        return error.exit_code
    except BrokenPipeError:
        return EXIT_NO
    except KeyboardInterrupt:
        return INTERRUPTED


def complain(*lines: str) -> None:
    """One line on standard error for each."""
    for line in lines:
        print(f"mdevfs: {line}", file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(_help(), end="", file=sys.stderr)
        return EXIT_USAGE
    name, *rest = arguments
    if name in ("--help", "-h"):
        print(_help(), end="")
    elif name == "--version":
        print(f"mdevfs {mdevfs.__version__}")
    elif name in COMMANDS:
        return _invoke(name, rest)
    else:
        raise InputError(_unknown(name))
    return EXIT_YES


def _invoke(name: str, arguments: list[str]) -> int:
    import typer
    from typer.main import get_command

    app = _application(name)
    try:
        code = get_command(app).main(arguments, prog_name=f"mdevfs {name}", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        complain(error.format_message(), f"see mdevfs {name} --help")
        return RUN_FAILED if name == "run" else error.exit_code
    return code if isinstance(code, int) else EXIT_YES


def _application(name: str) -> typer.Typer:
    import typer

    module, _ = COMMANDS[name]
    try:
        app = importlib.import_module(module).app
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "mdevfs":
            raise
        raise MachineError(f"{name} cannot start: {error}; mdevfs doctor says what is missing") from None
    assert isinstance(app, typer.Typer)
    app.rich_markup_mode = None  # for all alike: plain help, and no import of rich
    return app


def _help() -> str:
    width = max(map(len, COMMANDS))
    return HELP.format(commands="\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items()))


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    from mdevfs.errors import escape

    near = get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else "see mdevfs --help"
    return f"no command {escape(name)}; {hint}"
