"""What a load refuses beyond what any altered stream of QEMU's shows: its code, errno, place and values."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from mdevfs.state import stream
from mdevfs.state.refusal import BadState
from tests.unit.demo_stream import NAME, place, section, view, written

WHOLE = written()
HEAD = stream.head("pc")


def refused(data: bytes, machine: str | None = "pc", **more: Any) -> BadState:
    with pytest.raises(BadState) as caught:
        load(stream.Loader([place(**more)], machine), data)
    return caught.value


def load(loader: stream.Loader, data: bytes) -> None:
    loader.feed(data)
    loader.finish()


def command(number: int, data: bytes) -> bytes:
    return HEAD + struct.pack(">BHH", 8, number, len(data)) + data + WHOLE[len(HEAD) :]


@pytest.mark.parametrize(
    ("data", "code", "number", "said"),
    [
        (command(0x63, b""), "state-command-unknown", errno.EINVAL, f"at offset {len(HEAD)}: the command is unknown"),
        (command(2, b"abc"), "state-command-length", errno.ERANGE, "PING has another length (source 3, target 4)"),
        (HEAD + b"\0", "state-section-missing", errno.EINVAL, f"{NAME}: the stream holds no section"),
        (HEAD + b"\x09", "state-section-type", errno.EINVAL, "source type 0x09"),
        (HEAD + b"\2\0\0\0\7", "state-part-unknown", errno.EINVAL, "source section 7"),
        (WHOLE[:60], "state-cut-short", errno.EIO, f"{NAME}/demo/"),
        (HEAD + section(b"", name=""), "state-device-unknown", errno.EINVAL, "a section has no name"),
        (HEAD[:9] + struct.pack(">I", 1 << 30), "state-configuration-missing", errno.EINVAL, "at most 255 bytes"),
    ],
)
def test_what_is_refused_says_where(data: bytes, code: str, number: int, said: str) -> None:
    error = refused(data)
    assert (error.code, error.errno) == (code, number)
    assert said in str(error)


@pytest.mark.parametrize("data", [b"", b"1234"])
def test_known_commands_mean_nothing_to_a_device(data: bytes) -> None:
    loader = stream.Loader([place()], "pc")
    loader.feed(command(2 if data else 1, data))
    loader.finish()
    assert loader.places[0].loaded is not None


def test_a_value_that_the_target_must_have_names_both() -> None:
    source = view()
    source.state.pair[2].high = 7
    error = refused(written(source))
    assert (error.code, error.source, error.target) == ("field-differs", "7", "0")
    assert f"{NAME}/demo/pair:demo-pair/high at offset" in str(error)
    at = error.offset
    assert at is not None
    assert written(source)[at] == 7


def test_no_machine_type_fits_every_machine() -> None:
    for machine in ("pc", "pc-q35-7.2", None):
        loader = stream.Loader([place()], machine)
        loader.feed(written(machine=""))
        loader.finish()
    assert refused(written(machine="pc-q35"), "pc").code == "state-machine-differs"


def test_a_new_version_of_a_struct_or_subsection_is_named() -> None:
    raw = struct.pack(">BB8sI", 5, 8, b"demo/rss", 1)
    error = refused(WHOLE.replace(raw, raw[:-1] + b"\2"))
    assert (error.code, error.field, error.source) == ("state-version-too-new", "demo/rss", "version 2")
    assert refused(WHOLE.replace(raw, raw[:-1] + b"\0")).code == "state-version-too-old"
