"""Where the control socket cannot be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdevfs.control.listening import listen_at, listen_unseen
from mdevfs.errors import MachineError


def test_no_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    told = r"no place for the control socket: No such file or directory; set TMPDIR to a directory for it"
    with pytest.raises(MachineError, match=told):
        listen_unseen()


def test_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "none/run/control"
    with pytest.raises(MachineError, match=f"cannot make the control socket {file}: No such file or directory"):
        listen_at(file, file)
