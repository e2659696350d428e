"""The kinds of fields that a VMState description is made of, in QEMU's encodings (include/migration/vmstate.h, 7.2).

Numbers are big-endian on the wire unless the description is `bare` and says otherwise. The name of a kind in the
stream's JSON is QEMU's: "uint32", "bool", "buffer", "pci config".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, ClassVar

from attrs import field, frozen

from mdevfs.state.memory import Memory, zeros
from mdevfs.state.pull import Pull, Reading
from mdevfs.state.refusal import BadState
from mdevfs.state.view import Step, View, get, make, put, steps

Predicate = Callable[[View], bool]
Count = int | str | Callable[[View], int]
Chunk = bytes | memoryview

ZEROS = memoryview(bytes(64 << 10))
MAX_SIZE = 1 << 40  # of one field: what is larger is a mistake


@frozen
class ParameterOn:
    """The condition "while this migration parameter is not off" (False, 0, empty)."""

    name: str

    def __call__(self, view: View) -> bool:
        return bool(view.values[self.name])

    def __str__(self) -> str:
        return f"while `{self.name}` is not off"


@frozen
class When:
    """A condition and the words that documents have for it: `When("in sections of version 1", lambda view: ...)`."""

    words: str
    function: Predicate

    def __call__(self, view: View) -> bool:
        return bool(self.function(view))

    def __str__(self) -> str:
        return self.words


def predicate(of: str | Predicate | None) -> Predicate | None:
    """A condition as a function; a name is a migration parameter's that is not off."""
    return ParameterOn(of) if isinstance(of, str) else of


@frozen(eq=False)
class Field:
    """One field, or an array of `num` elements; in the state it is what `path` names (`name`, unless it is given).

    `num` is a number, or what says it: a migration parameter's name, or a function of the View; it may be 0 then.
    `at`: the first element, where the field is a part of the list at `path`. `since`: it is there in sections of this
    version and newer. `when`: it is there only then: a migration parameter's name, or a function of the View (QEMU's
    field_exists). `doc` says what it means. `reset` is the value of a device that nobody has touched; `fixed`: nothing
    changes it later, it is a constant or what the device was made with.
    """

    name: str
    num: Count | None = field(default=None, kw_only=True)
    path: str | None = field(default=None, kw_only=True)
    at: int | None = field(default=None, kw_only=True)
    since: int = field(default=0, kw_only=True)
    when: Predicate | None = field(default=None, kw_only=True, converter=predicate)
    reset: Any = field(default=None, kw_only=True)
    fixed: bool = field(default=False, kw_only=True)
    doc: str = field(default="", kw_only=True)
    steps: tuple[Step, ...] = field(init=False, default=())

    type: ClassVar[str] = ""

    def __attrs_post_init__(self) -> None:
        path = steps(self.path if self.path is not None else self.name)
        if self.at is not None and self.num is None:
            path = (*path, self.at)
        object.__setattr__(self, "steps", path)

    def present(self, view: View) -> bool:
        """Whether it is in a section of the view's version."""
        return self.since <= view.version and (self.when is None or bool(self.when(view)))

    def count(self, view: View) -> int:
        """How many elements it has; 1 where it is no array."""
        if self.num is None:
            return 1
        if isinstance(self.num, int):
            return self.num
        found = view.values[self.num] if isinstance(self.num, str) else self.num(view)
        if not isinstance(found, int) or found < 0:
            raise ValueError(f"{self.name}: an array of {found!r} elements")
        return found

    def held(self, view: View) -> Any:
        """What the state holds of it; of an array all elements, of a part of a list only those."""
        value = get(view.state, self.steps)
        first = self.at or 0
        return value[first : first + self.count(view)] if self.num is not None else value

    @property
    def kind(self) -> str:
        """The type that the stream's JSON gives."""
        return self.type

    @property
    def size(self) -> int:
        """Bytes of one element on the wire; -1 where that depends on the state."""
        raise NotImplementedError

    def mistakes(self) -> list[str]:
        """What is impossible about it."""
        found = [] if self.name else ["a field has no name"]
        if isinstance(self.num, int) and self.num < 1:
            found.append(f"{self.name}: an array of {self.num} elements")
        if self.size > MAX_SIZE:
            found.append(f"{self.name}: {self.size} bytes are too many")
        return found

    def write(self, view: View, order: str) -> list[Chunk]:
        """Its bytes; large ones are views of the state itself, which must stand still until they are used."""
        raise NotImplementedError

    def read(self, view: View, pull: Pull, order: str) -> Reading[None]:
        """Takes its bytes and sets the state. Raises BadState, without the names that only the caller knows."""
        raise NotImplementedError

    def init(self, view: View) -> None:
        """Makes its place in a new state, with its reset value."""
        if self.at is None:
            make(view.state, self.steps, self.initial(view))

    def initial(self, view: View) -> object:
        """The value of a device that nobody has touched."""
        raise NotImplementedError


