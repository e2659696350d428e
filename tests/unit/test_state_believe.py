"""Reading any stream by its own description: the values of QEMU's analyzer, and what is wrong by name and offset."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mdevfs.state import believe, stream, values, vmdesc
from mdevfs.state.refusal import BadState
from tests.qemu import SCRIPTS, VMSTATE, needs_qemu, needs_scripts
from tests.qemu_machine import E1000, E1000E, VIRTIO, capture
from tests.unit.demo_stream import assembled, device, section, view, written

REAL = sorted(VMSTATE.glob("real-*.mig.gz"))


def shown(data: bytes) -> str:
    out = io.StringIO()
    values.write_json(out.write, believe.read(data).values())
    return out.getvalue()


def analyzed(data: bytes, folder: Path) -> str:
    """What QEMU's own tool prints."""
    file = folder / "stream"
    file.write_bytes(data)
    command = [sys.executable, str(SCRIPTS / "analyze-migration.py"), "-f", str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_streams_have_the_recorded_values(path: Path) -> None:
    wanted = json.loads(gzip.decompress(path.with_suffix("").with_suffix(".values.json.gz").read_bytes()))
    assert json.loads(shown(gzip.decompress(path.read_bytes()))) == wanted


@needs_scripts
@needs_qemu
@pytest.mark.parametrize(
    ("machine", "devices", "number"),
    [
        ("pc-q35-7.2", (E1000E, VIRTIO), 32),
        ("pc-q35-2.4", (E1000,), 29),
        ("pc-i440fx-1.6", (E1000,), 29),  # no configuration section, no footers
    ],
)
def test_a_whole_guest_is_shown_as_the_analyzer_shows_it(
    machine: str, devices: tuple[str, ...], number: int, tmp_path: Path
) -> None:
    data = capture(machine, *devices)
    found = believe.read(data)
    assert (len(found.sections), found.problems) == (number, [])
    assert found.machine == (machine if "q35" in machine else None)
    assert shown(data) == analyzed(data, tmp_path)


@needs_scripts
def test_what_we_write_is_shown_as_the_analyzer_shows_it(tmp_path: Path) -> None:
    data = written()
    assert shown(data) == analyzed(data, tmp_path)
    pair = json.loads(shown(data))["0000:00:03.0/demo (1)"]["pair"]
    assert pair[1] == {"low": "0x80 (-128)", "high": "0x00"}


def test_a_description_that_names_no_device_of_ours_is_believed() -> None:
    fields = [
        {"name": "a", "type": "uint16", "size": 2},
        {"name": "b", "type": "made up", "size": 3},
        {"name": "c", "array_len": 2, "type": "int8", "size": 1},
        {"name": "d", "size": 1},
        {"name": "e", "type": "uint8 equal", "size": 1},
    ]
    found = believe.read(assembled([section(b"\x12\x34abc\xff\1\0\x85")], device(fields)))
    assert found.problems == []
    assert json.loads(shown(found.data if isinstance(found.data, bytes) else b"")) == {
        "x (1)": {"a": "0x1234", "b": "61 62 63", "c": ["0xff (-1)", "0x01"], "d": "00", "e": "0x85 (-123)"}
    }


# -- damaged streams


def problems(data: bytes) -> list[tuple[str, str]]:
    return [(one.code, str(one)) for one in believe.read(data).problems]


def one_problem(data: bytes) -> tuple[str, str]:
    ((code, text),) = problems(data)
    return code, text


BODY = written().find(b"demo\0\0\0\0\0\0\0\3") + 12
END = written().find(b"\x7e\0\0\0\1\0\6")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda data: data[: BODY + 4] + data[BODY + 5 :], "state-footer-missing", "it is 1 bytes before"),
        (lambda data: data[: BODY + 4] + b"xy" + data[BODY + 4 :], "state-footer-missing", "it is 2 bytes behind"),
        (lambda data: data[:END] + data[END + 5 :], "state-footer-missing", "the next section begins there"),
        (lambda data: data[: END + 4] + b"\x09" + data[END + 5 :], "state-footer-differs", f"at offset {END}"),
        (lambda data: data[: BODY - 1] + b"\2" + data[BODY:], "state-description-wrong", "of version 2, its desc"),
        (
            lambda data: data.replace(b"\x05\x08demo/rss", b"\x05\x08demo/rsx"),
            "state-description-wrong",
            "0000:00:03.0/demo/demo/rss at offset",
        ),
        (
            lambda data: data.replace(b"extra\0\0\0\1", b"extra\0\0\0\2"),
            "state-description-wrong",
            "demo/admin/demo-queue/extra at offset",
        ),
        (lambda data: data + b"xyz", "state-too-long", f"at offset {len(written())}: 3 bytes follow"),
        (lambda data: data[: END + 5] + b"\x09" + data[END + 6 :], "state-section-type", "0x09"),
        (lambda data: data[: END + 5] + b"\2\0\0\0\x4d" + data[END + 5 :], "state-part-unknown", "section 77"),
        (lambda data: data[: END + 6] + b"?" + data[END + 6 :], "state-description-wrong", "1 bytes stand between"),
        (lambda data: data[: BODY + 20], "state-cut-short", f"demo at offset {BODY + 20}: the stream ends"),
        (lambda data: data[: BODY - 2], "state-cut-short", f"at offset {BODY - 2}"),
        (lambda data: data[: END + 5], "state-cut-short", "without an end mark"),
        (lambda data: data[:-9], "state-cut-short", "the description ends too early"),
    ],
)
def test_what_is_wrong_is_named(change: Any, code: str, said: str) -> None:
    *others, (found, text) = problems(change(written()))
    assert found == code
    assert said in text
    assert {one for one, _ in others} <= {"state-description-wrong"}  # a shift shows at the next subsection too


