"""The recorder and judge `trace_ops.py`, run as its own program; what it says differs, and what may differ."""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from attrs import field, frozen
from pydantic import BaseModel, ConfigDict, Field, JsonValue

HERE = Path(__file__).parent
RECORDINGS = HERE / "recordings"
RECORDER = HERE / "trace_ops.py"
LIMIT = 120  # seconds; a recording takes 15, most of it the recorder's own sleeps

Answer = dict[str, JsonValue]

_FOUND = re.compile(r"(DIFF|STATE|STEPS|BROKEN|SKIPPED|NOT RUN|MISSING|EXTRA) +(\S+)(?: step (\d+))?")
_ANSWER = re.compile(r"   (?:golden|other ) (.*)")
_UNCOUNTED = ("SKIPPED", "NOT RUN")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Step(_Table):
    """What differs in the answer to one step of a case, since which kernel."""

    step: int
    since: str = "0.0"
    kernel: Answer
    fuse: Answer


class Deviation(_Table):
    """A case that FUSE cannot answer as the kernel does, why, and the test that proves it."""

    case: str
    why: str = Field(min_length=1)
    proof: str
    steps: list[Step] = Field(min_length=1)


class Ops(_Table):
    """Cases that only a real kernel can record."""

    skipped: list[str]


class TreePatterns(_Table):
    """Shell patterns of paths that a mount leaves out."""

    omitted: list[str]


class Deviations(_Table):
    """deviations.toml."""

    ops: Ops
    deviation: list[Deviation] = Field(max_length=8)
    tree: TreePatterns


def read_deviations() -> Deviations:
    return Deviations.model_validate(tomllib.loads((HERE / "deviations.toml").read_text()))


@frozen
class Difference:
    """What the judge says: of which kind, of which case or path, at which step (-1: none), in its words; then what
    differs in both answers, where it shows them."""

    kind: str
    name: str
    step: int
    text: str
    kernel: Answer = field(factory=dict)
    ours: Answer = field(factory=dict)


def record(what: str, root: Path, out: Path, *options: str) -> Path:
    """Runs the recorder on a mount; the recording is `out`.

    One at a time: it drops the machine's caches, and with them the time stamps that another is just recording.
    """
    with RECORDER.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run((0,), what, "--root", root, "--out", out, *options)
    return out


def compare(golden: str, other: Path) -> list[Difference]:
    """Everything that the judge says of a recording; fails when not all of it is understood."""
    said = _run((0, 1), "compare", RECORDINGS / golden, other)
    *lines, last = said.splitlines()
    found = [_parse(lines[number : number + 3]) for number, line in enumerate(lines) if _FOUND.match(line)]
    assert last == f"{sum(one.kind not in _UNCOUNTED for one in found)} differences", said
    return found


def orders(recording: Path) -> dict[str, list[str]]:
    """Directory -> its names as `readdir` gave them: the order of a hash, which the judge leaves out."""
    cases = json.loads(recording.read_text())["ops"]
    (case,) = (one for one in cases if one["id"] == "readdir.order")
    return {step["path"]: step["ok"] for step in case["steps"] if step["call"] == "order"}


def _run(codes: tuple[int, ...], *arguments: str | Path) -> str:
    command = [sys.executable, RECORDER, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode in codes, done.stderr
    return done.stdout


def _parse(lines: list[str]) -> Difference:
    """The first of these lines, with the two that may follow it."""
    match = _FOUND.match(lines[0])
    assert match is not None
    kind, name, step = match[1], match[2], int(match[3]) if match[3] is not None else -1
    answers = [answer[1] for line in lines[1:] if (answer := _ANSWER.match(line))]
    if len(answers) < 2:
        return Difference(kind, name, step, lines[0])
    return Difference(kind, name, step, "\n".join(lines), *_differing(*map(json.loads, answers)))


def _differing(kernel: Answer, ours: Answer) -> tuple[Answer, Answer]:
    """The keys of two answers whose values differ; of values that are objects in both, their differing keys."""
    one, other = kernel.get("ok"), ours.get("ok")
    if isinstance(one, dict) and isinstance(other, dict):
        return _differing(one, other)
    same = [key for key in kernel if key in ours and kernel[key] == ours[key]]
    return _without(kernel, same), _without(ours, same)


def _without(answer: Answer, keys: list[str]) -> Answer:
    return {key: value for key, value in answer.items() if key not in keys}
