"""`mdevfs driver list|info|test`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdevfs.cli import driver_agreement
from mdevfs.cli.drivers import find
from mdevfs.cli.output import Json, print_block, print_json
from mdevfs.cli.table import print_table

if TYPE_CHECKING:
    from mdevfs.mdev.types import MdevType
    from mdevfs.migration.model import DeviceModel, Values
    from mdevfs.migration.parameters import Parameter
    from mdevfs.vendor.api import VendorDriver
    from mdevfs.vendor.loader import Found

_OWNERS = {"mdev": "an mdev", "type": "a type", "parent": "a parent"}
app = typer.Typer(add_completion=False, help="List and describe vendor drivers.", epilog="Example: mdevfs driver list")


app.command("test", epilog=driver_agreement.EXAMPLE)(driver_agreement.test)


@app.command("list", epilog="Example: mdevfs driver list")
def list_(json: Json = False) -> None:
    """List the installed vendor drivers.

    One that does not load is left out with a warning.
    """
    from mdevfs.vendor.loader import all_installed

    drivers = [_summary(found) for found in all_installed()]
    if json:
        print_json({"schema": 1, "drivers": drivers})
    else:
        print_table((one["name"], one["bus"], one["origin"], one["description"]) for one in drivers)


@app.command(epilog="Example: mdevfs driver info i915")
def info(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A vendor driver; mdevfs driver list shows them.")],
    json: Json = False,
) -> None:
    """Describe a vendor driver.

    Its types, attributes, settings, device model, machine types and promises, broken releases, and the codes that it
    refuses with.
    """
    found = find(name)
    description = describe(found)
    if json:
        print_json({"schema": 1, **description})
    else:
        _print(description)


# -- what a driver declares, as JSON


def describe(found: Found) -> dict[str, Any]:
    """All that a driver declares. `types` is None where they depend on the device's settings."""
    driver = found.driver
    return {
        **_summary(found),
        "types": None if callable(driver.types) else [_type(driver, spec) for spec in driver.types],
        "attributes": _attributes(driver),
        "settings": settings_schema(driver),
        "model": _model(driver.model) if driver.model is not None else None,
        **_promises(driver),
        "codes": {page.code: page.title for page in driver.pages},
    }


def _summary(found: Found) -> dict[str, str]:
    driver = found.driver
    first_line = (driver.__doc__ or "").strip().partition("\n")[0]
    return {"name": driver.name, "bus": driver.bus, "origin": found.origin, "description": first_line}


def settings_schema(driver: type[VendorDriver], references: str = "#/$defs/{model}") -> dict[str, Any]:
    """The JSON schema of `settings = {...}`; any table where the driver's model has none."""
    from pydantic.errors import PydanticUserError

    try:
        return driver.Settings.model_json_schema(ref_template=references)
    except PydanticUserError:
        return {"type": "object"}


def _type(driver: type[VendorDriver], spec: MdevType) -> dict[str, Any]:
    return {
        "type": f"{driver.name}-{spec.suffix}",
        "name": spec.name,
        "device_api": spec.device_api,
        "description": spec.description,
        "parameters": _plain(spec.params),
        "arguments": {
            name: {text: _plain(values) for text, values in texts.items()} for name, texts in spec.arguments.items()
        },
    }


def _attributes(driver: type[VendorDriver]) -> list[dict[str, str]]:
    from attrs import asdict

    from mdevfs.vendor.attributes import declared

    return [asdict(one) for one in declared(driver)]


def _model(model: DeviceModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "parameters": [_parameter(one) for one in model.params],
        "versions": model.written(model.versions),
        "arguments": {name: model.written(texts) for name, texts in model.arguments.items()},
    }


def _parameter(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "type": one.type,
        "init": one.format(one.init),
        "off": None if one.off is None else one.format(one.off),
        "allowed": one.rule(),
        "doc": one.doc,
        "state_only": one.state_only,
        "fixed": one.fixed,
        "compat": one.compat,
    }


def _promises(driver: type[VendorDriver]) -> dict[str, Any]:
    """What it promises for each machine type, the strictest of that, and the releases that break the promise."""
    from attrs import asdict

    from mdevfs.migration.machine import strictest
    from mdevfs.vendor.guard import GuardedDriver

    hooks = GuardedDriver(driver())
    tiers = {name: hooks.tier(name) for name in hooks.known_machines}
    strict = strictest(tiers.values())
    return {
        "machine_types": [
            {"name": name, **asdict(tier), "compat": dict(driver.machine_types.get(name, {}))}
            for name, tier in tiers.items()
        ],
        "tier": strict.promise if strict is not None else None,
        "broken": [asdict(one) for one in driver.broken],
    }


def _plain(values: Values) -> dict[str, object]:
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}


# -- the same for people


