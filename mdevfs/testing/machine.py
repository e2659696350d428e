"""A command on an emulated machine of its own, for one test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mdevfs.control.asker import SentEvent
from mdevfs.errors import InputError, MachineError
from mdevfs.testing.describe import Description
from mdevfs.testing.host import Access, lines_of
from mdevfs.testing.server import COMMAND

FAILED = 125  # what `mdevfs run` ends with where the failure is its own


class Ended(subprocess.CompletedProcess[str]):
    """A command that has ended, and what happened on its machine meanwhile."""

    place: Path

    @property
    def accesses(self) -> Sequence[Access]:
        """Every read and write of an attribute, udevd's included, and opens that failed."""
        return [Access(**line) for line in lines_of(self.place / "trace")]

    @property
    def events(self) -> Sequence[SentEvent]:
        """Every uevent, those of the host's start included."""
        return list(lines_of(self.place / "events"))


class MachineRunner(Protocol):
    """The fixture `mdevfs_run`."""

    def __call__(
        self,
        host: Description,
        command: Sequence[str | os.PathLike[str]],
        *,
        options: Sequence[str] = (),
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        timeout: float = 60.0,
    ) -> Ended:
        """Runs a command where the host's tree is /sys; its exit code and output, which `check_returncode` tests, and
        what happened on the machine.

        `options` are those of `mdevfs run` ("--hermetic"). Raises InputError for a bad host, and TimeoutExpired; then
        nothing of the machine is left.
        """


def run(
    host: str,
    command: Sequence[str | os.PathLike[str]],
    place: Path,
    *,
    options: Sequence[str],
    input: str | None,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    timeout: float,
) -> Ended:
    """See `MachineRunner`; the machine's log and what it tells are in `place`. Raises MachineError where no machine can
    be made."""
    own = [word for word in options if word.partition("=")[0] in ("--trace", "--events")]
    if own:
        raise InputError(f"{word} is the fixture's own: what it gives has accesses and events" for word in own)
    told = ("--keep", place, "--trace", place / "trace", "--events", place / "events")
    done = subprocess.run(
        [*COMMAND, "run", *told, *options, host, "--", *command],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        env=env,
        cwd=cwd,
        timeout=timeout,
        check=False,
    )
    if done.returncode != FAILED or not done.stderr.startswith("mdevfs: "):
        ended = Ended(done.args, done.returncode, done.stdout, done.stderr)
        ended.place = place
        return ended
    said = [line.removeprefix("mdevfs: ") for line in done.stderr.splitlines()]
    # 125 is the code of a bad host, too: a machine that is surely right tells which it was.
    probe = subprocess.run([*COMMAND, "run", "mtty", "--", "true"], capture_output=True, check=False)
    raise MachineError("\n".join(said)) if probe.returncode == FAILED else InputError(said)
