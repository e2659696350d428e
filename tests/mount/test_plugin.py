"""The pytest plug-in: what its fixtures give, used here as anybody's tests would; then whole runs of pytest, which
leave nothing behind however they end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdevfs.errors import InputError, KernelError
from mdevfs.testing.host import HostFactory
from mdevfs.testing.machine import MachineRunner
from tests.mount.conftest import why_not
from tests.mount.server import LIMIT, until

TYPE = "class/mdev_bus/mtty/mdev_supported_types/mtty-1"
UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"


@pytest.fixture(autouse=True)
def _able() -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)


# -- a host


def test_a_host_is_live(mdevfs_host: HostFactory) -> None:
    host = mdevfs_host("mtty")
    mdev = host.create("mtty-1", uuid=UUID)
    assert mdev == host.root / "bus/mdev/devices" / UUID
    assert (mdev / "mdev_type/name").read_text() == "Single port serial\n"
    assert uuid.UUID(host.create("mtty-2").name).version == 4
    assert host.check(mdev, TYPE).compatible
    assert [one.code for one in host.check(mdev, TYPE.replace("mtty-1", "mtty-2")).reasons] == ["types-differ"]
    host.end()
    assert list(host.root.iterdir()) == []


def test_a_refused_creation_says_why(mdevfs_host: HostFactory) -> None:
    host = mdevfs_host("my_nic")
    assert (host.create("my_nic-nic", "version=2") / "migration/rx-filter-size").read_text() == "32\n"
    with pytest.raises(OSError) as caught:
        host.create("my_nic-nic", "rx-filter-size=300")
    assert caught.value.errno == errno.EINVAL
    assert caught.value.__notes__ == ["value-not-allowed: rx-filter-size: the device allows 0 to 256"]
    with pytest.raises(InputError, match='any parent has no type "my_nic-nick"; types: my_nic-nic; parents: my_nic'):
        host.create("my_nic-nick")
    with pytest.raises(InputError, match='parent other has no type "my_nic-nic"; types: none; parents: my_nic'):
        host.create("my_nic-nic", parent="other")


def test_a_creation_takes_the_parent_with_room(mdevfs_host: HostFactory) -> None:
    host = mdevfs_host("nvidia-t4")
    assert (host.create("nvidia-234").resolve().parent.name) != (host.create("nvidia-234").resolve().parent.name)
    with pytest.raises(OSError):
        host.create("nvidia-234")


def test_events_so_far_and_to_come(mdevfs_host: HostFactory) -> None:
    host = mdevfs_host("mtty")
    assert host.events[-2]["env"]["MDEV_STATE"] == "registered"  # those of its start are there
    host.create("mtty-1", uuid=UUID)
    bound = host.wait(f"bind@*/{UUID}", "DRIVER=mtty")  # it is over already
    with pytest.raises(TimeoutError, match=r"no event bind@\* within 0\.1 s"):
        host.wait("bind@*", after=bound["seqnum"], timeout=0.1)
    command = f"sleep 0.2; echo 1 > {host.root}/bus/mdev/devices/{UUID}/remove"
    with subprocess.Popen(["sh", "-c", command]) as process:
        removed = host.wait("remove", "SUBSYSTEM=mdev", timeout=LIMIT)
    assert process.returncode == 0
    assert removed["devpath"].endswith(UUID)
    assert removed["seqnum"] > bound["seqnum"]
    with pytest.raises(InputError, match='"made" is no action'):
        host.wait("made@*")


def test_faults_and_what_they_do_to_a_tool(mdevfs_host: HostFactory) -> None:
    host = mdevfs_host("mtty")
    with host.fault("*/mtty-1/create", on="write", errno="EBUSY", count=1) as fault:
        with pytest.raises(OSError):
            host.create("mtty-1")
        assert fault.struck == 1
        host.create("mtty-1", uuid=UUID)
    assert host.control("faults")["faults"] == []
    assert fault.struck == 0
    host.fault(host.root / TYPE / "name", text="wrong\n")
    assert (host.root / TYPE / "name").read_text() == "wrong\n"
    slow = host.fault("*/device_api", slow=float("inf"))
    with subprocess.Popen(["cat", host.root / TYPE / "device_api"], stdout=subprocess.PIPE) as cat:
        while not slow.struck:
            assert cat.poll() is None
        slow.clear()
        assert cat.communicate(timeout=LIMIT)[0] == b"vfio-pci\n"
    with pytest.raises(InputError, match='errno: "EIOO" is unknown, did you mean "EIO"'):
        host.fault("*/create", errno="EIOO")


def test_accesses(mdevfs_host: HostFactory) -> None:
    host = mdevfs_host("mtty")
    (host.root / TYPE / "name").read_text()
    host.create("mtty-1", uuid=UUID)
    read, _, write = host.accesses
    assert (read.operation, read.path, read.text, read.pid) == (
        "read",
        host.accesses[0].path,
        "Single port serial\n",
        os.getpid(),
    )
    assert (write.operation, write.text, write.errno, write.uid) == ("write", UUID, None, os.getuid())


def test_control(mdevfs_host: HostFactory) -> None:
    host = mdevfs_host("mtty")
    host.create("mtty-1", uuid=UUID)
    host.control("use", uuid=UUID)
    host.control("reboot", late=0.1)
    host.wait("change", "MDEV_STATE=registered", after=host.wait("change", "MDEV_STATE=unregistered")["seqnum"])
    assert os.listdir(host.root / "bus/mdev/devices") == []
    with pytest.raises(KernelError, match="mtty is there already"):
        host.control("add", address="mtty")


DRIVER = """
from mdevfs.vendor import MdevType, VendorDriver

