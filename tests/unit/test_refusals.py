"""Every refusal through a host's attributes: errno, code, parameter and both values, in the verdict and in words."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import field, frozen

from mdevfs.errors import escape
from mdevfs.host.host import Host
from mdevfs.mdev.mdev import Mdev
from mdevfs.migration.catalogue import load
from mdevfs.migration.verdict import Refused
from tests.support import InProcess, check_tree, host_of

DRIVERS = '''
import errno
from mdevfs.vendor import (Bool, Broken, DeviceModel, Int, KernelError, MdevType, Refused, Set, Tier, VendorDriver,
                           Verdict, chain)

class Acme(VendorDriver):
    api, name = 1, "acme"
    types = [MdevType("nic", instances=2),
             MdevType("fixed", params={"ports": 2}, arguments={"units": {"1": {"ports": 2}, "2": {"ports": 4}}})]
    model = DeviceModel("acme.com/nic", params=[
        Int("size", init=64, off=0, allowed=range(257), compat="acme.size"),
        Int("ports", init=1, allowed=range(1, 5)),
        Bool("log", init=False, off=False, state_only=True),
        Set("services", init=frozenset({"sym"}), off=frozenset(), allowed=("dc", "sym")),
        Int("slices", init=1, off=1, allowed=(1, 2), fixed=True),
    ], versions={"1": {}, "2": {"size": 32}})
    machine_types = chain(("pc-2.0", {}), ("pc-1.0", {"acme.size": "32"}))
    tiers = {"pc-0.9": Tier("unmigratable", "its state has no description"), "micro": Tier("unversioned")}
    broken = [Broken("1.1", "size", "acme.size", "32", "1.2", "its list of pc-1.0 forgot acme.size")]

class Whole(VendorDriver):
    """Compares strings as a whole."""
    api, name, types = 1, "whole", [MdevType("a")]
    def migration_string(self, device):
        return "whole-1.2"

class Never(Whole):
    """Has the attribute and does not migrate."""
    name = "never"
    def migration_string(self, device):
        raise Refused("cannot-migrate", errno.ENODEV, rule="its memory is encrypted", side="target")
    def check(self, device, source):
        self.migration_string(device)

class Terse(Whole):
    """Answers bare errnos."""
    name = "terse"
    def check(self, device, source):
        raise KernelError(errno.EPERM)
    def probe(self, mdev):
        raise KernelError(errno.ENOMEM)

class Faulty(Whole):
    """Breaks."""
    name = "faulty"
    def check(self, device, source):
        return source.missing
    def probe(self, mdev):
        raise RuntimeError("no probe today")

class Mute(VendorDriver):
    """Never migrates; counted by the core."""
    api, name, types, max_instances = 1, "mute", [MdevType("a")], 1
'''
UUID, UUID2, UUID3 = (f"facade00-0000-4000-8000-{number:012x}" for number in range(3))
MDEV = f"devices/virtual/acme/acme/{UUID}"
OWN = "acme.com/nic,ports=1,services=sym,size=64"


def kind(driver: str, suffix: str = "a") -> str:
    return f"devices/virtual/{driver}/{driver}/mdev_supported_types/{driver}-{suffix}"


NIC = kind("acme", "nic")


@frozen
class Case:
    """A write that is refused: where, what, and the first reason. `before` are writes that succeed."""

    path: str
    data: str
    errno: int
    code: str
    parameter: str | None = None
    source: str | None = None
    target: str | None = None
    before: tuple[tuple[str, str], ...] = ()
    machine: str = ""
    more: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.code}-{self.path.rsplit('/', 1)[1]}"


CREATE, STRING = f"{NIC}/create", f"{NIC}/migration_version"
MADE = ((CREATE, UUID),)
USED = (*MADE, (f"{MDEV}/mdevfs/in_use", "1"))
NO, NODEV = errno.EINVAL, errno.ENODEV
CASES = [
    # creation
    Case(CREATE, "{facade}", NO, "uuid-malformed", source="{facade}"),
    Case(CREATE, UUID + "\r\n", NO, "uuid-malformed", source=UUID + "\r\n"),
    Case(CREATE, UUID.upper(), errno.EEXIST, "uuid-exists", source=UUID, before=MADE),
    Case(CREATE, UUID3, errno.ENOSPC, "no-instances", "available_instances", target="0",
         before=(*MADE, (CREATE, UUID2))),
    Case(f"{kind('mute')}/create", UUID2, errno.EUSERS, "no-instances", before=((f"{kind('mute')}/create", UUID),)),
    Case(f"{kind('terse')}/create", UUID, errno.ENOMEM, "refused"),
    Case(f"{kind('faulty')}/create", UUID, errno.EIO, "driver-fault"),
    # its arguments
    Case(f"{kind('mute')}/create", f"{UUID},size=1", NO, "no-model", source="size=1"),
    Case(CREATE, f"{UUID},", NO, "argument-malformed", source=""),
    Case(CREATE, f"{UUID},size", NO, "argument-malformed", source="size"),
    Case(CREATE, f"{UUID},version=3", NO, "version-unknown", "version", "3", "2"),
    Case(CREATE, f"{UUID},sise=1", NO, "parameter-unknown", "sise", "1"),
    Case(CREATE, f"{UUID},size=1,size=2", NO, "parameter-repeated", "size", "2", "1"),
    Case(CREATE, f"{UUID},size=0x40", NO, "value-malformed", "size", "0x40", "64"),
    Case(CREATE, f"{UUID},size=257", NO, "value-not-allowed", "size", "257", "64"),
    Case(f"{kind('acme', 'fixed')}/create", f"{UUID},ports=1", NO, "value-not-allowed", "ports", "1", "2"),
    Case(f"{kind('acme', 'fixed')}/create", f"{UUID},units=9", NO, "value-not-allowed", "units", "9"),
    # parameters
    Case(f"{MDEV}/migration/size", "257", NO, "value-not-allowed", "size", "257", "64", MADE),
    Case(f"{MDEV}/migration/size", "064", NO, "value-malformed", "size", "064", "64", MADE),
    Case(f"{MDEV}/migration/slices", "2", errno.EPERM, "parameter-fixed", "slices", "2", "1", MADE),
    Case(f"{MDEV}/migration/size", "32", errno.EBUSY, "in-use", "size", "32", "64", USED),
    # strings that are nobody's
    Case(STRING, "\n", NO, "string-empty"),
    Case(STRING, "a" * 4095, NO, "string-too-long"),
    Case(STRING, f"{OWN}\r", NO, "string-not-printable"),
    Case(STRING, f"{OWN}\n{OWN}", NO, "string-several-lines"),
    # the handshake
    Case(STRING, "hello", NO, "string-malformed", source="hello", target="acme.com/nic"),
    Case(STRING, "acme.com/gpu", NO, "model-differs", source="acme.com/gpu", target="acme.com/nic"),
    Case(STRING, f"{OWN},rss=on", NO, "parameter-unknown", "rss", "on"),
    Case(STRING, f"{OWN},size=64", NO, "parameter-repeated", "size", "64"),
    Case(STRING, "acme.com/nic,services=sym,size=64", NO, "parameter-missing", "ports", None, "1"),
    Case(STRING, OWN.replace("64", "32"), NO, "value-differs", "size", "32", "64"),
    Case(STRING, OWN.replace(",size=64", ""), NO, "value-differs", "size", "0", "64"),
    Case(STRING, OWN.replace("sym", "dc+sym"), NO, "value-differs", "services", "dc+sym", "sym"),
    Case(STRING, OWN.replace("64", "512"), NO, "value-not-allowed", "size", "512", "64"),
    Case(STRING, OWN.replace("64", "+64"), NO, "value-malformed", "size", "+64", "64"),
    Case(f"{kind('whole')}/migration_version", "whole-1.1", NO, "string-differs", None, "whole-1.1", "whole-1.2"),
    Case(f"{kind('never')}/migration_version", "x", NODEV, "cannot-migrate"),
    Case(f"{kind('terse')}/migration_version", "x", errno.EPERM, "refused"),
    Case(f"{kind('faulty')}/migration_version", "x", errno.EIO, "driver-fault"),
    # machine types and releases
    Case(STRING, OWN, NODEV, "blocked", machine="pc-0.9"),
    Case(STRING, OWN.replace("64", "32"), NO, "value-differs", "size", "32", "64", machine="micro",
         more=("unversioned",)),
    Case(STRING, OWN, NO, "value-differs", "size", "64", "32", machine="pc-1.0", more=("broken-release",)),
]  # fmt: skip


class Machine(InProcess):
    """A host of the drivers above."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.tree)
        self.host = host

    def state(self) -> list[str]:
        return [path for path, _ in self.tree.everything()]

    async def verdict(self, path: str) -> dict[str, Any]:
        """The last one at the device of an attribute."""
        device = next(path[: path.index(mark)] for mark in ("/migration", "/create", "/mdevfs") if mark in path)
        found = json.loads(await self.read(f"{device}/mdevfs/last_verdict"))
        assert isinstance(found, dict)
        return found


