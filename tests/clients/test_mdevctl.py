"""mdevctl, every verb: what it shows is what the tree shows, and what it does is done."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from tests.clients.conftest import BeginMachine
from tests.clients.machine import DEVICES, Machine, needs

pytestmark = needs("mdevctl")

GPU, OTHER = "0000:3b:00.0", "0000:d8:00.0"
TYPE, NAME = "nvidia-222", "GRID T4-1B"
PARAMS = "nvidia/vgpu_params"
SCRIPTS = "/etc/mdevctl.d/scripts.d"
# A callout must read its standard input: mdevctl takes a broken pipe for "not mine".
CALLOUT = """#!/bin/sh
{ echo "$@"; cat; echo; } >>/run/callout.log
case "$*" in
    *"-e get -a attributes"*) echo '[{"nvidia/vgpu_params": "told by the callout"}]' ;;
    *"-e pre -a stop"*) [ ! -e /run/deny ] ;;
esac
"""
NOTIFIER = '#!/bin/sh\ncat >/dev/null\necho "$@" >>/run/notified.log\n'


@pytest.fixture(scope="module")
def t4(begin_machine: BeginMachine) -> Machine:
    return begin_machine("nvidia-t4")


@pytest.fixture
def machine(t4: Machine) -> Iterator[Machine]:
    """Two Tesla T4, as after the start."""
    yield t4
    t4.reset()


@pytest.fixture
def defined(machine: Machine) -> str:
    """The UUID of a defined mdev."""
    one = str(uuid.uuid4())
    machine.ok("mdevctl", "define", "-u", one, "-p", GPU, "-t", TYPE)
    return one


def listed(machine: Machine, *options: str) -> list[str]:
    """mdevctl's list, a line for each mdev."""
    return sorted(filter(None, machine.ok("mdevctl", "list", *options).splitlines()))


def script(machine: Machine, place: str, text: str) -> None:
    """Installs a script of mdevctl's."""
    machine.ok("sh", "-c", f"cat >{SCRIPTS}/{place}/test.sh && chmod +x {SCRIPTS}/{place}/test.sh", input=text)


def test_types(machine: Machine) -> None:
    document = json.loads(machine.ok("mdevctl", "types", "--dumpjson"))
    shown = {parent: {name: one[name] for one in types for name in one} for parent, types in document[0].items()}
    assert set(shown) == {GPU, OTHER}
    for parent, types in shown.items():
        path = f"/sys/class/mdev_bus/{parent}/mdev_supported_types"
        assert sorted(types) == sorted(machine.ok("ls", path).split())
        for name in (TYPE, "nvidia-234"):
            files = ("available_instances", "device_api", "name", "description")
            available, api, title, description = [machine.read(f"{path}/{name}/{file}").strip() for file in files]
            assert types[name] == {
                "available_instances": int(available),
                "device_api": api,
                "name": title,
                "description": description,
            }
    text = machine.ok("mdevctl", "types", "-p", OTHER)
    assert text.splitlines()[0] == OTHER
    assert f"Name: {NAME}" in text
    assert GPU not in text


def test_start_list_and_stop(machine: Machine) -> None:
    one = machine.ok("mdevctl", "start", "-p", GPU, "-t", TYPE).strip()
    two = str(uuid.uuid4())
    assert machine.ok("mdevctl", "start", "-u", two, "-p", OTHER, "-t", TYPE) == ""
    assert sorted(machine.mdevs()) == sorted([one, two])
    assert listed(machine) == sorted([f"{one} {GPU} {TYPE} manual", f"{two} {OTHER} {TYPE} manual"])
    active = json.loads(machine.ok("mdevctl", "list", "--dumpjson"))
    assert active[0][OTHER] == [{two: {"mdev_type": TYPE, "start": "manual", "attrs": []}}]
    assert listed(machine, "-d") == []
    machine.ok("mdevctl", "stop", "-u", one)
    assert machine.mdevs() == [two]
    assert machine.ok("lsmdev").strip() == f"{two} {OTHER} {TYPE} manual"


def test_what_cannot_start(machine: Machine) -> None:
    one = machine.create(GPU, TYPE)
    assert "already exists" in machine.no("mdevctl", "start", "-u", one, "-p", GPU, "-t", TYPE)
    assert "does not support mdev type" in machine.no("mdevctl", "start", "-p", GPU, "-t", "nvidia-1")
    assert "Unable to find parent" in machine.no("mdevctl", "start", "-p", "0000:ff:1f.7", "-t", TYPE)
    # All vGPUs of a GPU have one framebuffer size: the other types' counts fell to 0.
    assert "No available instances" in machine.no("mdevctl", "start", "-p", GPU, "-t", "nvidia-234")
    assert machine.mdevs() == [one]


def test_define_modify_and_undefine(machine: Machine) -> None:
    one = machine.create(GPU, TYPE)
    machine.ok("mdevctl", "define", "-u", one)
    assert listed(machine, "-d") == [f"{one} {GPU} {TYPE} manual (active)"]
    machine.ok("mdevctl", "modify", "-u", one, "--auto")
    machine.ok("mdevctl", "modify", "-u", one, "--type", "nvidia-223")
    machine.ok("mdevctl", "stop", "-u", one)
    assert listed(machine, "-d", "-u", one) == [f"{one} {GPU} nvidia-223 auto"]
    machine.ok("mdevctl", "modify", "-u", one, "--manual")
    machine.ok("mdevctl", "start", "-u", one)
    assert machine.ok("readlink", f"{DEVICES}/{one}/mdev_type").strip().endswith("/nvidia-223")
    machine.ok("mdevctl", "undefine", "-u", one)
    assert listed(machine, "-d") == []
    assert machine.mdevs() == [one]
    two, text = str(uuid.uuid4()), json.dumps({"mdev_type": TYPE, "start": "auto", "attrs": [{PARAMS: "a=1 "}]})
    machine.ok("mdevctl", "define", "-u", two, "-p", OTHER, "--jsonfile", "/dev/stdin", input=text)
    assert json.loads(machine.ok("mdevctl", "list", "-d", "--dumpjson")) == [{OTHER: [{two: json.loads(text)}]}]


def test_the_defined_ones_of_a_parent_start_by_themselves(machine: Machine) -> None:
    auto, manual, elsewhere = (str(uuid.uuid4()) for _ in range(3))
    for one, parent, how in ((auto, GPU, ["--auto"]), (manual, GPU, []), (elsewhere, OTHER, ["--auto"])):
        machine.ok("mdevctl", "define", "-u", one, "-p", parent, "-t", TYPE, *how)
    machine.ok("mdevctl", "start-parent-mdevs", GPU)
    assert machine.mdevs() == [auto]


def test_attributes_are_written_in_their_order(machine: Machine, defined: str) -> None:
    # mdevctl writes no newline, and the driver drops the last byte: a blank for it to drop.
    for index, value in (("0", "last=1 "), ("0", "first=1 ")):
        machine.ok("mdevctl", "modify", "-u", defined, "--addattr", PARAMS, "--index", index, "--value", value)
    machine.ok("mdevctl", "start", "-u", defined)
    assert machine.read(f"{DEVICES}/{defined}/{PARAMS}") == "last=1\n"
    machine.ok("mdevctl", "modify", "-u", defined, "--delattr", "--index", "1")
    machine.ok("mdevctl", "stop", "-u", defined)
    machine.ok("mdevctl", "start", "-u", defined)
    assert machine.read(f"{DEVICES}/{defined}/{PARAMS}") == "first=1\n"


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [("no/such", "1", "Invalid attribute"), (PARAMS, "x" * 1025, "os error 7"), ("nvidia/vm_name", "1", "os error 13")],
)
def test_a_start_that_fails_half_way_is_taken_back(
    machine: Machine, defined: str, attribute: str, value: str, said: str
) -> None:
    machine.ok("mdevctl", "modify", "-u", defined, "--addattr", attribute, "--value", value)
    assert said in machine.no("mdevctl", "start", "-u", defined)
    assert machine.mdevs() == []
    assert machine.read(f"/sys/class/mdev_bus/{GPU}/mdev_supported_types/{TYPE}/available_instances") == "16\n"


def test_callouts_and_notifiers(machine: Machine) -> None:
    script(machine, "callouts", CALLOUT)
    script(machine, "notifiers", NOTIFIER)
    one = machine.ok("mdevctl", "start", "-p", GPU, "-t", TYPE).strip()
    called = f"-t {TYPE} -e pre -a start -s none -u {one} -p {GPU}"
    assert called in machine.read("/run/callout.log")
    assert "told by the callout" in machine.ok("mdevctl", "list", "-v")
    machine.ok("touch", "/run/deny")
    assert "failed with return code 1" in machine.no("mdevctl", "stop", "-u", one)
    assert machine.mdevs() == [one]
    machine.ok("rm", "/run/deny")
    machine.ok("mdevctl", "stop", "-u", one)
    assert machine.mdevs() == []
    notified = machine.read("/run/notified.log")
    for action in ("start", "stop"):
        assert f"-t {TYPE} -e notify -a {action} -s success -u {one} -p {GPU}" in notified
