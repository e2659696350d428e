"""Dumps of VMState descriptions: the JSON that `qemu-system-x86_64 -dump-vmstate FILE` writes (7.2 to 11.1 measured).

A dump says for each device what its saved state is made of, in order: fields with a size and the version since which
they are there, structs, subsections. It knows no types, no values, and of a condition only that there is one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from attrs import frozen
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from mdevfs.errors import InputError, key_path

T = TypeVar("T")

MAX_BYTES = 4 << 20  # the largest real one, QEMU 11.1's, has 911 kB
MAX_OBJECTS = 100_000
MAX_DEPTH = 100  # of the JSON; a struct takes three levels
MAX_TOLD = 50  # mistakes
HEAD = "vmschkmachine"
OWN_MACHINE = "mdevfs"  # the machine name that our own dumps begin with; they tell every array's length


@frozen
class DumpField:
    """One field. `size`: bytes of one element (of a struct, C's size, not what is sent; 0: the device sends what it
    likes). `num`: elements of an array; 0, which QEMU does not write: as many as the state says.

    `conditional`: a function decides whether it is there (field_exists), and `version` does not.
    """

    name: str
    version: int
    conditional: bool
    size: int
    num: int | None = None
    struct: Described | None = None


@frozen
class Described:
    """A description: of a device, a struct or a subsection. `fields` is None where the dump has no such key."""

    name: str
    version: int
    minimum: int
    fields: tuple[DumpField, ...] | None = None
    subsections: tuple[Described, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing is described: QEMU writes devices so that cannot migrate (unmigratable = 1)."""
        return self.fields is None and not self.subsections


@frozen
class Device:
    """A device class and the versions of its section. `contradictions`: where its entry disagrees with itself;
    `ignored`: keys that QEMU does not write, which mean nothing."""

    name: str
    version: int
    minimum: int
    described: Described | None
    contradictions: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def saved(self) -> Described | None:
        """The description of what is saved; None where nothing is."""
        return None if self.described is None or self.described.empty else self.described


@frozen
class Dump:
    """All devices of one dump. `tells_lengths`: an array says how many elements it has (`num`, since QEMU 10.0)."""

    machine: str
    devices: Mapping[str, Device]
    tells_lengths: bool

    @property
    def own(self) -> bool:
        """Whether mdevfs wrote it: its devices can save older versions, and versions count for conditional fields."""
        return self.machine.startswith(OWN_MACHINE)


def read(path: str | Path) -> Dump:
    """The dump in a file. Raises InputError with every mistake, each with the file and its place."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return parse(text, str(path))


def parse(text: bytes, origin: str) -> Dump:
    """The dump that a JSON text gives; `origin` names it in mistakes. Raises InputError with every mistake."""
    document = _json(text, origin)
    if HEAD not in document:
        raise InputError(f"{origin}: no {HEAD}: this is not what -dump-vmstate writes")
    mistakes = list(_repeated(document))
    head = _checked(_MACHINE, document.pop(HEAD), (HEAD,), mistakes)
    entries = _checked(_ENTRIES, document, (), mistakes)
    if mistakes or head is None or entries is None:
        more = [f"{origin}: and {len(mistakes) - MAX_TOLD} more"] if len(mistakes) > MAX_TOLD else []
        raise InputError([f"{origin}: {mistake}" for mistake in mistakes[:MAX_TOLD]] + more)
    devices = {name: entry.device(name) for name, entry in entries.items()}
    tells = head.name.startswith(OWN_MACHINE) or any(_has_array(one.described) for one in devices.values())
    return Dump(head.name, devices, tells)


def _has_array(described: Described | None) -> bool:
    """Whether it or anything in it gives the length of an array."""
    if described is None:
        return False
    return any(one.num is not None or _has_array(one.struct) for one in described.fields or ()) or any(
        map(_has_array, described.subsections)
    )


# -- the text


class _Object(dict[str, Any]):
    """A JSON object that remembers the keys that it had twice."""

    repeated: tuple[str, ...] = ()


def _json(text: bytes, origin: str) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise InputError(f"{origin}: larger than {MAX_BYTES >> 20} MiB, which no dump is")
    made = 0

    def make(pairs: list[tuple[str, Any]]) -> _Object:
        nonlocal made
        made += 1
        if made > MAX_OBJECTS:
            raise InputError(f"{origin}: more than {MAX_OBJECTS} objects")
        found = _Object(pairs)
        if len(found) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            found.repeated = tuple(key for key, count in counts.items() if count > 1)
        return found

    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=make)
    except UnicodeDecodeError as error:
        raise InputError(f"{origin}: not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{origin}: not JSON: {error}") from None
    except ValueError:  # Python's own limit
        raise InputError(f"{origin}: a number has more digits than any that a dump holds") from None
    except RecursionError:
        raise InputError(f"{origin}: {_TOO_DEEP}") from None
    if not isinstance(document, dict):
        raise InputError(f"{origin}: not a JSON object, which a dump is")
    if any(depth > MAX_DEPTH for _, depth, _ in _walk(document)):
        raise InputError(f"{origin}: {_TOO_DEEP}")
    return document


_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def _walk(document: object) -> Iterator[tuple[object, int, tuple[str | int, ...]]]:
    """Every object and list, its depth and its place; not below the depth that is allowed."""
    waiting: list[tuple[object, int, tuple[str | int, ...]]] = [(document, 1, ())]
    while waiting:
        one, depth, place = waiting.pop()
        if not isinstance(one, dict | list):
            continue
        yield one, depth, place
        if depth <= MAX_DEPTH:
            items: Iterable[tuple[str | int, object]] = one.items() if isinstance(one, dict) else enumerate(one)
            waiting += [(value, depth + 1, (*place, key)) for key, value in items]


def _repeated(document: object) -> Iterator[str]:
    for one, _, place in _walk(document):
        if isinstance(one, _Object):
            yield from (f"{key_path((*place, key))}: is given twice" for key in one.repeated)


# -- its form

Name = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[ -~]+$")]
Version = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class _Form(BaseModel):
    """Keys that QEMU does not write are kept, to be told; they mean nothing."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    def strange(self) -> list[str]:
        """The keys that mean nothing."""
        return list(self.model_extra or ())


