"""Migration parameters: named, typed values that must match between source and target (VFIO Migration, RFC v3)."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Self

from attrs import evolve, field, frozen

Value = bool | int | str | frozenset[str]

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})\Z")
_SAFE = re.compile(r"[^A-Za-z0-9._:/@-]")
_ESCAPED = re.compile(r"%([0-9A-F]{2})")


def quote(text: str) -> str:
    """A value as it stands in a string: what is not plain becomes %XX of its UTF-8 bytes."""
    return _SAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


def unquote(text: str) -> str:
    """Undoes `quote`. Raises ValueError for anything that `quote` does not write."""
    if _SAFE.search(text) is None:
        return text
    raw = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    value = raw.encode("latin-1").decode("utf-8")
    if quote(value) != text:
        raise ValueError(f"{text!r} is not in its canonical form")
    return value


def name_mistake(name: str) -> str | None:
    """Why no parameter, and nothing beside one at creation, can be called that."""
    if not name or re.search(r"[=/,\s]", name) or not (name.isascii() and name.isprintable()):
        return f"name {name!r} is empty or holds '=', '/', ',', white space or no ASCII"
    if name in (".", "..", "version"):
        return f"name {name!r} is taken: it means a directory, or a version at creation"
    return None


@frozen
class Parameter:
    """What all kinds share. `off` is the value that means what the device did before the parameter existed; None: it
    cannot be switched off. `allowed` None: every value of its type.

    `state_only`: it touches nothing but the state's representation, so a target that has it on loads state without
    it, and it may change while the device is in use. `fixed`: it is given at creation, and later takes only the value
    that it has.
    `compat` is the compat property that sets it ("e1000.mitigation").
    """

    name: str
    init: Value
    off: Value | None = None
    allowed: Collection[Value] | None = None
    doc: str = ""
    state_only: bool = field(default=False, kw_only=True)
    fixed: bool = field(default=False, kw_only=True)
    compat: str | None = field(default=None, kw_only=True)
    type: str = field(init=False, default="str")

    def parse(self, text: str) -> Value:
        """The value that a string's text means. Raises ValueError."""
        return unquote(text)

    def format(self, value: Value) -> str:
        """The one way to write a value."""
        return quote(str(value))

    def holds(self, value: Value) -> bool:
        """Whether that is a value of its type at all."""
        return isinstance(value, str)

    def allows(self, value: Value) -> bool:
        """Whether this device can have that value."""
        return self.allowed is None or value in self.allowed

    def fixed_to(self, *values: Value) -> Self:
        """The parameter of a device that has one of these values, the first unless it is made otherwise."""
        only = evolve(self, init=values[0], off=None, allowed=self._only(values))
        return evolve(only, off=self.off) if self.off is not None and only.allows(self.off) else only

    def _only(self, values: Collection[Value]) -> Collection[Value]:
        return tuple(dict.fromkeys(values))

    def accepts(self, source: Value, target: Value) -> bool:
        """Whether state of a device with the value `source` loads where the value is `target`."""
        return source == target or (self.state_only and source == self.off)

    def info(self) -> dict[str, object]:
        """Its object in `migration_info.json` (RFC v3); all values are texts, as `migration/<name>` shows them."""
        found: dict[str, object] = {"type": self.type, "init_value": self.format(self.init)}
        if self.off is not None:
            found["off_value"] = self.format(self.off)
        if self.allowed is not None:
            found["allowed_values"] = self.allowed_texts()
        return found | {"description": self.doc}

    def allowed_texts(self) -> list[str]:
        """The allowed values as texts; a range of steps of 1 is `<min>-<max>`."""
        assert self.allowed is not None
        if isinstance(self.allowed, range) and self.allowed.step == 1 and self.allowed:
            return [f"{self.allowed[0]}-{self.allowed[-1]}"]
        return [self.format(value) for value in self.allowed]

    def rule(self) -> str:
        """What `allowed` says, in words."""
        if self.allowed is None:
            return f"any {self.type}"
        if not self.allowed:
            return "nothing"
        if isinstance(self.allowed, range):
            steps = f" in steps of {self.allowed.step}" if self.allowed.step != 1 else ""
            return f"{self.allowed[0]} to {self.allowed[-1]}{steps}"
        return ("only " if len(self.allowed) == 1 else "one of ") + ", ".join(map(self.format, self.allowed))

    def mistakes(self) -> list[str]:
        """What is impossible about it."""
        wrong = name_mistake(self.name)
        found = [f"parameter {wrong}"] if wrong else []
        for what, value in (("init", self.init), ("off", self.off)):
            if value is not None and (mistake := self.mistake(value)):
                found.append(f"{self.name}: {what} value {mistake}")
        return found

    def mistake(self, value: Value) -> str | None:
        """Why no device can have that value; None when one can."""
        if not self.holds(value):
            return f"{value!r} is no {self.type}"
        if not self.allows(value):
            return f"{value!r} is not allowed ({self.rule()})"
        try:
            kept = self.parse(self.format(value)) == value
        except ValueError:
            kept = False
        return None if kept else f"{value!r} cannot be written in a string"


@frozen
class Int(Parameter):
    """An integer; `allowed` is a range or a collection of numbers."""

    type: str = field(init=False, default="int")

    def holds(self, value: Value) -> bool:
        return type(value) is int  # not a bool

    def parse(self, text: str) -> Value:
        if not _INTEGER.match(text) or text == "-0":
            raise ValueError(f"{text!r} is not a decimal integer")
        return int(text)


@frozen
class Bool(Parameter):
    """`on` or `off`."""

    type: str = field(init=False, default="bool")

    def holds(self, value: Value) -> bool:
        return isinstance(value, bool)

    def parse(self, text: str) -> Value:
        if text not in ("on", "off"):
            raise ValueError(f"{text!r} is neither on nor off")
        return text == "on"

    def format(self, value: Value) -> str:
        return "on" if value else "off"


@frozen
class Str(Parameter):
    """A text without a newline."""


@frozen
class Set(Parameter):
    """A set of words, such as a crypto card's services: the target's must contain the source's."""

    type: str = field(init=False, default="set")

    def parse(self, text: str) -> Value:
        words = text.split("+") if text else []
        if words != sorted(set(words)) or "" in words:
            raise ValueError(f"{text!r} is not a sorted list of words joined by +")
        return frozenset(map(unquote, words))

    def format(self, value: Value) -> str:
        assert isinstance(value, frozenset)
        return "+".join(sorted(map(quote, value)))

    def holds(self, value: Value) -> bool:
        return isinstance(value, frozenset) and all(isinstance(word, str) for word in value)

    def rule(self) -> str:
        return f"words of {', '.join(quote(str(word)) for word in self.allowed)}" if self.allowed else super().rule()

    def allows(self, value: Value) -> bool:
        return self.allowed is None or (isinstance(value, frozenset) and value <= set(self.allowed))

    def allowed_texts(self) -> list[str]:
        """The words, of which any set is allowed."""
        return sorted(quote(str(word)) for word in self.allowed or ())

    def _only(self, values: Collection[Value]) -> Collection[Value]:
        return tuple(sorted({word for value in values if isinstance(value, frozenset) for word in value}))

    def accepts(self, source: Value, target: Value) -> bool:
        assert isinstance(source, frozenset) and isinstance(target, frozenset)
        return source <= target or super().accepts(source, target)
