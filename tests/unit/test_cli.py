"""The command line: names, messages, exit codes; commands that need a mount are tested with the mounts."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mdevfs
from mdevfs.cli.main import COMMANDS, run

TYPE = "mdev_supported_types/mtty-1"


def device(parent: Path, answers: str) -> str:
    """A type whose migration_version is a device node: /dev/null takes strings, /dev/full refuses them."""
    (parent / TYPE).mkdir(parents=True)
    (parent / TYPE / "migration_version").symlink_to(answers)
    return str(parent / TYPE)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


# -- finding the command


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = """if True:
        import sys
        from mdevfs.cli.main import run
        run(sys.argv[1:])
        print(sorted({"typer", "attrs", "pydantic", "trio", "pyfuse3"} & set(sys.modules)))
    """
    assert python(code, "--help").stdout.endswith("\n[]\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"mdevfs {mdevfs.__version__}\n"


def test_no_command_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    caught = capsys.readouterr()
    assert (caught.out, caught.err.split()[:2]) == ("", ["Usage:", "mdevfs"])


@pytest.mark.parametrize(
    ("name", "said"),
    [("chek", "no command chek; did you mean check?"), ("\x1b[1m", "no command \\x1b[1m; see mdevfs --help")],
)
def test_unknown_command(capsys: pytest.CaptureFixture[str], name: str, said: str) -> None:
    assert run([name]) == 2
    assert capsys.readouterr().err == f"mdevfs: {said}\n"


def test_a_group_without_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host"]) == 2
    assert capsys.readouterr().err == "mdevfs: Missing command.\nmdevfs: see mdevfs host --help\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: mdevfs {name} ")
    assert f"mdevfs {name}" in shown.partition("\n")[2]


def test_an_option_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "--jsn"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("mdevfs: No such option: --jsn")
    assert lines[1] == "mdevfs: see mdevfs explain --help"


def test_a_reader_that_leaves_gives_no_traceback() -> None:
    code = "from mdevfs.cli.main import main; main()"
    command = f"{sys.executable} -c '{code}' explain | true"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


# -- check


def test_check_yes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["check", "--string", "a string", device(tmp_path, "/dev/null")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "compatible"


def test_check_no_with_a_reason_and_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["check", "--string", "a string", device(tmp_path, "/dev/full")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "incompatible"
    assert lines[1] == "  refused: the target answered ENOSPC and gave no reason"
    assert lines[2].startswith("    mend (both): ")
    assert lines[-1] == "  more: mdevfs explain refused"


def test_check_reads_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"from\xffafar\n")))
    assert run(["check", "-", device(tmp_path, "/dev/full"), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["source"], shown["errno"], shown["compatible"]) == ("from\xffafar", "ENOSPC", False)
    assert [reason["code"] for reason in shown["reasons"]] == ["refused"]


def test_check_escapes_what_a_tree_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    reason = {"code": "x\x1b", "rule": "[red]\x1b[31m", "side": "both", "source": "\n", "mend": "\x07"}
    verdict = {"schema": 1, "seq": 1, "source": "", "compatible": False, "errno": None, "reasons": [reason]}
    target = Path(device(tmp_path, "/dev/full"))
    (target / "mdevfs").mkdir()
    (target / "mdevfs/check").touch()  # reads back what was written: the string is its own verdict
    assert run(["check", "--string", json.dumps(verdict), str(target)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ['  x\\x1b: [red]\\x1b[31m (source "\\x0a")', "    mend (both): \\x07"]


@pytest.mark.parametrize("arguments", [["one"], ["a", "b", "c"], ["--string", "text", "a", "b"]])
def test_check_with_too_few_or_too_many_paths(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(["check", *arguments]) == 2
    assert capsys.readouterr().err.startswith("mdevfs: check takes ")


def test_check_names_every_wrong_path(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["check", str(tmp_path / "x"), str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:2] for line in lines] == [["mdevfs:", "SOURCE"], ["mdevfs:", "TARGET"]]


def test_check_without_the_right_to_write(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["check", "--string", "a string", device(tmp_path, "/sys/kernel/uevent_seqnum")]) == 3
    assert "cannot write to the target" in capsys.readouterr().err


# -- explain


def test_explain_lists_the_codes_with_the_drivers_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"types-differ", "value-differs", "i915-format"} <= set(listed)
    assert len(listed) == len(set(listed))


def test_explain_prints_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "no-instances"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("no-instances: The parent has no room")
    assert "\nMend (at the target):\n    Remove an mdev" in shown


def test_explain_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "refused", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert run(["explain", "--json"]) == 0
    pages = json.loads(capsys.readouterr().out)["pages"]
    assert {key: value for key, value in one.items() if key != "schema"} in pages


@pytest.mark.parametrize(("code", "hint"), [("valu-differs", "did you mean value-differs?"), ("zz", "lists all codes")])
def test_explain_an_unknown_code(capsys: pytest.CaptureFixture[str], code: str, hint: str) -> None:
    assert run(["explain", code]) == 2
    assert hint in capsys.readouterr().err


# -- doctor


def test_doctor_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["doctor", "--json"])
    assert code == (0 if json.loads(capsys.readouterr().out)["ok"] else 3)
