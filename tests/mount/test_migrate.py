"""`mdevfs migrate` between two mounts: exactly one runs, whatever fails and whoever is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

import pytest
from attrs import define

from tests.mount.conftest import Mount, hosts, new_place, roots
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
    """One mdev on a mount of its own, which `pid` serves."""

    path: Path
    pid: int

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


def make_pair(mount: Mount, place: Path, rss: str = "off") -> Pair:
    (place / "nic.py").write_text(DRIVER)
    servers = [mount(HOST.format(uuid=UUID, rss=value)) for value in ("off", rss)]
    source, target = (Device(one.root / "bus/mdev/devices" / UUID, one.pid) for one in servers)
    begin((source, target))
    return source, target


def begin(pair: Pair) -> None:
    """Both run, each with its own state."""
    for one, ctrl in zip(pair, (7, 5), strict=True):
        write(one.path / "mdevfs/migration_state", "RUNNING")
        one.ctrl = ctrl


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    """For all tests that end neither a server nor a device."""
    with new_place() as place, roots(place) as make_root, hosts(place, make_root) as mount:
        yield make_pair(mount, place)


@pytest.fixture
def pair(servers: Pair) -> Pair:
    begin(servers)
    return servers


@pytest.fixture
def own_pair(mount: Mount, place: Path) -> Pair:
    """For a test that ends one."""
    return make_pair(mount, place)


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


def broken(target: Device, kind: str, when: str) -> tuple[str, str]:
    """The same over a link to which something happens at a frame."""
    return remotely(target, sys.executable, str(Path(__file__).with_name("link_proxy.py")), kind, when)


def remotely(target: Device, *before: str) -> tuple[str, str]:
    """The options that lead to a target by way of a program."""
    return "--exec", " ".join((*before, str(MDEVFS), "migrate", "-", str(target.path)))


@pytest.mark.parametrize("remote", [False, True])
def test_the_handshake_refuses(mount: Mount, place: Path, remote: bool) -> None:
    pair = source, target = make_pair(mount, place, rss="on")
    done = mdevfs("migrate", source.path, *(remotely(target) if remote else (target.path,)))
    assert done.returncode == 1
    assert "value-differs: rss: the values must be equal" in done.stdout
    assert "not migrated: the source runs on, the target is as it was" in done.stdout
    assert stayed(pair)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("ctrl", "said"), [(13, "test-odd: nic/nic: 13 is odd"), (14, "Input/output error")])
def test_the_target_does_not_load(
    own_pair: Pair, ctrl: int, said: str, remote: bool, expected_tracebacks: None
) -> None:
    pair = source, target = own_pair
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


def test_a_stopped_source_may_run_elsewhere(pair: Pair) -> None:
    """A second migration of what has gone would put an old state over the target's."""
    source, target = pair
    assert mdevfs("migrate", source.path, target.path).returncode == 0
    target.ctrl = 99
    done = mdevfs("migrate", source.path, target.path)
    assert done.returncode == 1
    assert "not migrated: the source does not run" in done.stdout
    assert f"mdevfs migrate --resume {source.path}" in done.stdout
    assert (source.state, target.state, target.ctrl) == ("STOP", "RUNNING", 99)
    assert mdevfs("migrate", "--resume", source.path).returncode == 0
    assert source.state == "RUNNING"


# -- something happens at one of its steps


@define
class Done:
    """What a migration came to."""

    code: int
    output: str


Stepped = Callable[..., Done]
END = 40  # no migration of these tests has so many steps
LAST = 20  # a plain one has no more


@pytest.fixture(scope="module")
def steps() -> Iterator[Stepped]:
    """Migrates, and does something before one of the steps."""
    program = Path(__file__).with_name("migration_steps.py")
    with subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:

        def migrate(step: int, *action: object, arguments: Iterable[str | Path]) -> Done:
            assert server.stdin is not None and server.stdout is not None
            request = {"step": step, "action": action, "arguments": list(arguments)}
            server.stdin.write(json.dumps(request, default=str) + "\n")
            server.stdin.flush()
            return Done(**json.loads(server.stdout.readline()))

        yield migrate
        assert server.stdin is not None
        server.stdin.close()


@pytest.mark.parametrize(
    ("number", "who", "options"),
    [
        (signal.SIGKILL, "itself", ()),
        (signal.SIGKILL, "itself", ("--precopy",)),
        (signal.SIGINT, "itself", ()),
        (signal.SIGKILL, "twin", ()),
    ],
)
def test_exactly_one_runs_whoever_is_killed(
    pair: Pair, steps: Stepped, number: int, who: str, options: tuple[str, ...]
) -> None:
    """Before its commit the source, after it the target: there is nothing between, as the twin stands by."""
    ends = []
    for step in range(END):
        begin(pair)
        done = steps(step, "signal", number, who, arguments=(*options, *paths(pair)))
        assert "Traceback" not in done.output
        assert went(pair) or stayed(pair), (step, done.output)
        ends.append(went(pair))
        if done.code == 0 and (who == "itself" or step > LAST):  # it has fewer steps
            break
    assert ends == sorted(ends)
    assert ends.count(False) >= (10 if who == "itself" else 0)
    assert ends.count(True) >= 3


