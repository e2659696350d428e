"""What follows the UUID in a write to `create`: `version=2`, `version=2,rx-filter-size=64`, `rx-filter-size=0`; and a
model's other arguments, such as `aggregator=2`."""

from __future__ import annotations

import difflib

from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Parameter, Value
from mdevfs.migration.verdict import Reason, RefusedVerdict, Verdict

VERSION = "version"


def parse(text: str, model: DeviceModel | None) -> dict[str, Value]:
    """The parameter values that creation arguments ask for; order is free, `version` expands first, then the model's
    other arguments.

    Raises RefusedVerdict (EINVAL) with every reason.
    """
    if model is None:
        rule = "there is no device model here, so mdevs take no arguments"
        raise RefusedVerdict(Verdict.no([Reason("no-model", rule, source=text, side="source", mend="write the UUID")]))
    reasons: list[Reason] = []
    items = _items(text, reasons)
    values: dict[str, Value] = {}
    version = items.pop(VERSION, None)
    if version is not None and version not in model.versions:
        reasons.append(_unknown_version(version, model))
    elif version is not None:
        values |= model.expand(version)
    for name in model.arguments.keys() & items.keys():
        reasons += _expand(name, items.pop(name), values, model)
    for name, given in items.items():
        reasons += _take(model.parameters.get(name), name, given, values, model)
    if reasons := reasons or model.too_long(model.initial(values)):
        raise RefusedVerdict(Verdict.no(reasons))
    return values


def parameter_value(param: Parameter, text: str, held: str) -> Value | Reason:
    """The value that a text means for a parameter that now is `held`, or why it cannot have it."""
    mend = f"write {param.rule()}"
    try:
        value = param.parse(text)
    except ValueError as error:
        return Reason("value-malformed", str(error), param.name, text, held, side="source", mend=mend)
    if not param.allows(value):
        rule = f"the device allows {param.rule()}"
        return Reason("value-not-allowed", rule, param.name, text, held, side="source", mend=mend)
    return value


def _items(text: str, reasons: list[Reason]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if not equals or not name:
            rule = "an argument is of the form parameter=value" if item else "an argument is empty"
            reasons.append(Reason("argument-malformed", rule, source=item, side="source"))
        elif name in found:
            rule, first = "the parameter is given twice, and neither value is trusted", found[name]
            reasons.append(Reason("parameter-repeated", rule, name, value, first, side="source", mend="give it once"))
        else:
            found[name] = value
    return found


def _unknown_version(version: str, model: DeviceModel) -> Reason:
    rule = f"{model.name} has the versions {', '.join(model.versions) or 'none'}"
    return Reason("version-unknown", rule, VERSION, source=version, target=model.latest, side="source")


def _expand(name: str, text: str, values: dict[str, Value], model: DeviceModel) -> list[Reason]:
    texts = model.arguments[name]
    if text not in texts:
        rule = f"the type offers {', '.join(texts) or 'none'}"
        return [Reason("value-not-allowed", rule, name, source=text, side="source")]
    values |= texts[text]
    return []


def _take(param: Parameter | None, name: str, text: str, values: dict[str, Value], model: DeviceModel) -> list[Reason]:
    if param is None:
        near = difflib.get_close_matches(name, [*model.parameters, *model.arguments], 1)
        mend = f"did you mean {near[0]}?" if near else f"its parameters are {', '.join(model.parameters) or 'none'}"
        rule = f"{model.name} has no such parameter"
        return [Reason("parameter-unknown", rule, name, source=text, side="target", mend=mend)]
    value = parameter_value(param, text, param.format(param.init))
    if isinstance(value, Reason):
        return [value]
    values[name] = value
    return []
