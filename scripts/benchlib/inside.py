"""Figures of `mdevfs run`: what a machine costs to start, and what its programs pay."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .servers import CannotMeasureError, Machines
from .timing import Result, Sampler, absolute, compare, external, timed
from .trees import compiled

if TYPE_CHECKING:
    from .measures import Scale

LISTED = 1000  # mdevs
LISTER = Path(__file__).with_name("lister.py")


def start(machines: Machines, scale: Scale) -> Result:
    """With systemd-udevd where it is installed, as a user has it."""
    command = partial(machines.command, "run", machines.host, "--", "true")
    return absolute([timed(command) for _ in range(scale.mounts)])


def listing(machines: Machines, scale: Scale) -> Result:
    """Again and again on one machine; each side has been asked once before."""
    with _lister(machines) as ask:
        for side in ("live", "static"):
            ask(side)()
        return compare(ask("live"), ask("static"), scale.rounds)


def first_listing(machines: Machines, scale: Scale) -> Result:
    """The first one of each of several machines, when the kernel knows nothing of the tree."""

    ours, theirs = [], []
    for _ in range(scale.mounts):
        with _lister(machines) as ask:
            ours.append(ask("live")())
            ask("static")()
            theirs.append(ask("static")())
    return compare(iter(ours).__next__, iter(theirs).__next__, scale.mounts)


def other_calls(machines: Machines, scale: Scale) -> Result:
    """A system call that is none of statfs's, under the filter and without one."""
    with TemporaryDirectory() as directory:
        program = compiled(Path(__file__).with_name("statloop.c"), Path(directory))

        def under(way: str) -> Sampler:
            run = [machines.mdevfs, "run", "--udevd=none", f"--statfs={way}", machines.host, "--"]
            return external([*run, str(program), "/", str(scale.count), "1000"])

        return compare(under("seccomp"), under("none"), scale.mounts)


@contextmanager
def _lister(machines: Machines) -> Iterator[partial[Sampler]]:
    """A machine of many mdevs in which somebody times mdevctl's list on demand, of the side that is asked for."""
    command = [machines.mdevfs, "run", "--udevd=none", machines.host_of(LISTED), "--", sys.executable, str(LISTER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield partial(_asking, process)
        process.communicate()


def _asking(process: subprocess.Popen[str], side: str) -> Sampler:
    def sample() -> list[float]:
        assert process.stdin is not None and process.stdout is not None
        print(side, file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            raise CannotMeasureError("mdevctl list in mdevfs run: nobody answers; is mdevctl installed?")
        return [float(line)]

    return sample
