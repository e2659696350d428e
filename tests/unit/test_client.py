"""The client on trees of plain directories. What answers is real: /dev/null takes a string, /dev/full refuses it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevfs.client import Answer, Kind, SourceString, check, identify
from mdevfs.client.answer import parse_verdict
from mdevfs.errors import InputError, MachineError

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
STRING = "kernel.org/mtty,ports=1"
REASON = {"code": "value-differs", "rule": "must be equal", "side": "target", "parameter": "ports"}


class Host:
    """A parent with the types mtty-1 and mtty-2 and one mdev of mtty-1; every migration_version reads STRING."""

    def __init__(self, root: Path) -> None:
        self.parent = root / "devices/virtual/mtty/mtty"
        self.types = self.parent / "mdev_supported_types"
        self.mdev = self.parent / UUID
        (root / "class/mtty").mkdir(parents=True)
        (root / "bus/mdev/devices").mkdir(parents=True)
        for directory in (self.types / "mtty-1", self.types / "mtty-2", self.mdev):
            directory.mkdir(parents=True)
            (directory / "migration_version").write_text(STRING + "\n")
        (self.parent / "subsystem").symlink_to(root / "class/mtty")
        (self.mdev / "mdev_type").symlink_to("../mdev_supported_types/mtty-1")
        self.link = root / "bus/mdev/devices" / UUID
        self.link.symlink_to(f"../../../devices/virtual/mtty/mtty/{UUID}")

    def answers_with(self, device: str, directory: Path | None = None) -> Path:
        """Puts a device node in the place of a migration_version, the mdev's unless said."""
        directory = directory or self.mdev
        (directory / "migration_version").unlink()
        (directory / "migration_version").symlink_to(device)
        return directory

    def file(self, name: str, text: str = "") -> Path:
        path = self.mdev / "mdevfs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path


@pytest.fixture
def a(tmp_path: Path) -> Host:
    return Host(tmp_path / "a")


@pytest.fixture
def b(tmp_path: Path) -> Host:
    return Host(tmp_path / "b")


def codes(answer: Answer) -> list[str]:
    return [reason.code for reason in answer.reasons]


def verdict(compatible: bool, **changes: object) -> str:
    reasons = [] if compatible else [REASON]
    found = {"schema": 1, "seq": 7, "source": STRING, "compatible": compatible, "errno": None, "reasons": reasons}
    return json.dumps(found | changes)


# -- what a path is


def test_identify(a: Host) -> None:
    parent = identify("SOURCE", a.parent)
    kind = identify("SOURCE", a.types / "mtty-2")
    mdev = identify("SOURCE", a.link)
    assert [place.kind for place in (parent, kind, mdev)] == [Kind.DEVICE, Kind.TYPE, Kind.MDEV]
    assert [place.type_id for place in (parent, kind, mdev)] == [None, "mtty-2", "mtty-1"]
    assert mdev.directory == a.mdev
    assert mdev.attribute.read_text() == STRING + "\n"


def test_identify_an_mdev_without_its_type_link(a: Host) -> None:
    (a.mdev / "mdev_type").unlink()
    place = identify("SOURCE", a.mdev)
    assert (place.kind, place.type_id) == (Kind.MDEV, None)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", "No such file or directory"),
        (f"devices/virtual/mtty/mtty/{UUID}/migration_version", "a file"),
        ("devices/virtual/mtty/mtty/mdev_supported_types", "expected one of them: mtty-1, mtty-2"),
        ("bus/mdev/devices", "a directory of no device"),
        ("loop", "Too many levels of symbolic links|links lead in a circle"),
        ("no\x1b[31mwhere", r"no\\x1b\[31mwhere"),
    ],
)
def test_a_path_that_is_nothing_of_ours(a: Host, tmp_path: Path, path: str, said: str) -> None:
    (tmp_path / "a/loop").symlink_to("loop")
    with pytest.raises(InputError, match=said):
        identify("SOURCE", tmp_path / "a" / path)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check(tmp_path / "x", tmp_path / "y")
    assert [mistake.split()[0] for mistake in caught.value.mistakes] == ["SOURCE", "TARGET"]


# -- the caller's rules


def test_the_write_succeeds(a: Host, b: Host) -> None:
    answer = check(a.link, b.answers_with("/dev/null"))
    assert answer == Answer(True, STRING, str(b.mdev), str(a.link))


