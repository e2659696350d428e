"""Device models: hardware interface, device state representation and migration parameters under one name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, field, frozen

from mdevfs.errors import InputError
from mdevfs.migration.parameters import Parameter, Value, name_mistake
from mdevfs.migration.verdict import YES, Reason, Verdict

MAX_STRING = 4094  # characters, besides the newline: a page with both and C's final NUL
_NAME = re.compile(r"[A-Za-z0-9.-]+(/[A-Za-z0-9._:-]+)+\Z")

Values = Mapping[str, Value]
Arguments = Mapping[str, Mapping[str, Values]]  # name -> text -> the parameter values that it stands for


@frozen(eq=False)
class DeviceModel:
    """A model such as `vendor-a.com/my-nic`; `versions` name sets of parameter values, the last is the latest.

    `arguments` are others than parameters that `create` takes; as a version, each of their texts stands for parameter
    values, and is not compared itself. Raises InputError with every mistake of an impossible model.
    """

    name: str
    params: Sequence[Parameter] = ()
    versions: Mapping[str, Values] = field(factory=dict)
    arguments: Arguments = field(factory=dict)
    parameters: dict[str, Parameter] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "parameters", {param.name: param for param in self.params})
        if found := self._mistakes():
            raise InputError(f"device model {self.name!r}: {mistake}" for mistake in found)

    def _mistakes(self) -> list[str]:
        found = [] if _NAME.match(self.name) else ["its name is not a domain name and a path (vendor-a.com/my-nic)"]
        names = [param.name for param in self.params]
        found += [f"two parameters are called {name}" for name in sorted({n for n in names if names.count(n) > 1})]
        for param in self.params:
            found += param.mistakes()
        for version, values in self.versions.items():
            found += [f"version {version} {mistake}" for mistake in self.mistakes_of(values)]
        for name, texts in self.arguments.items():
            if wrong := name_mistake(name):
                found.append(f"argument {wrong}")
            elif name in names:
                found.append(f"argument {name} has a parameter's name")
            for text, values in texts.items():
                found += [f"argument {name}={text} {mistake}" for mistake in self.mistakes_of(values)]
        return found or [reason.rule for reason in self.too_long(self.initial())]

    def mistakes_of(self, values: Values) -> list[str]:
        """Why no device of this model can be made with these values; each goes on after what gives them."""
        found = []
        for name, value in values.items():
            known = self.parameters.get(name)
            if known is None:
                near = difflib.get_close_matches(name, self.parameters, 1)
                hint = f", did you mean {near[0]}?" if near else ""
                found.append(f"names the unknown parameter {name}{hint}")
            elif mistake := known.mistake(value):
                found.append(f"gives {name} the value {mistake}")
        return found

    def initial(self, changes: Values | None = None) -> dict[str, Value]:
        """Every parameter's value in a device that was made with nothing but `changes`."""
        return {param.name: param.init for param in self.params} | dict(changes or {})

    @property
    def latest(self) -> str | None:
        """The last version that is declared."""
        return next(reversed(list(self.versions)), None)

    def expand(self, version: str) -> dict[str, Value]:
        """A version's parameter list: what it names, and every other parameter off where it can be."""
        rest = {param.name: param.off for param in self.params if param.off is not None}
        return rest | dict(self.versions[version])

    def made_with(self, values: Values, fixed: Values, arguments: Arguments | None = None) -> DeviceModel:
        """What a type offers of the model: devices are made with `values`, and have `fixed` for good, or what one of
        the type's `arguments` gives instead.

        Raises InputError for values that no device of the model has.
        """
        own = arguments or {}
        given = [named for texts in own.values() for named in texts.values()]
        if wrong := [mistake for named in (values, *given) for mistake in self.mistakes_of(named)]:
            raise InputError(f"a device of model {self.name} {mistake}" for mistake in wrong)
        params = [
            param.fixed_to(fixed[param.name], *(named[param.name] for named in given if param.name in named))
            if param.name in fixed
            else evolve(param, init=values.get(param.name, param.init))
            for param in self.params
        ]
        allows = {param.name: param.allows for param in params}

        def fits(named: Values) -> bool:
            return all(allows[name](value) for name, value in named.items())

        versions = {name: named for name, named in self.versions.items() if fits(self.expand(name))}
        others = {
            name: {text: one for text, one in texts.items() if fits(one)} for name, texts in self.arguments.items()
        }
        return DeviceModel(self.name, params, versions, {**others, **own})

    def info(self) -> dict[str, object]:
        """Its object in `migration_info.json` (RFC v3), and its versions and arguments beside `params`."""
        found: dict[str, object] = {"params": {param.name: param.info() for param in self.params}}
        if self.versions:
            found |= {"versions": self.written(self.versions), "latest": self.latest}
        if self.arguments:
            found["arguments"] = {name: self.written(texts) for name, texts in self.arguments.items()}
        return found

    def written(self, named: Mapping[str, Values]) -> dict[str, dict[str, str]]:
        """Named sets of values as texts."""
        return {
            text: {name: self.parameters[name].format(value) for name, value in values.items()}
            for text, values in named.items()
        }

    def write(self, values: Values) -> str:
        """The migration_version string: the model's name, then every parameter that is not off, by name."""
        return ",".join([self.name, *sorted(self._items(values))])

    def _items(self, values: Values) -> Iterator[str]:
        on = (p for p in self.params if p.off is None or values[p.name] != p.off)
        return (f"{p.name}={p.format(values[p.name])}" for p in on)

    def too_long(self, values: Values) -> list[Reason]:
        """Why there is no device with these values: its string would be longer than anybody reads."""
        if (length := len(self.name) + sum(len(item) + 1 for item in self._items(values))) <= MAX_STRING:
            return []
        rule = f"the device's string would have {length} characters, at most {MAX_STRING} are allowed"
        return [Reason("string-too-long", rule, side="source", mend="give shorter values")]

    def check(self, values: Values, source: str) -> Verdict:
        """Whether state of a device that says `source` loads into one with these values; every reason if not."""
        name, *items = source.split(",")
        if name != self.name:
            return Verdict.no([self._other_model(name)])
        reasons = self._compare(values, items)
        return Verdict.no(reasons) if reasons else YES

    def _other_model(self, name: str) -> Reason:
        if not _NAME.match(name):
            return Reason(
                "string-malformed",
                "the string does not begin with a device model's name",
                source=name,
                target=self.name,
                side="source",
                mend="write what the source's migration_version reads",
            )
        return Reason(
            "model-differs",
            "the device models differ",
            source=name,
            target=self.name,
            mend=f"choose a target of the model {name}",
        )

    def _compare(self, values: Values, items: Sequence[str]) -> list[Reason]:
        reasons: list[Reason] = []
        seen: set[str] = set()
        repeated: set[str] = set()
        for item in items:
            name, equals, text = item.partition("=")
            if not equals or not name:
                rule = f"{item!r} is not of the form parameter=value"
                reasons.append(Reason("string-malformed", rule, source=item, side="source"))
            elif name in repeated:
                continue
            elif name in seen:
                repeated.add(name)
                rule = "the string gives this parameter twice"
                reasons.append(Reason("parameter-repeated", rule, name, source=text, side="source"))
            else:
                seen.add(name)
                reasons += self._compare_one(name, text, values)
        return reasons + [self._missing(p, values) for p in self.params if self._needs(p, values, seen)]

    def _compare_one(self, name: str, text: str, values: Values) -> list[Reason]:
        param = self.parameters.get(name)
        if param is None:
            rule = "the target's device model has no such parameter"
            mend = f"switch {name} off at the source, or choose a newer target"
            return [Reason("parameter-unknown", rule, name, source=text, side="target", mend=mend)]
        target = param.format(values[name])
        if text == target:
            return []
        try:
            value = param.parse(text)
        except ValueError as error:
            return [Reason("value-malformed", str(error), name, text, target, side="source")]
        if not param.allows(value):
            rule = f"the target allows {param.rule()}"
            return [Reason("value-not-allowed", rule, name, text, target, side="target")]
        if not param.accepts(value, values[name]):
            return [self._differs(param, text, target)]
        return []

    @staticmethod
    def _differs(param: Parameter, source: str, target: str) -> Reason:
        rule = "the target's set must contain the source's" if param.type == "set" else "the values must be equal"
        mend = f"make or choose a target with {param.name}={source}"
        return Reason("value-differs", rule, param.name, source, target, side="target", mend=mend)

    @staticmethod
    def _needs(param: Parameter, values: Values, seen: set[str]) -> bool:
        if param.name in seen:
            return False
        return param.off is None or not param.accepts(param.off, values[param.name])

    def _missing(self, param: Parameter, values: Values) -> Reason:
        target = param.format(values[param.name])
        if param.off is not None:
            return self._differs(param, param.format(param.off), target)
        rule = "the source does not say it, and it has no off value"
        return Reason("parameter-missing", rule, param.name, target=target, side="source")
