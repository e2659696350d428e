"""A command on an emulated machine of its own, for one test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mdevfs.errors import InputError, MachineError
from mdevfs.testing.describe import Description
from mdevfs.testing.server import COMMAND

FAILED = 125  # what `mdevfs run` ends with where the failure is its own


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
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command where the host's tree is /sys; its exit code and output, which `check_returncode` tests.

        `options` are those of `mdevfs run` ("--hermetic"). Raises InputError for a bad host, and TimeoutExpired; then
        nothing of the machine is left.
        """


def run(
    host: str,
    command: Sequence[str | os.PathLike[str]],
    keep: Path,
    *,
    options: Sequence[str],
    input: str | None,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """See `MachineRunner`; the machine's log is in `keep`. Raises MachineError where machines cannot be made."""
    done = subprocess.run(
        [*COMMAND, "run", "--keep", keep, *options, host, "--", *command],
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
        return done
    told = [line.removeprefix("mdevfs: ") for line in done.stderr.splitlines()]
    # 125 is the code of a bad host, too: a machine that is surely right tells which it was.
    probe = subprocess.run([*COMMAND, "run", "mtty", "--", "true"], capture_output=True, check=False)
    raise MachineError("\n".join(told)) if probe.returncode == FAILED else InputError(told)