async def machine(folder: Path, type: str = "") -> Machine:
    (folder / "drivers.py").write_text(DRIVERS)
    names = ("acme", "whole", "never", "terse", "faulty", "mute")
    head = f'[host]\ndrivers = ["drivers.py"]\n{f"machine = {type!r}" if type else ""}\n'
    return Machine(await host_of(head + "".join(f"[[device]]\ndriver = '{name}'\n" for name in names), folder))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, expected_logs: object) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged; the faults of a driver among it."""
    with caplog.at_level(logging.INFO, logger="mdevfs"):
        yield caplog


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_refusal(tmp_path: Path, told: pytest.LogCaptureFixture, case: Case) -> None:
    one = await machine(tmp_path, case.machine)
    for path, data in case.before:
        assert await one.write(path, data) == len(data)
    before = one.state()
    told.clear()
    with pytest.raises(OSError) as caught:
        await one.write(case.path, case.data)
    assert caught.value.errno == case.errno
    assert one.state() == before
    check_tree(one.tree)

    found = await one.verdict(case.path)
    assert (found["compatible"], found["errno"]) == (False, errno.errorcode[case.errno])
    reason, *others = found["reasons"]
    given = (reason["code"], reason["parameter"], reason["source"], reason["target"])
    assert given == (case.code, case.parameter, case.source, case.target)
    assert tuple(other["code"] for other in others) == case.more
    assert {case.code, *case.more} <= load().keys()
    assert reason["rule"]

    line = next(record.getMessage() for record in told.records if " refused: " in record.getMessage())
    assert line.startswith(f"{found['target']}: {found['operation']} of ")
    assert case.code in line
    for value in (case.parameter, case.source, case.target):
        assert value is None or escape(value) in line
    for text in (line, str(caught.value)):
        assert case.code in text or case.code in ("refused", "driver-fault")
        assert case.parameter is None or f"{case.parameter}: " in text


async def test_a_parent_that_goes_takes_no_more(tmp_path: Path) -> None:
    """Its types show until the last of its mdevs is gone, which somebody uses."""
    one = await machine(tmp_path)
    for path, data in USED:
        await one.write(path, data)
    parent = one.host.mdev.parents["acme"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.host.mdev.unregister_parent, parent)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError) as caught:
            await one.write(CREATE, UUID2)
        assert caught.value.errno == errno.ENODEV
        assert [reason["code"] for reason in (await one.verdict(CREATE))["reasons"]] == ["parent-gone"]
        await one.write(f"{MDEV}/mdevfs/in_use", "0")
    assert not one.exists(NIC)


async def test_a_device_that_cannot_migrate_says_so_when_it_is_read(tmp_path: Path) -> None:
    for name, path, code in (("", kind("never"), "cannot-migrate"), ("pc-0.9", NIC, "blocked")):
        one = await machine(tmp_path, name)
        with pytest.raises(OSError, match=code) as caught:
            await one.read(f"{path}/migration_version")
        assert caught.value.errno == errno.ENODEV


async def test_all_mistakes_of_a_creation_at_once(tmp_path: Path) -> None:
    one = await machine(tmp_path)
    with pytest.raises(OSError):
        await one.write(CREATE, f"{UUID},version=7,sise=1,size=512,ports,log=yes,services=sym+dc,size=1")
    reasons = (await one.verdict(CREATE))["reasons"]
    assert sorted((reason["code"], reason["parameter"]) for reason in reasons if reason["parameter"]) == [
        ("parameter-repeated", "size"),
        ("parameter-unknown", "sise"),
        ("value-malformed", "log"),
        ("value-malformed", "services"),
        ("value-not-allowed", "size"),
        ("version-unknown", "version"),
    ]
    assert [reason["source"] for reason in reasons if reason["code"] == "argument-malformed"] == ["ports"]
    assert next(reason["mend"] for reason in reasons if reason["parameter"] == "sise") == "did you mean size?"


async def test_two_mdevs_of_one_guest() -> None:
    """What opens an mdev of vfio_ap is no attribute."""
    host = await host_of('[[device]]\ndriver = "vfio_ap"\n')
    sys = InProcess(host.tree)
    for uuid in (UUID, UUID2):
        await sys.write("class/mdev_bus/matrix/mdev_supported_types/vfio_ap-passthrough/create", uuid)
    first, second = (host.mdev.bus.devices[uuid] for uuid in (UUID, UUID2))
    assert isinstance(first, Mdev) and isinstance(second, Mdev)
    first.data.open("vm")  # type: ignore[attr-defined]
    with pytest.raises(Refused, match="guest vm uses mdev") as caught:
        second.data.open("vm")  # type: ignore[attr-defined]
    assert (caught.value.errno, caught.value.code) == (errno.EPERM, "vfio-ap-guest-has-one")
