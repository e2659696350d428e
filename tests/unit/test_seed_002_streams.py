"""The trees of test_seed_002 through real sections and streams: what a handshake accepts is what the bytes do."""

from __future__ import annotations

import pytest

from mdevfs.state import body, stream
from mdevfs.state.description import VMState
from mdevfs.state.fields import U32
from mdevfs.state.refusal import BadState
from mdevfs.state.view import Registers, View
from tests.unit.test_seed_002 import PAIRS, TREES, foo, in_use, string_of


def description(tree: str) -> VMState:
    """A section for the device, and one for each feature that the tree knows."""
    features = [VMState(f"foo/{name}", fields=[U32(name, reset=1)], needed=name) for name in TREES[tree]]
    return VMState("foo", fields=[U32("ctrl")], subsections=features)


def driven(tree: str, used: frozenset[str]) -> Registers:
    """A device whose guest uses these features."""
    state = description(tree).fresh()
    for number, name in enumerate(sorted(used)):
        setattr(state, name, 100 + number)
    return state


def save(tree: str, used: frozenset[str]) -> bytes:
    values = {name: name in used for name in TREES[tree]}
    chunks, described = body.save(description(tree), View(driven(tree, used), values, 1))
    return b"".join(stream.write("", [stream.Section("foo", 1, chunks, described)]))


def load(tree: str, data: bytes) -> object:
    what, values = description(tree), dict.fromkeys(TREES[tree], True)
    place = stream.Place("foo", what, lambda version: View(what.fresh(), values, version))
    loader = stream.Loader([place])
    loader.feed(data)
    loader.finish()
    assert place.loaded is not None
    return place.loaded.state


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_bytes_load_exactly_where_the_handshake_accepts(source: str, target: str) -> None:
    model = foo(target)
    for used in in_use(source):
        accepted = model.check(model.initial(), string_of(source, used)).compatible
        assert accepted == (used <= set(TREES[target]))
        if accepted:
            assert load(target, save(source, used)) == driven(target, used)  # what is not in use is as after reset
            continue
        with pytest.raises(BadState) as caught:
            load(target, save(source, used))
        unknown = min(used - set(TREES[target]))
        assert (caught.value.code, caught.value.field) == ("state-subsection-unknown", f"foo/{unknown}")


# -- the other way: one section, whose version counts features


def numbered(features: str) -> VMState:
    """A B C are version 1; each feature that follows is one version more."""
    fields = [U32(name, since=max(1, at)) for at, name in enumerate(features, -1)]
    return VMState("foo", len(features) - 2, 1, fields=fields)


def test_a_number_for_all_features_misreads_the_backport() -> None:
    """Version 2 is D upstream and E downstream: the bytes load without a word, and D is what E was."""
    downstream, upstream = numbered("ABCE"), numbered("ABCDE")
    source = downstream.fresh()
    for value, name in enumerate("ABCE", 10):
        setattr(source, name, value)
    chunks, described = body.save(downstream, View(source, {}, downstream.version))
    data = b"".join(stream.write("", [stream.Section("foo", downstream.version, chunks, described)]))
    place = stream.Place("foo", upstream, lambda version: View(upstream.fresh(), {}, version))
    loader = stream.Loader([place])
    loader.feed(data)
    loader.finish()
    assert place.loaded is not None
    found = vars(place.loaded.state)
    assert found == {"A": 10, "B": 11, "C": 12, "D": 13, "E": 0}