class Acme(VendorDriver):
    api = 1
    name = "acme"
    types = [MdevType("a")]
"""


def test_hosts_described_in_python(mdevfs_host: HostFactory, tmp_path: Path) -> None:
    (tmp_path / "acme.py").write_text(DRIVER)
    described = {"host": {"drivers": [tmp_path / "acme.py"]}, "device": [{"driver": "acme", "late": float("inf")}]}
    assert os.listdir(mdevfs_host(described).root / "class/mdev_bus") == []
    text = f"[[device]]\ndriver = 'mtty'\n[[device.mdev]]\nuuid = '{UUID}'\ntype = 'mtty-1'\n"
    assert os.listdir(mdevfs_host(text).root / "bus/mdev/devices") == [UUID]
    (tmp_path / "host.toml").write_text("host.drivers = ['./acme.py']\n[[device]]\ndriver = 'acme'\n")
    assert os.listdir(mdevfs_host(tmp_path / "host.toml").root / "class/mdev_bus") == ["acme"]


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("mttty", 'there is no shipped host "mttty", did you mean "mtty"?'),
        ("./none.toml", "/none.toml does not exist"),
        ("[[device]\n", "the host's text is not TOML"),
        ("[[device]]\ndriver = 'mttty'\n", 'vendor driver "mttty" is unknown, did you mean "mtty"?'),
        ({"device": [{"drivr": "mtty"}]}, 'device[0].drivr: unknown key, did you mean "driver"?'),
        ({"device": object()}, "the host's description: "),
    ],
)
def test_a_bad_host_is_a_mistake_and_no_skip(mdevfs_host: HostFactory, host: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        mdevfs_host(host)
    assert told in str(caught.value)


# -- a machine


def test_a_command_on_a_machine(mdevfs_run: MachineRunner) -> None:
    script = 'cat; ls /sys/class/mdev_bus; echo "$A" >&2; exit 7'
    done = mdevfs_run("mtty", ["sh", "-c", script], input="given\n", env={**os.environ, "A": "told"})
    assert (done.returncode, done.stdout, done.stderr) == (7, "given\nmtty\n", "told\n")


def test_what_happened_on_a_machine(mdevfs_run: MachineRunner) -> None:
    done = mdevfs_run("mtty", ["cat", "/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/name"])
    assert done.stdout == "Single port serial\n"
    read = [one for one in done.accesses if one.comm == "cat"]
    assert [(one.operation, one.path.rpartition("/")[2], one.text) for one in read] == [("read", "name", done.stdout)]
    with pytest.raises(InputError, match="--trace=elsewhere is the fixture's own"):
        mdevfs_run("mtty", ["true"], options=["--trace=elsewhere"])
    assert "/devices/virtual/mtty/mtty" in {one["devpath"] for one in done.events if one["action"] == "add"}


def test_a_machine_that_cannot_be(mdevfs_run: MachineRunner) -> None:
    with pytest.raises(InputError, match='did you mean "mtty"'):
        mdevfs_run("mttty", ["true"])
    with pytest.raises(subprocess.TimeoutExpired):
        mdevfs_run("mtty", ["sleep", "1000"], timeout=2)


# -- whole runs


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A place for a run of pytest; afterwards nothing may be mounted below it."""
    yield tmp_path
    until(lambda: not mounted(tmp_path))


def mounted(below: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(f"{below}/")]


def command(project: Path, test: str, *options: str) -> list[str]:
    (project / "test_it.py").write_text(test)
    (project / "pytest.ini").write_text("[pytest]\n")
    base = f"--basetemp={project}/base"
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", base, *options, str(project / "test_it.py")]


