"""The README is executed: its files are written, its ```console blocks are re-run, in its order, and compared."""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import field, frozen

from mdevfs.cli.main import COMMANDS
from tests.mount.conftest import why_not
from tests.mount.server import MDEVFS, mounts

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?(?: needs=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "=== end of the output ==="
LIMIT = 240.0  # other work may have the processors


@frozen
class Step:
    """A command of a transcript, and what is printed below it; `...` stands for anything."""

    command: str
    output: list[str] = field(factory=list)


def steps(transcript: str) -> Iterator[Step]:
    """The transcript's steps. The demo prints its own commands, so its output goes on to the end of the block."""
    step = None
    for line in transcript.splitlines():
        if line.startswith("$ ") and (step is None or step.command != "scripts/demo"):
            if step is not None:
                yield step
            step = Step(line[2:])
        else:
            assert step is not None, f"output before any command: {line}"
            step.output.append(line)
    if step is not None:
        yield step


def titled() -> dict[str, str]:
    return {title: text for _, title, _, text in BLOCK.findall(README) if title}


def missing(needs: str) -> list[str]:
    """The programs of a block's `needs=` that are not installed here."""
    return [name for name in needs.split(",") if name and shutil.which(name) is None]


@pytest.fixture
def shell_output(place: Path) -> list[tuple[Step, str]]:
    """Every step of the README with what bash really printed, all of it run in one shell."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    for name, text in titled().items():
        (place / name).write_text(text)
    (place / "scripts").symlink_to(REPOSITORY / "scripts")
    blocks = [text for kind, _, needs, text in BLOCK.findall(README) if kind == "console" and not missing(needs)]
    wanted = [step for text in blocks for step in steps(text)]
    script = "\n".join(f"{step.command}\necho '{END}'" for step in wanted)
    environment = {
        **os.environ,
        "PATH": f"{MDEVFS.parent}:{os.environ['PATH']}",
        "LC_ALL": "C",
        "MDEVFS_SKIP_SETUP": "1",
    }
    try:
        done = subprocess.run(
            ["bash", "-s"],
            input=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=place,
            env=environment,
            timeout=LIMIT,
            check=False,
        )
    finally:
        for root in place.iterdir():
            while mounts(root):
                subprocess.run(["umount", "--lazy", root], check=True)
    # An interactive shell names no lines.
    printed = re.sub(r"^bash: line \d+: ", "bash: ", done.stdout, flags=re.MULTILINE).split(f"{END}\n")
    assert printed[-1] == ""
    return list(zip(wanted, printed[:-1], strict=True))


def test_its_transcripts_are_what_a_shell_prints(shell_output: list[tuple[Step, str]]) -> None:
    assert len(shell_output) > 20
    compare = doctest.OutputChecker().check_output
    wrong = []
    for step, printed in shell_output:
        wanted = "".join(f"{line}\n" for line in step.output)
        if not compare(wanted, printed, doctest.ELLIPSIS):
            wrong.append(f"$ {step.command}\n--- README.md\n{wanted}--- printed\n{printed}")
    assert not wrong, "\n".join(wrong)


def test_what_its_transcripts_need_is_here() -> None:
    if lacking := sorted({name for _, _, needs, _ in BLOCK.findall(README) for name in missing(needs)}):
        pytest.skip(f"needs {', '.join(lacking)} for transcripts of the README (scripts/setup --judges)")


def test_its_driver_is_short() -> None:
    lines = [line for line in titled()["my_nic.py"].splitlines() if line.strip()]
    assert len(lines) <= 16


def test_it_names_every_command() -> None:
    named = set(re.findall(r"^\| `mdevfs (\w+)", README, re.MULTILINE))
    assert named == set(COMMANDS)


def test_its_house_has_every_room() -> None:
    picture = README.partition("## The house")[2]
    named = set(re.findall(r"^(\w+)/ ", picture, re.MULTILINE))
    rooms = {path.parent.name for path in (REPOSITORY / "mdevfs").glob("*/__init__.py")}
    assert named == rooms


def test_the_files_it_names_exist() -> None:
    named = set(re.findall(r"(?<![\w/])(?:scripts|vendor_drivers|\.ci)/[\w.]+", README))
    assert len(named) > 4
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []
