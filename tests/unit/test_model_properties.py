"""What must hold for any declared model (more of it in test_model.py), and that no handshake changes a tree."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from attrs import evolve
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mdevfs.migration import arguments
from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Int, Set
from mdevfs.migration.verdict import YES, RefusedVerdict
from mdevfs.sysfs.entries import Directory, Link
from tests.support import InProcess, host_of
from tests.unit.any_model import NAMES, Configured, configured, other_values, parameters
from tests.unit.manager import Source, parameter_list, predict, prepared

# -- a device accepts its own string, and a target made from it does


def own_list(model: DeviceModel, string: str) -> str:
    """The arguments that make a target for a source: every parameter off, then the source's list."""
    named = dict(item.split("=", 1) for item in string.split(",")[1:])
    offs = {param.name: param.format(param.off) for param in model.params if param.off is not None}
    return ",".join(f"{name}={text}" for name, text in (offs | named).items())


@given(configured())
def test_a_target_made_from_the_string_is_the_source_again(one: Configured) -> None:
    string = one.model.write(one.values)
    given = own_list(one.model, string)
    made = one.model.initial(arguments.parse(given, one.model) if given else None)
    assert made == one.values
    assert one.model.write(made) == string
    assert one.model.check(made, string) == YES


@given(configured(), st.data())
def test_a_type_makes_what_it_offers(one: Configured, data: st.DataObject) -> None:
    """What a type fixes is in its devices whatever the arguments, and each version that it offers can be made."""
    fixed = (
        {name: one.values[name] for name in data.draw(st.sets(st.sampled_from(sorted(one.values))))}
        if one.values
        else {}
    )
    versions = {str(number): other_values(one, data) for number in range(2)}
    model = DeviceModel(one.model.name, one.model.params, versions)
    texts = {text: {name: data.draw(st.sampled_from([value, one.model.parameters[name].init])) for name, value in
                    fixed.items()} for text in "12"}  # fmt: skip
    offered = model.made_with(other_values(one, data) | fixed, fixed, {"units!": texts})
    made = {name: offered.initial(arguments.parse(f"version={name}", offered)) for name in offered.versions}
    units = [offered.initial(arguments.parse(f"units!={text}", offered)) for text in texts]
    assert [{name: values[name] for name in fixed} for values in units] == list(texts.values())
    for values in [offered.initial(), *made.values(), *units]:
        for param in model.params:
            choices = [named[param.name] for named in (fixed, *texts.values()) if param.name in named]
            assert not choices or values[param.name] in choices or isinstance(param, Set)
        assert model.check(values, model.write(values)) == YES
    for name in made:
        assert made[name] == versions[name]
    for name in versions.keys() - made.keys():
        assert any(
            versions[name][parameter] not in (value, *(named[parameter] for named in texts.values()))
            for parameter, value in fixed.items()
        )


# -- the verdict depends on the two declarations alone


def copy_of(model: DeviceModel) -> DeviceModel:
    return DeviceModel(model.name, [evolve(param) for param in model.params], dict(model.versions))


@given(configured(), st.data(), st.lists(st.text(max_size=20), max_size=3))
def test_the_verdict_depends_on_the_declarations_alone(one: Configured, data: st.DataObject, asked: list[str]) -> None:
    """Not on who asked before, on the objects, on what a parameter is described as, or on what made the target so."""
    target, source = other_values(one, data), one.model.write(other_values(one, data))
    verdict = one.model.check(target, source)
    again = copy_of(one.model)
    for string in asked:
        again.check(target, string)
        again.check(one.values, string)
    assert again.check(dict(target), source) == verdict
    described = [evolve(param, doc="other words", init=target[param.name]) for param in one.model.params]
    assert DeviceModel(one.model.name, described, {"9": target}).check(target, source) == verdict
    assert one.model.write(target) == again.write(dict(target))


@given(configured(), st.data())
def test_nothing_is_changed_by_a_check(one: Configured, data: st.DataObject) -> None:
    values = other_values(one, data)
    before, model = dict(values), copy_of(one.model)
    one.model.check(values, data.draw(st.text(max_size=20)) + one.model.write(one.values))
    assert values == before
    assert (one.model.params, one.model.versions, one.model.info()) == (model.params, model.versions, model.info())


# -- a parameter that is added later


