"""Device models: impossible ones, the string they write, and the verdicts that follow from declarations alone."""

from __future__ import annotations

import errno

import pytest
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from mdevfs.errors import InputError
from mdevfs.migration.catalogue import load
from mdevfs.migration.handshake import parse
from mdevfs.migration.model import MAX_STRING, DeviceModel
from mdevfs.migration.parameters import Bool, Int, Parameter, Set, Str
from mdevfs.migration.verdict import YES, RefusedVerdict
from tests.unit.any_model import EXACT, NAMES, Configured, configured, other_values, parameters

NIC = DeviceModel(
    "vendor-a.com/my-nic",
    params=[
        Int("rx-filter-size", init=64, off=0, allowed=range(257)),
        Int("queues", init=8, allowed=(1, 2, 4, 8)),
        Bool("tso", init=True, off=False),
        Str("firmware", init="a b", off=""),
        Set("services", init=frozenset({"sym", "asym"}), off=frozenset(), allowed=("sym", "asym", "dc")),
    ],
    versions={"1": {"rx-filter-size": 0}, "2": {"rx-filter-size": 32}, "3": {}},
)
STRING = "vendor-a.com/my-nic,firmware=a%20b,queues=8,rx-filter-size=64,services=asym+sym,tso=on"


# -- any model, any values


@given(configured())
def test_a_device_accepts_its_own_string(one: Configured) -> None:
    string = one.model.write(one.values)
    assert one.model.check(one.values, string) == YES
    assert DeviceModel(one.model.name, list(one.model.params)).check(dict(one.values), string) == YES


@given(configured())
def test_strings_survive_a_round_trip(one: Configured) -> None:
    string = one.model.write(one.values)
    assume(len(string) <= MAX_STRING)
    assert parse(string.encode() + b"\n") == parse(string.encode()) == string
    items = dict(item.split("=") for item in string.split(",")[1:])
    for param in one.model.params:
        if param.name in items:
            assert param.parse(items[param.name]) == one.values[param.name]
        else:
            assert one.values[param.name] == param.off


@given(configured(), st.data())
def test_the_order_of_items_and_declarations_does_not_matter(one: Configured, data: st.DataObject) -> None:
    name, *items = one.model.write(one.values).split(",")
    string = ",".join([name, *data.draw(st.permutations(items))])
    assert one.model.check(one.values, string) == YES
    other = other_values(one, data)
    shuffled = DeviceModel(one.model.name, data.draw(st.permutations(one.model.params)))
    verdict, again = one.model.check(other, string), shuffled.check(dict(reversed(other.items())), string)
    assert set(verdict.reasons) == set(again.reasons)
    assert one.model.check(other, string) == verdict


@given(configured(), NAMES.map("new-{}".format), st.data())
def test_a_new_parameter_that_is_off_turns_nobody_away(one: Configured, name: str, data: st.DataObject) -> None:
    added, _ = data.draw(parameters(name).filter(lambda drawn: drawn[0].off is not None))
    assert added.off is not None
    params = list(one.model.params)
    params.insert(data.draw(st.integers(0, len(params))), added)
    newer = DeviceModel(one.model.name, params)
    source = other_values(one, data)
    string = one.model.write(source)
    values = {**one.values, name: added.off}
    assert newer.check(values, string) == one.model.check(one.values, string)
    assert newer.write(values) == one.model.write(one.values)


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True), st.data())
def test_every_fault_is_a_reason(names: list[str], data: st.DataObject) -> None:
    params = [Int(name, init=0, off=data.draw(st.sampled_from([None, 0, 1]))) for name in names]
    faults = data.draw(st.sets(st.sampled_from(names)))
    model = DeviceModel("a.b/c", params)
    verdict = model.check(dict.fromkeys(names, 0), model.write({name: int(name in faults) for name in names}))
    assert sorted(str(reason.parameter) for reason in verdict.reasons) == sorted(faults)
    assert verdict.compatible == (not faults)
    assert {reason.code for reason in verdict.reasons} <= {"value-differs"}