def pytest_run(project: Path, test: str, *options: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """The exit code and the output of a run of this test file."""
    done = subprocess.run(
        [*prefix, *command(project, test, *options)],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


FAILS = """
def test_it(mdevfs_host):
    host = mdevfs_host("mtty")
    host.fault("*/create", errno="EIO")
    held = open(host.root / "class/mdev_bus/mtty/mdev_supported_types/mtty-1/name")
    host.create("mtty-1")
"""


def test_a_failing_test_has_the_log_and_leaves_no_mount(project: Path) -> None:
    code, output = pytest_run(project, FAILS)
    assert code == 1
    assert "mdevfs mount mtty" in output
    assert (
        "mdevfs.sysfs.faults: fault 1: write of devices/virtual/mtty/mtty/mdev_supported_types/mtty-1/create: EIO"
        in output
    )
    assert mounted(project) == []


def test_a_passing_test_tells_nothing(project: Path) -> None:
    code, output = pytest_run(project, 'def test_it(mdevfs_host): mdevfs_host("mtty")\n')
    assert (code, "mdevfs" in output) == (0, False)


HANGS = """
import time
def test_it(mdevfs_host):
    mdevfs_host("mtty")
    open("there", "w").close()
    time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_mount(project: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(command(project, HANGS), cwd=project, stdout=subprocess.DEVNULL)
    until(lambda: (project / "there").exists())
    assert len(mounted(project)) == 1
    process.send_signal(number)
    process.wait(LIMIT)
    until(lambda: not mounted(project))


def test_a_server_that_dies_is_an_error(project: Path) -> None:
    test = """
import os, signal
def test_it(mdevfs_host):
    host = mdevfs_host("mtty")
    os.kill(host._server._process.pid, signal.SIGKILL)
    host._server._process.wait()
"""
    code, output = pytest_run(project, test)
    assert code == 1
    assert "ERROR at teardown of test_it" in output
    assert "the server of a host ended by itself, with -9" in output
    assert mounted(project) == []


def test_tests_in_parallel(project: Path) -> None:
    test = """
import os, pytest
@pytest.mark.parametrize("number", range(6))
def test_it(mdevfs_host, number, worker_id):
    host = mdevfs_host("mtty")
    assert os.listdir(host.root / "bus/mdev/devices") == []
    host.create("mtty-1", uuid=f"83b8f4f2-509f-382f-3c1e-e6bfe0fa100{number}")
    assert len(os.listdir(host.root / "bus/mdev/devices")) == 1
    assert worker_id in ("gw0", "gw1")
"""
    code, output = pytest_run(project, test, "-n", "2")
    assert code == 0, output
    assert "6 passed" in output


def test_a_failing_test_in_parallel_has_the_log(project: Path) -> None:
    code, output = pytest_run(project, FAILS, "-n", "2")
    assert code == 1
    assert "mdevfs.sysfs.faults: fault 1: write of" in output


def test_a_run_without_it_pays_nothing(project: Path) -> None:
    """It is there, and has imported neither mdevfs's rooms nor what they stand on."""
    test = """
import sys
def test_it(pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("mdevfs")
    heavy = {"attrs", "pydantic", "trio", "typer", "pyfuse3", "rich"} & set(sys.modules)
    ours = {name for name in sys.modules if name.startswith("mdevfs")}
    assert (heavy, ours) == (set(), {"mdevfs", "mdevfs.testing", "mdevfs.testing.plugin"})
"""
    code, output = pytest_run(project, test, "-p", "no:trio", "-p", "no:hypothesispytest", "-p", "no:xdist")
    assert code == 0, output


def no_fuse() -> tuple[str, ...]:
    """The prefix of a command for which /dev/fuse is another device."""
    prefix = (
        "unshare",
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        'mount --bind /dev/null /dev/fuse && exec "$@"',
        "sh",
    )
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare and the right to mount")
    return prefix


def test_a_machine_without_fuse_is_an_error_or_a_skip(project: Path) -> None:
    test = 'def test_it(mdevfs_host): mdevfs_host("mtty")\ndef test_run(mdevfs_run): mdevfs_run("mtty", ["true"])\n'
    code, output = pytest_run(project, test, prefix=no_fuse())
    assert (code, "2 failed" in output) == (1, True), output
    assert "mdevfs: cannot mount on" in output
    assert "(to skip such tests: mdevfs_unavailable = skip)" in output
    code, output = pytest_run(project, test, "-rs", "-o", "mdevfs_unavailable=skip", prefix=no_fuse())
    assert (code, "2 skipped" in output) == (0, True), output
    assert "mdevfs: cannot mount on" in output
    code, output = pytest_run(project, test, "-o", "mdevfs_unavailable=skipp", prefix=no_fuse())
    assert code == 1
    assert 'mdevfs_unavailable = "skipp" is unknown: error or skip' in output
