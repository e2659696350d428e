"""What a directory of the tree shows: attributes, links, directories.

An entry is content only and may be made when it is looked up; which inode it has, who has it open and what chmod did
to it is the business of `mdevfs.sysfs.tree`.
"""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

PAGE_SIZE = 4096

type_bits = stat.S_IFMT

Text = str | bytes
Show = Callable[[], Text | Awaitable[Text]]
Store = Callable[[bytes], Awaitable[None] | None]


class Entry:
    """One name's content. `mode` holds type and permission bits; `salt` tells apart two lives of one name."""

    __slots__ = ()
    mode: int
    salt: int = 0
    size: int = 0

    def same_as(self, other: Entry) -> bool:
        """Whether `other` may take this one's place without anybody noticing (its inode stays)."""
        return self.mode == other.mode and self.salt == other.salt


class Attribute(Entry):
    """One sysfs attribute: `show` gives its text, `store` takes what is written (at most 4096 bytes).

    Both may return an awaitable. The mode follows from which of them is there (0444, 0200, 0644) unless it is given.
    """

    __slots__ = ("mode", "show", "store")
    size = PAGE_SIZE

    def __init__(self, show: Show | None = None, store: Store | None = None, mode: int | None = None) -> None:
        self.show = show
        self.store = store
        if mode is None:
            mode = (0o444 if show else 0) | (0o200 if store else 0)
        self.mode = stat.S_IFREG | mode


class WholeFile(Attribute):
    """An attribute without the page limit, whose text is fixed when it is opened."""

    __slots__ = ()


class Session:
    """What one open file of a `SessionFile` talks to: `ask` takes a question, `answer` is what reads then return."""

    async def ask(self, data: bytes) -> None:
        raise NotImplementedError

    def answer(self) -> Text:
        raise NotImplementedError


class SessionFile(Entry):
    """A file that answers each opener alone: write a question, read the answer."""

    __slots__ = ("begin", "mode")
    size = PAGE_SIZE

    def __init__(self, begin: Callable[[], Session], mode: int = 0o644) -> None:
        self.begin = begin
        self.mode = stat.S_IFREG | mode


class Channel(Protocol):
    """What one open file of a `ChannelFile` carries; every call raises MdevfsError."""

    def read(self, offset: int, size: int) -> bytes:
        """pread(2)."""

    def write(self, offset: int, data: bytes) -> int | Awaitable[int]:
        """pwrite(2)."""

    async def sync(self) -> None:
        """fsync(2)."""

    def close(self) -> None:
        """The last descriptor is closed. Raises nothing."""


class ChannelFile(Entry):
    """A file of which each open descriptor matters: `begin` gets the access mode of open(2), O_RDONLY or O_WRONLY or
    O_RDWR, and raises MdevfsError where it does not open."""

    __slots__ = ("begin", "mode", "size")

    def __init__(self, begin: Callable[[int], Channel], mode: int = 0o600, size: int = 0) -> None:
        self.begin = begin
        self.mode = stat.S_IFREG | mode
        self.size = size


class BinaryAttribute(Entry):
    """Bytes at offsets (`struct bin_attribute`): `read(offset, size)`, `write(offset, data)`; `size` as stat shows. Of
    these `for_all` are for everybody, the rest for root."""

    __slots__ = ("for_all", "mode", "read", "size", "write")

    def __init__(
        self,
        size: int,
        read: Callable[[int, int], bytes] | None = None,
        write: Callable[[int, bytes], int] | None = None,
        mode: int = 0o444,
        for_all: int | None = None,
    ) -> None:
        self.size = size
        self.for_all = size if for_all is None else for_all
        self.read = read
        self.write = write
        self.mode = stat.S_IFREG | mode


class Placed(Protocol):
    """Anything with a place in the tree."""

    @property
    def path(self) -> str:
        """From the tree's root, without a leading slash."""


