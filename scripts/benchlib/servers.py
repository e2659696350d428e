"""The file systems under measurement: started when a measure first asks for one, all stopped at the end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import attrs

BAREFS = Path(__file__).parents[1] / "barefs.py"
START_SECONDS = 60.0  # how long a server may take before the bench gives up on it

DRIVER = '''"""A vendor driver with room for very many mdevs."""

from mdevfs.vendor import MdevType, VendorDriver


class Many(VendorDriver):
    api = 1
    name = "many"
    types = [MdevType("unit", instances=200000)]
'''

HOST = """[host]
name = "bench"
drivers = ["./many.py"]

[[device]]
driver = "many"
"""

MDEVS = """
[[device.mdev]]
count = {count}
type = "many-unit"
"""


class CannotMeasureError(Exception):
    """A figure cannot be had here; the message says why."""


@attrs.frozen
class Server:
    """A mounted file system in the foreground of its own process."""

    process: subprocess.Popen[bytes]
    directory: Path
    resident_at_start: int  # KiB, when the mount first answered

    def resident(self) -> int:
        return resident_kib(self.process.pid)

    def peak(self) -> int:
        """The most that it ever was."""
        return resident_kib(self.process.pid, "VmHWM")


def resident_kib(pid: int, figure: str = "VmRSS") -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{figure}:"):
            return int(line.split()[1])
    raise CannotMeasureError(f"/proc/{pid}/status shows no {figure}")


@attrs.define(slots=False)
class Machines:
    """Gives each file system to the measures that need it, and hosts of any number of mdevs.

    `mdevfs` is the command under measurement, `host` what it mounts for the plain rows, `stack` stops the servers.
    """

    mdevfs: str
    host: str
    scratch: Path
    stack: ExitStack
    _many: dict[int, Server] = attrs.field(factory=dict, init=False)

    @cached_property
    def bare(self) -> Path:
        return self.stack.enter_context(self.fresh_bare(0)).directory

    @cached_property
    def plain(self) -> Path:
        return self.stack.enter_context(self.fresh_mdevfs(self.host)).directory

    def many(self, count: int) -> Server:
        """One mount with `count` mdevs for all measures; they leave as many as they found."""
        if count not in self._many:
            self._many[count] = self.stack.enter_context(self.fresh_many(count))
        return self._many[count]

    @contextmanager
    def fresh_bare(self, names: int, size: int = 0) -> Iterator[Server]:
        """With so many names in `many/`, and a file `large` of so many bytes."""
        with self._directory("bare") as directory:
            command = [sys.executable, str(BAREFS), str(directory), "--names", str(names), "--size", str(size)]
            with _running(command, directory) as server:
                yield server

    @contextmanager
    def fresh_many(self, count: int) -> Iterator[Server]:
        with self.fresh_mdevfs(self.host_of(count)) as server:
            yield server

    @contextmanager
    def fresh_mdevfs(self, host: str) -> Iterator[Server]:
        with self._directory("mdevfs") as directory:
            with _running([self.mdevfs, "mount", "--foreground", host, str(directory)], directory) as server:
                yield server

    def host_of(self, count: int) -> str:
        """The path of a host file with `count` mdevs of one parent."""
        (self.scratch / "many.py").write_text(DRIVER)
        host = self.scratch / f"many-{count}.toml"
        host.write_text(HOST + (MDEVS.format(count=count) if count else ""))
        return str(host)

    def start_in_background(self, host: str) -> float:
        """Nanoseconds from `mdevfs mount` to its return; unmounted again."""
        with self._directory("start") as directory:
            begin = time.perf_counter_ns()
            self.command("mount", host, str(directory))
            took = time.perf_counter_ns() - begin
            self.command("umount", str(directory))
            return took

    def command(self, *arguments: str) -> None:
        """Run one mdevfs command to its end; its output is shown only when it fails."""
        with tempfile.TemporaryFile() as output:  # not a pipe: a server in the background would keep it open
            try:
                code = subprocess.run([self.mdevfs, *arguments], stdout=output, stderr=output, check=False).returncode
            except OSError as error:
                raise CannotMeasureError(f"{self.mdevfs}: {error.strerror}") from None
            if code:
                output.seek(0)
                raise CannotMeasureError(f"mdevfs {' '.join(arguments)}: exit {code}: {_tail(output.read())}")

    @contextmanager
    def _directory(self, name: str) -> Iterator[Path]:
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch))
        try:
            yield directory
        finally:
            if f" {directory} " in Path("/proc/self/mounts").read_text():  # a dead server leaves its mount
                subprocess.run(["fusermount3", "-uz", directory], check=False)
            directory.rmdir()


@contextmanager
def _running(command: list[str], directory: Path) -> Iterator[Server]:
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        except OSError as error:
            raise CannotMeasureError(f"{command[0]}: {error.strerror}") from None
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(directory):
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    raise CannotMeasureError(f"{' '.join(command)} did not mount: {_tail(output.read())}")
                time.sleep(0.005)
            yield Server(process, directory, resident_kib(process.pid))
        finally:
            _stop(process)


def _answers(directory: Path) -> bool:
    try:
        return directory.is_mount()
    except OSError:  # mounted, and its server dead
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
