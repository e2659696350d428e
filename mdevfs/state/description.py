"""VMState descriptions: what a device's state is made of, declared once, for saving, loading and explaining it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from attrs import field, frozen

from mdevfs.errors import InputError
from mdevfs.state.fields import Chunk, Field, Predicate, predicate
from mdevfs.state.pull import Pull, Reading
from mdevfs.state.view import Registers, View, make

MAX_NAME = 127  # bytes: QEMU's analyzer reads the length as a signed byte
MAX_DEPTH = 16


@frozen(eq=False)
class VMState:
    """The description of one device's state, of a struct in it, or of a subsection (QEMU's VMStateDescription).

    `minimum`: the oldest version that is loaded; `version` itself unless it is given. `first`: the version that the
    driver began to migrate with, which a source means whose string says none. A subsection's name begins with
    its parent's; it is sent while `needed` (a migration parameter's name, or a function of the View) says so.
    `before_save` and `after_load` are functions of the View; the latter may raise Refused.
    `blocked`: versions that load but are known to be wrong, each with the reason; an administrator may allow them.
    `bare`: the device state is this description's bytes alone, in the byte order that it names ("<" or ">"), as a
    kernel driver's is; without it they are a section of a stream. `initial`: how many bytes of bare state are sent
    before the device stops (PRE_COPY). Raises InputError with every mistake.
    """

    name: str
    version: int = 1
    minimum: int = field(default=-1)
    first: int = field(default=1, kw_only=True)
    fields: Sequence[Field] = field(default=(), kw_only=True)
    subsections: Sequence[VMState] = field(default=(), kw_only=True)
    needed: Predicate | None = field(default=None, kw_only=True, converter=predicate)
    before_save: Callable[[View], None] | None = field(default=None, kw_only=True)
    after_load: Callable[[View], None] | None = field(default=None, kw_only=True)
    blocked: Mapping[int, str] = field(factory=dict, kw_only=True)
    bare: str = field(default="", kw_only=True)
    initial: int = field(default=0, kw_only=True)
    doc: str = field(default="", kw_only=True)
    by_name: dict[str, VMState] = field(init=False, factory=dict)
    numbered: list[tuple[Field, int]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        if self.minimum < 0:
            object.__setattr__(self, "minimum", self.version)
        self.by_name.update({one.name: one for one in self.subsections})
        names = [one.name for one in self.fields]
        many = {name for name in names if names.count(name) > 1}
        for at, one in enumerate(self.fields):
            self.numbered.append((one, names[:at].count(one.name) if one.name in many else -1))
        if found := self.mistakes():
            raise InputError(f"VMState {self.name!r}: {mistake}" for mistake in found)

    def mistakes(self) -> list[str]:
        """What is impossible about it; structs and subsections have said theirs when they were made."""
        found = (
            [] if 0 < len(self.name.encode()) <= MAX_NAME and self.name.isprintable() else ["its name is impossible"]
        )
        if not 0 <= self.minimum <= self.version < 2**31:
            found.append(f"minimum {self.minimum} and version {self.version} are not 0 <= minimum <= version")
        for one in self.fields:
            found += one.mistakes()
            if one.since > self.version:
                found.append(f"{one.name}: it is there since version {one.since}, which is newer than {self.version}")
        for sub in self.subsections:
            if not sub.name.startswith(self.name) or sub.name == self.name:
                found.append(f"subsection {sub.name}: its name does not begin with {self.name}")
            if sub.needed is None:
                found.append(f"subsection {sub.name}: nothing says when it is needed")
        if len(self.by_name) < len(self.subsections):
            found.append("two subsections have one name")
        if not 0 <= self.first <= self.version:
            found.append(f"first version {self.first} is newer than {self.version}")
        found += [f"blocked version {one} is none of its versions" for one in self.blocked if not self.takes(one)]
        if self.bare and (self.subsections or self.bare not in "<>"):
            found.append("bare state is of one byte order, < or >, and has no subsections")
        return found

    def takes(self, version: int) -> bool:
        """Whether sections of that version are loaded, as far as the description goes."""
        return self.minimum <= version <= self.version

    def fresh(self, values: Mapping[str, object] | None = None) -> Registers:
        """The state of a device with these migration parameters that nobody has touched: every field's reset value."""
        view = View(Registers(), values or {}, self.version)
        self.init(view)
        assert isinstance(view.state, Registers)
        return view.state

    def init(self, view: View) -> None:
        """Gives a new state the places that the fields and the subsections want."""
        for one in self.fields:
            one.init(view)
        for sub in self.subsections:
            sub.init(view)

    def saved(self, view: View) -> list[tuple[Field, int]]:
        """The fields of a section of the view's version, each with its number among those of its name; -1: it is
        alone. The stream's JSON counts so, the absent ones too."""
        return [(one, index) for one, index in self.numbered if one.present(view)]

    @property
    def varies(self) -> bool:
        """Whether two of its kind can differ in shape: a condition or a subsection (QEMU does not merge those)."""
        return bool(self.subsections) or any(
            one.when is not None
            or not isinstance(one.num, int | None)
            or (one.of.varies if isinstance(one, Struct) else one.size < 0)
            for one in self.fields
        )


@frozen(eq=False)
class Struct(Field):
    """A struct with a description of its own, or an array of them; no header on the wire. A path of "." means the
    state itself: fields that are only grouped."""

    of: VMState = field(kw_only=True)

    type: ClassVar[str] = "struct"

    @property
    def size(self) -> int:
        return -1

    def mistakes(self) -> list[str]:
        return super().mistakes() + ([f"{self.name}: bare state inside a struct"] if self.of.bare else [])

    def elements(self, view: View) -> list[View]:
        """A view of each element; of the one where it is no array."""
        value = self.held(view)
        return [view.inside(one, self.of.version) for one in ([value] if self.num is None else value)]

    def write(self, view: View, order: str) -> list[Chunk]:
        raise NotImplementedError("mdevfs.state.body writes structs, as it describes them too")

    def read(self, view: View, pull: Pull, order: str) -> Reading[None]:
        raise NotImplementedError("mdevfs.state.body reads structs, as it names what is wrong in them")

    def init(self, view: View) -> None:
        if not self.steps:
            self.of.init(view)
        elif self.num is None:
            # The path may be there already: two structs may share it.
            found = view.state
            for step in self.steps:
                found = getattr(found, str(step), None)
            make(view.state, self.steps, self._made(view, found if found is not None else Registers()))
        elif self.at is None:
            make(view.state, self.steps, [self._made(view, Registers()) for _ in range(self.count(view))])

    def _made(self, view: View, state: object) -> object:
        self.of.init(view.inside(state, self.of.version))
        return state