def test_a_section_that_is_a_byte_short_hides_no_other() -> None:
    short = section(b"abc", 1, "x")
    whole = section(b"\x01", 2, "y")
    about = [
        {"name": "x", "instance_id": 0, "vmsd_name": "x", "version": 1, "fields": [{"name": "a", "size": 4}]},
        {"name": "y", "instance_id": 0, "vmsd_name": "y", "version": 1, "fields": [{"name": "b", "size": 1}]},
    ]
    found = believe.read(assembled([short, whole], {"page_size": 4096, "devices": about}))
    assert [one.code for one in found.problems] == ["state-footer-missing"]
    assert json.loads(shown(bytes(found.data)))["y (2)"] == {"b": "01"}


def test_sections_that_nothing_describes_have_their_size() -> None:
    data = assembled(
        [section(b"\x7e\0\0\0\1\x05no", 1, "odd"), section(b"12", 2, "x")], device([{"name": "a", "size": 2}])
    )
    found = believe.read(data)
    assert [(one.name, one.size) for one in found.sections] == [("odd", 8), ("x", 2)]
    assert found.problems == []
    assert found.notes == ["odd instance 0 is not described: its bytes are passed over"]
    without = believe.read(assembled([section(b"123", 4, "odd")], None))
    assert ([one.size for one in without.sections], without.problems) == ([3], [])


def test_without_footers_nobody_knows_where_an_undescribed_section_ends() -> None:
    described, odd = section(b"12", 1, "x")[:-5], section(b"345", 2, "odd")[:-5]
    old = stream.head("")[:8]
    code, text = one_problem(assembled([described, odd], device([{"name": "a", "size": 2}]), old))
    assert (code, "odd at offset" in text) == ("state-opaque", True)


def test_memory_that_cannot_be_followed_is_said() -> None:
    ram = struct.pack(">BIB3sII", 1, 2, 3, b"ram", 0, 4) + struct.pack(">QB2sQ", 4096 | 4, 2, b"pc", 4096)
    unknown = ram + struct.pack(">Q", 0x40)
    code, text = one_problem(assembled([unknown], device([])))
    assert (code, "ram at offset" in text, "flags 0x40" in text) == ("state-opaque", True, True)
    whole = ram + struct.pack(">QB2sBQ4096sQ", 2, 2, b"pc", 7, 0x28, bytes(4096), 0x10) + b"\x7e\0\0\0\2"
    found = believe.read(assembled([whole], {"page_size": 4096, "devices": []}))
    assert (found.problems, json.loads(shown(bytes(found.data)))) == (
        [],
        {"ram (2)": {"section sizes": {"pc": "0x0000000000001000"}}},
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "state-cut-short"),
        (b"ELF", "state-cut-short"),
        (b"\x7fELF....", "state-not-a-stream"),
        (b"QEVM\0\0\0\2" + bytes(9), "state-file-version"),
    ],
)
def test_what_is_no_stream_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(BadState) as caught:
        believe.read(data)
    assert caught.value.code == code


# -- descriptions that nobody should believe


def nested(depth: int) -> dict[str, Any]:
    about: dict[str, Any] = {"name": "f", "type": "uint8", "size": 1}
    for _ in range(depth):
        about = {
            "name": "f",
            "type": "struct",
            "size": 1,
            "struct": {"vmsd_name": "s", "version": 1, "fields": [about]},
        }
    return about


