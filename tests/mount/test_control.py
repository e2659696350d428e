"""`mdevfs control` on real mounts: whoever looks after it has answered sees the new state, and the rest goes on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from mdevfs.cli import main
from mdevfs.control.asker import Subscription, ask
from tests.mount.conftest import Mount
from tests.mount.server import (
    LIMIT,
    MDEVFS,
    MTTY,
    errno_of,
    listing,
    new_uuid,
    read,
    run,
    until,
    write,
    write_errno,
)

HOST = "kernel-samples"
TYPE = f"{MTTY}/mdev_supported_types/mtty-1"
UUID, UUID2 = new_uuid(1), new_uuid(2)


Control = Callable[..., tuple[int, str, str]]
Did = Callable[..., str]


@pytest.fixture
def control(capsys: pytest.CaptureFixture[str]) -> Control:
    """The command, in this process: its exit code, what it prints, and its complaints."""

    def call(root: Path, *arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main.run(["control", str(root), *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def did(control: Control) -> Did:
    """What a verb that succeeds prints."""

    def call(root: Path, *arguments: str | Path) -> str:
        code, out, err = control(root, *arguments)
        assert (code, err) == (0, "")
        return out

    return call


@contextmanager
def meanwhile(call: Callable[[], object]) -> Iterator[Future[object]]:
    """Runs `call` in a thread while what is inside happens; it must have ended soon after."""
    future: Future[object] = Future()
    Thread(target=lambda: future.set_result(call()), daemon=True).start()  # nobody waits for it where the test fails
    yield future
    future.result(LIMIT)


# -- who looks afterwards sees the new state


def test_nobody_sees_a_device_that_is_gone(mount: Mount) -> None:
    root = mount("gvtg").root
    pci = root / "devices/pci0000:00/0000:00:02.0"
    kinds = pci / "mdev_supported_types"
    places = [pci, root / "bus/pci/devices/0000:00:02.0", root / "class/mdev_bus/0000:00:02.0", kinds, pci / "vendor"]
    for _ in range(5):
        before = listing(root)  # and the kernel knows every name
        held = os.open(kinds / os.listdir(kinds)[0] / "available_instances", os.O_RDONLY)
        ask(root, "remove", {"address": "0000:00:02.0"})
        assert [place for place in places if os.path.lexists(place)] == []
        assert os.listdir(root / "class/mdev_bus") == []
        assert os.stat(pci.parent).st_nlink == 2 + sum(one.is_dir() for one in pci.parent.iterdir())
        assert errno_of(lambda held=held: os.read(held, 10)) == errno.ENODEV  # type: ignore[misc]
        os.close(held)
        ask(root, "add", {"address": "0000:00:02.0"})
        assert all(os.path.exists(place) for place in places)
        assert listing(root) == before


def test_nobody_sees_a_type_or_a_parent_that_is_gone(mount: Mount) -> None:
    root = mount(HOST).root
    kind, kinds = root / MTTY / "mdev_supported_types/mtty-2", root / MTTY / "mdev_supported_types"
    for _ in range(5):
        assert read(kind / "name") == "Dual port serial\n"
        ask(root, "remove-type", {"parent": "mtty", "type": "mtty-2"})
        assert (kind.exists(), os.listdir(kinds), os.stat(kinds).st_nlink) == (False, ["mtty-1"], 3)
        ask(root, "add-type", {"parent": "mtty", "type": "mtty-2"})
        assert (sorted(os.listdir(kinds)), os.stat(kinds).st_nlink) == (["mtty-1", "mtty-2"], 4)
        ask(root, "unregister", {"parent": "mtty"})
        assert (kinds.exists(), os.path.lexists(root / "class/mdev_bus/mtty")) == (False, False)
        ask(root, "register", {"parent": "mtty"})


def test_a_fault_is_seen_at_once_by_open_descriptors_too(mount: Mount) -> None:
    root = mount(HOST).root
    path = root / TYPE / "available_instances"
    held = os.open(path, os.O_RDONLY)
    assert os.pread(held, 10, 0) == b"24\n"
    ask(root, "fault", {"path": "*/mtty-1/available_instances", "text": "0\n"})
    assert (os.pread(held, 10, 0), read(path)) == (b"0\n", "0\n")
    ask(root, "clear", {})
    assert (os.pread(held, 10, 0), read(path)) == (b"24\n", "24\n")
    os.close(held)


# -- slowness stays where it is


def test_a_slow_attribute_does_not_stop_the_rest(mount: Mount) -> None:
    root = mount(HOST).root
    ask(root, "fault", {"path": f"{TYPE}/name", "slow": "inf"})
    with meanwhile(lambda: read(root / TYPE / "name")) as waiting:
        until(lambda: ask(root, "faults", {})["faults"][0]["struck"] == 1)
        write(root / TYPE / "create", UUID)
        assert read(root / TYPE / "available_instances") == "23\n"
        assert run("cat", root / TYPE / "device_api").stdout == "vfio-pci\n"
        write(root / MTTY / UUID / "remove", "1")
        assert not waiting.done()
        ask(root, "clear", {})
    assert waiting.result() == "Single port serial\n"


def test_what_hangs_does_not_keep_the_server_from_ending(mount: Mount) -> None:
    server = mount(HOST)
    ask(server.root, "fault", {"path": f"{TYPE}/name", "slow": "inf"})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(errno_of, lambda: read(server.root / TYPE / "name"))
        until(lambda: ask(server.root, "faults", {})["faults"][0]["struck"] == 1)
        server.end()
        assert waiting.result(LIMIT) != 0


def test_a_probe_of_three_seconds(mount: Mount, did: Did) -> None:
    """Shortened: what a client sees meanwhile is the same."""
    root = mount(HOST).root
    assert did(root, "fault", "--on", "probe", "--slow", "0.3") == "fault 1: probe of *: 0.3 s late\n"
    begin = time.monotonic()
    with meanwhile(lambda: write(root / TYPE / "create", UUID)):
        assert not (root / "bus/mdev/devices" / UUID).exists()
    assert time.monotonic() - begin >= 0.3
    assert (root / "bus/mdev/devices" / UUID).exists()


# -- users, and who gives up


def test_mdevctl_like_rollback_of_a_failing_attribute(mount: Mount) -> None:
    """What mdevctl does with it is in its own tests; here: the errno is the fault's, and a second try succeeds."""
    root = mount("nvidia-t4").root
    kind = root / "class/mdev_bus/0000:3b:00.0/mdev_supported_types/nvidia-222"
    assert kind.exists(), os.listdir(root / "class/mdev_bus")
    write(kind / "create", UUID)
    ask(root, "fault", {"path": f"*/{UUID}/nvidia/vgpu_params", "on": "write", "errno": "EPERM", "count": 1})
    params = root / "bus/mdev/devices" / UUID / "nvidia/vgpu_params"
    assert write_errno(params, "a=1 ") == errno.EPERM
    assert write_errno(params, "a=1 ") == 0