@given(configured(), NAMES.map("new-{}".format), st.data())
def test_an_old_source_is_never_turned_away(one: Configured, name: str, data: st.DataObject) -> None:
    """By a target that has the new parameter off, or has it on where it touches the representation only."""
    added, on = data.draw(parameters(name).filter(lambda drawn: drawn[0].off is not None))
    newer = DeviceModel(one.model.name, [*one.model.params, added])
    string = one.model.write(other_values(one, data))
    old = one.model.check(one.values, string)
    assert added.off is not None
    assert newer.check({**one.values, name: added.off}, string) == old
    state_only = DeviceModel(one.model.name, [*one.model.params, evolve(added, state_only=True)])
    assert state_only.check({**one.values, name: on}, string) == old
    made = newer.initial(arguments.parse(f"{name}={added.format(added.off)}", newer))
    assert newer.check({**one.values, name: made[name]}, string) == old


@given(configured(), NAMES.map("new-{}".format), st.data())
def test_an_old_target_takes_a_new_source_exactly_when_it_is_off(
    one: Configured, name: str, data: st.DataObject
) -> None:
    added, value = data.draw(parameters(name))
    newer = DeviceModel(one.model.name, [*one.model.params, added])
    verdict = one.model.check(one.values, newer.write({**one.values, name: value}))
    assert verdict.compatible == (added.off is not None and value == added.off)
    assert [(reason.code, reason.parameter) for reason in verdict.reasons] in ([], [("parameter-unknown", name)])


# -- what migration_info.json says beforehand


@given(configured(), configured(), st.data())
def test_the_information_predicts_the_answer(one: Configured, other: Configured, data: st.DataObject) -> None:
    """Of a target of any model that has some of the source's parameters, allows less or more, or is another."""
    shared = [data.draw(parameters(param.name, (type(param),)) | st.just((param, None))) for param in one.model.params]
    known = {param.name: param for param, _ in shared if data.draw(st.integers(0, 3))}
    name = data.draw(st.sampled_from([one.model.name] * 3 + [other.model.name]))
    target = DeviceModel(name, [*known.values(), *(p for p in other.model.params if p.name not in one.values)][:5])
    string = one.model.write(one.values)
    about = one.model.info()
    listed = parameter_list(about, {p.name: p.format(one.values[p.name]) for p in one.model.params})
    source = Source("", one.model.name, listed, string)
    models = {target.name: target.info()}
    given = ",".join(f"{name}={text}" for name, text in dict(prepared(models, source)).items())
    try:
        made = target.initial(arguments.parse(given, target) if given else None)
    except RefusedVerdict:
        assert not predict(models, source)
    else:
        assert target.check(made, string).compatible == predict(models, source)


# -- every fault is a reason

FAULTS = {
    "value-differs": "7",
    "value-not-allowed": "10",
    "value-malformed": "0x1",
    "parameter-missing": None,
    "parameter-repeated": "1,{name}=1",
    "parameter-unknown": "1",
}


@given(
    st.lists(st.tuples(NAMES, st.none() | st.sampled_from(sorted(FAULTS))), max_size=6, unique_by=lambda one: one[0])
)
def test_as_many_reasons_as_faults(parts: list[tuple[str, str | None]]) -> None:
    known = [Int(name, init=1, allowed=range(10)) for name, fault in parts if fault != "parameter-unknown"]
    model = DeviceModel("a.b/c", known)
    texts = {name: "1" if fault is None else FAULTS[fault] for name, fault in parts}
    items = [f"{name}={text}".format(name=name) for name, text in texts.items() if text is not None]
    verdict = model.check(model.initial(), ",".join(["a.b/c", *items]))
    expected = sorted((fault, name) for name, fault in parts if fault is not None)
    assert sorted((reason.code, str(reason.parameter)) for reason in verdict.reasons) == expected


@given(configured(), st.data())
def test_as_many_reasons_for_arguments(one: Configured, data: st.DataObject) -> None:
    """Of every parameter one argument, some of them malformed: each of those is a reason and no other."""
    bad = data.draw(st.sets(st.sampled_from(sorted(one.values)))) if one.values else set()
    given = [f"{p.name}={p.format(one.values[p.name])}{'%' * (p.name in bad)}" for p in one.model.params]
    assume(given)
    try:
        found = arguments.parse(",".join(given), one.model)
    except RefusedVerdict as refusal:
        reasons = refusal.verdict.reasons
        assert {(reason.code, reason.parameter) for reason in reasons} == {("value-malformed", name) for name in bad}
        assert len(reasons) == len(bad)
    else:
        assert (found, bad) == (one.values, set())


