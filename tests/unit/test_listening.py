"""Where the control socket cannot be made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mdevfs.control.listening import listen_at, listen_unseen
from mdevfs.errors import MachineError


def test_no_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdevfs.control.listening._places", lambda: [str(tmp_path / "none")])
    told = r"no place for the control socket: No such file or directory; set TMPDIR to a directory for it"
    with pytest.raises(MachineError, match=told):
        listen_unseen()


def test_the_next_place_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    endpoint = listen_unseen()
    with endpoint.socket:
        assert os.readlink(endpoint.address.path).startswith(f"{tmp_path}/mdevfs-")
        assert os.listdir(tmp_path) == []


def test_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "none/run/control"
    with pytest.raises(MachineError, match=f"cannot make the control socket {file}: No such file or directory"):
        listen_at(file, file)
