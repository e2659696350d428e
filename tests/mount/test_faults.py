"""Vendor drivers that raise or return junk: an errno for that one call, one entry in the log that names driver and
attribute, and a mount that goes on."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping

import pytest

from tests.mount.faulty import PARENT, TYPES, driver, entries
from tests.mount.server import Server, codes, errno_of, listing, new_uuid, read, verdict, write, write_errno

BLOCKING = pytest.mark.parametrize("mark", ["", "@blocking"], ids=["inline", "blocking"])

# What a driver's author can get wrong in any hook: the hook's body, and whether a traceback tells of it.
RAISES = {
    "raises": ("raise ZeroDivisionError('oops')", True),
    "exits": ("raise SystemExit(3)", True),
    "recursion": ("return self.wrong(*[self] * 2000)", True),
    "negative_errno": ("raise KernelError(-errno.EINVAL)", False),
    "zero_errno": ("raise KernelError(0)", False),
    "huge_errno": ("raise KernelError(99999)", False),
    "text_errno": ("raise KernelError('EINVAL')", True),
    "escapes": (r"raise ValueError('\x1b[2J\x9b\r\x07')", True),
}


def types(names: Mapping[str, object]) -> str:
    return f"types = [MdevType(name) for name in {list(names)!r}]"


def by_type(bodies: Mapping[str, tuple[str, bool]]) -> str:
    """The body of a hook that behaves as the type of its device says."""
    return "\n".join(f"    if device.type.spec.suffix == {name!r}: {body}" for name, (body, _) in bodies.items())


def check_told(told: list[str], hook: str, where: str, traceback: bool) -> None:
    """One entry, with driver, hook and attribute, and a traceback or not; refused handshakes are told apart."""
    faults = [entry for entry in told if " refused: " not in entry]
    assert len(faults) == 1, f"{where}: {told}"
    assert f"driver faulty: {hook} of {where} " in faults[0]
    assert faults[0].count("Traceback (most recent call last)") == int(traceback), faults[0]
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "".join(told)) is None, "a control character in the log"


SHOWS = {
    **RAISES,
    "none": ("return None", False),
    "number": ("return 42", False),
    "list": ("return ['text']", False),
    "generator": ("yield 'text'", False),
    "surrogate": (r"return '\ud800'", False),
}


@BLOCKING
def test_show(faulty: Callable[[str], Server], mark: str) -> None:
    bodies = [f"@show('vendor/{name}')\n{mark}\ndef {name}(self, mdev): {body}" for name, (body, _) in SHOWS.items()]
    server = faulty(driver("types = [MdevType('a')]\ndef wrong(self, *_): return self.wrong()", *bodies))
    write(server.root / TYPES / "faulty-a/create", new_uuid(1))
    vendor = server.root / PARENT / new_uuid(1) / "vendor"
    for name, (_, traceback) in SHOWS.items():
        assert errno_of(lambda path=vendor / name: read(path)) == errno.EIO, name  # type: ignore[misc]
        check_told(entries(server), "show", f"{PARENT}/{new_uuid(1)}/vendor/{name}", traceback)


STORES = {**RAISES}


@BLOCKING
def test_store(faulty: Callable[[str], Server], mark: str) -> None:
    bodies = [
        f"@store('vendor/{name}')\n{mark}\ndef {name}(self, mdev, data): {body}" for name, (body, _) in STORES.items()
    ]
    server = faulty(driver("types = [MdevType('a')]\ndef wrong(self, *_): return self.wrong()", *bodies))
    write(server.root / TYPES / "faulty-a/create", new_uuid(1))
    vendor = server.root / PARENT / new_uuid(1) / "vendor"
    for name, (_, traceback) in STORES.items():
        assert write_errno(vendor / name, "1\n") == errno.EIO, name
        check_told(entries(server), "store", f"{PARENT}/{new_uuid(1)}/vendor/{name}", traceback)


def test_what_sysfs_itself_makes_of_sizes_and_refusals(faulty: Callable[[str], Server]) -> None:
    """More than a page of text is cut and logged (fs/sysfs/file.c), more than a page of data is not seen."""
    server = faulty(
        driver(
            "types = [MdevType('a')]",
            "@show('long')\ndef long(self, mdev): return 'x' * 5000",
            "@show('seen')\ndef seen(self, mdev): return f'{mdev.data}\\n'",
            "@store('seen')\ndef see(self, mdev, data): mdev.data = len(data); return 'ignored'",
            "@show('absent')\ndef absent(self, mdev): raise KernelError(errno.ENXIO)",
        )
    )
    write(server.root / TYPES / "faulty-a/create", new_uuid(1))
    mdev = server.root / PARENT / new_uuid(1)
    assert read(mdev / "long") == "x" * 4095
    told = entries(server)
    assert len(told) == 1
    assert f"{PARENT}/{new_uuid(1)}/long: show returned 5000 bytes" in told[0]
    assert write(mdev / "seen", b"y" * 5000) == 4096
    assert read(mdev / "seen") == "4096\n"
    assert errno_of(lambda: read(mdev / "absent")) == errno.ENXIO
    assert entries(server) == []


PROBES = {**RAISES}


@BLOCKING
def test_a_creation_that_fails_leaves_no_trace(faulty: Callable[[str], Server], mark: str) -> None:
    hook = f"{mark}\ndef probe(self, device):\n{by_type(PROBES)}\ndef wrong(self, *_): return self.wrong()"
    server = faulty(driver(types({"good": 0, **PROBES}), hook))
    write(server.root / TYPES / "faulty-good/create", new_uuid(1))
    before = listing(server.root)
    for name, (_, traceback) in PROBES.items():
        assert write_errno(server.root / TYPES / f"faulty-{name}/create", new_uuid(2)) == errno.EIO, name
        check_told(entries(server), "probe", f"{PARENT}/{new_uuid(2)}", traceback)
        assert listing(server.root) == before
    assert write(server.root / TYPES / "faulty-good/create", new_uuid(2)) == 36
    write(server.root / PARENT / new_uuid(2) / "remove", "1")
    assert listing(server.root) == before


@BLOCKING
def test_a_creation_that_is_refused_says_why(faulty: Callable[[str], Server], mark: str) -> None:
    refusal = "raise Refused('no-power', errno.EBUSY, rule='the socket is taken', side='target')"
    server = faulty(driver("types = [MdevType('a')]", f"{mark}\ndef probe(self, mdev): {refusal}"))
    kind = server.root / TYPES / "faulty-a"
    before = listing(server.root)
    assert write_errno(kind / "create", new_uuid(1)) == errno.EBUSY
    assert listing(server.root) == before
    answer = verdict(kind / "mdevfs/last_verdict")
    assert (answer["operation"], answer["errno"], codes(answer)) == ("create", "EBUSY", ["no-power"])


@BLOCKING
def test_a_removal_that_fails_changes_nothing(faulty: Callable[[str], Server], mark: str) -> None:
    once = {
        name: (f"mdevs = self.__dict__.setdefault('seen', set())\n{_once(body)}", t)
        for name, (body, t) in RAISES.items()
    }
    lines = [f"    if device.type.spec.suffix == {name!r}:\n        {body}" for name, (body, _) in once.items()]
    hook = f"{mark}\ndef remove(self, device):\n" + "\n".join(lines) + "\ndef wrong(self, *_): return self.wrong()"
    server = faulty(driver(types(RAISES), hook))
    for name, (_, traceback) in RAISES.items():
        empty = listing(server.root)
        write(server.root / TYPES / f"faulty-{name}/create", new_uuid(1))
        there = listing(server.root)
        remove = server.root / PARENT / new_uuid(1) / "remove"
        assert write_errno(remove, "1") == errno.EIO, name
        check_told(entries(server), "remove", f"{PARENT}/{new_uuid(1)}", traceback)
        assert listing(server.root) == there
        assert write(remove, "1") == 1
        assert listing(server.root) == empty


def _once(body: str) -> str:
    kind = "        if device.type.spec.suffix not in mdevs:\n            mdevs.add(device.type.spec.suffix)"
    return f"{kind}\n            {body}"


AVAILABLE = {
    **RAISES,
    "none": ("return None", False),
    "negative": ("return -1", False),
    "fraction": ("return 0.5", False),
    "truth": ("return True", False),
    "text": ("return '1'", False),
}


@BLOCKING
def test_available(faulty: Callable[[str], Server], mark: str) -> None:
    hook = f"{mark}\ndef available(self, device):\n{by_type(AVAILABLE)}\n    return 7"
    server = faulty(driver(types({"good": 0, **AVAILABLE}), hook, "def wrong(self, *_): return self.wrong()"))
    for name, (_, traceback) in AVAILABLE.items():
        kind = f"{TYPES}/faulty-{name}"
        assert errno_of(lambda kind=kind: read(server.root / kind / "available_instances")) == errno.EIO, name  # type: ignore[misc]
        check_told(entries(server), "available", kind, traceback)
    assert read(server.root / TYPES / "faulty-good/available_instances") == "7\n"


STRINGS = {
    **RAISES,
    "none": ("return None", False),
    "number": ("return 7", False),
    "bytes": ("return b'text'", False),
    "umlaut": (r"return 'm\u00fctty'", False),
    "newline": (r"return 'text\n'", False),
    "empty": ("return ''", False),
    "long": ("return 'x' * 4095", False),
}


@BLOCKING
def test_migration_string(faulty: Callable[[str], Server], mark: str) -> None:
    hook = f"{mark}\ndef migration_string(self, device):\n{by_type(STRINGS)}\n    return 'x' * 4094"
    server = faulty(driver(types({"good": 0, **STRINGS}), hook, "def wrong(self, *_): return self.wrong()"))
    for name, (_, traceback) in STRINGS.items():
        kind = f"{TYPES}/faulty-{name}"
        assert errno_of(lambda kind=kind: read(server.root / kind / "migration_version")) == errno.EIO, name  # type: ignore[misc]
        check_told(entries(server), "migration_string", kind, traceback)
    good = server.root / TYPES / "faulty-good/migration_version"
    assert read(good) == "x" * 4094 + "\n"
    assert write(good, read(good)) == 4095


CHECKS = {
    **RAISES,
    "none": ("return None", False),
    "truth": ("return True", False),
    "reasons": ("return Verdict(('because',))", True),
    "values": ("return Verdict.no([Reason('code', 'rule', source=5)])", True),
    "rule": ("return Verdict.no([Reason('code', None)])", True),
    "verdict_errno": ("return Verdict.no([Reason('code', 'rule')], errno=-22)", True),
}


@BLOCKING
def test_check(faulty: Callable[[str], Server], mark: str) -> None:
    """A check that breaks is no yes: EIO, and a verdict that says that the driver broke."""
    hook = f"{mark}\ndef check(self, device, source):\n{by_type(CHECKS)}\n    return Verdict()"
    string = "def migration_string(self, device): return 'x'"
    server = faulty(driver(types({"good": 0, **CHECKS}), hook, string, "def wrong(self, *_): return self.wrong()"))
    for name, (_, traceback) in CHECKS.items():
        kind = f"{TYPES}/faulty-{name}"
        assert write_errno(server.root / kind / "migration_version", "x\n") == errno.EIO, name
        check_told(entries(server), "check", kind, traceback)
        answer = verdict(server.root / kind / "mdevfs/last_verdict")
        assert (answer["compatible"], answer["errno"], codes(answer)) == (False, "EIO", ["driver-fault"])
    assert write(server.root / TYPES / "faulty-good/migration_version", "x\n") == 2