class _Machine(_Form):
    name: Name = Field(alias="Name")


class _Field(_Form):
    name: Name = Field(alias="field")
    version: Version = Field(alias="version_id")
    conditional: bool = Field(alias="field_exists")
    size: int = Field(ge=0, lt=2**40)
    num: int | None = Field(default=None, ge=0, lt=2**31)
    struct: _Described | None = Field(default=None, alias="Description")

    def made(self, ignored: list[str]) -> DumpField:
        ignored += [f"{name} of field {self.name}" for name in self.strange()]
        struct = self.struct.made(ignored) if self.struct is not None else None
        return DumpField(self.name, self.version, self.conditional, self.size, self.num, struct)


class _Described(_Form):
    name: Name
    version: Version = Field(alias="version_id")
    minimum: Version = Field(alias="minimum_version_id")
    fields: list[_Field] | None = Field(default=None, alias="Fields")
    subsections: list[_Described] = Field(default=[], alias="Subsections")

    def made(self, ignored: list[str]) -> Described:
        ignored += [f"{name} of description {self.name}" for name in self.strange()]
        fields = None if self.fields is None else tuple(one.made(ignored) for one in self.fields)
        subsections = tuple(one.made(ignored) for one in self.subsections)
        return Described(self.name, self.version, self.minimum, fields, subsections)


class _Entry(_Form):
    name: Name = Field(alias="Name")
    version: Version = Field(alias="version_id")
    minimum: Version = Field(alias="minimum_version_id")
    described: _Described | None = Field(default=None, alias="Description")

    def device(self, key: str) -> Device:
        ignored = [f"the entry's {name}" for name in self.strange()]
        described = self.described.made(ignored) if self.described is not None else None
        wrong = [f"the entry {key} calls itself {self.name}"] if self.name != key else []
        if described is not None and (described.version, described.minimum) != (self.version, self.minimum):
            outer, inner = (f"version {one.version} from {one.minimum} on" for one in (self, described))
            wrong.append(f"the entry says {outer}, its description {inner}")
        return Device(key, self.version, self.minimum, described, tuple(wrong), tuple(ignored))


_MACHINE = TypeAdapter(_Machine)
_ENTRIES = TypeAdapter(dict[Name, _Entry])


def _checked(form: TypeAdapter[T], value: object, place: tuple[str, ...], mistakes: list[str]) -> T | None:
    """The value in this form; None where it has mistakes, which are added to the list."""
    try:
        return form.validate_python(value)
    except ValidationError as error:
        mistakes += [_line(one, place) for one in error.errors(include_url=False)]
        return None


def _line(one: ErrorDetails, place: tuple[str, ...]) -> str:
    where = key_path((*place, *(part for part in one["loc"] if part != "[key]")))
    if one["type"] == "missing":
        return f"{where}: is required"
    value = one["input"]
    shown = "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else json.dumps(value)[:80]
    return f"{where}: {_WORDS.get(one['type'], one['msg'])} (is {shown})"


_WORDS = {  # for what pydantic says in Python's terms
    "string_pattern_mismatch": "a name is printable ASCII",
    "string_unicode": "a name is printable ASCII",
    "model_type": "should be an object",
    "dict_type": "should be an object",
    "list_type": "should be a list",
}