@given(configured(EXACT))
def test_spoiled_strings_are_refused(drawn: Configured) -> None:
    exact = [evolve(param, state_only=False) for param in drawn.model.params]
    one = Configured(DeviceModel(drawn.model.name, exact), drawn.values)
    string = one.model.write(one.values)
    for spoiled in (
        *(string[:-1], string + ",", string + ",,", "," + string, " " + string, string + " ", string + "\n"),
        *(string + ",never-heard-of=1", string + "=", string.replace(",", ",,", 1) + ",", string.swapcase() + "X", ""),
    ):
        verdict = one.model.check(one.values, spoiled)
        assert not verdict.compatible, spoiled
        assert verdict.errno == errno.EINVAL


@given(configured(), st.text() | st.text("abc=,/.-+%0", max_size=30).map(lambda text: f"a.b/c{text}"))
def test_any_text_gets_a_verdict_with_known_codes(one: Configured, text: str) -> None:
    verdict = one.model.check(one.values, text)
    assert {reason.code for reason in verdict.reasons} <= set(load())
    if not verdict.compatible:
        assert str(RefusedVerdict(verdict)).isascii()


# -- one of each


def spoil(old: str, new: str) -> str:
    assert old in STRING
    return STRING.replace(old, new)


@pytest.mark.parametrize(
    ("source", "reasons"),
    [
        (STRING, []),
        (spoil("services=asym+sym", "services=sym"), []),
        (spoil(",services=asym+sym", ""), []),
        ("vendor-a.com/my-nic", [("value-differs", "rx-filter-size"), ("parameter-missing", "queues"),
                                 ("value-differs", "tso"), ("value-differs", "firmware")]),
        (spoil("=64", "=32"), [("value-differs", "rx-filter-size")]),
        (spoil(",tso=on", ",tso=off"), [("value-differs", "tso")]),
        (spoil("asym+sym", "asym+dc+sym"), [("value-differs", "services")]),
        (spoil("=64", "=0064"), [("value-malformed", "rx-filter-size")]),
        (spoil("=64", "=-0"), [("value-malformed", "rx-filter-size")]),
        (spoil("=64", "=" + "9" * 4000), [("value-malformed", "rx-filter-size")]),
        (spoil("=on", "=yes"), [("value-malformed", "tso")]),
        (spoil("%20", "%2f"), [("value-malformed", "firmware")]),
        (spoil("%20", "%FF"), [("value-malformed", "firmware")]),
        (spoil("%20", "%41"), [("value-malformed", "firmware")]),
        (spoil("asym+sym", "sym+asym"), [("value-malformed", "services")]),
        (spoil("asym+sym", "sym+sym"), [("value-malformed", "services")]),
        (spoil("=64", "=257"), [("value-not-allowed", "rx-filter-size")]),
        (spoil("queues=8", "queues=3"), [("value-not-allowed", "queues")]),
        (spoil("asym+sym", "dsa"), [("value-not-allowed", "services")]),
        (spoil("queues=8,", ""), [("parameter-missing", "queues")]),
        (STRING + ",new=1", [("parameter-unknown", "new")]),
        (STRING + ",tso=on", [("parameter-repeated", "tso")]),
        (STRING + ",tso", [("string-malformed", None)]),
        (STRING + ",", [("string-malformed", None)]),
        (STRING + ",=1", [("string-malformed", None)]),
        (STRING.replace("my-nic", "my-gpu"), [("model-differs", None)]),
        ("8086-591d-i915-GVTg_V5_4-00000001", [("string-malformed", None)]),
        ('{"a": [[[[1]]]]}', [("string-malformed", None)]),
        (spoil("=64", "=63").replace("queues=8", "queues=3") + ",x=1",
         [("value-not-allowed", "queues"), ("value-differs", "rx-filter-size"), ("parameter-unknown", "x")]),
    ],
)  # fmt: skip
def test_verdicts(source: str, reasons: list[tuple[str, str | None]]) -> None:
    verdict = NIC.check(NIC.initial(), source)
    assert sorted((r.code, r.parameter or "") for r in verdict.reasons) == sorted((c, p or "") for c, p in reasons)
    assert all(len(reason.sentence()) < 1000 for reason in verdict.reasons)