def test_a_change_goes_on_without_its_asker(mount: Mount, control: Control, did: Did) -> None:
    root = mount(HOST).root
    write(root / TYPE / "create", UUID)
    did(root, "use", UUID)
    asker = subprocess.Popen([MDEVFS, "control", root, "remove", "mtty"], stdout=subprocess.PIPE)
    until(lambda: not os.path.lexists(root / "class/mdev_bus/mtty"))
    asker.send_signal(signal.SIGKILL)
    asker.communicate(timeout=LIMIT)
    assert control(root, "remove", "mtty") == (1, "", "mdevfs: mtty is on its way out already\n")
    assert (root / MTTY / UUID).exists()
    did(root, "release", UUID)
    until(lambda: not (root / MTTY).exists())
    assert did(root, "add", "mtty") == "mtty is there\n"
    assert os.listdir(root / "bus/mdev/devices") == []


def test_an_asker_that_gives_up_hears_so(mount: Mount) -> None:
    root = mount(HOST).root
    write(root / TYPE / "create", UUID)
    ask(root, "use", {"uuid": UUID})
    with pytest.raises(TimeoutError):
        ask(root, "unregister", {"parent": "mtty"}, timeout=0.2)
    ask(root, "release", {"uuid": UUID})
    until(lambda: not (root / MTTY / "mdev_supported_types").exists())


