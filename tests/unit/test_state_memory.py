"""Large fields: Memory is used as a bytearray is, and nothing of it is there before it is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mdevfs.state import body, stream
from mdevfs.state.drive import randomize, values
from mdevfs.state.memory import LARGE, Memory, zeros
from mdevfs.state.view import View
from mdevfs.vendor import U32, Bytes, Registers, VMState

LENGTH = LARGE + 5
LARGE_ONE = VMState("large", fields=[U32("ctrl"), Bytes("memory", LENGTH), Bytes("small", 8)])


def begin(version: int) -> View:
    return View(LARGE_ONE.fresh(), {}, version)


def test_it_is_used_as_a_bytearray_is() -> None:
    one, other = zeros(LENGTH), bytearray(LENGTH)
    assert isinstance(one, Memory) and isinstance(zeros(LARGE - 1), bytearray)
    for buffer in (one, other):
        buffer[3] = 7
        buffer[-4:] = b"last"
    assert one == other == bytes(other) and one != b"x" and one != 5 and len(one) == LENGTH
    assert one[3] == 7 and one[:5] == other[:5] and bytes(one) == other
    copied = one.copy()
    assert copied == one
    copied[0] = 1
    assert copied != one
    with pytest.raises(IndexError, match="wrong size"):
        one[0:4] = b"longer than this"
    assert repr(one) == f"Memory({LENGTH})"


@pytest.mark.parametrize("step", [4096, 1 << 20, LENGTH * 2])
def test_a_state_with_it_is_saved_and_loaded(step: int) -> None:
    view = begin(1)
    randomize(LARGE_ONE, view, 1)
    chunks, described = body.save(LARGE_ONE, view)
    data = b"".join(stream.write("", [stream.Section("large", 1, chunks, described)]))
    place = stream.Place("large", LARGE_ONE, begin)
    loader = stream.Loader([place])
    for at in range(0, len(data), step):
        loader.feed(data[at : at + step])
    loader.finish()
    assert place.loaded is not None
    assert place.loaded.state == view.state
    assert values(LARGE_ONE, place.loaded) == values(LARGE_ONE, view)
    state = view.state
    assert isinstance(state, Registers)
    looked_at = state.copy()
    assert looked_at == state
    vars(looked_at)["memory"][0] ^= 1
    assert looked_at != state


def test_what_nobody_touched_takes_no_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    kept = VMState("idle", fields=[Bytes("memory", 64 << 20)]).fresh()
    assert resident() - before < 8 << 20
    assert len(vars(kept)["memory"]) == 64 << 20