def test_a_log_line_stays_short() -> None:
    verdict = NIC.check(NIC.initial(), STRING + "," * 4000)
    assert len(verdict.reasons) == 4000
    assert len(str(RefusedVerdict(verdict))) < 5000
    assert str(RefusedVerdict(verdict)).endswith("; and 3984 more")


def test_the_string() -> None:
    assert NIC.write(NIC.initial()) == STRING
    off = {param.name: param.off for param in NIC.params if param.off is not None}
    assert NIC.write(NIC.initial(off)) == "vendor-a.com/my-nic,queues=8"


# -- impossible models


def test_all_mistakes_at_once() -> None:
    with pytest.raises(InputError) as caught:
        DeviceModel(
            "my nic",
            params=[
                Int("a,b", init=1),
                Int("rx", init=9, off=8, allowed=range(4)),
                Int("rx", init=1),
                Bool("on", init=1),
            ],
            versions={"1": {"r": 1}, "2": {"rx": 1}, "3": {"on": "yes"}},
            arguments={"rx": {"1": {"rx": 1}}, "version": {}, "units": {"2": {"on": "no"}}},
        )
    told = "\n".join(caught.value.mistakes)
    for part in (
        "its name is not a domain name and a path",
        "two parameters are called rx",
        "'a,b'",
        "rx: init value 9 is not allowed (0 to 3)",
        "rx: off value 8 is not allowed (0 to 3)",
        "on: init value 1 is no bool",
        "version 1 names the unknown parameter r, did you mean rx?",
        "version 3 gives on the value 'yes' is no bool",
        "argument rx has a parameter's name",
        "argument name 'version' is taken",
        "argument units=2 gives on the value 'no' is no bool",
    ):
        assert part in told, part
    assert len(caught.value.mistakes) == 11
    assert all(line.startswith("device model 'my nic': ") for line in caught.value.mistakes)


@pytest.mark.parametrize(
    "param",
    [
        Int("x", init="1"),
        Int("x", init=True),
        Int("x", init=10**25),
        Int("x", init=1, off=False),
        Int("x", init=0, allowed=()),
        Int("x", init=0, allowed=range(0)),
        Int("x", init=3, allowed=range(0, 10, 2)),
        Bool("x", init=0),
        Str("x", init=5),
        Str("x", init="\udcff"),
        Str("x", init="c", allowed=("a", "b")),
        Set("x", init="sym"),
        Set("x", init=frozenset({""})),
        Set("x", init=frozenset({1})),  # type: ignore[arg-type]
        Set("x", init=frozenset({"a", "z"}), allowed=("a", "b")),
        *(Int(name, init=1) for name in ("", "a=b", "a b", "a\n", "a/b", "größe", ".", "..", "version")),
    ],
)
def test_one_impossible_parameter(param: Parameter) -> None:
    with pytest.raises(InputError) as caught:
        DeviceModel("a.b/c", [param])
    assert len(caught.value.mistakes) == 1
    with pytest.raises(InputError):
        DeviceModel("a.b/c", [evolve(Bool("y", init=True)), param])


@pytest.mark.parametrize(
    "name", ["", "nic", "/nic", "a.b/", "a b/c", "a.b/c,d", "a.b/c=d", "a.b//c", "a.b/c\n", "ä.b/c"]
)
def test_impossible_names(name: str) -> None:
    with pytest.raises(InputError, match="its name is not"):
        DeviceModel(name)


def test_rules_in_words() -> None:
    for param, rule in (
        (Int("x", init=0), "any int"),
        (Int("x", init=0, allowed=range(257)), "0 to 256"),
        (Int("x", init=0, allowed=range(0, 10, 2)), "0 to 8 in steps of 2"),
        (Int("x", init=1, allowed=(1, 2)), "one of 1, 2"),
        (Bool("x", init=True, allowed=(True,)), "only on"),
        (Set("x", init=frozenset(), allowed=("dc", "sym")), "words of dc, sym"),
    ):
        assert param.rule() == rule
