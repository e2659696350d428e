"""The files of one handshake: read a string, write it, ask `mdevfs/check`, look at `mdevfs/last_verdict`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import attrs

from mdevfs.client.answer import Verdict, parse_verdict
from mdevfs.client.text import PAGE, SourceString
from mdevfs.errors import escape

LONGEST_VERDICT = 1 << 20
"""Bytes of JSON that are read of a verdict, no more."""

NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class OpenRefused(Exception):
    """The file is there and the caller may not open it: this says nothing about the devices."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{escape(str(path))}: {error.strerror}")


@attrs.frozen
class Explanation:
    """A verdict, or None and a note that says why there is none (no note: the tree does not offer one)."""

    verdict: Verdict | None = None
    note: str | None = None


def errno_name(number: int | None) -> str:
    return errno.errorcode.get(number or 0, f"errno {number}")


def read_string(attribute: Path) -> SourceString:
    """Read a migration_version. Raises OpenRefused, or the OSError that the device answered."""
    with _Opened(attribute, os.O_RDONLY) as file:
        return SourceString(_read_all(file, PAGE + 1))


def write_string(attribute: Path, string: SourceString) -> int:
    """Write the string, in one write; 0 when the target took all of it, else the errno that it answered.

    A part taken counts as EMSGSIZE: the target did not judge the whole. Raises OpenRefused.
    """
    try:
        with _Opened(attribute, os.O_WRONLY) as file:
            taken = os.write(file, string.data)
    except OSError as error:
        return error.errno or errno.EIO
    return 0 if taken == len(string.data) else errno.EMSGSIZE


def ask_check(directory: Path, string: SourceString) -> Explanation:
    """The verdict of `mdevfs/check`, each open file having its own. Never raises for what the tree does."""
    path = directory / "mdevfs" / "check"
    try:
        with _Opened(path, os.O_RDWR) as file:
            os.write(file, string.data)
            verdict = parse_verdict(_read_all(file, LONGEST_VERDICT))
    except FileNotFoundError:
        return Explanation()
    except (OpenRefused, OSError, ValueError) as error:
        return Explanation(note=f"mdevfs/check gave no verdict: {escape(str(error))}")
    return Explanation(verdict)


def last_verdict(directory: Path) -> Verdict | None:
    """What `mdevfs/last_verdict` holds; None when it is absent, empty, unreadable or no verdict."""
    try:
        with _Opened(directory / "mdevfs" / "last_verdict", os.O_RDONLY) as file:
            return parse_verdict(_read_all(file, LONGEST_VERDICT))
    except (OpenRefused, OSError, ValueError):
        return None


class _Opened:
    """An open file descriptor; EACCES, EPERM and EROFS at open become OpenRefused, others stay OSErrors."""

    def __init__(self, path: Path, flags: int) -> None:
        try:
            self._file = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            if error.errno in NOT_ALLOWED:
                raise OpenRefused(path, error) from None
            raise

    def __enter__(self) -> int:
        return self._file

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _read_all(file: int, limit: int) -> bytes:
    data = b""
    while len(data) < limit:
        piece = os.pread(file, limit - len(data), len(data))
        if not piece:
            break
        data += piece
    return data