# -- reboot


def test_a_reboot_with_mdevs_in_use(mount: Mount, place: Path, did: Did) -> None:
    events = place / "events"
    root = mount(HOST, "--events", events).root
    before = listing(root)
    write(root / TYPE / "create", UUID)
    write(root / TYPE / "create", UUID2)
    ask(root, "use", {"uuid": UUID})
    with meanwhile(lambda: write_errno(root / MTTY / UUID / "remove", "1")) as removal:
        until(lambda: not os.path.lexists(root / "bus/mdev/devices" / UUID))
        begin = len(events.read_text().splitlines())
        assert did(root, "reboot") == "the machine has rebooted\n"
        assert os.listdir(root / "bus/mdev/devices") == []
    assert removal.result() in (0, errno.ENODEV)
    assert listing(root) == before
    told = [json.loads(line) for line in events.read_text().splitlines()[begin:]]
    mdevs = [(one["action"], one["devpath"]) for one in told if one["devpath"] == f"/{MTTY}/{UUID2}"]
    assert mdevs == [("unbind", f"/{MTTY}/{UUID2}"), ("remove", f"/{MTTY}/{UUID2}")]
    states = [one["env"].get("MDEV_STATE") for one in told if one["devpath"] == f"/{MTTY}"]
    assert states == ["unregistered", None, None, "registered"]
    assert [one["seqnum"] for one in told] == list(range(told[0]["seqnum"], told[0]["seqnum"] + len(told)))


def test_devices_come_back_late(mount: Mount) -> None:
    root = mount(HOST).root
    with Subscription(root, LIMIT) as events:
        ask(root, "reboot", {"late": 0.3})
        assert not (root / "class/mdev_bus/mtty").exists()
        for event in events:
            if event["env"].get("MDEV_STATE") == "registered" and event["devpath"] == f"/{MTTY}":
                break
        assert (root / "class/mdev_bus/mtty").exists()  # as soon as it is told
    assert read(root / TYPE / "available_instances") == "24\n"


def test_a_host_whose_device_comes_late_at_its_start(mount: Mount) -> None:
    root = mount(f"[[device]]\ndriver='mtty'\nlate=0.2\n[[device.mdev]]\nuuid='{UUID}'\ntype='mtty-1'\n").root
    until(lambda: (root / "bus/mdev/devices" / UUID / "mdev_type").exists())


def test_reboots_while_tools_look(mount: Mount) -> None:
    """Readers and creators never see anything but a whole machine or what is missing."""
    root = mount(HOST).root
    stop, allowed = False, {0, errno.ENOENT, errno.ENODEV, errno.EEXIST}

    def look() -> set[int]:
        seen = set()
        while not stop:
            seen.add(write_errno(root / TYPE / "create", UUID))
            seen.add(
                errno_of(lambda: [os.listdir(path) for path in (root / "class/mdev_bus", root / "bus/mdev/devices")])
            )
            seen.add(errno_of(lambda: read(root / TYPE / "available_instances")))
        return seen

    with ThreadPoolExecutor(3) as pool:
        lookers = [pool.submit(look) for _ in range(3)]
        for _ in range(15):
            ask(root, "reboot", {})
        stop = True
        assert set.union(*(looker.result(LIMIT) for looker in lookers)) <= allowed
    ask(root, "reboot", {})
    assert os.listdir(root / "bus/mdev/devices") == []


# -- the command line


