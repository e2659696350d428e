"""Every altered stream that was tried on QEMU gets QEMU's answer, with a code and a text that say where and why.

The streams are altered captures of a real QEMU; where it is here it judges the same bytes once more.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import struct
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import pytest
import trio
from attrs import field, frozen

from mdevfs.host.single import Wanted, device
from mdevfs.state import believe, stream
from mdevfs.state.refusal import BadState
from mdevfs.state.values import Group
from tests.qemu import VMSTATE, needs_qemu
from tests.qemu_machine import E1000, E1000E, VIRTIO, capture, judge_load
from tests.unit import believing
from vendor_drivers import e1000

MACHINE = "pc-q35-7.2"
NIC = "0000:00:03.0/e1000e"
RECORDED = {one["case"]: one for one in json.loads((VMSTATE / "qemu-load-errors.json").read_text())}


@frozen
class Pieces:
    """A stream taken apart: its head with the configuration, the sections, and what follows the end mark."""

    head: bytes
    sections: Sequence[bytes]
    tail: bytes
    places: Callable[[], Sequence[stream.Place]]
    devices: tuple[str, ...]

    def join(
        self, sections: Sequence[bytes] | None = None, head: bytes | None = None, tail: bytes | None = None
    ) -> bytes:
        """The stream, with some of it replaced."""
        chosen = self.sections if sections is None else sections
        return (
            (head if head is not None else self.head) + b"".join(chosen) + b"\0" + (self.tail if tail is None else tail)
        )

    def index(self, name: str) -> int:
        """Which section is of a device."""
        return next(at for at, one in enumerate(self.sections) if one[6 : 6 + one[5]] == name.encode())

    def of(self, name: str) -> bytes:
        """A device's section."""
        return self.sections[self.index(name)]

    def change(self, name: str, alter: Callable[[bytes], bytes]) -> bytes:
        """The stream with one section altered."""
        at = self.index(name)
        return self.join(sections=[*self.sections[:at], alter(self.sections[at]), *self.sections[at + 1 :]])


def apart(data: bytes, places: Callable[[], Sequence[stream.Place]], devices: tuple[str, ...]) -> Pieces:
    found = believe.read(data)
    assert (found.problems, found.machine) == ([], MACHINE)
    sections = [data[one.at : one.body + one.size + 5] for one in found.sections if one.device is not None]
    json_at = data.rfind(b"\6\0")
    return Pieces(data[: 13 + len(MACHINE)], sections, data[json_at:], places, devices)


@cache
def guest() -> Pieces:
    """A whole guest, but for its memory, which no device needs."""
    data = capture(MACHINE, E1000E, VIRTIO)
    sections = [one for one in believe.read(data).sections if one.device is not None]
    return apart(data, lambda: [believing.place(one) for one in sections], (E1000E, VIRTIO))


@cache
def nic() -> Pieces:
    """QEMU's e1000, to be loaded by ours."""
    data = gzip.decompress((VMSTATE / f"real-e1000-{MACHINE}.mig.gz").read_bytes())
    mdev = trio.run(device, Wanted(e1000.E1000, machine=MACHINE))
    return apart(data, lambda: [mdev.device_state.place()], (E1000,))


def body_at(section: bytes) -> int:
    return 5 + 1 + section[5] + 8


def at(index: int, new: bytes) -> Callable[[bytes], bytes]:
    """Puts bytes into a section, counted from where its body begins."""

    def alter(section: bytes) -> bytes:
        begin = body_at(section) + index
        return section[:begin] + new + section[begin + len(new) :]

    return alter


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


@frozen
class Case:
    """One alteration: the stream, and what we say of it; no code: it loads."""

    name: str
    make: Callable[[], bytes]
    code: str | None = None
    said: tuple[str, ...] = ()
    base: Callable[[], Pieces] = field(default=guest, repr=False)


def subsections() -> tuple[bytes, list[bytes], bytes]:
    """The e1000's section up to its subsections, those, and the footer."""
    (whole,) = nic().sections
    found = believe.read(nic().join())
    value = found.sections[0].value
    assert isinstance(value, Group)
    begin = body_at(whole) + sum(part.total for part in value.shape.parts)
    sizes = [6 + len(sub.name) + sub.size for sub in value.shape.subsections]
    marks = [begin + sum(sizes[:index]) for index in range(len(sizes) + 1)]
    return whole[:begin], [whole[one:two] for one, two in pairwise(marks)], whole[marks[-1] :]


def cut() -> bytes:
    whole = guest().join()
    return whole[: whole.index(NIC.encode()) + 60_000]


