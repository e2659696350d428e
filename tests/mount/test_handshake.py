"""The handshake between two mounted hosts, with nothing but reads and writes; and what hostile strings come to."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.mount.server import MTTY, Server, codes, new_uuid, read, run, verdict, write, write_errno

MTTY_TYPES = f"{MTTY}/mdev_supported_types"
GPU = "devices/pci0000:00/0000:00:02.0"
GPU_TYPES = f"{GPU}/mdev_supported_types"
GPU_STRING = "8086-591d-i915-GVTg_V5_4-00000001"
PAGE = 4096
LONGEST = 4094


def make(server: Server, kind: str, number: int) -> Path:
    """Creates an mdev of a type, given by its path."""
    write(server.root / kind / "create", new_uuid(number))
    return Path(os.path.realpath(server.root / "bus/mdev/devices" / new_uuid(number)))


def cat(path: Path) -> str:
    done = run("cat", path / "migration_version")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def echo(string: str, path: Path) -> bool:
    """What a shell's `echo` says: whether the write succeeded."""
    done = run("sh", "-c", 'echo "$0" > "$1/migration_version"', string.removesuffix("\n"), path)
    assert done.returncode == 0 or "I/O error" in done.stderr or "Invalid argument" in done.stderr
    return done.returncode == 0


# -- yes and no


def test_mtty_between_two_hosts(mount: Mount) -> None:
    source, target = mount("mtty"), mount("mtty")
    one, two = (make(source, f"{MTTY_TYPES}/mtty-{ports}", ports) for ports in (1, 2))
    assert cat(one) != cat(two)
    for place in (make(target, f"{MTTY_TYPES}/mtty-1", 1), target.root / MTTY_TYPES / "mtty-1"):
        assert echo(cat(one), place)
        accepted = verdict(place / "mdevfs/last_verdict")
        assert (accepted["compatible"], accepted["errno"], accepted["reasons"]) == (True, None, [])
        assert not echo(cat(two), place)
        refused = verdict(place / "mdevfs/last_verdict")
        assert (refused["compatible"], refused["errno"], codes(refused)) == (False, "EINVAL", ["value-differs"])
        assert refused["source"] == cat(two).removesuffix("\n")
        assert refused["target"] == str(place.relative_to(target.root))
        assert write_errno(place / "migration_version", cat(two)) == errno.EINVAL
    assert "ports" in target.log


def test_the_newline_is_optional_and_counts(mount: Mount) -> None:
    kind = mount("mtty").root / MTTY_TYPES / "mtty-1"
    string = cat(kind)
    assert string.endswith("\n")
    assert write(kind / "migration_version", string) == len(string)
    assert write(kind / "migration_version", string[:-1]) == len(string) - 1


def test_gvtg_speaks_as_in_the_series(mount: Mount) -> None:
    gpu = mount("gvtg")
    kind = gpu.root / GPU_TYPES / "i915-GVTg_V5_4"
    assert cat(kind) == cat(make(gpu, f"{GPU_TYPES}/i915-GVTg_V5_4", 1)) == GPU_STRING + "\n"
    assert echo(GPU_STRING, kind)


@pytest.mark.parametrize(
    ("host", "kind", "reasons"),
    [
        ("gvtg", "i915-GVTg_V5_4", []),
        ("gvtg", "i915-GVTg_V5_8", ["i915-type"]),
        ("gvtg-newer", "i915-GVTg_V5_4", ["i915-software-version"]),
        ("gvtg-other-sku", "i915-GVTg_V5_4", ["i915-hardware"]),
        ("gvtg-other-sku", "i915-GVTg_V5_2", ["i915-hardware", "i915-type"]),
    ],
)
def test_gvtg_between_two_hosts(mount: Mount, host: str, kind: str, reasons: list[str]) -> None:
    source, target = mount("gvtg"), mount(host)
    string = cat(make(source, f"{GPU_TYPES}/i915-GVTg_V5_4", 1))
    for place in (target.root / GPU_TYPES / kind, make(target, f"{GPU_TYPES}/{kind}", 2)):
        assert echo(string, place) == (not reasons)
        assert codes(verdict(place / "mdevfs/last_verdict")) == reasons


def test_a_gpu_that_cannot_migrate_shows_the_attribute_and_says_so(mount: Mount) -> None:
    gpu = mount('[[device]]\ndriver = "i915"\naddress = "0000:00:02.0"\nsettings = { generation = 11 }\n')
    path = gpu.root / GPU_TYPES / "i915-GVTg_V5_4/migration_version"
    done = run("cat", path)
    assert done.returncode != 0
    assert "No such device" in done.stderr
    assert write_errno(path, GPU_STRING) == errno.ENODEV


def test_drivers_refuse_each_others_strings(mount: Mount) -> None:
    serial, gpu = mount("mtty"), mount("gvtg")
    port, vgpu = serial.root / MTTY_TYPES / "mtty-1", gpu.root / GPU_TYPES / "i915-GVTg_V5_4"
    assert not echo(cat(port), vgpu)
    assert not echo(cat(vgpu), port)