def test_the_command_line(mount: Mount, did: Did) -> None:
    root = mount(HOST).root
    write(root / TYPE / "create", UUID)
    assert did(root, "status").splitlines() == [
        "mtty    mtty    present",
        "mdpy    mdpy    present",
        "mbochs  mbochs  present",
        "parent mtty: 1 mdevs; types mtty-1, mtty-2",
        "parent mdpy: 0 mdevs; types mdpy-vga, mdpy-xga, mdpy-hd",
        "parent mbochs: 0 mdevs; types mbochs-small, mbochs-medium, mbochs-large",
    ]
    assert did(
        root, "fault", root / "class/mdev_bus/mtty/mdev_supported_types/mtty-1/name", "--errno", "EIO"
    ).startswith(f"fault 1: read or write of {TYPE}/name: EIO")
    assert did(root, "fault", "*/nam", "--text", "x", "--count", "2").splitlines() == [
        "fault 2: read of */nam: reads 'x'",
        "nothing has such a path yet",
    ]
    assert did(root, "faults").splitlines() == [
        f"fault 1: read or write of {TYPE}/name: EIO; struck 0",
        "fault 2: read of */nam: reads 'x'; struck 0 of 2",
    ]
    assert [one["number"] for one in json.loads(did(root, "faults", "--json"))["faults"]] == [1, 2]
    assert did(root, "clear", "2") == "1 cleared\n"
    assert did(root, "clear") == "1 cleared\n"
    assert did(root, "remove-type", "mtty", "mtty-1", "--mdevs") == "mtty no longer offers mtty-1\n"
    assert did(root, "add-type", "mtty", "mtty-one", "--like", "mtty-1", "--name", "One") == "mtty offers mtty-one\n"
    assert did(root, "remove", "mdpy") == "mdpy is gone\n"
    assert did(root, "reboot", "--late", "inf") == "the machine has rebooted\n"
    assert did(root, "status").splitlines() == [f"{name:<6}  {name:<6}  absent" for name in ("mtty", "mdpy", "mbochs")]
    assert did(root, "add", "--driver", "nvidia", "--address", "0000:3b:00.0", "--setting", "board=T4") == (
        "0000:3b:00.0 is there\n"
    )
    assert did(root, "unregister", "0000:3b:00.0") == "0000:3b:00.0 is unregistered\n"
    assert did(root, "register", "0000:3b:00.0", "--json") == '{\n  "did": "0000:3b:00.0 is registered"\n}\n'


MISTAKES: list[tuple[tuple[str, ...], int, str]] = [
    (("remove", "mttty"), 2, 'there is no device "mttty", did you mean "mtty"?'),
    (("add", "mtty"), 1, "mtty is there already"),
    (("add",), 2, "add takes the DEVICE that is absent, or --driver for a new one"),
    (("add", "x", "--address", "y"), 2, "--address and --setting describe a new device: give --driver as well"),
    (("add", "--driver", "mtty", "--setting", "x"), 2, '--setting "x" is not of the form KEY=VALUE'),
    (("fault", "--errno", "EIO"), 2, "a fault of an attribute needs its path, such as */available_instances"),
    (("fault", "*/name", "--on", "raed"), 2, "Invalid value for '--on': Value error, 'raed' is not one of"),
    (("clera",), 2, "No such command 'clera'. Did you mean 'clear'?"),
    ((), 2, "Missing command."),
]


def test_mistakes_on_the_command_line(mount: Mount, control: Control) -> None:
    root = mount(HOST).root
    for arguments, code, told in MISTAKES:
        done = control(root, *arguments)
        assert done[:2] == (code, ""), arguments
        assert done[2].startswith(f"mdevfs: {told}"), arguments


def test_where_no_host_is(place: Path, control: Control) -> None:
    code, out, err = control(place, "status")
    assert (code, out) == (2, "")
    assert err.startswith(f"mdevfs: no host of mdevfs is mounted on {place}: ")