class Link(Entry):
    """A symbolic link in the directory `here` to `there`; its text is relative, as the kernel lays them."""

    __slots__ = ("here", "salt", "there")
    mode = stat.S_IFLNK | 0o777

    def __init__(self, here: Placed | str, there: Placed, salt: int = 0) -> None:
        self.here = here
        self.there = there
        self.salt = salt

    @property
    def target(self) -> str:
        """What readlink(2) gives."""
        return relative(self.here if isinstance(self.here, str) else self.here.path, self.there.path)

    def same_as(self, other: Entry) -> bool:
        return isinstance(other, Link) and (other.target, other.salt) == (self.target, self.salt)


class Directory(Entry):
    """A directory: `lookup` makes one child's content, `scan` lists (name, mode, salt) of all, in any order."""

    __slots__ = ()
    mode = stat.S_IFDIR | 0o755

    def lookup(self, name: str) -> Entry | None:
        raise NotImplementedError

    def scan(self) -> Sequence[tuple[str, int, int]]:
        raise NotImplementedError

    def subdirectories(self) -> int:
        """How many children are directories: st_nlink is this plus 2."""
        return sum(1 for _, mode, _ in self.scan() if stat.S_ISDIR(mode))


class Folder(Directory):
    """A directory of given entries."""

    __slots__ = ("entries", "salt")

    def __init__(self, entries: Mapping[str, Entry] | None = None, salt: int = 0) -> None:
        self.entries: dict[str, Entry] = dict(entries or {})
        self.salt = salt

    def lookup(self, name: str) -> Entry | None:
        return self.entries.get(name)

    def scan(self) -> Sequence[tuple[str, int, int]]:
        return [(name, entry.mode, entry.salt) for name, entry in self.entries.items()]


class Deferred(Directory):
    """A folder that is made when somebody looks into it; `folders` says how many of its entries are directories."""

    __slots__ = ("_folders", "_made", "_make")

    def __init__(self, make: Callable[[], Mapping[str, Entry]], folders: int = 0) -> None:
        self._make = make
        self._made: Mapping[str, Entry] | None = None
        self._folders = folders

    @property
    def _entries(self) -> Mapping[str, Entry]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def lookup(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def scan(self) -> Sequence[tuple[str, int, int]]:
        return [(name, entry.mode, entry.salt) for name, entry in self._entries.items()]

    def subdirectories(self) -> int:
        return self._folders


class Overlay(Directory):
    """Several directories shown as one; the first that knows a name has it."""

    __slots__ = ("parts", "salt")

    def __init__(self, *parts: Directory, salt: int = 0) -> None:
        self.parts = parts
        self.salt = salt

    def lookup(self, name: str) -> Entry | None:
        for part in self.parts:
            if (entry := part.lookup(name)) is not None:
                return entry
        return None

    def scan(self) -> Sequence[tuple[str, int, int]]:
        return [child for part in self.parts for child in part.scan()]

    def subdirectories(self) -> int:
        return sum(part.subdirectories() for part in self.parts)


def relative(directory: str, target: str) -> str:
    """The text of a link in `directory` to `target`; both are paths from the tree's root without a leading slash."""
    here, there = directory.split("/"), target.split("/")
    common = 0
    # As kernfs_get_target_path does: the target is always reached by its own name, even from inside it.
    while common < min(len(here), len(there) - 1) and here[common] == there[common]:
        common += 1
    return "../" * (len(here) - common) + "/".join(there[common:])


def nest(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Turns names with slashes ("vendor/sample") into folders."""
    if not any("/" in name for name in entries):
        return dict(entries)
    flat: dict[str, Entry] = {}
    folders: dict[str, dict[str, Entry]] = {}
    for name, entry in entries.items():
        folder, slash, rest = name.partition("/")
        if slash:
            folders.setdefault(folder, {})[rest] = entry
        else:
            flat[name] = entry
    for name, children in folders.items():
        flat[name] = Folder(nest(children))
    return flat
