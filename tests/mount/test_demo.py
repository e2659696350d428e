"""`scripts/demo`: shows one handshake accepted and two refused, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import why_not
from tests.mount.test_life import as_nobody

REPOSITORY = Path(__file__).parents[2]
LIMIT = 60.0


def demo(script: Path = REPOSITORY / "scripts/demo", prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The demo without its setup."""
    environment = {**os.environ, "MDEVFS_SKIP_SETUP": "1"}
    command: list[str | Path] = [*prefix, script]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment, cwd="/")


def left_behind() -> set[str]:
    """Directories of demos, and mounts on them."""
    mounted = Path("/proc/self/mountinfo").read_text()
    return {str(path) for path in Path("/tmp").glob("mdevfs-demo.*")} | set(re.findall(r"/tmp/mdevfs-demo\S+", mounted))


@pytest.mark.parametrize("who", ["root", "an ordinary user"])
def test_it_shows_one_yes_and_two_noes_with_reasons(who: str) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    before = left_behind()
    done = demo(prefix=() if who == "root" else as_nobody())
    assert done.returncode == 0, done.stdout + done.stderr
    assert left_behind() == before
    shown = done.stdout
    assert shown.count("\naccepted\n") == 1
    assert shown.count("cat: write error: Invalid argument\n") == 2
    assert re.findall(r'^\{.*"compatible": false.*"code": "([^"]+)"', shown, re.MULTILINE) == [
        "i915-software-version",
        "i915-hardware",
    ]
    assert re.findall(r"^incompatible\n  ([a-z0-9-]+): .*\n    mend \((?:both|target)\): .", shown, re.MULTILINE) == [
        "i915-software-version",
        "i915-hardware",
    ]
    assert "Traceback" not in shown + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("mount gvtg-newer newer", "mount gvtg newer", "this had to be refused"),
        ("mount gvtg same", "mount gvtg-newer same", "this had to succeed"),
        ("mount gvtg-other-sku other", "mount gvtg-newer other", "the reason had to be i915-hardware"),
    ],
)
def test_it_fails_when_a_host_answers_otherwise(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    """The demo with one host exchanged for another: what it shows is no longer what it says."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    before = left_behind()
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".venv").symlink_to(REPOSITORY / ".venv")
    text = (REPOSITORY / "scripts/demo").read_text()
    assert text.count(right) == 1
    changed = tmp_path / "scripts/demo"
    changed.write_text(text.replace(right, wrong))
    changed.chmod(0o755)
    done = demo(changed)
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stderr
    assert left_behind() == before