@frozen(eq=False)
class Number(Field):
    """Integers of one size. `equal`: the loading device must hold the same; `le`: what comes is from 0 to what it
    holds (QEMU's VMSTATE_*_EQUAL and VMSTATE_INT32_POSITIVE_LE); both compare with the state before the load."""

    equal: bool = field(default=False, kw_only=True)
    le: bool = field(default=False, kw_only=True)

    code: ClassVar[str] = "I"
    untouched: ClassVar[int] = 0

    @property
    def kind(self) -> str:
        return self.type + (" equal" if self.equal else " le" if self.le else "")

    @property
    def size(self) -> int:
        return struct.calcsize("=" + self.code)

    def write(self, view: View, order: str) -> list[Chunk]:
        value = self.held(view)
        if self.num is None:
            return [struct.pack(order + self.code, value)]
        return [struct.pack(f"{order}{self.count(view)}{self.code}", *value)]

    def read(self, view: View, pull: Pull, order: str) -> Reading[None]:
        if self.num is None:
            raw = yield from pull.take(self.size)
            (value,) = struct.unpack(order + self.code, raw)
            self._compare(view, value)
            put(view.state, self.steps, value)
            return
        first, count = self.at or 0, self.count(view)
        buffer = bytearray(count * self.size)
        yield from pull.fill(buffer)
        get(view.state, self.steps)[first : first + count] = struct.unpack(f"{order}{count}{self.code}", buffer)

    def _compare(self, view: View, value: int) -> None:
        if not (self.equal or self.le):
            return
        held = get(view.state, self.steps)
        if self.equal and value != held:
            raise BadState("field-differs", rule="the values must be equal", source=str(value), target=str(held))
        if self.le and not 0 <= value <= held:
            rule = "the value must be from 0 to the target's"
            raise BadState("field-differs", rule=rule, source=str(value), target=str(held))

    def initial(self, view: View) -> object:
        value = self.reset if self.reset is not None else self.untouched
        if isinstance(value, list):
            return value.copy()
        return value if self.num is None else [value] * self.count(view)


class U8(Number):
    """An unsigned byte."""

    type = "uint8"
    code = "B"


class U16(Number):
    """An unsigned number of 16 bits."""

    type = "uint16"
    code = "H"


class U32(Number):
    """An unsigned number of 32 bits."""

    type = "uint32"
    code = "I"


class U64(Number):
    """An unsigned number of 64 bits."""

    type = "uint64"
    code = "Q"


class S8(Number):
    """A signed byte."""

    type = "int8"
    code = "b"


class S16(Number):
    """A signed number of 16 bits."""

    type = "int16"
    code = "h"


class S32(Number):
    """A signed number of 32 bits."""

    type = "int32"
    code = "i"


class S64(Number):
    """A signed number of 64 bits."""

    type = "int64"
    code = "q"


class Timer(Number):
    """When a timer fires, in nanoseconds; -1: it is off."""

    type = "timer"
    code = "q"
    untouched = -1


class Flag(Number):
    """True or False in one byte (QEMU's "bool")."""

    type = "bool"
    code = "?"
    untouched = False


