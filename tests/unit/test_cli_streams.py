"""`mdevfs state emit`, `show` and `diff`: a command line makes a stream, and streams are read and compared."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mdevfs.cli.main import run
from mdevfs.state import believe
from tests.qemu import VMSTATE, judge, needs_qemu, needs_scripts
from tests.unit.demo_stream import assembled, device, section, view, written

COMMAND = [sys.executable, "-c", "from mdevfs.cli.main import main; main()"]
DRIVER = '''
from mdevfs.vendor import U8, U16, U32, DeviceModel, Int, MdevType, VendorDriver, VMState
from mdevfs.vendor import Settings as Base


class Nic(VendorDriver):
    """A NIC with state."""

    api, name, types = 1, "nic", [MdevType("a"), MdevType("b", params={"size": 2})]
    guest_address = "0000:00:03.0"
    size = Int("size", init=1, off=0, allowed=range(9))
    model = DeviceModel("example.com/nic", params=[size], versions={"2": {"size": 4}})
    machine_types = {"pc-2": {}, "pc-1": {}}
    state = VMState("nic", 2, 1, fields=[U32("ctrl"), U8("ring", num="size"), U16("later", since=2)])

    class Settings(Base):
        queues: int = 1
        speeds: list[int] = [1]
'''


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a driver file, two streams, and one that is a byte short."""
    (tmp_path / "nic.py").write_text(DRIVER)
    (tmp_path / "a.mig").write_bytes(written(view(7)))
    (tmp_path / "b.mig").write_bytes(written(view(9, rss=False), "pc-2"))
    (tmp_path / "short.mig").write_bytes(assembled([section(b"12")], device([{"name": "a", "size": 3}])))
    return tmp_path


def emit(files: Path, *words: str, name: str = "out.mig") -> believe.Stream:
    output = files / name
    assert run(["state", "emit", "--driver", str(files / "nic.py"), "-o", str(output), *words]) == 0
    return believe.read(output.read_bytes())


# -- emit


def test_the_same_words_and_seed_give_the_same_stream(files: Path) -> None:
    one, again, other = (emit(files, "--seed", seed) for seed in ("1", "1", "2"))
    assert one.data == again.data != other.data
    (only,) = one.sections
    assert (one.machine, only.name, only.version, only.size, one.problems) == ("none", "0000:00:03.0/nic", 2, 7, [])
    assert only.device is not None
    assert only.device.says == "example.com/nic,size=1,state-version=2"


def test_without_a_seed_it_is_as_after_reset(files: Path) -> None:
    assert emit(files).data[-200:].count(b"later") == 1
    (only,) = emit(files).sections
    assert only.body + only.size < len(emit(files).data)
    assert emit(files).data[only.body : only.body + only.size] == bytes(7)


@pytest.mark.parametrize(
    ("words", "size", "version", "says"),
    [
        (["--type", "nic-b"], 8, 2, "size=2"),
        (["--version", "2"], 8, 1, "size=4"),
        (["--version", "2", "--param", "size=8"], 12, 1, "size=8"),
        (["--param", "state-version=1"], 5, 1, "size=1"),
    ],
)
def test_the_words_say_what_the_device_is(files: Path, words: list[str], size: int, version: int, says: str) -> None:
    (only,) = emit(files, *words).sections
    assert (only.size, only.version) == (size, version)
    assert only.device is not None
    assert says in str(only.device.says)


@pytest.mark.parametrize(
    ("words", "machine", "name"),
    [
        (["--machine", "pc-2"], "pc-2", "0000:00:03.0/nic"),
        (["--address", "0000:00:05.0"], "none", "0000:00:05.0/nic"),
        (["--address", ""], "none", "nic"),
    ],
)
def test_machine_and_address_are_the_streams(files: Path, words: list[str], machine: str, name: str) -> None:
    found = emit(files, *words)
    assert (found.machine, [one.name for one in found.sections]) == (machine, [name])


