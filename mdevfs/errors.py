"""One tree of errors, each with its errno and, for the command line, its exit code.

    MdevfsError
    |-- KernelError      what the kernel itself answers with a bare errno (EEXIST, ENODEV, ...)
    |-- Refusal          somebody said no and said why: carries a code of the catalogue
    |-- DriverFault      a vendor driver raised, or returned what it must not: EIO for that one call
    |-- InputError       a user's mistake in a file, an argument or a driver: exit code 2
    `-- MachineError     what the machine cannot do (no /dev/fuse, no permission): exit code 3

Everything that leaves the tree through a file handler becomes the errno of its class; everything that leaves a
command becomes its message on standard error and its exit code. Any other exception is a bug of ours: EIO and one
logged traceback in the mount, a traceback on the command line.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Iterable

EXIT_YES, EXIT_NO, EXIT_USAGE, EXIT_MACHINE = 0, 1, 2, 3


class MdevfsError(Exception):
    """The root of the tree. `errno` is what a file operation answers, `exit_code` what a command returns."""

    errno: int = _errno.EIO
    exit_code: int = EXIT_NO


class KernelError(MdevfsError):
    """An errno that the kernel gives by itself, with no more to say than the errno does."""

    def __init__(self, errno: int, message: str = "") -> None:
        super().__init__(message or os.strerror(errno))
        self.errno = errno

    def __reduce__(self) -> tuple[type[KernelError], tuple[int, str]]:
        return type(self), (self.errno, str(self))


class Refusal(MdevfsError):
    """A no with a reason; `code` names its page in the catalogue (`mdevfs explain CODE`)."""

    errno = _errno.EINVAL
    code: str = ""


class DriverFault(MdevfsError):
    """A vendor driver raised an exception, or returned what its hook must not return."""


class InputError(MdevfsError):
    """Mistakes of a user, all of them at once; `mistakes` holds one line each."""

    errno = _errno.EINVAL
    exit_code = EXIT_USAGE

    def __init__(self, mistakes: str | Iterable[str]) -> None:
        self.mistakes = [mistakes] if isinstance(mistakes, str) else list(mistakes)
        super().__init__("\n".join(self.mistakes))


class MachineError(MdevfsError):
    """The machine cannot do what was asked; the message names the package or setting that mends it."""

    exit_code = EXIT_MACHINE


def escape(text: str | bytes) -> str:
    """Hostile text made fit for a log or a terminal: printable ASCII stays, all else becomes `\\xNN`, `\\` doubles."""
    data = _encoded(text) if isinstance(text, str) else text
    return "".join(chr(b) if 32 <= b < 127 and b != 92 else "\\\\" if b == 92 else f"\\x{b:02x}" for b in data)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a pair of surrogates, as JSON can spell it
        return text.encode("utf-8", "surrogatepass")


def key_path(location: Iterable[str | int]) -> str:
    """Where in a document something is: `device[0].mdev[2].type`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{escape(part)}" if path else escape(part)
    return path
