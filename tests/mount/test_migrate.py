"""`mdevfs migrate` between two mounts: exactly one runs, whatever fails and whoever is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import define

from tests.mount.conftest import Mount
from tests.mount.server import MDEVFS, mdevfs, read, run, write, write_errno

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
DRIVER = """
from mdevfs.vendor import U32, BadState, Bool, Bytes, DeviceModel, MdevType, VendorDriver, VMState, show, store

def odd(view):
    if view.state.ctrl == 13:
        raise BadState("test-odd", rule="13 is odd", mend="be even")
    if view.state.ctrl == 14:
        raise ValueError("a driver's mistake")

class Nic(VendorDriver):
    api, name, types = 1, "nic", [MdevType("a")]
    model = DeviceModel("vendor-a.com/nic", [Bool("rss", False, False)])
    state = VMState("nic", fields=[U32("ctrl", reset=1), Bytes("ring", 300000)], after_load=odd)

    @show("vendor/ctrl")
    def show_ctrl(self, mdev):
        return f"{mdev.state.ctrl}\\n"

    @store("vendor/ctrl")
    def store_ctrl(self, mdev, data):
        mdev.state.ctrl = int(data)
"""
HOST = """
[host]
drivers = ["./nic.py"]
[[device]]
driver = "nic"
[[device.mdev]]
type = "nic-a"
uuid = "{uuid}"
params = "rss={rss}"
"""


@define(eq=False)
class Device:
    """One mdev on a mount."""

    path: Path

    @property
    def state(self) -> str:
        return read(self.path / "mdevfs/migration_state").strip()

    @property
    def ctrl(self) -> int:
        return int(read(self.path / "vendor/ctrl"))

    @ctrl.setter
    def ctrl(self, value: int) -> None:
        write(self.path / "vendor/ctrl", str(value))


Pair = tuple[Device, Device]


@pytest.fixture
def make_pair(mount: Mount, place: Path) -> Callable[..., Pair]:
    def make(rss: str = "off") -> Pair:
        (place / "nic.py").write_text(DRIVER)
        hosts = [mount(HOST.format(uuid=UUID, rss=value)) for value in ("off", rss)]
        source, target = (Device(one.root / "bus/mdev/devices" / UUID) for one in hosts)
        source.ctrl, target.ctrl = 7, 5
        return source, target

    return make


@pytest.fixture
def pair(make_pair: Callable[..., Pair]) -> Pair:
    return make_pair()


def went(pair: Pair) -> bool:
    """The target runs with the source's state, and the source is stopped."""
    source, target = pair
    return (source.state, target.state, target.ctrl) == ("STOP", "RUNNING", 7)


def stayed(pair: Pair) -> bool:
    """The source runs, and the target is what it was."""
    source, target = pair
    return (source.state, target.state, target.ctrl) == ("RUNNING", "RUNNING", 5)


@pytest.mark.parametrize("options", [(), ("--precopy",)])
def test_it_moves(pair: Pair, options: tuple[str, ...]) -> None:
    source, target = pair
    done = mdevfs("migrate", *options, source.path, target.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("migrated: 300")
    assert went(pair)
    assert mdevfs("migrate", *options, target.path, source.path).returncode == 0
    assert went((target, source))


def test_it_is_only_asked(pair: Pair) -> None:
    source, target = pair
    done = mdevfs("migrate", "--dry-run", "--json", source.path, target.path)
    assert (done.returncode, json.loads(done.stdout)["compatible"]) == (0, True)
    assert stayed(pair)


def test_json_tells_who_runs(pair: Pair) -> None:
    source, target = pair
    outcome = json.loads(mdevfs("migrate", "--json", source.path, target.path).stdout)
    assert (outcome["migrated"], outcome["running"], outcome["reasons"]) == (True, "target", [])
    target.ctrl = 13
    outcome = json.loads(mdevfs("migrate", "--json", target.path, source.path).stdout)
    assert (outcome["migrated"], outcome["running"]) == (False, "source")
    assert [reason["code"] for reason in outcome["reasons"]] == ["test-odd"]


def remotely(target: Device, *before: str) -> tuple[str, str]:
    """The options that lead to a target by way of a program."""
    return "--exec", " ".join((*before, str(MDEVFS), "migrate", "-", str(target.path)))


@pytest.mark.parametrize("remote", [False, True])
def test_the_handshake_refuses(make_pair: Callable[..., Pair], remote: bool) -> None:
    pair = source, target = make_pair(rss="on")
    done = mdevfs("migrate", source.path, *(remotely(target) if remote else (target.path,)))
    assert done.returncode == 1
    assert "value-differs: rss: the values must be equal" in done.stdout
    assert "not migrated: the source runs on, the target is as it was" in done.stdout
    assert stayed(pair)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("ctrl", "said"), [(13, "test-odd: nic/nic: 13 is odd"), (14, "Input/output error")])
def test_the_target_does_not_load(pair: Pair, ctrl: int, said: str, remote: bool, expected_tracebacks: None) -> None:
    source, target = pair
    source.ctrl = ctrl
    done = mdevfs("migrate", source.path, *(remotely(target) if remote else (target.path,)))
    assert done.returncode == 1
    assert said in done.stdout
    assert stayed(pair)


def test_somebody_else_moves_it(pair: Pair) -> None:
    source, target = pair
    write(target.path / "mdevfs/migration_state", "RESUMING")
    with open(target.path / "mdevfs/migration_data", "wb", buffering=0):
        done = mdevfs("migrate", source.path, target.path)
        assert done.returncode == 1
        assert "somebody else is moving it" in done.stdout
        assert source.state == "RUNNING"
        assert mdevfs("migrate", "--resume", target.path).returncode == 2
    assert stayed(pair)


# -- killed at every step

