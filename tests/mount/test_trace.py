"""`mdevfs mount --trace`: who read or wrote which attribute, with what result, before the caller is answered; and a
server that ends with whoever holds its standard input."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from mdevfs.control.asker import ask
from mdevfs.errors import InputError
from mdevfs.host.host import load
from tests.mount.conftest import MakeRoot, Mount
from tests.mount.server import (
    LIMIT,
    MDEVFS,
    MTTY,
    NOBODY,
    errno_of,
    mdevfs,
    mounts,
    new_uuid,
    read,
    run,
    until,
    write,
    write_errno,
)

TYPE = f"{MTTY}/mdev_supported_types/mtty-1"


@pytest.fixture
def trace(place: Path) -> Path:
    return place / "trace"


def lines(trace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trace.read_text().splitlines()]


def test_reads_and_writes_are_told(mount: Mount, trace: Path) -> None:
    root, begin = mount("mtty", "--trace", trace).root, time.time()
    assert run("cat", root / "class/mdev_bus/mtty/mdev_supported_types/mtty-1/name").stdout == "Single port serial\n"
    (one,) = lines(trace)
    assert begin <= one.pop("time") <= time.time()
    assert 0 < one.pop("took") < LIMIT
    assert one.pop("pid") > 1
    assert one == {
        "comm": "cat",
        "uid": 0,
        "operation": "read",
        "path": f"{TYPE}/name",
        "offset": 0,
        "size": 19,
        "text": "Single port serial\n",
        "errno": None,
    }
    write(root / TYPE / "create", new_uuid(1))
    second = lines(trace)[-1]
    assert (second["pid"], second["operation"], second["path"]) == (os.getpid(), "write", f"{TYPE}/create")
    assert (second["size"], second["text"], second["errno"]) == (36, new_uuid(1), None)


def test_what_fails_is_told(mount: Mount, trace: Path) -> None:
    root = mount("mtty", "--trace", trace).root
    assert write_errno(root / TYPE / "create", "\xff{") == errno.EINVAL
    assert errno_of(lambda: os.open(root / TYPE / "create", os.O_RDONLY)) == errno.EACCES
    assert errno_of(lambda: os.open(root / TYPE / "nothing", os.O_WRONLY | os.O_CREAT)) == errno.EACCES
    ask(root, "fault", {"path": f"{TYPE}/name", "errno": "ETIMEDOUT", "slow": 0.05})
    assert errno_of(lambda: read(root / TYPE / "name")) == errno.ETIMEDOUT
    told = [(one["operation"], one["path"], one["size"], one["text"], one["errno"]) for one in lines(trace)]
    assert told == [
        ("write", f"{TYPE}/create", None, "ÿ{", "EINVAL"),
        ("open", f"{TYPE}/create", None, None, "EACCES"),
        ("open", f"{TYPE}/nothing", None, None, "EACCES"),
        ("read", f"{TYPE}/name", None, None, "ETIMEDOUT"),
    ]
    assert lines(trace)[-1]["took"] >= 0.05


def test_every_kind_of_file_is_told(mount: Mount, trace: Path) -> None:
    root = mount("gvtg", "--trace", trace).root
    kind = root / "class/mdev_bus/0000:00:02.0/mdev_supported_types/i915-GVTg_V5_4"
    info = read(kind / "migration_info.json")
    config = (root / "bus/pci/devices/0000:00:02.0/config").read_bytes()
    with open(kind / "mdevfs/check", "r+b", buffering=0) as check:
        check.write(b"x")
        answer = check.read()
    told = {one["path"].rpartition("/")[2]: one for one in lines(trace)}
    assert told["migration_info.json"]["text"] == info[:4096]
    assert told["config"]["size"] == len(config)
    assert told["config"]["text"].startswith("\\x86\\x80")
    assert told["check"]["text"] == answer.decode()
    assert [one["operation"] for one in lines(trace) if one["path"].endswith("/check")] == ["write", "read"]


def test_who_it_was(mount: Mount, trace: Path) -> None:
    root = mount("mtty", "--trace", trace).root
    run("cat", root / TYPE / "name", user=NOBODY)
    script = "import threading, sys; t = threading.Thread(target=lambda: open(sys.argv[1]).read()); t.start(); t.join()"
    process = subprocess.Popen(["python3", "-c", script, root / TYPE / "name"])
    assert process.wait(LIMIT) == 0
    first, second = lines(trace)
    assert first["uid"] == NOBODY
    assert (second["uid"], second["pid"]) == (0, process.pid)  # of the process, not of its thread


def test_the_end_of_a_text_is_not_told(mount: Mount, trace: Path) -> None:
    root = mount("mtty", "--trace", trace).root
    descriptor = os.open(root / TYPE / "name", os.O_RDONLY)
    while os.read(descriptor, 7):
        pass
    os.close(descriptor)
    assert [(one["offset"], one["size"]) for one in lines(trace)] == [(0, 7), (7, 7), (14, 5)]


def test_a_full_disk_ends_the_trace_and_not_the_host(mount: Mount) -> None:
    server = mount("mtty", "--trace", "/dev/full")
    for _ in range(3):
        assert read(server.root / TYPE / "name") == "Single port serial\n"
    assert server.log.count("the trace ends: No space left on device") == 1


def test_a_trace_that_cannot_be_written(make_root: MakeRoot, place: Path) -> None:
    root = make_root()
    done = mdevfs("mount", "--trace", place / "missing/trace", "mtty", root)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--trace {place}/missing/trace: No such file or directory" in done.stderr
    assert mounts(root) == []


# -- --until-eof


def test_a_server_ends_with_its_standard_input(make_root: MakeRoot) -> None:
    root = make_root()
    command: list[str | Path] = [
        MDEVFS,
        "mount",
        "--foreground",
        "--until-eof",
        "--log-file",
        "/dev/null",
        "mtty",
        root,
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    until(lambda: os.path.exists(root / "bus"))
    process.stdin.write(b"what is written does not matter")
    process.stdin.flush()
    assert read(root / TYPE / "name") == "Single port serial\n"
    process.stdin.close()
    assert process.wait(LIMIT) == 0
    assert mounts(root) == []


def test_until_eof_needs_a_standard_input(make_root: MakeRoot) -> None:
    root = make_root()
    done = mdevfs("mount", "--until-eof", "mtty", root)
    assert done.returncode == 2
    assert done.stderr == "mdevfs: --until-eof needs --foreground: in the background there is no standard input\n"
    command: list[str | Path] = [MDEVFS, "mount", "--until-eof", "--foreground", "mtty", root]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "mdevfs: --until-eof needs a pipe, a socket or a terminal as standard input\n"
    assert mounts(root) == []


# -- a host of JSON


def test_a_host_of_json(mount: Mount, place: Path) -> None:
    path = place / "host.json"
    path.write_text(json.dumps({"device": [{"driver": "mtty", "mdev": [{"uuid": new_uuid(1), "type": "mtty-1"}]}]}))
    assert os.listdir(mount(path).root / "bus/mdev/devices") == [new_uuid(1)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON: Expecting property name"),
        ("[" * 100_000, "not JSON: maximum recursion depth"),
        ("[]", "not JSON: a host is an object, not list"),
        ('{"host": {"name": "\\ud800"}}', "not UTF-8: 'utf-8' codec can't encode"),
        ('{"hots": {}}', 'hots: unknown key, did you mean "host"?'),
    ],
)
def test_a_host_of_bad_json(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "host.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        trio.run(load, str(path))
    assert caught.value.mistakes[0].startswith(f"{path}: {told}")