def test_exactly_one_runs_whenever_it_is_killed(pair: Pair, steps: Stepped, soak: bool) -> None:
    """Not only between its steps: after any time."""
    random, longest, seen = Random(5), 0.02, set()
    for _ in range(500 if soak else 20):
        begin(pair)
        options = ("--precopy",) if random.random() < 0.5 else ()
        done = steps(0, "die", random.uniform(longest / 10, longest), arguments=(*options, *paths(pair)))
        assert went(pair) or stayed(pair), done.output
        assert done.code in (0, -signal.SIGALRM), done
        assert done.code != 0 or went(pair)
        seen.add(done.code)
        longest *= 1.5 if done.code else 1 / 1.5  # so that both happen, however fast the machine is
    assert seen == {0, -signal.SIGALRM}


def paths(pair: Pair) -> tuple[Path, Path]:
    return pair[0].path, pair[1].path


def test_somebody_ends_the_source_in_the_middle(pair: Pair, steps: Stepped) -> None:
    """What was copied is old once the source has run on: it is not committed."""
    source, target = pair
    went_on = 0
    for step in range(END):
        begin(pair)
        done = steps(step, "write", source.path / "mdevfs/migration_state", "RUNNING", arguments=paths(pair))
        if done.code == 0:
            if went(pair):
                continue
            # It was done, and somebody ran the source again behind everybody's back.
            assert (source.state, target.state) == ("RUNNING", "RUNNING")
            break
        went_on += 1
        assert stayed(pair), (step, done.output)
        assert "the source runs on, the target is as it was" in done.output
    assert went_on > 10


def test_the_target_goes_away_in_the_middle(own_pair: Pair, steps: Stepped) -> None:
    """An mdev that is gone does not run, so the source does, even after its commit."""
    source, target = own_pair
    created = target.path.parents[3] / "class/mdev_bus/nic/mdev_supported_types/nic-a/create"
    ends = set()
    for step in range(END):
        begin(own_pair)
        done = steps(step, "write", target.path / "remove", "1", arguments=paths(own_pair))
        if target.path.exists():
            assert went(own_pair)
            break
        ends.add((done.code, source.state))
        assert (done.code, source.state) in {(1, "RUNNING"), (0, "STOP"), (2, "RUNNING")}, (step, done)
        write(created, f"{UUID},rss=off")
    assert (1, "RUNNING") in ends


@pytest.mark.parametrize(("which", "step"), [(0, 4), (0, 10), (1, 4), (1, 10)])
def test_a_server_is_killed_in_the_middle(own_pair: Pair, steps: Stepped, which: int, step: int) -> None:
    """A machine that crashes: its device is gone, and the other one is as it was."""
    done = steps(step, "signal", signal.SIGKILL, own_pair[which].pid, arguments=paths(own_pair))
    other = own_pair[1 - which]
    assert done.code == 1, done.output
    assert "Traceback" not in done.output
    assert (other.state, other.ctrl) == ("RUNNING", (5, 7)[which])
    assert ("the source runs on" in done.output) == (which == 1)


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
    done = mdevfs("migrate", source.path, *broken(target, kind, when))
    assert done.returncode == (0 if (kind, when) == ("K", "after") else 1)
    assert (source.state, target.state, target.ctrl) == (source_state, target_state, ctrl)
    if source_state == "STOP" and done.returncode:
        assert "in doubt: the source is stopped" in done.stdout
        assert "mdevfs migrate --resume DEVICE" in done.stdout
    if target_state == "STOP":
        assert "stays stopped" in done.stderr
        assert mdevfs("migrate", "--resume", target.path).returncode == 0
        assert (target.state, target.ctrl) == ("RUNNING", 7)


def test_the_source_goes_back_at_the_last_moment(pair: Pair) -> None:
    """It was made to run while it was copied: it says so in place of RUN, and the target need not wait."""
    source, target = pair
    state = source.path / "mdevfs/migration_state"
    done = mdevfs("migrate", source.path, *broken(target, "L", f"{state}=RUNNING"))
    assert done.returncode == 1
    assert "the source runs on, the target is as it was" in done.stdout
    assert "the source runs on: this target is as it was" in done.stderr
    assert stayed(pair)


def test_the_target_is_gone_at_the_last_moment(own_pair: Pair) -> None:
    """It was told to run and says that it does not: the source does."""
    source, target = own_pair
    done = mdevfs("migrate", source.path, *broken(target, "R", f"{target.path / 'remove'}=1"))
    assert done.returncode == 1
    assert "not migrated: the source runs on" in done.stdout
    assert (source.state, source.ctrl) == ("RUNNING", 7)


def test_a_program_that_does_not_end_is_ended(pair: Pair, place: Path) -> None:
    said = place / "said"
    said.write_bytes(b"N\0\0\0\2{}")
    (place / "peer").write_text(f"cat {said}; exec sleep 1000")
    done = mdevfs("migrate", pair[0].path, "--exec", f"sh {place / 'peer'}")
    assert (done.returncode, done.stderr) == (1, "")
    assert stayed(pair)


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
        (["SOURCE", "SOURCE"], 2, "SOURCE and TARGET are one device"),
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
