"""Bytes from nowhere: whatever reads device state refuses them, in bounded time and memory, and touches no device.

The short form takes seconds; `--soak` tries 200,000 inputs (and `python -m tests.fuzzing COUNT SEED` any number).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdevfs.state import stream
from mdevfs.state.refusal import BadState
from tests.fuzzing import showing
from tests.unit.demo_stream import assembled, device, place, section

ROOT = Path(__file__).parents[2]
SHORT, LONG = 3_000, 200_000
SEED = 20


def test_altered_streams_end_in_refusals(soak: bool, tmp_path: Path) -> None:
    count = LONG if soak else SHORT
    command = [sys.executable, "-m", "tests.fuzzing", str(count), str(SEED), str(tmp_path)]
    # Large blocks go back to the system at once, so that the limit is on what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["failed"] is None, report["failed"]
    assert sum(sum(one.values()) for one in report["answers"].values()) == count
    # It is no test where nothing gets far enough to be refused late, and nothing loads.
    reached = {code for one in report["answers"].values() for code in one}
    assert {"loads", "whole", "state-footer-missing", "field-differs", "state-config-differs"} <= reached
    assert {"state-description-wrong", "state-subsection-unknown", "state-cut-short", "differ", "refused"} <= reached


# -- descriptions that hypothesis makes up

texts = st.sampled_from(
    ["", "a", "b", "a/b", "x", "\x1b[2J", "\ud800", "ä", "uint8", "struct", "buffer", "bool", "uint32 equal"]
)
numbers = st.one_of(st.integers(-2, 9), st.sampled_from([255, 1 << 31, 1 << 63, 1 << 70]), st.floats(), st.booleans())
anything: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), texts, numbers),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


def parts(shapes: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Fields that are nearly right."""
    known: dict[str, st.SearchStrategy[Any]] = {
        "name": st.one_of(texts, anything),
        "type": st.one_of(texts, anything),
        "size": st.one_of(st.integers(0, 5), numbers, anything),
    }
    more = {"array_len": numbers, "index": st.one_of(st.integers(0, 2), numbers), "struct": shapes}
    return st.fixed_dictionaries(known, optional=more)


shapes: st.SearchStrategy[Any] = st.deferred(
    lambda: st.fixed_dictionaries(
        {"fields": st.one_of(st.lists(parts(shapes), max_size=3), anything)},
        optional={
            "vmsd_name": texts,
            "version": numbers,
            "subsections": st.lists(st.one_of(shapes, anything), max_size=2),
        },
    )
)


@given(st.lists(parts(shapes), max_size=4), st.binary(max_size=40), st.dictionaries(texts, anything, max_size=2))
@example([{"name": "a", "type": "struct", "size": 1}], b"1", {})
def test_made_up_descriptions_are_shown_or_refused(fields: list[Any], body: bytes, more: dict[str, Any]) -> None:
    document = device(fields) | {key: value for key, value in more.items() if key != "devices"}
    assert showing(assembled([section(body)], document), Random(1))
    assert showing(assembled([section(body)], document), Random(2))


@given(anything, st.binary(max_size=20))
def test_made_up_documents_are_shown_or_refused(document: Any, body: bytes) -> None:
    text = json.dumps(document).encode()
    assert showing(assembled([section(body)], b"{" + text), Random(1))
    assert showing(assembled([section(body)], {"devices": document, "configuration": document}), Random(1))


@given(st.lists(st.binary(max_size=30), max_size=8), st.booleans())
def test_bytes_from_nowhere_are_no_state(pieces: list[bytes], framed: bool) -> None:
    loader = stream.Loader([place()], "pc")
    with pytest.raises(BadState) as caught:
        _feed(loader, ([stream.head("pc")] if framed else []) + pieces)
    assert str(caught.value).isprintable()
    assert loader.places[0].loaded is None


def _feed(loader: stream.Loader, pieces: list[bytes]) -> None:
    for piece in pieces:
        loader.feed(piece)
    loader.finish()
