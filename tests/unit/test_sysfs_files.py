"""Open files: seq_file's reads, the page limit, stale descriptors, poll, mode bits, whole files, session files."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable

import pytest

from mdevfs.errors import KernelError, MdevfsError
from mdevfs.sysfs.entries import (
    PAGE_SIZE,
    Attribute,
    BinaryAttribute,
    Folder,
    Session,
    SessionFile,
    WholeFile,
)
from mdevfs.sysfs.files import POLL_IDLE, POLL_NEWS, File
from mdevfs.sysfs.tree import Tree
from tests.support import InProcess, check_tree


class Sys(InProcess):
    """A directory `d` with one attribute of each kind; `text` is what `d/value` shows now."""

    def __init__(self) -> None:
        self.text: str | bytes = "24\n"
        self.written: list[bytes] = []
        self.shown = 0
        self.whole = "whole\n"
        self.binary = bytearray(range(16))
        self.folder = Folder(
            {
                "value": Attribute(self.show, self.written.append),
                "shown": Attribute(self.show),
                "taken": Attribute(store=self.written.append),
                "whole": WholeFile(lambda: self.whole),
                "long": WholeFile(store=self.written.append),
                "session": SessionFile(Echo),
                "binary": BinaryAttribute(16, self.read_binary, self.write_binary, 0o644),
                "opaque": BinaryAttribute(0, None, None, 0o644),
            }
        )
        super().__init__(Tree(Folder({"d": self.folder})))

    def show(self) -> str | bytes:
        self.shown += 1
        return self.text

    def read_binary(self, offset: int, size: int) -> bytes:
        return bytes(self.binary[offset : offset + size])

    def write_binary(self, offset: int, data: bytes) -> int:
        self.binary[offset : offset + len(data)] = data
        return len(data)

    def take_away(self) -> None:
        del self.tree.root.directory.entries["d"]  # type: ignore[attr-defined]
        self.tree.changed("", "d")


class Echo(Session):
    """Answers what it was asked, in brackets."""

    def __init__(self) -> None:
        self.asked = b""
        self.times = 0

    async def ask(self, data: bytes) -> None:
        self.asked = data
        self.times += 1

    def answer(self) -> bytes:
        return b"[" + self.asked + b"]" if self.times else b""


async def refused(call: Awaitable[object]) -> int:
    with pytest.raises(MdevfsError) as caught:
        await call
    return caught.value.errno


# -- reads


async def test_a_read_that_goes_on_gets_the_old_texts_rest() -> None:
    sys = Sys()
    file = await sys.open("d/value")
    assert await file.read(0, 1) == b"2"
    sys.text = "23\n"
    assert await file.read(1, 100) == b"4\n"
    assert await file.read(3, 100) == b""
    assert await file.read(1, 100) == b"3\n"  # not where the last read ended: made anew
    assert await file.read(0, 100) == b"23\n"


async def test_the_end_stays_the_end() -> None:
    sys = Sys()
    sys.text = "9\n"
    file = await sys.open("d/value")
    assert await file.read(0, 100) == b"9\n"
    sys.text = "10\n"
    assert [await file.read(2, 100) for _ in range(3)] == [b"", b"", b""]
    assert await file.read(0, 100) == b"10\n"


async def test_a_fresh_descriptor_may_be_read_anywhere() -> None:
    sys = Sys()
    for offset, text in ((1, b"4\n"), (3, b""), (4, b""), (1 << 40, b"")):
        assert await (await sys.open("d/value")).read(offset, 100) == text


async def test_every_read_at_0_makes_the_text_and_no_other_does() -> None:
    sys = Sys()
    file = await sys.open("d/value")
    assert sys.shown == 0
    assert b"".join([await file.read(offset, 1) for offset in range(4)]) == b"24\n"
    assert sys.shown == 1
    await file.read(0, 0)
    assert sys.shown == 1
    await file.read(0, 1)
    assert sys.shown == 2


async def test_descriptors_are_apart() -> None:
    sys = Sys()
    one, two = await sys.open("d/value"), await sys.open("d/value")
    assert await one.read(0, 1) == b"2"
    sys.text = "7\n"
    assert await two.read(0, 100) == b"7\n"
    assert await one.read(1, 100) == b"4\n"


async def test_an_awaited_text() -> None:
    async def show() -> str:
        return "later\n"

    stored: list[bytes] = []

    async def store(data: bytes) -> None:
        stored.append(data)

    sys = InProcess(Tree(Folder({"a": Attribute(show, store)})))
    assert await sys.read("a") == "later\n"
    assert await sys.write("a", "x") == 1
    assert stored == [b"x"]


@pytest.mark.parametrize("size", [4095, 4096, 5000])
async def test_a_page_holds_4095_bytes(size: int, expected_logs: list[logging.LogRecord]) -> None:
    sys = Sys()
    sys.text = "x" * size
    file = await sys.open("d/value")
    assert await file.read(0, 1 << 20) == b"x" * 4095
    assert await file.read(4095, 100) == b""
    told = [record.getMessage() for record in expected_logs]
    assert told == ([f"d/value: show returned {size} bytes, a page holds 4095"] if size > 4095 else [])


async def test_a_show_that_fails_leaves_the_descriptor_usable() -> None:
    sys = Sys()

    def broken() -> str:
        raise KernelError(errno.EIO)

    sys.folder.entries["value"] = Attribute(broken)
    file = await sys.open("d/value")
    assert await refused(file.read(0, 100)) == errno.EIO
    file.attribute.show = sys.show  # type: ignore[attr-defined]
    assert await file.read(0, 100) == b"24\n"


# -- writes


@pytest.mark.parametrize(("size", "taken"), [(0, 0), (1, 1), (4096, 4096), (4097, 4096), (1 << 20, 4096)])
@pytest.mark.parametrize("name", ["value", "taken", "long"])
async def test_only_a_page_is_taken(name: str, size: int, taken: int) -> None:
    sys = Sys()
    assert await sys.write(f"d/{name}", b"y" * size) == taken
    assert sys.written == ([b"y" * taken] if size else [])


async def test_offsets_of_writes_do_not_matter() -> None:
    sys = Sys()
    file = await sys.open("d/taken", os.O_WRONLY)
    assert [await file.write(offset, b"ab") for offset in (100, 0, 2)] == [2, 2, 2]
    assert sys.written == [b"ab"] * 3


# -- who may open how: the mode bits count even for root


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("shown", os.O_WRONLY),
        ("shown", os.O_RDWR),
        ("taken", os.O_RDONLY),
        ("taken", os.O_RDWR),
        ("taken", os.O_RDONLY | os.O_DIRECT),
    ],
)
async def test_wrong_direction(name: str, flags: int) -> None:
    with pytest.raises(PermissionError) as caught:
        await Sys().open(f"d/{name}", flags)
    assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_NONBLOCK, os.O_RDONLY | os.O_SYNC | os.O_APPEND])
async def test_flags_that_change_nothing(flags: int) -> None:
    file = await Sys().open("d/value", flags)
    assert await file.read(0, 100) == b"24\n"


@pytest.mark.parametrize("name", ["value", "shown", "taken", "whole", "session", "binary"])
async def test_access_mode_3_opens_whatever_the_bits_say(name: str) -> None:
    assert isinstance(await Sys().open(f"d/{name}", os.O_ACCMODE), File)


async def test_o_direct_and_directories() -> None:
    sys = Sys()
    for path, flags, code in (
        ("d/value", os.O_DIRECT, errno.EINVAL),
        ("d", 0, errno.EISDIR),
        ("d/no", 0, errno.ENOENT),
    ):
        with pytest.raises(OSError) as caught:
            await sys.open(path, flags)
        assert caught.value.errno == code


async def test_chmod_opens_but_nobody_answers() -> None:
    sys = Sys()
    sys.tree.remember(sys.tree.walk("d/shown")).mode |= 0o222
    sys.tree.remember(sys.tree.walk("d/taken")).mode |= 0o444
    writer, reader = await sys.open("d/shown", os.O_WRONLY), await sys.open("d/taken")
    assert await refused(writer.write(0, b"1")) == errno.EIO
    assert await writer.write(0, b"") == 0
    assert await refused(reader.read(0, 1)) == errno.EIO
    assert await reader.read(0, 0) == b""


async def test_chmod_closes() -> None:
    sys = Sys()
    sys.tree.remember(sys.tree.walk("d/value")).mode &= ~0o444
    with pytest.raises(PermissionError):
        await sys.open("d/value")
    assert await sys.write("d/value", "1") == 1


# -- descriptors that outlive their node


async def test_stale_descriptors() -> None:
    sys = Sys()
    fresh, part, full = [await sys.open("d/value", os.O_RDWR) for _ in range(3)]
    assert await part.read(0, 1) == b"2"
    assert await full.read(0, 100) == b"24\n"
    sys.take_away()
    assert await part.read(1, 1) == b"4"
    assert await part.read(2, 100) == b"\n"
    for file, offset in ((fresh, 0), (part, 0), (part, 3), (part, 1), (full, 3), (full, 0)):
        assert await refused(file.read(offset, 100)) == errno.ENODEV
        assert await file.read(offset, 0) == b""
        assert await refused(file.write(0, b"1")) == errno.ENODEV
        assert await refused(file.write(0, b"")) == errno.ENODEV
        assert file.poll() == POLL_NEWS
        assert await refused(sys.tree.open(file.node, os.O_RDONLY)) == errno.ENODEV
        assert (file.node.size, file.node.links()) == (PAGE_SIZE, 1)
    assert not sys.written
    check_tree(sys.tree)


async def test_a_name_that_comes_back_is_another_node() -> None:
    sys = Sys()
    file = await sys.open("d/value")
    sys.take_away()
    sys.tree.root.directory.entries["d"] = sys.folder  # type: ignore[attr-defined]
    sys.tree.changed("", "d")
    assert sys.tree.walk("d/value") is not file.node
    assert await refused(file.read(0, 100)) == errno.ENODEV
    assert await sys.read("d/value") == "24\n"


@pytest.mark.parametrize("name", ["session", "binary", "long"])
async def test_stale_files_of_the_other_kinds_take_nothing(name: str) -> None:
    sys = Sys()
    file = await sys.open(f"d/{name}", os.O_WRONLY)
    sys.take_away()
    assert await refused(file.write(0, b"x")) == errno.ENODEV
    assert not sys.written
    assert sys.binary == bytes(range(16))


# -- poll


async def test_poll_shows_news_until_it_was_read() -> None:
    sys = Sys()
    file, other = await sys.open("d/value"), await sys.open("d/value")
    assert file.poll() == POLL_NEWS
    await file.read(0, 100)
    assert (file.poll(), other.poll()) == (POLL_IDLE, POLL_NEWS)
    sys.text = "5\n"
    assert file.poll() == POLL_IDLE  # a new text alone is no news
    woken: list[str] = []
    file.node.waiters = [lambda: woken.append("one"), lambda: woken.append("two")]
    sys.tree.notify("d/value")
    assert woken == ["one", "two"]
    assert file.poll() == POLL_NEWS
    sys.tree.notify("d/value")
    assert woken == ["one", "two"]
    await file.read(0, 100)
    assert file.poll() == POLL_IDLE


async def test_removal_wakes_for_ever() -> None:
    sys = Sys()
    file = await sys.open("d/value")
    await file.read(0, 1)
    woken: list[bool] = []
    file.node.waiters = [lambda: woken.append(file.node.dead)]
    sys.take_away()
    assert woken == [True]
    await file.read(1, 100)
    assert file.poll() == POLL_NEWS


# -- whole files, session files, binary attributes


async def test_a_whole_file_is_fixed_at_open_and_as_long_as_it_likes() -> None:
    sys = Sys()
    sys.whole = "0123456789" * 1000
    file = await sys.open("d/whole")
    sys.whole = "new"
    assert await file.read(0, 1 << 20) == b"0123456789" * 1000
    assert await file.read(5001, 3) == b"123"
    assert await file.read(0, 3) == b"012"
    sys.take_away()
    assert await file.read(9998, 100) == b"89"
    assert file.poll() == POLL_NEWS


async def test_sessions_are_answered_alone() -> None:
    sys = Sys()
    one, two = await sys.open("d/session", os.O_RDWR), await sys.open("d/session", os.O_RDWR)
    assert await one.write(0, b"a") == 1
    assert await two.write(0, b"bc") == 2
    assert (await one.read(0, 100), await two.read(0, 100)) == (b"[a]", b"[bc]")
    assert await sys.read("d/session") == ""


@pytest.mark.parametrize("start", [0, 1, 77])
async def test_the_first_read_after_a_question_begins_the_answer(start: int) -> None:
    file = await Sys().open("d/session", os.O_RDWR)
    for question in (b"abcdef", b"xy"):
        await file.write(0, question)
        pieces = [await file.read(start + 3 * index, 3) for index in range(4)]
        assert b"".join(pieces) == b"[" + question + b"]"


async def test_a_question_is_one_page_and_nothing_is_no_question() -> None:
    file = await Sys().open("d/session", os.O_RDWR)
    assert await file.write(0, b"") == 0
    assert await file.read(0, 10) == b""
    assert await file.write(0, b"q" * 5000) == PAGE_SIZE
    assert await file.read(0, 9000) == b"[" + b"q" * PAGE_SIZE + b"]"
    assert await file.write(0, b"") == 0
    assert await file.read(0, 3) == b"[qq"


async def test_binary_attributes_have_a_size_and_an_end() -> None:
    sys = Sys()
    assert sys.tree.walk("d/binary").size == 16
    file = await sys.open("d/binary", os.O_RDWR)
    assert await file.read(12, 100) == bytes(range(12, 16))
    assert await file.read(16, 1) == b""
    assert await file.write(14, b"abcd") == 2
    assert await file.read(13, 3) == b"\rab"
    assert await refused(file.write(16, b"x")) == errno.EFBIG
    opaque = await sys.open("d/opaque", os.O_RDWR)
    calls: list[Callable[[], Awaitable[object]]] = [lambda: opaque.read(0, 1), lambda: opaque.write(0, b"x")]
    assert [await refused(call()) for call in calls] == [errno.EIO, errno.EIO]
