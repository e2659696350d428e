"""How the kernel reads numbers and words that are written to attributes (lib/kstrtox.c, lib/string_helpers.c)."""

from __future__ import annotations

import errno
import re

from mdevfs.errors import KernelError

_NUMBER = re.compile(rb"\+?(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))\n?\Z")


def text_of(data: bytes) -> bytes:
    """What a C string function sees of a write: everything before the first NUL."""
    return data.partition(b"\0")[0]


def kstrtoull(data: bytes, limit: int = 2**64 - 1) -> int:
    """kstrtoull(data, 0, ...): decimal, 0x..., 0...; one `+` before and one newline after are allowed.

    Raises KernelError EINVAL for anything else, ERANGE above `limit`.
    """
    match = _NUMBER.match(text_of(data))
    if match is None:
        raise KernelError(errno.EINVAL)
    hexadecimal, octal, decimal = match.groups()
    value = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(decimal)
    if value > limit:
        raise KernelError(errno.ERANGE)
    return value


def kstrtobool(data: bytes) -> bool:
    """kstrtobool: y, Y, t, T, 1, on are true; n, N, f, F, 0, off are false; only the first letters count."""
    head = text_of(data)[:2]
    if head[:1] in (b"y", b"Y", b"t", b"T", b"1") or head.lower() == b"on":
        return True
    if head[:1] in (b"n", b"N", b"f", b"F", b"0") or head.lower() == b"of":
        return False
    raise KernelError(errno.EINVAL)


def word(data: bytes) -> str:
    """sysfs_streq's view of a write: up to the first NUL, without one trailing newline."""
    return text_of(data).removesuffix(b"\n").decode("latin-1")
