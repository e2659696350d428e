"""QEMU as a judge of device state: the scripts of tests/judges, and the recordings of tests/vmstate."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
VMSTATE = TESTS / "vmstate"
SCRIPTS = Path(os.environ.get("QEMU_SCRIPTS", TESTS.parent / ".venv/qemu-scripts"))

needs_scripts = pytest.mark.skipif(
    not all((SCRIPTS / name).is_file() for name in ("vmstate-static-checker.py", "analyze-migration.py")),
    reason="QEMU's scripts are missing; scripts/setup --judges fetches them",
)
needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None,
    reason="qemu-system-x86_64 is missing; scripts/setup --judges installs it",
)


def judge(name: str, *arguments: str | Path, timeout: float = 300) -> list[str]:
    """What a judge printed, by lines; fails the test with all of it when the judge says no."""
    command = [sys.executable, str(TESTS / "judges" / name), *map(str, arguments)]
    environment = {**os.environ, "QEMU_SCRIPTS": str(SCRIPTS)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()