def test_all_mistakes_are_told_at_once_with_near_misses(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--type", "nic-c", "--version", "3", "--param", "sise=1", "--machine", "pc-3", "--setting", "queue=1"]
    words += ["--setting", "speeds"]
    output = files / "out.mig"
    assert run(["state", "emit", "--driver", str(files / "nic.py"), "-o", str(output), *words]) == 2
    said = capsys.readouterr().err.splitlines()
    near = ('did you mean "pc-', "NAME=VALUE", 'did you mean "queues"', 'did you mean "nic-', "2", "did you mean size?")
    assert len(said) == len(near)
    assert all(hint in line for hint, line in zip(near, said, strict=True))
    assert not output.exists()


@pytest.mark.parametrize("value", ["queues=2", "speeds=[1, 2]"])
def test_settings_are_texts_or_toml(files: Path, value: str) -> None:
    assert emit(files, "--setting", value).problems == []


def test_a_driver_that_does_not_migrate_has_no_state(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["state", "emit", "--driver", "mdpy", "-o", str(tmp_path / "x")]) == 2
    assert "does not migrate" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_whole_with_the_callers_mode(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0o027)
    try:
        emit(files, name="mode.mig")
    finally:
        os.umask(before)
    assert stat.S_IMODE((files / "mode.mig").stat().st_mode) == 0o640
    assert run(["state", "emit", "--driver", "mtty", "-o", str(files / "no" / "x")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_standard_output_and_input_join_the_commands(files: Path) -> None:
    script = f"{shlex.join(COMMAND)} state emit --driver mtty --seed 5 -o - | {shlex.join(COMMAND)} state show -"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "nr_ports = 0x00000001" in done.stdout
    assert "the bare state of a kernel driver" in done.stdout
    assert done.stderr == ""


# -- show


def test_show_names_devices_fields_and_values(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "show", str(files / "a.mig")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for line in (
        "machine type pc, 1 section, ",
        "0000:00:03.0/demo: version 3, ",
        "  ctrl = 0x00000007",
        "  timer = -1",
        "  sign = [0xffffffff (-1), 0xfffffffe (-2), 0x00000003]",
        "  ring = 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f ... (70 bytes)",
        "  queue[1] (demo-queue version 1)",
        "    demo-queue/extra (version 1)",
        "    table = [0x00000000, ",
    ):
        assert line in out


def test_show_says_how_long_arrays_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = [
        {"name": "none", "array_len": 40, "type": "uint8", "size": 1},
        {"name": "some", "array_len": 40, "type": "uint8", "size": 1},
        {"name": "all", "array_len": 40, "type": "uint8", "size": 1},
        {
            "name": "many",
            "array_len": 20,
            "type": "struct",
            "size": 0 + 1,
            "struct": {"fields": [{"name": "b", "size": 1}]},
        },
    ]
    body = bytes(40) + b"\0\1" + bytes(38) + b"\7" * 40 + bytes(20)
    (tmp_path / "x").write_bytes(assembled([section(body)], device(fields)))
    assert run(["state", "show", str(tmp_path / "x")]) == 0
    out = capsys.readouterr().out
    assert "none = 40 elements, all 0\n" in out
    assert "some = 40 elements, 0 but for [1] 0x01\n" in out
    assert "[15] 0x07 and 24 more\n" in out
    assert "... 4 more of many\n" in out


def test_show_of_a_damaged_stream_shows_the_rest_and_says_no(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "show", "--json", str(files / "short.mig")]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"x (1)": {"a": "31 32 7e"}}
    assert "short.mig: state-footer-missing: x at offset " in err
    assert "mdevfs explain state-footer-missing" in err


def test_a_streams_own_text_does_nothing_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_bytes(assembled([section(b"1", name="a\x1b[2Jb")], None))
    assert run(["state", "show", str(tmp_path / "x")]) == 0
    out, err = capsys.readouterr()
    assert "a\\x1b[2Jb" in out
    assert (out + err).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("data", "said"),
    [(None, "No such file"), (b"", "state-cut-short"), (b"\x7fELF\1\1\1\0", "state-not-a-stream: at offset 0")],
)
def test_what_is_no_stream_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes | None, said: str
) -> None:
    path = tmp_path / "x"
    if data is not None:
        path.write_bytes(data)
    assert run(["state", "show", str(path)]) == 2
    assert said in capsys.readouterr().err


@needs_scripts
def test_qemus_analyzer_reads_what_emit_writes_as_show_does(files: Path) -> None:
    emit(files, "--seed", "1", "--version", "2")
    show = f"{shlex.join(COMMAND)} state show --json"
    *checks, last = judge("accept_stream.py", "--mutate", "--product-values", show, files / "out.mig")
    assert (len(checks) > 10, last) == (True, "PASS (0 failure(s))")


@needs_scripts
@pytest.mark.parametrize("machine", ["7.2", "2.4"])
def test_qemus_analyzer_reads_real_streams_as_show_does(machine: str, tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(gzip.decompress((VMSTATE / f"real-e1000-pc-q35-{machine}.mig.gz").read_bytes()))
    show = f"{shlex.join(COMMAND)} state show --json"
    assert judge("accept_stream.py", "--product-values", show, path)[-1] == "PASS (0 failure(s))"


@needs_scripts
@needs_qemu
@pytest.mark.parametrize("machine", ["pc-q35-7.2", "pc-q35-2.11", "pc-q35-2.4"])
def test_qemu_itself_takes_what_emit_writes(machine: str, tmp_path: Path) -> None:
    path = tmp_path / "stream"
    assert run(["state", "emit", "--driver", "e1000", "--machine", machine, "--seed", "3", "-o", str(path)]) == 0
    show = f"{shlex.join(COMMAND)} state show --json"
    assert judge("accept_stream.py", "--product-values", show, path)[-1] == "PASS (0 failure(s))"
    assert judge("accept_qemu_load.py", "--machine", machine, path)[-1] == "PASS (0 failure(s))"


# -- diff


def differences(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, Any]:
    code = run(["state", "diff", "--json", *map(str, words)])
    return code, json.loads(capsys.readouterr().out)


def test_a_stream_differs_not_from_itself(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert differences(capsys, files / "a.mig", files / "a.mig") == (
        0,
        {"schema": 1, "differences": [], "same": True, "complete": True},
    )
    assert run(["state", "diff", str(files / "a.mig"), str(files / "a.mig")]) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_differences_have_both_values_and_both_offsets(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = differences(capsys, files / "a.mig", files / "b.mig")
    assert (code, found["same"]) == (1, False)
    machine, ctrl, rss = found["differences"]
    assert (machine["kind"], machine["a"], machine["b"]) == ("machine", "pc", "pc-2")
    a, b = ((files / name).read_bytes() for name in ("a.mig", "b.mig"))
    assert (ctrl["kind"], ctrl["field"], ctrl["a"], ctrl["b"]) == ("value", "ctrl", "0x00000007", "0x00000009")
    assert (a[ctrl["offset_a"] + 3], b[ctrl["offset_b"] + 3]) == (7, 9)
    assert (rss["kind"], rss["field"], rss["a"], rss["b"]) == ("subsection", "demo/rss", "version 1, 68 bytes", None)
    assert run(["state", "diff", str(files / "b.mig"), str(files / "a.mig")]) == 1
    assert "0000:00:03.0/demo/demo/rss (subsection)\n  A: not there\n  B: version 1" in capsys.readouterr().out


def test_only_the_layout_is_compared_when_asked(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = differences(capsys, "--layout", files / "a.mig", files / "b.mig")
    assert (code, [one["kind"] for one in found["differences"]]) == (1, ["subsection"])
    (files / "c.mig").write_bytes(written(view(9), "pc-2"))
    assert differences(capsys, "--layout", files / "a.mig", files / "c.mig")[0] == 0


def test_every_kind_of_difference_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def made(name: str, fields: list[Any], body: bytes, version: int = 1) -> Path:
        path = tmp_path / name
        path.write_bytes(assembled([section(body, version=version)], device(fields, version=version)))
        return path

    number = [{"name": "n", "type": "uint16", "size": 2}]
    ring = [{"name": "r", "type": "buffer", "size": 40}]
    table = [{"name": "t", "array_len": 40, "type": "uint8", "size": 1}]
    pair = {"vmsd_name": "p", "version": 1, "fields": number}
    pairs = [{"name": "p", "array_len": 2, "type": "struct", "size": 2, "struct": pair}]
    one = made("number", number, b"\1\2")
    cases = [
        (one, made("value", number, b"\1\3"), "value", "0x0102", "0x0103"),
        (one, made("signed", [{**number[0], "type": "int16"}], b"\1\2"), "layout", "uint16 0x0102", "int16 0x0102"),
        (one, made("longer", ring, bytes(40)), "field", "uint16 0x0102", None),
        (one, made("version", number, b"\1\2", 2), "version", "version 1", "version 2"),
        (
            made("ring", ring, bytes(40)),
            made("ring2", ring, bytes(30) + b"\5" + bytes(9)),
            "value",
            "[30] 00 00 00 00 00 00 00 00 00 00",
            "[30] 05 00 00 00 00 00 00 00 00 00",
        ),
        (
            made("table", table, bytes(40)),
            made("table2", table, bytes(38) + b"\5\6"),
            "value",
            "[38] 0x00 [39] 0x00",
            "[38] 0x05 [39] 0x06",
        ),
        (made("pairs", pairs, b"\1\2\3\4"), made("pairs2", pairs, b"\1\2\3\5"), "value", "0x0304", "0x0305"),
    ]
    for a, b, kind, left, right in cases:
        _, found = differences(capsys, a, b)
        first = found["differences"][0]
        assert (first["kind"], first["a"], first["b"]) == (kind, left, right), b
    assert found["differences"][0]["field"] == "p[1]/n"
    _, found = differences(capsys, one, tmp_path / "longer")
    assert [(one["kind"], one["field"]) for one in found["differences"]] == [("field", "n"), ("field", "r")]


def test_bytes_that_nothing_describes_are_compared_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, body in (("a", b"12"), ("b", b"13"), ("c", b"123")):
        (tmp_path / name).write_bytes(assembled([section(body)], None))
    _, found = differences(capsys, tmp_path / "a", tmp_path / "b")
    assert [(one["a"], one["b"]) for one in found["differences"]] == [("31 32", "31 33")]
    _, found = differences(capsys, tmp_path / "a", tmp_path / "c")
    assert [one["kind"] for one in found["differences"]] == ["layout"]


def test_of_a_damaged_stream_no_is_said(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = differences(capsys, files / "short.mig", files / "short.mig")
    assert (code, found["differences"], found["same"], found["complete"]) == (1, [], False, False)


def test_standard_input_is_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "diff", "-", "-"]) == 2
    assert "only one" in capsys.readouterr().err