# -- hostile strings

ESCAPES = b"\x1b[31m\x1b]0;title\x07\x9b2J\r"
HOSTILE = {
    "newline": (b"\n", ["string-empty"]),
    "several_newlines": (b"\n\n", ["string-several-lines"]),
    "longest": (b"x" * LONGEST + b"\n", ["string-malformed"]),
    "4095": (b"x" * 4095, ["string-too-long"]),
    "4096": (b"x" * 4096, ["string-too-long"]),
    "4096_newline": (b"x" * 4095 + b"\n", ["string-too-long"]),
    "4097": (b"x" * 4097, ["string-too-long"]),
    "64k": (b"x" * 65536, ["string-too-long"]),
    "nul": (b"\0", ["string-not-printable"]),
    "nul_after": (b"kernel.org/mtty,ports=1\0", ["string-not-printable"]),
    "nul_pages": (b"\0" * 5000, ["string-too-long", "string-not-printable"]),
    "utf8": ("k\u00e9rnel.org/mtty,ports=1\n".encode(), ["string-not-printable"]),
    "not_utf8": (b"\xff\xfe\x80", ["string-not-printable"]),
    "escapes": (ESCAPES, ["string-not-printable"]),
    "escapes_after": (b"kernel.org/mtty,ports=" + ESCAPES + b"\n", ["string-not-printable"]),
    "forged_log": (b"x\n2026-01-01 00:00:00,000 INFO mdevfs: all is well\n", ["string-several-lines"]),
    "markup": (b"[bold red]kernel.org/mtty[/bold red],ports=[link=file:///etc/passwd]1[/]\n", ["string-malformed"]),
    "html": (b"<script>alert(1)</script>%s%n{0}${HOME}`id`$(id)\\x1b\n", ["string-malformed"]),
    "deep_json": (b"[" * LONGEST, ["string-malformed"]),
    "json": (b'{"compatible": true, "ports": 1}\n', ["string-malformed"]),
    "huge_number": (b"kernel.org/mtty,ports=" + b"9" * 4000, ["value-malformed"]),
    "negative": (b"kernel.org/mtty,ports=-1", ["value-not-allowed"]),
    "exponent": (b"kernel.org/mtty,ports=1e9999", ["value-malformed"]),
    "many_parameters": (
        b"kernel.org/mtty" + b",a=" * 1300,
        ["parameter-unknown", "parameter-repeated", "parameter-missing"],
    ),
    "other_vendor": (GPU_STRING.encode() + b"\n", ["string-malformed"]),
    "other_model": (b"vendor-a.com/my-nic,rx-filter-size=64\n", ["model-differs"]),
    "truncated": (b"kernel.org/mtty,por", ["string-malformed", "parameter-missing"]),
    "truncated_value": (b"kernel.org/mtty,ports=", ["value-malformed"]),
    "truncated_model": (b"kernel.org/mt", ["model-differs"]),
    "two_newlines": (b"kernel.org/mtty,ports=1\n\n", ["string-several-lines"]),
    "space_before": (b" kernel.org/mtty,ports=1\n", ["string-malformed"]),
    "space_after": (b"kernel.org/mtty,ports=1 \n", ["value-malformed"]),
    "crlf": (b"kernel.org/mtty,ports=1\r\n", ["string-not-printable"]),
    "leading_zero": (b"kernel.org/mtty,ports=01\n", ["value-malformed"]),
    "twice": (b"kernel.org/mtty,ports=1,ports=1\n", ["parameter-repeated"]),
}


def check_refused(place: Path, data: bytes, expected: list[str] | None) -> None:
    """EINVAL, and a verdict that shows what was seen of it."""
    assert write_errno(place / "migration_version", data) == errno.EINVAL
    raw = (place / "mdevfs/last_verdict").read_bytes()
    assert re.fullmatch(rb"[ -~]+\n", raw), "more than printable ASCII and a newline"
    answer = verdict(place / "mdevfs/last_verdict")
    assert (answer["compatible"], answer["errno"]) == (False, "EINVAL")
    assert answer["source"] == data[:PAGE].removesuffix(b"\n").decode("latin-1")
    found = codes(answer)
    assert found
    assert expected is None or found == expected


def check_log(server: Server, refusals: int) -> None:
    """A line of bounded length for each refusal, and nothing in it that a terminal would act upon."""
    log = server.log_file.read_bytes()
    assert re.search(rb"[^\n -~]", log) is None
    lines = [line for line in log.decode().splitlines() if " refused: " in line]
    assert len(lines) == refusals
    assert all(line.startswith("20") and len(line) < 2500 for line in log.decode().splitlines())


def test_hostile_strings_are_refused_and_told_safely(mount: Mount) -> None:
    server = mount("mtty")
    kind, mdev = server.root / MTTY_TYPES / "mtty-1", make(server, f"{MTTY_TYPES}/mtty-1", 1)
    good = cat(mdev)
    for data, expected in HOSTILE.values():
        for place in (kind, mdev):
            check_refused(place, data, expected)
    check_log(server, 2 * len(HOSTILE))
    assert cat(mdev) == good
    assert write(mdev / "migration_version", good) == len(good)


