"""The rows of device state: 256 MiB out of a device and into another, against `cat` of as many bytes through a bare
pyfuse3 mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .servers import Machines, Server
from .timing import Result, absolute, compare, timed
from .trees import BARE_TYPE, write

if TYPE_CHECKING:
    from .measures import Scale

MIB = 1 << 20
SIZE = 256 * MIB
UUIDS = ("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", "83b8f4f2-509f-382f-3c1e-e6bfe0fa1002")
DRIVER = f'''"""A device with a large memory."""

from mdevfs.vendor import Bytes, DeviceModel, MdevType, VendorDriver, VMState


class Large(VendorDriver):
    api = 1
    name = "large"
    types = [MdevType("unit")]
    model = DeviceModel("bench.example/large")
    state = VMState("large", fields=[Bytes("memory", {SIZE})])
'''
HOST = f"""[host]
drivers = ["./large.py"]

[[device]]
driver = "large"

[[device.mdev]]
uuid = "{UUIDS[0]}"
type = "large-unit"

[[device.mdev]]
uuid = "{UUIDS[1]}"
type = "large-unit"
"""


def saving(machines: Machines, scale: Scale) -> Result:
    """From the move to STOP_COPY to the last byte; the device runs again when the file is closed."""

    def ours(server: Server) -> None:
        folder = _folder(server, 0)
        write(str(folder / "migration_state"), b"STOP_COPY")
        _cat(folder / "migration_data", "/dev/null")

    return _against_cat(machines, scale, ours, lambda bare: _cat(bare, "/dev/null"))


def loading(machines: Machines, scale: Scale) -> Result:
    """From the move to RESUMING until the device runs with its new state."""
    saved = machines.scratch / "large.mig"

    def ours(server: Server) -> None:
        if not saved.exists():
            _save(server, saved)
        _load(server, saved)

    return _against_cat(machines, scale, ours, lambda bare: _cat(saved, bare))


def saving_memory(machines: Machines, scale: Scale) -> Result:
    with _large(machines) as server:
        ours = partial(_save, server, Path("/dev/null"))
        ours()  # the device's own memory is there from now on
        return absolute([_peak(server, ours) for _ in range(scale.mounts)])


def loading_memory(machines: Machines, scale: Scale) -> Result:
    """The new state is there beside the old one until the commit; what is above it is the way there."""
    saved = machines.scratch / "large.mig"
    with _large(machines) as server:
        _save(server, saved)
        ours = partial(_load, server, saved)
        ours()
        return absolute([_peak(server, ours) - SIZE / MIB for _ in range(scale.mounts)])


def _against_cat(
    machines: Machines, scale: Scale, ours: Callable[[Server], None], theirs: Callable[[Path], None]
) -> Result:
    with _large(machines) as server, machines.fresh_bare(0, SIZE) as bare:
        file = bare.directory / BARE_TYPE / "large"
        ours(server)  # the devices' own memory is touched the first time
        theirs(file)
        return compare(lambda: [timed(partial(ours, server))], lambda: [timed(partial(theirs, file))], scale.mounts)


@contextmanager
def _large(machines: Machines) -> Iterator[Server]:
    (machines.scratch / "large.py").write_text(DRIVER)
    host = machines.scratch / "large.toml"
    host.write_text(HOST)
    with machines.fresh_mdevfs(str(host)) as server:
        yield server


def _folder(server: Server, number: int) -> Path:
    return server.directory / "bus/mdev/devices" / UUIDS[number] / "mdevfs"


def _save(server: Server, saved: Path) -> None:
    write(str(_folder(server, 0) / "migration_state"), b"STOP_COPY")
    _cat(_folder(server, 0) / "migration_data", saved)


def _load(server: Server, saved: Path) -> None:
    folder = _folder(server, 1)
    write(str(folder / "migration_state"), b"RESUMING")
    data = os.open(folder / "migration_data", os.O_WRONLY)
    try:
        subprocess.run(["cat", saved], stdout=data, check=True)
        os.fsync(data)
        write(str(folder / "migration_state"), b"RUNNING")
    finally:
        os.close(data)


def _cat(source: Path, target: Path | str) -> None:
    with open(target, "wb", buffering=0) as output:
        subprocess.run(["cat", source], stdout=output, check=True)


def _peak(server: Server, operation: Callable[[], None]) -> float:
    """MiB that the server's memory was above what it is now while it did that."""
    process = Path("/proc") / str(server.process.pid)
    before = server.resident()
    (process / "clear_refs").write_text("5")  # VmHWM begins anew
    operation()
    return (server.peak() - before) / 1024