KILLED = """
import os, signal, sys
from mdevfs.cli.main import run
from mdevfs.client.device import Moving

left = int(sys.argv[1])

def step(method):
    def wrapped(self, *arguments, **options):
        global left
        result = None
        for half in (0, 1):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            if half == 0:
                result = method(self, *arguments, **options)
        return result
    return wrapped

for name in ("move", "open_data", "read", "write", "sync"):
    setattr(Moving, name, step(getattr(Moving, name)))
sys.exit(run(["migrate", *sys.argv[2:]]))
"""


@pytest.mark.parametrize("options", [(), ("--precopy",)])
def test_killed_at_any_step_at_most_one_runs(pair: Pair, options: tuple[str, ...]) -> None:
    source, target = pair
    for steps in range(60):
        done = run(sys.executable, "-c", KILLED, str(steps), *options, source.path, target.path)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        if went(pair):  # killed after the last step
            assert steps > 10
            target.ctrl = 5
        elif source.state == "STOP":  # killed between the commit and the target's run
            assert (target.state, target.ctrl) == ("RUNNING", 5)
        else:
            assert stayed(pair)
            continue
        assert mdevfs("migrate", "--resume", source.path).returncode == 0
    assert went(pair)
    assert steps > 10


# -- between two machines


@pytest.mark.parametrize("options", [(), ("--precopy",)])
def test_between_two_machines(pair: Pair, options: tuple[str, ...]) -> None:
    source, target = pair
    done = mdevfs("migrate", *options, source.path, *remotely(target))
    assert (done.returncode, done.stderr) == (0, "")
    assert went(pair)


@pytest.mark.parametrize(
    ("kind", "when", "source_state", "target_state", "ctrl"),
    [
        ("H", "before", "RUNNING", "RUNNING", 5),
        ("H", "after", "RUNNING", "RUNNING", 5),
        ("y", "before", "RUNNING", "RUNNING", 5),
        ("D", "before", "RUNNING", "RUNNING", 5),
        ("D", "after", "RUNNING", "RUNNING", 5),
        ("E", "before", "RUNNING", "RUNNING", 5),
        ("L", "before", "RUNNING", "STOP", 7),  # the target has given its word
        ("L", "after", "STOP", "STOP", 7),
        ("R", "before", "STOP", "STOP", 7),
        ("R", "after", "STOP", "RUNNING", 7),
        ("K", "before", "STOP", "RUNNING", 7),
        ("K", "after", "STOP", "RUNNING", 7),
    ],
)
def test_the_link_dies(pair: Pair, kind: str, when: str, source_state: str, target_state: str, ctrl: int) -> None:
    """At most one runs with the source's state; where neither does, each side says how to decide."""
    source, target = pair
    proxy = (sys.executable, str(Path(__file__).with_name("link_proxy.py")), kind, when)
    done = mdevfs("migrate", source.path, *remotely(target, *proxy))
    assert done.returncode == (0 if (kind, when) == ("K", "after") else 1)
    assert (source.state, target.state, target.ctrl) == (source_state, target_state, ctrl)
    if source_state == "STOP" and done.returncode:
        assert "neither side runs" in done.stdout
        assert "mdevfs migrate --resume DEVICE" in done.stdout
    if target_state == "STOP":
        assert "stays stopped" in done.stderr
        assert mdevfs("migrate", "--resume", target.path).returncode == 0
        assert (target.state, target.ctrl) == ("RUNNING", 7)


def test_a_hostile_peer(pair: Pair, place: Path) -> None:
    source, target = pair
    for number, says in enumerate((b"", b"x", b"y\xff\xff\xff\xff", b"y\0\0\0\0N\0\0\0\2[]", b"N\0\0\0\1{")):
        said = place / f"said{number}"
        said.write_bytes(says)
        done = mdevfs("migrate", source.path, "--exec", f"cat {said}")
        assert (done.returncode, done.stderr) == (1, "")
        assert stayed(pair)
        with said.open("rb") as peer:
            received = subprocess.run(
                [MDEVFS, "migrate", "-", target.path], stdin=peer, capture_output=True, check=False
            )
        assert received.returncode == 1
        assert b"Traceback" not in received.stderr
        assert stayed(pair)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["SOURCE"], 2, "migrate takes SOURCE and TARGET"),
        (["-", "SOURCE", "SOURCE"], 2, "migrate - takes one TARGET"),
        (["SOURCE", "/"], 2, "a directory of no device"),
        (["SOURCE", "--exec", "/nowhere/ssh host"], 3, "/nowhere/ssh: No such file"),
        (["--resume", "SOURCE", "SOURCE"], 2, "--resume takes a device"),
        (["SOURCE", "--exec", "true", "--dry-run"], 2, "--dry-run"),
    ],
)
def test_wrong_use(pair: Pair, arguments: list[str], code: int, said: str) -> None:
    done = mdevfs("migrate", *(pair[0].path if word == "SOURCE" else word for word in arguments))
    assert done.returncode == code
    assert said in done.stderr
    assert stayed(pair)


def test_a_shell_holds_the_lease(pair: Pair, place: Path) -> None:
    """What the README says of shells: the files stay open until the commit."""
    source, target = pair
    script = """
    set -e
    echo STOP_COPY > $1/mdevfs/migration_state; exec 3< $1/mdevfs/migration_data
    echo RESUMING > $2/mdevfs/migration_state; exec 4> $2/mdevfs/migration_data
    cat <&3 >&4
    echo STOP > $1/mdevfs/migration_state
    echo RUNNING > $2/mdevfs/migration_state
    """
    done = run("bash", "-c", script, "move", source.path, target.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert went(pair)
    assert write_errno(source.path / "mdevfs/migration_state", "ERROR") == 22