@frozen(eq=False)
class Bytes(Field):
    """Raw bytes, as many as `length` says; a bytearray in the state (a large one: Memory), and never copied."""

    length: int = 0

    type: ClassVar[str] = "buffer"

    @property
    def size(self) -> int:
        return self.length

    def mistakes(self) -> list[str]:
        wrong = [f"{self.name}: {self.length} bytes"] if self.length < 1 else []
        return super().mistakes() + wrong + ([f"{self.name}: bytes are no array"] if self.num is not None else [])

    def write(self, view: View, order: str) -> list[Chunk]:
        value = get(view.state, self.steps)
        if len(value) != self.length:
            raise ValueError(f"{self.name} holds {len(value)} bytes, its description says {self.length}")
        return [memoryview(value)]

    def read(self, view: View, pull: Pull, order: str) -> Reading[None]:
        value = get(view.state, self.steps)
        if not isinstance(value, bytearray | Memory) or len(value) != self.length:
            value = zeros(self.length)
            put(view.state, self.steps, value)
        yield from pull.fill(value)

    def initial(self, view: View) -> object:
        return bytearray(self.reset) if self.reset is not None else zeros(self.length)


@frozen(eq=False)
class SizedBytes(Field):
    """Raw bytes, as many as the field at the path `length` says, which comes before it; at most `most`."""

    length: str = ""
    most: int = 0

    type: ClassVar[str] = "buffer"

    @property
    def size(self) -> int:
        return -1

    def mistakes(self) -> list[str]:
        wrong = [] if self.length and self.most > 0 else [f"{self.name}: its length's field and its bound are needed"]
        return super().mistakes() + wrong

    def _length(self, view: View) -> int:
        return int(get(view.state, steps(self.length)))

    def write(self, view: View, order: str) -> list[Chunk]:
        value = get(view.state, self.steps)
        if len(value) != self._length(view):
            raise ValueError(f"{self.name} holds {len(value)} bytes, {self.length} says {self._length(view)}")
        return [memoryview(value)]

    def read(self, view: View, pull: Pull, order: str) -> Reading[None]:
        length = self._length(view)
        if not 0 <= length <= self.most:
            rule = f"its length, {self.length}, is out of bounds"
            raise BadState("field-out-of-bounds", rule=rule, source=str(length), target=f"0 to {self.most}")
        value = bytearray(length)
        yield from pull.fill(value)
        put(view.state, self.steps, value)

    def initial(self, view: View) -> object:
        return bytearray(self.reset or b"")


@frozen(eq=False)
class Bitmap(Field):
    """A set of bits, in words of 64 on the wire; an int in the state."""

    bits: int = 64

    type: ClassVar[str] = "bitmap"

    @property
    def size(self) -> int:
        return 8 * self._words

    @property
    def _words(self) -> int:
        return -(-self.bits // 64)

    def write(self, view: View, order: str) -> list[Chunk]:
        value = int(get(view.state, self.steps))
        words = [(value >> (64 * index)) & (2**64 - 1) for index in range(self._words)]
        return [struct.pack(f"{order}{len(words)}Q", *words)]

    def read(self, view: View, pull: Pull, order: str) -> Reading[None]:
        raw = yield from pull.take(self.size)
        words = struct.unpack(f"{order}{self._words}Q", raw)
        value = sum(word << (64 * index) for index, word in enumerate(words))
        if value >> self.bits:
            rule = f"bits are set beyond the {self.bits} that there are"
            raise BadState("field-out-of-bounds", rule=rule, source=hex(value), target=f"{self.bits} bits")
        put(view.state, self.steps, value)

    def initial(self, view: View) -> object:
        return self.reset or 0


@frozen(eq=False)
class Unused(Field):
    """Bytes that once meant something: zeros when saved, passed over when loaded."""

    name: str = field(default="unused", init=False)
    length: int = 0

    type: ClassVar[str] = "unused_buffer"

    @property
    def size(self) -> int:
        return self.length

    def write(self, view: View, order: str) -> list[Chunk]:
        whole, rest = divmod(self.length, len(ZEROS))
        return [*[ZEROS] * whole, ZEROS[:rest]]

    def read(self, view: View, pull: Pull, order: str) -> Reading[None]:
        yield from pull.skip(self.length)

    def init(self, view: View) -> None:
        """It has no place in the state."""