def _print(driver: dict[str, Any]) -> None:
    print(f"{driver['name']}: {driver['description']}")
    print(f"bus {driver['bus']}, from {driver['origin']}")
    print("\nTypes:")
    _rows(_type_rows(driver["types"]), "depend on the settings of each device")
    if attributes := driver["attributes"]:
        print("\nAttributes of its own:")
        _rows(map(_attribute_row, attributes), "")
    print("\nSettings in host.toml:")
    _rows(_settings_rows(driver["settings"]), "none")
    if model := driver["model"]:
        _print_model(model)
    if driver["machine_types"]:
        _print_machines(driver)
    if broken := driver["broken"]:
        print_block("\nBroken releases", "\n".join(map(_broken_line, broken)))
    if codes := driver["codes"]:
        print("\nCodes of its own (mdevfs explain CODE):")
        _rows(codes.items(), "")


def _rows(rows: Any, otherwise: str) -> None:
    table = list(rows)
    if table:
        print_table(table, "    ")
    else:
        print(f"    {otherwise}")


def _type_rows(types: list[dict[str, Any]] | None) -> Iterator[tuple[str, str, str]]:
    for one in types or []:
        yield one["type"], one["device_api"], one["name"] or one["description"] or ""


def _attribute_row(one: dict[str, str]) -> tuple[str, str, str, str]:
    since = f"(since kernel {one['since']})" if one["since"] != "0.0" else ""
    return one["path"], f"of {_OWNERS[one['of']]}", one["access"], " ".join(filter(None, (one["doc"], since)))


def _settings_rows(schema: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", [])
    for name, value in schema.get("properties", {}).items():
        default = "required" if name in required else f"default {value['default']!r}" if "default" in value else ""
        yield name, _kind(value), default, value.get("description", "")


def _kind(value: dict[str, Any]) -> str:
    """A JSON schema's type in a few words."""
    if "enum" in value:
        return "one of " + ", ".join(map(str, value["enum"]))
    kind = str(value.get("type", "value"))
    low, high = value.get("minimum"), value.get("maximum")
    return f"{kind}, {low} to {high}" if low is not None and high is not None else kind


def _print_model(model: dict[str, Any]) -> None:
    print(f"\nDevice model {model['name']}, its migration parameters:")
    _rows(map(_parameter_row, model["parameters"]), "none")
    if versions := model["versions"]:
        print_block("\nVersions", _named(versions, "all off"))
    for name, texts in model["arguments"].items():
        print_block(f"\nArgument {name}", _named(texts, "nothing"))


def _named(named: dict[str, dict[str, str]], nothing: str) -> str:
    """Named sets of parameter values, a line each."""
    return "\n".join(
        f"{text}: {', '.join(f'{name}={value}' for name, value in values.items()) or nothing}"
        for text, values in named.items()
    )


def _parameter_row(one: dict[str, Any]) -> tuple[str, str, str, str, str]:
    off = "cannot be off" if one["off"] is None else f"off {one['off']}"
    flags = ["state only"] * one["state_only"] + ["fixed at creation"] * one["fixed"]
    notes = ", ".join([*flags, *([f"compat property {one['compat']}"] if one["compat"] else [])])
    doc = f"{one['doc']} ({notes})" if notes else one["doc"]
    return one["name"], f"{one['type']}, {one['allowed']}", f"init {one['init']}", off, doc


def _print_machines(driver: dict[str, Any]) -> None:
    from mdevfs.migration.machine import PROMISES

    machines = driver["machine_types"]
    own = {one["compat"] for one in driver["model"]["parameters"]} if driver["model"] else set()
    alike = [(key, [one["name"] for one in same]) for key, same in groupby(machines, lambda one: _promise(one, own))]
    print("\nMachine types, what is promised, and the compat properties that they set of its parameters:")
    print_table(((_span(names), promise, what) for (promise, what), names in alike), "    ")
    print(f"    of all, the strictest: {driver['tier']}")
    promises = {one["promise"] for one in machines}
    print_table(((name, what) for name, what in PROMISES.items() if name in promises), "      ")


def _promise(one: dict[str, Any], own: set[str]) -> tuple[str, str]:
    properties = ", ".join(f"{name}={value}" for name, value in one["compat"].items() if name in own)
    blocker = f"blocked: {one['blocker']}" if one["blocker"] else ""
    return one["promise"], "; ".join(filter(None, (blocker, properties))) or "none"


def _span(names: list[str]) -> str:
    """Machine types that follow each other."""
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _broken_line(one: dict[str, Any]) -> str:
    where = "on the other host " if one["elsewhere"] else ""
    way_out = f"set {one['compat']} = {one['value']} by hand {where}([host] compat), or run {one['fixed']}"
    return f"{one['release']}: {one['why']} ({one['parameter']})\n  way out: {way_out}"
