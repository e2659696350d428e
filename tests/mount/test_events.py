"""Events outside the server: `mdevfs mount --events`, `mdevfs wait`, and what askers may do to the control socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from mdevfs.control.asker import Subscription
from mdevfs.control.protocol import ADDRESS_XATTR, Address
from mdevfs.errors import MachineError
from mdevfs.events.stream import ACTIONS
from tests.mount.conftest import MakeRoot, Mount
from tests.mount.server import LIMIT, MDEVFS, MTTY, NOBODY, mdevfs, mounts, new_uuid, read, write

HOST = "kernel-samples"
TYPE = f"{MTTY}/mdev_supported_types/mtty-1"
UUID = new_uuid(1)


def events(file: Path) -> list[dict[str, object]]:
    """The events that a server wrote so far."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def create(root: Path) -> tuple[str, ...]:
    """A command that creates an mdev."""
    return ("sh", "-c", 'printf %s "$1" > "$2"', "sh", UUID, str(root / TYPE / "create"))


def wait(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return mdevfs("wait", root, *arguments)


def connect(root: Path) -> socket.socket:
    """A connection to the control socket, nothing asked yet."""
    control = socket.socket(socket.AF_UNIX)
    control.settimeout(LIMIT)
    control.connect(Address.from_bytes(os.getxattr(root, ADDRESS_XATTR)).path)
    return control


def test_events_are_written_as_they_come(mount: Mount, place: Path) -> None:
    """A line is there when the write that caused it returns."""
    file = place / "events"
    root = mount(HOST, "--events", file).root
    begin = len(events(file))
    write(root / TYPE / "create", UUID)
    created = events(file)[begin:]
    write(root / MTTY / UUID / "remove", "1")
    removed = events(file)[begin + len(created) :]
    mdev, group = f"/{MTTY}/{UUID}", "/devices/virtual/vfio/0"
    assert [(one["action"], one["devpath"], one["subsystem"]) for one in created] == [
        ("add", mdev, "mdev"),
        ("add", group, "vfio"),
        ("add", f"{mdev}/vfio-dev/vfio0", "vfio-dev"),
        ("bind", mdev, "mdev"),
    ]
    assert [(one["action"], one["devpath"], one["subsystem"]) for one in removed] == [
        ("remove", f"{mdev}/vfio-dev/vfio0", "vfio-dev"),
        ("remove", group, "vfio"),
        ("unbind", mdev, "mdev"),
        ("remove", mdev, "mdev"),
    ]
    assert list(created[1]) == ["action", "devpath", "subsystem", "seqnum", "env"]
    assert created[1]["env"] == {
        "ACTION": "add",
        "DEVPATH": group,
        "SUBSYSTEM": "vfio",
        "MAJOR": "246",
        "MINOR": "0",
        "DEVNAME": "vfio/0",
        "SEQNUM": str(created[1]["seqnum"]),
    }
    keys = created[3]["env"]
    assert isinstance(keys, dict)
    assert list(keys) == ["ACTION", "DEVPATH", "SUBSYSTEM", "DRIVER", "SEQNUM"]
    numbers = [int(str(one["seqnum"])) for one in events(file)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_events_on_standard_output(mount: Mount, place: Path) -> None:
    file = place / "output"
    root = mount(HOST, "--events", "-", prefix=("sh", "-c", f'exec "$@" > {file}', "sh")).root
    write(root / MTTY / "uevent", "change")
    assert events(file)[-1]["action"] == "change"


def test_events_on_standard_output_need_one(make_root: MakeRoot) -> None:
    root = make_root()
    done = mdevfs("mount", "--events", "-", HOST, root)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mdevfs: --events - needs --foreground: in the background there is no standard output\n"
    assert mounts(root) == []


def test_events_to_a_place_that_is_not(make_root: MakeRoot, place: Path) -> None:
    root = make_root()
    done = mdevfs("mount", "--events", place / "missing" / "events", HOST, root)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--events {place}/missing/events: No such file or directory" in done.stderr
    assert mounts(root) == []


@pytest.mark.parametrize(
    ("wanted", "action", "devpath"),
    [
        ((f"bind@*/{UUID}",), "bind", f"/{MTTY}/{UUID}"),
        (("add",), "add", f"/{MTTY}/{UUID}"),
        (("@/devices/virtual/vfio/*",), "add", "/devices/virtual/vfio/0"),
        (("add", "SUBSYSTEM=vfio", "MINOR=0"), "add", "/devices/virtual/vfio/0"),
        (("@*", "DRIVER=mtty"), "bind", f"/{MTTY}/{UUID}"),
    ],
)
def test_wait_for_what_a_command_causes(mount: Mount, wanted: tuple[str, ...], action: str, devpath: str) -> None:
    root = mount(HOST).root
    done = wait(root, "--timeout", "10", *wanted, "--", *create(root))
    assert (done.returncode, done.stderr) == (0, "")
    event = json.loads(done.stdout)
    assert (event["action"], event["devpath"], event["env"]["DEVPATH"]) == (action, devpath, devpath)
    assert UUID in os.listdir(root / "bus/mdev/devices")


def test_wait_for_what_somebody_else_causes(mount: Mount) -> None:
    root = mount(HOST).root
    end = time.monotonic() + LIMIT
    with subprocess.Popen([MDEVFS, "wait", root, "change@*/mtty"], stdout=subprocess.PIPE, text=True) as waiting:
        while waiting.poll() is None and time.monotonic() < end:
            write(root / MTTY / "uevent", "change")
        assert waiting.returncode == 0
        assert waiting.stdout is not None
        assert json.loads(waiting.stdout.read())["env"]["SYNTH_UUID"] == "0"


def test_wait_in_vain(mount: Mount) -> None:
    """Other events do not end it, and those from before it began do not count."""
    root = mount(HOST).root
    write(root / MTTY / "uevent", "offline")
    done = wait(root, "offline", "KEY=1", "--timeout", "0.3", "--", *create(root))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "mdevfs: no such event within 0.3 s: offline KEY=1\n"


def test_wait_with_a_command_that_fails(mount: Mount) -> None:
    root = mount(HOST).root
    done = wait(root, "add", "--timeout", "10", "--", "sh", "-c", "exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "mdevfs: the command ended with 7\n")


def test_wait_with_a_command_that_is_not_there(mount: Mount) -> None:
    done = wait(mount(HOST).root, "add", "--timeout", "10", "--", "/no/such/command")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mdevfs: cannot run /no/such/command: No such file or directory\n"


def test_wait_until_the_host_ends(mount: Mount) -> None:
    server = mount(HOST)
    done = wait(server.root, "add", "--timeout", "10", "--", "umount", str(server.root))
    assert (done.returncode, done.stdout) == (3, "")
    assert "the host has ended" in done.stderr
    assert server.wait() == 0


def test_wait_where_no_host_is(place: Path) -> None:
    done = wait(place, "add")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mdevfs: no host of mdevfs is mounted on {place}: ")


def test_wait_for_what_no_event_is(place: Path) -> None:
    """Every mistake at once, before anything is asked of a host."""
    done = wait(place, "create@*", "SUBSYSTEM=mdev")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'mdevfs: "create" is no action of a uevent; there are {", ".join(ACTIONS)}\n'


def test_another_user_is_refused(mount: Mount) -> None:
    """The tree is for everybody, its control is not."""
    root = mount(HOST).root
    os.seteuid(NOBODY)
    try:
        assert os.listdir(root / "bus" / "mdev" / "devices") == []
        with pytest.raises(MachineError, match="refuses to answer this user"):
            Subscription(root, LIMIT)
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "request_", [b"\n", b"junk\n", b'{"op": []}\n', b"[" * 60_000 + b"\n", b"x" * 60_000, b"", b"\xff\n"]
)
def test_a_bad_request_harms_nobody(mount: Mount, request_: bytes) -> None:
    root = mount(HOST).root
    with connect(root) as control:
        control.sendall(request_)
        control.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: control.recv(4096), b""))
    told = json.loads(answer)
    assert told == {"error": ['a request is one line of JSON, an object with an "op"'], "errno": "EINVAL", "exit": 2}
    assert read(root / TYPE / "available_instances") == "24\n"
    assert wait(root, "add", "--timeout", "10", "--", *create(root)).returncode == 0


def test_an_asker_that_leaves_unread_events_harms_nobody(mount: Mount) -> None:
    root = mount(HOST).root
    with connect(root) as control:
        control.sendall(b'{"op": "events"}\n')
        assert control.recv(64) == b'{"ready": true}\n'
        for _ in range(2000):  # more than the socket's buffers hold
            write(root / MTTY / "uevent", "change")
    assert read(root / TYPE / "available_instances") == "24\n"
    assert wait(root, "add", "--timeout", "10", "--", *create(root)).returncode == 0