HOSTILE = {
    "no number": {"name": "a", "type": "uint8", "size": "1"},
    "negative": {"name": "a", "type": "buffer", "size": -1},
    "true": {"name": "a", "type": "buffer", "size": True},
    "float": {"name": "a", "type": "buffer", "size": 1.0},
    "huge": {"name": "a", "type": "buffer", "size": 1 << 60},
    "no name": {"type": "uint8", "size": 1},
    "a name that hides": {"name": "a\x1b[2J", "type": "uint8", "size": 1},
    "half a character": {"name": "\ud800", "type": "uint8", "size": 1},
    "a type that is none": {"name": "a", "type": ["uint8"], "size": 1},
    "an uint8 of two bytes": {"name": "a", "type": "uint8", "size": 2},
    "many of nothing": {"name": "a", "array_len": 1 << 40, "type": "buffer", "size": 0},
    "none of it": {"name": "a", "array_len": 0, "type": "buffer", "size": 1},
    "an element before the first": {"name": "a", "index": 1, "type": "buffer", "size": 1},
    "a struct that is none": {"name": "a", "type": "struct", "struct": 7, "size": 1},
    "a struct of nothing": {"name": "a", "type": "struct", "size": 1},
    "a struct of another size": {"name": "a", "type": "struct", "struct": {"fields": []}, "size": 1},
    "deep": nested(40),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_description_that_is_impossible_is_named_and_its_bytes_passed_over(name: str) -> None:
    found = believe.read(assembled([section(b"1")], device([HOSTILE[name]])))
    assert [one.code for one in found.problems] == ["state-description-wrong"]
    assert "devices[0] (x): " in str(found.problems[0])
    assert str(found.problems[0]).isprintable()
    assert [one.size for one in found.sections] == [1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "no JSON"),
        (b'{"devices": ' + b"[" * 5000, "nested too deeply"),
        (b'{"page_size": 4096}', "devices is no list"),
        (b'{"devices": [' + b"{}," * 200_000 + b"{}]}", "MiB of memory"),
        (b'{"devices": "' + b"\xc3\xa4" + b'"}', "not ASCII"),
        (b'{"devices": [], "x": ' + b"9" * 5000 + b"}", "no JSON"),
        (b'{"devices": [], "configuration": []}', "configuration is no object"),
        (b'{"devices": [1]}', "devices[0]: it is no object"),
    ],
)
def test_text_that_is_no_description_is_named(text: bytes, why: str) -> None:
    code, said = one_problem(assembled([section(b"1")], text))
    assert (code, why in said) == ("state-description-wrong", True)


def test_bytes_that_are_not_there_are_not_promised() -> None:
    code, text = one_problem(assembled([section(b"1")], device([{"name": "a", "type": "buffer", "size": 1 << 40}])))
    assert (code, f"{1 << 40} bytes are wanted" in text) == ("state-cut-short", True)


def test_values_are_no_more_than_the_bytes_allow() -> None:
    """A struct of one byte and very many fields of none, very often."""
    fields = [{"name": f"f{index}", "type": "buffer", "size": 0} for index in range(2000)]
    inner = {"vmsd_name": "s", "version": 1, "fields": [*fields, {"name": "b", "type": "uint8", "size": 1}]}
    about = {"name": "a", "array_len": 9000, "type": "struct", "struct": inner, "size": 1}
    code, text = one_problem(assembled([section(bytes(9000))], device([about])))
    assert (code, "values in 9000 bytes" in text) == ("state-description-wrong", True)


def test_two_of_one_name_are_no_description() -> None:
    one = {"name": "a", "type": "uint8", "size": 1}
    assert "described twice" in one_problem(assembled([section(b"12")], device([one, one])))[1]
    twice = device([one])
    twice["devices"] = [*twice["devices"], *twice["devices"]]  # type: ignore[misc]
    assert "described twice" in one_problem(assembled([section(b"1")], twice))[1]


def test_the_description_is_found_whatever_its_length() -> None:
    """Also where a byte of its length is a brace, which QEMU's analyzer takes for the beginning."""
    text = json.dumps(device([{"name": "a", "type": "uint8", "size": 1}])).encode()
    for size in (0x7B, 0x17B, 0x7B00, 0x10000):
        data = assembled([section(b"1")], text + b" " * (size - len(text)) if size > len(text) else text)
        assert vmdesc.find(data) > 0
        assert problems(data) == []


def test_a_device_that_was_sent_twice_shows_what_counts() -> None:
    data = written(view(7))
    again = written(view(9))
    begin, end = data.find(b"\4\0\0\0\1"), END + 5
    twice = data[:end] + again[begin:]
    assert json.loads(shown(twice))["0000:00:03.0/demo (1)"]["ctrl"] == "0x00000009"