# -- nothing that is written to a handshake changes a tree

DRIVER = """
from mdevfs.vendor import Bool, DeviceModel, Int, MdevType, Set, Str, VendorDriver

class Nic(VendorDriver):
    api, name = 1, "nic"
    types = [MdevType("any"), MdevType("two", params={"queues": 2})]
    model = DeviceModel("a.b/nic", params=[
        Int("size", init=64, off=0, allowed=range(257)),
        Int("queues", init=4, allowed=(1, 2, 4)),
        Bool("log", init=False, off=False, state_only=True),
        Set("services", init=frozenset({"sym"}), off=frozenset(), allowed=("dc", "sym")),
        Str("firmware", init="a b", off=""),
    ])

class Whole(VendorDriver):
    api, name, types = 1, "whole", [MdevType("a")]
    def migration_string(self, device):
        return "whole-1.2"
"""
TYPES = "devices/virtual/nic/nic/mdev_supported_types"
UUIDS = [f"facade00-0000-4000-8000-{number:012x}" for number in range(3)]
TARGETS = [
    *(f"bus/mdev/devices/{uuid}" for uuid in UUIDS),
    *(f"{TYPES}/nic-{suffix}" for suffix in ("any", "two")),
    "class/mdev_bus/whole/mdev_supported_types/whole-a",
]
OWN = "a.b/nic,firmware=a%20b,queues=4,services=sym,size=64"
TOLD = {"last_verdict", "runtime_active_time", "runtime_suspended_time"}  # clocks, and what is meant to change

Dump = Mapping[str, tuple[int, str]]


async def dump(sys: InProcess) -> Dump:
    """Mode and text of everything; of a link where it leads, of a file that cannot be read its errno."""
    found = {}
    for path, entry in sys.tree.everything():
        name = path.rpartition("/")[2]
        text = ""
        if isinstance(entry, Link):
            text = entry.target
        elif not isinstance(entry, Directory) and entry.mode & 0o444 and name not in TOLD:
            try:
                text = await sys.read(path)
            except OSError as error:
                text = f"errno {error.errno}"
        found[path] = (entry.mode, text)
    return found


@cache
def started() -> tuple[InProcess, Dump]:
    """One host for all examples, and how it was at the beginning."""

    async def start() -> tuple[InProcess, Dump]:
        with TemporaryDirectory() as name:
            (folder := Path(name)).chmod(0o755)
            (folder / "nic.py").write_text(DRIVER)
            head = '[host]\ndrivers = ["nic.py"]\ninterfaces = {}\n'
            text = head.format('["migration_version", "models", "compatible_devices", "verdicts", "state"]')
            host = await host_of(text + '[[device]]\ndriver = "nic"\n[[device]]\ndriver = "whole"\n', folder)
        sys = InProcess(host.tree)
        for uuid, more in zip(UUIDS, ("", ",size=0,log=on", ",services=dc"), strict=True):
            await sys.write(f"{TYPES}/nic-any/create", uuid + more)
        await sys.write(f"bus/mdev/devices/{UUIDS[2]}/mdevfs/in_use", "1")
        return sys, await dump(sys)

    return trio.run(start)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """Junk, a device's own string, and everything between."""
    items = OWN.split(",")
    own = st.lists(st.sampled_from([*items, "size=9", "size=999", "queues=2", "log=on", "x=1", ""]), max_size=6)
    string = draw(own.map(",".join) | st.just(OWN) | st.just("whole-1.2") | st.text(max_size=40))
    data = string.encode("utf-8", "surrogatepass") + draw(st.sampled_from([b"", b"\n", b"\n\n", b"\0", b"\r\n"]))
    return draw(st.just(data) | st.binary(max_size=40) | st.just(data * 120))


@given(st.sampled_from(TARGETS), st.lists(written(), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_nothing_written_to_a_handshake_changes_a_tree(target: str, data: list[bytes]) -> None:
    sys, before = started()

    async def write_all() -> Dump:
        for one in data:
            with suppress(OSError):
                await sys.write(f"{target}/migration_version", one)
            check = await sys.open(f"{target}/mdevfs/check", os.O_RDWR)
            assert await check.write(0, one) == min(len(one), 4096)
            assert await check.read(0, 1 << 20) or not one
        return await dump(sys)

    assert trio.run(write_all) == before
