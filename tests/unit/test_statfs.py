"""The arithmetic of answering statfs, for each architecture: no call is made here, so no machine is needed."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from mdevfs.sandbox import statfs

HEADERS = Path("/usr/include")
BOTH = pytest.mark.parametrize("name", sorted(statfs.MACHINES))
USER_NOTIF, ALLOW = 0x7FC00000, 0x7FFF0000
SHIFT_64_BIT, SHIFT_LITTLE_ENDIAN = 0x80000000, 0x40000000


def verdict(program: bytes, number: int, audit: int) -> int:
    """What the filter says of a system call; of classic BPF's instructions just what it may use."""
    data = struct.pack("=iI7Q", number, audit, *range(7))
    code = list(struct.iter_unpack("HBBI", program))
    at = accumulator = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        match operation:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                at += if_true if accumulator == value else if_false
            case 0x06:  # BPF_RET | BPF_K
                return int(value)
            case _:
                raise AssertionError(f"instruction {operation:#x}")


@BOTH
def test_the_filter_asks_for_two_calls_and_allows_all_others(name: str) -> None:
    here = statfs.MACHINES[name]
    program = statfs.program(here)
    asked = {number for number in range(1024) if verdict(program, number, here.audit) == USER_NOTIF}
    assert asked == {here.statfs, here.fstatfs}
    foreign = [other.audit for other in statfs.MACHINES.values() if other is not here] + [0x40000003]  # i386
    for audit in foreign:
        assert {verdict(program, number, audit) for number in range(1024)} == {ALLOW}


def header(path: str) -> str:
    if not (HEADERS / path).exists():
        pytest.skip(f"needs {HEADERS / path} (package linux-libc-dev)")
    return (HEADERS / path).read_text()


def constant(text: str, name: str) -> int:
    match = re.search(rf"^#define\s+{name}\s+(\w+)", text, re.MULTILINE)
    assert match is not None, name
    return int(match[1], 0)


def test_numbers_of_x86_64() -> None:
    text, here = header("x86_64-linux-gnu/asm/unistd_64.h"), statfs.MACHINES["x86_64"]
    numbers = [constant(text, f"__NR_{call}") for call in ("seccomp", "statfs", "fstatfs", "openat2")]
    assert numbers == [here.seccomp, here.statfs, here.fstatfs, statfs.OPENAT2]


def test_numbers_of_aarch64() -> None:
    """It has the generic table."""
    text, here = header("asm-generic/unistd.h"), statfs.MACHINES["aarch64"]
    names = ("__NR_seccomp", "__NR3264_statfs", "__NR3264_fstatfs", "__NR_openat2")
    assert [constant(text, name) for name in names] == [here.seccomp, here.statfs, here.fstatfs, statfs.OPENAT2]


@pytest.mark.parametrize(("name", "elf"), [("x86_64", "EM_X86_64"), ("aarch64", "EM_AARCH64")])
def test_audit_numbers(name: str, elf: str) -> None:
    machine = constant(header("linux/elf-em.h"), elf)
    assert statfs.MACHINES[name].audit == machine | SHIFT_64_BIT | SHIFT_LITTLE_ENDIAN


def test_the_structures_have_the_sizes_that_the_ioctl_numbers_carry() -> None:
    """SECCOMP_IOCTL_NOTIF_RECV, SEND and ID_VALID as both architectures encode them (asm-generic/ioctl.h)."""
    assert (statfs.RECEIVE, statfs.SEND, statfs.VALID) == (0xC0502100, 0xC0182101, 0x40082102)
    assert (statfs.NOTIFICATION.size, statfs.ANSWER.size, statfs.STATFS.size) == (80, 24, 120)


def test_the_type_comes_first_and_what_follows_is_left_alone() -> None:
    told = bytearray(statfs.STATFS.pack(*range(1, 17)))
    statfs.disguise(told)
    assert statfs.STATFS.unpack(told) == (0x62656572, *range(2, 17))