CASES = [
    Case(
        "only the e1000e section + EOF + VMDESC", lambda: guest().join(sections=[guest().sections[guest().index(NIC)]])
    ),
    Case("no VMDESC after EOF", lambda: guest().join(tail=b"")),
    Case("garbage instead of VMDESC", lambda: guest().join(tail=b"Breeze")),
    Case("bad magic", lambda: b"QEVP" + guest().join()[4:], "state-not-a-stream", ("at offset 0", "0x51455650")),
    Case(
        "no configuration section",
        lambda: guest().join(head=guest().head[:8]),
        "state-configuration-missing",
        ("at offset 8", "source type 0x04"),
    ),
    Case(
        "other machine type",
        lambda: guest().join(head=stream.head("pc-q35-6.2")),
        "state-machine-differs",
        ("at offset 13", "source pc-q35-6.2, target pc-q35-7.2"),
    ),
    Case("machine type prefix pc-q35-7", lambda: guest().join(head=stream.head("pc-q35-7"))),
    Case(
        "section version too new",
        lambda: guest().change(NIC, at(-4, u32(2))),
        "state-version-too-new",
        (f"{NIC}/e1000e at offset ", "source version 2, target version 1"),
    ),
    Case(
        "section version 0 (too old)",
        lambda: guest().change(NIC, at(-4, u32(0))),
        "state-version-too-old",
        (f"{NIC}/e1000e at offset ", "source version 0, target version 1"),
    ),
    Case(
        "unknown instance id",
        lambda: guest().change(NIC, at(-8, u32(1))),
        "state-device-unknown",
        (f"{NIC} at offset ", f"source {NIC} instance 1", f"{NIC} instance 0"),
    ),
    Case(
        "one byte short",
        lambda: guest().change(NIC, lambda section: section[:-6] + section[-5:]),
        "state-footer-missing",
        (f"{NIC}/e1000e, after its last field at offset ", "source version 1, byte 0x00", "target version 1, "),
    ),
    Case(
        "one byte extra",
        lambda: guest().change(NIC, lambda section: section[:-5] + b"\xee" + section[-5:]),
        "state-footer-missing",
        (f"{NIC}/e1000e, after its last field at offset ", "source version 1, byte 0xee", "target version 1, "),
    ),
    Case(
        "no footer",
        lambda: guest().change(NIC, lambda section: section[:-5]),
        "state-footer-missing",
        (f"{NIC}/e1000e, after its last field at offset ", "source version 1, byte 0x04"),
    ),
    Case(
        "footer with other id",
        lambda: guest().change(NIC, lambda section: section[:-4] + u32(8)),
        "state-footer-differs",
        (f"{NIC} at offset ", "source section 8, target section "),
    ),
    Case(
        "subsection of another device",
        lambda: guest().change(NIC, lambda section: section[:-5] + b"\x05\x07xyz/abc" + u32(1) + section[-5:]),
        "state-footer-missing",
        (f"{NIC}/e1000e, after its last field at offset ", "source version 1, byte 0x05"),
    ),
    Case(
        "PCI vendor id differs",
        lambda: guest().change(NIC, at(4, b"\x79")),
        "state-config-differs",
        (f"{NIC}/e1000e/parent_obj[0]:PCIDevice/config[1] at offset ", "source 0x79 in byte 0x0, target 0x86 "),
    ),
    Case(
        "PART of an unknown section id",
        lambda: guest().join(sections=[*guest().sections, b"\2" + u32(77)]),
        "state-part-unknown",
        ("at offset ", "source section 77"),
    ),
    Case(
        "cut in the middle of e1000e",
        cut,
        "state-cut-short",
        (f"{NIC}/e1000e/core.mac at offset ",),
    ),
    Case(
        "same section twice",
        lambda: guest().join(sections=[*guest().sections, guest().of(NIC)]),
    ),
    Case(
        "hpet version 3",
        lambda: guest().change("hpet", at(-4, u32(3))),
        "state-version-too-new",
        ("hpet/hpet at offset ", "source version 3, target version 2"),
    ),
    Case(
        "name of 0 bytes",
        lambda: guest().change(NIC, lambda section: section[:5] + b"\0" + section[6 + section[5] :]),
        "state-device-unknown",
        ("at offset ", "a section has no name"),
    ),
    Case(
        "subsection name unknown (e1000/mit_stat3)",
        lambda: nic().change("0000:00:03.0/e1000", lambda section: section.replace(b"mit_state", b"mit_stat3")),
        "state-subsection-unknown",
        ("0000:00:03.0/e1000/e1000/mit_stat3 at offset ", "target e1000/mit_state, "),
        nic,
    ),
    Case(
        "all optional subsections left out",
        lambda: nic().join(sections=[subsections()[0] + subsections()[2]]),
        base=nic,
    ),
    Case(
        "subsections in another order",
        lambda: nic().join(sections=[subsections()[0] + b"".join(reversed(subsections()[1])) + subsections()[2]]),
        base=nic,
    ),
]


def test_every_recorded_alteration_is_here() -> None:
    assert [case.name for case in CASES] == list(RECORDED)


@needs_qemu
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_altered_stream_gets_qemus_answer(case: Case) -> None:
    recorded, data = RECORDED[case.name], case.make()
    error = loaded(case.base().places(), data)
    assert (error is None) == recorded["loads"] == (case.code is None)
    ours = errno.errorcode[error.errno] if error is not None else None
    assert ours == recorded["errno_7.2"]
    if error is not None:
        assert error.code == case.code
        missing = [words for words in case.said if words not in str(error)]
        assert missing == [], str(error)
    answer, said = judge_load(MACHINE, case.base().devices, data)
    assert answer == recorded["loads"], said
    if not answer:
        assert f"load of migration failed: {os.strerror(getattr(errno, str(ours)))}" in said


def loaded(places: Sequence[stream.Place], data: bytes) -> BadState | None:
    """What a load says: nothing, when it succeeds for every device that was sent."""
    loader = stream.Loader(places, MACHINE)
    try:
        loader.feed(data)
        loader.finish()
    except BadState as error:
        if error.code == "state-section-missing":
            return None  # one device asks for its own; QEMU does not mind what is missing
        return error
    return None


@needs_qemu
def test_the_unaltered_stream_loads_and_changes_nothing() -> None:
    assert loaded(guest().places(), guest().join()) is None
    places = guest().places()
    loader = stream.Loader(places, MACHINE)
    loader.feed(guest().join())
    loader.finish()
    assert all(one.loaded is not None for one in places)
    assert judge_load(MACHINE, guest().devices, guest().join())[0]
