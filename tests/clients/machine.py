"""An emulated machine with somebody inside who runs clients for a test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen

from tests.mount.server import LIMIT, MDEVFS

AGENT = Path(__file__).with_name("agent.py")
UDEVD = "/lib/systemd/systemd-udevd"
NODEDEV, LIBRARIES = "libvirt_driver_nodedev.so", ("lib/*", "lib64", "lib")
DEVICES = "/sys/bus/mdev/devices"
PARENTS = "/sys/class/mdev_bus"

VIRSH = ("virsh", "-c", "nodedev:///system")

PACKAGES = {
    "busybox": "busybox-static",
    "driverctl": "driverctl",
    "libvirtd": "libvirt-daemon",
    "lshw": "lshw",
    "lspci": "pciutils",
    "mdevctl": "mdevctl",
    "systool": "sysfsutils",
    "udevadm": "udev",
    "virsh": "libvirt-clients",
    UDEVD: "udev",
}
SYSTEM_PYTHON = "/usr/bin/python3"  # has what Debian's packages bring


def absent(*programs: str) -> list[str]:
    """Which of these clients are not installed, each with the package that has it."""
    missing = [program for program in programs if shutil.which(program) is None]
    return [f"{program} (package {PACKAGES[program]})" for program in missing]


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips tests where a client is not installed."""
    missing = absent(*programs)
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


@frozen
class Done:
    """How a command ended, and what it printed on both outputs."""

    command: str
    code: int
    out: str


@define
class Machine:
    """`mdevfs run HOST` with the agent as its command. `files` is a directory that the machine and the test share."""

    process: subprocess.Popen[str]
    files: Path
    running: dict[str, int] = field(factory=dict)

    @classmethod
    def begin(cls, host: str | Path, files: Path, *options: str) -> Machine:
        """Starts the machine; returns when a command could run in it."""
        command = [MDEVFS, "run", *options, host, "--", sys.executable, AGENT]
        with (files / "run.stderr").open("w") as errors:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        machine = cls(process, files)
        machine.ok("true")
        return machine

    def _ask(self, **question: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the machine is gone: {(self.files / 'run.stderr').read_text()}"
        document = json.loads(answer)
        assert isinstance(document, dict)
        return document

    # -- commands

    def run(self, *command: str | Path, input: str = "", limit: float = LIMIT) -> Done:
        """Runs a command to its end."""
        words = [str(word) for word in command]
        answer = self._ask(run=words, input=input, limit=limit)
        return Done(" ".join(words), answer["code"], answer["out"])

    def ok(self, *command: str | Path, input: str = "", limit: float = LIMIT) -> str:
        """What a command prints that must succeed."""
        done = self.run(*command, input=input, limit=limit)
        assert done.code == 0, f"{done.command}: exit code {done.code}\n{done.out}"
        return done.out

    def sh(self, script: str) -> str:
        """What a script prints that must succeed."""
        return self.ok("sh", "-ec", script)

    def no(self, *command: str | Path) -> str:
        """What a command says that must fail."""
        done = self.run(*command)
        assert done.code > 0, f"{done.command}: exit code {done.code}\n{done.out}"
        return done.out

    def until(self, script: str, limit: float = LIMIT) -> str:
        """What a script prints once it succeeds."""
        answer = self._ask(until=["sh", "-c", script], limit=limit)
        assert answer["code"] == 0, f"not after {limit} s: {script}\n{answer['out']}"
        return str(answer["out"])

    def soon(self, script: str) -> bool:
        """Whether a script succeeds within a second."""
        return bool(self._ask(until=["sh", "-c", script], limit=1.0)["code"] == 0)

    def start(self, name: str, *command: str, **environment: str) -> None:
        """Leaves a command running; `log` has what it printed."""
        answer = self._ask(start=list(command), log=str(self.files / f"{name}.log"), environment=environment)
        self.running[name] = answer["pid"]

    def log(self, name: str) -> str:
        """What a running command, or one that ran, has printed so far."""
        return (self.files / f"{name}.log").read_text(errors="replace")

    def heard(self, name: str, pattern: str) -> None:
        """Returns when a line of a running command's output matches the extended regular expression."""
        self.until(f"grep -Eq -- '{pattern}' '{self.files}/{name}.log' || {{ cat '{self.files}/{name}.log'; false; }}")

    def stop(self, name: str) -> None:
        """Ends a running command."""
        self._ask(stop=self.running.pop(name))

    # -- the machine's own

    def read(self, path: str) -> str:
        """A file's text."""
        return self.ok("cat", path)

    def create(self, parent: str, kind: str) -> str:
        """Makes an mdev as a shell would; its UUID."""
        made = str(uuid.uuid4())
        self.sh(f"echo {made} >{PARENTS}/{parent}/mdev_supported_types/{kind}/create")
        return made

    def remove(self, mdev: str) -> None:
        self.sh(f"echo 1 >{DEVICES}/{mdev}/remove")

    def mdevs(self) -> list[str]:
        """The UUIDs of all mdevs."""
        return self.sh(f"[ ! -d {DEVICES} ] || ls {DEVICES}").split()

    def reset(self) -> None:
        """As after the start: no mdev, nothing defined, no callout."""
        self.sh(f"for one in {DEVICES}/*/remove; do [ ! -e $one ] || echo 1 >$one; done")
        self.sh("cd /etc/mdevctl.d && rm -rf [!s]* scripts.d/*/* && rm -rf /etc/driverctl.d/*")

    def close(self) -> None:
        """Ends the machine. Nobody asks the clients: what they leave behind is the machine's to clear away."""
        if self.process.poll() is None:
            self.process.communicate(timeout=LIMIT)
        assert self.process.returncode == 0, (self.files / "run.stderr").read_text()


def libvirtd(machine: Machine) -> None:
    """Starts libvirt's daemon with its node device driver alone, and waits until it answers."""
    found = [path for place in LIBRARIES for path in Path("/usr").glob(f"{place}/libvirt/connection-driver/{NODEDEV}")]
    drivers, configuration = machine.files / "drivers", machine.files / "libvirtd.conf"
    drivers.mkdir()
    (drivers / NODEDEV).symlink_to(found[0])
    configuration.write_text('unix_sock_group = "root"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\n')
    command = ("libvirtd", "-f", str(configuration), "-p", str(machine.files / "libvirtd.pid"))
    machine.start("libvirtd", *command, LIBVIRT_DRIVER_DIR=str(drivers))
    machine.until("virsh -c nodedev:///system nodedev-list --cap mdev_types")