def test_hostile_strings_at_a_driver_with_a_string_of_its_own(mount: Mount) -> None:
    server = mount("gvtg")
    kind = server.root / GPU_TYPES / "i915-GVTg_V5_4"
    hostile = [data for data, _ in HOSTILE.values() if GPU_STRING.encode() not in data]
    hostile += [GPU_STRING[:-1].encode(), GPU_STRING.upper().encode(), GPU_STRING.encode() + b"\n\n", b"-" * LONGEST]
    for data in hostile:
        check_refused(kind, data, None)
    check_log(server, len(hostile))
    assert cat(kind) == GPU_STRING + "\n"


def test_nothing_written_is_nothing_asked(mount: Mount) -> None:
    kind = mount("mtty").root / MTTY_TYPES / "mtty-1"
    assert write(kind / "migration_version", b"") == 0
    assert read(kind / "mdevfs/last_verdict") == ""
    write_errno(kind / "migration_version", b"no")
    before = read(kind / "mdevfs/last_verdict")
    assert write(kind / "migration_version", b"") == 0
    assert read(kind / "mdevfs/last_verdict") == before != ""


def test_a_handshake_changes_nothing_else(mount: Mount) -> None:
    server = mount("mtty")
    kind, mdev = server.root / MTTY_TYPES / "mtty-1", make(server, f"{MTTY_TYPES}/mtty-1", 1)
    write_errno(mdev / "migration_version", b"no")
    assert read(kind / "mdevfs/last_verdict") == ""
    assert read(kind / "available_instances") == "23\n"
    assert cat(mdev) == cat(kind)


# -- mdevfs/check


def ask(descriptor: int, string: bytes) -> dict[str, object]:
    """Writes a string and reads the verdict, as a program does with one descriptor."""
    assert os.write(descriptor, string) == min(len(string), PAGE)
    answer = json.loads(os.pread(descriptor, 1 << 20, 0))
    assert isinstance(answer, dict)
    return answer


def test_each_open_check_has_its_own_answer(mount: Mount) -> None:
    kind = mount("mtty").root / MTTY_TYPES / "mtty-1"
    mine, yours = (os.open(kind / "mdevfs/check", os.O_RDWR) for _ in range(2))
    good, bad = cat(kind).encode(), b"vendor-a.com/my-nic\n"
    assert os.pread(mine, PAGE, 0) == b""
    assert ask(mine, good)["compatible"] is True
    assert codes(ask(yours, bad)) == ["model-differs"]
    for _ in range(2):
        assert json.loads(os.pread(mine, PAGE, 0))["compatible"] is True
        assert json.loads(os.pread(yours, PAGE, 0))["compatible"] is False
    assert codes(ask(mine, bad)) == ["model-differs"]
    os.close(mine)
    os.close(yours)
    assert read(kind / "mdevfs/last_verdict") == ""


def test_check_sees_a_page_at_most(mount: Mount) -> None:
    kind = mount("mtty").root / MTTY_TYPES / "mtty-1"
    descriptor = os.open(kind / "mdevfs/check", os.O_RDWR)
    for length in (4095, 4096, 4097, 10000):
        answer = ask(descriptor, b"x" * length)
        assert codes(answer) == ["string-too-long"]
        assert answer["source"] == "x" * min(length, PAGE)
    os.close(descriptor)


def test_nothing_written_to_check_is_nothing_asked(mount: Mount) -> None:
    kind = mount("mtty").root / MTTY_TYPES / "mtty-1"
    descriptor = os.open(kind / "mdevfs/check", os.O_RDWR)
    answer = ask(descriptor, b"no")
    assert os.write(descriptor, b"") == 0
    assert json.loads(os.pread(descriptor, PAGE, 0)) == answer
    os.close(descriptor)


def test_a_shell_asks_check(mount: Mount) -> None:
    """One descriptor, one offset: each `cat` gives the verdict on the `echo` before it, whole."""
    kind = mount("mtty").root / MTTY_TYPES / "mtty-1"
    script = 'exec 3<>"$0/mdevfs/check"; for string in "$@"; do echo "$string" >&3; cat <&3; done'
    strings = [cat(kind).strip(), "no", "[" * 3000, cat(kind).strip()]
    done = run("sh", "-c", script, kind, *strings)
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["compatible"] for answer in answers] == [True, False, False, True]
    assert [answer["source"] for answer in answers] == strings


def test_two_shells_ask_check_at_once(mount: Mount) -> None:
    """Neither hears the other's answer."""
    kind = mount("mtty").root / MTTY_TYPES / "mtty-1"
    script = 'exec 3<>"$0/mdevfs/check" 4<>"$0/mdevfs/check"; echo "$1" >&3; echo "$2" >&4; cat <&3; cat <&4'
    done = run("sh", "-c", script, kind, cat(kind).strip(), "no")
    assert [json.loads(line)["compatible"] for line in done.stdout.splitlines()] == [True, False]
