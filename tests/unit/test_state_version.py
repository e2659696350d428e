"""The version of the device state in the handshake: what a target does not load, it does not accept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mdevfs.errors import InputError
from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Bool
from mdevfs.migration.state_version import STATE_VERSION, blocked_verdict, with_state_version
from mdevfs.state.description import VMState
from mdevfs.state.fields import U32

MODEL = DeviceModel("vendor-a.com/foo", [Bool("rss", False, False)])


def description(version: int, minimum: int = 1, first: int = 1) -> VMState:
    fields = [U32("ctrl"), U32("later", since=version)]
    return VMState("foo", version, minimum, first=first, fields=fields)


def codes(source: VMState, target: VMState, saved: int | None = None) -> Sequence[str]:
    one, other = with_state_version(MODEL, source), with_state_version(MODEL, target)
    values = one.initial({STATE_VERSION: saved} if saved is not None else None)
    return [reason.code for reason in other.check(other.initial(), one.write(values)).reasons]


def test_one_version_needs_no_parameter() -> None:
    assert with_state_version(MODEL, description(1)) is MODEL
    assert with_state_version(MODEL, description(2, first=2)) is MODEL


def test_forward_is_accepted_and_backward_only_when_saved_so() -> None:
    old, new = description(1), description(2)
    assert codes(old, new) == []
    assert codes(new, old) == ["parameter-unknown"]
    assert codes(new, old, saved=1) == []
    assert codes(description(3), new) == ["value-not-allowed"]
    assert codes(description(3), new, saved=2) == []


def test_a_target_that_takes_the_first_version_no_more_refuses_who_says_none() -> None:
    assert codes(description(1), description(3, minimum=2)) == ["parameter-missing"]


@given(some.integers(1, 5), some.integers(1, 5), some.integers(1, 5))
def test_the_handshake_says_what_the_load_will(version: int, minimum: int, saved: int) -> None:
    if minimum > version:
        minimum, version = version, minimum
    source, target = description(5), description(version, minimum)
    assert (codes(source, target, saved) == []) == target.takes(saved)


def test_a_blocked_version_is_refused_whatever_form_the_string_has() -> None:
    two = VMState("foo", 2, 1, fields=[U32("a")], blocked={1: "it forgot a"})
    for source, blocked in itertools.product(["vendor-a.com/foo", "8086-591d-x-1"], [two.blocked, {1, 2}]):
        verdict = blocked_verdict(source, two, blocked)
        assert verdict is not None
        assert [reason.code for reason in verdict.reasons] == ["state-version-blocked"]
        assert "it forgot a" in verdict.reasons[0].rule
    assert blocked_verdict("vendor-a.com/foo,state-version=2", two, two.blocked) is None


def test_a_driver_may_not_take_the_name() -> None:
    with pytest.raises(InputError, match="two parameters are called state-version"):
        with_state_version(DeviceModel("vendor-a.com/foo", [Bool(STATE_VERSION, False)]), description(2))