def test_the_write_fails(a: Host, b: Host) -> None:
    answer = check(a.mdev, b.answers_with("/dev/full"))
    assert (answer.compatible, answer.errno, codes(answer)) == (False, "ENOSPC", ["refused"])
    assert "ENOSPC" in answer.reasons[0].rule


def test_a_plain_file_is_no_target_and_is_left_alone(a: Host, b: Host) -> None:
    asked = b.file("check")
    with pytest.raises(InputError, match="plain file"):
        check(SourceString(b"something else"), b.mdev)
    assert (b.mdev / "migration_version").read_text() == STRING + "\n"
    assert asked.read_text() == ""


def test_attribute_missing_on_both_sides(a: Host, b: Host) -> None:
    (b.mdev / "migration_version").unlink()
    answer = check(a.parent, b.mdev)
    assert [(reason.code, reason.side) for reason in answer.reasons] == [
        ("no-attribute", "source"),
        ("no-attribute", "target"),
    ]
    assert "it is a parent" in answer.reasons[0].rule
    assert "driver never migrates" in answer.reasons[1].rule


def test_attribute_missing_at_the_target_of_a_string(b: Host) -> None:
    (b.mdev / "migration_version").unlink()
    assert codes(check(SourceString.from_text(STRING), b.mdev)) == ["no-attribute"]


def test_the_read_fails(a: Host, b: Host) -> None:
    answer = check(a.answers_with("/proc/self/mem"), b.answers_with("/dev/null"))
    assert (codes(answer), answer.errno, answer.source) == (["source-read-failed"], "EIO", None)


def test_the_caller_may_not_read(a: Host, b: Host) -> None:
    write_only = "/sys/bus/cpu/uevent"
    if not os.path.exists(write_only):
        pytest.skip(f"{write_only} is missing")
    with pytest.raises(MachineError, match="cannot read the source"):
        check(a.answers_with(write_only), b.answers_with("/dev/null"))


READ_ONLY = "/sys/kernel/uevent_seqnum"


def test_the_caller_may_not_write(a: Host, b: Host) -> None:
    with pytest.raises(MachineError, match="cannot write to the target"):
        check(a.mdev, b.answers_with(READ_ONLY))


@pytest.mark.parametrize("compatible", [True, False])
def test_the_caller_may_ask_and_not_write(b: Host, compatible: bool) -> None:
    b.answers_with(READ_ONLY)
    b.file("check")
    answer = check(SourceString.from_text(verdict(compatible, errno="EINVAL")), b.mdev)
    assert answer.compatible is compatible
    assert codes(answer) == ([] if compatible else ["value-differs"])
    assert "mdevfs/check alone" in answer.notes[-1]


# -- rule 0


@pytest.mark.parametrize("source", ["type", "mdev", "parent"])
def test_types_differ(a: Host, b: Host, source: str) -> None:
    target = b.answers_with("/dev/null", b.types / "mtty-2")
    answer = check({"type": a.types / "mtty-1", "mdev": a.mdev, "parent": a.parent}[source], target)
    assert codes(answer)[0] == "types-differ"
    assert (answer.reasons[0].source, answer.reasons[0].target) == (None if source == "parent" else "mtty-1", "mtty-2")
    assert answer.source is None


def test_a_type_as_source_asks_for_the_same_type(a: Host, b: Host) -> None:
    b.answers_with("/dev/null")
    assert check(a.types / "mtty-1", b.mdev).compatible
    assert codes(check(a.types / "mtty-2", b.mdev)) == ["types-differ"]


def test_an_mdev_against_a_type_reads_the_type(a: Host, b: Host) -> None:
    (a.types / "mtty-1/migration_version").write_text("the type's\n")
    answer = check(a.mdev, b.answers_with("/dev/null", b.types / "mtty-1"))
    assert answer.compatible
    assert answer.source == "the type's"
    assert "compared as types" in answer.notes[0]


def test_two_mdevs_may_be_of_different_types(a: Host, b: Host) -> None:
    (b.mdev / "mdev_type").unlink()
    (b.mdev / "mdev_type").symlink_to("../mdev_supported_types/mtty-2")
    assert check(a.mdev, b.answers_with("/dev/null")).compatible


