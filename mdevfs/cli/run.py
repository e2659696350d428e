"""`mdevfs run HOST COMMAND...`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: mdevfs run nvidia-t4 -- mdevctl types"


class Statfs(StrEnum):
    """How libudev is made to believe in the tree."""

    SECCOMP = "seccomp"
    ENV = "env"
    NONE = "none"


class Udevd(StrEnum):
    """Who is the machine's udevd."""

    REAL = "real"
    MINI = "mini"
    NONE = "none"


app = typer.Typer(add_completion=False)


# Options end at HOST, so that the command's own options stay the command's.
@app.command(epilog=EXAMPLE, context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False})
def run(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A shipped host's name or the path of a host.toml.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[--] COMMAND...", help="A shell when there is none.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep mdevctl's and libvirt's files and the log there.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write who read or wrote which attribute there, a JSON line each."),
    ] = None,
    events: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every uevent there, a JSON line each.")
    ] = None,
    net: Annotated[
        bool, typer.Option("--net", help="Stay in the network of the caller: neither uevents nor udevd.")
    ] = False,
    hermetic: Annotated[
        bool,
        typer.Option("--hermetic", help="The tree is all of /sys; only cgroups, CPUs and memory stay real."),
    ] = False,
    statfs: Annotated[
        Statfs | None,
        typer.Option(
            help="How libudev is made to believe in the tree: by answering statfs (seccomp), by"
            " SYSTEMD_DEVICE_VERIFY_SYSFS=0 (env), or not at all. Without it: seccomp where the kernel grants it."
        ),
    ] = None,
    udevd: Annotated[
        Udevd | None,
        typer.Option(
            help="The machine's udevd: systemd's (real), a stand-in that only passes events on (mini), or none."
            " Without it: real where systemd-udevd is installed, else mini."
        ),
    ] = None,
) -> int:
    """Run a command on an emulated machine: the host's tree as /sys, with private /run, /dev and network.

    Exit code: the command's; 128+n when signal n ended it; 125 when mdevfs failed, 126 when the command is not
    executable, 127 when it is not found. Options go before HOST.
    """
    from mdevfs.cli.main import RUN_FAILED, complain
    from mdevfs.errors import InputError, MdevfsError
    from mdevfs.sandbox.processes import CommandError

    words = list(command or [])
    try:
        if words and words[0] == "--":
            del words[0]
        elif words and words[0].startswith("-"):
            raise InputError(f"{words[0]} stands where the command begins; options of run go before HOST")
        if str(events) == "-":
            raise InputError("--events -: standard output is the command's; name a file")
        if net and udevd in (Udevd.REAL, Udevd.MINI):
            raise InputError(f"--udevd={udevd} would act on the events of --net's network: leave one of them out")
        from mdevfs.sandbox.run import Machine
        from mdevfs.sandbox.run import run as run_machine

        return run_machine(
            Machine(
                host,
                words or [os.environ.get("SHELL") or "/bin/sh"],
                keep=keep.absolute() if keep is not None else None,
                trace=trace,
                events=events,
                own_network=not net,
                hermetic=hermetic,
                statfs=statfs and str(statfs),
                udevd=udevd and str(udevd),
            )
        )
    except InputError as error:
        complain(*error.mistakes)
    except CommandError as error:
        complain(str(error))
        return error.exit_code
    except MdevfsError as error:
        complain(str(error))
    return RUN_FAILED