def test_a_string_against_a_type_says_what_was_not_tested(b: Host) -> None:
    answer = check(SourceString.from_text(STRING), b.answers_with("/dev/null", b.types / "mtty-1"))
    assert answer.compatible
    assert "rule 0" in answer.notes[0]


# -- hostile strings


@pytest.mark.parametrize("data", [b"", b"\n"])
def test_an_empty_string_is_never_a_yes(b: Host, data: bytes) -> None:
    answer = check(SourceString(data), b.answers_with("/dev/null"))
    assert (answer.compatible, codes(answer)) == (False, ["string-empty"])


def test_a_string_past_a_page_is_never_a_yes(a: Host, b: Host) -> None:
    b.answers_with("/dev/null")
    (a.mdev / "migration_version").write_bytes(b"a" * 4097)
    assert codes(check(a.mdev, b.mdev)) == ["string-too-long"]
    (a.mdev / "migration_version").write_bytes(b"a" * 4096)
    assert check(a.mdev, b.mdev).compatible


def test_the_read_of_an_endless_source_is_bounded(a: Host, b: Host) -> None:
    assert codes(check(a.answers_with("/dev/zero"), b.answers_with("/dev/null"))) == ["string-too-long"]


def test_text_keeps_every_byte() -> None:
    every = bytes(range(256))
    assert SourceString(every).text.encode("latin-1") == every
    assert SourceString.from_text(os.fsdecode(b"\xff\n")).data == b"\xff\n"
    assert SourceString(b"one\n\n").bare == b"one\n"


# -- explanations


def test_check_explains_a_refusal(b: Host) -> None:
    # A plain file called check reads back what was written: the string is its own verdict.
    b.answers_with("/dev/full")
    b.file("check")
    answer = check(SourceString.from_text(verdict(False)), b.mdev)
    assert (codes(answer), answer.errno, answer.notes) == (["value-differs"], "ENOSPC", ())
    assert answer.reasons[0].parameter == "ports"


@pytest.mark.parametrize(("device", "compatible"), [("/dev/full", True), ("/dev/null", False)])
def test_answers_that_differ_are_a_no(b: Host, device: str, compatible: bool) -> None:
    b.answers_with(device)
    b.file("check")
    answer = check(SourceString.from_text(verdict(compatible)), b.mdev)
    assert not answer.compatible
    assert codes(answer)[0] == "answers-differ"


def test_junk_from_check_is_noted_and_the_write_decides(b: Host) -> None:
    b.answers_with("/dev/null")
    b.file("check")
    answer = check(SourceString.from_text(STRING), b.mdev)
    assert answer.compatible
    assert "gave no verdict" in answer.notes[0]


def test_an_old_last_verdict_explains_nothing(a: Host, b: Host) -> None:
    b.answers_with("/dev/full")
    b.file("last_verdict", verdict(False))
    assert codes(check(a.mdev, b.mdev)) == ["refused"]


JUNK = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[" * 100_000,
    b'{"schema": 1, "seq": ' + b"9" * 5000 + b"}",
    b'{"schema": 2}',
    b'{"schema": 1, "reasons": {}}',
    verdict(True, seq=True).encode(),
    verdict(True).replace('"compatible": true', '"compatible": 1').encode(),
    verdict(True, errno=22).encode(),
    verdict(False, reasons=["no"]).encode(),
    verdict(False, reasons=[REASON | {"side": "nobody"}]).encode(),
    verdict(False, reasons=[REASON | {"code": None}]).encode(),
]


@pytest.mark.parametrize("data", JUNK, ids=range(len(JUNK)))
def test_what_is_no_verdict(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_verdict(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.sampled_from(["schema", "seq", "reasons", "code", "source"]), s),
        max_leaves=8,
    )
)
def test_a_verdict_parses_or_is_a_value_error(found: object) -> None:
    try:
        parsed = parse_verdict(json.dumps(found).encode())
    except ValueError:
        return
    assert isinstance(parsed.compatible, bool)


def test_the_answer_as_json_has_the_shape_of_a_verdict(b: Host) -> None:
    b.answers_with("/dev/full")
    b.file("check")
    shown = check(SourceString.from_text(verdict(False)), b.mdev).as_dict()
    again = parse_verdict(json.dumps(shown | {"seq": 1}).encode())
    assert [reason.code for reason in again.reasons] == ["value-differs"]
    assert again.errno == "ENOSPC"
